-- Finding executions, their results and their ends. With the caller's rights: row-level security decides what there is.

CREATE FUNCTION async.execution(_execution_id BIGINT) RETURNS SETOF async.v_execution
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT v.* FROM async.v_execution v WHERE v.execution_id = _execution_id;
$$;
COMMENT ON FUNCTION async.execution IS 'One execution, as async.v_execution shows it; no row: there is none that you may read.';

CREATE FUNCTION async.search_executions(
  _query_id TEXT, _query_hash TEXT DEFAULT NULL, _statuses TEXT[] DEFAULT '{SUCCEEDED,FAILED}', _limit INT DEFAULT 3,
  _sort_by TEXT DEFAULT 'COMPLETED_AT') RETURNS SETOF async.v_execution
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _known CONSTANT TEXT[] := '{PENDING,RUNNING,CANCELED,FAILED,SUCCEEDED,EXPIRED}';
  _wrong TEXT := (SELECT string_agg(coalesce(s, 'null'), ', ') FROM unnest(_statuses) AS s WHERE s <> ALL (_known) OR s IS NULL);
BEGIN
  IF _wrong IS NOT NULL THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('there is no status %s', left(_wrong, 80)), HINT = array_to_string(_known, ', ') || '.';
  ELSIF _limit NOT BETWEEN 1 AND 100 THEN
    RAISE invalid_parameter_value USING MESSAGE = format('_limit is %s: 1 to 100', _limit);
  ELSIF _sort_by NOT IN ('CREATED_AT', 'COMPLETED_AT') THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('cannot sort by "%s"', left(_sort_by, 80)), HINT = 'CREATED_AT or COMPLETED_AT.';
  END IF;
  RETURN QUERY
    SELECT v.* FROM async.v_execution v
     WHERE v.query_id = _query_id AND (_query_hash IS NULL OR v.query_hash = _query_hash)
       AND v.status = ANY (coalesce(_statuses, '{SUCCEEDED,FAILED}'))
     ORDER BY CASE WHEN _sort_by = 'CREATED_AT' THEN v.created_at ELSE v.completed_at END DESC NULLS LAST, v.execution_id DESC
     LIMIT coalesce(_limit, 3);
END
$$;
COMMENT ON FUNCTION async.search_executions(TEXT, TEXT, TEXT[], INT, TEXT) IS
  'The newest executions of a query_id that you may read, at most _limit (100), by CREATED_AT or COMPLETED_AT.';

CREATE FUNCTION async.search_executions(_searches JSONB) RETURNS SETOF JSONB
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _search JSONB;
  _key    TEXT;
BEGIN
  IF jsonb_typeof(_searches) IS DISTINCT FROM 'array' OR jsonb_array_length(_searches) > 100 THEN
    RAISE invalid_parameter_value USING
      MESSAGE = '_searches must be an array of at most 100 searches',
      HINT = 'Such as [{"query_id": "daily", "statuses": ["SUCCEEDED"], "limit": 1}].';
  END IF;
  FOR _search IN SELECT s.value FROM jsonb_array_elements(_searches) WITH ORDINALITY AS s(value, n) ORDER BY s.n LOOP
    IF jsonb_typeof(_search) <> 'object' OR jsonb_typeof(_search->'query_id') IS DISTINCT FROM 'string'
       OR jsonb_typeof(_search->'statuses') NOT IN ('array', 'null') THEN
      RAISE invalid_parameter_value USING
        MESSAGE = format('not a search: %s', left(_search::TEXT, 200)),
        HINT = 'An object with "query_id" (text), and perhaps "query_hash", "statuses" (an array), "limit", "sort_by".';
    END IF;
    SELECT k INTO _key FROM jsonb_object_keys(_search) AS k
     WHERE k NOT IN ('query_id', 'query_hash', 'statuses', 'limit', 'sort_by') LIMIT 1;
    IF FOUND THEN
      RAISE invalid_parameter_value USING
        MESSAGE = format('a search has no "%s"', left(_key, 80)), HINT = 'query_id, query_hash, statuses, limit, sort_by.';
    END IF;
    RETURN QUERY
      SELECT coalesce(jsonb_agg(to_jsonb(x.*) ORDER BY x.ordinality), '[]') FROM async.search_executions(
        _search->>'query_id', _search->>'query_hash',
        CASE jsonb_typeof(_search->'statuses') WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(_search->'statuses'))
             ELSE '{SUCCEEDED,FAILED}' END,
        coalesce((_search->>'limit')::INT, 3), coalesce(_search->>'sort_by', 'COMPLETED_AT')) WITH ORDINALITY AS x;
  END LOOP;
END
$$;
COMMENT ON FUNCTION async.search_executions(JSONB) IS
  'Several searches at once: an array of objects with query_id, query_hash, statuses, limit, sort_by; a list of executions '
  'for each, in the same order.';

CREATE FUNCTION async.execution_result(_execution_id BIGINT, _limit INT DEFAULT NULL, _offset BIGINT DEFAULT 0) RETURNS JSONB
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _execution async.v_execution;
BEGIN
  SELECT * INTO _execution FROM async.v_execution v WHERE v.execution_id = _execution_id;
  IF NOT FOUND THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no execution %s', coalesce(_execution_id::TEXT, 'null')),
      HINT = 'async.v_execution lists those you may read.';
  ELSIF _execution.status <> 'SUCCEEDED' THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = format('execution %s is %s and has no result', _execution_id, _execution.status),
      DETAIL = coalesce(_execution.error, format('It was submitted at %s.', _execution.created_at));
  END IF;
  RETURN jsonb_build_object('meta', _execution.result->'meta', 'rows', _execution.result->'rows', 'data', (
    SELECT coalesce(jsonb_agg(f), '[]') FROM async.fetch_result(_execution.task_id, _limit, _offset) AS f));
END
$$;
COMMENT ON FUNCTION async.execution_result IS
  'The result of an execution as one object: meta [{name, type}], rows (of the whole result), data: the rows from the '
  '_offset-th on, at most _limit. For large results rather async.fetch_result(task_id). Raises undefined_object, '
  'object_not_in_prerequisite_state.';

CREATE FUNCTION async.cancel_execution_as(_caller OID, _execution_id BIGINT, _error_message TEXT) RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _execution async.execution;
BEGIN
  SELECT * INTO _execution FROM async.execution e WHERE e.execution_id = _execution_id;
  IF NOT FOUND OR NOT async.caller_may_read(_caller, _execution.created_by) THEN
    RAISE undefined_object USING
      MESSAGE = format('there is no execution %s', coalesce(_execution_id::TEXT, 'null')),
      HINT = 'async.v_execution lists those you may read.';
  ELSIF NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = _execution.task_id) THEN
    RAISE WARNING 'execution % has ended already', _execution_id;
  ELSE
    PERFORM async.cancel_as(_caller, ARRAY[_execution.task_id], _error_message);
  END IF;
END
$$;
COMMENT ON FUNCTION async.cancel_execution_as IS 'Internal: async.cancel_execution with the caller''s role.';

CREATE FUNCTION async.cancel_execution(_execution_id BIGINT, _error_message TEXT DEFAULT NULL) RETURNS VOID
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'as_owner';
COMMENT ON FUNCTION async.cancel_execution IS
  'Cancels an execution: it becomes CANCELED, and what runs elsewhere is stopped, when the transaction commits. One that '
  'has ended: a warning. Raises undefined_object, insufficient_privilege.';

-- For the dispatcher. Rows that somebody has locked are left for the next call.
CREATE FUNCTION async.expire_executions(_limit INT) RETURNS INT
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _now   CONSTANT TIMESTAMPTZ := clock_timestamp();
  _from  BIGINT := 0;
  _ids   BIGINT[];
  _count INT := 0;
  _over  INT;
BEGIN
  -- Ends are noticed here if nobody has submitted the same since: among the oldest in flight, then from somewhere on, so
  -- that many that are in flight for long do not hide what has ended behind them.
  FOR _round IN 1 .. 2 LOOP
    SELECT array_agg(o.execution_id) INTO _ids FROM (
      SELECT w.execution_id
        FROM (SELECT e.execution_id, e.task_id FROM async.execution e WHERE e.open AND e.execution_id >= _from
               ORDER BY e.execution_id LIMIT _limit FOR UPDATE SKIP LOCKED) AS w
       WHERE NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = w.task_id AND t.processed IS NULL)) AS o;
    _count := _count + async.settle_executions(_ids);
    EXIT WHEN _round = 2;
    SELECT min(e.execution_id) + floor(random() * (max(e.execution_id) - min(e.execution_id) + 1))::BIGINT INTO _from
      FROM async.execution e WHERE e.open;
    EXIT WHEN _from IS NULL;
  END LOOP;

  -- What somebody has started again is no longer over. Nor is what somebody is just dropping the result of.
  WITH due AS (
    SELECT e.execution_id, e.task_id, e.status FROM async.execution e WHERE e.expires <= _now
     ORDER BY e.expires LIMIT _limit FOR UPDATE SKIP LOCKED
  ), free AS MATERIALIZED (
    SELECT r.task_id FROM async.result r WHERE r.task_id = ANY (ARRAY(SELECT d.task_id FROM due d)) FOR UPDATE SKIP LOCKED
  ), blocked AS MATERIALIZED (
    SELECT d.execution_id FROM due d JOIN async.result r ON r.task_id = d.task_id
     WHERE d.status <> 'EXPIRED' AND r.task_id NOT IN (SELECT f.task_id FROM free f)
  ), again AS (
    UPDATE async.execution e SET expires = _now + INTERVAL '1 hour' FROM due d
     WHERE e.execution_id = d.execution_id AND d.status <> 'EXPIRED'
       AND EXISTS (SELECT FROM async.task t WHERE t.task_id = d.task_id AND t.processed IS NULL)
       AND d.execution_id NOT IN (SELECT b.execution_id FROM blocked b)
    RETURNING e.execution_id
  ), expired AS (
    UPDATE async.execution e SET status = 'EXPIRED', expires = _now + async.execution_keep('EXPIRED') FROM due d
     WHERE e.execution_id = d.execution_id AND d.status <> 'EXPIRED'
       AND NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = d.task_id AND t.processed IS NULL)
       AND d.execution_id NOT IN (SELECT b.execution_id FROM blocked b)
    RETURNING e.task_id
  ), results AS (
    UPDATE async.result r SET expires = _now FROM expired x
     WHERE r.task_id = x.task_id AND r.state = 'kept' AND (r.expires IS NULL OR r.expires > _now)
  ), forgotten AS (
    DELETE FROM async.execution e USING due d WHERE e.execution_id = d.execution_id AND d.status = 'EXPIRED'
  )
  SELECT count(*) INTO _over FROM due d WHERE d.execution_id NOT IN (SELECT b.execution_id FROM blocked b);
  RETURN _count + _over;
END
$$;
COMMENT ON FUNCTION async.expire_executions IS
  'Internal: deals with executions that have ended and with those that are over, at most _limit of each: these become '
  'EXPIRED and lose their results, and are deleted later. Returns how many: call again while it is not 0.';

CREATE VIEW async.v_dekart_job WITH (security_invoker = true) AS
SELECT t.task_id, t.task_data->>'report' AS report, t.task_data->>'query' AS query,
       CASE WHEN t.processed IS NOT NULL THEN CASE t.finish_status WHEN 'FINISHED' THEN 'DONE' ELSE 'FAILED' END
            WHEN r.task_id IS NOT NULL OR t.yielded IS NOT NULL THEN 'RUNNING'
            ELSE 'PENDING' END AS status,
       x.bytes AS result_size, x.location, t.processing_error AS error, t.entered AS created, t.processed AS ended
  FROM async.task t
  LEFT JOIN async.running() r ON r.task_id = t.task_id AND t.processed IS NULL
  LEFT JOIN async.result x ON x.task_id = t.task_id AND x.state = 'kept'
 WHERE t.options->'result'->>'to' IN ('export', 'object');
COMMENT ON VIEW async.v_dekart_job IS
  'Queries whose result goes to a store, with the status words of Dekart''s jobs: PENDING, RUNNING, DONE, FAILED with '
  'error. READING_RESULTS never shows: nothing is copied afterwards. report, query: of the arguments.';
