-- An installation of the SQL library as it looks from outside: the tables with their columns (docs of its behaviour: A1, A7 to
-- A9, B1), stubs of the routines that users call, and what a user's database has around them. Not its code: nothing here runs.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;

CREATE SCHEMA async;
CREATE TYPE async.finish_status_t AS ENUM
  ('FINISHED', 'FAILED', 'CANCELED', 'PAUSED', 'TIMED_OUT', 'YIELDED', 'DOA', 'DEFERRED');
CREATE TYPE async.task_run_type_t AS ENUM ('EXECUTE', 'DOA', 'EMPTY', 'EXECUTE_NOASYNC');
CREATE TYPE async.task_push_t AS (
  task_data JSONB, target TEXT, priority INT, query TEXT, concurrency_pool TEXT, manual_timeout INTERVAL, track_yielded BOOL);
CREATE TABLE async.client_control (client_only BOOL, connection_string TEXT, version TEXT);
INSERT INTO async.client_control VALUES (false, 'host=orchestrator dbname=app', '1.0');
CREATE TABLE async.control (
  enabled BOOL DEFAULT true, workers INT, idle_sleep FLOAT8, heavy_maintenance_sleep INTERVAL, task_keep_duration INTERVAL,
  default_timeout INTERVAL, advisory_mutex_id INT, self_target TEXT, self_connection_string TEXT, self_concurrency INT,
  last_heavy_maintenance TIMESTAMPTZ, running_since TIMESTAMPTZ, paused BOOL DEFAULT false, pid INT, busy_sleep FLOAT8,
  light_maintenance_sleep INTERVAL, last_light_maintenance TIMESTAMPTZ, default_concurrency_pool_workers INT,
  startup_routines TEXT[], loop_routines TEXT[], version TEXT, debug_log BOOL);
INSERT INTO async.control VALUES (true, 20, 0.1, '24 hours', '10 years', '1 hour', 0, 'async.self', 'host=localhost', 6,
  now() - INTERVAL '1 day', now() - INTERVAL '2 days', false, 1, 0.01, '5 minutes', now(), 4, '{}', '{app.each_loop}',
      '1.0', true);
CREATE TABLE async.target (
  target TEXT PRIMARY KEY, max_concurrency INT, connection_string TEXT, asynchronous_finish BOOL, default_timeout INTERVAL,
  concurrency_track_yielded BOOL);
INSERT INTO async.target VALUES
  ('async.self', 6, 'host=localhost', false, NULL, false),
  ('self', 12, format('host=localhost dbname=%I user=postgres port=%s', current_database(), current_setting('port')),
      false, '2 hours', false),
  ('self_async', 3, format('host=localhost dbname=%I port=%s', current_database(), current_setting('port')), true, NULL,
      true),
  ('warehouse', 5, 'host=warehouse.example dbname=dw user=etl password=s3cret', false, '20 minutes', false),
  ('robots', 9, NULL, true, '5 minutes', false),
  ('none_at_a_time', 0, 'host=localhost', false, NULL, false);
CREATE TABLE async.concurrency_pool (concurrency_pool TEXT PRIMARY KEY, max_workers INT);
INSERT INTO async.concurrency_pool SELECT target, max_concurrency FROM async.target;
INSERT INTO async.concurrency_pool VALUES ('api', 2);
CREATE TABLE async.task (
  task_id BIGSERIAL PRIMARY KEY, target TEXT REFERENCES async.target ON UPDATE CASCADE ON DELETE CASCADE,
  priority INT DEFAULT 0, entered TIMESTAMPTZ DEFAULT clock_timestamp(), consumed TIMESTAMPTZ, processed TIMESTAMPTZ,
  yielded TIMESTAMPTZ, finish_status async.finish_status_t, source TEXT, query TEXT, failed BOOL, processing_error TEXT,
  asynchronous_finish BOOL, times_up TIMESTAMPTZ, task_data JSONB, concurrency_pool TEXT, manual_timeout INTERVAL,
  tracked BOOL, track_yielded BOOL, eligible_when TIMESTAMPTZ);
CREATE TABLE async.server_log (server_log_id BIGSERIAL PRIMARY KEY, happened TIMESTAMPTZ, level TEXT, message TEXT);
CREATE PROCEDURE async.main(_force BOOL DEFAULT false, _manual_mode BOOL DEFAULT false)
    LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3600); END $$;

CREATE SCHEMA flow;
CREATE TYPE flow.callback_arguments_t AS (
  flow_id BIGINT, flow TEXT, flow_arguments JSONB, node TEXT, step_arguments JSONB, task_id BIGINT);
CREATE DOMAIN flow.flow_priority_t AS INT CHECK (VALUE BETWEEN -99 AND 99);
CREATE TABLE flow.arguments (flow_id BIGINT PRIMARY KEY, arguments JSONB);
CREATE TABLE flow.flow_configuration (flow TEXT PRIMARY KEY, concurrency_group_routine TEXT);
CREATE TABLE flow.node (
  node TEXT PRIMARY KEY, target TEXT REFERENCES async.target ON UPDATE CASCADE ON DELETE CASCADE, routine TEXT,
  node_routine TEXT, step_routine TEXT, priority INT, all_steps_must_complete BOOL DEFAULT true, empty BOOL DEFAULT false,
  steps_to_flow TEXT, synchronous BOOL DEFAULT false, node_timeout INTERVAL, step_timeout INTERVAL);
CREATE TABLE flow.flow_node (
  flow TEXT REFERENCES flow.flow_configuration, node TEXT REFERENCES flow.node, terminate_on_failure BOOL,
      PRIMARY KEY (flow, node));
CREATE TABLE flow.dependency_configuration (
  flow TEXT REFERENCES flow.flow_configuration, parent TEXT REFERENCES flow.node, child TEXT REFERENCES flow.node,
  continue_on_failure BOOL DEFAULT false, PRIMARY KEY (flow, parent, child));
CREATE TABLE flow.step (node TEXT REFERENCES flow.node, arguments JSONB, PRIMARY KEY (node, arguments));
CREATE TABLE flow.flow (
  flow_id BIGSERIAL PRIMARY KEY, flow TEXT NOT NULL REFERENCES flow.flow_configuration, arguments JSONB,
  created TIMESTAMPTZ DEFAULT now(), processed TIMESTAMPTZ, parent_task_id BIGINT REFERENCES async.task ON DELETE CASCADE,
  only_these_nodes TEXT[], parent_flow_id BIGINT, count_nodes INT, count_finished_nodes INT, count_failed_nodes INT,
  first_error TEXT, force_priority INT);
CREATE TABLE flow.dependency (
  flow_id INT REFERENCES flow.flow ON DELETE CASCADE, parent TEXT REFERENCES flow.node, child TEXT REFERENCES flow.node,
  continue_on_failure BOOL, PRIMARY KEY (flow_id, parent, child));
CREATE VIEW flow.v_flow_task AS
  SELECT (task_data->>'flow_id')::BIGINT AS flow_id, task_data->>'node' AS node,
      task_data->'step_arguments' AS step_arguments,
    task_data->'step_arguments' = '{}' AS is_node, t.* FROM async.task t WHERE task_data->>'flow_id' IS NOT NULL;
CREATE VIEW flow.v_flow_status AS
  SELECT flow_id, flow, CASE WHEN processed IS NULL THEN 'No' ELSE 'Yes' END AS complete, ''::TEXT AS run_time,
    count_nodes::BIGINT, count_finished_nodes::BIGINT, count_failed_nodes::BIGINT, arguments, first_error FROM flow.flow;
CREATE FUNCTION flow.args(_flow_id BIGINT) RETURNS JSONB
    LANGUAGE sql STABLE AS 'SELECT arguments FROM flow.flow WHERE flow_id = $1';
CREATE PROCEDURE flow.push_steps(_flow_id BIGINT, _node TEXT, _arguments JSONB[],
    _flush_transaction_when_client BOOL DEFAULT true)
  LANGUAGE plpgsql AS $$ BEGIN RAISE 'the old one'; END $$;
CREATE PROCEDURE flow.finish(_args flow.callback_arguments_t, _failed BOOL DEFAULT false, _error_message TEXT DEFAULT NULL,
  _flush_transaction_when_client BOOL DEFAULT true) LANGUAGE plpgsql AS $$ BEGIN RAISE 'the old one'; END $$;

-- What a user has.
DO $$
DECLARE
  _role TEXT;
BEGIN
  FOREACH _role IN ARRAY ARRAY['migrate_etl', 'migrate_reader'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = _role) THEN
      EXECUTE format('CREATE ROLE %I LOGIN', _role);
    END IF;
  END LOOP;
END
$$;
GRANT USAGE ON SCHEMA flow, async TO migrate_reader;
CREATE SCHEMA app AUTHORIZATION migrate_etl;
GRANT USAGE ON SCHEMA app TO PUBLIC;
CREATE TABLE app.done (node TEXT, step JSONB, arguments JSONB);
GRANT ALL ON app.done TO PUBLIC;
CREATE PROCEDURE app.load(_args flow.callback_arguments_t) LANGUAGE plpgsql SET work_mem = '8MB' AS $body$
DECLARE
  _copy flow.callback_arguments_t := _args;  -- said in text: resolved when it runs
BEGIN
  INSERT INTO app.done SELECT _copy.node, _copy.step_arguments, _args.flow_arguments;
  IF _args.step_arguments = '{}' AND _args.node = 'load' THEN
    CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{"part": 1}', '{"part": 2}']::JSONB[]);
  END IF;
END
$body$;
ALTER PROCEDURE app.load OWNER TO migrate_etl;
COMMENT ON PROCEDURE app.load IS 'Loads; the owner''s pride.';
REVOKE ALL ON PROCEDURE app.load FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE app.load TO migrate_reader WITH GRANT OPTION;
CREATE PROCEDURE app.clean(flow.callback_arguments_t) LANGUAGE sql SECURITY DEFINER AS $$ INSERT INTO app.done
    VALUES ($1.node, $1.step_arguments, $1.flow_arguments); $$;
CREATE PROCEDURE app.atomic(_args flow.callback_arguments_t) LANGUAGE sql BEGIN ATOMIC
  INSERT INTO app.done VALUES ((_args).node, (_args).step_arguments, flow.args((_args).flow_id));
END;
-- An overload, a default, an array, a result, another type of the library.
CREATE FUNCTION app.load(_args flow.callback_arguments_t, _more TEXT) RETURNS TEXT LANGUAGE sql AS 'SELECT $2';
CREATE FUNCTION app.again(_n INT, _args flow.callback_arguments_t DEFAULT ROW(1, 'f', '{}', 'n', '{}',
    2)::flow.callback_arguments_t)
  RETURNS SETOF flow.callback_arguments_t LANGUAGE sql AS 'SELECT $2';
CREATE FUNCTION app.many(_args flow.callback_arguments_t[]) RETURNS INT LANGUAGE sql AS 'SELECT cardinality($1)';
CREATE FUNCTION app.status(_status async.finish_status_t) RETURNS async.task_push_t
    LANGUAGE sql AS 'SELECT NULL::async.task_push_t';
CREATE TYPE app.job AS (args flow.callback_arguments_t, at TIMESTAMPTZ);
CREATE TABLE app.simulated (task_id BIGINT PRIMARY KEY, args flow.callback_arguments_t,
    status async.finish_status_t DEFAULT NULL);
INSERT INTO app.simulated VALUES (7, ROW(1, 'etl', '{"day": 1}', 'load', '{}', 7), 'FAILED');
CREATE FUNCTION app.name_of(_args flow.callback_arguments_t) RETURNS TEXT LANGUAGE sql IMMUTABLE AS 'SELECT ($1).node';
CREATE VIEW app.names AS SELECT app.name_of(ROW(1, 'f', '{}', 'n', '{}', 2)::flow.callback_arguments_t) AS name;
CREATE VIEW app.open_runs AS SELECT * FROM flow.v_flow_status WHERE complete = 'No';
CREATE VIEW app.finished WITH (security_barrier = true) AS SELECT flow_id, flow FROM flow.v_flow_status
    WHERE complete = 'Yes';
GRANT SELECT ON app.finished TO migrate_reader;
CREATE VIEW app.inside AS SELECT tracked FROM async.task;
CREATE TABLE app.ticket (flow_id BIGINT REFERENCES flow.flow ON DELETE CASCADE);
CREATE FUNCTION app.pool_of(_flow_id BIGINT, _node TEXT) RETURNS TEXT LANGUAGE sql AS $$ SELECT 'api' $$;
CREATE PROCEDURE app.each_loop() LANGUAGE plpgsql AS $$ BEGIN END $$;

INSERT INTO flow.flow_configuration VALUES
  ('etl', 'app.pool_of'), ('nightly', NULL), ('cyclic', NULL), ('lost', NULL), ('hollow', NULL), ('far', NULL);
INSERT INTO flow.node (node, target, routine, node_routine, step_routine, priority, all_steps_must_complete, empty,
    steps_to_flow, node_timeout) VALUES
  ('load', 'self', 'app.load', NULL, NULL, 5, true, false, NULL, '30 minutes'),
  ('clean', 'self', NULL, 'app.clean', 'app.load', NULL, false, false, NULL, NULL),
  ('check_it', 'self', 'app.atomic', NULL, NULL, NULL, true, false, NULL, NULL),
  ('publish', 'async.self', 'app.clean', NULL, NULL, -3, true, false, NULL, NULL),
  ('gate', 'self', NULL, NULL, NULL, NULL, true, true, NULL, NULL),
  ('days', 'self', 'app.clean', NULL, NULL, NULL, true, false, 'etl', NULL),
  ('ring_a', 'self', 'app.clean', NULL, NULL, NULL, true, false, NULL, NULL),
  ('ring_b', 'self', 'app.clean', NULL, NULL, NULL, true, false, NULL, NULL),
  ('gone', 'self', 'app.no_such_routine', NULL, NULL, NULL, true, false, NULL, NULL),
  ('holed', 'self', 'app.clean', NULL, NULL, NULL, true, false, NULL, NULL),
  ('remote', 'warehouse', 'dw.refresh', NULL, NULL, NULL, true, false, NULL, NULL),
  ('hand', 'robots', NULL, NULL, NULL, NULL, true, false, NULL, NULL);
INSERT INTO flow.flow_node (flow, node) VALUES
  ('etl', 'load'), ('etl', 'clean'), ('etl', 'check_it'), ('etl', 'publish'), ('etl', 'gate'), ('nightly', 'days'),
  ('cyclic', 'ring_a'), ('cyclic', 'ring_b'), ('lost', 'gone'), ('hollow', 'holed'), ('far', 'remote'), ('far', 'hand');
INSERT INTO flow.dependency_configuration VALUES
  ('etl', 'gate', 'load', false), ('etl', 'load', 'clean', false), ('etl', 'clean', 'check_it', false),
  ('etl', 'clean', 'publish', true), ('cyclic', 'ring_a', 'ring_b', false), ('cyclic', 'ring_b', 'ring_a', false);
INSERT INTO flow.step VALUES ('clean', '{"s": 1}'), ('clean', '{"s": 2, "of": null}'), ('holed', '{}');

-- Runs: 11 finished, 12 failed in a step, 13 cancelled, 14 with its child 15, 16 of two nodes only, 17 from the time when etl
-- had no "gate", 18 cyclic; 19 open.
INSERT INTO flow.flow (flow_id, flow, arguments, created, processed, only_these_nodes, count_nodes, count_finished_nodes,
    count_failed_nodes, first_error)
SELECT r.id, r.flow, jsonb_build_object('day', r.id), TIMESTAMPTZ '2024-01-01' + r.id * INTERVAL '1 day',
  CASE WHEN r.id <> 19 THEN TIMESTAMPTZ '2024-01-01' + r.id * INTERVAL '1 day' + INTERVAL '1 hour' END, r.these,
  5, 5, 0, r.error
FROM (VALUES (11, 'etl', NULL::TEXT[], NULL), (12, 'etl', NULL, 'Steps did not complete from boom'), (13, 'etl', NULL,
    'manual cancel'),
  (14, 'nightly', NULL, NULL), (15, 'etl', NULL, NULL), (16, 'etl', '{load,clean}', NULL), (17, 'etl', NULL, NULL),
  (18, 'cyclic', NULL, NULL), (19, 'etl', NULL, NULL)) AS r(id, flow, these, error);
INSERT INTO flow.dependency
SELECT f.flow_id, d.parent, d.child, d.continue_on_failure FROM flow.flow f JOIN flow.dependency_configuration d USING (flow)
WHERE NOT (f.flow_id = 17 AND d.parent = 'gate');
CREATE FUNCTION pg_temp.ran(_id BIGINT, _flow_id BIGINT, _node TEXT, _step JSONB, _status async.finish_status_t,
    _error TEXT DEFAULT NULL)
RETURNS VOID LANGUAGE sql AS $$
  INSERT INTO async.task (task_id, target, priority, entered, consumed, processed, finish_status, source, query, failed,
    processing_error, asynchronous_finish, task_data, concurrency_pool, tracked, track_yielded)
  SELECT _id, n.target, coalesce(n.priority, 0), f.created, f.created + INTERVAL '1 minute',
    CASE WHEN _status IS NOT NULL THEN f.created + INTERVAL '2 minutes' END, _status, 'test', 'CALL something()',
    CASE WHEN _status IS NOT NULL THEN _status <> 'FINISHED' END, _error, false,
    jsonb_build_object('flow_id', _flow_id, 'node', _node, 'step_arguments', _step), n.target, false, true
  FROM flow.node n, flow.flow f WHERE n.node = _node AND f.flow_id = _flow_id;
$$;
\o /dev/null
SELECT pg_temp.ran(1000 + r.flow_id * 10 + r.n, r.flow_id, r.node, r.step::JSONB, r.status::async.finish_status_t,
    r.error) FROM (VALUES
  (11, 1, 'gate', '{}', 'FINISHED', NULL), (11, 2, 'load', '{}', 'FINISHED', NULL), (11, 3, 'load', '{"part": 1}',
      'FINISHED', NULL),
  (11, 4, 'load', '{"part": 2}', 'FINISHED', NULL), (11, 5, 'clean', '{}', 'FINISHED', NULL), (11, 6, 'clean', '{"s": 1}',
      'FAILED', 'one of two'),
  (11, 7, 'check_it', '{}', 'FINISHED', NULL), (11, 8, 'publish', '{}', 'FINISHED', NULL),
  (12, 1, 'gate', '{}', 'FINISHED', NULL), (12, 2, 'load', '{}', 'FAILED', 'Steps did not complete from boom'),
  (12, 3, 'load', '{"part": 1}', 'FAILED', 'boom'), (12, 4, 'load', '{"part": 2}', 'CANCELED', NULL), (12, 5, 'clean',
      '{}', 'DOA', NULL),
  (12, 6, 'publish', '{}', 'FINISHED', NULL),
  (13, 1, 'gate', '{}', 'FINISHED', NULL), (13, 2, 'load', '{}', 'CANCELED', 'manual cancel'),
  (14, 1, 'days', '{}', 'FINISHED', NULL), (14, 2, 'days', '{"day": 1}', 'FINISHED', NULL),
  (15, 1, 'gate', '{}', 'FINISHED', NULL), (15, 2, 'load', '{}', 'FINISHED', NULL), (15, 3, 'clean', '{}', 'TIMED_OUT',
      'too slow'), (15, 4, 'publish', '{}', 'FINISHED', NULL),
  (16, 1, 'gate', '{}', 'FINISHED', NULL), (16, 2, 'load', '{}', 'FINISHED', NULL), (16, 3, 'clean', '{}', 'FINISHED', NULL),
  (16, 4, 'check_it', '{}', 'FINISHED', NULL), (16, 5, 'publish', '{}', 'FINISHED', NULL),
  (17, 1, 'load', '{}', 'FINISHED', NULL), (17, 2, 'clean', '{}', 'FINISHED', NULL), (17, 3, 'check_it', '{}', 'FINISHED',
      NULL), (17, 4, 'publish', '{}', 'FINISHED', NULL),
  (19, 1, 'gate', '{}', 'FINISHED', NULL), (19, 2, 'load', '{}', 'FINISHED', NULL), (19, 3, 'clean', '{}', NULL, NULL),
      (19, 4, 'clean', '{"s": 1}', NULL, NULL)
) AS r(flow_id, n, node, step, status, error);
UPDATE flow.flow SET parent_task_id = 1142, parent_flow_id = 14 WHERE flow_id = 15;
-- Tasks without a flow: one that ended, one that is open, one of a run that is gone, and the main loop's own.
INSERT INTO async.task (task_id, target, entered, consumed, processed, finish_status, query, failed, processing_error,
    task_data, concurrency_pool) VALUES
  (501, 'self', '2024-01-01', '2024-01-01 00:01', '2024-01-01 00:02', 'FAILED', 'SELECT 1/0', true, 'division by zero',
      '{"mine": 1}', 'api'),
  (502, 'self', '2024-01-01', NULL, NULL, NULL, 'SELECT 1', NULL, NULL, NULL, 'self'),
  (503, 'self', '2024-01-01', '2024-01-01', '2024-01-01', 'FINISHED', 'CALL x()', false, NULL,
      '{"flow_id": 3, "node": "load", "step_arguments": {}}', 'self'),
  (504, 'async.self', '2024-01-01', NULL, NULL, NULL, NULL, NULL, NULL, '{"task_ids": [1]}', 'async.self');
SELECT setval('async.task_task_id_seq', 5000), setval('flow.flow_flow_id_seq', 40);
\o
