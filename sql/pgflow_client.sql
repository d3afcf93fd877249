-- pgflow client 0.2.0: for databases in which callbacks of a pgflow elsewhere run, on servers where the extension cannot
-- be installed. Made from sql/client by scripts/pgflow-client.sh; do not edit.
--
-- It needs PostgreSQL 12 or later, the extension dblink (CREATE EXTENSION dblink) and a role that may create schemas:
--   psql -f pgflow_client.sql
--   SELECT async.server('host=orchestrator.example port=5432 dbname=app user=reports password=…');
--   SELECT async.grant_client('etl');   -- the role that the orchestrating server's target logs in as
-- Run the file again, as the same role, to upgrade it: everything stays. DROP SCHEMA async, flow CASCADE removes it.
--
-- How the data flows. The orchestrating server connects to this database and calls a procedure, the callback, with
-- flow.callback_arguments_t. What the callback does commits here, with a row in async.inbox (async.enter_inbox) that tells the
-- orchestrating server, should the connection break, whether it has. A callback that adds steps, ends or puts off its task
-- calls flow.push_steps, flow.finish or flow.defer, as it would in the orchestrating database. They go there through
-- dblink, in a session of its own: the server acts on them at once, and a ROLLBACK here does not take them back. Hence
-- flow.push_steps and flow.finish COMMIT here first, unless _flush_transaction_when_client is false.
--
-- Who may do what. All of these calls reach the server as the one user that the connection string names: whoever may call
-- them here can act for every run that this user can act for there. So give each client database a user of its own on the
-- server, and async.grant_client only to roles that you trust with its runs. Nothing is granted to PUBLIC. The string
-- with its password is in a table of the role that ran this file; the functions that use it run with that role's
-- rights (SECURITY DEFINER) and a search_path of their own, and show it in no error, plan or message.

BEGIN;
SET LOCAL client_min_messages = warning;  -- nothing about what exists already
SET LOCAL search_path = pg_catalog, pg_temp;

-- What must be so before anything is done.
DO $$
DECLARE
  _bad TEXT;
BEGIN
  IF current_setting('server_version_num')::INT < 120000 THEN
    RAISE feature_not_supported USING
      MESSAGE = format('the pgflow client needs PostgreSQL 12 or later, this is %s', current_setting('server_version'));
  ELSIF EXISTS (SELECT FROM pg_extension WHERE extname = 'pgflow') THEN
    RAISE duplicate_object USING
      MESSAGE = 'this database has the extension pgflow, which is a client by itself',
      HINT = 'SELECT async.server(''…'') makes it one.';
  ELSIF to_regclass('async.task') IS NOT NULL THEN
    RAISE duplicate_object USING
      MESSAGE = 'this database is a server of pgflow''s SQL original, not a client',
      HINT = 'docs/migrating.md says how the extension takes it over.';
  END IF;
  -- A schema that somebody else has prepared must stop the installation: functions in it would run with our rights.
  SELECT string_agg(x.what, ', ') INTO _bad FROM (
    SELECT format('schema %I of role %I', n.nspname, pg_get_userbyid(n.nspowner)) AS what
      FROM pg_namespace n WHERE n.nspname IN ('async', 'flow') AND pg_get_userbyid(n.nspowner) <> current_user
    UNION ALL
    SELECT format('%s may create in schema %I', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, n.nspname)
      FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
     WHERE n.nspname IN ('async', 'flow') AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
    UNION ALL
    SELECT format('%s of role %I', p.oid::REGPROCEDURE, pg_get_userbyid(p.proowner)) FROM pg_proc p
     WHERE p.pronamespace IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname IN ('async', 'flow'))
       AND pg_get_userbyid(p.proowner) <> current_user
    UNION ALL
    SELECT format('%s of role %I', c.oid::REGCLASS, pg_get_userbyid(c.relowner)) FROM pg_class c
     WHERE c.relnamespace IN (SELECT n.oid FROM pg_namespace n WHERE n.nspname IN ('async', 'flow'))
       AND pg_get_userbyid(c.relowner) <> current_user
    LIMIT 10) x;
  IF _bad IS NOT NULL THEN
    RAISE insufficient_privilege USING
      MESSAGE = 'the pgflow client can be installed only into schemas that are all your own',
      DETAIL = format('There are: %s.', _bad),
      HINT = 'Install it as the role that owns them, or hand them over (ALTER … OWNER TO), and REVOKE CREATE from others.';
  END IF;
END
$$;

-- The SQL original's client has routines of the same names: its place is taken. Its type stays, and with it callbacks.
-- Roles that may call what is there now may call what replaces it: see the end.
DO $$
DECLARE
  _routine REGPROCEDURE;
BEGIN
  PERFORM set_config('pgflow_client.roles', coalesce((
    SELECT string_agg(DISTINCT a.grantee::TEXT, ',') FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'flow'
    CROSS JOIN LATERAL aclexplode(p.proacl) a
    WHERE p.proname = 'push_steps' AND a.grantee <> p.proowner), ''), true);
  IF to_regclass('async.client_version') IS NULL THEN
    FOR _routine IN
      SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
       WHERE (n.nspname = 'flow' AND p.proname IN ('push_steps', 'finish', 'defer', 'args', 'cancel', 'progress'))
          OR (n.nspname = 'async' AND p.proname IN
               ('server', 'task', 'push_task', 'push_tasks', 'finish', 'cancel', 'defer', 'enter_inbox', 'in_inbox'))
    LOOP
      EXECUTE format('DROP ROUTINE %s', _routine);
    END LOOP;
  END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS async;
COMMENT ON SCHEMA async IS 'pgflow client: where the orchestrating server is, and what has had its effects here.';
CREATE SCHEMA IF NOT EXISTS flow;
COMMENT ON SCHEMA flow IS 'pgflow client: what callbacks call.';

CREATE TABLE IF NOT EXISTS async.client_version (version TEXT NOT NULL, installed TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
REVOKE ALL ON async.client_version FROM PUBLIC;
COMMENT ON TABLE async.client_version IS 'Which versions of the client have been installed here, and when.';
COMMENT ON COLUMN async.client_version.version IS 'The version.';
COMMENT ON COLUMN async.client_version.installed IS 'When.';
INSERT INTO async.client_version (version)
SELECT '0.2.0' WHERE '0.2.0' IS DISTINCT FROM (SELECT v.version FROM async.client_version v ORDER BY v.installed DESC LIMIT 1);

-- Types, with the fields that they have on the server; one that is there must be the same.
DO $$
DECLARE
  _type  RECORD;
  _found TEXT;
BEGIN
  FOR _type IN
    SELECT * FROM (VALUES
      ('flow.callback_arguments_t', 'flow_id bigint, flow text, flow_arguments jsonb, node text, step_arguments jsonb, task_id bigint'),
      ('async.task_push_t', 'task_data jsonb, target text, priority integer, query text, concurrency_pool text, '
        'manual_timeout interval, track_yielded boolean')) AS t(name, fields)
  LOOP
    SELECT string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum) INTO _found
      FROM pg_attribute a WHERE a.attrelid = to_regclass(_type.name) AND a.attnum > 0 AND NOT a.attisdropped;
    IF _found IS NULL THEN
      EXECUTE format('CREATE TYPE %s AS (%s)', _type.name, _type.fields);
    ELSIF _found <> _type.fields THEN
      RAISE wrong_object_type USING
        MESSAGE = format('type %s has other fields than the server''s', _type.name),
        DETAIL = format('It has (%s), it should have (%s).', _found, _type.fields),
        HINT = 'ALTER TYPE … ADD, DROP or ALTER ATTRIBUTE, with CASCADE where tables use it.';
    END IF;
  END LOOP;
  IF to_regtype('async.finish_status_t') IS NULL THEN
    CREATE TYPE async.finish_status_t AS ENUM
      ('FINISHED', 'FAILED', 'CANCELED', 'PAUSED', 'TIMED_OUT', 'YIELDED', 'DOA', 'DEFERRED');
  END IF;
  IF to_regtype('async.task_run_type_t') IS NULL THEN
    CREATE TYPE async.task_run_type_t AS ENUM ('EXECUTE', 'DOA', 'EMPTY', 'EXECUTE_NOASYNC');
  END IF;
END
$$;
COMMENT ON TYPE flow.callback_arguments_t IS 'What a callback is called with.';
COMMENT ON TYPE async.task_push_t IS 'A task for async.push_tasks; made by async.task.';
COMMENT ON TYPE async.finish_status_t IS 'How a task has ended, or was put off.';
COMMENT ON TYPE async.task_run_type_t IS 'What async.push_tasks does with the tasks.';

CREATE TABLE IF NOT EXISTS flow.arguments (
  flow_id   BIGINT PRIMARY KEY,
  arguments JSONB,
  cached    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE flow.arguments ADD COLUMN IF NOT EXISTS cached TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp();
REVOKE ALL ON flow.arguments FROM PUBLIC;
COMMENT ON TABLE flow.arguments IS 'The arguments of runs of the orchestrating server that flow.args has asked for.';
COMMENT ON COLUMN flow.arguments.flow_id IS 'The run.';
COMMENT ON COLUMN flow.arguments.arguments IS 'What it was started with.';
COMMENT ON COLUMN flow.arguments.cached IS 'When the server told them.';

-- Where the orchestrating server is. The string may hold a password: only the owner of the table sees it; everybody else
-- sees "readable".

CREATE TABLE IF NOT EXISTS async.client_server (
  only_row          BOOL PRIMARY KEY DEFAULT true CHECK (only_row),
  connection_string TEXT NOT NULL,
  connect_with      TEXT NOT NULL,
  readable          TEXT NOT NULL,
  version           BIGINT NOT NULL
);
REVOKE ALL ON async.client_server FROM PUBLIC;
COMMENT ON TABLE async.client_server IS
  'Where the orchestrating server is, if this database is a client: one row or none. Set with async.server. Owner only.';
COMMENT ON COLUMN async.client_server.only_row IS 'Keeps the table at one row.';
COMMENT ON COLUMN async.client_server.connection_string IS 'As it was given. May hold a password.';
COMMENT ON COLUMN async.client_server.connect_with IS 'The same with defaults for what it leaves open, or the name of a foreign server.';
COMMENT ON COLUMN async.client_server.readable IS 'The same without secrets: what errors and async.server() show.';
COMMENT ON COLUMN async.client_server.version IS 'Differs after each change: connections that are kept belong to one version.';

-- Takes a connection string apart the way libpq does. What libpq would refuse is refused here, because its message can
-- repeat a piece of the password.
CREATE OR REPLACE FUNCTION async.connection_parts(_string TEXT, OUT readable TEXT, OUT secrets TEXT[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _rest  TEXT := _string;
  _item  TEXT[];
  _place TEXT[];
  _host  TEXT;
  _shown TEXT[] := '{}';
BEGIN
  secrets := '{}';
  IF _string ~ '^postgres(ql)?://' THEN
    -- 2 user, 4 password, 5 hosts, 7 database, 9 parameters
    _place := regexp_match(_string, '^(postgres(?:ql)?://)(?:([^:@/?]*)(:([^:@/?]*))?@)?([^@/?]*)(/([^@/?]*))?(\?(.*))?$');
    IF _place IS NOT NULL AND _string !~ '\s' AND _string !~ '%(?![0-9A-Fa-f]{2})'
       AND coalesce(_place[9] ~ '^([A-Za-z_]+=[^&=]*(&|$))*$', true) THEN
      readable := _place[1] || coalesce(_place[2] || '@', '') || _place[5] || coalesce(_place[6], '');
      secrets := array_remove(ARRAY[_place[4]] || ARRAY(
        SELECT split_part(p, '=', 2) FROM regexp_split_to_table(coalesce(_place[9], ''), '&') AS p
         WHERE split_part(p, '=', 1) NOT IN ('host', 'hostaddr', 'port', 'dbname', 'user', 'sslmode', 'connect_timeout')), NULL);
      FOREACH _host IN ARRAY string_to_array(_place[5], ',') LOOP
        IF _host !~ '^(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(:[0-9]*)?$' THEN
          readable := NULL;
        END IF;
      END LOOP;
    END IF;
  ELSIF EXISTS (SELECT FROM pg_foreign_server f WHERE f.srvname = _string) THEN
    readable := format('server %I', _string);
  ELSE
    FOR _at IN 1 .. 100 LOOP
      EXIT WHEN _rest ~ '^\s*$';
      _item := regexp_match(_rest, '^(\s*([a-z_]+)\s*=\s*(''(?:[^''\\]|\\.)*''|(?:[^\s''\\]|\\.)(?:[^\s\\]|\\.)*|$))');
      EXIT WHEN _item IS NULL;
      _rest := substr(_rest, length(_item[1]) + 1);
      IF _item[2] IN ('host', 'hostaddr', 'port', 'dbname', 'user', 'service') THEN
        _shown := _shown || (_item[2] || '=' || _item[3]);
      ELSIF _item[2] NOT IN ('sslmode', 'connect_timeout', 'application_name', 'target_session_attrs') THEN
        IF _item[2] = 'password' THEN
          _shown := _shown || 'password=***'::TEXT;
        END IF;
        secrets := secrets || regexp_replace(btrim(_item[3], ''''), '\\(.)', '\1', 'g');
      END IF;
    END LOOP;
    IF _rest ~ '^\s*$' THEN
      readable := array_to_string(_shown, ' ');
    END IF;
  END IF;
  secrets := array_remove(secrets, '');
  IF readable IS NULL OR readable = '' THEN
    RAISE invalid_parameter_value USING
      MESSAGE = 'the connection string cannot be read',
      DETAIL = 'It is not repeated here, because it may hold a password.',
      HINT = 'Write it as ''host=… port=… dbname=… user=… password=…'' (values with blanks or quotes as ''…'' with \ before '
        ''' and \), as postgresql://user:password@host:port/dbname (special characters as %40 and the like), or give the name '
        'of a foreign server of dblink_fdw or postgres_fdw.';
  END IF;
END
$$;
COMMENT ON FUNCTION async.connection_parts(TEXT) IS
  'Internal: a connection string without its secrets, and these; raises invalid_parameter_value for one that cannot be read.';

CREATE OR REPLACE FUNCTION async.set_server(_string TEXT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET debug_print_parse = off SET debug_print_rewritten = off SET debug_print_plan = off AS $$
DECLARE
  _readable TEXT;
  _with     TEXT := _string;
BEGIN
  DELETE FROM async.client_server;
  DELETE FROM flow.arguments;  -- those of another server's runs
  IF btrim(_string) = '' THEN
    RETURN;
  END IF;
  _readable := (async.connection_parts(_string)).readable;
  -- What the string says itself counts more than these. A server that does not answer must not hold a callback for ever.
  IF _string ~ '^postgres(ql)?://' THEN
    IF _string !~ '[?&]connect_timeout=' THEN
      _with := _with || CASE WHEN _string ~ '\?' THEN '&' ELSE '?' END || 'connect_timeout=10';
    END IF;
  ELSIF _readable !~ '^server ' THEN
    _with := 'fallback_application_name=pgflow_client connect_timeout=10 ' || _string;
  END IF;
  INSERT INTO async.client_server (connection_string, connect_with, readable, version)
  VALUES (_string, _with, _readable, (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT);
END
$$;
COMMENT ON FUNCTION async.set_server(TEXT) IS 'Internal: keeps where the orchestrating server is; '''': nowhere.';

-- How a statement reaches the orchestrating server: through dblink. dblink has no parameters: whoever makes a statement
-- quotes every value with format %L.
--
-- dblink lets everybody in a session use every connection that is open in it, and a connection has the rights of the user
-- that the string names. Hence: a connection is opened for a call and closed with it, by dblink itself, whatever happens,
-- unless the session's role could not misuse it: it has the owner's rights anyway, or may not execute dblink's functions
-- (REVOKE them from PUBLIC to have connections kept). Then one is kept for the session, and tried before each use.
--
-- The connection string is read by the statement that hands it to dblink. It is never a parameter or a literal: those
-- show in the plans that debug_print_plan prints.

CREATE OR REPLACE FUNCTION async.dblink_schema() RETURNS NAME
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _schema NAME;
BEGIN
  SELECT n.nspname INTO _schema
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'dblink';
  IF _schema IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = 'the orchestrating server cannot be reached: extension "dblink" is not installed in this database',
      HINT = 'CREATE EXTENSION dblink; it comes with PostgreSQL (package postgresql-contrib).';
  END IF;
  RETURN _schema;
END
$$;
COMMENT ON FUNCTION async.dblink_schema() IS 'Internal: the schema of extension dblink; raises undefined_object with a hint without it.';

-- Runs as the owner.
CREATE OR REPLACE FUNCTION async.may_keep_connection() RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_has_role(session_user, current_user, 'USAGE') OR NOT EXISTS (
    SELECT FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
      AND d.classid = 'pg_proc'::regclass
    JOIN pg_roles r ON pg_has_role(session_user, r.oid, 'MEMBER')
    WHERE e.extname = 'dblink' AND has_function_privilege(r.oid, d.objid, 'EXECUTE'));
$$;
COMMENT ON FUNCTION async.may_keep_connection() IS
  'Internal: whether a connection may stay open: the session''s role has the owner''s rights, or cannot use dblink by itself.';

-- The name of the session's connection, open and answering.
CREATE OR REPLACE FUNCTION async.kept_connection(_dblink NAME) RETURNS TEXT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET debug_print_parse = off SET debug_print_rewritten = off SET debug_print_plan = off AS $$
DECLARE
  _name CONSTANT TEXT := (SELECT format('pgflow-%s', s.version) FROM async.client_server s);
  _open TEXT[];
  _old  TEXT;
BEGIN
  EXECUTE format('SELECT %I.dblink_get_connections()', _dblink) INTO _open;
  FOR _old IN SELECT o FROM unnest(_open) AS o WHERE o LIKE 'pgflow-%' AND o <> _name LOOP
    EXECUTE format('SELECT %I.dblink_disconnect($1)', _dblink) USING _old;
  END LOOP;
  IF _name = ANY (_open) THEN
    BEGIN
      EXECUTE format('SELECT r.value FROM %I.dblink($1, $2) AS r(value TEXT)', _dblink) USING _name, 'SELECT ''1''::TEXT'::TEXT;
      RETURN _name;
    EXCEPTION WHEN OTHERS THEN  -- whatever it is, a new connection is the answer
      EXECUTE format('SELECT %I.dblink_disconnect($1)', _dblink) USING _name;
    END;
  END IF;
  EXECUTE format('SELECT %I.dblink_connect($1, s.connect_with) FROM async.client_server s', _dblink) USING _name;
  RETURN _name;
END
$$;
COMMENT ON FUNCTION async.kept_connection(NAME) IS 'Internal: the name of the session''s connection to the server, open and answering.';

-- One statement, one answer; the server commits before this returns. Its errors arrive as they were raised there: SQLSTATE,
-- message, detail, hint.
CREATE OR REPLACE FUNCTION async.ask_server(_statement TEXT) RETURNS SETOF TEXT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET debug_print_parse = off SET debug_print_rewritten = off SET debug_print_plan = off AS $$
DECLARE
  _dblink  CONSTANT NAME := async.dblink_schema();
  _server  TEXT := async.server_to_ask();
  _name    TEXT;
  _detail  TEXT;
  _message TEXT;
  _code    TEXT;
  _secret  TEXT;
BEGIN
  IF async.may_keep_connection() THEN
    _name := async.kept_connection(_dblink);
    RETURN QUERY EXECUTE format('SELECT r.value FROM %I.dblink($1, $2) AS r(value TEXT)', _dblink) USING _name, _statement;
  ELSE
    RETURN QUERY EXECUTE format(
      'SELECT r.value FROM async.client_server s CROSS JOIN LATERAL %I.dblink(s.connect_with, $1) AS r(value TEXT)', _dblink)
      USING _statement;
  END IF;
EXCEPTION WHEN connection_exception OR SQLSTATE '2F003' THEN
  GET STACKED DIAGNOSTICS _message = MESSAGE_TEXT, _detail = PG_EXCEPTION_DETAIL, _code = RETURNED_SQLSTATE;
  _detail := concat_ws(': ', _message, nullif(btrim(_detail), ''));
  FOR _secret IN SELECT unnest((async.connection_parts(s.connection_string)).secrets) FROM async.client_server s LOOP
    _detail := replace(_detail, _secret, '***');
  END LOOP;
  RAISE EXCEPTION USING
    ERRCODE = _code,
    MESSAGE = format('the orchestrating server cannot be reached at "%s"', _server),
    DETAIL = _detail,
    HINT = CASE _code WHEN '2F003' THEN 'The role that installed this client is no superuser: dblink then connects only with a '
                 'password. Put one into async.server(…), and have the server ask for it (pg_hba.conf).'
               ELSE 'SELECT async.server(''…'') tells this database where the server is. Nothing was told to the server, unless '
                 'the connection broke after it had been asked.' END;
END
$$;
COMMENT ON FUNCTION async.ask_server(TEXT) IS
  'Internal: runs a statement on the orchestrating server and returns the first column of its rows as text.';

CREATE OR REPLACE FUNCTION async.server_to_ask() RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _readable TEXT;
BEGIN
  SELECT s.readable INTO _readable FROM async.client_server s;
  IF _readable IS NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = 'this database does not know its orchestrating server',
      HINT = 'SELECT async.server(''host=… dbname=… user=… password=…''), as the role that installed the client.';
  END IF;
  RETURN _readable;
END
$$;
COMMENT ON FUNCTION async.server_to_ask() IS 'Internal: the server as errors show it; raises when none is set.';

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
  SELECT c.arguments INTO _arguments FROM flow.arguments c WHERE c.flow_id = _flow_id;
  IF FOUND THEN
    RETURN _arguments;
  END IF;
  SELECT a::JSONB INTO _arguments FROM async.ask_server(format('SELECT flow.args(%L::BIGINT)::TEXT', _flow_id)) AS a;
  IF _arguments IS NULL OR current_setting('transaction_read_only')::BOOL THEN
    RETURN _arguments;
  END IF;
  INSERT INTO flow.arguments (flow_id, arguments) VALUES (_flow_id, _arguments) ON CONFLICT DO NOTHING;
  IF random() < 0.01 AND current_setting('transaction_isolation') = 'read committed' THEN
    DELETE FROM flow.arguments c WHERE c.flow_id IN (
      SELECT x.flow_id FROM flow.arguments x
       WHERE x.flow_id <= (SELECT y.flow_id FROM flow.arguments y ORDER BY y.flow_id DESC OFFSET 10000 LIMIT 1)
          OR x.cached < clock_timestamp() - INTERVAL '30 days'
       ORDER BY x.flow_id LIMIT 1000 FOR UPDATE SKIP LOCKED);
  END IF;
  RETURN _arguments;
END
$$;
COMMENT ON FUNCTION async.ask_args(BIGINT) IS 'Internal: flow.args of the orchestrating server, kept here for the next time.';

-- The inbox: which attempts of which tasks have had their effects here. Whoever runs a callback for a pgflow elsewhere enters
-- the attempt in the callback's transaction: both commit or neither. If the connection breaks before the answer arrives,
-- a look into the inbox tells which.
--
-- A row belongs to the role that the session logged in as: nobody can enter, or look for, an attempt in another's name.

CREATE TABLE IF NOT EXISTS async.inbox (
  engine  TEXT NOT NULL,
  task_id BIGINT NOT NULL,
  attempt INT NOT NULL,
  done    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
  run_as  NAME NOT NULL DEFAULT session_user,
  PRIMARY KEY (engine, task_id, attempt, run_as)
);
CREATE INDEX IF NOT EXISTS inbox_done ON async.inbox USING brin (done);
REVOKE ALL ON async.inbox FROM PUBLIC;
COMMENT ON TABLE async.inbox IS
  'Attempts of tasks of orchestrating servers that have had their effects here; see async.enter_inbox. Kept for 30 days.';
COMMENT ON COLUMN async.inbox.engine IS 'Which orchestrating database.';
COMMENT ON COLUMN async.inbox.task_id IS 'Its task.';
COMMENT ON COLUMN async.inbox.attempt IS 'The attempt of the task.';
COMMENT ON COLUMN async.inbox.done IS 'When it was entered.';
COMMENT ON COLUMN async.inbox.run_as IS 'The role that the session had logged in as: whose row it is.';

-- The unique_violation is that of the key, with its schema, table and constraint (inbox_pkey): to be told from a callback's own.
CREATE OR REPLACE FUNCTION async.enter_attempt(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO async.inbox (engine, task_id, attempt) VALUES (_engine, _task_id, _attempt);
  -- Now and then, at most twice as many as were entered since; never waits for anybody.
  IF random() < 0.002 AND current_setting('transaction_isolation') = 'read committed' THEN
    PERFORM async.clean_inbox();
  END IF;
END
$$;
COMMENT ON FUNCTION async.enter_attempt(TEXT, BIGINT, INT) IS 'Internal: async.enter_inbox with the owner''s rights.';

CREATE OR REPLACE FUNCTION async.clean_inbox() RETURNS BIGINT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _gone BIGINT;
BEGIN
  DELETE FROM async.inbox i WHERE i.ctid = ANY (ARRAY(
    SELECT x.ctid FROM async.inbox x WHERE x.done < clock_timestamp() - INTERVAL '30 days' LIMIT 1000 FOR UPDATE SKIP LOCKED));
  GET DIAGNOSTICS _gone = ROW_COUNT;
  RETURN _gone;
END
$$;
COMMENT ON FUNCTION async.clean_inbox() IS
  'Internal: deletes up to 1000 rows of async.inbox that are older than 30 days; returns how many.';

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
  'The arguments of a run, asked from the server once and kept in flow.arguments. Raises undefined_object for an unknown run.';

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

-- The procedures that callbacks call. On a client they COMMIT first (unless told not to), so that the server, which reacts at
-- once, finds what the callback wrote. Those that do are without a SET clause, and with the caller's rights: every name is
-- qualified.

-- COMMIT has two refusals, both invalid_transaction_termination. In a block with EXCEPTION, where nothing is ever committed,
-- it says which one it would be: this place allows no COMMIT at all, or only the block forbids it. Their texts are
-- translated; a function, where no COMMIT is ever allowed, tells what the first reads like.
CREATE OR REPLACE FUNCTION async.require_commit(_refusal TEXT) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  BEGIN
    COMMIT;
  EXCEPTION WHEN invalid_transaction_termination THEN
    IF _refusal <> SQLERRM THEN
      RETURN;
    END IF;
  END;
  RAISE invalid_transaction_termination USING
    MESSAGE = 'the orchestrating server can be told only after a COMMIT, and none is possible here',
    DETAIL = 'The call comes from a function, a transaction block, a procedure with a SET clause, or a block with EXCEPTION.',
    HINT = 'CALL it from a procedure or DO block outside of those. Or pass _flush_transaction_when_client := false: then the '
      'server is told at once, may react before your transaction commits, and is not untold if it rolls back.';
END
$$;
COMMENT ON FUNCTION async.require_commit(TEXT) IS
  'Internal: raises with a hint if this refusal of a COMMIT is one that says that none is possible.';

CREATE OR REPLACE PROCEDURE flow.push_steps(
  _flow_id BIGINT, _node TEXT, _arguments JSONB[], _flush_transaction_when_client BOOL DEFAULT TRUE)
LANGUAGE plpgsql AS $$
BEGIN
  IF async.commits_first(_flush_transaction_when_client) THEN
    BEGIN
      COMMIT;  -- is refused, see async.require_commit
    EXCEPTION WHEN invalid_transaction_termination THEN
      PERFORM async.require_commit(SQLERRM);
    END;
    COMMIT;
  END IF;
  PERFORM flow.push_steps_now(_flow_id, _node, _arguments);
END
$$;
COMMENT ON PROCEDURE flow.push_steps(BIGINT, TEXT, JSONB[], BOOL) IS
  'Adds steps to a node of a run: an array of JSON objects, the arguments of each; they run when the transaction '
  'has committed and the node''s own task has. Steps that the node has already (the same arguments) are left out. '
  '_flush_transaction_when_client: where this database is a client (async.server), commits before the server is told; '
  'false: the server is told at once and may start steps before this transaction commits, or although it rolls back. '
  'Raises invalid_parameter_value for a step that is {}, null or no object (with its place in the array), '
  'undefined_object for an unknown run or node, object_not_in_prerequisite_state when the node has ended or takes no '
  'part in the run; on a client invalid_transaction_termination where no COMMIT is possible, and class 08 when the '
  'server cannot be reached.';

CREATE OR REPLACE PROCEDURE flow.finish(
  _args flow.callback_arguments_t, _failed BOOL DEFAULT false, _error_message TEXT DEFAULT NULL,
  _flush_transaction_when_client BOOL DEFAULT true)
LANGUAGE plpgsql AS $$
BEGIN
  IF async.commits_first(_flush_transaction_when_client) THEN
    BEGIN
      COMMIT;  -- is refused, see async.require_commit
    EXCEPTION WHEN invalid_transaction_termination THEN
      PERFORM async.require_commit(SQLERRM);
    END;
    COMMIT;
  END IF;
  PERFORM flow.finish_now(_args, _failed, _error_message);
END
$$;
COMMENT ON PROCEDURE flow.finish(flow.callback_arguments_t, BOOL, TEXT, BOOL) IS
  'Ends the task of a callback: FINISHED, or FAILED with _error_message. _args: the arguments that the callback was '
  'called with. Inside the callback the outcome holds if its transaction commits, and for one that runs on another server '
  'if the call there returns without an error; elsewhere (asynchronous targets) it is written at once. A task that has '
  'ended: a WARNING. _flush_transaction_when_client: as for flow.push_steps. '
  'Raises undefined_object, invalid_parameter_value (not the task''s arguments), insufficient_privilege.';

CREATE OR REPLACE PROCEDURE flow.defer(_args flow.callback_arguments_t, _duration INTERVAL)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM flow.defer_now(_args, _duration);
END
$$;
COMMENT ON PROCEDURE flow.defer(flow.callback_arguments_t, INTERVAL) IS
  'Puts the task of a callback back to wait for at least _duration; then it runs again with the same arguments. It waits '
  'from the moment its call has returned. Time-outs go on from its first start. Commits nothing. Errors as flow.finish.';

-- Rights: nothing for PUBLIC, and no right that a role had is lost.

CREATE OR REPLACE FUNCTION async.client_routines() RETURNS SETOF REGPROCEDURE
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT p.oid::REGPROCEDURE FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE (n.nspname = 'flow' AND p.proname IN (
          'push_steps', 'push_steps_now', 'finish', 'finish_now', 'defer', 'defer_now', 'args', 'cancel', 'progress'))
     OR (n.nspname = 'async' AND p.proname IN (
          'server', 'readable_server', 'commits_first', 'require_commit', 'task', 'push_task', 'push_tasks', 'finish', 'cancel',
          'defer', 'enter_inbox', 'in_inbox'));
$$;
COMMENT ON FUNCTION async.client_routines() IS 'Internal: what a role that uses the client calls, itself or through these.';

CREATE OR REPLACE FUNCTION async.grant_client(_role NAME) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _routine REGPROCEDURE;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA async, flow TO %I', _role);
  FOR _routine IN SELECT r FROM async.client_routines() AS r LOOP
    EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', _routine, _role);
  END LOOP;
END
$$;
COMMENT ON FUNCTION async.grant_client(NAME) IS
  'Lets a role use the client: everything that the user of the connection can do on the server with these calls. Owner only.';

CREATE OR REPLACE FUNCTION async.revoke_client(_role NAME) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _routine REGPROCEDURE;
BEGIN
  FOR _routine IN SELECT r FROM async.client_routines() AS r LOOP
    EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM %I', _routine, _role);
  END LOOP;
END
$$;
COMMENT ON FUNCTION async.revoke_client(NAME) IS
  'Takes back what async.grant_client gave; USAGE of the schemas stays, because of the type of callbacks. Owner only.';

DO $$
DECLARE
  _routine REGPROCEDURE;
  _role    OID;
BEGIN
  -- What this transaction has made or replaced; what else somebody keeps in the schemas is not touched.
  FOR _routine IN
    SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname IN ('async', 'flow') AND p.xmin::TEXT = (txid_current() % 4294967296)::TEXT
  LOOP
    EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', _routine);
  END LOOP;
  FOR _role IN SELECT r::OID FROM unnest(string_to_array(current_setting('pgflow_client.roles'), ',')) AS r WHERE r <> '' LOOP
    PERFORM async.grant_client(CASE _role WHEN 0 THEN 'public' ELSE pg_get_userbyid(_role) END);
  END LOOP;
END
$$;

-- The SQL original's client knows where its server is; a string that cannot be read must not stop the installation.
DO $$
BEGIN
  IF to_regclass('async.client_control') IS NOT NULL AND NOT EXISTS (SELECT FROM async.client_server) THEN
    EXECUTE 'SELECT async.set_server(c.connection_string) FROM async.client_control c WHERE c.connection_string <> '''' LIMIT 1';
  END IF;
EXCEPTION WHEN invalid_parameter_value OR undefined_column THEN
  RAISE WARNING 'where the server is could not be taken over from async.client_control: %', SQLERRM USING
    HINT = 'SELECT async.server(''…'') sets it.';
END
$$;

COMMIT;
