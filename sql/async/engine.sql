-- What the dispatcher does to tasks. Rows that a worker or client has locked are skipped: whoever holds the lock tells
-- the dispatcher when it is gone.

-- Ends open tasks; returns those it ended.
CREATE FUNCTION async.end_tasks(_task_ids BIGINT[], _status async.finish_status_t, _error TEXT)
RETURNS SETOF BIGINT LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _piece BIGINT[];
BEGIN
  -- In pieces: a row that changes meanwhile is compared with the whole list again.
  FOR _from IN 1 .. coalesce(cardinality(_task_ids), 0) BY 1000 LOOP
    _piece := _task_ids[_from : _from + 999];
    RETURN QUERY
      WITH open AS (
        SELECT t.task_id, t.attempt FROM async.task t
        WHERE t.task_id = ANY (_piece) AND t.processed IS NULL
        ORDER BY t.task_id FOR NO KEY UPDATE SKIP LOCKED),
      ended AS (
        UPDATE async.task t
        SET processed = clock_timestamp(), finish_status = _status, failed = _status <> 'FINISHED',
            processing_error = _error, suspect = false,
            -- The attempt that runs ends here. An earlier one, which was stopped too, may still run beside it.
            consumed = coalesce(r.started, t.consumed), first_consumed = coalesce(t.first_consumed, r.started),
            attempt = coalesce(r.attempt, t.attempt)
        FROM open LEFT JOIN async.running() r ON r.task_id = open.task_id AND r.attempt > open.attempt
        WHERE t.task_id = open.task_id
        RETURNING t.task_id, t.target, t.priority),
      no_more_secret AS (
        DELETE FROM async.task_secret s USING ended e WHERE s.task_id = e.task_id),
      no_more_offered AS (
        DELETE FROM async.external_queue q USING ended e
        WHERE q.target = e.target AND q.priority = e.priority AND q.task_id = e.task_id)
      SELECT e.task_id FROM ended e;
  END LOOP;
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
             (t.partially_committed OR async.is_elsewhere(t.target)) AND t.on_partial_fail AS partial
      FROM unnest(_task_ids, _attempts, _charged) AS l (task_id, attempt, charged)
      JOIN async.task t ON t.task_id = l.task_id
      WHERE t.processed IS NULL AND t.attempt = l.attempt - 1
      ORDER BY t.task_id FOR NO KEY UPDATE OF t SKIP LOCKED),
    changed AS (
      UPDATE async.task t
      SET attempt = lost.attempt,
          crashes = t.crashes + lost.charged::int,
          suspect = _suspect AND NOT (lost.worn_out OR lost.partial OR async.is_elsewhere(t.target)),
          unsure_since = CASE WHEN async.is_elsewhere(t.target) THEN coalesce(t.unsure_since, lost.attempt) END,
          consumed = NULL,
          processed = CASE WHEN lost.worn_out OR lost.partial THEN clock_timestamp() END,
          finish_status = CASE WHEN lost.worn_out OR lost.partial THEN 'FAILED'::async.finish_status_t END,
          failed = CASE WHEN lost.worn_out OR lost.partial THEN true END,
          processing_error = CASE
            WHEN lost.worn_out THEN format('given up after %s lost attempts: %s', t.crashes + lost.charged::int, _reason)
            WHEN lost.partial THEN format('%s after the callback had committed a part, or may have been done elsewhere '
                                          '(on_partial: fail)', _reason) END
      FROM lost WHERE t.task_id = lost.task_id
      RETURNING t.task_id, t.attempt, t.processed IS NOT NULL AS ended),
    no_more_secret AS (
      DELETE FROM async.task_secret s USING changed c WHERE s.task_id = c.task_id AND c.ended),
    logged AS (
      INSERT INTO async.task_log (task_id, attempt, seq, level, message)
      SELECT c.task_id, c.attempt, 1000000, 'STATUS', format('attempt %s was lost: %s', c.attempt, _reason)
      FROM changed c ON CONFLICT DO NOTHING)
    SELECT c.task_id, c.ended FROM changed c;
END
$$;
COMMENT ON FUNCTION async.lose_attempts IS
  'Internal: accounts for attempts that ended without an outcome; returns each task and whether that ended it.';

-- Moves the mark below which every task has ended, from where the dispatcher reads the table when it starts. A task that
-- is being inserted has a lower number than others that are visible, so the mark goes up to a number only when every
-- transaction that could have inserted below it has ended: those that held a writer's lock when the number was noted.
CREATE FUNCTION async.raise_open_low() RETURNS VOID
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  _state async.engine_state;
  _low BIGINT;
BEGIN
  SELECT * INTO _state FROM async.engine_state FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF _state.next_low IS NOT NULL
     AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.virtualtransaction = ANY (_state.next_writers)) THEN
    SELECT coalesce(min(t.task_id), _state.next_low) INTO _low
    FROM async.task t
    WHERE t.task_id >= _state.open_low AND t.task_id < _state.next_low AND t.processed IS NULL;
    IF _low > _state.open_low THEN
      UPDATE async.engine_state SET open_low = _low;
    END IF;
    _state.next_low := NULL;
  END IF;
  IF _state.next_low IS NULL THEN
    _low := (SELECT q.last_value FROM async.task_id_seq q);
    IF _low > _state.open_low THEN
      UPDATE async.engine_state
      SET next_low = _low,
          next_writers = array(
            SELECT l.virtualtransaction FROM pg_locks l
            WHERE l.locktype = 'relation' AND l.relation = 'async.task'::regclass AND l.mode = 'RowExclusiveLock'
              AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
              AND l.pid IS DISTINCT FROM pg_backend_pid());
    END IF;
  END IF;
END
$$;
COMMENT ON FUNCTION async.raise_open_low IS
  'Internal: moves the mark below which every task has ended, from where the dispatcher reads when it starts.';
