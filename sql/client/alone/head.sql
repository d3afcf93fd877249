-- pgflow client @VERSION@: for databases in which callbacks of a pgflow elsewhere run, on servers where the extension cannot
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
SELECT '@VERSION@' WHERE '@VERSION@' IS DISTINCT FROM (SELECT v.version FROM async.client_version v ORDER BY v.installed DESC LIMIT 1);

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

CREATE TABLE IF NOT EXISTS flow.client_arguments (
  flow_id   BIGINT PRIMARY KEY,
  arguments JSONB,
  cached    TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
ALTER TABLE flow.client_arguments ADD COLUMN IF NOT EXISTS cached TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp();
REVOKE ALL ON flow.client_arguments FROM PUBLIC;
COMMENT ON TABLE flow.client_arguments IS 'The arguments of runs of the orchestrating server that flow.args has asked for.';
COMMENT ON COLUMN flow.client_arguments.flow_id IS 'The run.';
COMMENT ON COLUMN flow.client_arguments.arguments IS 'What it was started with.';
COMMENT ON COLUMN flow.client_arguments.cached IS 'When the server told them.';
