-- A stand-in for an installation of the SQL library: the tables and functions that scripts/migrate.sql reads, with two flows,
-- an ended run, and callbacks of an ordinary role.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE SCHEMA async;
CREATE SCHEMA flow;
CREATE TABLE async.control (enabled BOOL, workers INT, idle_sleep FLOAT8, self_target TEXT, self_connection_string TEXT,
  task_keep_duration INTERVAL, default_timeout INTERVAL, advisory_mutex_id INT, pid INT, paused BOOL);
INSERT INTO async.control VALUES (true, 20, 1.0, 'async.self', 'host=localhost', '30 days', '1 hour', 0, 4711, false);
CREATE TABLE async.target (target TEXT PRIMARY KEY, max_concurrency INT, connection_string TEXT, asynchronous_finish BOOL,
  default_timeout INTERVAL, concurrency_track_yielded BOOL, enabled BOOL);
INSERT INTO async.target VALUES ('async.self', 8, 'host=localhost', false, NULL, false, true),
  ('reports', 3, format('host=localhost dbname=%s', current_database()), false, '10 minutes', NULL, true),
  ('lambda', 5, NULL, true, NULL, true, true);
CREATE TABLE async.concurrency_pool (concurrency_pool TEXT PRIMARY KEY, max_workers INT, workers INT);
INSERT INTO async.concurrency_pool VALUES ('reports', 3, 0), ('narrow', 1, 0);
CREATE TABLE async.task (task_id BIGSERIAL PRIMARY KEY, target TEXT REFERENCES async.target, processed TIMESTAMPTZ);

CREATE TYPE flow.callback_arguments_t AS (
  flow_id BIGINT, flow TEXT, flow_arguments JSONB, node TEXT, step_arguments JSONB, task_id BIGINT);
CREATE TABLE flow.flow (flow_id BIGSERIAL PRIMARY KEY, flow TEXT, arguments JSONB, created TIMESTAMPTZ DEFAULT now(), processed TIMESTAMPTZ);
INSERT INTO flow.flow (flow, arguments, processed) VALUES ('nightly', '{"day": 1}', now());
CREATE FUNCTION flow.configuration() RETURNS JSONB LANGUAGE sql AS $$
  SELECT '{
    "nightly": {"nodes": [
      {"node": "load", "target": "async.self", "routine": "load_all"},
      {"node": "report", "target": "reports", "dependencies": [{"parent": "load", "continue_on_failure": false}]}]},
    "hourly": {"nodes": [{"node": "app.refresh", "target": "reports"}]}}'::JSONB
$$;

CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO migrated;
CREATE TABLE ran (node TEXT);
GRANT INSERT ON ran TO migrated;
CREATE PROCEDURE load_all(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.ran VALUES ((_args).node); END $$;
CREATE PROCEDURE report(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.ran VALUES ((_args).node); END $$;
CREATE PROCEDURE app.refresh(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE _copy flow.callback_arguments_t := _args;
BEGIN INSERT INTO public.ran VALUES (_copy.node); END $$;
ALTER PROCEDURE app.refresh OWNER TO migrated;
REVOKE ALL ON PROCEDURE app.refresh FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE app.refresh TO migrated;
