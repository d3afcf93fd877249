-- Functions of the graph layer that are in Rust.

-- Reads, checks and stores the configuration of a flow: every fault is reported at once, nothing is stored if there is one.
CREATE FUNCTION flow.configure_flow(_flow_name TEXT, _configuration JSONB, _append BOOL DEFAULT FALSE)
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'configure_flow_wrapper';
COMMENT ON FUNCTION flow.configure_flow IS
  'Checks and stores the configuration of a flow (JSON: nodes, flow, concurrency_group_routine) as a new version, '
  'which the next run takes; open runs keep theirs. _append: adds to what is stored instead of replacing it. The '
  'same configuration again makes no new version. All faults are raised at once as invalid_parameter_value, with '
  'their JSON paths; flow.validate gives them as rows. insufficient_privilege: the flow belongs to a role whose '
  'rights you lack.';

-- The faults and warnings that configure_flow would report, as rows; stores nothing.
CREATE FUNCTION flow.validate(
  _configuration JSONB, OUT path TEXT, OUT severity TEXT, OUT message TEXT, OUT hint TEXT)
RETURNS SETOF RECORD LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'validate_wrapper';
COMMENT ON FUNCTION flow.validate IS
  'What configure_flow would find wrong, as rows: JSON path, severity (error or warning), message, hint. Stores '
  'nothing.';

-- A diagram as Graphviz text: {"title", "legend", "nodes": [{name, target, routine, status, steps: {total, pending,
-- running, finished, failed}, run_time, note, empty, steps_to_flow}], "edges": [{parent, child, continue_on_failure}]},
-- where parent and child count the nodes from 0.
CREATE FUNCTION flow.render_graphviz(_diagram JSONB)
RETURNS TEXT LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'render_graphviz_wrapper';
COMMENT ON FUNCTION flow.render_graphviz IS
  'Internal: a diagram (JSON) in the language of Graphviz; flow.graphviz makes the JSON.';

-- The colour that a diagram gives a status word.
CREATE FUNCTION flow.node_status_color(_status TEXT)
RETURNS TEXT LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'node_status_color_wrapper';
COMMENT ON FUNCTION flow.node_status_color IS
  'The colour (X11 name) that diagrams give a status word of flow.v_flow_node_status.';
