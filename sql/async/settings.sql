-- What the administrator sets: control, targets, pools. async.configure checks everything first, names every fault with
-- its place, and changes nothing while anything is wrong.
-- Reads from top to bottom: the keys, what a value may be, the merge with what is stored, the checks, configure.

-- What async.configure knows. A key of type "ignored" had a meaning in the SQL original only; "kept" is stored, not used.
CREATE FUNCTION async.settings_keys(OUT section TEXT, OUT key TEXT, OUT type TEXT) RETURNS SETOF RECORD
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  VALUES
    ('', 'control', 'object'), ('', 'targets', 'array'), ('', 'concurrency_pools', 'array'),
    ('control', 'workers', 'count'), ('control', 'task_keep_duration', 'interval'),
    ('control', 'default_timeout', 'interval'), ('control', 'self_target', 'name'),
    ('control', 'self_concurrency', 'count'), ('control', 'default_concurrency_pool_workers', 'count'),
    ('control', 'debug_log', 'bool'), ('control', 'self_connection_string', 'kept'),
    ('control', 'advisory_mutex_id', 'kept'), ('control', 'idle_sleep', 'ignored'), ('control', 'busy_sleep', 'ignored'),
    ('control', 'heavy_maintenance_sleep', 'ignored'), ('control', 'light_maintenance_sleep', 'ignored'),
    ('control', 'last_heavy_maintenance', 'ignored'), ('control', 'last_light_maintenance', 'ignored'),
    ('control', 'enabled', 'ignored'), ('control', 'paused', 'ignored'), ('control', 'pid', 'ignored'),
    ('control', 'running_since', 'ignored'), ('control', 'startup_routines', 'ignored'),
    ('control', 'loop_routines', 'ignored'), ('control', 'version', 'ignored'),
    ('targets', 'target', 'name'), ('targets', 'kind', 'kind'), ('targets', 'max_concurrency', 'count'),
    ('targets', 'max_workers', 'count'), ('targets', 'connection_string', 'secret'),
    ('targets', 'asynchronous_finish', 'bool'), ('targets', 'default_timeout', 'interval'),
    ('targets', 'concurrency_track_yielded', 'bool'),
    ('concurrency_pools', 'concurrency_pool', 'name'), ('concurrency_pools', 'max_workers', 'count');
$$;
COMMENT ON FUNCTION async.settings_keys IS 'Internal: the keys of async.configure with their types, per section.';

-- What is wrong with one value, or null. Never repeats a value that may be a secret.
CREATE FUNCTION async.value_fault(_value JSONB, _type TEXT) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _is   CONSTANT TEXT := jsonb_typeof(_value);
  _text CONSTANT TEXT := _value #>> '{}';
BEGIN
  IF _type IN ('object', 'array') THEN
    RETURN CASE WHEN _is NOT IN (_type, 'null') THEN format('must be an %s, not %s', _type, _is) END;
  ELSIF _type = 'ignored' THEN
    RETURN NULL;
  ELSIF _is IN ('object', 'array') THEN
    RETURN format('must be a plain value, not an %s', _is);
  ELSIF _type = 'name' THEN
    RETURN CASE WHEN _is <> 'string' OR _text <> btrim(_text) OR _text = '' OR _text ~ '[[:cntrl:]]'
      THEN 'must be a name: a string without spaces around it' END;
  ELSIF _is = 'null' THEN
    RETURN NULL;
  ELSIF _type = 'count' THEN
    RETURN CASE WHEN _text !~ '^\d{1,9}$' OR _text ~ '^0+$'
      THEN format('must be a whole number from 1 on, not %s', left(_value::TEXT, 40)) END;
  ELSIF _type = 'bool' THEN
    RETURN CASE WHEN lower(_text) NOT IN ('true', 'false')
      THEN format('must be true or false, not %s', left(_value::TEXT, 40)) END;
  ELSIF _type = 'kind' THEN
    RETURN CASE WHEN _text NOT IN ('local', 'external', 'postgres')
      THEN format('must be "local", "external" or "postgres", not %s', left(_value::TEXT, 40)) END;
  ELSIF _type = 'secret' THEN
    RETURN CASE WHEN _is <> 'string' OR async.conninfo_options(_text) IS NULL
      THEN 'must be a connection string: "host=… dbname=…" or "postgresql://…"' END;
  ELSIF _type = 'interval' THEN
    IF _text::INTERVAL > INTERVAL '0' THEN
      RETURN NULL;
    END IF;
    RETURN format('must be longer than nothing, not %s', left(_value::TEXT, 40));
  END IF;
  RETURN NULL;
EXCEPTION WHEN data_exception THEN
  RETURN format('must be an interval such as "10 minutes", not %s', left(_value::TEXT, 40));
END
$$;
COMMENT ON FUNCTION async.value_fault IS 'Internal: what is wrong with a value of a given type; null: nothing.';

-- Edit distance that counts a swap of neighbours as one: what a typing error looks like.
CREATE FUNCTION async.resembles(_word TEXT, _known TEXT[]) RETURNS TEXT
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _a CONSTANT TEXT := translate(lower(left(_word, 60)), '-_ .', '');
  _b TEXT; _other TEXT; _nearest TEXT; _distance INT; _best INT;
  _rows INT[][];
BEGIN
  FOREACH _other IN ARRAY _known LOOP
    _b := translate(_other, '_', '');
    _rows := array_fill(0, ARRAY[length(_a) + 1, length(_b) + 1]);
    FOR i IN 0 .. length(_a) LOOP
      FOR j IN 0 .. length(_b) LOOP
        _rows[i + 1][j + 1] := CASE WHEN i = 0 THEN j WHEN j = 0 THEN i ELSE least(
          _rows[i][j + 1] + 1, _rows[i + 1][j] + 1, _rows[i][j] + (substr(_a, i, 1) <> substr(_b, j, 1))::INT,
          CASE WHEN i > 1 AND j > 1 AND substr(_a, i, 1) = substr(_b, j - 1, 1) AND substr(_a, i - 1, 1) = substr(_b, j, 1)
            THEN _rows[i - 1][j - 1] + 1 END) END;
      END LOOP;
    END LOOP;
    _distance := CASE WHEN length(_a) > 3 AND (starts_with(_a, _b) OR starts_with(_b, _a)) THEN 1
                      ELSE _rows[length(_a) + 1][length(_b) + 1] END;
    IF _distance <= greatest(1, length(_b) / 4) AND _distance < coalesce(_best, 1000) THEN
      _best := _distance;
      _nearest := _other;
    END IF;
  END LOOP;
  RETURN _nearest;
END
$$;
COMMENT ON FUNCTION async.resembles IS 'Internal: the known word that _word looks like a slip of, or null.';

-- The entries of a configuration, their keys cleaned of what is unknown, meaningless or of the wrong type.
CREATE FUNCTION async.configured_entries(
  _configuration JSONB, OUT section TEXT, OUT path TEXT, OUT n BIGINT, OUT given JSONB, OUT entry JSONB)
RETURNS SETOF RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.section, e.path, e.n, (
           SELECT coalesce(jsonb_object_agg(CASE WHEN e.section = 'targets' AND g.key = 'max_workers'
                                                 THEN 'max_concurrency' ELSE g.key END, g.value ORDER BY g.key DESC), '{}')
             FROM jsonb_each(CASE jsonb_typeof(e.entry) WHEN 'object' THEN e.entry ELSE '{}' END) g
             JOIN async.settings_keys() k ON k.section = e.section AND k.key = g.key AND k.type <> 'ignored'
            WHERE async.value_fault(g.value, k.type) IS NULL),
         e.entry
    FROM (SELECT '', '$', 1::BIGINT, _configuration
          UNION ALL SELECT 'control', '$.control', 1, _configuration->'control'
           WHERE jsonb_typeof(_configuration->'control') = 'object'
          UNION ALL SELECT s.section, format('$.%s[%s]', s.section, a.n - 1), a.n, a.value
            FROM (VALUES ('targets'), ('concurrency_pools')) AS s(section),
                 jsonb_array_elements(CASE jsonb_typeof(_configuration->s.section) WHEN 'array'
                   THEN _configuration->s.section ELSE '[]' END) WITH ORDINALITY AS a(value, n)
         ) AS e(section, path, n, entry);
$$;
COMMENT ON FUNCTION async.configured_entries IS
  'Internal: the entries of a configuration: the keys as given, and those that can be used.';

-- The targets as they would be stored. A key left out keeps what is stored, null is the default.
CREATE FUNCTION async.configured_targets(
  _configuration JSONB, OUT path TEXT, OUT target TEXT, OUT kind TEXT, OUT max_concurrency INT,
  OUT connection_string TEXT, OUT asynchronous_finish BOOL, OUT default_timeout INTERVAL,
  OUT concurrency_track_yielded BOOL, OUT old_kind TEXT)
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
    SELECT e.path, e.n, e.target, e.given->>'kind' AS kind_given, t.kind AS kind_stored,
           coalesce(CASE WHEN e.given ? 'max_concurrency' THEN (e.given->>'max_concurrency')::INT
                         ELSE t.max_concurrency END, 8) AS max_concurrency,
           nullif(btrim(CASE WHEN e.given ? 'connection_string' THEN e.given->>'connection_string'
                             ELSE t.connection_string END), '') AS connection_string,
           coalesce(CASE WHEN e.given ? 'asynchronous_finish' THEN (e.given->>'asynchronous_finish')::BOOL
                         ELSE t.asynchronous_finish END, false) AS asynchronous_finish,
           CASE WHEN e.given ? 'default_timeout' THEN (e.given->>'default_timeout')::INTERVAL
                ELSE t.default_timeout END AS default_timeout,
           coalesce(CASE WHEN e.given ? 'concurrency_track_yielded' THEN (e.given->>'concurrency_track_yielded')::BOOL
                         ELSE t.concurrency_track_yielded END, false) AS concurrency_track_yielded
      FROM entry e LEFT JOIN async.target t ON t.target = e.target
  )
  SELECT m.path, m.target,
         CASE WHEN m.kind_given IS NOT NULL THEN m.kind_given
              WHEN m.connection_string IS NOT NULL
                THEN CASE WHEN async.leads_here(m.connection_string) THEN 'local' ELSE 'postgres' END
              WHEN m.kind_stored = 'external' THEN 'external'
              ELSE 'local' END,
         m.max_concurrency, m.connection_string, m.asynchronous_finish, m.default_timeout,
         m.concurrency_track_yielded, m.kind_stored
    FROM merged m ORDER BY m.n;
$$;
COMMENT ON FUNCTION async.configured_targets IS
  'Internal: the targets of a configuration merged with what is stored, with the kind that follows.';

CREATE FUNCTION async.configuration_faults(
  _configuration JSONB, OUT severity TEXT, OUT path TEXT, OUT message TEXT)
RETURNS SETOF RECORD LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _strict CONSTANT BOOL := coalesce(current_setting('pgflow.strict_configuration', true), 'off') IN ('on', 'true', '1');
  _self   TEXT;
BEGIN
  IF jsonb_typeof(_configuration) IS DISTINCT FROM 'object' THEN
    RETURN QUERY SELECT 'error', '$', 'must be an object with "control", "targets" and "concurrency_pools"';
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
        JOIN (VALUES ('targets', 'target'), ('concurrency_pools', 'concurrency_pool')) AS x(section, key)
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
                     ) AS x(section, n, path, name)
               WHERE x.name IS NOT NULL) AS d
       WHERE d.seen > 1
    ) AS v(section, n, severity, path, message)
    WHERE v.message IS NOT NULL
    ORDER BY array_position(ARRAY['', 'control', 'targets', 'concurrency_pools'], v.section), v.n, v.path;

  -- Targets, as they would be stored.
  RETURN QUERY
    SELECT 'error', t.path || v.key, v.message
      FROM async.configured_targets(_configuration) t, LATERAL (VALUES
        ('.kind', CASE WHEN t.target = 'local' AND t.kind <> 'local'
           THEN '"local" is this database: give another target another name' END),
        ('.connection_string', CASE WHEN t.kind = 'local' AND NOT async.leads_here(t.connection_string)
           THEN 'leads elsewhere, but the target is local' END),
        ('.connection_string', CASE WHEN t.kind = 'external' AND t.connection_string IS NOT NULL
           THEN 'an external target has none: its clients come here and take tasks with async.get_tasks' END),
        ('', CASE WHEN t.kind = 'postgres' AND t.connection_string IS NULL
           THEN 'a target of kind "postgres" needs a connection_string' END),
        ('.kind', CASE WHEN t.kind <> t.old_kind AND t.target <> 'local'
           THEN 'was "' || t.old_kind || '" and would be "' || t.kind || '", but it is in use: '
                || async.target_uses(t.target) END)) AS v(key, message)
     WHERE v.message IS NOT NULL;
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
  _faults  TEXT[];
  _found   RECORD;
  _control JSONB;
  _targets JSONB;
BEGIN
  PERFORM async.require_admin(_caller, 'configure the task engine');
  IF _configuration IS NULL THEN
    RAISE null_value_not_allowed USING MESSAGE = 'the configuration is null';
  END IF;
  PERFORM FROM async.control FOR UPDATE;  -- one at a time

  FOR _found IN SELECT * FROM async.configuration_faults(_configuration) LOOP
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
  SELECT jsonb_agg(to_jsonb(t)) INTO _targets FROM async.configured_targets(_configuration) t;
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
      concurrency_track_yielded = n.concurrency_track_yielded
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

  SELECT string_agg(format('"%s"', t->>'target'), ', ') INTO _names
    FROM jsonb_array_elements(_targets) t WHERE t->>'kind' = 'postgres';
  IF _names IS NOT NULL THEN
    RAISE WARNING 'tasks cannot run on another server yet: targets %', _names USING
      HINT = 'For work that clients do, set "kind": "external" and take the tasks with async.get_tasks.';
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
  'Sets the task engine: an object with "control" (an object), "targets" and "concurrency_pools" (arrays, each the whole '
  'list). A part or key that is left out stays as it is, null is the default. A target or pool that the list leaves out '
  'is dropped (its history stays) unless open work needs it. Everything wrong is refused at once, nothing is half done. '
  'Durations are intervals ("10 minutes"). Needs flow_admin.';
