-- A script as users of the SQL original write it: their configuration keys, names of arguments, views and ways to wait. It
-- must run here without a change. Self-checking: what fails raises. (CALL async.main() says that it is not needed any more.)
\set ON_ERROR_STOP 1
\set QUIET 1
SET client_min_messages = warning;

-- 1. The task engine, with a target that is this very database, and control keys of which half mean nothing here.
SELECT async.configure(format($j$
  {
    "control": {
      "workers": 8,
      "idle_sleep": 1.0,
      "busy_sleep": 0.1,
      "heavy_maintenance_sleep": "1 day",
      "default_timeout": "1 hour",
      "task_keep_duration": "30 days",
      "advisory_mutex_id": 77,
      "self_target": "async.self",
      "self_connection_string": "host=localhost port=%2$s dbname=%1$s",
      "self_concurrency": 4,
      "default_concurrency_pool_workers": 4
    },
    "targets": [
      {"target": "self", "max_concurrency": 8, "default_timeout": "2 hours",
          "connection_string": "host=localhost port=%2$s dbname=%1$s"},
      {"target": "self_async", "max_concurrency": 8, "connection_string": "host=localhost port=%2$s dbname=%1$s",
       "asynchronous_finish": true, "concurrency_track_yielded": false}
    ],
    "concurrency_pools": [{"concurrency_pool": "three_at_a_time", "max_workers": 3}]
  }$j$, current_database(), current_setting('port'))::JSONB) AS configured \gset
CALL async.main();
CALL async.main(_force := true, _manual_mode := false);

-- How they wait: polling the status view.
CREATE PROCEDURE wait_for(_flow_id BIGINT) LANGUAGE plpgsql AS $$
BEGIN
  FOR _second IN 1 .. 2400 LOOP
    IF EXISTS (SELECT FROM flow.v_flow_status WHERE flow_id = _flow_id AND complete = 'Yes') THEN
      RETURN;
    END IF;
    COMMIT;
    PERFORM pg_sleep(0.05);
  END LOOP;
  RAISE EXCEPTION 'run % does not end: %', _flow_id, (SELECT jsonb_agg(s) FROM flow.v_flow_node_status s
      WHERE s.flow_id = _flow_id);
END
$$;

-- 2. A random layered DAG of 120 nodes, built in SQL; one routine for all, which says who ran.
CREATE TABLE visit (visit_id BIGSERIAL PRIMARY KEY, flow_id BIGINT, node TEXT, task_id BIGINT,
    happened TIMESTAMPTZ DEFAULT clock_timestamp());
CREATE PROCEDURE visited(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_sleep(random() * (_args.flow_arguments->>'up_to')::FLOAT8);
  INSERT INTO visit (flow_id, node, task_id) VALUES (_args.flow_id, _args.node, _args.task_id);
END
$$;
SELECT setseed(0.25) AS seed \gset
CREATE TABLE dag AS
SELECT format('layer_%s.n%s', l, n) AS node, l AS layer FROM generate_series(1, 12) l, generate_series(1, 10) n;
CREATE TABLE edge AS
SELECT DISTINCT p.node AS parent, c.node AS child
FROM dag c CROSS JOIN LATERAL (SELECT d.node FROM dag d
    WHERE d.layer = c.layer - 1 AND c.node <> '' ORDER BY random() LIMIT 1 + (random() * 3)::INT) p
UNION SELECT p.node, c.node FROM dag p, dag c WHERE p.layer < c.layer - 1 AND random() < 0.01;
SELECT flow.configure_flow(
  _flow_name := 'random_dag',
  _configuration := jsonb_build_object('nodes', jsonb_agg(jsonb_build_object(
    'node', d.node,
    'target', 'self',
    'routine', 'visited',
    'priority', d.layer,
    'dependencies', (SELECT coalesce(jsonb_agg(jsonb_build_object('parent', e.parent)), '[]') FROM edge e
        WHERE e.child = d.node)))),
  _append := false) AS configured
FROM dag d \gset
SELECT flow.run_flow(_flow := 'random_dag', _arguments := '{"up_to": 0.01}') AS random_dag \gset
CALL wait_for(:random_dag);
SELECT set_config('test.run', :'random_dag', false) AS run \gset
DO $$
DECLARE
  _run CONSTANT BIGINT := current_setting('test.run');
BEGIN
  ASSERT (SELECT count(*) = 120 AND count(DISTINCT node) = 120 FROM visit WHERE flow_id = _run), 'every node ran once';
  ASSERT (SELECT bool_and(status = 'Finished') AND count(*) = 120 FROM flow.v_flow_node_status WHERE flow_id = _run);
  ASSERT NOT EXISTS (
    SELECT FROM edge e
    JOIN flow.v_flow_task p ON p.flow_id = _run AND p.node = e.parent AND p.is_node
    JOIN flow.v_flow_task c ON c.flow_id = _run AND c.node = e.child AND c.is_node
    WHERE c.consumed < p.processed OR c.consumed IS NULL OR p.processed IS NULL), 'no node before its parents';
  ASSERT (SELECT count_finished_nodes = 120 AND count_failed_nodes = 0 AND first_error IS NULL FROM flow.v_flow_status
      WHERE flow_id = _run);
  ASSERT (SELECT last_execution_success AND last_execution_flow_id = _run FROM flow.v_flow_configuration
      WHERE flow = 'random_dag');
  ASSERT (SELECT count(*) FROM flow.dependency WHERE flow_id = _run) = (SELECT count(*) FROM edge);
  ASSERT flow.graphviz(_run) LIKE 'digraph%' AND flow.args(_run) = '{"up_to": 0.01}';
  ASSERT jsonb_array_length(flow.task_list(_run)) = 120;
  -- What was configured can be configured again.
  PERFORM flow.configure_flow('random_dag', flow.configuration()->'random_dag');
END
$$;

-- 3. A callback that defers itself, knowing from a table of its own how often it was there.
CREATE TABLE tries (task_id BIGINT, happened TIMESTAMPTZ DEFAULT clock_timestamp());
CREATE PROCEDURE try_later(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO tries (task_id) VALUES (_args.task_id);
  IF (SELECT count(*) FROM tries WHERE task_id = _args.task_id) < 3 THEN
    CALL flow.defer(_args := _args, _duration := '200 milliseconds'::INTERVAL);
  END IF;
END
$$;
SELECT flow.configure_flow('deferring', '{"nodes": [
  {"node": "again", "routine": "try_later", "target": "self"},
  {"node": "then", "routine": "visited", "target": "self", "dependencies": [{"parent": "again"}]}]}') AS configured \gset
SELECT flow.create_flow(_flow := 'deferring', _arguments := '{"up_to": 0}', _force_priority := -5) AS deferring \gset
CALL wait_for(:deferring);
SELECT set_config('test.run', :'deferring', false) AS run \gset
DO $$
BEGIN
  ASSERT (SELECT count(*) = 3 AND max(happened) - min(happened) >= INTERVAL '0.4 s' AND count(DISTINCT task_id) = 1
      FROM tries);
  ASSERT (SELECT array_agg(node || ' ' || status ORDER BY node) = '{again Finished,then Finished}'
      FROM flow.v_flow_node_status WHERE flow_id = current_setting('test.run')::BIGINT);
  ASSERT (SELECT force_priority = -5 FROM flow.flow WHERE flow_id = current_setting('test.run')::BIGINT);
END
$$;

-- 4. Asynchronous targets: the call only hands the work on; somebody else says how it ended. A node beside it answers for the
-- steps, this session for the node that is told to fail.
CREATE TABLE mailbox (task_id BIGINT PRIMARY KEY, args flow.callback_arguments_t, answered BOOL DEFAULT false);
CREATE PROCEDURE ask(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _steps JSONB[];
BEGIN
  IF _args.node = 'request' AND _args.step_arguments = '{}' THEN
    _steps := array(SELECT jsonb_build_object('letter', i) FROM generate_series(1, 20) i);
    CALL flow.push_steps(_args.flow_id, _args.node, _steps);
    CALL flow.finish(_args);
  ELSE
    INSERT INTO mailbox (task_id, args) VALUES (_args.task_id, _args);
  END IF;
END
$$;
CREATE PROCEDURE answer(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _letter RECORD;
  _count  INT := 0;
BEGIN
  WHILE _count < 20 LOOP
    FOR _letter IN SELECT * FROM mailbox WHERE NOT answered AND (args).node = 'request' LOOP
      UPDATE mailbox SET answered = true WHERE task_id = _letter.task_id;
      CALL flow.finish(_letter.args, _failed := false);
      _count := _count + 1;
    END LOOP;
    COMMIT;
    PERFORM pg_sleep(0.02);
  END LOOP;
END
$$;
SELECT flow.configure_flow('letters', '{"nodes": [
  {"node": "request", "routine": "ask", "target": "self_async"},
  {"node": "answer", "target": "self"},
  {"node": "refused", "routine": "ask", "target": "self_async", "dependencies": [{"parent": "request"},
      {"parent": "answer"}]},
  {"node": "in_spite_of_it", "routine": "visited", "target": "self", "dependencies": [{"parent": "refused",
      "continue_on_failure": true}]},
  {"node": "not_any_more", "routine": "visited", "target": "self",
      "dependencies": [{"parent": "refused"}]}]}') AS configured \gset
SELECT flow.run_flow('letters', '{"up_to": 0}') AS letters \gset
SELECT set_config('test.run', :'letters', false) AS run \gset
DO $$
DECLARE
  _args flow.callback_arguments_t;
BEGIN
  FOR _try IN 1 .. 600 LOOP
    PERFORM FROM flow.v_flow_node_status WHERE flow_id = current_setting('test.run')::BIGINT AND node = 'refused'
        AND status = 'Running Async';
    EXIT WHEN FOUND;
    COMMIT;
    PERFORM pg_sleep(0.05);
  END LOOP;
  SELECT (args).* INTO STRICT _args FROM mailbox WHERE NOT answered;
  ASSERT _args.node = 'refused' AND _args.flow = 'letters' AND _args.flow_arguments = '{"up_to": 0}'
      AND _args.step_arguments = '{}';
  CALL flow.finish(_args, _failed := true, _error_message := 'returned to sender', _flush_transaction_when_client := false);
END
$$;
CALL wait_for(:letters);
DO $$
DECLARE
  _run CONSTANT BIGINT := current_setting('test.run');
BEGIN
  ASSERT (SELECT string_agg(node || ' ' || status, ', ' ORDER BY node) FROM flow.v_flow_node_status WHERE flow_id = _run)
    = 'answer Finished, in_spite_of_it Finished, not_any_more Skipped, refused Failed, request Finished',
    (SELECT string_agg(node || ' ' || status, ', ' ORDER BY node) FROM flow.v_flow_node_status WHERE flow_id = _run);
  ASSERT (SELECT steps = 20 AND steps_finished = 20 FROM flow.v_flow_node_status WHERE flow_id = _run AND node = 'request');
  ASSERT (SELECT processing_error FROM flow.v_flow_task_status
      WHERE flow_id = _run AND node = 'refused') = 'returned to sender';
  ASSERT (SELECT count(*) FROM flow.v_flow_task WHERE flow_id = _run AND yielded IS NOT NULL AND asynchronous_finish) = 21;
  ASSERT (SELECT first_error LIKE '%returned to sender%' AND count_failed_nodes = 2 FROM flow.v_flow_status
      WHERE flow_id = _run);
END
$$;

-- 5. Steps that are flows: one of each day.
CREATE PROCEDURE one_day(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO visit (flow_id, node, task_id) VALUES (_args.flow_id, _args.node || _args.flow_arguments::TEXT, _args.task_id);
END
$$;
SELECT flow.configure_flow('day', '{"nodes": [{"node": "load_day", "routine": "one_day", "target": "self"},
  {"node": "sum_day", "routine": "one_day", "target": "self",
      "dependencies": [{"parent": "load_day"}]}]}') AS configured \gset
CREATE PROCEDURE push_days(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _days JSONB[] := array(SELECT jsonb_build_object('day', d) FROM generate_series(1, 7) d);
BEGIN
  CALL flow.push_steps(_flow_id := _args.flow_id, _node := _args.node, _arguments := _days);
END
$$;
SELECT flow.configure_flow('days', '{"nodes": [
  {"node": "all_days", "routine": "push_days", "target": "self", "steps_to_flow": "day"},
  {"node": "after_days", "routine": "visited", "target": "self",
      "dependencies": [{"parent": "all_days"}]}]}') AS configured \gset
SELECT flow.run_flow('days', '{"up_to": 0}') AS days \gset
CALL wait_for(:days);
SELECT set_config('test.run', :'days', false) AS run \gset
DO $$
DECLARE
  _run CONSTANT BIGINT := current_setting('test.run');
BEGIN
  ASSERT (SELECT count(*) = 7 AND bool_and(s.complete = 'Yes' AND s.count_failed_nodes = 0) FROM flow.v_flow_status s
      JOIN flow.flow f USING (flow_id) WHERE f.parent_flow_id = _run);
  ASSERT (SELECT count(*) FROM visit v JOIN flow.flow f USING (flow_id) WHERE f.parent_flow_id = _run) = 14;
  ASSERT (SELECT max(f.processed) FROM flow.flow f WHERE f.parent_flow_id = _run) <= (SELECT consumed
      FROM flow.v_flow_task WHERE flow_id = _run AND node = 'after_days');
  ASSERT (SELECT count(*) FROM flow.v_flow_task_status WHERE flow_id = _run AND type = 'Step' AND status = 'Finished') = 7;
END
$$;

-- 6. The task engine alone.
CREATE TABLE done_by_task (n INT);
SELECT array_agg(t) AS tasks FROM async.push_tasks(array[
  async.task('INSERT INTO done_by_task VALUES (1)', 'self'),
  async.task('INSERT INTO done_by_task VALUES (2)', target => 'self', priority => 5, concurrency_pool => 'three_at_a_time'),
  async.task('SELECT 1 / 0', 'self', task_data => '{"mine": true}')], _run_type => 'EXECUTE', _source => 'by hand') t \gset
SELECT async.push_task(_task => async.task('INSERT INTO done_by_task VALUES (3)', 'async.self')) AS task \gset
DO $$
BEGIN
  FOR _try IN 1 .. 400 LOOP
    EXIT WHEN NOT EXISTS (SELECT FROM async.task WHERE processed IS NULL);
    PERFORM pg_sleep(0.05);
  END LOOP;
  ASSERT (SELECT array_agg(n ORDER BY n) FROM done_by_task) = '{1,2,3}';
  ASSERT (SELECT count(*) FROM async.task WHERE source = 'by hand' AND failed AND finish_status = 'FAILED'
      AND processing_error LIKE '%division by zero%') = 1;
  ASSERT (SELECT count(*) FROM async.v_target WHERE target IN ('self', 'self_async')) = 2 AND (SELECT count(*)
      FROM async.v_server_info) = 1;
  ASSERT (SELECT max_workers FROM async.v_concurrency_pool_info WHERE concurrency_pool = 'three_at_a_time' LIMIT 1) = 3;
END
$$;
\echo original_user: ok
