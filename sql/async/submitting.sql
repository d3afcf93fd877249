-- Submitting executions. Of a role and a query_id one is in flight at a time: the partial unique index decides, also
-- between sessions that know nothing of each other yet.

CREATE TYPE async.submission_t AS (
  execution_id BIGINT, query_id TEXT, status TEXT, collapsed BOOL, task_id BIGINT, result_execution_id BIGINT,
  result_task_id BIGINT, result_completed_at TIMESTAMPTZ);
COMMENT ON TYPE async.submission_t IS 'What async.submit answers; explained there.';

-- Where a query goes that names no target.
CREATE FUNCTION async.execution_target(_target TEXT, _tier TEXT) RETURNS TEXT
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _all  TEXT[];
  _with TEXT[];
BEGIN
  IF _target IS NOT NULL THEN
    IF async.target_name(_target) IS NULL THEN
      RAISE undefined_object USING
        MESSAGE = format('there is no target "%s"', left(_target, 80)), HINT = 'async.v_target lists the targets.';
    END IF;
    RETURN async.target_name(_target);
  END IF;
  SELECT array_agg(t.target ORDER BY t.target), array_agg(t.target ORDER BY t.target) FILTER (WHERE t.options->'tiers' ? _tier)
    INTO _all, _with FROM async.target t WHERE t.kind = 'clickhouse';
  IF cardinality(_all) = 1 THEN
    RETURN _all[1];
  ELSIF cardinality(_with) = 1 THEN
    RETURN _with[1];
  ELSIF _all IS NULL THEN
    RAISE undefined_object USING
      MESSAGE = 'there is no target of kind "clickhouse"',
      HINT = 'Define one with async.configure, or name the target that is to run the query: _target.';
  END IF;
  RAISE ambiguous_parameter USING
    MESSAGE = format('several targets could run this: %s', array_to_string(coalesce(_with, _all), ', ')),
    DETAIL = CASE WHEN _with IS NULL THEN format('None of them has the tier "%s".', left(_tier, 80))
                  ELSE format('Each of them has the tier "%s".', left(_tier, 80)) END,
    HINT = 'Name one: _target.';
END
$$;
COMMENT ON FUNCTION async.execution_target IS
  'Internal: the target of an execution: the one that is named, else the only one of kind clickhouse, else the only one of '
  'those that has the tier. Raises undefined_object, ambiguous_parameter.';

CREATE FUNCTION async.settle_executions(_execution_ids BIGINT[]) RETURNS INT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _settled INT := 0;
BEGIN
  IF cardinality(_execution_ids) > 0 THEN
    UPDATE async.execution e
       SET open = false, status = v.status, picked_at = v.picked_at, completed_at = v.completed_at, result = v.result,
           error = v.error, expires = coalesce(v.completed_at, clock_timestamp()) + async.execution_keep(v.status)
      FROM async.v_execution v
     WHERE e.execution_id = ANY (_execution_ids) AND v.execution_id = e.execution_id
       AND v.status IN ('CANCELED', 'FAILED', 'SUCCEEDED')
       AND (e.open OR e.status IS DISTINCT FROM v.status OR e.completed_at IS DISTINCT FROM v.completed_at);
    GET DIAGNOSTICS _settled = ROW_COUNT;
  END IF;
  RETURN _settled;
END
$$;
COMMENT ON FUNCTION async.settle_executions IS
  'Internal: executions take over what their tasks say, where those have ended; returns how many.';

-- The newest result that a role can use for a query_id. Of one role and query_id the order of ids is the order of ends.
CREATE FUNCTION async.newest_result(
  _role NAME, _query_id TEXT, OUT execution_id BIGINT, OUT task_id BIGINT, OUT completed_at TIMESTAMPTZ)
RETURNS RECORD LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.execution_id, e.task_id, coalesce(t.processed, e.completed_at)
    FROM async.execution e
    JOIN async.result r ON r.task_id = e.task_id AND r.state = 'kept'
     AND (r.expires IS NULL OR r.expires > clock_timestamp())
    LEFT JOIN async.task t ON t.task_id = e.task_id
   WHERE e.query_id = _query_id AND e.created_by = _role AND e.status IS DISTINCT FROM 'EXPIRED'
     AND CASE WHEN t.task_id IS NULL THEN e.status = 'SUCCEEDED' ELSE t.finish_status = 'FINISHED' END
   ORDER BY e.execution_id DESC LIMIT 1;
$$;
COMMENT ON FUNCTION async.newest_result IS 'Internal: the newest result of a role''s executions of a query_id that is still kept.';

CREATE FUNCTION async.submit_as(
  _caller OID, _query TEXT, _query_id TEXT, _tier TEXT, _arguments JSONB, _secrets JSONB, _stale_after INTERVAL, _target TEXT,
  _result JSONB, _settings JSONB, _quota_key TEXT, _priority INT, _timeout INTERVAL) RETURNS async.submission_t
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _role  CONSTANT NAME := pg_get_userbyid(_caller);
  _hash  CONSTANT TEXT := encode(sha256(convert_to(_query, 'UTF8')), 'hex');
  _bound CONSTANT JSONB := nullif(nullif(_arguments, 'null'), '{}');
  -- Without an id: the same query with other arguments is another one.
  _id    CONSTANT TEXT := coalesce(nullif(_query_id, ''), CASE
    WHEN _bound IS NULL THEN _hash
    ELSE encode(sha256(convert_to(_query || E'\n' || _bound::TEXT, 'UTF8')), 'hex') END);
  _where TEXT;
  _made  async.submission_t;
BEGIN
  IF btrim(coalesce(_query, ''), E' \t\r\n;') = '' THEN
    RAISE invalid_parameter_value USING MESSAGE = 'there is no query to submit';
  ELSIF octet_length(_id) > 1000 THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('the _query_id is too long: %s bytes of at most 1000', octet_length(_id));
  ELSIF _stale_after < INTERVAL '0' THEN
    RAISE invalid_parameter_value USING MESSAGE = format('_stale_after is %s', _stale_after);
  ELSIF jsonb_typeof(_arguments) NOT IN ('object', 'null') OR jsonb_typeof(_secrets) NOT IN ('object', 'null') THEN
    RAISE invalid_parameter_value USING MESSAGE = '_arguments and _secrets must be objects: name, value';
  END IF;
  _where := async.execution_target(_target, coalesce(_tier, ''));
  _made.query_id := _id;

  IF _stale_after IS NOT NULL THEN
    SELECT n.execution_id, n.task_id, n.completed_at
      INTO _made.result_execution_id, _made.result_task_id, _made.result_completed_at
      FROM async.newest_result(_role, _id) n;
    IF _made.result_completed_at >= clock_timestamp() - _stale_after THEN
      _made.execution_id := _made.result_execution_id;
      _made.task_id := _made.result_task_id;
      _made.status := 'SUCCEEDED';
      _made.collapsed := false;
      RETURN _made;
    END IF;
  END IF;

  FOR _try IN 1 .. 100 LOOP
    UPDATE async.execution e SET collapsed_counter = e.collapsed_counter + 1
     WHERE e.created_by = _role AND e.query_id = _id AND e.open
       AND EXISTS (SELECT FROM async.task t WHERE t.task_id = e.task_id AND t.processed IS NULL)
    RETURNING e.execution_id, e.task_id, true INTO _made.execution_id, _made.task_id, _made.collapsed;
    EXIT WHEN FOUND;
    -- One whose task has ended, or is gone, is in flight no more.
    PERFORM async.settle_executions(
      ARRAY(SELECT e.execution_id FROM async.execution e
             WHERE e.created_by = _role AND e.query_id = _id AND e.open FOR UPDATE));
    -- Waits for whoever is submitting the same: then it is there, or it never was.
    INSERT INTO async.execution (query_id, query_hash, query, tier, target, created_by, quota_key)
    VALUES (_id, _hash, _query, coalesce(_tier, ''), _where, _role, _quota_key)
    ON CONFLICT (created_by, query_id) WHERE open DO NOTHING
    RETURNING execution_id, false INTO _made.execution_id, _made.collapsed;
    IF FOUND THEN
      _made.task_id := async.push_query_as(
        _caller, _where, _query, NULL::JSONB, _settings, _tier, coalesce(
          nullif(_result, 'null'), (SELECT s.result FROM async.execution_settings s), '"inline"'),
        _secrets, _priority, _timeout, _bound);
      -- Its tier may have led to another target. A quota key is ClickHouse's alone, and no option that a node can have.
      UPDATE async.execution e SET task_id = t.task_id, target = t.target
        FROM async.task t WHERE e.execution_id = _made.execution_id AND t.task_id = _made.task_id;
      UPDATE async.task t SET options = coalesce(t.options, '{}') || jsonb_build_object('quota_key', _quota_key)
       WHERE t.task_id = _made.task_id AND _quota_key <> '' AND async.target_kind(t.target) = 'clickhouse';
      EXIT;
    END IF;
  END LOOP;
  IF _made.task_id IS NULL THEN
    RAISE lock_not_available USING
      MESSAGE = format('execution of query_id "%s" ends as fast as it is submitted', left(_id, 80)), HINT = 'Try again.';
  END IF;
  _made.status := coalesce((SELECT v.status FROM async.v_execution v WHERE v.execution_id = _made.execution_id), 'PENDING');
  RETURN _made;
END
$$;
COMMENT ON FUNCTION async.submit_as IS 'Internal: async.submit with the caller''s role.';

CREATE FUNCTION async.submit(
  _query TEXT, _query_id TEXT DEFAULT NULL, _tier TEXT DEFAULT '', _arguments JSONB DEFAULT NULL, _secrets JSONB DEFAULT NULL,
  _stale_after INTERVAL DEFAULT NULL, _target TEXT DEFAULT NULL, _result JSONB DEFAULT NULL, _settings JSONB DEFAULT NULL,
  _quota_key TEXT DEFAULT NULL, _priority INT DEFAULT 0, _timeout INTERVAL DEFAULT NULL)
RETURNS async.submission_t LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.submit IS
  'Has a query run and its result kept. If one of yours with the same _query_id (default: the hash of the query and its '
  'arguments; the tier takes no part) is in flight, that one is returned (collapsed). With _stale_after, the newest result '
  'is returned too (result_execution_id, result_task_id): one that is not older is all there is to it, an older one '
  'serves while the query runs again. _arguments and _secrets are bound as parameters; secrets are erased when it ends. '
  '_target: by default the only ClickHouse target, else the only one that has the _tier. Waits for another session that '
  'is submitting the same and has not committed.';
