-- What the orchestrating server is asked, one function a request. Values are quoted, never pasted; intervals travel as
-- ISO 8601, which every IntervalStyle reads. Of a callback's arguments only what names its task is sent.

CREATE OR REPLACE FUNCTION async.ask_push_steps(_flow_id BIGINT, _node TEXT, _arguments JSONB[]) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_server(format(
    'CALL flow.push_steps(%L::BIGINT, %L::TEXT, %L::JSONB[], false)', _flow_id, _node, _arguments));
END
$$;
COMMENT ON FUNCTION async.ask_push_steps(BIGINT, TEXT, JSONB[]) IS 'Internal: flow.push_steps on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_finish(_args flow.callback_arguments_t, _failed BOOL, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_server(format(
    'CALL flow.finish(ROW(%L, %L, NULL, %L, NULL, %L)::flow.callback_arguments_t, %L::BOOL, %L::TEXT, false)',
    _args.flow_id, _args.flow, _args.node, _args.task_id, _failed, _error_message));
END
$$;
COMMENT ON FUNCTION async.ask_finish(flow.callback_arguments_t, BOOL, TEXT) IS 'Internal: flow.finish on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_defer(_args flow.callback_arguments_t, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET intervalstyle = iso_8601 AS $$
BEGIN
  PERFORM async.ask_server(format(
    'CALL flow.defer(ROW(%L, %L, NULL, %L, NULL, %L)::flow.callback_arguments_t, %L::INTERVAL)',
    _args.flow_id, _args.flow, _args.node, _args.task_id, _duration));
END
$$;
COMMENT ON FUNCTION async.ask_defer(flow.callback_arguments_t, INTERVAL) IS 'Internal: flow.defer on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_cancel_run(_flow_id BIGINT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_server(format('SELECT flow.cancel(%L::BIGINT)::TEXT', _flow_id));
END
$$;
COMMENT ON FUNCTION async.ask_cancel_run(BIGINT) IS 'Internal: flow.cancel on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_finish_tasks(
  _task_ids BIGINT[], _status async.finish_status_t, _error_message TEXT, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET intervalstyle = iso_8601 AS $$
BEGIN
  PERFORM async.ask_server(format(
    'SELECT async.finish(%L::BIGINT[], %L::async.finish_status_t, %L::TEXT, %L::INTERVAL)::TEXT',
    _task_ids, _status, _error_message, _duration));
END
$$;
COMMENT ON FUNCTION async.ask_finish_tasks(BIGINT[], async.finish_status_t, TEXT, INTERVAL) IS
  'Internal: async.finish on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_cancel_tasks(_task_ids BIGINT[], _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.ask_server(format('SELECT async.cancel(%L::BIGINT[], %L::TEXT)::TEXT', _task_ids, _error_message));
END
$$;
COMMENT ON FUNCTION async.ask_cancel_tasks(BIGINT[], TEXT) IS 'Internal: async.cancel on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_defer_tasks(_task_ids BIGINT[], _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET intervalstyle = iso_8601 AS $$
BEGIN
  PERFORM async.ask_server(format('SELECT async.defer(%L::BIGINT[], %L::INTERVAL)::TEXT', _task_ids, _duration));
END
$$;
COMMENT ON FUNCTION async.ask_defer_tasks(BIGINT[], INTERVAL) IS 'Internal: async.defer on the orchestrating server.';

CREATE OR REPLACE FUNCTION async.ask_push_tasks(
  _tasks async.task_push_t[], _run_type async.task_run_type_t, _source TEXT) RETURNS SETOF BIGINT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET intervalstyle = iso_8601 AS $$
BEGIN
  RETURN QUERY SELECT a::BIGINT FROM async.ask_server(format(
    'SELECT async.push_tasks(%L::async.task_push_t[], %L::async.task_run_type_t, %L::TEXT)::TEXT',
    _tasks, _run_type, _source)) AS a;
END
$$;
COMMENT ON FUNCTION async.ask_push_tasks(async.task_push_t[], async.task_run_type_t, TEXT) IS
  'Internal: async.push_tasks on the orchestrating server.';

-- The arguments of runs, as the server told them: a callback may ask often, and they do not change. Bounded: the newest
-- 10,000 runs, for 30 days.
CREATE OR REPLACE FUNCTION async.ask_args(_flow_id BIGINT) RETURNS JSONB
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _arguments JSONB;
BEGIN
  PERFORM async.server_to_ask();
  SELECT c.arguments INTO _arguments FROM flow.client_arguments c WHERE c.flow_id = _flow_id;
  IF FOUND THEN
    RETURN _arguments;
  END IF;
  SELECT a::JSONB INTO _arguments FROM async.ask_server(format('SELECT flow.args(%L::BIGINT)::TEXT', _flow_id)) AS a;
  IF _arguments IS NULL OR current_setting('transaction_read_only')::BOOL THEN
    RETURN _arguments;
  END IF;
  INSERT INTO flow.client_arguments (flow_id, arguments) VALUES (_flow_id, _arguments) ON CONFLICT DO NOTHING;
  IF random() < 0.01 AND current_setting('transaction_isolation') = 'read committed' THEN
    DELETE FROM flow.client_arguments c WHERE c.flow_id IN (
      SELECT x.flow_id FROM flow.client_arguments x
       WHERE x.flow_id <= (SELECT y.flow_id FROM flow.client_arguments y ORDER BY y.flow_id DESC OFFSET 10000 LIMIT 1)
          OR x.cached < clock_timestamp() - INTERVAL '30 days'
       ORDER BY x.flow_id LIMIT 1000 FOR UPDATE SKIP LOCKED);
  END IF;
  RETURN _arguments;
END
$$;
COMMENT ON FUNCTION async.ask_args(BIGINT) IS 'Internal: flow.args of the orchestrating server, kept here for the next time.';
