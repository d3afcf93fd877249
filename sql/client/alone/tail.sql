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
