-- The extension as a client: once async.server has a string, calls about runs and tasks go to that server, all of them, and
-- no run or task starts here. Without one everything is of this database.

CREATE TABLE flow.client_arguments (
  flow_id   BIGINT PRIMARY KEY,
  arguments JSONB,
  cached    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE flow.client_arguments IS
  'On a client (async.server): the arguments of runs of the orchestrating server that flow.args has asked for.';
COMMENT ON COLUMN flow.client_arguments.flow_id IS 'The run.';
COMMENT ON COLUMN flow.client_arguments.arguments IS 'What it was started with.';
COMMENT ON COLUMN flow.client_arguments.cached IS 'When the server told them.';
ALTER TABLE flow.client_arguments ENABLE ROW LEVEL SECURITY;  -- and no policy, as for the next two: nobody but the owner
ALTER TABLE async.client_server ENABLE ROW LEVEL SECURITY;
ALTER TABLE async.inbox ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION async.is_client() RETURNS BOOL LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.is_client IS 'Whether async.server says that this database is a client of another one.';

CREATE FUNCTION async.is_client_as(_caller OID) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (SELECT FROM async.client_server);
END
$$;
COMMENT ON FUNCTION async.is_client_as IS 'Internal: async.is_client with the caller''s role.';

-- Two databases must not both believe that a run is theirs: their ids are the same small numbers.
CREATE FUNCTION async.require_no_client() RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM async.client_server) THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('this database is a client of "%s" and runs nothing itself', async.server_to_ask()),
      HINT = 'Start it on that server. SELECT async.server('''') makes this database its own server again.';
  END IF;
END
$$;
COMMENT ON FUNCTION async.require_no_client IS 'Internal: raises when this database is a client.';

CREATE FUNCTION async.server_as(_caller OID, _new_connection_string TEXT) RETURNS TEXT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET debug_print_parse = off SET debug_print_rewritten = off SET debug_print_plan = off AS $$
BEGIN
  IF _new_connection_string IS NOT NULL THEN
    PERFORM async.require_admin(_caller, 'set where the orchestrating server is');
    IF btrim(_new_connection_string) <> '' THEN
      LOCK TABLE async.task, flow.flow IN SHARE MODE;  -- nobody starts anything until this is decided
      IF EXISTS (SELECT FROM flow.flow f WHERE f.processed IS NULL)
         OR EXISTS (SELECT FROM async.task t WHERE t.processed IS NULL) THEN
        RAISE object_not_in_prerequisite_state USING
          MESSAGE = 'this database cannot become a client while runs or tasks of its own are open',
          HINT = 'Wait for them (flow.v_flow_status, async.v_task) or cancel them: what they call would go to the other server.';
      END IF;
    END IF;
    PERFORM async.set_server(_new_connection_string);
  END IF;
  RETURN coalesce((SELECT s.readable FROM async.client_server s), '');
END
$$;
COMMENT ON FUNCTION async.server_as IS 'Internal: async.server with the caller''s role.';

CREATE FUNCTION async.server(_new_connection_string TEXT DEFAULT NULL) RETURNS TEXT
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.server IS
  'With a connection string (libpq''s, a URL, or the name of a foreign server) makes this database a client: flow.push_steps, '
  'flow.finish, flow.defer, flow.args, flow.cancel, async.push_tasks, async.finish, async.cancel and async.defer act on that '
  'server, through dblink, and nothing starts here. '''': its own server again. Returns what is set without secrets, '''' for '
  'nothing. Setting needs flow_admin; object_not_in_prerequisite_state while something is open here, invalid_parameter_value '
  'for a string that cannot be read.';

CREATE FUNCTION async.commits_first(_flush BOOL) RETURNS BOOL LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.commits_first IS
  'Internal: whether flow.push_steps and flow.finish commit before they act: on a client, unless _flush is false.';

CREATE FUNCTION async.commits_first_as(_caller OID, _flush BOOL) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (SELECT FROM async.client_server) AND coalesce(_flush, true);
END
$$;
COMMENT ON FUNCTION async.commits_first_as IS 'Internal: async.commits_first with the caller''s role.';

CREATE FUNCTION flow.push_steps_now(_flow_id BIGINT, _node TEXT, _arguments JSONB[]) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.push_steps_now IS 'Internal: flow.push_steps as a function: never commits.';

CREATE FUNCTION flow.push_steps_now_as(_caller OID, _flow_id BIGINT, _node TEXT, _arguments JSONB[]) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_push_steps(_flow_id, _node, _arguments);
  ELSE
    PERFORM flow.push_steps_as(_caller, _flow_id, _node, _arguments);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.push_steps_now_as IS 'Internal: flow.push_steps_now with the caller''s role.';

CREATE FUNCTION flow.finish_now(_args flow.callback_arguments_t, _failed BOOL, _error_message TEXT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.finish_now IS 'Internal: flow.finish as a function: never commits.';

CREATE FUNCTION flow.finish_now_as(
  _caller OID, _args flow.callback_arguments_t, _failed BOOL, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_finish(_args, _failed, _error_message);
  ELSE
    PERFORM flow.finish_as(_caller, _args, _failed, _error_message);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.finish_now_as IS 'Internal: flow.finish_now with the caller''s role.';

CREATE FUNCTION flow.defer_now(_args flow.callback_arguments_t, _duration INTERVAL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.defer_now IS 'Internal: flow.defer as a function.';

CREATE FUNCTION flow.defer_now_as(_caller OID, _args flow.callback_arguments_t, _duration INTERVAL) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF async.is_client_as(_caller) THEN
    PERFORM async.ask_defer(_args, _duration);
  ELSE
    PERFORM flow.defer_as(_caller, _args, _duration);
  END IF;
END
$$;
COMMENT ON FUNCTION flow.defer_now_as IS 'Internal: flow.defer_now with the caller''s role.';

-- Only of the server's runs: those of this database are read with the reader's own rights.
CREATE FUNCTION flow.server_args(_flow_id BIGINT) RETURNS JSONB LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION flow.server_args IS 'flow.args of the orchestrating server; what flow.args calls on a client.';

CREATE FUNCTION flow.server_args_as(_caller OID, _flow_id BIGINT) RETURNS JSONB
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN async.ask_args(_flow_id);
END
$$;
COMMENT ON FUNCTION flow.server_args_as IS 'Internal: flow.server_args with the caller''s role.';

CREATE FUNCTION async.enter_inbox(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.enter_inbox IS
  'Enters an attempt of a task of an orchestrating server, in the name of the session''s login role; counts if the '
  'transaction commits. Raises unique_violation of async.inbox when it is there; waits for one that is being entered.';

CREATE FUNCTION async.enter_inbox_as(_caller OID, _engine TEXT, _task_id BIGINT, _attempt INT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM async.enter_attempt(_engine, _task_id, _attempt);
END
$$;
COMMENT ON FUNCTION async.enter_inbox_as IS 'Internal: async.enter_inbox with the caller''s role.';

CREATE FUNCTION async.in_inbox(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS BOOL
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.in_inbox IS
  'Whether an attempt of a task of an orchestrating server was entered, and committed, by the session''s login role.';

CREATE FUNCTION async.in_inbox_as(_caller OID, _engine TEXT, _task_id BIGINT, _attempt INT) RETURNS BOOL
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (SELECT FROM async.inbox i
    WHERE i.engine = _engine AND i.task_id = _task_id AND i.attempt = _attempt AND i.run_as = session_user);
END
$$;
COMMENT ON FUNCTION async.in_inbox_as IS 'Internal: async.in_inbox with the caller''s role.';
