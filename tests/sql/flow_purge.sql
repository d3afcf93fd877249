-- Purging ended runs and tasks.
\ir flow_helpers.psql

DO $$
DECLARE
  _runs BIGINT[] := '{}'; _run BIGINT; _child BIGINT;
BEGIN
  DELETE FROM flow.flow WHERE processed IS NOT NULL;  -- what other tests left
  PERFORM t.flow('f', '[{"node": "a", "steps": [{"i": 1}]}]');
  FOR i IN 1 .. 6 LOOP
    _run := flow.run_flow('f', NULL);
    _runs := _runs || _run;
    CONTINUE WHEN i = 2;
    PERFORM t.end_node(_run, 'a');
    PERFORM t.end_task(t.step(_run, 'a', '{"i": 1}'));
    UPDATE flow.flow SET processed = now() - (10 - i) * INTERVAL '1 day' WHERE flow_id = _run;
    INSERT INTO async.task_log (task_id, attempt, seq, level, message) VALUES (t.own(_run, 'a'), 1, 1, 'INFO', 'x');
  END LOOP;
  ASSERT flow.purge(NULL, NULL, 100) = 0;
  UPDATE async.control SET task_keep_duration = '8.5 days';  -- goes before the setting
  ASSERT flow.purge('1 day', NULL, 100) = 1;
  UPDATE async.control SET task_keep_duration = NULL;
  ASSERT (SELECT array_agg(flow_id ORDER BY flow_id) FROM flow.flow WHERE flow_id = ANY (_runs)) = _runs[2:];
  ASSERT NOT EXISTS (SELECT FROM flow.flow_node WHERE flow_id = _runs[1])
    AND NOT EXISTS (SELECT FROM flow.flow_step WHERE flow_id = _runs[1])
    AND NOT EXISTS (SELECT FROM async.task WHERE flow_id = _runs[1]);
  ASSERT (SELECT count(*) FROM async.task WHERE flow_id = ANY (_runs)) = 9;
  ASSERT (SELECT count(*) FROM async.task_log l JOIN async.task t USING (task_id) WHERE t.flow_id = ANY (_runs)) = 4
    AND (SELECT count(*) FROM async.task_log WHERE message = 'x') = 4;
  -- Runs 2 (open) to 6 are there; the newest 2 of the finished ones stay.
  ASSERT flow.purge(NULL, 2, 1) = 1 AND flow.purge(NULL, 2, 100) = 1 AND flow.purge(NULL, 2, 100) = 0;
  ASSERT (SELECT array_agg(flow_id ORDER BY flow_id) FROM flow.flow WHERE flow_id = ANY (_runs))
    = ARRAY[_runs[2], _runs[5], _runs[6]];
  -- Never a run with an open parent or an open child.
  UPDATE flow.flow SET parent_flow_id = _runs[2] WHERE flow_id = _runs[5];
  ASSERT flow.purge('0', NULL, 100) = 1 AND EXISTS (SELECT FROM flow.flow WHERE flow_id = _runs[5]);
  UPDATE flow.flow SET parent_flow_id = NULL WHERE flow_id = _runs[5];
  UPDATE flow.flow SET parent_flow_id = _runs[5] WHERE flow_id = _runs[2];
  ASSERT flow.purge('0', 0, 100) = 0;
  PERFORM flow.cancel(_runs[2]);
  ASSERT flow.purge('0', 0, 100) = 2;
END $$;

-- Versions that nothing needs.
DO $$
DECLARE
  _first BIGINT; _second BIGINT; _third BIGINT; _run BIGINT;
BEGIN
  _first := t.flow('v', '[{"node": "a"}]');
  _second := t.flow('v', '[{"node": "b"}]');
  _run := flow.run_flow('v', NULL);
  _third := t.flow('v', '[{"node": "c"}, {"node": "d", "parents": ["c"]}]');
  PERFORM flow.purge(NULL, NULL, 100);
  ASSERT (SELECT array_agg(definition_id ORDER BY definition_id) FROM flow.definition WHERE flow = 'v') = ARRAY[_second, _third];
  PERFORM flow.cancel(_run);
  PERFORM flow.drop_flow('v');
  ASSERT flow.purge('0', NULL, 100) = 1;
  ASSERT NOT EXISTS (SELECT FROM flow.definition WHERE flow = 'v');
  ASSERT NOT EXISTS (SELECT FROM flow.definition_edge WHERE definition_id = _third);
END $$;

-- A run with very many steps goes in pieces.
DO $$
DECLARE
  _run BIGINT; _calls INT := 0;
BEGIN
  PERFORM t.flow('many', '[{"node": "a"}]');
  _run := flow.run_flow('many', NULL);
  PERFORM flow.insert_steps(_run, 0, ARRAY(SELECT jsonb_build_object('i', i) FROM generate_series(1, 60000) i), false);
  PERFORM flow.cancel(_run);
  WHILE flow.purge('0', NULL, 10) > 0 LOOP
    _calls := _calls + 1;
  END LOOP;
  ASSERT _calls = 2, _calls;
  ASSERT NOT EXISTS (SELECT FROM async.task WHERE flow_id = _run);
END $$;

-- Tasks outside runs, and logs.
DO $$
DECLARE
  _run BIGINT;
BEGIN
  DELETE FROM async.task WHERE flow_id IS NULL;
  DELETE FROM async.task_log;
  INSERT INTO async.task (target, run_as, processed, finish_status, failed)
  SELECT 'local', 'x', now() - i * INTERVAL '1 day', 'FINISHED', false FROM generate_series(10, 1, -1) i;
  INSERT INTO async.task (target, run_as) VALUES ('local', 'x');
  _run := flow.run_flow('many', NULL);
  PERFORM t.end_node(_run, 'a');
  INSERT INTO async.task_log (task_id, attempt, seq, at, level, message)
  SELECT task_id, 1, 1, now() - INTERVAL '100 days', 'INFO', 'x' FROM async.task WHERE flow_id IS NULL OR flow_id = _run;
  INSERT INTO async.task_log (task_id, attempt, seq, at, level, message) VALUES (-1, 1, 1, now() - INTERVAL '100 days', 'INFO', 'gone');
  ASSERT async.purge(NULL, NULL, 100) = 0;
  ASSERT async.purge('8.5 days', NULL, 100) = 2;
  ASSERT async.purge(NULL, 5, 2) = 2 AND async.purge(NULL, 5, 2) = 1 AND async.purge(NULL, 5, 2) = 0;
  ASSERT (SELECT count(*) FROM async.task WHERE flow_id IS NULL) = 6, 'and the open one';
  ASSERT (SELECT count(*) FROM async.task_log) = 7, 'those of tasks that are there';
  ASSERT async.purge('0', NULL, 100) = 5;
  ASSERT (SELECT count(*) FROM async.task WHERE flow_id = _run) = 1;
END $$;

ROLLBACK;
\echo flow_purge: ok
