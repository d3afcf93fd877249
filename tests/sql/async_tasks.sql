-- Pushing, finishing, cancelling, deferring, restarting tasks. Rolled back, so that no engine runs them.
\set ON_ERROR_STOP on
SET client_min_messages = error;
BEGIN;

DO $$
DECLARE
  _ids    BIGINT[];
  _id     BIGINT;
  _row    async.task;
  _detail TEXT;
BEGIN
  PERFORM async.configure('{"targets": [{"target": "robots", "kind": "external", "concurrency_track_yielded": true},
    {"target": "slow", "asynchronous_finish": true, "max_concurrency": 2}]}');

  -- In order, with the caller's role, defaults and the target's.
  _ids := ARRAY(SELECT async.push_tasks(ARRAY[
    async.task('SELECT 1', NULL), async.task('CALL p()', 'slow', '{"a": 1}', 7, 'pool', '5 minutes', true),
    async.task(NULL, 'robots', priority => -3), async.task('SELECT 2', 'slow', concurrency_pool => 'slow')], _source => 'test'));
  ASSERT cardinality(_ids) = 4 AND _ids[2] = _ids[1] + 1 AND _ids[4] = _ids[1] + 3;
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[1];
  ASSERT _row.target = 'local' AND _row.priority = 0 AND _row.run_as = current_user AND _row.source = 'test'
     AND _row.processed IS NULL AND NOT _row.asynchronous_finish AND _row.concurrency_pool IS NULL AND _row.attempt = 0;
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[2];
  ASSERT _row.target = 'slow' AND _row.priority = 7 AND _row.asynchronous_finish AND _row.track_yielded
     AND _row.concurrency_pool = 'pool' AND _row.manual_timeout = '5 minutes' AND _row.task_data = '{"a": 1}';
  ASSERT (SELECT track_yielded FROM async.task WHERE task_id = _ids[3]);
  ASSERT (SELECT concurrency_pool IS NULL FROM async.task WHERE task_id = _ids[4]);
  _id := async.push_task(async.task('SELECT 1', 'slow'), 'EXECUTE_NOASYNC');
  ASSERT (SELECT NOT asynchronous_finish AND source = 'manual push' FROM async.task WHERE task_id = _id);
  _id := async.push_task(async.task(NULL, 'local'), 'DOA');
  ASSERT (SELECT failed AND finish_status = 'DOA' AND processed IS NOT NULL FROM async.task WHERE task_id = _id);
  _id := async.push_task(async.task('SELECT 1/0', 'local'), 'EMPTY');
  ASSERT (SELECT NOT failed AND finish_status = 'FINISHED' FROM async.task WHERE task_id = _id);
  ASSERT NOT EXISTS (SELECT async.push_tasks('{}')) AND NOT EXISTS (SELECT async.push_tasks(NULL));

  -- Every fault, with its place.
  BEGIN
    PERFORM async.push_tasks(ARRAY[async.task('SELECT 1', 'nowhere'), async.task('SELECT 1', 'local'), async.task(NULL, 'slow'),
      async.task(' ;', 'local'), async.task('SELECT 1', 'local', manual_timeout => '-1 s'), NULL]);
    ASSERT false;
  EXCEPTION WHEN invalid_parameter_value THEN
    GET STACKED DIAGNOSTICS _detail = PG_EXCEPTION_DETAIL;
    ASSERT _detail = E'task 1: there is no target "nowhere"\ntask 3: it has no query, and target "slow" is not external\n'
      'task 4: it has no query, and target "local" is not external\ntask 5: manual_timeout is -00:00:01\n'
      'task 6: it has no query, and target "local" is not external', _detail;
  END;

  -- Finish: outcome, error, attempt; again: nothing; unknown: an error.
  PERFORM async.finish(_ids[1:1], 'FINISHED', NULL);
  PERFORM async.finish(_ids[1:2], 'FAILED', 'broken');
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[1];
  ASSERT _row.finish_status = 'FINISHED' AND NOT _row.failed AND _row.processing_error IS NULL AND _row.attempt = 1;
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[2];
  ASSERT _row.finish_status = 'FAILED' AND _row.failed AND _row.processing_error = 'broken' AND _row.processed IS NOT NULL;
  BEGIN
    PERFORM async.finish(ARRAY[_ids[3], 0], 'FINISHED', NULL);
    ASSERT false;
  EXCEPTION WHEN undefined_object THEN
    ASSERT SQLERRM = 'task 0 does not exist';
  END;
  ASSERT (SELECT processed IS NULL FROM async.task WHERE task_id = _ids[3]);

  -- Cancel, a task that has ended among them.
  PERFORM async.cancel(ARRAY[_ids[1], _ids[3]]);
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[3];
  ASSERT _row.finish_status = 'CANCELED' AND _row.failed AND _row.processing_error = 'manual cancel';
  PERFORM async.cancel('{}');
  PERFORM async.cancel(NULL);

  -- Defer.
  PERFORM async.defer(_ids[4:4], '1 hour');
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[4];
  ASSERT _row.processed IS NULL AND _row.eligible_when > now() + INTERVAL '59 minutes' AND _row.attempt = 0;
  ASSERT (SELECT state FROM async.v_task WHERE task_id = _ids[4]) = 'Deferred';
  PERFORM async.finish(_ids[4:4], 'YIELDED', NULL);
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[4];
  ASSERT _row.yielded IS NOT NULL AND _row.attempt = 1 AND _row.first_consumed IS NOT NULL;
  ASSERT (SELECT state FROM async.v_task WHERE task_id = _ids[4]) = 'Yielded';
  PERFORM async.finish(_ids[4:4], 'DEFERRED', NULL, '2 hours');
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[4];
  ASSERT _row.yielded IS NULL AND _row.consumed IS NULL AND _row.first_consumed IS NOT NULL AND _row.attempt = 1;
  ASSERT (SELECT count(*) FROM async.v_task_log WHERE task_id = _ids[4] AND message LIKE 'put off by%') = 2;
  UPDATE async.task SET eligible_when = 'infinity' WHERE task_id = _ids[4];
  BEGIN
    PERFORM async.defer(_ids[4:4], '1 s');
    ASSERT false;
  EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL; END;

  -- Restart.
  BEGIN
    PERFORM async.restart_task(_ids[4]);
    ASSERT false;
  EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL; END;
  UPDATE async.engine_state SET open_low = _ids[4] + 100;
  PERFORM async.restart_task(_ids[2]);
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[2];
  ASSERT _row.processed IS NULL AND _row.finish_status IS NULL AND _row.attempt = 1 AND _row.processing_error IS NULL;
  ASSERT (SELECT open_low FROM async.engine_state) = _ids[2];
  UPDATE async.task SET flow_id = 1, processed = now() WHERE task_id = _ids[2];
  BEGIN
    PERFORM async.restart_task(_ids[2]);
    ASSERT false;
  EXCEPTION WHEN object_not_in_prerequisite_state THEN
    GET STACKED DIAGNOSTICS _detail = PG_EXCEPTION_HINT;
    ASSERT _detail LIKE '%flow.retry_failed(1)%';
  END;
END
$$;

-- Durations for people.
DO $$
BEGIN
  ASSERT async.interval_pretty('350 ms') = '350ms' AND async.interval_pretty('3723 s') = '1h 2m 3s'
     AND async.interval_pretty('0') = '0ms' AND async.interval_pretty('1.25 s') = '1.3s' AND async.interval_pretty('5 s') = '5s'
     AND async.interval_pretty('59.99 s') = '60s' AND async.interval_pretty('90061 s') = '1d 1h 1m 1s'
     AND async.interval_pretty('0.4 ms') = '0.4ms' AND async.interval_pretty('-65 s') = '-1m 5s'
     AND async.interval_pretty(NULL) IS NULL, async.interval_pretty('1.25 s') || async.interval_pretty('0.4 ms');
END
$$;
ROLLBACK;
