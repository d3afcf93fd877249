-- async.configure: what the administrator sets. It checks everything first, names every fault with its place, and changes
-- nothing while anything is wrong.

CREATE FUNCTION async.configuration_faults(
  _configuration JSONB, _caller NAME DEFAULT current_user, OUT severity TEXT, OUT path TEXT, OUT message TEXT)
RETURNS SETOF RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _strict CONSTANT BOOL := coalesce(current_setting('pgflow.strict_configuration', true), 'off') IN ('on', 'true', '1');
  _self   TEXT;
BEGIN
  IF jsonb_typeof(_configuration) IS DISTINCT FROM 'object' THEN
    RETURN QUERY SELECT 'error', '$', 'must be an object with "control", "targets", "concurrency_pools" and "stores"';
    RETURN;
  END IF;

  -- Keys and values.
  RETURN QUERY
    SELECT v.severity, v.path, v.message FROM (
      SELECT e.section, e.n, CASE WHEN k.key IS NULL AND NOT _strict AND w.word IS NULL THEN 'warning' ELSE 'error' END,
             format(CASE WHEN g.key ~ '^[A-Za-z_][A-Za-z_0-9]*$' THEN '%s.%s' ELSE '%s["%s"]' END, e.path, left(g.key, 60)),
             CASE WHEN k.key IS NOT NULL THEN async.value_fault(g.value, k.type)
                  WHEN w.word IS NOT NULL THEN format('there is no such key; did you mean "%s"?', w.word)
                  ELSE 'there is no such key' END
        FROM async.configured_entries(_configuration) e
       CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(e.entry) WHEN 'object' THEN e.entry ELSE '{}' END) g
        LEFT JOIN async.settings_keys() k ON k.section = e.section AND k.key = g.key
        LEFT JOIN LATERAL (
          SELECT async.resembles(g.key, array_agg(a.key)) FROM async.settings_keys() a
           WHERE a.section = e.section AND k.key IS NULL) AS w(word) ON true
      UNION ALL
      SELECT e.section, e.n, 'error', e.path,
             CASE jsonb_typeof(e.entry) WHEN 'object' THEN format('has no "%s"', x.key) ELSE 'must be an object' END
        FROM async.configured_entries(_configuration) e
        JOIN (VALUES ('targets', 'target'), ('concurrency_pools', 'concurrency_pool'), ('stores', 'store')) AS x(section, key)
          ON x.section = e.section
       WHERE jsonb_typeof(e.entry) <> 'object' OR NOT e.entry ? x.key
      UNION ALL
      SELECT e.section, e.n, 'error', e.path || '.max_workers', 'differs from max_concurrency, which is the same setting'
        FROM async.configured_entries(_configuration) e
       WHERE e.section = 'targets' AND jsonb_typeof(e.entry) = 'object'
         AND e.entry->>'max_workers' <> e.entry->>'max_concurrency'
      UNION ALL
      SELECT d.section, d.n, 'error', d.path, format('"%s" is here more than once', d.name)
        FROM (SELECT x.*, row_number() OVER (PARTITION BY x.section, x.name ORDER BY x.n) AS seen
                FROM (SELECT 'targets', row_number() OVER (), t.path, t.target
                        FROM async.configured_targets(_configuration) t
                      UNION ALL SELECT e.section, e.n, e.path, e.given->>'concurrency_pool'
                        FROM async.configured_entries(_configuration) e WHERE e.section = 'concurrency_pools'
                      UNION ALL SELECT e.section, e.n, e.path, e.given->>'store'
                        FROM async.configured_entries(_configuration) e WHERE e.section = 'stores'
                     ) AS x(section, n, path, name)
               WHERE x.name IS NOT NULL) AS d
       WHERE d.seen > 1
    ) AS v(section, n, severity, path, message)
    WHERE v.message IS NOT NULL
    ORDER BY array_position(ARRAY['', 'control', 'targets', 'concurrency_pools', 'stores'], v.section), v.n, v.path;

  -- Targets, as they would be stored.
  RETURN QUERY
    SELECT 'error', t.path || v.key, v.message
      FROM async.configured_targets(_configuration, _caller) t, LATERAL (VALUES
        ('.kind', CASE WHEN t.target = 'local' AND t.kind <> 'local'
           THEN '"local" is this database: give another target another name' END),
        ('.connection_string', CASE WHEN t.kind = 'local' AND NOT async.leads_here(t.connection_string)
           THEN 'leads elsewhere, but the target is local' END),
        ('.connection_string', CASE WHEN t.kind = 'external' AND t.connection_string IS NOT NULL
           THEN 'an external target has none: its clients come here and take tasks with async.get_tasks' END),
        ('.server', CASE WHEN t.kind IN ('local', 'external') AND t.server IS NOT NULL
           THEN format('a target of kind "%s" has none: it is for targets elsewhere', t.kind) END),
        ('.options', CASE WHEN t.kind IN ('local', 'external') AND t.options <> '{}'
           THEN format('a target of kind "%s" has none: they are for targets elsewhere', t.kind) END),
        ('', CASE WHEN t.kind NOT IN ('local', 'external')
                   AND num_nonnulls(t.connection_string, t.server, nullif(t.options, '{}')) = 0
           THEN format('a target of kind "%s" needs a connection_string or a server', t.kind) END),
        ('.kind', CASE WHEN t.kind IS NULL AND async.server_fault(t.server, NULL) IS NULL
           THEN 'must be given: the foreign server does not say which it is' END),
        ('.server', CASE WHEN t.kind IS NULL THEN async.server_fault(t.server, NULL) END),
        ('.kind', CASE WHEN t.kind <> t.old_kind AND t.target <> 'local'
           THEN 'was "' || t.old_kind || '" and would be "' || t.kind || '", but it is in use: '
                || async.target_uses(t.target) END)) AS v(key, message)
     WHERE v.message IS NOT NULL;
  RETURN QUERY SELECT 'error', f.path, f.message FROM async.connection_faults(_configuration, _caller) f;
  RETURN QUERY
    SELECT 'error', '$.targets', format('leaves out target "%s", which is in use: %s', t.target, u.uses)
      FROM async.target t, LATERAL async.target_uses(t.target) AS u(uses)
     WHERE jsonb_typeof(_configuration->'targets') = 'array' AND t.target <> 'local' AND u.uses IS NOT NULL
       AND t.target NOT IN (SELECT x.target FROM async.configured_targets(_configuration) x WHERE x.target IS NOT NULL);
  RETURN QUERY
    SELECT 'error', '$.concurrency_pools', format('leaves out pool "%s", which is in use: %s', p.concurrency_pool, u.uses)
      FROM async.concurrency_pool p, LATERAL async.pool_uses(p.concurrency_pool) AS u(uses)
     WHERE jsonb_typeof(_configuration->'concurrency_pools') = 'array' AND u.uses IS NOT NULL
       AND NOT EXISTS (SELECT FROM async.configured_entries(_configuration) x
                        WHERE x.section = 'concurrency_pools' AND x.given->>'concurrency_pool' = p.concurrency_pool);
  RETURN QUERY
    SELECT 'error', '$.stores', format('leaves out store "%s", which is in use: %s', s.store, u.uses)
      FROM async.store s, LATERAL async.store_uses(s.store) AS u(uses)
     WHERE jsonb_typeof(_configuration->'stores') = 'array' AND u.uses IS NOT NULL
       AND s.store NOT IN (SELECT x.store FROM async.configured_stores(_configuration) x WHERE x.store IS NOT NULL);

  _self := _configuration->'control'->>'self_target';
  RETURN QUERY
    SELECT 'error', '$.control.self_target', format('"%s" is a target of its own', _self)
     WHERE _self <> 'local' AND EXISTS (SELECT FROM async.target t WHERE t.target = _self);
END
$$;
COMMENT ON FUNCTION async.configuration_faults IS
  'Internal: everything wrong with a configuration, with JSON paths; severity "error" refuses it, "warning" does not.';

-- Without jit: its long statements look costly, and compiling them takes a hundred times as long as running them.
CREATE FUNCTION async.configure_as(_caller OID, _configuration JSONB) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  _role    CONSTANT NAME := pg_get_userbyid(_caller);
  _faults  TEXT[];
  _found   RECORD;
  _control JSONB;
  _targets JSONB;
  _stores  JSONB;
BEGIN
  PERFORM async.require_admin(_caller, 'configure the task engine');
  IF _configuration IS NULL THEN
    RAISE null_value_not_allowed USING MESSAGE = 'the configuration is null';
  END IF;
  PERFORM FROM async.control FOR UPDATE;  -- one at a time

  FOR _found IN SELECT * FROM async.configuration_faults(_configuration, _role) LOOP
    IF _found.severity = 'warning' THEN
      RAISE WARNING '%: %', _found.path, _found.message;
    ELSE
      _faults := _faults || format('%s: %s', _found.path, _found.message);
    END IF;
  END LOOP;
  IF _faults IS NOT NULL THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('the configuration has %s fault%s',
                       cardinality(_faults), CASE WHEN cardinality(_faults) > 1 THEN 's' END),
      DETAIL = array_to_string(_faults, E'\n'),
      HINT = 'Nothing was changed.';
  END IF;

  SELECT e.given INTO _control FROM async.configured_entries(_configuration) e WHERE e.section = 'control';
  SELECT jsonb_agg(to_jsonb(t)) INTO _targets FROM async.configured_targets(_configuration, _role) t;
  SELECT jsonb_agg(to_jsonb(s)) INTO _stores FROM async.configured_stores(_configuration, _role) s;
  PERFORM async.say_what_is_ignored(_configuration, _targets);

  UPDATE async.control c SET
    workers                = CASE WHEN _control ? 'workers' THEN n.workers ELSE c.workers END,
    self_target            = coalesce(n.self_target, c.self_target),
    self_connection_string = CASE WHEN _control ? 'self_connection_string' THEN n.self_connection_string
                                  ELSE c.self_connection_string END,
    self_concurrency       = CASE WHEN _control ? 'self_concurrency' THEN n.self_concurrency
                                  ELSE c.self_concurrency END,
    default_timeout        = CASE WHEN _control ? 'default_timeout' THEN n.default_timeout ELSE c.default_timeout END,
    task_keep_duration     = CASE WHEN _control ? 'task_keep_duration' THEN n.task_keep_duration
                                  ELSE c.task_keep_duration END,
    advisory_mutex_id      = CASE WHEN _control ? 'advisory_mutex_id' THEN n.advisory_mutex_id
                                  ELSE c.advisory_mutex_id END,
    debug_log              = CASE WHEN _control ? 'debug_log' THEN coalesce(n.debug_log, false) ELSE c.debug_log END,
    default_concurrency_pool_workers = CASE WHEN _control ? 'default_concurrency_pool_workers'
      THEN coalesce(n.default_concurrency_pool_workers, 8) ELSE c.default_concurrency_pool_workers END
  FROM jsonb_populate_record(NULL::async.control, _control) n;
  IF _control ? 'self_concurrency' THEN
    UPDATE async.target SET max_concurrency = coalesce((_control->>'self_concurrency')::INT, 8) WHERE target = 'local';
  END IF;

  IF jsonb_typeof(_configuration->'targets') = 'array' THEN
    DELETE FROM async.target t
     WHERE t.target <> 'local'
       AND t.target NOT IN (SELECT n.target FROM jsonb_populate_recordset(NULL::async.target, _targets) n);
    UPDATE async.target t SET
      kind = n.kind, max_concurrency = n.max_concurrency, connection_string = n.connection_string,
      asynchronous_finish = n.asynchronous_finish, default_timeout = n.default_timeout,
      concurrency_track_yielded = n.concurrency_track_yielded, server = n.server, options = n.options, owner = n.owner
    FROM jsonb_populate_recordset(NULL::async.target, _targets) n WHERE n.target = t.target;
    INSERT INTO async.target
    SELECT n.* FROM jsonb_populate_recordset(NULL::async.target, _targets) n
     WHERE n.target NOT IN (SELECT t.target FROM async.target t);
  END IF;

  IF jsonb_typeof(_configuration->'concurrency_pools') = 'array' THEN
    DELETE FROM async.concurrency_pool;
    INSERT INTO async.concurrency_pool (concurrency_pool, max_workers)
    SELECT e.given->>'concurrency_pool', coalesce((e.given->>'max_workers')::INT, c.default_concurrency_pool_workers)
      FROM async.configured_entries(_configuration) e, async.control c
     WHERE e.section = 'concurrency_pools'
       AND e.given->>'concurrency_pool' NOT IN (SELECT t.target FROM async.target t);
  END IF;

  IF jsonb_typeof(_configuration->'stores') = 'array' THEN
    DELETE FROM async.store s
     WHERE s.store NOT IN (SELECT n.store FROM jsonb_populate_recordset(NULL::async.store, _stores) n);
    INSERT INTO async.store AS s
    SELECT n.* FROM jsonb_populate_recordset(NULL::async.store, _stores) n
    ON CONFLICT (store) DO UPDATE SET
      url = excluded.url, server = excluded.server, options = excluded.options, keep_for = excluded.keep_for,
      owner = excluded.owner;
  END IF;
  PERFORM async.announce_settings();
END
$$;
COMMENT ON FUNCTION async.configure_as IS 'Internal: async.configure with the caller''s role.';

-- One notice for the keys of the SQL original that mean nothing here, and a word on targets and pools that may surprise.
CREATE FUNCTION async.say_what_is_ignored(_configuration JSONB, _targets JSONB) RETURNS VOID
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _names TEXT;
  _found RECORD;
BEGIN
  SELECT string_agg(k.key, ', ' ORDER BY k.key) INTO _names
    FROM async.settings_keys() k
   WHERE k.section = 'control' AND k.type IN ('ignored', 'kept') AND _configuration->'control' ? k.key;
  IF _names IS NOT NULL THEN
    RAISE NOTICE 'without a meaning here: control keys %', _names USING
      DETAIL = 'Nobody polls and no connection to oneself is needed: a background worker is told of what changes.';
  END IF;

  SELECT string_agg(format('"%s"', t->>'target'), ', ') INTO _names
    FROM jsonb_array_elements(_targets) t
   WHERE t->>'kind' = 'local' AND async.conninfo_options(t->>'connection_string') ? 'user';
  IF _names IS NOT NULL THEN
    RAISE NOTICE 'this database itself: targets %', _names USING
      DETAIL = 'Their tasks run in a background worker as the role of the run; the user in the connection string is not used.';
  END IF;

  FOR _found IN
    SELECT e.path, t->>'target' AS target, t->>'max_concurrency' AS max_concurrency
      FROM async.configured_entries(_configuration) e
      JOIN jsonb_array_elements(_targets) t ON t->>'target' = e.given->>'concurrency_pool'
     WHERE e.section = 'concurrency_pools' AND e.given->>'max_workers' <> t->>'max_concurrency'
  LOOP
    RAISE WARNING '%: "%" is the pool of that target: its max_concurrency (%) holds',
      _found.path, _found.target, _found.max_concurrency;
  END LOOP;
END
$$;
COMMENT ON FUNCTION async.say_what_is_ignored IS 'Internal: the notices and warnings of async.configure.';

CREATE FUNCTION async.configure(_configuration JSONB) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.configure IS
  'Sets the task engine: an object with "control" (an object), "targets", "concurrency_pools" and "stores" (arrays, each the whole '
  'list). A part or key that is left out stays as it is, null is the default. A target or pool that the list leaves out '
  'is dropped (its history stays) unless open work needs it; so is a store, unless results are kept there. Everything wrong is refused at once, nothing is half done. '
  'Durations are intervals ("10 minutes"). Whoever changes where a target or store leads becomes its owner: connections of '
  'one whose owner is no superuser must use a password. Needs flow_admin, and USAGE on foreign servers that are named.';
