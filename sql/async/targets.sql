-- Targets and pools: where a connection string leads, how a target is named, what open work needs it.

-- The local database is always a target.
INSERT INTO async.target (target, kind) VALUES ('local', 'local');

-- The options of a libpq connection string, key=value or URI, as an object. Null: not a connection string.
CREATE FUNCTION async.conninfo_options(_conninfo TEXT) RETURNS JSONB
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  _pair CONSTANT TEXT := $re$\s*([A-Za-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)+|(?=\s|$))(?=\s|$)$re$;
  _uri  CONSTANT TEXT := '^postgres(?:ql)?://(?:([^@/?]*)@)?([^/?]*)(?:/([^?]*))?(?:\?(.*))?$';
  _part TEXT[];
BEGIN
  IF _conninfo !~ '^postgres(ql)?://' THEN
    IF regexp_replace(_conninfo, _pair, '', 'g') !~ '^\s*$' THEN
      RETURN NULL;
    END IF;
    RETURN (
      SELECT coalesce(jsonb_object_agg(lower(m[1]),
               regexp_replace(regexp_replace(m[2], $re$^'(.*)'$$re$, '\1'), $re$\\(.)$re$, '\1', 'g')), '{}')
        FROM regexp_matches(_conninfo, _pair, 'g') AS m);
  END IF;
  _part := regexp_match(_conninfo, _uri);
  IF _part IS NULL THEN
    RETURN NULL;
  END IF;
  RETURN (
    SELECT coalesce(jsonb_object_agg(o.option, async.percent_decoded(o.value)) FILTER (WHERE o.value <> ''), '{}')
      FROM (SELECT 'user', split_part(_part[1], ':', 1)
            UNION ALL SELECT 'host', (
              SELECT string_agg(regexp_replace(h, '^\[(.*)\](:\d*)?$|^([^:]*)(:\d*)?$', '\1\3'), ',' ORDER BY n)
                FROM regexp_split_to_table(_part[2], ',') WITH ORDINALITY AS x(h, n))
            UNION ALL SELECT 'port', (
              SELECT string_agg(coalesce(substring(h FROM ':(\d*)$'), ''), ',' ORDER BY n)
                FROM regexp_split_to_table(_part[2], ',') WITH ORDINALITY AS x(h, n))
            UNION ALL SELECT 'dbname', _part[3]
            UNION ALL SELECT split_part(p, '=', 1), substr(p, strpos(p, '=') + 1)
              FROM regexp_split_to_table(coalesce(_part[4], ''), '&') AS p WHERE p <> '') AS o(option, value));
END
$body$;
COMMENT ON FUNCTION async.conninfo_options IS
  'Internal: the options of a libpq connection string (key=value or URI) as an object; null when it cannot be read.';

CREATE FUNCTION async.percent_decoded(_text TEXT) RETURNS TEXT
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF strpos(_text, '%') = 0 THEN
    RETURN _text;
  END IF;
  RETURN (
    SELECT convert_from(string_agg(CASE WHEN m[1] IS NULL THEN convert_to(m[2], 'UTF8') ELSE decode(m[1], 'hex') END,
                                   ''::BYTEA ORDER BY n), 'UTF8')
      FROM regexp_matches(_text, '%([0-9A-Fa-f]{2})|([^%]+|%)', 'g') WITH ORDINALITY AS x(m, n));
END
$$;
COMMENT ON FUNCTION async.percent_decoded IS 'Internal: a part of a URI with its %XX decoded.';

-- Absent host: the socket; absent port: this server's. A proxy in front of this server is elsewhere.
CREATE FUNCTION async.leads_here(_conninfo TEXT) RETURNS BOOL
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _options JSONB := async.conninfo_options(_conninfo);
BEGIN
  IF _options IS NULL OR _options ? 'service' OR coalesce(_options->>'dbname', current_database()) <> current_database() THEN
    RETURN false;
  END IF;
  RETURN NOT EXISTS (
    SELECT FROM regexp_split_to_table(coalesce(_options->>'hostaddr', _options->>'host', ''), ',') AS h(host)
     WHERE NOT (
       btrim(h.host) IN ('', 'localhost', '::1')
       OR h.host ~ '^\s*127(\.\d{1,3}){3}\s*$'
       OR rtrim(btrim(h.host), '/') IN (
         SELECT rtrim(btrim(d), '/') FROM regexp_split_to_table(current_setting('unix_socket_directories'), ',') AS d)
       OR lower(btrim(h.host)) IN (
         SELECT lower(btrim(a)) FROM regexp_split_to_table(current_setting('listen_addresses'), ',') AS a)
       OR btrim(h.host) IS NOT DISTINCT FROM host(inet_server_addr())))
    AND NOT EXISTS (
    SELECT FROM regexp_split_to_table(coalesce(_options->>'port', ''), ',') AS p(port)
     WHERE btrim(p.port) NOT IN ('', current_setting('port')));
END
$$;
COMMENT ON FUNCTION async.leads_here IS
  'Internal: whether a connection string leads to this very database of this very server.';

CREATE FUNCTION async.target_name(_target TEXT) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF _target IS NULL THEN
    RETURN 'local';
  ELSIF EXISTS (SELECT FROM async.target t WHERE t.target = _target) THEN
    RETURN _target;
  ELSIF _target = 'async.self' OR _target = (SELECT c.self_target FROM async.control c) THEN
    RETURN 'local';
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION async.target_name IS
  'The name a target is stored by: "local" for null, "async.self" and what control.self_target says; null: unknown.';

CREATE FUNCTION async.target_kind(_target TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.kind FROM async.target t WHERE t.target = async.target_name(_target);
$$;
COMMENT ON FUNCTION async.target_kind IS
  'How tasks of a target run: local (workers of this database; also for null and the other names of "local"), external '
  '(clients take them with async.get_tasks), or sent elsewhere: postgres, clickhouse, http. Null: there is no such target.';

-- Tiers are named sets of settings of a target, or other names of other targets.
CREATE FUNCTION async.target_tiers(_target TEXT) RETURNS TEXT[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(SELECT k FROM jsonb_object_keys(CASE jsonb_typeof(t.options->'tiers') WHEN 'object' THEN t.options->'tiers'
                                                    ELSE '{}' END) AS k ORDER BY k)
    FROM async.target t WHERE t.target = async.target_name(_target);
$$;
COMMENT ON FUNCTION async.target_tiers IS 'Internal: the names of the tiers of a target.';

CREATE FUNCTION async.tier_target(_target TEXT, _tier TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(o.target, t.target)
    FROM async.target t LEFT JOIN async.target o ON o.target = t.options->'tiers'->_tier->>'target'
   WHERE t.target = async.target_name(_target);
$$;
COMMENT ON FUNCTION async.tier_target IS
  'Internal: the target that tasks of a tier of a target go to: itself, unless the tier names another one.';

CREATE FUNCTION async.target_options_as(_caller OID, _target TEXT) RETURNS JSONB
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.masked_options(t.options) FROM async.target t WHERE t.target = _target;
$$;
COMMENT ON FUNCTION async.target_options_as IS 'Internal: async.target_options with the caller''s role.';

CREATE FUNCTION async.target_options(_target TEXT) RETURNS JSONB LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.target_options IS 'The options of a target without credentials.';

-- What open work still needs a target; null: nothing. Only tasks from open_low on can be open.
CREATE FUNCTION async.target_uses(_target TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT nullif(concat_ws(' and ', (
      SELECT format('%s open task%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                    concat_ws(', ', VARIADIC (array_agg(t.task_id::TEXT ORDER BY t.task_id))[:3])
                    || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
        FROM async.task t
       WHERE t.processed IS NULL AND t.target = _target
         AND t.task_id >= (SELECT e.open_low FROM async.engine_state e)
      HAVING count(*) > 0), (
      SELECT format('%s open run%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                    concat_ws(', ', VARIADIC (array_agg(format('%s of flow "%s"', r.flow_id, r.flow)
                      ORDER BY r.flow_id))[:3]) || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
        FROM (SELECT DISTINCT f.flow_id, f.flow
                FROM flow.flow f
                JOIN flow.definition_node d ON d.definition_id = f.definition_id AND d.target = _target
                JOIN flow.flow_node n ON n.flow_id = f.flow_id AND n.node_no = d.node_no AND n.ended IS NULL
               WHERE f.processed IS NULL) AS r
      HAVING count(*) > 0)), '');
$$;
COMMENT ON FUNCTION async.target_uses IS 'Internal: the open tasks and runs that need a target, in words; null: none.';

CREATE FUNCTION async.pool_uses(_concurrency_pool TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT format('%s open task%s (%s)', count(*), CASE WHEN count(*) > 1 THEN 's' END,
                concat_ws(', ', VARIADIC (array_agg(t.task_id::TEXT ORDER BY t.task_id))[:3])
                || CASE WHEN count(*) > 3 THEN ', …' ELSE '' END)
    FROM async.task t
    LEFT JOIN flow.flow_node n ON t.concurrency_pool = '' AND n.flow_id = t.flow_id AND n.node_no = t.node_no
   WHERE t.processed IS NULL AND coalesce(nullif(t.concurrency_pool, ''), n.concurrency_pool) = _concurrency_pool
     AND t.task_id >= (SELECT e.open_low FROM async.engine_state e)
  HAVING count(*) > 0;
$$;
COMMENT ON FUNCTION async.pool_uses IS 'Internal: the open tasks that wait or run in a pool, in words; null: none.';
