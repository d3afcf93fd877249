-- What one reads: the relations of the SQL original, status of runs, nodes and tasks. Every view runs with the rights of
-- who reads it, and nothing in them keeps a condition on flow_id from reaching the primary keys.

-- Parsed when they are created, so that no search_path can change their meaning and the planner can inline them.
CREATE FUNCTION flow.node_status(
  _state flow.node_state_t, _running BOOL, _eligible_when TIMESTAMPTZ, _yielded TIMESTAMPTZ, _processed TIMESTAMPTZ,
  _failed BOOL, _steps_open BOOL) RETURNS TEXT LANGUAGE sql STABLE
RETURN CASE _state::"char"
  WHEN 'W' THEN 'Pending'
  WHEN 'S' THEN 'Running Steps'
  WHEN 'F' THEN 'Finished'
  WHEN 'N' THEN 'Finished'
  WHEN 'E' THEN 'Failed'
  WHEN 'K' THEN 'Skipped'
  WHEN 'C' THEN 'Cancelled'
  WHEN 'T' THEN 'Timed Out'
  ELSE CASE
    WHEN _running THEN 'Running'
    WHEN _failed THEN 'Failed'
    WHEN _processed IS NOT NULL THEN CASE WHEN _steps_open THEN 'Running Steps' ELSE 'Finished' END
    WHEN _eligible_when > statement_timestamp() THEN 'Deferred'
    WHEN _yielded IS NOT NULL THEN 'Running Async'
    ELSE 'Pending' END
END;
COMMENT ON FUNCTION flow.node_status IS 'Internal: the status word of a node of a run.';

CREATE FUNCTION flow.step_status(
  _finish_status async.finish_status_t, _processed TIMESTAMPTZ, _running BOOL, _eligible_when TIMESTAMPTZ,
  _yielded TIMESTAMPTZ) RETURNS TEXT LANGUAGE sql STABLE
RETURN CASE
  WHEN _processed IS NOT NULL THEN CASE _finish_status
    WHEN 'FINISHED' THEN 'Finished'
    WHEN 'CANCELED' THEN 'Cancelled'
    WHEN 'TIMED_OUT' THEN 'Timed Out'
    ELSE 'Failed' END
  WHEN _running THEN 'Running'
  -- A step of a node that has not opened is put off for ever.
  WHEN _eligible_when = 'infinity' THEN 'Pending'
  WHEN _eligible_when > statement_timestamp() THEN 'Deferred'
  WHEN _yielded IS NOT NULL THEN 'Running Async'
  ELSE 'Pending'
END;
COMMENT ON FUNCTION flow.step_status IS 'Internal: the status word of a step.';

CREATE FUNCTION flow.pretty_time(_from TIMESTAMPTZ, _to TIMESTAMPTZ) RETURNS TEXT LANGUAGE sql STABLE
RETURN CASE WHEN _from IS NULL THEN ''
  ELSE async.interval_pretty(greatest(coalesce(_to, statement_timestamp()) - _from, INTERVAL '0')) END;
COMMENT ON FUNCTION flow.pretty_time IS
  'Internal: the time between two moments (null: now) in words; '''' when it has not begun.';

-- The statement that a task of a flow runs.
CREATE FUNCTION flow.task_query(
  _routine TEXT, _starts_flow TEXT, _flow_id BIGINT, _flow TEXT, _flow_arguments JSONB, _node TEXT, _step_arguments JSONB,
  _task_id BIGINT) RETURNS TEXT LANGUAGE sql STABLE
RETURN CASE
  WHEN _task_id IS NULL THEN NULL
  WHEN _starts_flow IS NOT NULL THEN
    format('SELECT flow.run_flow(%L, %L, _parent_task_id => %s)', _starts_flow, _step_arguments, _task_id)
  ELSE format('CALL %s(ROW(%s, %L, %L, %L, %L, %s)::flow.callback_arguments_t)', _routine, _flow_id, _flow,
    _flow_arguments, _node, _step_arguments, _task_id)
END;
COMMENT ON FUNCTION flow.task_query IS 'Internal: the statement that a task of a flow runs, in full.';

-- The configured flows, as the original keeps them.

CREATE VIEW flow.flow_configuration WITH (security_invoker = true) AS
  SELECT c.flow, d.concurrency_group_routine, d.priority, d.run_as, c.owner, d.author, d.created AS configured,
    d.definition_id
  FROM flow.configured c JOIN flow.definition d USING (definition_id);
COMMENT ON VIEW flow.flow_configuration IS
  'The configured flows: one row each, with the version that the next run takes.';

CREATE VIEW flow.node WITH (security_invoker = true) AS
  SELECT n.node, coalesce(n.target, 'local') AS target, n.routine, n.routine AS node_routine, n.step_routine, n.priority,
    n.all_steps_must_complete, n.empty, n.steps_to_flow, n.synchronous, n.node_timeout, n.step_timeout, c.flow
  FROM flow.configured c JOIN flow.definition_node n USING (definition_id);
COMMENT ON VIEW flow.node IS
  'The nodes of the configured flows. A node belongs to its flow: two flows may each have one of the same name.';

CREATE VIEW flow.step WITH (security_invoker = true) AS
  SELECT n.node, s.arguments, c.flow
  FROM flow.configured c
  JOIN flow.definition_node n USING (definition_id)
  CROSS JOIN LATERAL jsonb_array_elements(n.steps) AS s(arguments);
COMMENT ON VIEW flow.step IS 'The static steps of the configured flows.';

CREATE VIEW flow.dependency_configuration WITH (security_invoker = true) AS
  SELECT c.flow, p.node AS parent, n.node AS child, e.continue_on_failure
  FROM flow.configured c
  JOIN flow.definition_edge e USING (definition_id)
  CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
    WHERE x.definition_id = e.definition_id AND x.node_no = e.parent_no OFFSET 0) p
  CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
    WHERE x.definition_id = e.definition_id AND x.node_no = e.node_no OFFSET 0) n;
COMMENT ON VIEW flow.dependency_configuration IS 'The dependencies of the configured flows.';

-- Runs.

CREATE VIEW flow.dependency WITH (security_invoker = true) AS
  SELECT f.flow_id, p.node AS parent, n.node AS child, e.continue_on_failure
  FROM flow.flow f
  JOIN flow.definition_edge e USING (definition_id)
  CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
    WHERE x.definition_id = e.definition_id AND x.node_no = e.parent_no OFFSET 0) p
  CROSS JOIN LATERAL (SELECT x.node FROM flow.definition_node x
    WHERE x.definition_id = e.definition_id AND x.node_no = e.node_no OFFSET 0) n;
COMMENT ON VIEW flow.dependency IS 'The dependencies of the runs, each as of the version that it was started with.';

CREATE VIEW flow.arguments WITH (security_invoker = true) AS
  SELECT f.flow_id, f.arguments FROM flow.flow f;
COMMENT ON VIEW flow.arguments IS 'The arguments of the runs.';

CREATE VIEW flow.v_flow_status WITH (security_invoker = true) AS
  SELECT f.flow_id, f.flow, CASE WHEN f.processed IS NULL THEN 'No' ELSE 'Yes' END AS complete,
    flow.pretty_time(f.created, f.processed) AS run_time, f.count_nodes::BIGINT AS count_nodes,
    (f.count_finished_nodes - f.count_failed_nodes)::BIGINT AS count_finished_nodes,
    f.count_failed_nodes::BIGINT AS count_failed_nodes, f.arguments, f.first_error
  FROM flow.flow f;
COMMENT ON VIEW flow.v_flow_status IS 'The runs: one row each, from flow.flow alone.';

CREATE VIEW flow.v_flow_configuration WITH (security_invoker = true) AS
  SELECT c.flow, d.concurrency_group_routine, f.created AS last_execution_time,
    CASE WHEN f.processed IS NOT NULL THEN f.count_failed_nodes = 0 END AS last_execution_success,
    'RUN'::TEXT AS flow_concurrency_control, f.flow_id AS last_execution_flow_id,
    coalesce(r.count_flows_running, 0)::INT AS count_flows_running, 0 AS count_flows_pending,
    f.first_error AS last_error_message
  FROM flow.configured c
  JOIN flow.definition d USING (definition_id)
  LEFT JOIN (
    SELECT x.flow, max(x.flow_id) AS flow_id, count(*) FILTER (WHERE x.processed IS NULL) AS count_flows_running
    FROM flow.flow x GROUP BY x.flow) r ON r.flow = c.flow
  LEFT JOIN flow.flow f ON f.flow_id = r.flow_id;
COMMENT ON VIEW flow.v_flow_configuration IS 'The configured flows, each with its last run.';

-- One row a node of a run. Nodes and steps come from one pass over the run, and the rest is looked up by key (OFFSET 0, see
-- flow.open_tasks): a join of nodes and steps, planned while the statistics lag or by a run in which one node has most of
-- the steps, would be of every node with every step.
CREATE VIEW flow.v_flow_node_status WITH (security_invoker = true) AS
  SELECT f.flow_id, f.flow, (s.n).node, coalesce(d.target, 'local') AS target, w.started, (s.n).ended AS finished,
    flow.node_status((s.n).state, r.task_id IS NOT NULL, t.eligible_when, t.yielded, t.processed, t.failed, s.open > 0)
      AS status,
    s.steps, s.open - s.running AS steps_pending, s.running AS steps_running, s.finished AS steps_finished,
    s.steps - s.open - s.finished AS steps_failed, d.all_steps_must_complete,
    flow.pretty_time(w.started, (s.n).ended) AS run_time,
    greatest((s.n).opened, (s.n).ended, r.started, t.consumed, t.yielded, t.processed) AS changed,
    w.started IS NOT NULL AND (s.n).ended IS NULL AS in_progress,
    CASE WHEN r.task_id IS NOT NULL THEN r.progress_done WHEN s.steps > 0 THEN s.steps - s.open END AS progress_done,
    CASE WHEN r.task_id IS NOT NULL THEN r.progress_total WHEN s.steps > 0 THEN s.steps END AS progress_total,
    r.progress_note,
    t.attempt + (r.task_id IS NOT NULL)::INT AS attempt,
    coalesce((s.n).error, t.processing_error) AS error,
    CASE WHEN (s.n).state::"char" = 'K' THEN (s.n).blocked_by END AS skipped_by, s.node_no
  FROM flow.flow f
  JOIN (
    SELECT u.flow_id, u.node_no, (array_agg(u.n) FILTER (WHERE NOT u.is_step))[1] AS n,
      count(*) FILTER (WHERE u.is_step) AS steps, count(*) FILTER (WHERE u.open) AS open,
      count(*) FILTER (WHERE u.open AND (u.yielded OR u.task_id IN (SELECT x.task_id FROM async.running() x)))
        AS running,
      count(*) FILTER (WHERE u.finished) AS finished
    FROM (
      SELECT n.flow_id, n.node_no, n, false AS is_step, NULL::BIGINT AS task_id, false AS open, false AS yielded,
        false AS finished
      FROM flow.flow_node n
      UNION ALL
      SELECT s.flow_id, s.node_no, NULL::flow.flow_node, true, s.task_id, t.processed IS NULL,
        t.yielded IS NOT NULL, t.processed IS NOT NULL AND t.finish_status = 'FINISHED'
      FROM flow.flow_step s
      CROSS JOIN LATERAL (
        SELECT x.processed, x.yielded, x.finish_status FROM async.task x WHERE x.task_id = s.task_id OFFSET 0) t) u
    GROUP BY u.flow_id, u.node_no) s ON s.flow_id = f.flow_id
  CROSS JOIN LATERAL (
    SELECT x.target, x.all_steps_must_complete FROM flow.definition_node x
    WHERE x.definition_id = f.definition_id AND x.node_no = s.node_no OFFSET 0) d
  LEFT JOIN LATERAL (SELECT x.* FROM async.task x WHERE x.task_id = (s.n).task_id OFFSET 0) t ON true
  LEFT JOIN async.running() r ON r.task_id = (s.n).task_id
  CROSS JOIN LATERAL (
    SELECT CASE WHEN (s.n).task_id IS NOT NULL THEN coalesce(t.first_consumed, r.started)
      WHEN NOT (s.n).excluded THEN (s.n).opened END AS started) w;
COMMENT ON VIEW flow.v_flow_node_status IS
  'The nodes of runs: one row each. Meant to be read with a condition on flow_id.';

-- One row a node (its own task) and one a step.
CREATE VIEW flow.v_flow_task_status WITH (security_invoker = true) AS
  SELECT f.flow_id, n.task_id, 'Node'::TEXT AS type, f.flow, n.node, coalesce(d.target, 'local') AS target,
    to_char(w.started, 'YYYY-MM-DD HH24:MI:SS') AS started,
    CASE WHEN n.ended IS NULL THEN 'No' ELSE 'Yes' END AS complete,
    flow.pretty_time(w.started, n.ended) AS run_time,
    flow.node_status(n.state, r.task_id IS NOT NULL, t.eligible_when, t.yielded, t.processed, t.failed, false) AS status,
    '{}'::TEXT AS step_arguments,
    coalesce(t.processing_error, n.error) AS processing_error,
    flow.task_query(coalesce(d.routine_resolved, d.routine), NULL, f.flow_id, f.flow, f.arguments, n.node, '{}',
      n.task_id) AS query,
    r.progress_done, r.progress_total, r.progress_note,
    t.attempt + (r.task_id IS NOT NULL)::INT AS attempt
  FROM flow.flow f
  JOIN flow.flow_node n ON n.flow_id = f.flow_id
  CROSS JOIN LATERAL (
    SELECT x.target, x.routine_resolved, x.routine FROM flow.definition_node x
    WHERE x.definition_id = f.definition_id AND x.node_no = n.node_no OFFSET 0) d
  LEFT JOIN LATERAL (SELECT x.* FROM async.task x WHERE x.task_id = n.task_id OFFSET 0) t ON true
  LEFT JOIN async.running() r ON r.task_id = n.task_id
  CROSS JOIN LATERAL (
    SELECT CASE WHEN n.task_id IS NOT NULL THEN coalesce(t.first_consumed, r.started)
      WHEN NOT n.excluded THEN n.opened END AS started) w
  UNION ALL
  SELECT f.flow_id, t.task_id, 'Step'::TEXT, f.flow, d.node, t.target,
    to_char(coalesce(t.first_consumed, r.started), 'YYYY-MM-DD HH24:MI:SS'),
    CASE WHEN t.processed IS NULL THEN 'No' ELSE 'Yes' END,
    flow.pretty_time(coalesce(t.first_consumed, r.started), t.processed),
    flow.step_status(t.finish_status, t.processed, r.task_id IS NOT NULL, t.eligible_when, t.yielded),
    t.task_data::TEXT, t.processing_error,
    flow.task_query(coalesce(d.step_routine_resolved, d.step_routine), d.steps_to_flow, f.flow_id, f.flow, f.arguments,
      d.node, t.task_data, t.task_id),
    r.progress_done, r.progress_total, r.progress_note,
    t.attempt + (r.task_id IS NOT NULL)::INT
  FROM flow.flow f
  JOIN flow.flow_step s ON s.flow_id = f.flow_id
  CROSS JOIN LATERAL (
    SELECT x.node, x.step_routine_resolved, x.step_routine, x.steps_to_flow FROM flow.definition_node x
    WHERE x.definition_id = f.definition_id AND x.node_no = s.node_no OFFSET 0) d
  CROSS JOIN LATERAL (SELECT x.* FROM async.task x WHERE x.task_id = s.task_id OFFSET 0) t
  LEFT JOIN async.running() r ON r.task_id = s.task_id;
COMMENT ON VIEW flow.v_flow_task_status IS
  'The tasks of runs: a row for each node (its own task; task_id null while it has none) and one for each step. '
  'Meant to be read with a condition on flow_id.';

-- The tasks of runs with the columns of the original. The equalities beyond task_id let a condition on task_id, too, start
-- from the task's primary key.
CREATE VIEW flow.v_flow_task WITH (security_invoker = true) AS
  SELECT k.flow_id, k.node, k.step_arguments, k.is_node, k.task_id, k.target, k.priority, k.entered,
    coalesce(r.started, k.consumed) AS consumed, k.processed, k.yielded, k.finish_status, k.source,
    flow.task_query(k.routine, k.starts_flow, k.flow_id, k.flow, k.flow_arguments, k.node, k.step_arguments, k.task_id)
      AS query,
    k.failed, k.processing_error, k.asynchronous_finish, k.times_up,
    jsonb_build_object('flow_id', k.flow_id, 'node', k.node, 'step_arguments', k.step_arguments) AS task_data,
    k.concurrency_pool, k.manual_timeout,
    k.processed IS NULL AND (r.task_id IS NOT NULL OR (k.yielded IS NOT NULL AND k.track_yielded)) AS tracked,
    k.track_yielded, k.eligible_when
  FROM (
    SELECT f.flow_id, f.flow, f.arguments AS flow_arguments, n.node, '{}'::JSONB AS step_arguments, true AS is_node,
      coalesce(d.routine_resolved, d.routine) AS routine, NULL::TEXT AS starts_flow, t.task_id, t.target, t.priority,
      t.entered, t.consumed, t.processed, t.yielded, t.finish_status, t.source, t.failed, t.processing_error,
      t.asynchronous_finish, t.times_up, t.concurrency_pool, t.manual_timeout, t.track_yielded, t.eligible_when
    FROM flow.flow f
    JOIN flow.flow_node n ON n.flow_id = f.flow_id
    JOIN flow.definition_node d ON d.definition_id = f.definition_id AND d.node_no = n.node_no
    JOIN async.task t ON t.task_id = n.task_id AND t.flow_id = n.flow_id AND t.node_no = n.node_no
    UNION ALL
    SELECT f.flow_id, f.flow, f.arguments, d.node, t.task_data, false,
      coalesce(d.step_routine_resolved, d.step_routine), d.steps_to_flow, t.task_id, t.target, t.priority,
      t.entered, t.consumed, t.processed, t.yielded, t.finish_status, t.source, t.failed, t.processing_error,
      t.asynchronous_finish, t.times_up, t.concurrency_pool, t.manual_timeout, t.track_yielded, t.eligible_when
    FROM flow.flow f
    JOIN flow.flow_step s ON s.flow_id = f.flow_id
    JOIN flow.definition_node d ON d.definition_id = f.definition_id AND d.node_no = s.node_no
    JOIN async.task t ON t.task_id = s.task_id AND t.flow_id = s.flow_id AND t.node_no = s.node_no) k
  LEFT JOIN async.running() r ON r.task_id = k.task_id;
COMMENT ON VIEW flow.v_flow_task IS
  'The tasks of runs with the columns of the SQL original. Meant to be read with a condition on flow_id or task_id.';

CREATE FUNCTION flow.args(_flow_id BIGINT) RETURNS JSONB
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client() THEN
    RETURN flow.server_args(_flow_id);
  END IF;
  RETURN (flow.visible_run(_flow_id)).arguments;
END
$$;
COMMENT ON FUNCTION flow.args IS
  'The arguments of a run; on a client (async.server) of a run of the orchestrating server, asked once and kept. Raises '
  'undefined_object when you see no run of that number.';

-- Reads a run as the caller sees it; raises when there is none.
CREATE FUNCTION flow.visible_run(_flow_id BIGINT) RETURNS flow.flow
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run flow.flow;
BEGIN
  SELECT * INTO _run FROM flow.flow f WHERE f.flow_id = _flow_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('run %s does not exist', coalesce(_flow_id::TEXT, 'NULL')),
      HINT = 'flow.v_flow_status lists the runs that you may see; finished ones are purged after a while.';
  END IF;
  RETURN _run;
END
$$;
COMMENT ON FUNCTION flow.visible_run IS 'Internal: reads a run as the caller sees it; raises undefined_object.';

CREATE FUNCTION flow.flows(_limit INT DEFAULT 1000) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(s ORDER BY s.flow_id DESC), '[]')
  FROM (SELECT * FROM flow.v_flow_status v ORDER BY v.flow_id DESC LIMIT _limit) s;
$$;
COMMENT ON FUNCTION flow.flows IS
  'The newest _limit runs as a JSON array of the rows of flow.v_flow_status, newest first.';

CREATE FUNCTION flow.task_list(_flow_id BIGINT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(t ORDER BY t.task_id DESC), '[]')
  FROM flow.v_flow_task_status t WHERE t.flow_id = _flow_id;
$$;
COMMENT ON FUNCTION flow.task_list IS
  'The tasks of a run as a JSON array of the rows of flow.v_flow_task_status, newest first; [] when there is no '
  'such run.';

CREATE FUNCTION flow.graphviz(_flow_id BIGINT, OUT data TEXT)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run   flow.flow := flow.visible_run(_flow_id);
  _nodes JSONB;
BEGIN
  SELECT jsonb_agg(jsonb_build_object(
    'name', s.node, 'target', s.target, 'routine', d.routine, 'status', s.status, 'run_time', nullif(s.run_time, ''),
    'steps', CASE WHEN s.steps > 0 THEN jsonb_build_object('total', s.steps, 'pending', s.steps_pending,
      'running', s.steps_running, 'finished', s.steps_finished, 'failed', s.steps_failed) END,
    'note', coalesce(s.error, s.progress_note), 'empty', d.empty, 'steps_to_flow', d.steps_to_flow)
    ORDER BY d.node_no)
  INTO _nodes
  FROM flow.v_flow_node_status s
  CROSS JOIN LATERAL (SELECT x.* FROM flow.definition_node x
    WHERE x.definition_id = _run.definition_id AND x.node_no = s.node_no OFFSET 0) d
  WHERE s.flow_id = _flow_id;
  data := flow.render_graphviz(jsonb_build_object(
    'title', format('%s / %s', _run.flow, _flow_id), 'legend', true, 'nodes', coalesce(_nodes, '[]'),
    'edges', flow.diagram_edges(_run.definition_id)));
END
$$;
COMMENT ON FUNCTION flow.graphviz(BIGINT) IS
  'The diagram of a run in the language of Graphviz: nodes with target, status colour, steps, run time. Raises '
  'undefined_object.';

CREATE FUNCTION flow.graphviz(_flow TEXT, OUT data TEXT)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _definition_id BIGINT := (SELECT c.definition_id FROM flow.configured c WHERE c.flow = _flow);
  _nodes         JSONB;
BEGIN
  IF _definition_id IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('flow "%s" is not configured', _flow),
      HINT = 'The configured flows are in flow.flow_configuration; the diagram of a run is flow.graphviz(_flow_id).';
  END IF;
  SELECT jsonb_agg(jsonb_build_object(
    'name', d.node, 'target', coalesce(d.target, 'local'), 'routine', d.routine, 'status', NULL, 'run_time', NULL,
    'steps', CASE WHEN jsonb_array_length(d.steps) > 0 THEN jsonb_build_object('total', jsonb_array_length(d.steps),
      'pending', 0, 'running', 0, 'finished', 0, 'failed', 0) END,
    'note', NULL, 'empty', d.empty, 'steps_to_flow', d.steps_to_flow)
    ORDER BY d.node_no)
  INTO _nodes
  FROM flow.definition_node d WHERE d.definition_id = _definition_id;
  data := flow.render_graphviz(jsonb_build_object(
    'title', _flow, 'legend', true, 'nodes', _nodes, 'edges', flow.diagram_edges(_definition_id)));
END
$$;
COMMENT ON FUNCTION flow.graphviz(TEXT) IS
  'The diagram of a configured flow, whether it has run or not, in the language of Graphviz. Raises '
  'undefined_object.';

-- The edges of a version by the places of their nodes in the diagram, from 0: a version's nodes are numbered in one go.
CREATE FUNCTION flow.diagram_edges(_definition_id BIGINT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object(
    'parent', e.parent_no - f.first, 'child', e.node_no - f.first, 'continue_on_failure', e.continue_on_failure)
    ORDER BY e.parent_no, e.node_no), '[]')
  FROM (SELECT min(d.node_no) AS first FROM flow.definition_node d WHERE d.definition_id = _definition_id) f
  CROSS JOIN flow.definition_edge e
  WHERE e.definition_id = _definition_id;
$$;
COMMENT ON FUNCTION flow.diagram_edges IS 'Internal: the edges of a version for flow.render_graphviz.';

CREATE FUNCTION flow.graphviz_events(
  _flow_id BIGINT, _since TIMESTAMPTZ, OUT node TEXT, OUT node_status_color TEXT, OUT node_steps_overview TEXT,
  OUT run_time TEXT, OUT status TEXT, OUT changed TIMESTAMPTZ)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.node, flow.node_status_color(s.status),
    CASE WHEN s.steps > 0 THEN format('pending %s running %s finished %s failed %s',
      s.steps_pending, s.steps_running, s.steps_finished, s.steps_failed) ELSE '' END,
    s.run_time, s.status, s.changed
  FROM flow.v_flow_node_status s
  WHERE s.flow_id = _flow_id AND (_since IS NULL OR s.changed > _since OR s.in_progress)
  ORDER BY s.changed, s.node;
$$;
COMMENT ON FUNCTION flow.graphviz_events IS
  'The nodes of a run that have changed after _since (null: all), and those that run, oldest change first: for a '
  'page that keeps a diagram up to date. node_steps_overview: ''pending 1 running 2 finished 3 failed 0'', '''' '
  'without steps.';
