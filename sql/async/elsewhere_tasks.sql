-- Tasks outside flows that run elsewhere with more than a query: parameters, settings, a tier, a request, a result, secrets.
-- Everything is checked when they are pushed; what they need then is in async.task.options and async.task_secret.

-- The options of a task as its target gets them. A tier that names another target leaves its settings behind, under those of
-- the task itself; the tier goes on only to a target that has one of that name.
CREATE FUNCTION async.resolved_options(_target TEXT, _options JSONB) RETURNS JSONB
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _there CONSTANT TEXT := async.tier_target(_target, _options->>'tier');
  _tier  JSONB;
BEGIN
  IF _options->>'tier' IS NULL OR _there IS NULL OR _there = async.target_name(_target) THEN
    RETURN _options;
  END IF;
  SELECT t.options->'tiers'->(_options->>'tier')->'settings' INTO _tier
    FROM async.target t WHERE t.target = async.target_name(_target);
  IF jsonb_typeof(_tier) = 'object' AND _tier <> '{}' THEN
    _options := _options || jsonb_build_object('settings', _tier || coalesce(_options->'settings', '{}'));
  END IF;
  RETURN CASE WHEN _options->>'tier' = ANY (async.target_tiers(_there)) THEN _options ELSE _options - 'tier' END;
END
$$;
COMMENT ON FUNCTION async.resolved_options IS
  'Internal: the options of a task of a configured target as the target gets them that its tier leads to.';

-- Secrets are bound like parameters: plain values by name, 64 kB at most. A fault never repeats one.
CREATE FUNCTION async.secrets_fault(_secrets JSONB) RETURNS TEXT
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN _secrets IS NULL THEN NULL
    WHEN jsonb_typeof(_secrets) <> 'object' THEN 'secrets must be an object: name → value'
    WHEN octet_length(_secrets::TEXT) > 65536 THEN 'secrets are more than 64 kB'
    WHEN EXISTS (SELECT FROM jsonb_each(CASE jsonb_typeof(_secrets) WHEN 'object' THEN _secrets ELSE '{}' END) s
                  WHERE jsonb_typeof(s.value) NOT IN ('string', 'number', 'boolean') OR s.key !~ '^[A-Za-z_][A-Za-z_0-9]{0,62}$')
      THEN 'secrets must be plain values (texts, numbers, true or false) under names of letters, digits and underscores' END;
$$;
COMMENT ON FUNCTION async.secrets_fault IS 'Internal: what is wrong with the secrets of a task, without repeating any; null: nothing.';

-- _given: the options as given, nulls among them. _secrets are stored apart, where nobody can read them.
CREATE FUNCTION async.push_with_options(
  _caller OID, _what TEXT, _target TEXT, _query TEXT, _given JSONB, _secrets JSONB, _priority INT, _timeout INTERVAL,
  _task_data JSONB) RETURNS BIGINT
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _name    CONSTANT TEXT := async.target_name(_target);
  _options JSONB := (SELECT coalesce(jsonb_object_agg(o.key, o.value), '{}') FROM jsonb_each(_given) o
                      WHERE o.value <> 'null' AND (o.key, o.value) <> ('tier', '""'));
  _found   async.target;
  _faults  TEXT[];
  _id      BIGINT;
BEGIN
  PERFORM async.require_no_client();
  PERFORM async.require_engine();
  PERFORM async.require_size(pg_get_userbyid(_caller), 1, ARRAY[_given, _secrets, _task_data], ARRAY[_query]);
  SELECT * INTO _found FROM async.target t WHERE t.target = _name;
  IF NOT FOUND OR _target IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no target "%s"', left(_target, 80)), HINT = 'async.v_target lists the targets.';
  ELSIF _options ? 'tier' AND _found.kind NOT IN ('local', 'external')
        AND _options->>'tier' <> ALL (async.target_tiers(_name)) THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('target "%s" has no tier "%s"', _name, left(_options->>'tier', 80)),
      HINT = 'async.v_target shows the "tiers" among its options.';
  END IF;
  _options := async.resolved_options(_name, _options);
  SELECT * INTO _found FROM async.target t WHERE t.target = async.tier_target(_name, _given->>'tier');
  IF (async.kind_needs(_found.kind) = 'options') IS DISTINCT FROM (_what = 'request') THEN
    RAISE wrong_object_type USING
      MESSAGE = format('target "%s" takes no %s', _found.target, _what),
      DETAIL = format('Its kind is "%s".', _found.kind),
      HINT = CASE WHEN _found.kind = 'external' THEN 'Push with async.push_task; clients take its tasks with async.get_tasks.'
                  WHEN _what = 'request' THEN 'async.push_query pushes queries.' ELSE 'async.push_request pushes requests.' END;
  END IF;

  SELECT array_agg(v.message) INTO _faults
    FROM (SELECT format('%s: %s', ltrim(f.path, '.'), f.message) AS message FROM async.options_faults(_found.kind, _options) f
          UNION ALL SELECT async.secrets_fault(nullif(_secrets, 'null'))
          UNION ALL SELECT 'secrets: tasks of this database have none' WHERE _found.kind = 'local' AND nullif(_secrets, 'null') <> '{}'
          UNION ALL SELECT 'the query is empty' WHERE _what = 'query' AND btrim(coalesce(_query, ''), E' \t\r\n;') = ''
          UNION ALL SELECT format('the time-out is %s', _timeout) WHERE _timeout <= INTERVAL '0') AS v
   WHERE v.message IS NOT NULL;
  IF _faults IS NOT NULL THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('the %s cannot be pushed', _what), DETAIL = array_to_string(_faults[:20], E'\n');
  END IF;
  IF _found.kind = 'local' THEN
    PERFORM async.require_runnable_role(pg_get_userbyid(_caller));
  END IF;

  INSERT INTO async.task (
    target, priority, run_as, query, task_data, manual_timeout, source, track_yielded, asynchronous_finish, options)
  VALUES (
    _found.target, coalesce(_priority, 0), pg_get_userbyid(_caller), _query, _task_data,
    CASE WHEN _timeout > INTERVAL '100 years' THEN INTERVAL '100 years' ELSE _timeout END, 'push_' || _what,
    _found.concurrency_track_yielded, _found.asynchronous_finish, nullif(_options, '{}'))
  RETURNING task_id INTO _id;
  INSERT INTO async.task_secret (task_id, secrets) SELECT _id, _secrets WHERE nullif(_secrets, 'null') <> '{}';
  PERFORM async.announce_tasks(_id, _id, NULL, NULL);
  RETURN _id;
END
$$;
COMMENT ON FUNCTION async.push_with_options IS
  'Internal: pushes a task with options for _caller; _what: query or request. Raises undefined_object, wrong_object_type, '
  'invalid_parameter_value with every fault.';

CREATE FUNCTION async.push_query_as(
  _caller OID, _target TEXT, _query TEXT, _parameters JSONB, _settings JSONB, _tier TEXT, _result JSONB, _secrets JSONB,
  _priority INT, _timeout INTERVAL, _task_data JSONB) RETURNS BIGINT
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.push_with_options(
    _caller, 'query', coalesce(_target, 'local'), _query,
    jsonb_build_object('parameters', _parameters, 'settings', _settings, 'tier', _tier, 'result', _result),
    _secrets, _priority, _timeout, _task_data);
$$;
COMMENT ON FUNCTION async.push_query_as IS 'Internal: async.push_query with the caller''s role.';

CREATE FUNCTION async.push_query(
  _target TEXT, _query TEXT, _parameters JSONB DEFAULT NULL, _settings JSONB DEFAULT NULL, _tier TEXT DEFAULT NULL,
  _result JSONB DEFAULT NULL, _secrets JSONB DEFAULT NULL, _priority INT DEFAULT 0, _timeout INTERVAL DEFAULT NULL,
  _task_data JSONB DEFAULT NULL) RETURNS BIGINT
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.push_query IS
  'Pushes a query to a target (null: this database) and returns the task''s id. _parameters: values of its {name:Type}, '
  'else taken from _task_data by name; _settings: of the other side; _tier: a set of settings, or another target, that '
  'the target names; _result: "inline", or an object that says where the rows go; _secrets: values like _parameters that '
  'nobody sees and that are deleted when the task ends (so it cannot be restarted with them), 64 kB at most; _priority, '
  '_timeout, _task_data as async.task. Raises undefined_object, wrong_object_type, invalid_parameter_value.';

CREATE FUNCTION async.push_request_as(
  _caller OID, _target TEXT, _request JSONB, _result JSONB, _secrets JSONB, _task_data JSONB, _priority INT,
  _timeout INTERVAL) RETURNS BIGINT
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT async.push_with_options(
    _caller, 'request', _target, NULL, jsonb_build_object('request', _request, 'result', _result),
    _secrets, _priority, _timeout, _task_data);
$$;
COMMENT ON FUNCTION async.push_request_as IS 'Internal: async.push_request with the caller''s role.';

CREATE FUNCTION async.push_request(
  _target TEXT, _request JSONB, _result JSONB DEFAULT NULL, _secrets JSONB DEFAULT NULL, _task_data JSONB DEFAULT NULL,
  _priority INT DEFAULT 0, _timeout INTERVAL DEFAULT NULL) RETURNS BIGINT
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.push_request IS
  'Pushes a request to an HTTP target and returns the task''s id. _request: {"method", "path", "query", "headers", "body", '
  '…}; {names} and "$names" in it are taken from _secrets, else from _task_data. The rest as async.push_query.';
