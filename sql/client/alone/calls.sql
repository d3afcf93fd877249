-- What roles may call (async.grant_client). SECURITY DEFINER: these run with the rights of whoever installed the client.

CREATE OR REPLACE FUNCTION async.readable_server() RETURNS TEXT
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT s.readable FROM async.client_server s), '');
$$;
COMMENT ON FUNCTION async.readable_server() IS 'Internal: async.server() without a new string.';

CREATE OR REPLACE FUNCTION async.server(_new_connection_string TEXT DEFAULT NULL) RETURNS TEXT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _new_connection_string IS NOT NULL THEN
    IF NOT has_function_privilege('async.set_server(text)', 'EXECUTE') THEN
      RAISE insufficient_privilege USING
        MESSAGE = 'permission denied to set where the orchestrating server is',
        HINT = 'The role that installed the pgflow client may.';
    END IF;
    PERFORM async.set_server(_new_connection_string);
  END IF;
  RETURN async.readable_server();
END
$$;
COMMENT ON FUNCTION async.server(TEXT) IS
  'Says where the orchestrating server is, without the password. With a string, sets it: a libpq connection string or URL, or '
  'the name of a foreign server whose user mapping holds the password; only for the owner. '''': nowhere. Raises '
  'invalid_parameter_value for a string that cannot be read.';

CREATE OR REPLACE FUNCTION async.commits_first(_flush BOOL) RETURNS BOOL
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.server_to_ask();
  RETURN coalesce(_flush, true);
END
$$;
COMMENT ON FUNCTION async.commits_first(BOOL) IS 'Internal: whether a call commits before it tells the server; raises without a server.';

CREATE OR REPLACE FUNCTION flow.push_steps_now(_flow_id BIGINT, _node TEXT, _arguments JSONB[]) RETURNS VOID
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_push_steps(_flow_id, _node, _arguments);
END
$$;
COMMENT ON FUNCTION flow.push_steps_now(BIGINT, TEXT, JSONB[]) IS 'Internal: flow.push_steps without a commit.';

CREATE OR REPLACE FUNCTION flow.finish_now(_args flow.callback_arguments_t, _failed BOOL, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_finish(_args, _failed, _error_message);
END
$$;
COMMENT ON FUNCTION flow.finish_now(flow.callback_arguments_t, BOOL, TEXT) IS 'Internal: flow.finish without a commit.';

CREATE OR REPLACE FUNCTION flow.defer_now(_args flow.callback_arguments_t, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_defer(_args, _duration);
END
$$;
COMMENT ON FUNCTION flow.defer_now(flow.callback_arguments_t, INTERVAL) IS 'Internal: what flow.defer calls.';

CREATE OR REPLACE FUNCTION flow.args(_flow_id BIGINT) RETURNS JSONB
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN async.ask_args(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.args(BIGINT) IS
  'The arguments of a run, asked from the server once and kept in flow.client_arguments. Raises undefined_object for an unknown run.';

CREATE OR REPLACE FUNCTION flow.cancel(_flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_cancel_run(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.cancel(BIGINT) IS 'Cancels a run on the server, at once: this transaction''s end makes no difference.';

CREATE OR REPLACE FUNCTION flow.progress(
  _args flow.callback_arguments_t, _done DOUBLE PRECISION, _total DOUBLE PRECISION DEFAULT NULL, _note TEXT DEFAULT NULL)
RETURNS VOID LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NULL::VOID;
$$;
COMMENT ON FUNCTION flow.progress(flow.callback_arguments_t, DOUBLE PRECISION, DOUBLE PRECISION, TEXT) IS
  'Does nothing here, so that a callback that calls it runs here too: progress shows where the server''s own workers run.';

CREATE OR REPLACE FUNCTION async.task(
  _query TEXT, target TEXT DEFAULT NULL, task_data JSONB DEFAULT NULL, priority INT DEFAULT 0,
  concurrency_pool TEXT DEFAULT NULL, manual_timeout INTERVAL DEFAULT NULL, track_yielded BOOL DEFAULT NULL)
RETURNS async.task_push_t LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ROW(task_data, target, priority, _query, concurrency_pool, manual_timeout, track_yielded)::async.task_push_t;
$$;
COMMENT ON FUNCTION async.task(TEXT, TEXT, JSONB, INT, TEXT, INTERVAL, BOOL) IS
  'A task for async.push_tasks; target null: the orchestrating database.';

CREATE OR REPLACE FUNCTION async.push_tasks(
  _tasks async.task_push_t[], _run_type async.task_run_type_t DEFAULT 'EXECUTE', _source TEXT DEFAULT NULL)
RETURNS SETOF BIGINT LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT i FROM async.ask_push_tasks(_tasks, _run_type, _source) AS i;
END
$$;
COMMENT ON FUNCTION async.push_tasks(async.task_push_t[], async.task_run_type_t, TEXT) IS
  'Pushes tasks on the server, where they run as the user of the connection; returns their ids there. At once: this '
  'transaction''s end makes no difference, and calling it again pushes them again.';

CREATE OR REPLACE FUNCTION async.push_task(
  _task async.task_push_t, _run_type async.task_run_type_t DEFAULT 'EXECUTE', _source TEXT DEFAULT 'manual push')
RETURNS BIGINT LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT i FROM async.push_tasks(ARRAY[_task], _run_type, _source) AS i);
END
$$;
COMMENT ON FUNCTION async.push_task(async.task_push_t, async.task_run_type_t, TEXT) IS 'Pushes one task: async.push_tasks.';

CREATE OR REPLACE FUNCTION async.finish(
  _task_ids BIGINT[], _status async.finish_status_t, _error_message TEXT, _duration INTERVAL DEFAULT NULL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_finish_tasks(_task_ids, _status, _error_message, _duration);
END
$$;
COMMENT ON FUNCTION async.finish(BIGINT[], async.finish_status_t, TEXT, INTERVAL) IS
  'Ends tasks of the server, at once: this transaction''s end makes no difference.';

CREATE OR REPLACE FUNCTION async.cancel(_task_ids BIGINT[], _error_message TEXT DEFAULT NULL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_cancel_tasks(_task_ids, _error_message);
END
$$;
COMMENT ON FUNCTION async.cancel(BIGINT[], TEXT) IS 'Cancels tasks of the server, at once: this transaction''s end makes no difference.';

CREATE OR REPLACE FUNCTION async.defer(_task_ids BIGINT[], _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_defer_tasks(_task_ids, _duration);
END
$$;
COMMENT ON FUNCTION async.defer(BIGINT[], INTERVAL) IS 'Puts tasks of the server off, at once: this transaction''s end makes no difference.';

CREATE OR REPLACE FUNCTION async.enter_inbox(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.enter_attempt(_engine, _task_id, _attempt);
END
$$;
COMMENT ON FUNCTION async.enter_inbox(TEXT, BIGINT, INT) IS
  'Enters an attempt of a task, in the name of the session''s login role; counts if the transaction commits. Raises '
  'unique_violation of async.inbox when it is there; waits for one that is being entered.';

CREATE OR REPLACE FUNCTION async.in_inbox(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS BOOL
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM async.inbox i
    WHERE i.engine = _engine AND i.task_id = _task_id AND i.attempt = _attempt AND i.run_as = session_user);
$$;
COMMENT ON FUNCTION async.in_inbox(TEXT, BIGINT, INT) IS
  'Whether an attempt of a task was entered, and committed, by the session''s login role.';
