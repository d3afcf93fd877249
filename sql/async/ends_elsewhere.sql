-- How attempts end that ran somewhere else. Runs in the dispatcher; rows that a client has locked are skipped, and asked
-- about again.

-- Whether the tasks of a target run somewhere else, by way of the executor.
CREATE FUNCTION async.is_elsewhere(_target TEXT) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM async.target k WHERE k.target = _target AND k.kind NOT IN ('local', 'external'));
$$;
COMMENT ON FUNCTION async.is_elsewhere IS 'Internal: whether the tasks of a target are sent somewhere else.';

-- Whether a worker of this database has the task first: to ask the routine that names its query, or to write what comes
-- back into a table.
CREATE FUNCTION async.starts_here(_flow_id BIGINT, _node_no INT, _query TEXT, _options JSONB) RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(o.query_routine IS NOT NULL AND _query IS NULL, false)
         OR coalesce(o.options->'result'->>'to', o.options->>'result') IS NOT DISTINCT FROM 'table'
    FROM (SELECT _options AS options, NULL::TEXT AS query_routine WHERE _flow_id = 0
          UNION ALL
          SELECT n.options, n.query_routine
            FROM (SELECT x.definition_id FROM flow.flow x WHERE x.flow_id = _flow_id OFFSET 0) f,
                 LATERAL (SELECT x.options, x.query_routine FROM flow.definition_node x
                           WHERE x.definition_id = f.definition_id AND x.node_no = _node_no OFFSET 0) n) AS o;
$$;
COMMENT ON FUNCTION async.starts_here IS
  'Internal: whether a worker of this database has a task of a target elsewhere first. _flow_id 0: of no flow.';

-- _words: finished, goes_on (the other side will end it later), failed, again (nothing was done), lost (it may have been
-- done), down (it could not be reached: nothing is charged), timed_out. Each row counts only for the attempt it names.
-- Returns what became of each task: finished, failed (also timed out), waits (yielded, put off, tried again), stale
-- (somebody else had ended it), locked (nothing was done).
CREATE FUNCTION async.end_attempts_elsewhere(
  _task_ids BIGINT[], _attempts INT[], _started TIMESTAMPTZ[], _words TEXT[], _errors TEXT[], _delays INTERVAL[],
  _max_attempts INT[])
RETURNS TABLE (task_id BIGINT, word TEXT) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH told AS MATERIALIZED (
      SELECT u.*, d.status, d.message, d.delay AS decided_delay
        FROM unnest(_task_ids, _attempts, _started, _words, _errors, _delays, _max_attempts)
               AS u (task_id, attempt, started, word, error, delay, max_attempts)
        LEFT JOIN LATERAL (SELECT x.* FROM async.decision x
                            WHERE x.task_id = u.task_id AND x.attempt = u.attempt OFFSET 0) d ON u.word IN ('finished', 'goes_on')
       ORDER BY u.task_id),
    open AS MATERIALIZED (
      SELECT t.task_id, t.asynchronous_finish, t.on_partial_fail, t.crashes
        FROM told u,
             LATERAL (SELECT x.task_id, x.asynchronous_finish, x.on_partial_fail, x.crashes FROM async.task x
                       WHERE x.task_id = u.task_id AND x.processed IS NULL AND x.attempt = u.attempt - 1
                         FOR NO KEY UPDATE SKIP LOCKED) t),
    verdict AS MATERIALIZED (
      SELECT u.task_id, u.attempt, u.started,
             CASE WHEN u.status = 'FAILED' THEN 'failed'
                  WHEN u.status = 'DEFERRED' THEN 'deferred'
                  WHEN u.status IS NOT NULL THEN 'finished'
                  WHEN u.word = 'goes_on' OR u.word = 'finished' AND o.asynchronous_finish THEN 'yielded'
                  WHEN u.word = 'lost' AND o.on_partial_fail THEN 'failed'
                  WHEN u.word IN ('again', 'lost') AND o.crashes + 1 >= u.max_attempts THEN 'failed'
                  ELSE u.word END AS word,
             CASE WHEN u.status = 'FAILED' THEN coalesce(u.message, 'failed by flow.finish')
                  WHEN u.word = 'lost' AND o.on_partial_fail
                    THEN format('it may have been done elsewhere (on_partial: fail): %s', u.error)
                  WHEN u.word IN ('again', 'lost') AND o.crashes + 1 >= u.max_attempts
                    THEN format('given up after %s attempts: %s', o.crashes + 1, u.error)
                  ELSE u.error END AS error,
             least(coalesce(u.decided_delay, u.delay), interval '100 years') AS delay
        FROM told u JOIN open o ON o.task_id = u.task_id),
    changed AS (
      UPDATE async.task t
      -- An attempt that could not begin leaves its number to the next.
      SET attempt = CASE WHEN v.word = 'down' THEN t.attempt ELSE v.attempt END,
          consumed = CASE WHEN v.word IN ('deferred', 'again', 'down', 'lost') THEN NULL ELSE v.started END,
          first_consumed = CASE WHEN v.word = 'down' THEN t.first_consumed ELSE coalesce(t.first_consumed, v.started) END,
          yielded = CASE WHEN v.word = 'yielded' THEN clock_timestamp() END,
          times_up = CASE WHEN v.word = 'yielded' THEN coalesce(t.first_consumed, v.started) + v.delay END,
          processed = CASE WHEN v.word IN ('finished', 'failed', 'timed_out') THEN clock_timestamp() END,
          finish_status = CASE v.word WHEN 'finished' THEN 'FINISHED' WHEN 'failed' THEN 'FAILED'
                            WHEN 'timed_out' THEN 'TIMED_OUT' WHEN 'yielded' THEN 'YIELDED'
                            WHEN 'deferred' THEN 'DEFERRED' END::async.finish_status_t,
          failed = CASE v.word WHEN 'finished' THEN false WHEN 'failed' THEN true WHEN 'timed_out' THEN true END,
          processing_error = CASE WHEN v.word IN ('failed', 'timed_out') THEN v.error END,
          eligible_when = CASE WHEN v.word IN ('deferred', 'again', 'down', 'lost') THEN clock_timestamp() + v.delay END,
          crashes = t.crashes + (v.word IN ('again', 'lost'))::INT,
          -- One that did nothing leaves open what became of those before it.
          unsure_since = CASE WHEN v.word = 'lost' THEN coalesce(t.unsure_since, v.attempt)
                              WHEN v.word IN ('again', 'down') THEN t.unsure_since END,
          suspect = false
      FROM verdict v WHERE t.task_id = v.task_id
      RETURNING t.task_id, t.attempt, v.word, v.error, v.delay),
    logged AS (
      INSERT INTO async.task_log (task_id, attempt, seq, level, message)
      SELECT c.task_id, c.attempt, 1000000, 'STATUS',
             CASE WHEN c.word = 'deferred' THEN format('put off for %s', async.interval_pretty(c.delay))
                  ELSE format('attempt %s %s: %s', c.attempt,
                              CASE c.word WHEN 'lost' THEN 'was lost' ELSE 'was not taken' END, c.error) END
        FROM changed c WHERE c.word IN ('deferred', 'again', 'lost')
      ON CONFLICT DO NOTHING),
    undecided AS (
      -- Not of those whose row is locked: they are told again.
      DELETE FROM async.decision d USING open o WHERE d.task_id = o.task_id),
    forgotten AS (
      DELETE FROM async.task_secret s USING changed c
       WHERE s.task_id = c.task_id AND c.word IN ('finished', 'failed', 'timed_out')),
    spent AS (
      DELETE FROM async.callback_token k USING changed c WHERE k.task_id = c.task_id AND c.word <> 'yielded')
    SELECT u.task_id,
           CASE WHEN c.word = 'finished' THEN 'finished'
                WHEN c.word IN ('failed', 'timed_out') THEN 'failed'
                WHEN c.word IS NOT NULL THEN 'waits'
                WHEN EXISTS (SELECT FROM async.task t WHERE t.task_id = u.task_id AND t.processed IS NULL
                                AND t.attempt = u.attempt - 1) THEN 'locked'
                ELSE 'stale' END
      FROM told u LEFT JOIN changed c ON c.task_id = u.task_id;
END
$$;
COMMENT ON FUNCTION async.end_attempts_elsewhere IS
  'Internal: writes how attempts that ran elsewhere ended, with what their callbacks have decided; for the dispatcher.';

-- Targets that cannot be reached, for the views; written by the dispatcher when that changes.
CREATE TABLE async.target_down (
  target   TEXT PRIMARY KEY,
  since    TIMESTAMPTZ NOT NULL,
  next_try TIMESTAMPTZ NOT NULL,
  tries    INT NOT NULL,
  error    TEXT NOT NULL
);
COMMENT ON TABLE async.target_down IS 'Targets that cannot be reached right now; their tasks wait. See async.v_target_status.';
COMMENT ON COLUMN async.target_down.target IS 'The target.';
COMMENT ON COLUMN async.target_down.since IS 'When it was first found to be down.';
COMMENT ON COLUMN async.target_down.next_try IS 'When it is tried again.';
COMMENT ON COLUMN async.target_down.tries IS 'How often it was tried since.';
COMMENT ON COLUMN async.target_down.error IS 'What the last try met.';

-- When the dispatcher must next look for results and executions that are over, though nothing else happens. Executions are
-- kept for hours and days: an hour is soon enough.
CREATE FUNCTION async.next_expiry() RETURNS TIMESTAMPTZ
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN least((SELECT min(r.expires) FROM async.result r),
               (SELECT clock_timestamp() + INTERVAL '1 hour' FROM async.execution e LIMIT 1));
END
$$;
COMMENT ON FUNCTION async.next_expiry IS 'Internal: when the dispatcher must look for what is over; null: there is nothing that ends.';
