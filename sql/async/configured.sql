-- The targets and stores that follow from a configuration and what is stored, and whose they are.

-- How the kind of a target follows from its foreign server; null: it does not.
CREATE FUNCTION async.kind_of_server(_server TEXT) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN w.fdwname IN ('postgres_fdw', 'dblink_fdw') THEN 'postgres'
              WHEN s.srvtype = ANY (async.executor_kinds()) THEN s.srvtype
              WHEN EXISTS (SELECT FROM pg_options_to_table(s.srvoptions) o WHERE o.option_name = 'url'
                              AND async.url_scheme(o.option_value) IS NOT NULL) THEN 'clickhouse' END
    FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
   WHERE s.srvname = _server;
$$;
COMMENT ON FUNCTION async.kind_of_server IS
  'Internal: the kind of target that a foreign server is for, by its wrapper, TYPE or URL; null: it does not say.';

-- The targets as they would be stored. A key left out keeps what is stored, null is the default. Whoever changes where a
-- target leads becomes its owner, so that nobody inherits a superuser's right to connect without a password.
CREATE FUNCTION async.configured_targets(
  _configuration JSONB, _caller NAME DEFAULT NULL, OUT path TEXT, OUT target TEXT, OUT kind TEXT, OUT max_concurrency INT,
  OUT connection_string TEXT, OUT asynchronous_finish BOOL, OUT default_timeout INTERVAL,
  OUT concurrency_track_yielded BOOL, OUT server TEXT, OUT options JSONB, OUT owner NAME, OUT old_kind TEXT, OUT redirected BOOL)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH self AS (
    SELECT coalesce((SELECT e.given->>'self_target' FROM async.configured_entries(_configuration) e
                      WHERE e.section = 'control'), c.self_target) AS name
      FROM async.control c
  ), entry AS (
    SELECT e.path, e.n, e.given, CASE WHEN e.given->>'target' IN ('async.self', self.name) THEN 'local'
                                      ELSE e.given->>'target' END AS target
      FROM async.configured_entries(_configuration) e, self
     WHERE e.section = 'targets'
  ), merged AS (
    SELECT e.path, e.n, e.target, e.given->>'kind' AS kind_given, e.given ? 'kind' AS says_kind, t AS stored,
           coalesce(CASE WHEN e.given ? 'max_concurrency' THEN (e.given->>'max_concurrency')::INT
                         ELSE t.max_concurrency END, 8) AS max_concurrency,
           nullif(btrim(CASE WHEN e.given ? 'connection_string' THEN e.given->>'connection_string'
                             ELSE t.connection_string END), '') AS connection_string,
           coalesce(CASE WHEN e.given ? 'asynchronous_finish' THEN (e.given->>'asynchronous_finish')::BOOL
                         ELSE t.asynchronous_finish END, false) AS asynchronous_finish,
           CASE WHEN e.given ? 'default_timeout' THEN (e.given->>'default_timeout')::INTERVAL
                ELSE t.default_timeout END AS default_timeout,
           coalesce(CASE WHEN e.given ? 'concurrency_track_yielded' THEN (e.given->>'concurrency_track_yielded')::BOOL
                         ELSE t.concurrency_track_yielded END, false) AS concurrency_track_yielded,
           CASE WHEN e.given ? 'server' THEN e.given->>'server' ELSE t.server END AS server,
           coalesce(nullif(CASE WHEN e.given ? 'options' THEN e.given->'options' ELSE t.options END, 'null'), '{}') AS options
      FROM entry e LEFT JOIN async.target t ON t.target = e.target
  ), placed AS (
    SELECT m.*, CASE
             WHEN m.kind_given IS NOT NULL THEN m.kind_given
             -- It stays what it was said to be while it leads where it did.
             WHEN NOT m.says_kind AND (m.stored).kind <> 'local'
               AND (m.connection_string, m.server) IS NOT DISTINCT FROM ((m.stored).connection_string, (m.stored).server)
               THEN (m.stored).kind
             WHEN async.leads_here(m.connection_string) THEN 'local'
             WHEN m.server IS NOT NULL AND (m.connection_string IS NULL OR async.kind_of_server(m.server) IS NOT NULL)
               THEN async.kind_of_server(m.server)
             WHEN async.url_scheme(m.connection_string) IS NOT NULL THEN 'clickhouse'
             WHEN m.connection_string IS NOT NULL THEN 'postgres'
             WHEN (m.stored).kind = 'external' THEN 'external'
             ELSE 'local' END AS kind
      FROM merged m
  )
  SELECT p.path, p.target, p.kind, p.max_concurrency, p.connection_string, p.asynchronous_finish, p.default_timeout,
         p.concurrency_track_yielded, p.server, p.options,
         CASE WHEN r.redirected THEN coalesce(_caller, current_user) ELSE (p.stored).owner END, (p.stored).kind, r.redirected
    FROM placed p,
         LATERAL (SELECT (p.stored).target IS NULL
                      OR (p.kind, p.connection_string, p.server, p.options) IS DISTINCT FROM
                         ((p.stored).kind, (p.stored).connection_string, (p.stored).server, (p.stored).options)) AS r(redirected)
   ORDER BY p.n;
$$;
COMMENT ON FUNCTION async.configured_targets IS
  'Internal: the targets of a configuration merged with what is stored, with the kind and owner that follow. redirected: '
  'it is new or leads elsewhere than before, so _caller owns it.';

-- The stores as they would be stored, by the same rules.
CREATE FUNCTION async.configured_stores(
  _configuration JSONB, _caller NAME DEFAULT NULL, OUT path TEXT, OUT store TEXT, OUT url TEXT, OUT server TEXT,
  OUT options JSONB, OUT keep_for INTERVAL, OUT owner NAME, OUT redirected BOOL)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT m.path, m.store, m.url, m.server, m.options, m.keep_for,
         CASE WHEN r.redirected THEN coalesce(_caller, current_user) ELSE (m.stored).owner END, r.redirected
    FROM (SELECT e.n, e.path, e.given->>'store' AS store, s AS stored,
                 CASE WHEN e.given ? 'url' THEN e.given->>'url' ELSE s.url END AS url,
                 CASE WHEN e.given ? 'server' THEN e.given->>'server' ELSE s.server END AS server,
                 coalesce(nullif(CASE WHEN e.given ? 'options' THEN e.given->'options' ELSE s.options END, 'null'), '{}') AS options,
                 CASE WHEN e.given ? 'keep_for' THEN (e.given->>'keep_for')::INTERVAL ELSE s.keep_for END AS keep_for
            FROM async.configured_entries(_configuration) e LEFT JOIN async.store s ON s.store = e.given->>'store'
           WHERE e.section = 'stores') AS m,
         LATERAL (SELECT (m.stored).store IS NULL OR (m.url, m.server, m.options) IS DISTINCT FROM
                         ((m.stored).url, (m.stored).server, (m.stored).options)) AS r(redirected)
   ORDER BY m.n;
$$;
COMMENT ON FUNCTION async.configured_stores IS
  'Internal: the stores of a configuration merged with what is stored, with the owner that follows: see configured_targets.';

-- The options that targets of every kind elsewhere have.
CREATE FUNCTION async.common_option_faults(_options JSONB, OUT path TEXT, OUT message TEXT) RETURNS SETOF RECORD
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT '.options.' || k.key, async.value_fault(_options->k.key, k.type)
    FROM (VALUES ('connect_timeout', 'seconds'), ('give_up_after', 'interval'), ('retry_delay', 'seconds'),
                 ('retry_delay_max', 'seconds'), ('max_attempts', 'count')) AS k(key, type)
   WHERE _options ? k.key AND async.value_fault(_options->k.key, k.type) IS NOT NULL;
$$;
COMMENT ON FUNCTION async.common_option_faults IS
  'Internal: what is wrong with the options that targets of all kinds elsewhere have: connect_timeout, give_up_after, '
  'retry_delay, retry_delay_max, max_attempts.';

-- A foreign server that an entry names: it must be there, and whoever makes an entry lead there must be allowed to use it.
CREATE FUNCTION async.server_fault(_server TEXT, _user NAME) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _oid OID := (SELECT s.oid FROM pg_foreign_server s WHERE s.srvname = _server);
BEGIN
  IF _server IS NULL THEN
    RETURN NULL;
  ELSIF _oid IS NULL THEN
    RETURN 'there is no such foreign server: CREATE SERVER makes one, of postgres_fdw or pgflow';
  ELSIF _user IS NOT NULL AND NOT has_server_privilege(_user, _oid, 'USAGE') THEN
    RETURN format('role "%s" may not use this server: GRANT USAGE ON FOREIGN SERVER', _user);
  END IF;
  RETURN NULL;
END
$$;
COMMENT ON FUNCTION async.server_fault IS
  'Internal: why a target or store cannot lead to a foreign server; _user: who makes it lead there, null: nobody.';

-- Only what can be known without the credentials of the role that a task runs as: they may come from its user mapping.
CREATE FUNCTION async.connection_faults(
  _configuration JSONB, _caller NAME, OUT path TEXT, OUT message TEXT)
RETURNS SETOF RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    SELECT t.path || v.path, v.message
      FROM async.configured_targets(_configuration, _caller) t, LATERAL (
        SELECT '.server', async.server_fault(t.server, CASE WHEN t.redirected THEN _caller END)
        UNION ALL SELECT c.path, c.message FROM async.common_option_faults(t.options) c
        UNION ALL SELECT f.path, f.message
          FROM async.target_faults(t.kind, t.connection_string, async.server_options(t.server),
                 t.server IS NULL AND NOT async.is_superuser(t.owner), t.options) f
         WHERE num_nonnulls(t.connection_string, t.server, nullif(t.options, '{}')) > 0
        UNION ALL SELECT format('.options.tiers.%s.target', i.key), 'there is no such target'
          FROM jsonb_each(CASE jsonb_typeof(t.options->'tiers') WHEN 'object' THEN t.options->'tiers' ELSE '{}' END) i
         WHERE jsonb_typeof(i.value->'target') = 'string'
           AND NOT EXISTS (SELECT FROM async.configured_targets(_configuration, _caller) o
                            WHERE o.target = i.value->>'target')) AS v(path, message)
     WHERE t.kind NOT IN ('local', 'external') AND v.message IS NOT NULL;
  RETURN QUERY
    SELECT s.path || v.path, v.message
      FROM async.configured_stores(_configuration, _caller) s, LATERAL (
        SELECT '.server', async.server_fault(s.server, CASE WHEN s.redirected THEN _caller END)
        UNION ALL SELECT '', 'has no "url"' WHERE s.url IS NULL
        -- What the server's operating system user may write is more than flow_admin may.
        UNION ALL SELECT '.url', 'leads to files of the server: only a superuser or a member of pg_write_server_files may say so'
         WHERE s.redirected AND s.url ~* '^file:' AND NOT pg_has_role(coalesce(_caller, current_user), 'pg_write_server_files', 'USAGE')
        UNION ALL SELECT f.path, f.message
          FROM async.store_faults(s.url, async.server_options(s.server) || s.options
                 || coalesce(async.mapping_options(s.server, s.owner), '{}')) f WHERE s.url IS NOT NULL) AS v(path, message)
     WHERE v.message IS NOT NULL;
END
$$;
COMMENT ON FUNCTION async.connection_faults IS
  'Internal: what is wrong with where the targets and stores of a configuration lead, as far as it is known without '
  'credentials. Repeats no value that may be a secret.';
