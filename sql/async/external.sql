-- External targets: clients take tasks under a lease, do the work wherever they like, and end them with async.finish or
-- flow.finish. A lease that runs out puts the task back. The dispatcher fills async.external_queue and watches leases.

-- What the client of a flow's task needs: the callback's arguments and the name of its routine.
CREATE FUNCTION async.callback_data(_task_ids BIGINT[], OUT task_id BIGINT, OUT task_data JSONB) RETURNS SETOF RECORD
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT t.task_id, CASE WHEN t.flow_id IS NULL THEN t.task_data ELSE jsonb_build_object(
             'flow_id', f.flow_id, 'flow', f.flow, 'flow_arguments', f.arguments, 'node', n.node,
             'step_arguments', CASE WHEN t.is_step THEN t.task_data ELSE '{}' END, 'task_id', t.task_id,
             'routine', coalesce(CASE WHEN t.is_step THEN n.step_routine END, n.routine, n.node)) END
      FROM async.task t
      LEFT JOIN flow.flow f ON f.flow_id = t.flow_id
      LEFT JOIN flow.definition_node n ON n.definition_id = f.definition_id AND n.node_no = t.node_no
     WHERE t.task_id = ANY (_task_ids);
END
$$;
COMMENT ON FUNCTION async.callback_data IS
  'Internal: the task_data that a client gets: of a flow''s task its callback arguments and "routine".';

CREATE FUNCTION async.get_tasks_as(_caller OID, _target TEXT, _limit INT, _timeout INTERVAL)
RETURNS TABLE (task_id BIGINT, priority INT, times_up TIMESTAMPTZ, task_data JSONB)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _now   CONSTANT TIMESTAMPTZ := clock_timestamp();
  _name  CONSTANT TEXT := async.target_name(_target);
  _admin CONSTANT BOOL := pg_has_role(_caller, 'flow_admin', 'USAGE');
  _lease INTERVAL;
  _kind  TEXT;
  _ids   BIGINT[];
BEGIN
  SELECT t.kind, coalesce(_timeout, t.default_timeout, c.default_timeout, INTERVAL '1 hour')
    INTO _kind, _lease FROM async.target t, async.control c WHERE t.target = _name;
  IF _kind IS NULL OR _target IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no target "%s"', left(_target, 80)), HINT = 'async.v_target lists the targets.';
  ELSIF _kind <> 'external' THEN
    RAISE wrong_object_type USING
      MESSAGE = format('tasks of target "%s" are not for clients to take', _name),
      DETAIL = format('Its kind is "%s": its tasks are run for you.', _kind),
      HINT = 'Set "kind": "external" for it with async.configure.';
  ELSIF _limit < 0 OR _lease <= INTERVAL '0' THEN
    RAISE invalid_parameter_value USING
      MESSAGE = CASE WHEN _limit < 0 THEN format('_limit is %s', _limit) ELSE format('the lease is %s', _lease) END;
  END IF;

  -- Both rows are skipped when locked, so that this never waits for a session that ends the task.
  WITH taken AS (
    SELECT q.priority, q.task_id
      FROM async.external_queue q
      JOIN async.task t ON t.task_id = q.task_id AND t.processed IS NULL AND t.yielded IS NULL
     WHERE q.target = _name AND (q.eligible_when IS NULL OR q.eligible_when <= _now)
       AND (_admin OR t.run_as IN (SELECT r.rolname FROM pg_roles r WHERE pg_has_role(_caller, r.oid, 'USAGE')))
     ORDER BY q.priority, q.task_id
     LIMIT least(coalesce(_limit, 1), 10000)
       FOR UPDATE OF q SKIP LOCKED FOR NO KEY UPDATE OF t SKIP LOCKED
  ), gone AS (
    DELETE FROM async.external_queue q USING taken k
     WHERE q.target = _name AND q.priority = k.priority AND q.task_id = k.task_id
  ), leased AS (
    UPDATE async.task t SET
      consumed = _now, first_consumed = coalesce(t.first_consumed, _now), yielded = _now, eligible_when = NULL,
      attempt = t.attempt + 1, times_up = least(_now + _lease, coalesce(t.first_consumed, _now) + t.manual_timeout)
    FROM taken k WHERE t.task_id = k.task_id
    RETURNING t.task_id
  )
  SELECT array_agg(l.task_id) INTO _ids FROM leased l;

  IF _ids IS NULL THEN
    RETURN;
  END IF;
  PERFORM async.announce_ended(_ids);
  RETURN QUERY
    SELECT t.task_id, t.priority, t.times_up, d.task_data
      FROM async.task t JOIN async.callback_data(_ids) d ON d.task_id = t.task_id
     WHERE t.task_id = ANY (_ids) ORDER BY t.priority, t.task_id;
END
$$;
COMMENT ON FUNCTION async.get_tasks_as IS 'Internal: async.get_tasks with the caller''s role.';

CREATE FUNCTION async.get_tasks(_target TEXT, _limit INT DEFAULT 1, _timeout INTERVAL DEFAULT NULL)
RETURNS TABLE (task_id BIGINT, priority INT, times_up TIMESTAMPTZ, task_data JSONB)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.get_tasks IS
  'Takes up to _limit (at most 10000) waiting tasks of an external target, lowest priority number first, for which you have '
  'rights. They are leased until times_up: _timeout, else the target''s or the control''s default_timeout, else an hour, '
  'and not beyond the task''s own time-out; what is not ended by then waits again. Of a flow''s task, task_data holds '
  'flow_id, flow, flow_arguments, node, step_arguments, task_id and routine. max_concurrency does not bound leases: how '
  'much a client works on at once is its own affair. End each with async.finish or flow.finish. Never waits.';

-- For the dispatcher: never waits for a lock; what a session holds is left for the next look.
CREATE FUNCTION async.expire_leases(_task_ids BIGINT[]) RETURNS SETOF BIGINT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _now   CONSTANT TIMESTAMPTZ := clock_timestamp();
  _over  BIGINT[];
  _ended BIGINT[];
BEGIN
  SELECT array_agg(x.task_id ORDER BY x.task_id), array_agg(x.task_id ORDER BY x.task_id) FILTER (WHERE x.at_end)
    INTO _over, _ended
    FROM (SELECT t.task_id, t.first_consumed + t.manual_timeout <= _now AS at_end
            FROM async.task t
           WHERE t.task_id = ANY (_task_ids) AND t.processed IS NULL AND t.yielded IS NOT NULL AND t.times_up <= _now
             AND EXISTS (SELECT FROM async.target k WHERE k.target = t.target AND k.kind = 'external')
           ORDER BY t.task_id FOR NO KEY UPDATE OF t SKIP LOCKED) AS x;
  IF _over IS NULL THEN
    RETURN;
  END IF;

  UPDATE async.task t SET
    processed = _now, finish_status = 'TIMED_OUT', failed = true,
    processing_error = format('timed out after %s', t.manual_timeout)
  WHERE t.task_id = ANY (_ended);
  UPDATE async.task t SET yielded = NULL, consumed = NULL, times_up = NULL, eligible_when = NULL
  WHERE t.task_id = ANY (_over) AND t.processed IS NULL;
  PERFORM async.note_tasks(_over, 'STATUS', 'the lease ran out');
  RETURN QUERY SELECT i FROM unnest(_over) AS i;
END
$$;
COMMENT ON FUNCTION async.expire_leases IS
  'Internal: for the dispatcher, the leases that are over: their tasks wait again, and those whose own time-out is over are '
  'ended as TIMED_OUT. Returns both kinds, to be looked at. Locked rows are skipped.';
