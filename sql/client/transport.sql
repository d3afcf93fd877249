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
