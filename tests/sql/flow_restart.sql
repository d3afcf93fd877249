-- restart_flow and retry_failed.
\ir flow_helpers.psql

CREATE FUNCTION t.counters(_flow_id BIGINT) RETURNS TEXT LANGUAGE sql AS $$
  SELECT concat_ws(' ', CASE WHEN processed IS NULL THEN 'open' ELSE 'ended' END, count_finished_nodes, count_failed_nodes,
    first_error) FROM flow.flow WHERE flow_id = _flow_id;
$$;

DO $$
DECLARE
  _run BIGINT; _old BIGINT;
BEGIN
  PERFORM t.flow('f', '[{"node": "a"}, {"node": "b", "parents": ["a"], "steps": [{"i": 1}]},
    {"node": "c", "parents": ["b"]}, {"node": "x", "parents": ["a", "~c"]}]');
  _run := flow.run_flow('f', NULL);
  ASSERT t.raised(format('SELECT flow.restart_flow(%s)', _run)) LIKE '55000 run % of flow "f" is still open';
  ASSERT t.raised(format('SELECT flow.retry_failed(%s)', _run)) LIKE '55000 %';
  ASSERT t.raised('SELECT flow.restart_flow(-1)') LIKE '42704 run -1 does not exist';
  PERFORM t.end_node(_run, 'a');
  CALL flow.push_steps(_run, 'b', ARRAY['{"i": 2}']::JSONB[]);
  PERFORM t.end_node(_run, 'b');
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 1}'));
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 2}'));
  PERFORM t.end_node(_run, 'c');
  PERFORM t.end_node(_run, 'x');
  ASSERT t.counters(_run) = 'ended 4 0';
  PERFORM flow.retry_failed(_run);
  ASSERT t.counters(_run) = 'ended 4 0', 'nothing has failed: nothing happens';

  -- The whole run, with its static steps; pushed ones are pushed again by whoever pushed them.
  _old := t.own(_run, 'a');
  PERFORM flow.restart_flow(_run);
  ASSERT t.counters(_run) = 'open 0 0' AND t.status(_run) = 'a Pending, b Pending, c Pending, x Pending';
  ASSERT t.own(_run, 'a') <> _old AND NOT EXISTS (SELECT FROM async.task WHERE task_id = _old);
  ASSERT (SELECT count(*) FROM async.task WHERE flow_id = _run) = 1;
  PERFORM t.end_node(_run, 'a');
  PERFORM t.end_node(_run, 'b');
  ASSERT (SELECT array_agg(task_data) FROM async.task WHERE flow_id = _run AND is_step) = ARRAY['{"i": 1}']::JSONB[];
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 1}'), 'FAILED');
  ASSERT t.status(_run) = 'a Finished, b Failed, c Skipped, x Pending';
  PERFORM t.end_node(_run, 'x');
  ASSERT t.counters(_run) LIKE 'ended 4 2 %';

  -- From a node on: its descendants too; what failed beside them goes on counting.
  ASSERT t.raised(format('SELECT flow.restart_flow(%s, ''nope'')', _run)) LIKE '42704 run % of flow "f" has no node "nope"';
  PERFORM flow.restart_flow(_run, 'x');
  ASSERT t.counters(_run) LIKE 'open 3 2 %step%' AND t.status(_run) = 'a Finished, b Failed, c Skipped, x Pending', t.status(_run);
  PERFORM t.end_node(_run, 'x');
  PERFORM flow.restart_flow(_run, 'c');
  ASSERT t.status(_run) = 'a Finished, b Failed, c Skipped, x Pending', 'its parent has failed still';
  PERFORM t.end_node(_run, 'x');
  PERFORM flow.restart_flow(_run, 'b');
  ASSERT t.counters(_run) = 'open 1 0' AND t.status(_run) = 'a Finished, b Pending, c Pending, x Pending';
END $$;

-- retry_failed: a node whose own part was done keeps its finished steps.
DO $$
DECLARE
  _run BIGINT; _step BIGINT;
BEGIN
  _run := flow.run_flow('f', NULL);
  PERFORM t.end_node(_run, 'a');
  CALL flow.push_steps(_run, 'b', ARRAY['{"i": 2}', '{"i": 3}']::JSONB[]);
  PERFORM t.end_node(_run, 'b');
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 1}'));
  _step := t.step(_run, 'b', '{"i": 2}');
  PERFORM t.end_task(_step, 'FAILED');
  ASSERT t.status(_run) = 'a Finished, b Failed, c Skipped, x Pending', t.status(_run);
  PERFORM t.end_node(_run, 'x');
  PERFORM flow.retry_failed(_run);
  ASSERT t.counters(_run) = 'open 1 0', t.counters(_run);
  ASSERT t.status(_run) = 'a Finished, b Running Steps, c Pending, x Pending';
  ASSERT (SELECT (steps, steps_pending, steps_finished)::TEXT FROM flow.v_flow_node_status
          WHERE flow_id = _run AND node = 'b') = '(3,2,1)', 'failed and stopped ones again';
  ASSERT t.step(_run, 'b', '{"i": 2}') = _step AND (SELECT attempt FROM async.task WHERE task_id = _step) = 1;
  ASSERT (SELECT parents_open FROM flow.flow_node WHERE flow_id = _run AND node = 'c') = 1;
  ASSERT (SELECT parents_open FROM flow.flow_node WHERE flow_id = _run AND node = 'x') = 1;
  PERFORM t.end_task(_step);
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 3}'));
  ASSERT t.status(_run) = 'a Finished, b Finished, c Pending, x Pending';
  PERFORM t.end_node(_run, 'c');
  PERFORM t.end_node(_run, 'x');
  ASSERT t.counters(_run) = 'ended 4 0';
END $$;

-- Failed by itself, below a failure, and cancelled: from the beginning.
DO $$
DECLARE
  _run BIGINT; _old BIGINT;
BEGIN
  _run := flow.run_flow('f', NULL);
  PERFORM t.end_node(_run, 'a', 'FAILED');
  ASSERT t.counters(_run) LIKE 'ended 4 4 %', t.counters(_run);
  PERFORM flow.retry_failed(_run);
  ASSERT t.counters(_run) = 'open 0 0' AND t.status(_run) = 'a Pending, b Pending, c Pending, x Pending';
  PERFORM t.end_node(_run, 'a');
  _old := t.own(_run, 'b');
  CALL flow.push_steps(_run, 'c', ARRAY['{"held": 1}']::JSONB[]);
  PERFORM flow.cancel(_run);
  PERFORM flow.retry_failed(_run);
  ASSERT t.status(_run) = 'a Finished, b Pending, c Pending, x Pending' AND t.own(_run, 'b') <> _old;
  ASSERT (SELECT NOT cancelled FROM flow.flow WHERE flow_id = _run) AND t.counters(_run) = 'open 1 0';
  ASSERT NOT EXISTS (SELECT FROM flow.flow_step WHERE flow_id = _run AND node_no = 2), 'never opened: not resumed';

  -- A node with own part done, cancelled while its steps ran.
  PERFORM t.end_node(_run, 'b');
  PERFORM flow.cancel(_run);
  PERFORM flow.retry_failed(_run);
  ASSERT t.status(_run) = 'a Finished, b Running Steps, c Pending, x Pending';
END $$;

-- A failed node below another failed one (over continue_on_failure) is not resumed: what it depends on runs again.
DO $$
DECLARE
  _run BIGINT;
BEGIN
  PERFORM t.flow('g', '[{"node": "a"}, {"node": "b", "parents": ["~a"], "empty": true, "steps": [{"i": 1}, {"i": 2}]}]');
  _run := flow.run_flow('g', NULL);
  PERFORM t.end_node(_run, 'a', 'FAILED');
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 1}'));
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 2}'), 'TIMED_OUT');
  ASSERT t.status(_run) = 'a Failed, b Timed Out';
  PERFORM flow.retry_failed(_run);
  ASSERT t.status(_run) = 'a Pending, b Pending' AND NOT EXISTS (SELECT FROM flow.flow_step WHERE flow_id = _run);
  -- The same with a good parent: the empty node is resumed.
  PERFORM t.end_node(_run, 'a');
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 1}'));
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 2}'), 'FAILED');
  PERFORM flow.retry_failed(_run);
  ASSERT t.status(_run) = 'a Finished, b Running Steps';
  ASSERT (SELECT (steps, steps_finished, steps_pending)::TEXT FROM flow.v_flow_node_status
          WHERE flow_id = _run AND node = 'b') = '(2,1,1)';
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 2}'));
  ASSERT t.counters(_run) = 'ended 2 0';
  ASSERT (SELECT open_low FROM async.engine_state) <= t.step(_run, 'b', '{"i": 2}'), 'found again after a restart';
END $$;

-- Nodes that take no part stay so.
DO $$
DECLARE
  _run BIGINT := flow.run_flow('f', NULL, ARRAY['b', 'x']);
BEGIN
  ASSERT t.status(_run) = 'a Finished, b Pending, c Pending, x Pending';
  PERFORM t.end_node(_run, 'b', 'FAILED');
  PERFORM t.end_node(_run, 'x');
  ASSERT t.raised(format('SELECT flow.restart_flow(%s, ''a'')', _run)) LIKE '42704 %';
  PERFORM flow.restart_flow(_run);
  ASSERT t.status(_run) = 'a Finished, b Pending, c Pending, x Pending';
  PERFORM t.end_node(_run, 'b');
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 1}'));
  PERFORM t.end_node(_run, 'x');
  ASSERT t.counters(_run) = 'ended 4 0';
END $$;

ROLLBACK;
\echo flow_restart: ok
