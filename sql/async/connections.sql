-- Where targets and stores lead, with credentials: for the dispatcher, which is a superuser, and for nobody else. Foreign
-- servers and user mappings are only read: nothing of a foreign data wrapper is called.

-- http, https or clickhouse of a URL; null: it is none of these.
CREATE FUNCTION async.url_scheme(_text TEXT) RETURNS TEXT
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT lower(substring(btrim(_text) FROM '^([A-Za-z]+)://'))
   WHERE lower(substring(btrim(_text) FROM '^([A-Za-z]+)://')) IN ('http', 'https', 'clickhouse', 'clickhouses');
$$;
COMMENT ON FUNCTION async.url_scheme IS 'Internal: the scheme of a URL of ClickHouse or HTTP, or null.';

CREATE FUNCTION async.is_superuser(_role NAME) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = _role), false);
$$;
COMMENT ON FUNCTION async.is_superuser IS 'Internal: whether a role is there and a superuser.';

CREATE FUNCTION async.server_options(_server TEXT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT jsonb_object_agg(o.option_name, o.option_value)
                     FROM pg_foreign_server s, pg_options_to_table(s.srvoptions) o WHERE s.srvname = _server), '{}');
$$;
COMMENT ON FUNCTION async.server_options IS 'Internal: the options of a foreign server, without any user''s.';

-- Null: there is neither a mapping of the role nor one of PUBLIC.
CREATE FUNCTION async.mapping_options(_server TEXT, _role NAME) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce((SELECT jsonb_object_agg(o.option_name, o.option_value) FROM pg_options_to_table(m.umoptions) o), '{}')
    FROM pg_foreign_server s
    JOIN pg_user_mapping m ON m.umserver = s.oid
   WHERE s.srvname = _server
     AND (m.umuser = 0 OR m.umuser = (SELECT r.oid FROM pg_roles r WHERE r.rolname = _role))
   ORDER BY m.umuser = 0 LIMIT 1;
$$;
COMMENT ON FUNCTION async.mapping_options IS
  'Internal: the options of the user mapping of a role, else of PUBLIC, for a foreign server: credentials. Superusers only.';

-- As async.connection_of, with what is wrong instead of an error.
CREATE FUNCTION async.find_connection(
  _target TEXT, _role NAME, OUT connection_string TEXT, OUT connection_options JSONB, OUT password_required BOOL,
  OUT options JSONB, OUT kind TEXT, OUT fault TEXT, OUT hint TEXT)
RETURNS RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found   async.target;
  _mapping JSONB;
  _place   TEXT;
BEGIN
  SELECT * INTO _found FROM async.target t WHERE t.target = _target;
  IF NOT FOUND THEN
    fault := format('target "%s" does not exist', left(_target, 80));
    hint := 'Configure it with async.configure.';
    RETURN;
  END IF;
  connection_string := _found.connection_string;
  connection_options := '{}';
  options := _found.options;
  kind := _found.kind;
  password_required := NOT async.is_superuser(_found.owner);
  IF _found.server IS NULL THEN
    RETURN;
  ELSIF NOT EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = _found.server) THEN
    fault := format('foreign server "%s" of target "%s" does not exist', _found.server, _target);
    hint := 'CREATE SERVER, or configure the target with another one.';
    RETURN;
  END IF;
  password_required := password_required OR NOT EXISTS (
    SELECT FROM pg_foreign_server s JOIN pg_roles r ON r.oid = s.srvowner
     WHERE s.srvname = _found.server AND r.rolsuper);
  _mapping := async.mapping_options(_found.server, _role);
  IF _mapping IS NULL THEN
    fault := format('role "%s" has no user mapping for foreign server "%s"', _role, _found.server);
    hint := format('CREATE USER MAPPING FOR %I SERVER %I OPTIONS (…); or one FOR PUBLIC.', _role, _found.server);
    RETURN;
  END IF;
  -- Whoever may use a server makes a mapping for himself: it says who he is, never where the server is or how it is reached.
  -- Else he could have what the target sends (its headers, another's data) sent to a place of his choice.
  SELECT o.key INTO _place FROM jsonb_object_keys(_mapping) AS o(key)
   WHERE lower(o.key) ~ ('^(url|base_url|endpoint|hosts?|hostaddr|(http_)?port|dbname|database|secure|skip_verify|verify|ca_file|'
                         'ssl.*|gss.*|krb.*|options|service|passfile|proxy.*|region|allow_.*|connect_timeout|keepalives.*|'
                         'tcp_.*|target_session_attrs|channel_binding|require_auth|load_balance_hosts|named_collection)$')
   ORDER BY o.key LIMIT 1;
  IF FOUND THEN
    fault := format('the user mapping of role "%s" for foreign server "%s" has option "%s", which is not a credential',
                    _role, _found.server, _place);
    hint := format('ALTER USER MAPPING … SERVER %I OPTIONS (DROP %I); say it in the options of the server.', _found.server, _place);
    RETURN;
  END IF;
  connection_options := async.server_options(_found.server) || _mapping;
END
$$;
COMMENT ON FUNCTION async.find_connection IS
  'Internal: where a target leads for a role, with credentials; fault and hint: why it leads nowhere. Never raises.';

CREATE FUNCTION async.connection_of(_target TEXT, _role NAME)
RETURNS TABLE (connection_string TEXT, connection_options JSONB, password_required BOOL, options JSONB, kind TEXT)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found RECORD;
BEGIN
  SELECT * INTO _found FROM async.find_connection(_target, _role);
  IF _found.fault IS NOT NULL THEN
    RAISE undefined_object USING MESSAGE = _found.fault, HINT = _found.hint;
  END IF;
  RETURN QUERY SELECT _found.connection_string, _found.connection_options, _found.password_required, _found.options, _found.kind;
END
$$;
COMMENT ON FUNCTION async.connection_of IS
  'Internal: where a target leads for a role, with credentials: its connection string, the options of its foreign server and '
  'of the user mapping of the role, else of PUBLIC (which win). password_required: its owner, or the server''s, is no '
  'superuser. Raises undefined_object for a target, server or mapping that is not there.';

CREATE FUNCTION async.connection_fault(_target TEXT, _role NAME) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found RECORD;
BEGIN
  SELECT * INTO _found FROM async.find_connection(_target, _role);
  IF _found.fault IS NOT NULL THEN
    RETURN _found.fault || coalesce(E'\nHINT: ' || _found.hint, '');
  END IF;
  RETURN (
    SELECT string_agg(format('target "%s"%s: %s', _target, f.path, f.message), E'\n')
      FROM async.target_faults(_found.kind, _found.connection_string, _found.connection_options, _found.password_required,
                               _found.options) f);
END
$$;
COMMENT ON FUNCTION async.connection_fault IS
  'Internal: why tasks of a role cannot be sent to a target, in words and without secrets; null: nothing is known against '
  'it. Never raises.';

-- The role is the store's owner, not that of a run: a store is one place, whoever's results are there.
CREATE FUNCTION async.store_of(_store TEXT) RETURNS TABLE (url TEXT, options JSONB)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _found async.store;
BEGIN
  SELECT * INTO _found FROM async.store s WHERE s.store = _store;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('store "%s" does not exist', left(_store, 80)), HINT = 'Configure it with async.configure.';
  ELSIF _found.server IS NOT NULL AND NOT EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = _found.server) THEN
    RAISE undefined_object USING
      MESSAGE = format('foreign server "%s" of store "%s" does not exist', _found.server, _store),
      HINT = 'CREATE SERVER, or configure the store with another one.';
  END IF;
  RETURN QUERY
    SELECT _found.url, coalesce((
      SELECT jsonb_object_agg(o.key, o.value #>> '{}')
        FROM jsonb_each(async.server_options(_found.server) || _found.options
                        || coalesce(async.mapping_options(_found.server, _found.owner), '{}')) o
       WHERE o.value <> 'null'), '{}');
END
$$;
COMMENT ON FUNCTION async.store_of IS
  'Internal: the URL of a store and its options as texts, credentials among them: of its foreign server, of its '
  'configuration, of the user mapping of its owner, else of PUBLIC; later ones win. Raises undefined_object.';
