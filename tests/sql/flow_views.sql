-- What the views and the functions that read show.
\ir flow_helpers.psql

-- The columns that existing users rely on come first, in their order.
DO $$
DECLARE
  _view TEXT; _columns TEXT;
BEGIN
  FOR _view, _columns IN VALUES
    ('v_flow_status', 'flow_id,flow,complete,run_time,count_nodes,count_finished_nodes,count_failed_nodes,arguments,first_error'),
    ('v_flow_node_status', 'flow_id,flow,node,target,started,finished,status,steps,steps_pending,steps_running,'
      'steps_finished,steps_failed,all_steps_must_complete,run_time,changed,in_progress'),
    ('v_flow_task_status', 'flow_id,task_id,type,flow,node,target,started,complete,run_time,status,step_arguments,'
      'processing_error,query'),
    ('v_flow_task', 'flow_id,node,step_arguments,is_node,task_id,target,priority,entered,consumed,processed,yielded,'
      'finish_status,source,query,failed,processing_error,asynchronous_finish,times_up,task_data,concurrency_pool,'
      'manual_timeout,tracked,track_yielded,eligible_when'),
    ('v_flow_configuration', 'flow,concurrency_group_routine,last_execution_time,last_execution_success,'
      'flow_concurrency_control,last_execution_flow_id,count_flows_running,count_flows_pending,last_error_message'),
    ('dependency', 'flow_id,parent,child,continue_on_failure'), ('arguments', 'flow_id,arguments'),
    ('dependency_configuration', 'flow,parent,child,continue_on_failure'),
    ('flow_configuration', 'flow,concurrency_group_routine'), ('step', 'node,arguments'),
    ('node', 'node,target,routine,node_routine,step_routine,priority,all_steps_must_complete,empty,steps_to_flow,'
      'synchronous,node_timeout,step_timeout')
  LOOP
    ASSERT (SELECT string_agg(a.attname, ',' ORDER BY a.attnum) || ',' FROM pg_attribute a
            WHERE a.attrelid = ('flow.' || _view)::REGCLASS AND a.attnum > 0) LIKE _columns || ',%', _view;
  END LOOP;
  ASSERT NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'flow'::REGNAMESPACE AND c.relkind = 'v'
    AND NOT c.reloptions @> '{security_invoker=true}');
END $$;

DO $$
DECLARE
  _run BIGINT; _node flow.v_flow_node_status; _task flow.v_flow_task; _graph TEXT;
BEGIN
  PERFORM t.flow('f', '[{"node": "a", "all_steps_must_complete": false}, {"node": "b", "parents": ["a"]},
    {"node": "c", "parents": ["a"]}, {"node": "d", "parents": ["c"]}, {"node": "e", "parents": ["~c"], "empty": true,
    "steps_to_flow": "g", "steps": [{"i": 1}]}]');
  _run := flow.run_flow('f', '{"day": "o''clock"}');
  SELECT * INTO _node FROM flow.v_flow_node_status WHERE flow_id = _run AND node = 'a';
  ASSERT _node.status = 'Pending' AND _node.started IS NULL AND _node.run_time = '' AND NOT _node.in_progress
    AND _node.steps = 0 AND _node.target = 'local' AND NOT _node.all_steps_must_complete AND _node.attempt = 0;
  SELECT * INTO _task FROM flow.v_flow_task WHERE flow_id = _run;
  ASSERT _task.is_node AND _task.step_arguments = '{}' AND NOT _task.tracked
    AND _task.task_data = jsonb_build_object('flow_id', _run, 'node', 'a', 'step_arguments', '{}'::JSONB)
    AND _task.query = format('CALL t.done(ROW(%s, ''f'', ''{"day": "o''''clock"}'', ''a'', ''{}'', %s)::flow.callback_arguments_t)',
      _run, _task.task_id), _task.query;
  EXECUTE _task.query;
  ASSERT (SELECT node FROM flow.v_flow_task WHERE task_id = _task.task_id) = 'a';

  UPDATE async.task SET yielded = clock_timestamp(), first_consumed = clock_timestamp(), consumed = clock_timestamp(),
    attempt = 1, finish_status = 'YIELDED' WHERE task_id = t.own(_run, 'a');
  ASSERT (SELECT status FROM flow.v_flow_node_status WHERE flow_id = _run AND node = 'a') = 'Running Async';
  ASSERT (SELECT in_progress FROM flow.v_flow_node_status WHERE flow_id = _run AND node = 'a');
  UPDATE async.task SET eligible_when = clock_timestamp() + '1 hour' WHERE task_id = t.own(_run, 'a');
  ASSERT (SELECT status FROM flow.v_flow_node_status WHERE flow_id = _run AND node = 'a') = 'Deferred';
  CALL flow.push_steps(_run, 'a', ARRAY['{"i": 1}', '{"i": 2}', '{"i": 3}', '{"i": 4}', '{"i": 5}']::JSONB[]);
  PERFORM t.end_node(_run, 'a');
  PERFORM t.end_task(t.step(_run, 'a', '{"i": 1}'));
  PERFORM t.end_task(t.step(_run, 'a', '{"i": 2}'), 'FAILED');
  PERFORM t.end_task(t.step(_run, 'a', '{"i": 3}'), 'TIMED_OUT', 'too long');
  UPDATE async.task SET yielded = clock_timestamp() WHERE task_id = t.step(_run, 'a', '{"i": 4}');
  UPDATE async.task SET eligible_when = clock_timestamp() + '1 hour' WHERE task_id = t.step(_run, 'a', '{"i": 5}');
  SELECT * INTO _node FROM flow.v_flow_node_status WHERE flow_id = _run AND node = 'a';
  ASSERT (_node.status, _node.steps, _node.steps_pending, _node.steps_running, _node.steps_finished, _node.steps_failed,
    _node.progress_done, _node.progress_total)::TEXT = '("Running Steps",5,1,1,1,2,3,5)';
  ASSERT (SELECT string_agg(status, ', ' ORDER BY step_arguments) FROM flow.v_flow_task_status
          WHERE flow_id = _run AND type = 'Step') = 'Finished, Failed, Timed Out, Running Async, Deferred';
  ASSERT (SELECT (type, complete, step_arguments, processing_error)::TEXT FROM flow.v_flow_task_status
          WHERE flow_id = _run AND status = 'Timed Out') = '(Step,Yes,"{""i"": 3}","too long")';
  PERFORM t.end_task(t.step(_run, 'a', '{"i": 4}'));
  PERFORM t.end_task(t.step(_run, 'a', '{"i": 5}'));
  PERFORM t.end_node(_run, 'b');
  PERFORM t.end_node(_run, 'c', 'FAILED');
  ASSERT t.status(_run) = 'a Finished, b Finished, c Failed, d Skipped, e Running Steps';
  SELECT * INTO _node FROM flow.v_flow_node_status WHERE flow_id = _run AND node = 'd';
  ASSERT _node.skipped_by = 'c' AND _node.error LIKE '%c%';
  ASSERT (SELECT (status, started IS NOT NULL)::TEXT FROM flow.v_flow_node_status WHERE flow_id = _run AND node = 'e')
    = '("Running Steps",t)';
  ASSERT (SELECT query FROM flow.v_flow_task_status WHERE flow_id = _run AND type = 'Step' AND node = 'e')
    = format('SELECT flow.run_flow(''g'', ''{"i": 1}'', _parent_task_id => %s)', t.step(_run, 'e', '{"i": 1}'));
  ASSERT (SELECT count(*) FROM flow.v_flow_task_status WHERE flow_id = _run AND type = 'Node') = 5, 'a row for every node';
  ASSERT jsonb_array_length(flow.task_list(_run)) = 11 AND flow.task_list(_run)->0 ? 'query';
  ASSERT flow.flows(1)->0->>'flow_id' = _run::TEXT AND flow.task_list(-1) = '[]';
  ASSERT (SELECT (last_execution_flow_id, count_flows_running, last_execution_success)::TEXT
          FROM flow.v_flow_configuration WHERE flow = 'f') = format('(%s,1,)', _run);
  ASSERT (SELECT count(*) FROM flow.dependency WHERE flow_id = _run) = 4;
  ASSERT (SELECT arguments->>'day' FROM flow.arguments WHERE flow_id = _run) = 'o''clock';

  ASSERT (SELECT count(*) FROM flow.graphviz_events(_run, NULL)) = 5;
  ASSERT (SELECT string_agg(node, ',' ORDER BY node) FROM flow.graphviz_events(_run, clock_timestamp())) = 'e', 'in progress';
  ASSERT (SELECT node_steps_overview FROM flow.graphviz_events(_run, NULL) WHERE node = 'a')
    = 'pending 0 running 0 finished 3 failed 2';
  _graph := flow.graphviz(_run);
  ASSERT _graph LIKE '%a%' AND t.raised('SELECT flow.graphviz(-1)') = '42704 run -1 does not exist';
  ASSERT (SELECT (l.what, l.ended)::TEXT FROM flow.watch_look(_run) l)
    = E'("2 of 5 nodes done, 2 failed  e: running steps, 0 of 1 steps",f)';
  ASSERT (SELECT l.lines[1] FROM flow.watch_look(_run) l) LIKE format('run %s of f, %%: 2 of 5 nodes done, 2 failed', _run);
  PERFORM flow.cancel(_run);
  ASSERT (SELECT (l.what, l.ended)::TEXT FROM flow.watch_look(_run) l)
    LIKE '("2 of 5 nodes done, 3 failed, cancelled: c: boom",t)';
  ASSERT (SELECT (last_execution_success, last_error_message)::TEXT FROM flow.v_flow_configuration WHERE flow = 'f') = '(f,"c: boom")';
END $$;

-- Conditions on flow_id reach the primary keys.
CREATE FUNCTION t.plan(_query TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
DECLARE
  _line TEXT; _plan TEXT := '';
BEGIN
  FOR _line IN EXECUTE 'EXPLAIN ' || _query LOOP
    _plan := _plan || _line || E'\n';
  END LOOP;
  RETURN _plan;
END $$;

DO $$
DECLARE
  _view TEXT; _plan TEXT; _table TEXT;
BEGIN
  INSERT INTO flow.flow (flow, definition_id, run_as, arguments, count_nodes, processed)
  SELECT 'f', (SELECT min(definition_id) FROM flow.definition), 'x', '{}', 10, now() FROM generate_series(1, 3000);
  INSERT INTO async.task (target, run_as, flow_id, node_no, is_step, processed, finish_status)
  SELECT 'local', 'x', f.flow_id, n % 3, n > 2, now(), 'FINISHED' FROM flow.flow f, generate_series(0, 20) n WHERE f.run_as = 'x';
  INSERT INTO flow.flow_node (flow_id, node_no, node, state, parents_open, task_id)
  SELECT flow_id, node_no, node_no, 'F', 0, task_id FROM async.task WHERE run_as = 'x' AND NOT is_step;
  INSERT INTO flow.flow_step (flow_id, node_no, task_id, arguments_hash)
  SELECT flow_id, node_no, task_id, sha256(task_id::TEXT::BYTEA) FROM async.task WHERE run_as = 'x' AND is_step;
  ANALYZE flow.flow, flow.flow_node, flow.flow_step, async.task;
  FOREACH _view IN ARRAY ARRAY['v_flow_node_status', 'v_flow_task_status', 'v_flow_task', 'v_flow_status'] LOOP
    _plan := t.plan(format('SELECT * FROM flow.%s WHERE flow_id = 100', _view));
    FOREACH _table IN ARRAY ARRAY['flow', 'flow_node', 'flow_step', 'task'] LOOP
      ASSERT _plan NOT LIKE format('%%Seq Scan on %s %%', _table), _view || E'\n' || _plan;
    END LOOP;
  END LOOP;
  ASSERT t.plan('SELECT * FROM flow.v_flow_status ORDER BY flow_id DESC LIMIT 10') !~ 'task|Sort';
  ASSERT t.plan('SELECT * FROM flow.v_flow_task WHERE task_id = 100') NOT LIKE '%Seq Scan on task%';
END $$;

ROLLBACK;
\echo flow_views: ok
