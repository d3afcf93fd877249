-- Tasks: pushing them, ending them, putting them off. What happens here happens in the caller's transaction; the
-- dispatcher is told when it commits.

CREATE FUNCTION async.task(
  _query TEXT, target TEXT DEFAULT NULL, task_data JSONB DEFAULT NULL, priority INT DEFAULT 0,
  concurrency_pool TEXT DEFAULT NULL,
  manual_timeout INTERVAL DEFAULT NULL, track_yielded BOOL DEFAULT NULL)
RETURNS async.task_push_t LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(task_data, target, priority, _query, concurrency_pool, manual_timeout, track_yielded)::async.task_push_t;
COMMENT ON FUNCTION async.task IS
  'A task for async.push_tasks. _query: any SQL (CALL too; null for external targets); target null: this database; '
  'task_data: what you like, kept with the task; priority: the lower the sooner; concurrency_pool null: the target''s '
  'own; manual_timeout: from the first start on; track_yielded: whether it holds its place in the pool while yielded.';

-- A role that cannot log in cannot have a worker of its own before PostgreSQL 17.
CREATE FUNCTION async.require_runnable_role(_role NAME) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _can_login BOOL;
BEGIN
  SELECT r.rolcanlogin INTO _can_login FROM pg_roles r WHERE r.rolname = _role;
  IF NOT FOUND THEN
    RAISE undefined_object USING MESSAGE = format('role "%s" does not exist', _role);
  ELSIF NOT _can_login AND current_setting('server_version_num')::INT < 170000 THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('role "%s" cannot run tasks: it may not log in', _role),
      DETAIL = 'A task runs in a worker that is connected as its role.',
      HINT = format('ALTER ROLE %I LOGIN; a password is not needed.', _role);
  END IF;
END
$$;
COMMENT ON FUNCTION async.require_runnable_role IS
  'Internal: raises unless tasks can run in this database as the role: undefined_object, object_not_in_prerequisite_state.';

CREATE FUNCTION async.targets_of(
  _tasks async.task_push_t[], OUT given TEXT, OUT target TEXT, OUT kind TEXT, OUT asynchronous_finish BOOL,
  OUT concurrency_track_yielded BOOL, OUT needs TEXT)
RETURNS SETOF RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT d.given, t.target, t.kind, t.asynchronous_finish, t.concurrency_track_yielded, async.kind_needs(t.kind)
      FROM (SELECT DISTINCT coalesce(p.target, 'local') AS given FROM unnest(_tasks) p) AS d
      JOIN async.target t ON t.target = async.target_name(d.given);
END
$$;
COMMENT ON FUNCTION async.targets_of IS 'Internal: the targets that tasks name, each once; unknown ones are left out.';

CREATE FUNCTION async.push_tasks_as(
  _caller OID, _tasks async.task_push_t[], _run_type async.task_run_type_t, _source TEXT) RETURNS SETOF BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _role   CONSTANT NAME := pg_get_userbyid(_caller);
  _runs   CONSTANT BOOL := coalesce(_run_type, 'EXECUTE') IN ('EXECUTE', 'EXECUTE_NOASYNC');
  _now    CONSTANT TIMESTAMPTZ := CASE WHEN NOT _runs THEN clock_timestamp() END;
  _faults TEXT[];
  _local  BOOL;
  _ids    BIGINT[];
BEGIN
  IF async.is_client_as(_caller) THEN
    RETURN QUERY SELECT i FROM async.ask_push_tasks(_tasks, _run_type, _source) AS i;
    RETURN;
  ELSIF _runs THEN
    PERFORM async.require_engine();
  END IF;
  IF EXISTS (SELECT FROM async.role_limit) THEN
    PERFORM async.require_size(
      _role, cardinality(_tasks), array_agg(p.task_data), array_agg(p.query)) FROM unnest(_tasks) p;
  END IF;

  SELECT array_agg(format('task %s: %s', p.n, v.message) ORDER BY p.n) FILTER (WHERE v.message IS NOT NULL),
         bool_or(t.kind = 'local')
    INTO _faults, _local
    FROM unnest(_tasks) WITH ORDINALITY
           AS p(task_data, target, priority, query, concurrency_pool, manual_timeout, track_yielded, n)
    LEFT JOIN async.targets_of(_tasks) t ON t.given = coalesce(p.target, 'local'),
    LATERAL (VALUES
      (CASE WHEN t.target IS NULL THEN format('there is no target "%s"', left(p.target, 80)) END),
      (CASE WHEN _runs AND t.kind <> 'external' AND btrim(coalesce(p.query, ''), E' \t\r\n;') = ''
         THEN CASE WHEN t.needs = 'options' THEN format('target "%s" takes requests: async.push_request', t.target)
                   ELSE format('it has no query, and target "%s" is not external', t.target) END END),
      (CASE WHEN _runs AND btrim(p.query, E' \t\r\n;') <> '' AND t.needs = 'options'
         THEN format('target "%s" runs no query: async.push_request', t.target) END),
      (CASE WHEN p.manual_timeout <= INTERVAL '0' THEN format('manual_timeout is %s', p.manual_timeout) END)) AS v(message);
  IF _faults IS NOT NULL THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('%s of %s tasks cannot be pushed', cardinality(_faults), cardinality(_tasks)),
      DETAIL = array_to_string(_faults[:10], E'\n')
               || CASE WHEN cardinality(_faults) > 10 THEN format(E'\nand %s more', cardinality(_faults) - 10) ELSE '' END,
      HINT = 'async.configure defines targets; with "kind": "external" clients take the tasks with async.get_tasks.';
  END IF;
  IF _runs AND _local THEN
    PERFORM async.require_runnable_role(_role);
  END IF;

  WITH pushed AS (
    INSERT INTO async.task (
      target, priority, run_as, query, task_data, concurrency_pool, manual_timeout, source, track_yielded,
      asynchronous_finish, consumed, processed, finish_status, failed)
    SELECT t.target, coalesce(p.priority, 0), _role, p.query, p.task_data,
           nullif(nullif(p.concurrency_pool, ''), t.target),
           -- What is added to times must not lead beyond the last of them: that would end the dispatcher.
           CASE WHEN p.manual_timeout > INTERVAL '100 years' THEN INTERVAL '100 years' ELSE p.manual_timeout END, _source,
           coalesce(p.track_yielded, t.concurrency_track_yielded),
           t.asynchronous_finish AND coalesce(_run_type, 'EXECUTE') = 'EXECUTE', _now, _now,
           CASE _run_type WHEN 'DOA' THEN 'DOA' WHEN 'EMPTY' THEN 'FINISHED' END::async.finish_status_t,
           CASE _run_type WHEN 'DOA' THEN true WHEN 'EMPTY' THEN false END
      FROM unnest(_tasks) WITH ORDINALITY
             AS p(task_data, target, priority, query, concurrency_pool, manual_timeout, track_yielded, n)
      JOIN async.targets_of(_tasks) t ON t.given = coalesce(p.target, 'local')
     ORDER BY p.n
    RETURNING task_id
  )
  SELECT array_agg(p.task_id ORDER BY p.task_id) INTO _ids FROM pushed p;

  IF _runs AND _ids IS NOT NULL THEN
    PERFORM async.announce_tasks(_ids[1], _ids[cardinality(_ids)], NULL, NULL);
  END IF;
  RETURN QUERY SELECT i FROM unnest(_ids) WITH ORDINALITY AS x(i, n) ORDER BY n;
END
$$;
COMMENT ON FUNCTION async.push_tasks_as IS 'Internal: async.push_tasks with the caller''s role.';

CREATE FUNCTION async.push_tasks(
  _tasks async.task_push_t[], _run_type async.task_run_type_t DEFAULT 'EXECUTE', _source TEXT DEFAULT NULL)
RETURNS SETOF BIGINT LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.push_tasks IS
  'Pushes tasks (see async.task) and returns their ids in the same order; they start when the transaction commits, as '
  'the role that pushed them. _run_type: EXECUTE; EXECUTE_NOASYNC: finished when the query returns, whatever the target '
  'says; EMPTY, DOA: not run, ended at once as finished or failed. Raises invalid_parameter_value with every fault.';

CREATE FUNCTION async.push_task(
  _task async.task_push_t, _run_type async.task_run_type_t DEFAULT 'EXECUTE', _source TEXT DEFAULT 'manual push')
RETURNS BIGINT LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT async.push_tasks(ARRAY[_task], _run_type, _source));
END
$$;
COMMENT ON FUNCTION async.push_task IS 'Pushes one task and returns its id: async.push_tasks.';

-- Log lines of sessions; a worker numbers its own from 1, so that the two never collide.
CREATE FUNCTION async.note_tasks(_task_ids BIGINT[], _level TEXT, _message TEXT) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO async.task_log (task_id, attempt, seq, level, message)
  SELECT t.task_id, t.attempt, 1000000 + coalesce((
           SELECT max(l.seq) - 999999 FROM async.task_log l
            WHERE l.task_id = t.task_id AND l.attempt = t.attempt AND l.seq >= 1000000), 0), _level, _message
    FROM async.task t WHERE t.task_id = ANY (_task_ids)
  ON CONFLICT DO NOTHING;
$$;
COMMENT ON FUNCTION async.note_tasks IS
  'Internal: a log line for each task, under its last attempt; seq from 1000000 on, below that are the workers'' own.';

CREATE FUNCTION async.announce_ranges(_task_ids BIGINT[]) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.announce_tasks(min(i.id), max(i.id), NULL, NULL)
    FROM (SELECT x.id, x.id - row_number() OVER (ORDER BY x.id) AS island
            FROM (SELECT DISTINCT id FROM unnest(_task_ids) AS u(id)) AS x) AS i
   GROUP BY i.island;
$$;
COMMENT ON FUNCTION async.announce_ranges IS 'Internal: async.announce_tasks for ids that need not follow each other.';

-- Locks the tasks in their order and raises unless all exist and _caller may act for each.
CREATE FUNCTION async.lock_tasks(
  _caller OID, _task_ids BIGINT[], OUT task_id BIGINT, OUT is_open BOOL, OUT held BOOL, OUT parked BOOL)
RETURNS SETOF RECORD LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _bad BIGINT[];
BEGIN
  SELECT array_agg(i.id ORDER BY i.id) INTO _bad
    FROM (SELECT DISTINCT u.id FROM unnest(_task_ids) AS u(id)) AS i
   WHERE NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = i.id);
  IF _bad IS NOT NULL THEN
    RAISE undefined_object USING
      MESSAGE = CASE WHEN cardinality(_bad) = 1 THEN format('task %s does not exist', coalesce(_bad[1]::TEXT, 'null'))
                     ELSE format('%s tasks do not exist', cardinality(_bad)) END,
      DETAIL = format('Unknown: %s%s.', array_to_string(_bad[:10], ', ', 'null'),
                      CASE WHEN cardinality(_bad) > 10 THEN ', …' END),
      HINT = 'Nothing was changed.';
  END IF;

  WITH refused AS MATERIALIZED (
    SELECT r.run_as
      FROM (SELECT DISTINCT t.run_as FROM async.task t WHERE t.task_id = ANY (_task_ids)) AS r
     WHERE NOT async.may_act(_caller, r.run_as)
  )
  SELECT array_agg(t.task_id ORDER BY t.task_id) INTO _bad
    FROM async.task t JOIN refused r ON r.run_as = t.run_as WHERE t.task_id = ANY (_task_ids);
  IF _bad IS NOT NULL THEN
    RAISE insufficient_privilege USING
      MESSAGE = format('permission denied for task %s', _bad[1]),
      HINT = 'This needs the rights of the role that the task runs as, or membership in flow_admin.';
  END IF;

  RETURN QUERY
    SELECT t.task_id, t.processed IS NULL, t.eligible_when = 'infinity' AND t.processed IS NULL, t.yielded IS NOT NULL
      FROM async.task t WHERE t.task_id = ANY (_task_ids) ORDER BY t.task_id FOR NO KEY UPDATE;
END
$$;
COMMENT ON FUNCTION async.lock_tasks IS
  'Internal: locks tasks by task_id; says which are open, held (wait for their node) and parked (yielded or leased). '
  'Raises undefined_object or insufficient_privilege.';

CREATE FUNCTION async.warn_of_ended(_task_ids BIGINT[]) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF cardinality(_task_ids) > 0 THEN
    RAISE WARNING '%', CASE WHEN cardinality(_task_ids) = 1 THEN format('task %s has ended already', _task_ids[1])
                            ELSE format('%s tasks have ended already: %s%s', cardinality(_task_ids),
                                        array_to_string(_task_ids[:10], ', '),
                                        CASE WHEN cardinality(_task_ids) > 10 THEN ', …' END) END;
  END IF;
END
$$;
COMMENT ON FUNCTION async.warn_of_ended IS 'Internal: the warning that ending these tasks again did nothing.';

-- The task of the callback that calls this, if it is among _task_ids: its outcome is noted, not written, because the
-- worker writes it with the callback's last transaction.
CREATE FUNCTION async.own_task(_task_ids BIGINT[]) RETURNS BIGINT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT i FROM unnest(_task_ids) AS i WHERE async.is_own_task(i) LIMIT 1;
$$;
COMMENT ON FUNCTION async.own_task IS 'Internal: which of the tasks the caller is the worker of, or null.';

-- Which of the tasks are being run by another server right now: their call has not returned. A yielded task's has.
CREATE FUNCTION async.running_elsewhere(_task_ids BIGINT[], OUT task_id BIGINT, OUT attempt INT) RETURNS SETOF RECORD
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT r.task_id, max(r.attempt)
      FROM async.running() r
      JOIN async.task t ON t.task_id = r.task_id AND t.processed IS NULL AND t.yielded IS NULL
      JOIN async.target k ON k.target = t.target AND k.kind NOT IN ('local', 'external')
     WHERE r.task_id = ANY (_task_ids) GROUP BY r.task_id;
END
$$;
COMMENT ON FUNCTION async.running_elsewhere IS
  'Internal: those of the tasks that another server is running right now, with the attempt.';

-- A callback elsewhere says in a session of its own what becomes of its task: noted, and counts when its call returns, so
-- that the task fails if the callback raises after all. The last word holds. The tasks are locked, so that none of these
-- attempts can end meanwhile.
CREATE FUNCTION async.decide_elsewhere(
  _task_ids BIGINT[], _status async.finish_status_t, _message TEXT, _delay INTERVAL) RETURNS BIGINT[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  WITH decided AS (
    INSERT INTO async.decision (task_id, attempt, status, message, delay)
    SELECT r.task_id, r.attempt, _status, _message, _delay FROM async.running_elsewhere(_task_ids) r ORDER BY r.task_id
    ON CONFLICT (task_id) DO UPDATE
      SET attempt = EXCLUDED.attempt, status = EXCLUDED.status, message = EXCLUDED.message, delay = EXCLUDED.delay
    RETURNING task_id
  )
  SELECT coalesce(array_agg(d.task_id), '{}') FROM decided d;
$$;
COMMENT ON FUNCTION async.decide_elsewhere IS
  'Internal: notes what is to become of those of the tasks that run on another server, when their calls return; returns them.';

CREATE FUNCTION async.end_tasks_for(
  _caller OID, _task_ids BIGINT[], _status async.finish_status_t, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _own   CONSTANT BIGINT := async.own_task(_task_ids);
  _away  BIGINT[];
  _open  BIGINT[];
  _ended BIGINT[];
BEGIN
  IF _own IS NOT NULL THEN
    PERFORM async.decide_own(_own, CASE _status WHEN 'FINISHED' THEN 'FINISHED' ELSE 'FAILED' END, _error_message, NULL);
  END IF;
  SELECT array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE l.is_open),
         array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE NOT l.is_open)
    INTO _open, _ended
    FROM async.lock_tasks(_caller, array_remove(_task_ids, _own)) l;
  PERFORM async.warn_of_ended(_ended);
  IF _status IN ('FINISHED', 'FAILED') AND _open IS NOT NULL THEN
    _away := async.decide_elsewhere(_open, _status, _error_message, NULL);
    _open := (SELECT array_agg(o) FROM unnest(_open) AS o WHERE o <> ALL (_away));
  END IF;
  IF _open IS NULL THEN
    RETURN;
  END IF;

  UPDATE async.task t SET
    processed        = clock_timestamp(),
    finish_status    = _status,
    failed           = _status <> 'FINISHED',
    processing_error = _error_message,
    consumed         = coalesce(r.started, t.consumed),
    first_consumed   = coalesce(t.first_consumed, r.started),
    attempt          = t.attempt + (t.yielded IS NULL)::INT  -- so that an attempt that runs right now cannot end it again
  FROM unnest(_open) AS i(id)
  LEFT JOIN (SELECT x.task_id, min(x.started) AS started FROM async.running() x GROUP BY x.task_id) AS r ON r.task_id = i.id
  WHERE t.task_id = i.id AND t.processed IS NULL;
  DELETE FROM async.external_queue q USING async.task t
   WHERE t.task_id = ANY (_open) AND q.target = t.target AND q.task_id = t.task_id;
  DELETE FROM async.task_secret s WHERE s.task_id = ANY (_open);
  PERFORM async.announce_ended(_open);
END
$$;
COMMENT ON FUNCTION async.end_tasks_for IS
  'Internal: ends open tasks for _caller (FINISHED, FAILED, CANCELED, TIMED_OUT, DOA); those that have ended: a warning. '
  'The caller''s own running task: its outcome is noted for the worker.';

CREATE FUNCTION async.cancel_as(_caller OID, _task_ids BIGINT[], _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_cancel_tasks(_task_ids, _error_message);
    RETURN;
  END IF;
  PERFORM async.end_tasks_for(_caller, _task_ids, 'CANCELED', coalesce(_error_message, 'manual cancel'));
END
$$;
COMMENT ON FUNCTION async.cancel_as IS 'Internal: async.cancel with the caller''s role.';

CREATE FUNCTION async.cancel(_task_ids BIGINT[], _error_message TEXT DEFAULT NULL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.cancel IS
  'Cancels open tasks: CANCELED, with _error_message (default: manual cancel). A statement that runs is stopped at once, '
  'when the transaction commits. A task that has ended: a warning. Raises undefined_object for an unknown id.';

CREATE FUNCTION async.defer_as(_caller OID, _task_ids BIGINT[], _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _own   CONSTANT BIGINT := async.own_task(_task_ids);
  _delay CONSTANT INTERVAL := least(coalesce(_duration, INTERVAL '0'), INTERVAL '100 years');
  _away  BIGINT[];
  _open  BIGINT[];
  _ended BIGINT[];
  _held  BIGINT;
  _runs  BIGINT;
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_defer_tasks(_task_ids, _duration);
    RETURN;
  ELSIF _delay < INTERVAL '0' THEN
    RAISE invalid_parameter_value USING MESSAGE = format('a task cannot be put off by %s', _delay);
  END IF;
  IF _own IS NOT NULL THEN
    PERFORM async.decide_own(_own, 'DEFERRED', NULL, _delay);
  END IF;
  SELECT array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE l.is_open),
         array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE NOT l.is_open),
         min(l.task_id) FILTER (WHERE l.held)
    INTO _open, _ended, _held
    FROM async.lock_tasks(_caller, array_remove(_task_ids, _own)) l;
  IF _open IS NOT NULL THEN
    _away := async.decide_elsewhere(_open, 'DEFERRED', NULL, _delay);
    _open := (SELECT array_agg(o) FROM unnest(_open) AS o WHERE o <> ALL (_away));
    SELECT min(x.task_id) INTO _runs FROM async.running() x WHERE x.task_id = ANY (_open);
  END IF;
  IF _runs IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s is running: only its own callback can put it off', _runs),
      HINT = 'flow.defer or async.defer inside the callback, or async.cancel from outside.';
  ELSIF _held IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s waits for its node to start and cannot be put off', _held);
  END IF;
  PERFORM async.warn_of_ended(_ended);
  IF _open IS NULL THEN
    RETURN;
  END IF;

  UPDATE async.task t SET  -- its attempt was counted when it yielded or was leased
    eligible_when = clock_timestamp() + _delay,
    yielded       = NULL,
    consumed      = NULL,
    times_up      = NULL
  WHERE t.task_id = ANY (_open) AND t.processed IS NULL;
  DELETE FROM async.external_queue q USING async.task t
   WHERE t.task_id = ANY (_open) AND q.target = t.target AND q.task_id = t.task_id;
  PERFORM async.note_tasks(_open, 'STATUS', format('put off by %s, by role "%s"', _delay, pg_get_userbyid(_caller)));
  PERFORM async.announce_ended(_open);
  PERFORM async.announce_ranges(_open);
END
$$;
COMMENT ON FUNCTION async.defer_as IS 'Internal: async.defer with the caller''s role.';

CREATE FUNCTION async.defer(_task_ids BIGINT[], _duration INTERVAL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.defer IS
  'Puts open tasks off: they wait again and start after _duration at the earliest. Inside a callback: its own task, once '
  'the callback has returned and committed; so for a task that another server runs. A task that another session runs here '
  'cannot be put off: object_not_in_prerequisite_state. The clock of a time-out goes on from the first start.';

CREATE FUNCTION async.yield_tasks(_caller OID, _task_ids BIGINT[]) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _open  BIGINT[];
  _ended BIGINT[];
  _runs  BIGINT;
  _held  BIGINT;
BEGIN
  SELECT array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE l.is_open AND NOT l.parked),
         array_agg(l.task_id ORDER BY l.task_id) FILTER (WHERE NOT l.is_open),
         min(l.task_id) FILTER (WHERE l.is_open AND r.task_id IS NOT NULL),
         min(l.task_id) FILTER (WHERE l.held)
    INTO _open, _ended, _runs, _held
    FROM async.lock_tasks(_caller, _task_ids) l
    LEFT JOIN (SELECT DISTINCT x.task_id FROM async.running() x) AS r ON r.task_id = l.task_id;
  IF _runs IS NOT NULL OR _held IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format(CASE WHEN _runs IS NOT NULL THEN 'task %s is running: it yields when its call returns'
                            ELSE 'task %s waits for its node to start and cannot yield' END, coalesce(_runs, _held)),
      HINT = 'A target with "asynchronous_finish": true makes its tasks yield until async.finish or flow.finish ends them.';
  END IF;
  PERFORM async.warn_of_ended(_ended);
  IF _open IS NULL THEN
    RETURN;
  END IF;
  UPDATE async.task t SET
    yielded        = clock_timestamp(),
    consumed       = coalesce(t.consumed, clock_timestamp()),
    first_consumed = coalesce(t.first_consumed, clock_timestamp()),
    attempt        = t.attempt + 1,
    times_up       = NULL
  WHERE t.task_id = ANY (_open) AND t.processed IS NULL;
  DELETE FROM async.external_queue q USING async.task t
   WHERE t.task_id = ANY (_open) AND q.target = t.target AND q.task_id = t.task_id;
  PERFORM async.announce_ended(_open);
END
$$;
COMMENT ON FUNCTION async.yield_tasks IS 'Internal: marks waiting tasks as yielded: somebody else works on them.';

CREATE FUNCTION async.finish_as(
  _caller OID, _task_ids BIGINT[], _status async.finish_status_t, _error_message TEXT, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_finish_tasks(_task_ids, _status, _error_message, _duration);
  ELSIF _status IS NULL THEN
    RAISE null_value_not_allowed USING
      MESSAGE = 'the status is null', HINT = 'FINISHED, FAILED, CANCELED, TIMED_OUT, DOA, YIELDED, DEFERRED or PAUSED.';
  ELSIF _status IN ('DEFERRED', 'PAUSED') THEN
    PERFORM async.defer_as(_caller, _task_ids, _duration);
  ELSIF _status = 'YIELDED' THEN
    PERFORM async.yield_tasks(_caller, _task_ids);
  ELSE
    PERFORM async.end_tasks_for(_caller, _task_ids, _status, _error_message);
  END IF;
END
$$;
COMMENT ON FUNCTION async.finish_as IS 'Internal: async.finish with the caller''s role.';

CREATE FUNCTION async.finish(
  _task_ids BIGINT[], _status async.finish_status_t, _error_message TEXT, _duration INTERVAL DEFAULT NULL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.finish IS
  'Ends open tasks: FINISHED, or FAILED, CANCELED, TIMED_OUT, DOA with _error_message. DEFERRED and PAUSED put them back '
  'to wait (for _duration); YIELDED: somebody works on them and will finish them. A task that has ended: a warning. '
  'Inside a callback, its own task: the outcome follows if the callback commits. A task that another server runs: FINISHED, '
  'FAILED and DEFERRED count when its call has returned without an error, so that its callback can say them; async.cancel '
  'stops it at once. Raises undefined_object for an unknown id, insufficient_privilege for tasks of roles whose rights you '
  'lack.';

-- Every task below engine_state.open_low has ended; whoever opens one again keeps that true, and holds the row's lock
-- until its commit even when nothing changes, so that the mark is not raised over a task that is about to be open.
CREATE FUNCTION async.reopen_from(_task_id BIGINT) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  UPDATE async.engine_state SET open_low = least(open_low, _task_id);
$$;
COMMENT ON FUNCTION async.reopen_from IS
  'Internal: keeps engine_state.open_low at _task_id or below; for whoever reopens ended tasks, in the same transaction.';

CREATE FUNCTION async.restart_task_as(_caller OID, _task_id BIGINT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _task RECORD;
BEGIN
  PERFORM async.require_no_client();
  PERFORM async.require_engine();
  PERFORM async.lock_tasks(_caller, ARRAY[_task_id]);
  SELECT t.flow_id, t.processed, t.target, t.run_as, t.query, t.options, k.kind INTO _task
    FROM async.task t LEFT JOIN async.target k ON k.target = t.target WHERE t.task_id = _task_id;
  IF _task.flow_id IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s belongs to run %s of a flow', _task_id, _task.flow_id),
      HINT = format('SELECT flow.retry_failed(%1$s) runs again what failed, flow.restart_flow(%1$s) everything.', _task.flow_id);
  ELSIF _task.processed IS NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('task %s has not ended', _task_id), HINT = 'Cancel it first: async.cancel.';
  ELSIF _task.kind IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('target "%s" of task %s does not exist any more', _task.target, _task_id),
      HINT = 'Configure it with async.configure.';
  ELSIF _task.kind <> 'external' AND _task.query IS NULL
        AND NOT (async.kind_needs(_task.kind) = 'options' AND _task.options ? 'request') THEN
    RAISE object_not_in_prerequisite_state USING MESSAGE = format('task %s has no query to run', _task_id);
  ELSIF _task.kind = 'local' THEN
    PERFORM async.require_runnable_role(_task.run_as);
  END IF;

  UPDATE async.task t SET
    processed = NULL, yielded = NULL, consumed = NULL, first_consumed = NULL, finish_status = NULL, failed = NULL,
    processing_error = NULL, eligible_when = NULL, times_up = NULL, crashes = 0, suspect = false,
    partially_committed = false, unsure_since = NULL,
    intention = t.intention + 1  -- whoever receives it elsewhere must not take it for a repetition
  WHERE t.task_id = _task_id;
  PERFORM async.note_tasks(ARRAY[_task_id], 'STATUS', format('started again by role "%s"', pg_get_userbyid(_caller)));
  PERFORM async.reopen_from(_task_id);
  PERFORM async.announce_tasks(_task_id, _task_id, NULL, NULL);
END
$$;
COMMENT ON FUNCTION async.restart_task_as IS 'Internal: async.restart_task with the caller''s role.';

CREATE FUNCTION async.restart_task(_task_id BIGINT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.restart_task IS
  'Opens a task that has ended and belongs to no flow again: it runs once more under its id, its attempts go on counting. '
  'Raises object_not_in_prerequisite_state for an open task and for tasks of flows.';
