-- Functions of the graph layer that are in Rust.

-- Reads, checks and stores the configuration of a flow: every fault is reported at once, nothing is stored if there is one.
CREATE FUNCTION flow.configure_flow(_flow_name TEXT, _configuration JSONB, _append BOOL DEFAULT FALSE)
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'configure_flow_wrapper';

-- The faults and warnings that configure_flow would report, as rows; stores nothing.
CREATE FUNCTION flow.validate(
  _configuration JSONB, OUT path TEXT, OUT severity TEXT, OUT message TEXT, OUT hint TEXT)
RETURNS SETOF RECORD LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'validate_wrapper';

-- A diagram as Graphviz text: {"title", "legend", "nodes": [{name, target, routine, status, steps: {total, pending,
-- running, finished, failed}, run_time, note, empty, steps_to_flow}], "edges": [{parent, child, continue_on_failure}]},
-- where parent and child count the nodes from 0.
CREATE FUNCTION flow.render_graphviz(_diagram JSONB)
RETURNS TEXT LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'render_graphviz_wrapper';

-- The colour that a diagram gives a status word.
CREATE FUNCTION flow.node_status_color(_status TEXT)
RETURNS TEXT LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'node_status_color_wrapper';
