-- What the dispatcher does to tasks. Rows that a worker or client has locked are skipped: whoever holds the lock tells
-- the dispatcher when it is gone.

-- Ends open tasks; returns those it ended.
CREATE FUNCTION async.end_tasks(_task_ids BIGINT[], _status async.finish_status_t, _error TEXT)
RETURNS SETOF BIGINT LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN QUERY
    WITH open AS (
      SELECT t.task_id FROM async.task t
      WHERE t.task_id = ANY (_task_ids) AND t.processed IS NULL
      ORDER BY t.task_id FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE async.task t
    SET processed = clock_timestamp(), finish_status = _status, failed = _status <> 'FINISHED',
        processing_error = _error, suspect = false
    FROM open WHERE t.task_id = open.task_id
    RETURNING t.task_id;
END
$$;
COMMENT ON FUNCTION async.end_tasks IS
  'Internal: ends those of the tasks that are open and not locked, and returns them.';

-- Attempts that ended without an outcome: the worker or the server died. Charged are those that ran alone; a task that
-- has been charged too often fails, and so does one that had committed a part and may not run again. Returns every task
-- and whether it has ended by this.
CREATE FUNCTION async.lose_attempts(
  _task_ids BIGINT[], _attempts INT[], _charged BOOL[], _suspect BOOL, _reason TEXT, _max_crashes INT)
RETURNS TABLE (task_id BIGINT, ended BOOL) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
    WITH lost AS (
      SELECT t.task_id, l.attempt, l.charged,
             t.crashes + l.charged::int >= _max_crashes AS worn_out,
             t.partially_committed AND t.on_partial_fail AS partial
      FROM unnest(_task_ids, _attempts, _charged) AS l (task_id, attempt, charged)
      JOIN async.task t ON t.task_id = l.task_id
      WHERE t.processed IS NULL AND t.attempt = l.attempt - 1
      ORDER BY t.task_id FOR NO KEY UPDATE OF t),
    changed AS (
      UPDATE async.task t
      SET attempt = lost.attempt,
          crashes = t.crashes + lost.charged::int,
          suspect = _suspect AND NOT (lost.worn_out OR lost.partial),
          consumed = NULL,
          processed = CASE WHEN lost.worn_out OR lost.partial THEN clock_timestamp() END,
          finish_status = CASE WHEN lost.worn_out OR lost.partial THEN 'FAILED'::async.finish_status_t END,
          failed = CASE WHEN lost.worn_out OR lost.partial THEN true END,
          processing_error = CASE
            WHEN lost.worn_out THEN format('given up after %s lost attempts: %s', t.crashes + lost.charged::int, _reason)
            WHEN lost.partial THEN format('%s after the callback had committed a part (on_partial: fail)', _reason) END
      FROM lost WHERE t.task_id = lost.task_id
      RETURNING t.task_id, t.attempt, t.processed IS NOT NULL AS ended),
    logged AS (
      INSERT INTO async.task_log (task_id, attempt, seq, level, message)
      SELECT c.task_id, c.attempt, 1000000, 'STATUS', format('attempt %s was lost: %s', c.attempt, _reason)
      FROM changed c ON CONFLICT DO NOTHING)
    SELECT c.task_id, c.ended FROM changed c;
END
$$;
COMMENT ON FUNCTION async.lose_attempts IS
  'Internal: accounts for attempts that ended without an outcome; returns each task and whether that ended it.';
