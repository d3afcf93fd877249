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
  DELETE FROM flow.client_arguments;  -- those of another server's runs
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
