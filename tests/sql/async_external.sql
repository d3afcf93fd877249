-- External targets: queue, lease, expiry. Rolled back; the queue is filled by hand, as the dispatcher would.
\set ON_ERROR_STOP on
SET client_min_messages = error;
BEGIN;
DO $$
DECLARE
  _ids BIGINT[];
  _got RECORD;
  _row async.task;
BEGIN
  PERFORM async.configure('{"targets": [{"target": "robots", "kind": "external", "default_timeout": "20 minutes"}, {"target": "other"}]}');
  _ids := ARRAY(SELECT async.push_tasks(ARRAY[
    async.task(NULL, 'robots', '{"n": 1}', 5), async.task(NULL, 'robots', '{"n": 2}', 1), async.task(NULL, 'robots', '{"n": 3}', 5),
    async.task(NULL, 'robots', manual_timeout => '1 minute', priority => 9)]));
  INSERT INTO async.external_queue SELECT target, priority, task_id, eligible_when FROM async.task WHERE task_id = ANY (_ids);

  -- By priority, then id; the lease is the target's.
  ASSERT (SELECT array_agg(task_id) FROM async.get_tasks('robots', 2)) = ARRAY[_ids[2], _ids[1]];
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[2];
  ASSERT _row.yielded IS NOT NULL AND _row.consumed = _row.yielded AND _row.attempt = 1
     AND _row.times_up = _row.consumed + INTERVAL '20 minutes';
  ASSERT (SELECT state FROM async.v_task WHERE task_id = _ids[2]) = 'Leased';
  ASSERT (SELECT count(*) FROM async.external_queue WHERE task_id = ANY (_ids)) = 2;
  UPDATE async.external_queue SET eligible_when = now() + INTERVAL '1 hour' WHERE task_id = _ids[3];
  SELECT * INTO _got FROM async.get_tasks('robots', 5, '3 hours');
  ASSERT _got.task_id = _ids[4] AND _got.times_up < clock_timestamp() + INTERVAL '1 minute 1 second', 'a lease ends with the time-out';
  ASSERT NOT EXISTS (SELECT FROM async.get_tasks('robots', 5));
  ASSERT NOT EXISTS (SELECT FROM async.get_tasks('robots', 0));

  -- Over: waits again, or timed out for good.
  ASSERT NOT EXISTS (SELECT async.expire_leases(_ids));
  UPDATE async.task SET times_up = now() - INTERVAL '1 s', first_consumed = now() - INTERVAL '2 minutes'
   WHERE task_id IN (_ids[2], _ids[4]);
  ASSERT (SELECT array_agg(i) FROM async.expire_leases(_ids) i) = ARRAY[_ids[2], _ids[4]];
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[2];
  ASSERT _row.processed IS NULL AND _row.yielded IS NULL AND _row.attempt = 1 AND _row.times_up IS NULL;
  ASSERT (SELECT finish_status = 'TIMED_OUT' AND failed FROM async.task WHERE task_id = _ids[4]);
  ASSERT (SELECT count(*) FROM async.task_log WHERE task_id IN (_ids[2], _ids[4]) AND message = 'the lease ran out') = 2;

  -- A client ends or puts off what it took; what is cancelled leaves the queue.
  PERFORM async.finish(_ids[1:1], 'FINISHED', NULL);
  SELECT * INTO _row FROM async.task WHERE task_id = _ids[1];
  ASSERT _row.finish_status = 'FINISHED' AND _row.attempt = 1 AND _row.first_consumed IS NOT NULL;
  PERFORM async.cancel(_ids[3:3]);
  ASSERT NOT EXISTS (SELECT FROM async.external_queue WHERE task_id = ANY (_ids));

  BEGIN
    PERFORM async.get_tasks('other');
    ASSERT false;
  EXCEPTION WHEN wrong_object_type THEN NULL; END;
  BEGIN
    PERFORM async.get_tasks('nowhere');
    ASSERT false;
  EXCEPTION WHEN undefined_object THEN NULL; END;
  BEGIN
    PERFORM async.get_tasks('robots', -1);
    ASSERT false;
  EXCEPTION WHEN invalid_parameter_value THEN NULL; END;

  -- A flow's task comes with its callback's arguments.
  INSERT INTO flow.definition (flow, configuration, author) VALUES ('f', '{}', current_user);
  INSERT INTO flow.definition_node (definition_id, node_no, node, rank, target, routine, step_routine, count_parents)
    VALUES (currval('flow.definition_definition_id_seq'), 1, 'load', 0, 'robots', 'r', 's', 0);
  INSERT INTO flow.flow (flow_id, flow, definition_id, run_as, arguments, count_nodes)
    VALUES (-1, 'f', currval('flow.definition_definition_id_seq'), current_user, '{"day": 1}', 1);
  UPDATE async.task SET flow_id = -1, node_no = 1, is_step = true WHERE task_id = _ids[2];
  INSERT INTO async.external_queue VALUES ('robots', 1, _ids[2], NULL);
  ASSERT (SELECT task_data FROM async.get_tasks('robots')) = jsonb_build_object('flow_id', -1, 'flow', 'f', 'flow_arguments',
    '{"day": 1}'::JSONB, 'node', 'load', 'step_arguments', '{"n": 2}'::JSONB, 'task_id', _ids[2], 'routine', 's');
END
$$;
ROLLBACK;
