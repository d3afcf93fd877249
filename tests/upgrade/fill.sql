-- What 0.1.0.sql was made with: run in an empty database with version 0.1.0 of pgflow and its own library, preloaded; then the
-- server was stopped (fast, while tasks were running), started without the library, and the database dumped with
--   pg_dump --rows-per-insert=100 --column-inserts --no-comments
-- without its comments, owners and settings. Every state that a run, a node or a task can be left in is there.
\set ON_ERROR_STOP on
CREATE ROLE upgrade_alice LOGIN IN ROLE flow_user;
CREATE SCHEMA t;
CREATE TABLE t.log (id SERIAL, what TEXT, who NAME DEFAULT current_user);
CREATE TABLE t.gate (i INT);
CREATE TABLE t.numbers (n INT);
GRANT USAGE ON SCHEMA t TO PUBLIC;
GRANT ALL ON t.log, t.log_id_seq, t.gate, t.numbers TO PUBLIC;
CREATE PROCEDURE t.notes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  RAISE NOTICE 'noting %', _args.node;
  INSERT INTO t.log (what) VALUES (_args.flow_id || ' ' || _args.node || coalesce(' ' || (_args.step_arguments->>'s'), ''));
END $$;
CREATE PROCEDURE t.fails(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'this one fails';
END $$;
CREATE PROCEDURE t.waits(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..6000 LOOP EXIT WHEN EXISTS (SELECT FROM t.gate); PERFORM pg_sleep(0.01); END LOOP;
  INSERT INTO t.log (what) VALUES (_args.flow_id || ' ' || _args.node || coalesce(' ' || (_args.step_arguments->>'s'), ''));
END $$;
CREATE PROCEDURE t.pushes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _steps CONSTANT JSONB[] := ARRAY(SELECT jsonb_build_object('s', i) FROM generate_series(1, 3) i);
BEGIN
  CALL flow.push_steps(_args.flow_id, _args.node, _steps);
END $$;
-- Puts itself off until the gate is open.
CREATE PROCEDURE t.defers(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM t.gate) THEN
    CALL flow.defer(_args, interval '2 s');
  ELSE
    INSERT INTO t.log (what) VALUES (_args.flow_id || ' ' || _args.node);
  END IF;
END $$;
CREATE FUNCTION t.pool(_flow_id BIGINT, _node TEXT) RETURNS TEXT LANGUAGE sql AS $$ SELECT 'some' $$;

SELECT async.configure('{
  "control": {"task_keep_duration": "100 years"},
  "targets": [{"target": "later", "asynchronous_finish": true, "max_concurrency": 7},
              {"target": "outside", "kind": "external", "default_timeout": "1 hour"},
              {"target": "there", "kind": "postgres", "max_concurrency": 3,
               "connection_string": "host=127.0.0.1 port=1 dbname=postgres user=postgres sslmode=disable"}],
  "concurrency_pools": [{"concurrency_pool": "some", "max_workers": 2}]}');

SET ROLE upgrade_alice;
-- Ended in every way.
SELECT flow.configure_flow('good', '{"nodes": [
  {"node": "a", "routine": "t.notes"},
  {"node": "b", "routine": "t.pushes", "step_routine": "t.notes", "dependencies": [{"parent": "a"}]},
  {"node": "c", "empty": true, "dependencies": [{"parent": "b"}]},
  {"node": "d", "query": "SELECT 42 AS answer", "result": "inline", "dependencies": [{"parent": "c"}]}]}');
SELECT flow.configure_flow('bad', '{"nodes": [
  {"node": "a", "routine": "t.notes"},
  {"node": "b", "routine": "t.fails", "dependencies": [{"parent": "a"}]},
  {"node": "c", "routine": "t.notes", "dependencies": [{"parent": "b"}]},
  {"node": "d", "routine": "t.notes", "dependencies": [{"parent": "b", "continue_on_failure": true}]}]}');
SELECT flow.configure_flow('slow', '{"nodes": [{"node": "a", "routine": "t.waits", "node_timeout": "0.2 s"}]}');
SELECT flow.configure_flow('stopped', '{"nodes": [{"node": "a", "routine": "t.waits"}]}');
SELECT flow.run_flow('good', '{"run": 1}'), flow.run_flow('bad', '{"run": 2}'), flow.run_flow('slow', '{"run": 3}'),
       flow.run_flow('stopped', '{"run": 4}');
SELECT flow.wait(1, '20 s'), flow.wait(2, '20 s'), flow.wait(3, '20 s');
SELECT flow.cancel(4), flow.wait(4, '20 s');

-- Open: one node in each state. "wait" runs when the server stops.
SELECT flow.configure_flow('inner', '{"nodes": [{"node": "a", "routine": "t.defers"}]}');
SELECT flow.configure_flow('open', '{"concurrency_group_routine": "t.pool", "nodes": [
  {"node": "done", "routine": "t.notes"},
  {"node": "wait", "routine": "t.waits", "dependencies": [{"parent": "done"}], "steps": [{"s": 1}, {"s": 2}, {"s": 3}]},
  {"node": "yield", "routine": "t.notes", "target": "later", "dependencies": [{"parent": "done"}]},
  {"node": "defer", "routine": "t.defers", "dependencies": [{"parent": "done"}]},
  {"node": "hold", "routine": "t.notes", "dependencies": [{"parent": "yield"}, {"parent": "wait"}]},
  {"node": "take", "target": "outside", "routine": "t.notes", "dependencies": [{"parent": "done"}]},
  {"node": "child", "routine": "t.pushes", "steps_to_flow": "inner", "dependencies": [{"parent": "done"}]},
  {"node": "there", "target": "there", "query": "SELECT 1", "dependencies": [{"parent": "done"}]},
  {"node": "table", "target": "there", "query": "SELECT g AS n FROM generate_series(1, 5) g",
   "result": {"to": "table", "table": "t.numbers"}, "dependencies": [{"parent": "there"}]},
  {"node": "last", "routine": "t.notes", "dependencies": [{"parent": "hold"}, {"parent": "defer"}, {"parent": "child"},
    {"parent": "table"}, {"parent": "take"}]}]}');
SELECT flow.run_flow('open', '{"run": 5}');
CALL flow.push_steps(5, 'hold', ARRAY['{"s": 7}', '{"s": 8}']::JSONB[]);
-- A run of an older version of its flow, and one of some nodes only.
SELECT flow.configure_flow('changed', '{"nodes": [{"node": "old", "routine": "t.waits"}, {"node": "next", "routine": "t.notes",
  "dependencies": [{"parent": "old"}]}]}');
SELECT flow.run_flow('changed', '{"run": 7}'), flow.run_flow('changed', '{"run": 8}', ARRAY['next']);
SELECT flow.configure_flow('changed', '{"nodes": [{"node": "new", "routine": "t.notes"}]}');
-- Tasks outside flows; executions, one that has ended and one that is open.
SELECT async.push_tasks(ARRAY[async.task('INSERT INTO t.log (what) VALUES (''a query'')'), async.task('SELECT 1/0'),
  async.task('SELECT 3', 'outside', '{"some": "data"}')]);
SELECT count(*) FROM async.submit('SELECT 7 AS seven', _query_id => 'seven', _target => 'local', _result => '"inline"');
SELECT count(*) FROM async.submit('SELECT 8 AS eight', _query_id => 'eight', _target => 'there', _result => '"inline"');
SELECT async.push_query('there', 'SELECT {secret:String}', _secrets => '{"secret": "not to be told"}');
RESET ROLE;
SELECT async.log('NOTICE', 'a line of the log');
SELECT pg_sleep(3);
