-- Starting, cancelling and prioritising runs; child runs.
\ir flow_helpers.psql

DO $$
DECLARE
  _run BIGINT; _other BIGINT; _task async.task;
BEGIN
  PERFORM t.flow('f', '[{"node": "a"}, {"node": "b", "parents": ["a"], "priority": 5}, {"node": "c", "parents": ["b"]},
    {"node": "x"}]');
  ASSERT t.raised('SELECT flow.run_flow(''none'', NULL)') = '42704 flow "none" is not configured';
  _run := flow.run_flow('f', NULL);
  ASSERT flow.args(_run) = '{}';
  _other := flow.create_flow('f', '{"a": 1}', _force_priority => 4);
  ASSERT flow.args(_other) = '{"a": 1}';
  ASSERT (SELECT (count_nodes, count_finished_nodes, run_as, depth)::TEXT FROM flow.flow WHERE flow_id = _run)
    = format('(4,0,%s,0)', current_user);
  ASSERT t.status(_run) = 'a Pending, b Pending, c Pending, x Pending';
  SELECT * INTO _task FROM async.task WHERE task_id = t.own(_run, 'a');
  ASSERT (_task.target, _task.run_as, _task.flow_id, _task.source) = ('local', current_user, _run, 'flow');
  PERFORM t.end_node(_run, 'a');
  ASSERT (SELECT priority FROM async.task WHERE task_id = t.own(_run, 'b')) = 5;
  PERFORM t.end_node(_run, 'b', 'FAILED');
  ASSERT t.status(_run) = 'a Finished, b Failed, c Skipped, x Pending', t.status(_run);
  PERFORM t.end_node(_run, 'x');
  ASSERT (SELECT (complete, count_nodes, count_finished_nodes, count_failed_nodes)::TEXT
          FROM flow.v_flow_status WHERE flow_id = _run) = '(Yes,4,2,2)';
  ASSERT t.raised('SELECT flow.args(-1)') = '42704 run -1 does not exist';
  ASSERT t.raised('SELECT flow.create_flow(''f'', NULL, _force_priority => 100)') LIKE '22023 priority 100 %';
END $$;

-- only_these_nodes
DO $$
DECLARE
  _run BIGINT;
BEGIN
  _run := flow.run_flow('f', '{}', ARRAY['b', 'b']);
  ASSERT t.status(_run) = 'a Finished, b Pending, c Pending, x Finished', t.status(_run);
  ASSERT t.own(_run, 'a') IS NULL AND t.own(_run, 'b') IS NOT NULL;
  PERFORM t.end_node(_run, 'b');
  ASSERT (SELECT complete FROM flow.v_flow_status WHERE flow_id = _run) = 'Yes';
  _run := flow.run_flow('f', '{}', ARRAY['b'], true, true);
  ASSERT (SELECT only_these_nodes FROM flow.flow WHERE flow_id = _run) = '{a,b,c}';
  ASSERT t.own(_run, 'a') IS NOT NULL;
  _run := flow.run_flow('f', '{}', '{}');
  ASSERT (SELECT complete FROM flow.v_flow_status WHERE flow_id = _run) = 'Yes', 'nothing to do';
  ASSERT t.raised('SELECT flow.run_flow(''f'', ''{}'', ''{a,"no\"pe"}'')') = '42704 flow "f" has no node "no"pe"';
END $$;

-- What a run needs is looked at when it starts.
DO $$
BEGIN
  PERFORM t.flow('g', '[{"node": "a", "routine_resolved": "t.gone"}, {"node": "b"}]');
  ASSERT t.raised('SELECT flow.run_flow(''g'', NULL)') LIKE '42883 procedure t.gone(flow.callback_arguments_t) does not exist';
  ASSERT t.raised('SELECT flow.run_flow(''g'', NULL, ARRAY[''b''])') = 'nothing', 'only what runs must be there';
  PERFORM t.flow('h', '[{"node": "a", "target": "nowhere", "routine_resolved": null, "step_routine_resolved": null}]');
  ASSERT t.raised('SELECT flow.run_flow(''h'', NULL)') = '42704 target "nowhere" does not exist';
END $$;

-- cancel
DO $$
DECLARE
  _run BIGINT; _own BIGINT;
BEGIN
  _run := flow.run_flow('f', NULL);
  PERFORM t.end_node(_run, 'a');
  _own := t.own(_run, 'b');
  CALL flow.push_steps(_run, 'c', ARRAY['{"i": 1}']::JSONB[]);
  PERFORM flow.cancel(_run);
  ASSERT t.status(_run) = 'a Finished, b Cancelled, c Cancelled, x Cancelled';
  ASSERT (SELECT (processed IS NOT NULL, cancelled, count_finished_nodes, count_failed_nodes, first_error)::TEXT
          FROM flow.flow WHERE flow_id = _run) = format('(t,t,4,3,"cancelled by %s")', current_user);
  ASSERT (SELECT count(*) FROM async.task WHERE flow_id = _run AND finish_status = 'CANCELED' AND failed) = 3, 'with held steps';
  PERFORM flow.cancel(_run);
  ASSERT t.raised('SELECT flow.cancel(-1)') = '42704 run -1 does not exist';
  ASSERT t.raised('SELECT flow.cancel(NULL)') = '42704 run NULL does not exist';
  -- Excluded nodes are not cancelled.
  _run := flow.run_flow('f', NULL, '{a}');
  PERFORM flow.cancel(_run);
  ASSERT t.status(_run) = 'a Cancelled, b Finished, c Finished, x Finished';
  ASSERT (SELECT (count_finished_nodes, count_failed_nodes)::TEXT FROM flow.flow WHERE flow_id = _run) = '(4,1)';
END $$;

-- priority
DO $$
DECLARE
  _run BIGINT; _task BIGINT;
BEGIN
  _run := flow.run_flow('f', NULL);
  _task := t.own(_run, 'a');
  PERFORM flow.set_priority(_run, -3);
  ASSERT (SELECT priority FROM async.task WHERE task_id = _task) = -3;
  PERFORM t.end_node(_run, 'a');
  ASSERT (SELECT priority FROM async.task WHERE task_id = t.own(_run, 'b')) = -3;
  PERFORM flow.set_priority(_run, NULL);
  ASSERT (SELECT priority FROM async.task WHERE task_id = t.own(_run, 'b')) = 5, 'the configured one again';
  PERFORM flow.set_step_priority(_run, t.own(_run, 'b'), 9);
  ASSERT (SELECT priority FROM async.task WHERE task_id = t.own(_run, 'b')) = 9;
  ASSERT t.raised(format('SELECT flow.set_step_priority(%s, -1, 1)', _run)) LIKE '42704 run % has no task -1';
  ASSERT t.raised(format('SELECT flow.set_priority(%s, 100)', _run)) LIKE '23514 %';
  _run := flow.create_flow('f', NULL, _force_priority => 0);
  ASSERT (SELECT priority FROM async.task WHERE task_id = t.own(_run, 'a')) = 0;
END $$;

-- Child runs: depth, priority, cancel in both directions.
DO $$
DECLARE
  _run BIGINT; _step BIGINT; _child BIGINT; _below BIGINT;
BEGIN
  PERFORM t.flow('p', '[{"node": "p", "empty": true, "steps_to_flow": "p", "steps": [{"i": 1}, {"i": 2}]},
    {"node": "q", "parents": ["p"]}]');
  _run := flow.create_flow('p', NULL, _force_priority => 6);
  _step := t.step(_run, 'p', '{"i": 1}');
  _child := flow.run_flow('p', '{"i": 1}', _parent_task_id => _step);
  ASSERT (SELECT (parent_flow_id, depth, force_priority, parent_task_id)::TEXT FROM flow.flow WHERE flow_id = _child)
    = format('(%s,1,6,%s)', _run, _step);
  _below := flow.run_flow('p', '{"i": 1}', _parent_task_id => t.step(_child, 'p', '{"i": 1}'));
  PERFORM flow.set_priority(_run, 8);
  ASSERT (SELECT force_priority FROM flow.flow WHERE flow_id = _below) = 8;
  PERFORM flow.set_step_priority(_run, _step, 2);
  ASSERT (SELECT array_agg(force_priority ORDER BY flow_id) FROM flow.flow WHERE flow_id IN (_run, _child, _below)) = '{8,2,2}';

  PERFORM flow.cancel(_child);
  ASSERT (SELECT bool_and(cancelled) FROM flow.flow WHERE flow_id IN (_child, _below));
  ASSERT (SELECT (finish_status, processing_error)::TEXT FROM async.task WHERE task_id = _step)
    = format('(FAILED,"child flow %s was cancelled")', _child);
  PERFORM flow.settle(ARRAY[_run], ARRAY[0], ARRAY[_step]);
  ASSERT t.status(_run) = 'p Failed, q Skipped';
  ASSERT t.raised(format('SELECT flow.run_flow(''p'', NULL, _parent_task_id => %s)', _step)) LIKE '55000 task % has ended%';
  ASSERT t.raised('SELECT flow.run_flow(''p'', NULL, _parent_task_id => -1)') = '42704 task -1 does not exist';

  _run := flow.run_flow('p', NULL);
  _child := flow.run_flow('p', NULL, _parent_task_id => t.step(_run, 'p', '{"i": 1}'));
  _below := flow.run_flow('p', NULL, _parent_task_id => t.step(_child, 'p', '{"i": 2}'));
  UPDATE flow.flow SET depth = async.setting('pgflow.max_flow_depth') WHERE flow_id = _below;
  ASSERT t.raised(format('SELECT flow.run_flow(''p'', NULL, _parent_task_id => %s)', t.step(_below, 'p', '{"i": 2}')))
    LIKE '54000 flows start flows more than % levels deep';
  PERFORM flow.cancel(_run);
  ASSERT (SELECT bool_and(cancelled) FROM flow.flow WHERE flow_id IN (_run, _child, _below));
  ASSERT NOT EXISTS (SELECT FROM async.task WHERE flow_id IN (_run, _child, _below) AND processed IS NULL);

  -- A failed step stops the runs that its siblings started, in the dispatcher.
  _run := flow.run_flow('p', NULL);
  _child := flow.run_flow('p', NULL, _parent_task_id => t.step(_run, 'p', '{"i": 1}'));
  PERFORM t.end_task(t.step(_run, 'p', '{"i": 2}'), 'FAILED');
  ASSERT (SELECT cancelled FROM flow.flow WHERE flow_id = _child);
  ASSERT t.status(_child) = 'p Cancelled, q Cancelled';
END $$;

-- wait
DO $$
DECLARE
  _run BIGINT;
BEGIN
  _run := flow.run_flow('f', NULL);
  ASSERT t.raised(format('SELECT flow.wait(%s)', _run)) LIKE '55000 cannot wait for run % in the transaction that %';
  PERFORM flow.cancel(_run);
  ASSERT flow.wait(_run), 'ended';
  ASSERT t.raised('SELECT flow.wait(-1)') = '42704 run -1 does not exist';
  BEGIN
    _run := flow.run_flow('f', NULL);
    ASSERT t.raised(format('SELECT flow.wait(%s)', _run)) LIKE '55000 %', 'in a subtransaction of ours too';
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
END $$;

ROLLBACK;
\echo flow_runs: ok
