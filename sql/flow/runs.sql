-- Runs: starting, cancelling, changing priority, waiting.

-- Reads a run that _caller may act for, locked FOR UPDATE where asked; raises otherwise.
CREATE FUNCTION flow.require_run(_caller OID, _flow_id BIGINT, _lock BOOL) RETURNS flow.flow
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run flow.flow;
BEGIN
  SELECT * INTO _run FROM flow.flow f WHERE f.flow_id = _flow_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('run %s does not exist', coalesce(_flow_id::TEXT, 'NULL')),
      HINT = 'flow.v_flow_status lists the runs; finished ones are purged after a while.';
  ELSIF pg_get_userbyid(_caller) <> _run.run_as AND NOT async.may_act(_caller, _run.run_as) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for run %s', _flow_id),
      DETAIL = format('The run belongs to role "%s".', _run.run_as),
      HINT = 'Become a member of that role, or ask a member of flow_admin.';
  END IF;
  IF _lock THEN
    SELECT * INTO _run FROM flow.flow f WHERE f.flow_id = _flow_id FOR UPDATE;
    IF NOT FOUND THEN
      RAISE undefined_object USING
        MESSAGE = format('run %s does not exist', _flow_id), DETAIL = 'It has just been purged.';
    END IF;
  END IF;
  RETURN _run;
END
$$;
COMMENT ON FUNCTION flow.require_run IS
  'Internal: reads a run, locked if asked; raises undefined_object, or insufficient_privilege unless the role (OID) '
  'may act for it.';

-- Raises unless the targets of the selected nodes (null: all) exist and _run_as may execute their local routines now.
CREATE FUNCTION flow.require_runnable(_definition_id BIGINT, _run_as NAME, _selected INT[]) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _wrong RECORD;
BEGIN
  SELECT n.node, n.target INTO _wrong
  FROM flow.definition_node n
  LEFT JOIN async.target t ON t.target = n.target
  WHERE n.definition_id = _definition_id AND n.target IS NOT NULL AND t.target IS NULL
    AND async.target_name(n.target) IS NULL AND (_selected IS NULL OR n.node_no IN (SELECT unnest(_selected)))
  ORDER BY n.node_no LIMIT 1;
  IF FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('target "%s" does not exist', _wrong.target),
      DETAIL = format('Node "%s" runs on it.', _wrong.node),
      HINT = 'Define the target with async.configure, or configure the flow again with another one.';
  END IF;

  -- Routines are resolved for local targets only, functions that make queries for all.
  SELECT r.*, to_regprocedure(r.routine || '(flow.callback_arguments_t)') IS NULL AS missing INTO _wrong
  FROM (
    SELECT u.routine, min(n.node) AS node, min(u.kind) AS kind
    FROM flow.definition_node n
    CROSS JOIN LATERAL (
      VALUES (n.routine_resolved, 'procedure'), (n.step_routine_resolved, 'procedure'),
             (n.query_routine_resolved, 'function')) u(routine, kind)
    WHERE n.definition_id = _definition_id AND u.routine IS NOT NULL
      AND (_selected IS NULL OR n.node_no IN (SELECT unnest(_selected)))
    GROUP BY u.routine) r
  LEFT JOIN pg_proc p ON p.oid = to_regprocedure(r.routine || '(flow.callback_arguments_t)')
  WHERE p.oid IS NULL OR NOT has_function_privilege(_run_as, p.oid, 'EXECUTE')
    OR NOT has_schema_privilege(_run_as, p.pronamespace, 'USAGE')
  ORDER BY r.node LIMIT 1;
  IF NOT FOUND THEN
    RETURN;
  ELSIF _wrong.missing THEN
    RAISE undefined_function USING
      MESSAGE = format('%s %s(flow.callback_arguments_t) does not exist', _wrong.kind, _wrong.routine),
      DETAIL = format('Node "%s" calls it. It existed when the flow was configured.', _wrong.node),
      HINT = 'Create it, or configure the flow again.';
  END IF;
  RAISE insufficient_privilege USING
    MESSAGE = format('permission denied for %s %s', _wrong.kind, _wrong.routine),
    DETAIL = format('Node "%s" calls it as role "%s".', _wrong.node, _run_as),
    HINT = format('GRANT EXECUTE ON %s %s(flow.callback_arguments_t) TO %I, and USAGE on its schema.',
      upper(_wrong.kind), _wrong.routine, _run_as);
END
$$;
COMMENT ON FUNCTION flow.require_runnable IS
  'Internal: raises unless the targets of the selected nodes (null: all) exist and the role may execute their local '
  'routines.';

-- The run whose step starts this one (steps_to_flow), and how deep that makes it. NULL and 0 for none.
CREATE FUNCTION flow.parent_of(
  _caller OID, _parent_task_id BIGINT, OUT parent_flow_id BIGINT, OUT depth INT, OUT force_priority INT)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _task RECORD;
  _run  flow.flow;
  _max  BIGINT := coalesce(async.setting('pgflow.max_flow_depth'), 16);
BEGIN
  depth := 0;
  SELECT t.flow_id, t.run_as, t.processed, t.xmin = pg_current_xact_id_if_assigned()::xid AS ours INTO _task
  FROM async.task t WHERE t.task_id = _parent_task_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING MESSAGE = format('task %s does not exist', _parent_task_id);
  ELSIF NOT async.may_act(_caller, _task.run_as) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for task %s', _parent_task_id),
      DETAIL = format('The task belongs to role "%s".', _task.run_as);
  END IF;
  IF _task.flow_id IS NOT NULL THEN
    -- Whoever cancels the parent looks for its children with the run locked. A worker that starts a child has written
    -- its own task before and needs no lock: if the parent is cancelled, this transaction goes or is waited for.
    IF NOT (coalesce(_task.ours, false) OR async.is_own_task(_parent_task_id)) THEN
      PERFORM FROM flow.flow f WHERE f.flow_id = _task.flow_id FOR KEY SHARE;
    END IF;
    SELECT * INTO _run FROM flow.flow f WHERE f.flow_id = _task.flow_id;
    parent_flow_id := _run.flow_id;
    depth := coalesce(_run.depth, 0) + 1;
    force_priority := _run.force_priority;
  END IF;
  IF _task.processed IS NOT NULL OR _run.processed IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s has ended and cannot start a run', _parent_task_id);
  ELSIF depth > _max THEN
    RAISE program_limit_exceeded USING
      MESSAGE = format('flows start flows more than %s levels deep', _max),
      DETAIL = format('Task %s of run %s is at level %s.', _parent_task_id, parent_flow_id, depth - 1),
      HINT = 'Look for a flow whose steps_to_flow leads back to itself, or raise pgflow.max_flow_depth.';
  END IF;
END
$$;
COMMENT ON FUNCTION flow.parent_of IS
  'Internal: the run, depth and priority that a run gets from the task that starts it. Raises when that task or its '
  'run has ended, or program_limit_exceeded.';

-- The numbers of the nodes that only_these_nodes names, extended. Null: all.
CREATE FUNCTION flow.selected_nodes(
  _definition_id BIGINT, _flow TEXT, _only TEXT[], _add_parents BOOL, _add_children BOOL) RETURNS INT[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _selected INT[];
  _unknown  TEXT;
BEGIN
  IF _only IS NULL THEN
    RETURN NULL;
  END IF;
  SELECT array_agg(n.node_no) FILTER (WHERE n.node_no IS NOT NULL),
         string_agg(format('"%s"', o.node), ', ' ORDER BY o.node) FILTER (WHERE n.node_no IS NULL)
  INTO _selected, _unknown
  FROM (SELECT DISTINCT unnest(_only) AS node) o
  LEFT JOIN LATERAL (
    SELECT d.node_no FROM flow.definition_node d
    WHERE d.definition_id = _definition_id AND d.node = o.node OFFSET 0) n ON true;
  IF _unknown IS NOT NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('flow "%s" has no node %s', _flow, _unknown),
      DETAIL = 'In _only_these_nodes.',
      HINT = format('Its nodes are %s.', (
        SELECT string_agg(format('"%s"', s.node), ', ') || CASE WHEN count(*) = 20 THEN ', …' ELSE '' END
        FROM (SELECT n.node FROM flow.definition_node n WHERE n.definition_id = _definition_id
              ORDER BY n.node_no LIMIT 20) s));
  END IF;
  RETURN flow.extend_selection(
    _definition_id, coalesce(_selected, '{}'), coalesce(_add_parents, false), coalesce(_add_children, false));
END
$$;
COMMENT ON FUNCTION flow.selected_nodes IS
  'Internal: the node numbers that _only_these_nodes means, extended; null: all. Raises undefined_object for an '
  'unknown name.';

-- What a flow runs as another role is its author's code: it stops when the author may not become that role any more.
CREATE FUNCTION flow.require_author(_flow TEXT, _author NAME, _run_as NAME) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _right CONSTANT TEXT := CASE WHEN current_setting('server_version_num')::INT >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
  IF EXISTS (SELECT FROM pg_roles a, pg_roles r
              WHERE a.rolname = _author AND r.rolname = _run_as AND NOT pg_has_role(a.oid, r.oid, _right)) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('flow "%s" may not run as role "%s" any more', _flow, _run_as),
      DETAIL = format('Role "%s", which configured it, has lost the right to SET ROLE %I.', _author, _run_as),
      HINT = 'Somebody who has that right can look at what it calls and configure it again.';
  END IF;
END
$$;
COMMENT ON FUNCTION flow.require_author IS
  'Internal: raises insufficient_privilege if the author of a flow that runs as another role may not become it any more.';

-- A step starts the flow of a name with the rights of its own run. Names are free for everybody: one that was nobody's, or
-- whose flow was dropped, could be taken by a role that wants those rights. So it must be the flow of the role it was when
-- this one was configured, or of one that could have changed this one as well.
CREATE FUNCTION flow.require_known_child(_task_id BIGINT, _flow TEXT, _owner NAME) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _parent RECORD;
BEGIN
  SELECT f.flow, d.author, c.owner, n.node, n.steps_to_owner INTO _parent
    FROM async.task t
    JOIN flow.flow f ON f.flow_id = t.flow_id
    JOIN flow.definition d ON d.definition_id = f.definition_id
    JOIN flow.definition_node n ON n.definition_id = f.definition_id AND n.node_no = t.node_no
    LEFT JOIN flow.configured c ON c.flow = f.flow
   WHERE t.task_id = _task_id AND t.is_step AND n.steps_to_flow = _flow AND n.steps_to_owner IS DISTINCT FROM _owner;
  IF FOUND AND NOT EXISTS (
       SELECT FROM pg_roles r WHERE r.rolname = _owner
          AND (async.may_act(r.oid, _parent.author) OR async.may_act(r.oid, _parent.owner))) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('node "%s" of flow "%s" may not start flow "%s" of role "%s"', _parent.node, _parent.flow, _flow, _owner),
      DETAIL = CASE WHEN _parent.steps_to_owner IS NULL THEN 'When it was configured, there was no such flow.'
                    ELSE format('When it was configured, that flow belonged to role "%s".', _parent.steps_to_owner) END,
      HINT = format('Look at flow "%s", and configure flow "%s" again if it is the one that is meant.', _flow, _parent.flow);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.require_known_child IS
  'Internal: raises insufficient_privilege if a step would start a flow that has come into other hands since its own was '
  'configured.';

CREATE FUNCTION flow.run_flow(
  _flow TEXT, _arguments JSONB, _only_these_nodes TEXT[] DEFAULT NULL, _add_parents BOOL DEFAULT FALSE,
  _add_children BOOL DEFAULT FALSE, _parent_task_id BIGINT DEFAULT NULL, _force_priority INT DEFAULT NULL,
  OUT flow_id BIGINT)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.run_flow IS
  'Starts a run of a configured flow and returns its flow_id. It begins when the transaction commits and runs as '
  'the role that calls this (or the flow''s run_as). _arguments: JSON for the callbacks, null: {}; '
  '_only_these_nodes: the others count as finished without running; _add_parents, _add_children: with all their '
  'ancestors, descendants; _parent_task_id: the task that starts it, which ends when the run does; _force_priority: '
  '-99 to 99, of all its tasks, lower first. Raises undefined_object (flow, node, target), undefined_function, '
  'insufficient_privilege, program_limit_exceeded (pgflow.max_flow_depth), object_not_in_prerequisite_state (the '
  'library is not preloaded).';

CREATE FUNCTION flow.create_flow(
  _flow TEXT, _arguments JSONB, _only_these_nodes TEXT[] DEFAULT NULL, _add_parents BOOL DEFAULT FALSE,
  _add_children BOOL DEFAULT FALSE, _parent_task_id BIGINT DEFAULT NULL, _force_priority INT DEFAULT NULL,
  OUT flow_id BIGINT)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.create_flow IS 'The same as flow.run_flow, under its newer name.';

CREATE FUNCTION flow.run_flow_as(
  _caller OID, _flow TEXT, _arguments JSONB, _only_these_nodes TEXT[], _add_parents BOOL, _add_children BOOL,
  _parent_task_id BIGINT, _force_priority INT) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _configured RECORD;
  _run_as     NAME := pg_get_userbyid(_caller);
  _parent     RECORD;
  _selected   INT[];
  _flow_id    BIGINT;
  _count      INT;
BEGIN
  PERFORM async.require_engine();
  PERFORM async.require_no_client();
  SELECT c.definition_id, c.owner, d.run_as, d.author INTO _configured
  FROM flow.configured c JOIN flow.definition d USING (definition_id) WHERE c.flow = _flow;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('flow "%s" is not configured', _flow),
      HINT = 'Configure it with flow.configure_flow; the configured flows are in flow.flow_configuration.';
  ELSIF _configured.run_as IS NOT NULL THEN
    IF NOT (async.may_act(_caller, _configured.run_as) OR async.may_act(_caller, _configured.owner)) THEN
      RAISE insufficient_privilege USING
        MESSAGE = format('permission denied for flow "%s"', _flow),
        DETAIL = format('It runs as role "%s" and belongs to role "%s".', _configured.run_as, _configured.owner),
        HINT = 'Become a member of one of them, or ask a member of flow_admin.';
    END IF;
    PERFORM flow.require_author(_flow, _configured.author, _configured.run_as);
    _run_as := _configured.run_as;
  END IF;
  IF _force_priority NOT BETWEEN -99 AND 99 THEN
    RAISE invalid_parameter_value USING MESSAGE = format('priority %s is not between -99 and 99', _force_priority);
  END IF;
  PERFORM async.require_runnable_role(_run_as);
  PERFORM async.require_size(pg_get_userbyid(_caller), NULL, ARRAY[_arguments], NULL);
  PERFORM async.require_another_run(_run_as, coalesce(async.is_own_task(_parent_task_id), false));
  IF _parent_task_id IS NOT NULL THEN
    _parent := flow.parent_of(_caller, _parent_task_id);
    PERFORM flow.require_known_child(_parent_task_id, _flow, _configured.owner);
  ELSE
    SELECT NULL::BIGINT AS parent_flow_id, 0 AS depth, NULL::INT AS force_priority INTO _parent;
  END IF;
  _selected := flow.selected_nodes(
    _configured.definition_id, _flow, _only_these_nodes, _add_parents, _add_children);
  PERFORM flow.require_runnable(_configured.definition_id, _run_as, _selected);

  _flow_id := nextval('flow.flow_id_seq');
  INSERT INTO flow.flow_node (flow_id, node_no, node, parents_open, excluded)
  SELECT _flow_id, n.node_no, n.node, n.count_parents,
    _selected IS NOT NULL AND n.node_no NOT IN (SELECT unnest(_selected))
  FROM flow.definition_node n
  WHERE n.definition_id = _configured.definition_id
  ORDER BY n.node_no;
  GET DIAGNOSTICS _count = ROW_COUNT;
  -- Keeps the version from being purged until the run is there for all to see.
  PERFORM FROM flow.definition d WHERE d.definition_id = _configured.definition_id FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE serialization_failure USING
      MESSAGE = format('flow "%s" was configured anew at this very moment', _flow), HINT = 'Run it again.';
  END IF;
  INSERT INTO flow.flow (
    flow_id, flow, definition_id, run_as, arguments, parent_task_id, parent_flow_id, depth, force_priority, count_nodes,
    only_these_nodes)
  VALUES (
    _flow_id, _flow, _configured.definition_id, _run_as, coalesce(_arguments, '{}'), _parent_task_id,
    _parent.parent_flow_id, _parent.depth, coalesce(_force_priority, _parent.force_priority), _count,
    CASE WHEN _selected IS NOT NULL THEN ARRAY(
      SELECT n.node FROM flow.flow_node n WHERE n.flow_id = _flow_id AND NOT n.excluded ORDER BY n.node_no) END);
  PERFORM flow.start_run(_flow_id);
  RETURN _flow_id;
END
$$;
COMMENT ON FUNCTION flow.run_flow_as IS 'Internal: flow.run_flow with the caller''s role.';

CREATE FUNCTION flow.create_flow_as(
  _caller OID, _flow TEXT, _arguments JSONB, _only_these_nodes TEXT[], _add_parents BOOL, _add_children BOOL,
  _parent_task_id BIGINT, _force_priority INT) RETURNS BIGINT
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT flow.run_flow_as(
    _caller, _flow, _arguments, _only_these_nodes, _add_parents, _add_children, _parent_task_id, _force_priority);
$$;
COMMENT ON FUNCTION flow.create_flow_as IS 'Internal: flow.create_flow with the caller''s role.';

CREATE FUNCTION flow.cancel(_flow_id BIGINT) RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.cancel IS
  'Cancels a run and the runs that its steps started: open tasks become CANCELED, running statements are stopped '
  'when the transaction commits. A run that has ended: a NOTICE. Raises undefined_object, insufficient_privilege.';

CREATE FUNCTION flow.cancel_as(_caller OID, _flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run    flow.flow;
  _reason TEXT := format('cancelled by %s', pg_get_userbyid(_caller));
  _level  BIGINT[] := ARRAY[_flow_id];
  _all    BIGINT[] := '{}';
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_cancel_run(_flow_id);
    RETURN;
  END IF;
  _run := flow.require_run(_caller, _flow_id, true);
  IF _run.processed IS NOT NULL THEN
    RAISE NOTICE 'run % has ended already', _flow_id;
    RETURN;
  END IF;
  -- Level by level, parents before children: ends with the depth of the nesting, which is limited.
  WHILE _level IS NOT NULL LOOP
    PERFORM flow.end_runs(_level, _reason);
    PERFORM flow.end_run_tasks(_level, _reason);
    _all := _all || _level;
    SELECT array_agg(c.flow_id) INTO _level
    FROM (SELECT f.flow_id FROM flow.flow f WHERE f.parent_flow_id = ANY (_all) AND f.processed IS NULL
          ORDER BY f.flow_id FOR UPDATE) c;
  END LOOP;
  PERFORM async.announce_run(u.flow_id) FROM unnest(_all) AS u(flow_id);

  IF _run.parent_task_id IS NOT NULL THEN
    UPDATE async.task t
    SET processed = clock_timestamp(), finish_status = 'FAILED', failed = true,
      processing_error = format('child flow %s was cancelled', _flow_id)
    WHERE t.task_id = _run.parent_task_id AND t.processed IS NULL;
    IF FOUND THEN
      PERFORM async.announce_ended(ARRAY[_run.parent_task_id]);
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION flow.cancel_as IS 'Internal: flow.cancel with the caller''s role.';

-- For the dispatcher: cancels a run and its children without waiting for anybody. False: a client has the run locked and
-- nothing was done. Tasks that are locked are left to whoever has them.
CREATE FUNCTION flow.cancel_run(_flow_id BIGINT, _reason TEXT) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _child BIGINT;
BEGIN
  PERFORM FROM flow.flow f WHERE f.flow_id = _flow_id AND f.processed IS NULL FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = _flow_id AND f.processed IS NOT NULL);
  END IF;
  PERFORM flow.end_runs(ARRAY[_flow_id], _reason);
  PERFORM async.end_tasks(flow.open_tasks(ARRAY[_flow_id]), 'CANCELED'::async.finish_status_t, _reason);
  PERFORM async.announce_run(_flow_id);
  FOR _child IN
    SELECT f.flow_id FROM flow.flow f WHERE f.parent_flow_id = _flow_id AND f.processed IS NULL ORDER BY f.flow_id
  LOOP
    PERFORM flow.cancel_run(_child, _reason);
  END LOOP;
  RETURN true;
END
$$;
COMMENT ON FUNCTION flow.cancel_run IS
  'Internal: for the dispatcher, cancels a run and its children without waiting for locks; false: the run is '
  'locked, nothing was done.';

-- Ends open runs and their nodes. The runs are locked. Does not wait for those who push steps to a node just now: what
-- they push to a node that has ended is dropped by the dispatcher.
CREATE FUNCTION flow.end_runs(_flow_ids BIGINT[], _reason TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _now TIMESTAMPTZ := clock_timestamp();
BEGIN
  PERFORM FROM flow.flow_node n WHERE n.flow_id = ANY (_flow_ids) AND n.state::"char" IN ('W', 'O', 'S')
  ORDER BY n.flow_id, n.node_no FOR NO KEY UPDATE;
  WITH ended AS (
    UPDATE flow.flow_node n
    SET state = CASE WHEN n.excluded THEN 'N' ELSE 'C' END, ended = _now, times_up = NULL,
      error = CASE WHEN NOT n.excluded THEN _reason END
    WHERE n.flow_id = ANY (_flow_ids) AND n.state::"char" IN ('W', 'O', 'S')
    RETURNING n.flow_id, n.excluded
  ), counted AS (
    SELECT e.flow_id, count(*) AS ended, count(*) FILTER (WHERE NOT e.excluded) AS failed FROM ended e GROUP BY e.flow_id
  )
  UPDATE flow.flow f
  SET processed = _now, cancelled = true, count_finished_nodes = f.count_finished_nodes + coalesce(c.ended, 0),
    count_failed_nodes = f.count_failed_nodes + coalesce(c.failed, 0), first_error = coalesce(f.first_error, _reason)
  FROM unnest(_flow_ids) AS u(flow_id) LEFT JOIN counted c USING (flow_id)
  WHERE f.flow_id = u.flow_id AND f.flow_id = ANY (_flow_ids);
END
$$;
COMMENT ON FUNCTION flow.end_runs IS 'Internal: ends locked open runs and their open nodes as cancelled.';

-- The open tasks of runs. Not the one that the caller is the callback of: it decides its outcome by itself.
-- OFFSET 0, here and elsewhere: looked up by key, whatever the planner believes. Statistics lag behind bursts of work, and
-- a join that seems to be of one row each must not turn out to be of a million by a million.
CREATE FUNCTION flow.open_tasks(_flow_ids BIGINT[]) RETURNS BIGINT[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg(k.task_id ORDER BY k.task_id), '{}')
  FROM (
    SELECT n.task_id FROM flow.flow_node n WHERE n.flow_id = ANY (_flow_ids) AND n.task_id IS NOT NULL
    UNION ALL
    SELECT s.task_id FROM flow.flow_step s WHERE s.flow_id = ANY (_flow_ids)) k
  CROSS JOIN LATERAL (SELECT t.processed FROM async.task t WHERE t.task_id = k.task_id OFFSET 0) t
  WHERE t.processed IS NULL AND NOT async.is_own_task(k.task_id);
$$;
COMMENT ON FUNCTION flow.open_tasks IS
  'Internal: the open tasks of runs, ascending, without the caller''s own running task.';

-- Ends the open tasks of runs; waits for those whose outcome is being written. In pieces, each with a look of its own:
-- workers go on ending tasks meanwhile, and a row that has changed since the look costs a check of the whole condition.
CREATE FUNCTION flow.end_run_tasks(_flow_ids BIGINT[], _reason TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _open    BIGINT[] := flow.open_tasks(_flow_ids);
  _running BIGINT[];
  _started TIMESTAMPTZ[];
  _piece   BIGINT[];
BEGIN
  SELECT array_agg(r.task_id), array_agg(r.started) INTO _running, _started FROM async.running() r;
  FOR _at IN 1 .. cardinality(_open) BY 1000 LOOP
    _piece := _open[_at : _at + 999];
    PERFORM FROM async.task t WHERE t.task_id = ANY (_piece) AND t.processed IS NULL
    ORDER BY t.task_id FOR NO KEY UPDATE;
    UPDATE async.task t
    SET processed = clock_timestamp(), finish_status = 'CANCELED', failed = true, processing_error = _reason,
      consumed = coalesce(_started[array_position(_running, t.task_id)], t.consumed),
      first_consumed = coalesce(t.first_consumed, _started[array_position(_running, t.task_id)]),
      attempt = t.attempt + (array_position(_running, t.task_id) IS NOT NULL)::INT
    WHERE t.task_id = ANY (_piece) AND t.processed IS NULL;
    PERFORM flow.unqueue(_piece, NULL);
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.end_run_tasks IS 'Internal: ends the open tasks of runs as CANCELED.';

-- Takes those of the tasks that clients could take from their queue, or (_priority given) moves them in it.
CREATE FUNCTION flow.unqueue(_task_ids BIGINT[], _priority INT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _place RECORD;
BEGIN
  FOR _place IN
    SELECT t.target, t.priority, array_agg(t.task_id) AS task_ids FROM async.task t
    WHERE t.task_id = ANY (_task_ids) AND t.target IN (SELECT g.target FROM async.target g WHERE g.kind = 'external')
    GROUP BY t.target, t.priority
  LOOP
    IF _priority IS NULL THEN
      DELETE FROM async.external_queue q
      WHERE q.target = _place.target AND q.priority = _place.priority AND q.task_id = ANY (_place.task_ids);
    ELSE
      UPDATE async.external_queue q SET priority = _priority
      WHERE q.target = _place.target AND q.priority = _place.priority AND q.task_id = ANY (_place.task_ids);
    END IF;
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.unqueue IS
  'Internal: takes tasks of external targets from async.external_queue, or gives them another priority in it.';

CREATE FUNCTION flow.set_priority(_flow_id BIGINT, _priority flow.flow_priority_t) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.set_priority IS
  'Gives all tasks of an open run and of the runs its steps started a priority: -99 to 99, lower first; null: what '
  'is configured. Waiting tasks follow when the transaction commits. A run that has ended: a NOTICE.';

CREATE FUNCTION flow.set_priority_as(_caller OID, _flow_id BIGINT, _priority flow.flow_priority_t) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run   flow.flow := flow.require_run(_caller, _flow_id, true);
  _level BIGINT[] := ARRAY[_flow_id];
BEGIN
  IF _run.processed IS NOT NULL THEN
    RAISE NOTICE 'run % has ended already', _flow_id;
    RETURN;
  END IF;
  WHILE _level IS NOT NULL LOOP
    PERFORM flow.prioritize_runs(_level, _priority);
    SELECT array_agg(c.flow_id) INTO _level
    FROM (SELECT f.flow_id FROM flow.flow f WHERE f.parent_flow_id = ANY (_level) AND f.processed IS NULL
          ORDER BY f.flow_id FOR UPDATE) c;
  END LOOP;
END
$$;
COMMENT ON FUNCTION flow.set_priority_as IS 'Internal: flow.set_priority with the caller''s role.';

-- Gives locked runs a priority; null: the configured ones again. In pieces, as flow.end_run_tasks.
CREATE FUNCTION flow.prioritize_runs(_flow_ids BIGINT[], _priority INT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _open   BIGINT[];
  _piece  BIGINT[];
  _wanted RECORD;
BEGIN
  UPDATE flow.flow f SET force_priority = _priority WHERE f.flow_id = ANY (_flow_ids);
  -- The rows of running tasks are left alone: a callback under REPEATABLE READ could not write its outcome any more.
  _open := array(SELECT o FROM unnest(flow.open_tasks(_flow_ids)) o WHERE o NOT IN (SELECT r.task_id FROM async.running() r));
  FOR _at IN 1 .. cardinality(_open) BY 1000 LOOP
    _piece := _open[_at : _at + 999];
    PERFORM FROM async.task t WHERE t.task_id = ANY (_piece) AND t.processed IS NULL
    ORDER BY t.task_id FOR NO KEY UPDATE;
    FOR _wanted IN
      SELECT w.priority, array_agg(t.task_id) AS task_ids
      FROM async.task t
      CROSS JOIN LATERAL (
        SELECT coalesce(_priority, d.priority) AS priority
        FROM flow.flow f
        CROSS JOIN LATERAL (SELECT x.priority FROM flow.definition_node x
          WHERE x.definition_id = f.definition_id AND x.node_no = t.node_no OFFSET 0) d
        WHERE f.flow_id = t.flow_id OFFSET 0) w
      WHERE t.task_id = ANY (_piece) AND t.processed IS NULL AND t.priority <> w.priority
      GROUP BY w.priority
    LOOP
      PERFORM flow.unqueue(_wanted.task_ids, _wanted.priority);
      UPDATE async.task t SET priority = _wanted.priority WHERE t.task_id = ANY (_wanted.task_ids);
    END LOOP;
  END LOOP;
  PERFORM async.announce_run(u.flow_id) FROM unnest(_flow_ids) AS u(flow_id);
END
$$;
COMMENT ON FUNCTION flow.prioritize_runs IS
  'Internal: gives locked runs and their open tasks a priority; null: what is configured.';

CREATE FUNCTION flow.set_step_priority(_flow_id BIGINT, _task_id BIGINT, _priority flow.flow_priority_t) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.set_step_priority IS
  'Gives one open task of a run a priority (-99 to 99, lower first), and the run that it started. Raises '
  'undefined_object when the run has no such task; a task that has ended: a NOTICE.';

CREATE FUNCTION flow.set_step_priority_as(
  _caller OID, _flow_id BIGINT, _task_id BIGINT, _priority flow.flow_priority_t) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run   flow.flow := flow.require_run(_caller, _flow_id, true);
  _task  async.task;
BEGIN
  SELECT * INTO _task FROM async.task t WHERE t.task_id = _task_id AND t.flow_id = _flow_id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('run %s has no task %s', _flow_id, _task_id),
      HINT = 'flow.v_flow_task_status lists the tasks of a run.';
  ELSIF _priority IS NULL THEN
    RAISE null_value_not_allowed USING MESSAGE = 'a priority is needed';
  ELSIF _task.processed IS NOT NULL THEN
    RAISE NOTICE 'task % has ended already', _task_id;
    RETURN;
  END IF;
  PERFORM flow.unqueue(ARRAY[_task_id], _priority);
  UPDATE async.task t SET priority = _priority WHERE t.task_id = _task_id;
  PERFORM async.announce_run(_flow_id);
  PERFORM flow.set_priority_as(_caller, f.flow_id, _priority)
  FROM flow.flow f WHERE f.parent_flow_id = _flow_id AND f.parent_task_id = _task_id AND f.processed IS NULL;
END
$$;
COMMENT ON FUNCTION flow.set_step_priority_as IS 'Internal: flow.set_step_priority with the caller''s role.';
