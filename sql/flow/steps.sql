-- Steps: pushing them; and what a callback says about its own task: finished, put off, how far it is. The procedures that
-- callbacks call are in client/calls.sql; they come here unless this database is a client.

CREATE FUNCTION flow.push_steps_as(
  _caller OID, _flow_id BIGINT, _node TEXT, _arguments JSONB[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _run     flow.flow := flow.require_run(_caller, _flow_id, false);
  _node_no INT := flow.node_number(_run.definition_id, _node);
  _at      RECORD;
  _pushed  RECORD;
BEGIN
  IF _node_no IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('run %s of flow "%s" has no node "%s"', _flow_id, _run.flow, _node),
      HINT = format('Its nodes are %s.', (
        SELECT string_agg(format('"%s"', s.node), ', ') || CASE WHEN count(*) = 20 THEN ', …' ELSE '' END
        FROM (SELECT n.node FROM flow.definition_node n WHERE n.definition_id = _run.definition_id
              ORDER BY n.node_no LIMIT 20) s));
  END IF;
  PERFORM async.require_size(pg_get_userbyid(_caller), cardinality(_arguments), _arguments, NULL);
  PERFORM flow.check_steps(_arguments);
  IF coalesce(cardinality(_arguments), 0) = 0 THEN
    RETURN;
  END IF;

  -- With this lock held the node cannot end; the dispatcher does not wait for it, so it must be told when it is gone.
  SELECT n.state::"char" AS state, n.excluded INTO _at
  FROM flow.flow_node n WHERE n.flow_id = _flow_id AND n.node_no = _node_no FOR KEY SHARE;
  PERFORM async.announce_node(_flow_id, _node_no);
  IF _at.excluded THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('node "%s" takes no part in run %s', _node, _flow_id),
      DETAIL = 'The run was started with _only_these_nodes, and this node is not among them.';
  ELSIF _at.state NOT IN ('W', 'O', 'S') OR _run.processed IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('node "%s" of run %s has ended', _node, _flow_id),
      DETAIL = 'A node takes steps until its own task and all its steps have ended.',
      HINT = 'Push steps from the node''s callback or from one of its steps, or run the node again with flow.restart_flow.';
  END IF;

  _pushed := flow.insert_steps(_flow_id, _node_no, _arguments, _at.state = 'W');
  IF _pushed.inserted > 0 THEN
    PERFORM async.announce_tasks(_pushed.task_low, _pushed.task_high, _flow_id, _node_no);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.push_steps_as IS 'Internal: flow.push_steps of this database''s runs, with the caller''s role.';

-- The number of a node in a version. Null: there is none of that name.
CREATE FUNCTION flow.node_number(_definition_id BIGINT, _node TEXT) RETURNS INT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT n.node_no FROM flow.definition_node n WHERE n.definition_id = _definition_id AND n.node = _node;
$$;
COMMENT ON FUNCTION flow.node_number IS
  'Internal: the number of a node in a version; null: there is none of that name.';

-- Raises for the first thing that is no step: a step is an object that is not empty.
CREATE FUNCTION flow.check_steps(_arguments JSONB[]) RETURNS VOID
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _bad RECORD;
BEGIN
  SELECT a.arguments, a.at INTO _bad
  FROM unnest(_arguments) WITH ORDINALITY AS a(arguments, at)
  WHERE a.arguments IS NULL OR a.arguments = '{}' OR jsonb_typeof(a.arguments) <> 'object'
  LIMIT 1;
  IF FOUND THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('element %s of the steps is %s, not an object with arguments', _bad.at, CASE
        WHEN _bad.arguments IS NULL THEN 'NULL'
        WHEN _bad.arguments = '{}' THEN 'the empty object'
        ELSE format('a JSON %s', jsonb_typeof(_bad.arguments)) END),
      DETAIL = 'A step is identified by its arguments; empty ones stand for the node''s own task.',
      HINT = 'Give every step at least one argument, such as {"id": 1}.';
  END IF;
END
$$;
COMMENT ON FUNCTION flow.check_steps IS
  'Internal: raises invalid_parameter_value for the first element that is no step.';

-- What the tasks of one node of a run have in common.
CREATE TYPE flow.task_form_t AS (
  target TEXT, priority INT, run_as NAME, asynchronous_finish BOOL, track_yielded BOOL, on_partial_fail BOOL,
  concurrency_pool TEXT, manual_timeout INTERVAL, empty BOOL);
COMMENT ON TYPE flow.task_form_t IS 'Internal: what the tasks of one node of a run have in common.';

-- Without a SET clause PostgreSQL makes it a part of the statements that use it; only pinned functions do.
CREATE FUNCTION flow.task_form(_flow_id BIGINT, _node_no INT, _is_step BOOL) RETURNS SETOF flow.task_form_t
LANGUAGE sql STABLE AS $$
  SELECT
    CASE
      -- A step that starts a flow starts it here.
      WHEN _is_step AND n.steps_to_flow IS NOT NULL AND t.kind IS DISTINCT FROM 'local' THEN 'local'
      ELSE coalesce(t.target, async.target_name(n.target), n.target, 'local') END,
    coalesce(f.force_priority, n.priority),
    f.run_as,
    coalesce(t.asynchronous_finish, false) AND NOT n.synchronous,
    coalesce(t.concurrency_track_yielded, false),
    n.on_partial_fail,
    coalesce(
      -- Known once the node's own task is about to run.
      CASE WHEN _is_step THEN (
        SELECT x.concurrency_pool FROM flow.flow_node x WHERE x.flow_id = _flow_id AND x.node_no = _node_no) END,
      CASE WHEN d.concurrency_group_routine IS NOT NULL THEN '' END),
    CASE WHEN _is_step THEN n.step_timeout ELSE n.node_timeout END,
    n.empty
  FROM flow.flow f
  CROSS JOIN LATERAL (
    SELECT x.concurrency_group_routine FROM flow.definition x WHERE x.definition_id = f.definition_id OFFSET 0) d
  CROSS JOIN LATERAL (
    SELECT x.* FROM flow.definition_node x WHERE x.definition_id = f.definition_id AND x.node_no = _node_no OFFSET 0) n
  LEFT JOIN async.target t ON t.target = CASE WHEN n.options ? 'tier' THEN async.tier_target(n.target, n.options->>'tier')
                                              ELSE coalesce(n.target, 'local') END
  WHERE f.flow_id = _flow_id;
$$;
COMMENT ON FUNCTION flow.task_form IS
  'Internal: what the tasks of one node of a run have in common; _is_step: of its steps, else of its own task; empty: it has '
  'no task of its own.';

-- Adds those of the steps that the node does not have yet, in the order given. _held: the node has not opened; they wait.
-- task_low and task_high are NULL when nothing was new. The caller has locked the node and announces the tasks.
CREATE FUNCTION flow.insert_steps(
  _flow_id BIGINT, _node_no INT, _arguments JSONB[], _held BOOL,
  OUT task_low BIGINT, OUT task_high BIGINT, OUT inserted INT)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  _as flow.task_form_t;
BEGIN
  SELECT f.* INTO _as FROM flow.task_form(_flow_id, _node_no, true) f;
  -- Steps enter flow_step sorted by hash, so that two sessions that push the same ones wait for each other but never
  -- deadlock. "IS TRUE" and the generic plan keep the membership test a hashed one, whatever the number of steps: a plan
  -- for these very steps compares each with each where a hash of so many would be beyond work_mem (4 MB: 150,000 steps).
  WITH given AS MATERIALIZED (
    SELECT nextval('async.task_id_seq') AS task_id, a.arguments, sha256(convert_to(a.arguments::TEXT, 'UTF8')) AS hash
    FROM unnest(_arguments) AS a(arguments)
  ), new AS (
    INSERT INTO flow.flow_step (flow_id, node_no, task_id, arguments_hash)
    SELECT _flow_id, _node_no, g.task_id, g.hash FROM given g ORDER BY g.hash, g.task_id
    ON CONFLICT DO NOTHING
    RETURNING task_id
  ), tasks AS (
    INSERT INTO async.task (
      task_id, target, priority, run_as, eligible_when, asynchronous_finish, track_yielded, on_partial_fail, is_step,
      flow_id, node_no, concurrency_pool, manual_timeout, source, task_data)
    SELECT g.task_id, _as.target, _as.priority, _as.run_as, CASE WHEN _held THEN 'infinity'::TIMESTAMPTZ END,
      _as.asynchronous_finish, _as.track_yielded, _as.on_partial_fail, true, _flow_id, _node_no, _as.concurrency_pool,
      _as.manual_timeout, 'flow', g.arguments
    FROM given g
    WHERE (g.task_id IN (SELECT n.task_id FROM new n)) IS TRUE
    RETURNING task_id
  )
  SELECT min(t.task_id), max(t.task_id), count(*) INTO task_low, task_high, inserted FROM tasks t;
END
$$;
COMMENT ON FUNCTION flow.insert_steps IS
  'Internal: adds the new ones among these steps to a node and inserts their tasks. _held: they wait for the node '
  'to open. The caller announces task_low to task_high (null: nothing was new).';

CREATE FUNCTION flow.finish_as(
  _caller OID, _args flow.callback_arguments_t, _failed BOOL, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _status TEXT := CASE WHEN coalesce(_failed, false) THEN 'FAILED' ELSE 'FINISHED' END;
BEGIN
  IF NOT flow.require_task(_caller, _args) THEN
    RAISE WARNING 'task % has ended already', _args.task_id USING
      HINT = 'Nothing was changed: the first outcome holds.';
  ELSIF NOT (async.is_own_task(_args.task_id)
      AND async.decide_own(_args.task_id, _status, _error_message, NULL)) THEN
    PERFORM async.finish_as(
      _caller, ARRAY[_args.task_id], _status::async.finish_status_t, _error_message, NULL::INTERVAL);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.finish_as IS 'Internal: flow.finish of this database''s tasks, with the caller''s role.';

CREATE FUNCTION flow.defer_as(_caller OID, _args flow.callback_arguments_t, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _duration IS NULL OR _duration < INTERVAL '0' THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('a task cannot be put off by %s', coalesce(_duration::TEXT, 'NULL')),
      HINT = 'Give an interval of zero or more, such as ''5 minutes''.';
  ELSIF NOT flow.require_task(_caller, _args) THEN
    RAISE WARNING 'task % has ended already', _args.task_id USING
      HINT = 'Nothing was changed: the first outcome holds.';
  ELSIF NOT (async.is_own_task(_args.task_id)
      AND async.decide_own(_args.task_id, 'DEFERRED', NULL, _duration)) THEN
    PERFORM async.defer_as(_caller, ARRAY[_args.task_id], _duration);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.defer_as IS 'Internal: flow.defer of this database''s tasks, with the caller''s role.';

-- Checks that the arguments of a callback belong to one task, and that _caller may act for it. False: it has ended.
CREATE FUNCTION flow.require_task(_caller OID, _args flow.callback_arguments_t) RETURNS BOOL
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _task RECORD;
BEGIN
  SELECT t.processed, t.run_as, t.flow_id, n.node INTO _task
  FROM async.task t
  LEFT JOIN LATERAL (
    SELECT x.node FROM flow.flow_node x WHERE x.flow_id = t.flow_id AND x.node_no = t.node_no OFFSET 0) n ON true
  WHERE t.task_id = _args.task_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('task %s does not exist', coalesce(_args.task_id::TEXT, 'NULL')),
      HINT = 'Pass the arguments that the callback was called with.';
  ELSIF pg_get_userbyid(_caller) <> _task.run_as AND NOT async.may_act(_caller, _task.run_as) THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for task %s', _args.task_id),
      DETAIL = format('The task belongs to role "%s".', _task.run_as),
      HINT = 'Become a member of that role, or ask a member of flow_admin.';
  ELSIF (_task.flow_id, _task.node) IS DISTINCT FROM (_args.flow_id, _args.node) THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('these are not the arguments of task %s', _args.task_id),
      DETAIL = format('The task is of %s; the arguments name run %s, node "%s".',
        CASE WHEN _task.flow_id IS NULL THEN 'no run' ELSE format('run %s, node "%s"', _task.flow_id, _task.node) END,
        _args.flow_id, _args.node),
      HINT = 'Pass the arguments that the callback was called with.';
  END IF;
  RETURN _task.processed IS NULL;
END
$$;
COMMENT ON FUNCTION flow.require_task IS
  'Internal: checks that the arguments belong to a task which the role (OID) may act for; false: it has ended.';

CREATE FUNCTION flow.progress(
  _args flow.callback_arguments_t, _done DOUBLE PRECISION, _total DOUBLE PRECISION DEFAULT NULL, _note TEXT DEFAULT NULL)
RETURNS VOID LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.progress IS
  'Says how far a callback is: _done of _total, in whatever unit it counts, and a note; flow.v_flow_node_status and '
  'flow.watch show it at once, without a commit. Outside the running callback nothing happens.';

-- Only the worker that runs the task has a place to note it; elsewhere (a callback tried out by hand) nothing happens.
CREATE FUNCTION flow.progress_as(
  _caller OID, _args flow.callback_arguments_t, _done DOUBLE PRECISION, _total DOUBLE PRECISION, _note TEXT)
RETURNS VOID LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.note_progress(_args.task_id, _done, _total, _note);
END
$$;
COMMENT ON FUNCTION flow.progress_as IS 'Internal: flow.progress with the caller''s role.';
