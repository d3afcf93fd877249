-- Running an ended run again, whole, from a node on, or only what failed. The run keeps its number, version and role.

CREATE FUNCTION flow.restart_flow(_flow_id BIGINT, _node TEXT DEFAULT NULL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.restart_flow IS
  'Runs an ended run again under its number, version and role: all of it, or _node and all its descendants. What '
  'was pushed to these nodes is forgotten; static steps are not. Raises object_not_in_prerequisite_state while the '
  'run is open, undefined_object, insufficient_privilege.';

CREATE FUNCTION flow.restart_flow_as(_caller OID, _flow_id BIGINT, _node TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run   flow.flow := flow.require_ended(_caller, _flow_id);
  _nodes INT[];
BEGIN
  IF _node IS NULL THEN
    _nodes := ARRAY(SELECT n.node_no FROM flow.flow_node n WHERE n.flow_id = _flow_id ORDER BY n.node_no);
  ELSE
    SELECT ARRAY[n.node_no] INTO _nodes
    FROM flow.flow_node n
    WHERE n.flow_id = _flow_id AND n.node_no = flow.node_number(_run.definition_id, _node) AND NOT n.excluded;
    IF NOT FOUND THEN
      RAISE undefined_object USING
        MESSAGE = format('run %s of flow "%s" has no node "%s"', _flow_id, _run.flow, _node),
        DETAIL = CASE WHEN _run.only_these_nodes IS NOT NULL
          THEN 'The run was started with _only_these_nodes; the others take no part in it.'
          ELSE 'A run keeps the version of its flow that it was started with.' END,
        HINT = 'flow.v_flow_node_status lists the nodes of a run.';
    END IF;
    _nodes := flow.extend_selection(_run.definition_id, _nodes, false, true);
  END IF;
  PERFORM flow.reset_nodes(_flow_id, _nodes);
  PERFORM flow.reopen_run(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.restart_flow_as IS 'Internal: flow.restart_flow with the caller''s role.';

CREATE FUNCTION flow.retry_failed(_flow_id BIGINT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.retry_failed IS
  'Runs again what failed, timed out, was cancelled or skipped in an ended run, and what depends on it. A node that '
  'only its steps made fail keeps the finished ones and repeats the others. Nothing failed: a NOTICE. Errors as '
  'flow.restart_flow.';

CREATE FUNCTION flow.retry_failed_as(_caller OID, _flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run     flow.flow := flow.require_ended(_caller, _flow_id);
  _failed  INT[] := ARRAY(
    SELECT n.node_no FROM flow.flow_node n WHERE n.flow_id = _flow_id AND n.state::"char" IN ('E', 'T', 'C', 'K'));
  _below   INT[];
  _resumed INT[];
  _unfinished INT[];
BEGIN
  IF _failed = '{}' THEN
    RAISE NOTICE 'nothing in run % has failed', _flow_id;
    RETURN;
  END IF;
  -- Everything strictly below something that failed runs from its beginning.
  _below := flow.extend_selection(_run.definition_id, ARRAY(
    SELECT DISTINCT e.node_no FROM flow.definition_edge e
    WHERE e.definition_id = _run.definition_id AND (e.parent_no IN (SELECT unnest(_failed))) IS TRUE), false, true);
  -- A node whose own part was done (or that has none) and that only steps made fail goes on with those steps.
  _unfinished := ARRAY(
    SELECT DISTINCT s.node_no
    FROM flow.flow_step s
    CROSS JOIN LATERAL (SELECT x.finish_status FROM async.task x WHERE x.task_id = s.task_id OFFSET 0) t
    WHERE s.flow_id = _flow_id AND t.finish_status IS DISTINCT FROM 'FINISHED');
  _resumed := ARRAY(
    SELECT n.node_no
    FROM flow.flow_node n
    CROSS JOIN LATERAL (SELECT x.empty FROM flow.definition_node x
      WHERE x.definition_id = _run.definition_id AND x.node_no = n.node_no OFFSET 0) d
    LEFT JOIN LATERAL (SELECT x.finish_status FROM async.task x WHERE x.task_id = n.task_id OFFSET 0) t ON true
    WHERE n.flow_id = _flow_id AND n.state::"char" IN ('E', 'T', 'C')
      AND CASE WHEN d.empty THEN n.opened IS NOT NULL ELSE t.finish_status = 'FINISHED' END
      AND (n.node_no IN (SELECT unnest(_unfinished))) IS TRUE AND n.node_no NOT IN (SELECT unnest(_below)));
  PERFORM flow.resume_nodes(_flow_id, _resumed);
  PERFORM flow.reset_nodes(_flow_id, ARRAY(
    SELECT unnest(_failed) UNION SELECT unnest(_below) EXCEPT SELECT unnest(_resumed)));
  PERFORM flow.reopen_run(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.retry_failed_as IS 'Internal: flow.retry_failed with the caller''s role.';

-- Locks a run that is to run again; raises while it is open or cannot run.
CREATE FUNCTION flow.require_ended(_caller OID, _flow_id BIGINT) RETURNS flow.flow
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run flow.flow := flow.require_run(_caller, _flow_id, true);
BEGIN
  IF _run.processed IS NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('run %s of flow "%s" is still open', _flow_id, _run.flow),
      HINT = 'Wait for its end with flow.wait, or end it with flow.cancel; then it can run again.';
  END IF;
  PERFORM async.require_no_client();
  PERFORM async.require_engine();
  PERFORM async.require_runnable_role(_run.run_as);
  PERFORM flow.require_runnable(_run.definition_id, _run.run_as, CASE WHEN _run.only_these_nodes IS NOT NULL THEN ARRAY(
    SELECT n.node_no FROM flow.flow_node n WHERE n.flow_id = _flow_id AND NOT n.excluded) END);
  RETURN _run;
END
$$;
COMMENT ON FUNCTION flow.require_ended IS 'Internal: locks an ended run that can run again; raises otherwise.';

-- Makes nodes wait as if they had never run. Their steps and tasks go; what was logged about the tasks stays.
-- "IS TRUE" keeps the membership tests hashed ones, and no join is left to the planner: see flow.open_tasks.
CREATE FUNCTION flow.reset_nodes(_flow_id BIGINT, _nodes INT[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _definition_id BIGINT := (SELECT f.definition_id FROM flow.flow f WHERE f.flow_id = _flow_id);
  _tasks         BIGINT[];
BEGIN
  PERFORM FROM flow.flow_node n
  WHERE n.flow_id = _flow_id AND (n.node_no IN (SELECT unnest(_nodes))) IS TRUE ORDER BY n.node_no FOR UPDATE;

  WITH steps AS (
    DELETE FROM flow.flow_step s
    WHERE s.flow_id = _flow_id AND (s.node_no IN (SELECT unnest(_nodes))) IS TRUE RETURNING s.task_id
  )
  SELECT array_agg(k.task_id ORDER BY k.task_id) INTO _tasks
  FROM (
    SELECT s.task_id FROM steps s
    UNION ALL
    SELECT n.task_id FROM flow.flow_node n
    WHERE n.flow_id = _flow_id AND (n.node_no IN (SELECT unnest(_nodes))) IS TRUE AND n.task_id IS NOT NULL) k;
  FOR _at IN 1 .. coalesce(cardinality(_tasks), 0) BY 1000 LOOP
    DELETE FROM async.task t WHERE t.task_id = ANY (_tasks[_at : _at + 999]);
  END LOOP;

  UPDATE flow.flow_node n
  SET state = 'W', parents_open = 0, blocked_by = NULL, task_id = NULL, concurrency_pool = NULL, opened = NULL,
    ended = NULL, times_up = NULL, error = NULL
  WHERE n.flow_id = _flow_id AND (n.node_no IN (SELECT unnest(_nodes))) IS TRUE;
  -- Of parents that stay as they ended, only the outcome counts.
  WITH parents AS MATERIALIZED (
    SELECT e.node_no, count(*) FILTER (WHERE p.state IN ('W', 'O', 'S')) AS open,
      min(p.node) FILTER (WHERE p.state IN ('E', 'T', 'C', 'K') AND NOT e.continue_on_failure) AS blocked_by
    FROM flow.definition_edge e
    CROSS JOIN LATERAL (SELECT x.node, x.state::"char" AS state FROM flow.flow_node x
      WHERE x.flow_id = _flow_id AND x.node_no = e.parent_no OFFSET 0) p
    WHERE e.definition_id = _definition_id AND (e.node_no IN (SELECT unnest(_nodes))) IS TRUE
    GROUP BY e.node_no
  ), placed AS MATERIALIZED (
    SELECT p.open, p.blocked_by, n.at FROM parents p
    CROSS JOIN LATERAL (SELECT x.ctid AS at FROM flow.flow_node x
      WHERE x.flow_id = _flow_id AND x.node_no = p.node_no OFFSET 0) n
  )
  UPDATE flow.flow_node n SET parents_open = p.open, blocked_by = p.blocked_by FROM placed p WHERE n.ctid = p.at;
END
$$;
COMMENT ON FUNCTION flow.reset_nodes IS
  'Internal: makes nodes of a run wait as if they had never run; their steps and tasks are deleted.';

-- Reopens nodes whose own part is done: their steps that did not finish run again, the others stay as they ended.
CREATE FUNCTION flow.resume_nodes(_flow_id BIGINT, _nodes INT[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _definition_id BIGINT := (SELECT f.definition_id FROM flow.flow f WHERE f.flow_id = _flow_id);
  _again         RECORD;
BEGIN
  UPDATE flow.flow_node n
  SET state = 'S', ended = NULL, error = NULL, times_up = clock_timestamp() + (
    SELECT d.node_timeout FROM flow.definition_node d WHERE d.definition_id = _definition_id AND d.node_no = n.node_no)
  WHERE n.flow_id = _flow_id AND (n.node_no IN (SELECT unnest(_nodes))) IS TRUE;

  FOR _again IN
    SELECT s.node_no, array_agg(s.task_id ORDER BY s.task_id) AS task_ids
    FROM flow.flow_step s
    CROSS JOIN LATERAL (SELECT x.finish_status FROM async.task x WHERE x.task_id = s.task_id OFFSET 0) t
    WHERE s.flow_id = _flow_id AND (s.node_no IN (SELECT unnest(_nodes))) IS TRUE
      AND t.finish_status IS DISTINCT FROM 'FINISHED'
    GROUP BY s.node_no
  LOOP
    FOR _at IN 1 .. cardinality(_again.task_ids) BY 1000 LOOP
      UPDATE async.task t
      SET processed = NULL, finish_status = NULL, failed = NULL, processing_error = NULL, consumed = NULL,
        first_consumed = NULL, yielded = NULL, eligible_when = NULL, times_up = NULL, crashes = 0, suspect = false,
        -- An attempt that was stopped as it began was not counted: its late outcome must not match the new one.
        attempt = t.attempt + (t.consumed IS NULL)::int,
        partially_committed = false, unsure_since = NULL, intention = t.intention + 1,
        query = NULL  -- of a flow's task only what its query_routine has said is here: it is asked again
      WHERE t.task_id = ANY (_again.task_ids[_at : _at + 999]);
      PERFORM async.note_tasks(_again.task_ids[_at : _at + 999], 'STATUS', 'started again by flow.retry_failed');
    END LOOP;
    PERFORM async.reopen_from(_again.task_ids[1]);
    PERFORM async.announce_tasks(
      _again.task_ids[1], _again.task_ids[cardinality(_again.task_ids)], _flow_id, _again.node_no);
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.resume_nodes IS
  'Internal: reopens nodes whose own task has finished and those of their steps that did not.';

-- Counts anew what has ended, opens the run and starts what can start.
CREATE FUNCTION flow.reopen_run(_flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE flow.flow f
  SET processed = NULL, cancelled = false, count_finished_nodes = n.ended, count_failed_nodes = n.failed,
    first_error = (
      SELECT format('%s: %s', x.node, x.error) FROM flow.flow_node x
      WHERE x.flow_id = _flow_id AND x.state::"char" IN ('E', 'T', 'C') ORDER BY x.ended, x.node_no LIMIT 1)
  FROM (
    SELECT count(*) FILTER (WHERE x.state::"char" NOT IN ('W', 'O', 'S')) AS ended,
      count(*) FILTER (WHERE x.state::"char" IN ('E', 'T', 'C', 'K')) AS failed
    FROM flow.flow_node x WHERE x.flow_id = _flow_id) n
  WHERE f.flow_id = _flow_id;
  PERFORM flow.start_run(_flow_id);
  PERFORM async.announce_run(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.reopen_run IS
  'Internal: counts the ended nodes of a run anew, opens it and starts what can start.';
