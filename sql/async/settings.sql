-- What a configuration of async.configure may hold: the keys, what a value may be, its entries. The targets and stores that
-- follow from it are in configured.sql, the checks and async.configure itself in configure.sql.

-- What async.configure knows. A key of type "ignored" had a meaning in the SQL original only; "kept" is stored, not used.
CREATE FUNCTION async.settings_keys(OUT section TEXT, OUT key TEXT, OUT type TEXT) RETURNS SETOF RECORD
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  VALUES
    ('', 'control', 'object'), ('', 'targets', 'array'), ('', 'concurrency_pools', 'array'), ('', 'stores', 'array'),
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
    ('targets', 'concurrency_track_yielded', 'bool'), ('targets', 'server', 'server'), ('targets', 'options', 'object'),
    ('stores', 'store', 'name'), ('stores', 'url', 'url'), ('stores', 'server', 'server'), ('stores', 'options', 'object'),
    ('stores', 'keep_for', 'interval'),
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
  ELSIF _type = 'name' OR (_type = 'server' AND _is <> 'null') THEN
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
    RETURN CASE WHEN _text <> ALL (ARRAY['local', 'external'] || async.executor_kinds())
      THEN format('must be "local", "external"%s, not %s',
                  (SELECT string_agg(format(', "%s"', k), '') FROM unnest(async.executor_kinds()) k), left(_value::TEXT, 40)) END;
  ELSIF _type = 'secret' THEN
    RETURN CASE WHEN _is <> 'string' OR (async.url_scheme(_text) IS NULL AND async.conninfo_options(_text) IS NULL)
      THEN 'must be a connection string: "host=… dbname=…", "postgresql://…" or "https://…"' END;
  ELSIF _type = 'url' THEN
    RETURN CASE WHEN _is <> 'string' THEN 'must be a URL: "file:///…", "s3://…", "az://…" or "gs://…"' END;
  ELSIF _type = 'seconds' THEN
    RETURN CASE WHEN _text !~ '^\d{1,7}(\.\d+)?$' OR _text ~ '^[0.]+$'
      THEN format('must be a positive number of seconds, not %s', left(_value::TEXT, 40)) END;
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
            FROM (VALUES ('targets'), ('concurrency_pools'), ('stores')) AS s(section),
                 jsonb_array_elements(CASE jsonb_typeof(_configuration->s.section) WHEN 'array'
                   THEN _configuration->s.section ELSE '[]' END) WITH ORDINALITY AS a(value, n)
         ) AS e(section, path, n, entry);
$$;
COMMENT ON FUNCTION async.configured_entries IS
  'Internal: the entries of a configuration: the keys as given, and those that can be used.';
