-- What an attempt elsewhere may have done stays unknown until an attempt has looked: being told to wait, or being lost before
-- it looked, is no look. Everything is rolled back, so that no engine acts on it.
\set ON_ERROR_STOP on
BEGIN;
SELECT async.configure('{"targets": [{"target": "remote", "connection_string": "host=db.example dbname=d user=u"}]}');

DO $$
DECLARE
  _task_id BIGINT := async.push_query('remote', 'SELECT 1');
  _step    RECORD;
  _task    RECORD;
BEGIN
  FOR _step IN SELECT * FROM (VALUES
    (1, 'again', 1, NULL::INT),
    (2, 'lost', 2, 2),
    (3, 'down', 2, 2),
    (3, 'again', 3, 2),
    (4, 'lost', 4, 2),
    (5, 'down', 4, 2)) AS s (attempt, word, counted, since)
  LOOP
    PERFORM async.end_attempts_elsewhere(ARRAY[_task_id], ARRAY[_step.attempt], ARRAY[clock_timestamp()], ARRAY[_step.word],
                                         ARRAY['no reason'], ARRAY[INTERVAL '1 hour'], ARRAY[100]);
    SELECT t.attempt, t.unsure_since INTO _task FROM async.task t WHERE t.task_id = _task_id;
    ASSERT _task.attempt = _step.counted AND _task.unsure_since IS NOT DISTINCT FROM _step.since,
      format('after %s of attempt %s: %s', _step.word, _step.attempt, _task);
  END LOOP;
END
$$;
ROLLBACK;
