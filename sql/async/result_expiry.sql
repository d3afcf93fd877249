-- What becomes of results that are over, a bounded amount a call. For the dispatcher: it takes a batch with
-- async.expire_results, commits, deletes the objects, and says which are gone.
-- An object is deleted only if its row says where it is, its store still leads there, and no other result points to it.

CREATE FUNCTION async.expire_results(_limit INT) RETURNS TABLE (task_id BIGINT, store TEXT, path TEXT)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  _now   CONSTANT TIMESTAMPTZ := clock_timestamp();
  -- How long whoever deletes has before the object is handed out again: it may have died.
  _again CONSTANT INTERVAL := INTERVAL '10 minutes';
  _late  async.result;
BEGIN
  FOR _late IN
    SELECT * FROM async.result r WHERE r.expires <= _now AND r.later IS NOT NULL
     ORDER BY r.expires, r.task_id DESC LIMIT _limit FOR UPDATE SKIP LOCKED
  LOOP
    DELETE FROM async.result r WHERE r.task_id = _late.task_id;
    IF _late.later ? 'forget' THEN
      PERFORM async.forget_results(ARRAY[(_late.later->>'forget')::BIGINT], INTERVAL '1 second');
    ELSIF _late.state = 'kept' THEN
      PERFORM async.record_result((_late.later->>'task_id')::BIGINT, (_late.later->>'attempt')::INT, _late.later->'kept',
                                  INTERVAL '1 second');
    END IF;
  END LOOP;
  RETURN QUERY
    WITH due AS MATERIALIZED (
      SELECT r.task_id, r.store, r.path, r.location, r.expires, r.state <> 'gone' AND r.path IS NOT NULL AS is_object
        FROM async.result r WHERE r.expires <= _now AND r.later IS NULL
       ORDER BY r.expires, r.task_id LIMIT _limit FOR UPDATE SKIP LOCKED
    ), judged AS MATERIALIZED (
      -- Of several that point to one object and are over, the last one deletes it.
      SELECT d.*, coalesce(d.is_object AND async.is_below(d.location, s.url), false) AS is_ours, d.is_object AND EXISTS (
               SELECT FROM async.result o
                WHERE o.store = d.store AND o.path = d.path AND o.path IS NOT NULL AND o.state <> 'gone'
                  AND (coalesce(o.expires, 'infinity'), o.task_id) > (d.expires, d.task_id)
               UNION ALL
               SELECT FROM async.result o
                WHERE o.location = d.location AND o.path IS NOT NULL AND o.state <> 'gone'
                  AND (coalesce(o.expires, 'infinity'), o.task_id) > (d.expires, d.task_id)) AS is_needed
        FROM due d LEFT JOIN async.store s ON s.store = d.store
    ), left_behind AS (
      INSERT INTO async.server_log (level, message)
      SELECT 'WARNING', format('the object of a result was left where it is: %s; store "%s" does not lead there any more',
                               coalesce(j.location, j.path), j.store)
        FROM judged j WHERE j.is_object AND NOT j.is_ours AND NOT j.is_needed
    ), forgotten AS (
      DELETE FROM async.result r USING judged j
       WHERE r.task_id = j.task_id AND (NOT j.is_object OR NOT j.is_ours OR j.is_needed)
    ), marked AS (
      UPDATE async.result r SET state = 'deleting', expires = _now + _again, content = NULL
        FROM judged j
       WHERE r.task_id = j.task_id AND j.is_object AND j.is_ours AND NOT j.is_needed
      RETURNING r.task_id, r.store, r.path
    )
    SELECT m.task_id, m.store, m.path FROM marked m;
END
$$;
COMMENT ON FUNCTION async.expire_results IS
  'Internal: takes at most _limit results that are over. Inline and table ones are forgotten; objects are marked and '
  'returned, to be deleted once this has committed. Those that nobody reports as deleted are returned again after 10 minutes.';

CREATE FUNCTION async.results_deleted(_task_ids BIGINT[]) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM async.result r
   WHERE r.task_id = ANY (ARRAY(SELECT x.task_id FROM async.result x WHERE x.task_id = ANY (_task_ids) AND x.state = 'deleting'
                                   FOR UPDATE SKIP LOCKED));
$$;
COMMENT ON FUNCTION async.results_deleted IS 'Internal: the objects of these results, given by async.expire_results, are gone. One '
  'that somebody has locked is given again.';

CREATE FUNCTION async.results_not_deleted(_task_ids BIGINT[], _reasons TEXT[]) RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO async.server_log (level, message)
  SELECT 'WARNING', format('the object of a result could not be deleted, will be tried again: %s: %s',
                           coalesce(r.location, r.path), left(f.reason, 1000))
    FROM unnest(_task_ids, _reasons) AS f(task_id, reason)
    JOIN async.result r ON r.task_id = f.task_id AND r.state = 'deleting';
$$;
COMMENT ON FUNCTION async.results_not_deleted IS
  'Internal: logs why the objects of these results could not be deleted; async.expire_results returns them again.';

CREATE FUNCTION async.resume_deletions() RETURNS VOID
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  UPDATE async.result r SET expires = clock_timestamp()
   WHERE r.task_id = ANY (ARRAY(SELECT x.task_id FROM async.result x WHERE x.state = 'deleting' AND x.expires > clock_timestamp()
                                   FOR UPDATE SKIP LOCKED));
$$;
COMMENT ON FUNCTION async.resume_deletions IS
  'Internal: for a dispatcher that starts: what its predecessor was deleting is due at once.';

CREATE FUNCTION async.forget_results(_task_ids BIGINT[], _pause INTERVAL) RETURNS VOID
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _free CONSTANT BIGINT[] := ARRAY(
    SELECT r.task_id FROM async.result r
     WHERE r.task_id = ANY (_task_ids) AND (r.expires IS NULL OR r.state = 'gone') FOR UPDATE SKIP LOCKED);
BEGIN
  UPDATE async.result r SET expires = clock_timestamp() WHERE r.task_id = ANY (_free) AND r.state <> 'gone';
  DELETE FROM async.result r WHERE r.task_id = ANY (_free) AND r.state = 'gone';
  INSERT INTO async.result (task_id, attempt, run_as, kept_as, expires, later)
  SELECT nextval('async.replaced_result_seq'), r.attempt, r.run_as, 'inline', clock_timestamp() + _pause,
         jsonb_build_object('forget', r.task_id)
    FROM async.result r
   WHERE r.task_id = ANY (_task_ids) AND r.task_id <> ALL (_free) AND (r.expires IS NULL OR r.state = 'gone');
END
$$;
COMMENT ON FUNCTION async.forget_results IS
  'Internal: results of these tasks without a time of their own are over. Those that somebody has locked are so later: that '
  'is tried after _pause.';

-- Called before tasks are deleted: what must outlive them takes what it needs. Never waits for a client: who has locked an
-- execution keeps its task, until the next call.
CREATE FUNCTION async.forget_tasks(_task_ids BIGINT[]) RETURNS BIGINT[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _executions CONSTANT BIGINT[] := ARRAY(
    SELECT e.execution_id FROM async.execution e WHERE e.task_id = ANY (_task_ids) FOR UPDATE SKIP LOCKED);
  _ours       BIGINT[];
BEGIN
  PERFORM async.settle_executions(_executions);
  _ours := ARRAY(
    SELECT u.task_id FROM unnest(_task_ids) AS u(task_id)
     WHERE NOT EXISTS (SELECT FROM async.execution e
                        WHERE e.task_id = u.task_id AND e.execution_id <> ALL (_executions) OFFSET 0));
  PERFORM async.forget_results(_ours, INTERVAL '0');
  RETURN _ours;
END
$$;
COMMENT ON FUNCTION async.forget_tasks IS
  'Internal: these tasks are about to be deleted: executions take over what they show of them, and results without a time '
  'of their own are over. Returns those that may be deleted: not those whose execution somebody has locked.';
