-- push_steps, finish, defer, progress.
\ir flow_helpers.psql

CREATE FUNCTION t.push(_flow_id BIGINT, _node TEXT, VARIADIC _steps JSONB[]) RETURNS BIGINT LANGUAGE plpgsql AS $$
BEGIN
  CALL flow.push_steps(_flow_id, _node, _steps);
  RETURN (SELECT count(*) FROM flow.flow_step s JOIN flow.flow_node n USING (flow_id, node_no)
          WHERE s.flow_id = _flow_id AND n.node = _node);
END $$;

DO $$
DECLARE
  _run BIGINT; _ids BIGINT[];
BEGIN
  PERFORM t.flow('f', '[{"node": "a", "steps": [{"i": 1}, {"s": 1}], "step_timeout": "5 seconds", "priority": 4},
    {"node": "b", "parents": ["a"]}]');
  _run := flow.run_flow('f', NULL);
  -- The same step once, whatever the order of its keys, within a push and across pushes.
  ASSERT t.push(_run, 'a', '{"x": 1, "y": 2}', '{"i": 1}', '{"y": 2, "x": 1.0}') = 3, 'x 1 and 1.0 differ as jsonb text';
  ASSERT t.push(_run, 'a', '{"y": 2, "x": 1}', '{"i": 1}', '{"i": 9}') = 4;
  SELECT array_agg(task_id ORDER BY task_id) INTO _ids FROM flow.flow_step WHERE flow_id = _run;
  ASSERT (SELECT array_agg(task_data ORDER BY task_id) FROM async.task WHERE task_id = ANY (_ids))
    = ARRAY['{"x": 1, "y": 2}', '{"i": 1}', '{"x": 1.0, "y": 2}', '{"i": 9}']::JSONB[], 'in the order pushed';
  ASSERT (SELECT bool_and(is_step AND eligible_when IS NULL AND manual_timeout = '5 seconds' AND priority = 4
            AND target = 'local' AND flow_id = _run AND run_as = current_user)
          FROM async.task WHERE task_id = ANY (_ids));
  -- Pushed before the node has started: kept; static steps are added, once.
  ASSERT t.push(_run, 'b', '{"i": 1}') = 1;
  ASSERT (SELECT eligible_when FROM async.task WHERE task_id = t.step(_run, 'b', '{"i": 1}')) = 'infinity';
  ASSERT t.status(_run) = 'a Pending, b Pending';
  PERFORM t.end_node(_run, 'a');
  ASSERT t.status(_run) = 'a Running Steps, b Pending';
  ASSERT (SELECT (steps, steps_pending)::TEXT FROM flow.v_flow_node_status WHERE flow_id = _run AND node = 'a') = '(5,5)';
  PERFORM t.end_task(task_id) FROM async.task WHERE flow_id = _run AND node_no = 0 AND processed IS NULL;
  ASSERT t.status(_run) = 'a Finished, b Pending', t.status(_run);
  PERFORM t.end_node(_run, 'b');
  ASSERT (SELECT eligible_when FROM async.task WHERE task_id = t.step(_run, 'b', '{"i": 1}')) IS NULL, 'released';
  PERFORM t.end_task(t.step(_run, 'b', '{"i": 1}'));
  ASSERT (SELECT complete FROM flow.v_flow_status WHERE flow_id = _run) = 'Yes';
  ASSERT t.raised(format('CALL flow.push_steps(%s, ''b'', ARRAY[''{"i": 2}'']::JSONB[])', _run))
    LIKE '55000 node "b" of run % has ended';
END $$;

DO $$
DECLARE
  _run BIGINT := flow.run_flow('f', NULL, ARRAY['a']);
  _push TEXT := format('CALL flow.push_steps(%s, ''a'', ', _run);
BEGIN
  ASSERT t.raised(_push || 'ARRAY[''{"i": 1}'', ''{}'']::JSONB[])') LIKE '22023 element 2 of the steps is the empty object%';
  ASSERT t.raised(_push || 'ARRAY[NULL]::JSONB[])') LIKE '22023 element 1 of the steps is NULL%';
  ASSERT t.raised(_push || 'ARRAY[''[]'']::JSONB[])') LIKE '22023 element 1 of the steps is a JSON array%';
  ASSERT t.raised(_push || 'ARRAY[''"x"'']::JSONB[])') LIKE '22023 element 1 of the steps is a JSON string%';
  ASSERT t.raised(_push || '''{}'')') = 'nothing', 'an empty array';
  ASSERT t.raised(_push || 'NULL)') = 'nothing';
  ASSERT t.raised(format('CALL flow.push_steps(%s, ''nope'', NULL)', _run)) LIKE '42704 run % of flow "f" has no node "nope"';
  ASSERT t.raised('CALL flow.push_steps(-1, ''a'', NULL)') = '42704 run -1 does not exist';
  ASSERT t.raised(format('CALL flow.push_steps(%s, ''b'', ARRAY[''{"i": 1}'']::JSONB[])', _run)) LIKE '55000 node "b" takes no part%';
  ASSERT (SELECT count(*) FROM flow.flow_step WHERE flow_id = _run) = 0;
  PERFORM flow.cancel(_run);
  ASSERT t.raised(_push || 'ARRAY[''{"i": 1}'']::JSONB[])') LIKE '55000 node "a" of run % has ended';
END $$;

-- Many at once, and twice.
DO $$
DECLARE
  _run BIGINT := flow.run_flow('f', NULL);
  _steps JSONB[] := ARRAY(SELECT jsonb_build_object('i', i, 'text', md5(i::TEXT)) FROM generate_series(1, 100000) i);
  _start TIMESTAMPTZ := clock_timestamp();
BEGIN
  CALL flow.push_steps(_run, 'a', _steps);
  RAISE INFO '100,000 steps pushed in %', clock_timestamp() - _start;
  ASSERT clock_timestamp() - _start < '30 seconds';
  CALL flow.push_steps(_run, 'a', _steps);
  ASSERT (SELECT count(*) FROM flow.flow_step WHERE flow_id = _run) = 100000;
  ASSERT (SELECT count(*) FROM async.task WHERE flow_id = _run AND is_step) = 100000;
  _start := clock_timestamp();
  FOR i IN 1 .. 1000 LOOP
    CALL flow.push_steps(_run, 'a', ARRAY[jsonb_build_object('single', i)]);
  END LOOP;
  RAISE INFO '1,000 single steps pushed in %', clock_timestamp() - _start;
END $$;

-- What the tasks of a node have in common: target, pool, asynchronous finish.
DO $$
DECLARE
  _run BIGINT;
BEGIN
  INSERT INTO async.target (target, kind, asynchronous_finish, concurrency_track_yielded) VALUES ('far', 'external', true, true);
  PERFORM t.flow('g', '[{"node": "a", "target": "far", "routine_resolved": null, "step_routine_resolved": null},
    {"node": "s", "target": "far", "synchronous": true, "routine_resolved": null, "step_routine_resolved": null},
    {"node": "c", "target": "far", "steps_to_flow": "f", "routine_resolved": null, "on_partial_fail": true},
    {"node": "l", "target": "async.self"}]', '{"concurrency_group_routine": "t.pool"}');
  _run := flow.run_flow('g', NULL);
  PERFORM t.push(_run, node, '{"i": 1}') FROM unnest(ARRAY['a', 's', 'c', 'l']) node;
  ASSERT (SELECT array_agg((n.node, t.target, t.asynchronous_finish, t.track_yielded, t.on_partial_fail,
            t.concurrency_pool)::TEXT ORDER BY n.node)
          FROM async.task t JOIN flow.flow_node n USING (flow_id, node_no) WHERE t.flow_id = _run AND t.is_step)
    = ARRAY['(a,far,t,t,f,"")', '(c,local,t,t,t,"")', '(l,local,f,f,f,"")', '(s,far,f,t,f,"")'];
END $$;

-- finish and defer from elsewhere
DO $$
DECLARE
  _run BIGINT; _args flow.callback_arguments_t; _other flow.callback_arguments_t;
BEGIN
  _run := flow.run_flow('f', NULL);
  _args := ROW(_run, 'f', '{}', 'a', '{}', t.own(_run, 'a'));
  _other := _args; _other.node := 'b';
  ASSERT t.raised(format('CALL flow.finish(%L)', _other)) LIKE '22023 these are not the arguments of task %';
  _other := _args; _other.flow_id := -1;
  ASSERT t.raised(format('CALL flow.finish(%L)', _other)) LIKE '22023 %';
  _other := _args; _other.task_id := NULL;
  ASSERT t.raised(format('CALL flow.finish(%L)', _other)) LIKE '42704 task NULL does not exist';
  ASSERT t.raised(format('CALL flow.defer(%L, ''-1 s'')', _args)) LIKE '22023 a task cannot be put off by %';
  ASSERT t.raised(format('CALL flow.defer(%L, NULL)', _args)) LIKE '22023 %';
  CALL flow.defer(_args, '1 hour');
  ASSERT t.status(_run) = 'a Deferred, b Pending';
  CALL flow.finish(_args, true, 'no good');
  ASSERT (SELECT (finish_status, processing_error)::TEXT FROM async.task WHERE task_id = _args.task_id) = '(FAILED,"no good")';
  CALL flow.finish(_args);
  ASSERT (SELECT finish_status FROM async.task WHERE task_id = _args.task_id) = 'FAILED', 'the first outcome holds';
  PERFORM flow.progress(_args, 1, 2, 'elsewhere: nothing happens');
END $$;

-- Many steps in one push, planned for just these with little memory, as the first push of a session is: each step must not
-- be compared with each (that would take minutes, this takes a second).
SET LOCAL plan_cache_mode = force_custom_plan;
SET LOCAL work_mem = '64kB';
SET LOCAL statement_timeout = '200s';
DO $$
DECLARE
  _run BIGINT := flow.run_flow('f', NULL);
BEGIN
  ASSERT t.push(_run, 'a', VARIADIC ARRAY(SELECT jsonb_build_object('i', i) FROM generate_series(1, 40000) AS i)) = 40000;
END $$;

ROLLBACK;
\echo flow_steps: ok
