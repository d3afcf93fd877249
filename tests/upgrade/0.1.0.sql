-- What version 0.1.0, with its own library, had left when its server was stopped in the middle of work: made with fill.sql,
-- which says how. Loaded after CREATE EXTENSION pgflow VERSION '0.1.0', as pg_dump's output would be. Never edited.
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET client_min_messages = warning;
CREATE SCHEMA t;
CREATE PROCEDURE t.defers(IN _args flow.callback_arguments_t)
    LANGUAGE plpgsql
    AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM t.gate) THEN
    CALL flow.defer(_args, interval '2 s');
  ELSE
    INSERT INTO t.log (what) VALUES (_args.flow_id || ' ' || _args.node);
  END IF;
END $$;
CREATE PROCEDURE t.fails(IN _args flow.callback_arguments_t)
    LANGUAGE plpgsql
    AS $$
BEGIN
  RAISE EXCEPTION 'this one fails';
END $$;
CREATE PROCEDURE t.notes(IN _args flow.callback_arguments_t)
    LANGUAGE plpgsql
    AS $$
BEGIN
  RAISE NOTICE 'noting %', _args.node;
  INSERT INTO t.log (what) VALUES (_args.flow_id || ' ' || _args.node || coalesce(' ' || (_args.step_arguments->>'s'), ''));
END $$;
CREATE FUNCTION t.pool(_flow_id bigint, _node text) RETURNS text
    LANGUAGE sql
    AS $$ SELECT 'some' $$;
CREATE PROCEDURE t.pushes(IN _args flow.callback_arguments_t)
    LANGUAGE plpgsql
    AS $$
DECLARE
  _steps CONSTANT JSONB[] := ARRAY(SELECT jsonb_build_object('s', i) FROM generate_series(1, 3) i);
BEGIN
  CALL flow.push_steps(_args.flow_id, _args.node, _steps);
END $$;
CREATE PROCEDURE t.waits(IN _args flow.callback_arguments_t)
    LANGUAGE plpgsql
    AS $$
BEGIN
  FOR i IN 1..6000 LOOP EXIT WHEN EXISTS (SELECT FROM t.gate); PERFORM pg_sleep(0.01); END LOOP;
  INSERT INTO t.log (what) VALUES (_args.flow_id || ' ' || _args.node || coalesce(' ' || (_args.step_arguments->>'s'), ''));
END $$;
CREATE TABLE t.gate (
    i integer
);
CREATE TABLE t.log (
    id integer NOT NULL,
    what text,
    who name DEFAULT CURRENT_USER
);
CREATE SEQUENCE t.log_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE t.log_id_seq OWNED BY t.log.id;
CREATE TABLE t.numbers (
    n integer
);
ALTER TABLE ONLY t.log ALTER COLUMN id SET DEFAULT nextval('t.log_id_seq'::regclass);
INSERT INTO async.claim (claim_id, task_ids, attempts, alone) OVERRIDING SYSTEM VALUE VALUES
  (52, '{16}', '{2}', false);
INSERT INTO async.concurrency_pool (concurrency_pool, max_workers) VALUES
  ('some', 2);
INSERT INTO async.control (only_row, workers, self_target, self_connection_string, self_concurrency, default_timeout, default_concurrency_pool_workers, task_keep_duration, advisory_mutex_id, debug_log, paused) VALUES
  (true, NULL, 'async.self', NULL, NULL, NULL, 8, '100 years', NULL, false, false);
INSERT INTO async.engine_state (only_row, system_identifier, database_oid, clean_stop, engine_id, open_low, next_low, next_writers) VALUES
  (true, 7710287991743535253, 17968, true, '80d403b1-b21f-485d-99d9-87430b0632df', 0, 4, '{}');
INSERT INTO async.execution (execution_id, task_id, query_id, query_hash, query, tier, target, created_at, created_by, quota_key, collapsed_counter, open, status, picked_at, completed_at, result, error, expires) OVERRIDING SYSTEM VALUE VALUES
  (1, 29, 'seven', '81e5e8f9484ecd2d4f7f9f1fb07382366dac72db4bd8827c90be6ee2d3b5b86c', 'SELECT 7 AS seven', '', 'local', '2026-11-20 16:15:37.417326+00', 'upgrade_alice', NULL, 0, true, NULL, NULL, NULL, NULL, NULL, NULL),
  (2, 30, 'eight', '64e6d30abf6ffbf7a1d1bce6adec6f3f074b61d6ae10dc3119250e35e94a162d', 'SELECT 8 AS eight', '', 'there', '2026-11-20 16:15:37.430185+00', 'upgrade_alice', NULL, 0, true, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO async.external_queue (target, priority, task_id, eligible_when) VALUES
  ('outside', 0, 19, NULL),
  ('outside', 0, 25, NULL);
INSERT INTO async.result (task_id, attempt, run_as, kept_as, store, path, location, format, compression, rows, bytes, meta, content, created, expires, state, later) VALUES
  (11, 1, 'upgrade_alice', 'inline', NULL, NULL, NULL, NULL, 'none', 1, 3, '[{"name": "answer", "type": "integer", "shape": "int"}]', '[{"answer": 42}]', '2026-11-20 16:15:37.136147+00', NULL, 'kept', NULL),
  (29, 1, 'upgrade_alice', 'inline', NULL, NULL, NULL, NULL, 'none', 1, 2, '[{"name": "seven", "type": "integer", "shape": "int"}]', '[{"seven": 7}]', '2026-11-20 16:15:37.44797+00', '2027-02-18 16:15:37.44797+00', 'kept', NULL);
INSERT INTO async.server_log (server_log_id, happened, level, message) OVERRIDING SYSTEM VALUE VALUES
  (1, '2026-11-20 16:15:37.449563+00', 'NOTICE', 'a line of the log');
INSERT INTO async.target (target, kind, max_concurrency, connection_string, asynchronous_finish, default_timeout, concurrency_track_yielded, server, options, owner) VALUES
  ('local', 'local', 8, NULL, false, NULL, false, NULL, '{}', 'postgres'),
  ('later', 'local', 7, NULL, true, NULL, false, NULL, '{}', 'postgres'),
  ('outside', 'external', 8, NULL, false, '01:00:00', false, NULL, '{}', 'postgres'),
  ('there', 'postgres', 3, 'host=127.0.0.1 port=1 dbname=postgres user=postgres sslmode=disable', false, NULL, false, NULL, '{}', 'postgres');
INSERT INTO async.target_down (target, since, next_try, tries, error) VALUES
  ('there', '2026-11-20 16:15:37.446123+00', '2026-11-20 16:15:58.387941+00', 4, 'cannot connect to 127.0.0.1:1: nobody listens there');
INSERT INTO async.task (task_id, target, priority, run_as, entered, consumed, first_consumed, yielded, processed, finish_status, failed, processing_error, eligible_when, times_up, attempt, crashes, suspect, partially_committed, asynchronous_finish, track_yielded, on_partial_fail, is_step, flow_id, node_no, concurrency_pool, manual_timeout, source, query, task_data, unsure_since, intention, options) VALUES
  (2, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.018689+00', '2026-11-20 16:15:37.068387+00', '2026-11-20 16:15:37.068387+00', NULL, '2026-11-20 16:15:37.074067+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, 2, 0, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (1, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.01101+00', '2026-11-20 16:15:37.07295+00', '2026-11-20 16:15:37.07295+00', NULL, '2026-11-20 16:15:37.07859+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, 1, 0, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (5, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.086276+00', '2026-11-20 16:15:37.088902+00', '2026-11-20 16:15:37.088902+00', NULL, '2026-11-20 16:15:37.089668+00', 'FAILED', true, 'this one fails', NULL, NULL, 1, 0, false, false, false, false, false, false, 2, 1, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (6, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.09078+00', '2026-11-20 16:15:37.091435+00', '2026-11-20 16:15:37.091435+00', NULL, '2026-11-20 16:15:37.104213+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, 1, 1, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (10, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.108148+00', '2026-11-20 16:15:37.108986+00', '2026-11-20 16:15:37.108986+00', NULL, '2026-11-20 16:15:37.109176+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, 2, 3, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (7, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.103803+00', '2026-11-20 16:15:37.119271+00', '2026-11-20 16:15:37.119271+00', NULL, '2026-11-20 16:15:37.119466+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, true, 1, 1, NULL, NULL, 'flow', NULL, '{"s": 1}', NULL, 0, NULL),
  (8, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.103817+00', '2026-11-20 16:15:37.120616+00', '2026-11-20 16:15:37.120616+00', NULL, '2026-11-20 16:15:37.120792+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, true, 1, 1, NULL, NULL, 'flow', NULL, '{"s": 2}', NULL, 0, NULL),
  (9, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.103821+00', '2026-11-20 16:15:37.1297+00', '2026-11-20 16:15:37.1297+00', NULL, '2026-11-20 16:15:37.12988+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, true, 1, 1, NULL, NULL, 'flow', NULL, '{"s": 3}', NULL, 0, NULL),
  (3, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.020576+00', '2026-11-20 16:15:37.079027+00', '2026-11-20 16:15:37.079027+00', NULL, '2026-11-20 16:15:37.280363+00', 'TIMED_OUT', true, 'time-out: it took too long', NULL, NULL, 1, 0, false, false, false, false, false, false, 3, 0, NULL, '00:00:00.2', 'flow', NULL, NULL, NULL, 0, NULL),
  (4, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.022301+00', '2026-11-20 16:15:37.073121+00', '2026-11-20 16:15:37.073121+00', NULL, '2026-11-20 16:15:37.292633+00', 'CANCELED', true, 'cancelled by upgrade_alice', NULL, NULL, 1, 0, false, false, false, false, false, false, 4, 0, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (13, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.34053+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'infinity', NULL, 0, 0, false, false, false, false, false, true, 5, 4, '', NULL, 'flow', NULL, '{"s": 7}', NULL, 0, NULL),
  (14, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.340542+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'infinity', NULL, 0, 0, false, false, false, false, false, true, 5, 4, '', NULL, 'flow', NULL, '{"s": 8}', NULL, 0, NULL),
  (15, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.360597+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 1, false, false, false, false, false, false, 6, 0, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (12, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.327852+00', '2026-11-20 16:15:37.354459+00', '2026-11-20 16:15:37.354459+00', NULL, '2026-11-20 16:15:37.354684+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, 5, 0, 'some', NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (22, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.379807+00', '2026-11-20 16:15:37.39621+00', '2026-11-20 16:15:37.39621+00', NULL, '2026-11-20 16:15:37.396826+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, 7, 1, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (11, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.134491+00', '2026-11-20 16:15:37.13563+00', '2026-11-20 16:15:37.13563+00', NULL, '2026-11-20 16:15:37.137986+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, 1, 3, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (19, 'outside', 0, 'upgrade_alice', '2026-11-20 16:15:37.362472+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, false, false, false, false, false, false, 5, 5, '', NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (16, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.362458+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 1, false, false, false, false, false, false, 5, 1, 'some', NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (17, 'later', 0, 'upgrade_alice', '2026-11-20 16:15:37.362468+00', '2026-11-20 16:15:37.371764+00', '2026-11-20 16:15:37.371764+00', '2026-11-20 16:15:37.372137+00', NULL, 'YIELDED', NULL, NULL, NULL, NULL, 1, 0, false, false, true, false, false, false, 5, 2, 'some', NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (21, 'there', 0, 'upgrade_alice', '2026-11-20 16:15:37.362476+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, false, false, false, false, false, false, 5, 7, 'some', NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (20, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.362474+00', '2026-11-20 16:15:37.405215+00', '2026-11-20 16:15:37.405215+00', NULL, '2026-11-20 16:15:37.409266+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, 5, 6, 'some', NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (18, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.36247+00', NULL, '2026-11-20 16:15:37.387098+00', NULL, NULL, 'DEFERRED', NULL, NULL, '2026-11-20 16:15:49.408535+00', NULL, 6, 0, false, false, false, false, false, false, 5, 3, 'some', NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (25, 'outside', 0, 'upgrade_alice', '2026-11-20 16:15:37.404257+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, false, false, false, false, false, false, NULL, NULL, NULL, NULL, NULL, 'SELECT 3', '{"some": "data"}', NULL, 0, NULL),
  (23, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.404172+00', '2026-11-20 16:15:37.415172+00', '2026-11-20 16:15:37.415172+00', NULL, '2026-11-20 16:15:37.415296+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, NULL, NULL, NULL, NULL, NULL, 'INSERT INTO t.log (what) VALUES (''a query'')', NULL, NULL, 0, NULL),
  (30, 'there', 0, 'upgrade_alice', '2026-11-20 16:15:37.431144+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, false, false, false, false, false, false, NULL, NULL, NULL, NULL, 'push_query', 'SELECT 8 AS eight', NULL, NULL, 0, '{"result": "inline"}'),
  (31, 'there', 0, 'upgrade_alice', '2026-11-20 16:15:37.438713+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, false, false, false, false, false, false, NULL, NULL, NULL, NULL, 'push_query', 'SELECT {secret:String}', NULL, NULL, 0, NULL),
  (24, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.404253+00', '2026-11-20 16:15:37.441834+00', '2026-11-20 16:15:37.441834+00', NULL, '2026-11-20 16:15:37.442098+00', 'FAILED', true, 'division by zero', NULL, NULL, 1, 0, false, false, false, false, false, false, NULL, NULL, NULL, NULL, NULL, 'SELECT 1/0', NULL, NULL, 0, NULL),
  (26, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.408742+00', '2026-11-20 16:15:37.447309+00', '2026-11-20 16:15:37.447309+00', '2026-11-20 16:15:37.44755+00', NULL, 'YIELDED', NULL, NULL, NULL, NULL, 1, 0, false, false, false, false, false, true, 5, 6, 'some', NULL, 'flow', NULL, '{"s": 1}', NULL, 0, NULL),
  (29, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.419826+00', '2026-11-20 16:15:37.44746+00', '2026-11-20 16:15:37.44746+00', NULL, '2026-11-20 16:15:37.45075+00', 'FINISHED', false, NULL, NULL, NULL, 1, 0, false, false, false, false, false, false, NULL, NULL, NULL, NULL, 'push_query', 'SELECT 7 AS seven', NULL, NULL, 0, '{"result": "inline"}'),
  (27, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.408763+00', '2026-11-20 16:15:37.482456+00', '2026-11-20 16:15:37.482456+00', '2026-11-20 16:15:37.482505+00', NULL, 'YIELDED', NULL, NULL, NULL, NULL, 1, 0, false, false, false, false, false, true, 5, 6, 'some', NULL, 'flow', NULL, '{"s": 2}', NULL, 0, NULL),
  (28, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.40877+00', '2026-11-20 16:15:37.499745+00', '2026-11-20 16:15:37.499745+00', '2026-11-20 16:15:37.499793+00', NULL, 'YIELDED', NULL, NULL, NULL, NULL, 1, 0, false, false, false, false, false, true, 5, 6, 'some', NULL, 'flow', NULL, '{"s": 3}', NULL, 0, NULL),
  (32, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.46268+00', NULL, '2026-11-20 16:15:37.478741+00', NULL, NULL, 'DEFERRED', NULL, NULL, '2026-11-20 16:15:49.496755+00', NULL, 6, 0, false, false, false, false, false, false, 8, 0, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (33, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.483591+00', NULL, '2026-11-20 16:15:37.498374+00', NULL, NULL, 'DEFERRED', NULL, NULL, '2026-11-20 16:15:49.51248+00', NULL, 6, 0, false, false, false, false, false, false, 9, 0, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL),
  (34, 'local', 0, 'upgrade_alice', '2026-11-20 16:15:37.500765+00', NULL, '2026-11-20 16:15:37.503135+00', NULL, NULL, 'DEFERRED', NULL, NULL, '2026-11-20 16:15:49.516275+00', NULL, 6, 0, false, false, false, false, false, false, 10, 0, NULL, NULL, 'flow', NULL, NULL, NULL, 0, NULL);
INSERT INTO async.task_log (task_id, attempt, seq, at, level, message) VALUES
  (2, 1, 1, '2026-11-20 16:15:37.074495+00', 'NOTICE', 'noting a'),
  (1, 1, 1, '2026-11-20 16:15:37.078983+00', 'NOTICE', 'noting a'),
  (10, 1, 1, '2026-11-20 16:15:37.109235+00', 'NOTICE', 'noting d'),
  (7, 1, 1, '2026-11-20 16:15:37.11952+00', 'NOTICE', 'noting b'),
  (8, 1, 1, '2026-11-20 16:15:37.120845+00', 'NOTICE', 'noting b'),
  (9, 1, 1, '2026-11-20 16:15:37.129935+00', 'NOTICE', 'noting b'),
  (12, 1, 1, '2026-11-20 16:15:37.354741+00', 'NOTICE', 'noting done'),
  (17, 1, 1, '2026-11-20 16:15:37.372194+00', 'NOTICE', 'noting yield'),
  (18, 1, 1000000, '2026-11-20 16:15:37.388613+00', 'STATUS', 'put off for 2s'),
  (22, 1, 1, '2026-11-20 16:15:37.397261+00', 'NOTICE', 'noting next'),
  (32, 1, 1000000, '2026-11-20 16:15:37.480173+00', 'STATUS', 'put off for 2s'),
  (33, 1, 1000000, '2026-11-20 16:15:37.49876+00', 'STATUS', 'put off for 2s'),
  (34, 1, 1000000, '2026-11-20 16:15:37.503456+00', 'STATUS', 'put off for 2s'),
  (18, 2, 1000000, '2026-11-20 16:15:39.392567+00', 'STATUS', 'put off for 2s'),
  (32, 2, 1000000, '2026-11-20 16:15:39.483368+00', 'STATUS', 'put off for 2s'),
  (33, 2, 1000000, '2026-11-20 16:15:39.500709+00', 'STATUS', 'put off for 2s'),
  (34, 2, 1000000, '2026-11-20 16:15:39.505495+00', 'STATUS', 'put off for 2s'),
  (18, 3, 1000000, '2026-11-20 16:15:41.39926+00', 'STATUS', 'put off for 2s'),
  (32, 3, 1000000, '2026-11-20 16:15:41.490274+00', 'STATUS', 'put off for 2s'),
  (33, 3, 1000000, '2026-11-20 16:15:41.502516+00', 'STATUS', 'put off for 2s'),
  (34, 3, 1000000, '2026-11-20 16:15:41.510588+00', 'STATUS', 'put off for 2s'),
  (18, 4, 1000000, '2026-11-20 16:15:43.402157+00', 'STATUS', 'put off for 2s'),
  (32, 4, 1000000, '2026-11-20 16:15:43.492534+00', 'STATUS', 'put off for 2s'),
  (33, 4, 1000000, '2026-11-20 16:15:43.50419+00', 'STATUS', 'put off for 2s'),
  (34, 4, 1000000, '2026-11-20 16:15:43.511888+00', 'STATUS', 'put off for 2s'),
  (18, 5, 1000000, '2026-11-20 16:15:45.405645+00', 'STATUS', 'put off for 2s'),
  (32, 5, 1000000, '2026-11-20 16:15:45.49483+00', 'STATUS', 'put off for 2s'),
  (33, 5, 1000000, '2026-11-20 16:15:45.510561+00', 'STATUS', 'put off for 2s'),
  (34, 5, 1000000, '2026-11-20 16:15:45.514148+00', 'STATUS', 'put off for 2s'),
  (18, 6, 1000000, '2026-11-20 16:15:47.408457+00', 'STATUS', 'put off for 2s'),
  (32, 6, 1000000, '2026-11-20 16:15:47.496678+00', 'STATUS', 'put off for 2s'),
  (33, 6, 1000000, '2026-11-20 16:15:47.512407+00', 'STATUS', 'put off for 2s'),
  (34, 6, 1000000, '2026-11-20 16:15:47.516204+00', 'STATUS', 'put off for 2s'),
  (16, 1, 1000000, '2026-11-20 16:15:48.814929+00', 'STATUS', 'attempt 1 was lost: its worker was terminated'),
  (15, 1, 1000000, '2026-11-20 16:15:48.8207+00', 'STATUS', 'attempt 1 was lost: its worker was terminated');
INSERT INTO async.task_secret (task_id, secrets) VALUES
  (31, '{"secret": "not to be told"}');
INSERT INTO flow.configured (flow, definition_id, owner) VALUES
  ('good', 1, 'upgrade_alice'),
  ('bad', 2, 'upgrade_alice'),
  ('slow', 3, 'upgrade_alice'),
  ('stopped', 4, 'upgrade_alice'),
  ('inner', 5, 'upgrade_alice'),
  ('open', 6, 'upgrade_alice'),
  ('changed', 8, 'upgrade_alice');
INSERT INTO flow.definition (definition_id, flow, configuration, concurrency_group_routine, priority, run_as, author, created) OVERRIDING SYSTEM VALUE VALUES
  (1, 'good', '{"nodes": [{"node": "a", "routine": "t.notes"}, {"node": "b", "routine": "t.pushes", "dependencies": [{"parent": "a"}], "step_routine": "t.notes"}, {"node": "c", "empty": true, "dependencies": [{"parent": "b"}]}, {"node": "d", "query": "SELECT 42 AS answer", "result": "inline", "dependencies": [{"parent": "c"}]}]}', NULL, 0, NULL, 'upgrade_alice', '2026-11-20 16:15:36.989764+00'),
  (2, 'bad', '{"nodes": [{"node": "a", "routine": "t.notes"}, {"node": "b", "routine": "t.fails", "dependencies": [{"parent": "a"}]}, {"node": "c", "routine": "t.notes", "dependencies": [{"parent": "b"}]}, {"node": "d", "routine": "t.notes", "dependencies": [{"parent": "b", "continue_on_failure": true}]}]}', NULL, 0, NULL, 'upgrade_alice', '2026-11-20 16:15:36.994485+00'),
  (3, 'slow', '{"nodes": [{"node": "a", "routine": "t.waits", "node_timeout": "0.2 s"}]}', NULL, 0, NULL, 'upgrade_alice', '2026-11-20 16:15:36.998157+00'),
  (4, 'stopped', '{"nodes": [{"node": "a", "routine": "t.waits"}]}', NULL, 0, NULL, 'upgrade_alice', '2026-11-20 16:15:37.001163+00'),
  (5, 'inner', '{"nodes": [{"node": "a", "routine": "t.defers"}]}', NULL, 0, NULL, 'upgrade_alice', '2026-11-20 16:15:37.304879+00'),
  (6, 'open', '{"nodes": [{"node": "done", "routine": "t.notes"}, {"node": "wait", "steps": [{"s": 1}, {"s": 2}, {"s": 3}], "routine": "t.waits", "dependencies": [{"parent": "done"}]}, {"node": "yield", "target": "later", "routine": "t.notes", "dependencies": [{"parent": "done"}]}, {"node": "defer", "routine": "t.defers", "dependencies": [{"parent": "done"}]}, {"node": "hold", "routine": "t.notes", "dependencies": [{"parent": "yield"}, {"parent": "wait"}]}, {"node": "take", "target": "outside", "routine": "t.notes", "dependencies": [{"parent": "done"}]}, {"node": "child", "routine": "t.pushes", "dependencies": [{"parent": "done"}], "steps_to_flow": "inner"}, {"node": "there", "query": "SELECT 1", "target": "there", "dependencies": [{"parent": "done"}]}, {"node": "table", "query": "SELECT g AS n FROM generate_series(1, 5) g", "result": {"to": "table", "table": "t.numbers"}, "target": "there", "dependencies": [{"parent": "there"}]}, {"node": "last", "routine": "t.notes", "dependencies": [{"parent": "hold"}, {"parent": "defer"}, {"parent": "child"}, {"parent": "table"}, {"parent": "take"}]}], "concurrency_group_routine": "t.pool"}', 't.pool', 0, NULL, 'upgrade_alice', '2026-11-20 16:15:37.316449+00'),
  (7, 'changed', '{"nodes": [{"node": "old", "routine": "t.waits"}, {"node": "next", "routine": "t.notes", "dependencies": [{"parent": "old"}]}]}', NULL, 0, NULL, 'upgrade_alice', '2026-11-20 16:15:37.346555+00'),
  (8, 'changed', '{"nodes": [{"node": "new", "routine": "t.notes"}]}', NULL, 0, NULL, 'upgrade_alice', '2026-11-20 16:15:37.394662+00');
INSERT INTO flow.definition_edge (definition_id, parent_no, node_no, continue_on_failure) VALUES
  (1, 0, 1, false),
  (1, 1, 2, false),
  (1, 2, 3, false),
  (2, 0, 1, false),
  (2, 1, 2, false),
  (2, 1, 3, true),
  (6, 0, 1, false),
  (6, 0, 2, false),
  (6, 0, 3, false),
  (6, 2, 4, false),
  (6, 1, 4, false),
  (6, 0, 5, false),
  (6, 0, 6, false),
  (6, 0, 7, false),
  (6, 7, 8, false),
  (6, 4, 9, false),
  (6, 3, 9, false),
  (6, 6, 9, false),
  (6, 8, 9, false),
  (6, 5, 9, false),
  (7, 0, 1, false);
INSERT INTO flow.definition_node (definition_id, node_no, node, rank, target, routine, routine_resolved, step_routine, step_routine_resolved, priority, all_steps_must_complete, empty, steps_to_flow, synchronous, node_timeout, step_timeout, on_partial_fail, count_parents, steps, query, step_query, query_routine, query_routine_resolved, options) VALUES
  (1, 0, 'a', 0, NULL, 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
  (1, 1, 'b', 1, NULL, 't.pushes', 't.pushes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (1, 2, 'c', 2, NULL, NULL, NULL, 'c', NULL, 0, true, true, NULL, false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (1, 3, 'd', 3, NULL, NULL, NULL, NULL, NULL, 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, 'SELECT 42 AS answer', 'SELECT 42 AS answer', NULL, NULL, '{"result": "inline"}'),
  (2, 0, 'a', 0, NULL, 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
  (2, 1, 'b', 1, NULL, 't.fails', 't.fails', 't.fails', 't.fails', 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (2, 2, 'c', 2, NULL, 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (2, 3, 'd', 2, NULL, 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (3, 0, 'a', 0, NULL, 't.waits', 't.waits', 't.waits', 't.waits', 0, true, false, NULL, false, '00:00:00.2', NULL, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
  (4, 0, 'a', 0, NULL, 't.waits', 't.waits', 't.waits', 't.waits', 0, true, false, NULL, false, NULL, NULL, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
  (5, 0, 'a', 0, NULL, 't.defers', 't.defers', 't.defers', 't.defers', 0, true, false, NULL, false, NULL, NULL, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 0, 'done', 0, NULL, 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 1, 'wait', 1, NULL, 't.waits', 't.waits', 't.waits', 't.waits', 0, true, false, NULL, false, NULL, NULL, false, 1, '[{"s": 1}, {"s": 2}, {"s": 3}]', NULL, NULL, NULL, NULL, NULL),
  (6, 2, 'yield', 1, 'later', 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 3, 'defer', 1, NULL, 't.defers', 't.defers', 't.defers', 't.defers', 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 4, 'hold', 2, NULL, 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 2, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 5, 'take', 1, 'outside', 't.notes', NULL, 't.notes', NULL, 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 6, 'child', 1, NULL, 't.pushes', 't.pushes', NULL, NULL, 0, true, false, 'inner', false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 7, 'there', 1, 'there', NULL, NULL, NULL, NULL, 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, 'SELECT 1', 'SELECT 1', NULL, NULL, NULL),
  (6, 8, 'table', 2, 'there', NULL, NULL, NULL, NULL, 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, 'SELECT g AS n FROM generate_series(1, 5) g', 'SELECT g AS n FROM generate_series(1, 5) g', NULL, NULL, '{"result": {"to": "table", "table": "t.numbers"}}'),
  (6, 9, 'last', 3, NULL, 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 5, NULL, NULL, NULL, NULL, NULL, NULL),
  (7, 0, 'old', 0, NULL, 't.waits', 't.waits', 't.waits', 't.waits', 0, true, false, NULL, false, NULL, NULL, false, 0, NULL, NULL, NULL, NULL, NULL, NULL),
  (7, 1, 'next', 1, NULL, 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 1, NULL, NULL, NULL, NULL, NULL, NULL),
  (8, 0, 'new', 0, NULL, 't.notes', 't.notes', 't.notes', 't.notes', 0, true, false, NULL, false, NULL, NULL, false, 0, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO flow.flow (flow_id, flow, definition_id, run_as, arguments, created, processed, cancelled, parent_task_id, parent_flow_id, depth, only_these_nodes, force_priority, count_nodes, count_finished_nodes, count_failed_nodes, first_error) VALUES
  (2, 'bad', 2, 'upgrade_alice', '{"run": 2}', '2026-11-20 16:15:37.017705+00', '2026-11-20 16:15:37.11951+00', false, NULL, NULL, 0, NULL, NULL, 4, 4, 2, 'b: this one fails'),
  (1, 'good', 1, 'upgrade_alice', '{"run": 1}', '2026-11-20 16:15:37.0083+00', '2026-11-20 16:15:37.146285+00', false, NULL, NULL, 0, NULL, NULL, 4, 4, 0, NULL),
  (3, 'slow', 3, 'upgrade_alice', '{"run": 3}', '2026-11-20 16:15:37.01976+00', '2026-11-20 16:15:37.286442+00', false, NULL, NULL, 0, NULL, NULL, 1, 1, 1, 'a: time-out: it took too long'),
  (4, 'stopped', 4, 'upgrade_alice', '{"run": 4}', '2026-11-20 16:15:37.021498+00', '2026-11-20 16:15:37.291203+00', true, NULL, NULL, 0, NULL, NULL, 1, 1, 1, 'cancelled by upgrade_alice'),
  (6, 'changed', 7, 'upgrade_alice', '{"run": 7}', '2026-11-20 16:15:37.358801+00', NULL, false, NULL, NULL, 0, NULL, NULL, 2, 0, 0, NULL),
  (5, 'open', 6, 'upgrade_alice', '{"run": 5}', '2026-11-20 16:15:37.326723+00', NULL, false, NULL, NULL, 0, NULL, NULL, 10, 1, 0, NULL),
  (7, 'changed', 7, 'upgrade_alice', '{"run": 8}', '2026-11-20 16:15:37.367665+00', '2026-11-20 16:15:37.414714+00', false, NULL, NULL, 0, '{next}', NULL, 2, 2, 0, NULL),
  (8, 'inner', 5, 'upgrade_alice', '{"s": 1}', '2026-11-20 16:15:37.455671+00', NULL, false, 26, 5, 1, NULL, NULL, 1, 0, 0, NULL),
  (9, 'inner', 5, 'upgrade_alice', '{"s": 2}', '2026-11-20 16:15:37.483242+00', NULL, false, 27, 5, 1, NULL, NULL, 1, 0, 0, NULL),
  (10, 'inner', 5, 'upgrade_alice', '{"s": 3}', '2026-11-20 16:15:37.500439+00', NULL, false, 28, 5, 1, NULL, NULL, 1, 0, 0, NULL);
INSERT INTO flow.flow_node (flow_id, node_no, node, state, excluded, parents_open, blocked_by, task_id, concurrency_pool, opened, ended, times_up, error) VALUES
  (7, 0, 'old', 'N', true, 0, NULL, NULL, NULL, NULL, '2026-11-20 16:15:37.368052+00', NULL, NULL),
  (5, 7, 'there', 'O', false, 0, NULL, 21, 'some', '2026-11-20 16:15:37.362246+00', NULL, NULL, NULL),
  (2, 0, 'a', 'F', false, 0, NULL, 2, NULL, '2026-11-20 16:15:37.01818+00', '2026-11-20 16:15:37.0827+00', NULL, NULL),
  (7, 1, 'next', 'F', false, 0, NULL, 22, NULL, '2026-11-20 16:15:37.379131+00', '2026-11-20 16:15:37.414529+00', NULL, NULL),
  (5, 6, 'child', 'S', false, 0, NULL, 20, 'some', '2026-11-20 16:15:37.36224+00', NULL, NULL, NULL),
  (1, 0, 'a', 'F', false, 0, NULL, 1, NULL, '2026-11-20 16:15:37.009866+00', '2026-11-20 16:15:37.090438+00', NULL, NULL),
  (8, 0, 'a', 'O', false, 0, NULL, 32, NULL, '2026-11-20 16:15:37.457178+00', NULL, NULL, NULL),
  (2, 1, 'b', 'E', false, 0, NULL, 5, NULL, '2026-11-20 16:15:37.084689+00', '2026-11-20 16:15:37.105971+00', NULL, 'this one fails'),
  (9, 0, 'a', 'O', false, 0, NULL, 33, NULL, '2026-11-20 16:15:37.483415+00', NULL, NULL, NULL),
  (2, 2, 'c', 'K', false, 0, 'b', NULL, NULL, NULL, '2026-11-20 16:15:37.107862+00', NULL, 'not run because b failed'),
  (10, 0, 'a', 'O', false, 0, NULL, 34, NULL, '2026-11-20 16:15:37.500603+00', NULL, NULL, NULL),
  (2, 3, 'd', 'F', false, 0, NULL, 10, NULL, '2026-11-20 16:15:37.107878+00', '2026-11-20 16:15:37.119266+00', NULL, NULL),
  (1, 1, 'b', 'F', false, 0, NULL, 6, NULL, '2026-11-20 16:15:37.090642+00', '2026-11-20 16:15:37.13398+00', NULL, NULL),
  (1, 2, 'c', 'F', false, 0, NULL, NULL, NULL, '2026-11-20 16:15:37.134197+00', '2026-11-20 16:15:37.134197+00', NULL, NULL),
  (1, 3, 'd', 'F', false, 0, NULL, 11, NULL, '2026-11-20 16:15:37.134362+00', '2026-11-20 16:15:37.146126+00', NULL, NULL),
  (3, 0, 'a', 'T', false, 0, NULL, 3, NULL, '2026-11-20 16:15:37.02014+00', '2026-11-20 16:15:37.285986+00', NULL, 'time-out: it took too long'),
  (4, 0, 'a', 'C', false, 0, NULL, 4, NULL, '2026-11-20 16:15:37.021873+00', '2026-11-20 16:15:37.291203+00', NULL, 'cancelled by upgrade_alice'),
  (5, 4, 'hold', 'W', false, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (5, 8, 'table', 'W', false, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (5, 9, 'last', 'W', false, 5, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 1, 'next', 'W', false, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
  (6, 0, 'old', 'O', false, 0, NULL, 15, NULL, '2026-11-20 16:15:37.359599+00', NULL, NULL, NULL),
  (5, 0, 'done', 'F', false, 0, NULL, 12, 'some', '2026-11-20 16:15:37.327284+00', '2026-11-20 16:15:37.361939+00', NULL, NULL),
  (5, 5, 'take', 'O', false, 0, NULL, 19, NULL, '2026-11-20 16:15:37.362234+00', NULL, NULL, NULL),
  (5, 1, 'wait', 'O', false, 0, NULL, 16, 'some', '2026-11-20 16:15:37.362207+00', NULL, NULL, NULL),
  (5, 3, 'defer', 'O', false, 0, NULL, 18, 'some', '2026-11-20 16:15:37.362228+00', NULL, NULL, NULL),
  (5, 2, 'yield', 'O', false, 0, NULL, 17, 'some', '2026-11-20 16:15:37.362221+00', NULL, NULL, NULL);
INSERT INTO flow.flow_step (flow_id, node_no, task_id, arguments_hash) VALUES
  (1, 1, 8, '\x60c8169753f5178afa1119428cdee5bf67602f766ffed54f3572f832aa101fb6'),
  (1, 1, 7, '\xc3d7279c385dd8ea0d6f73145c26fa7619559e6ef991281facfbcd91a3681130'),
  (1, 1, 9, '\xc990a62654680d407c0cecc62a7c1675354f4b2b821c20abf5c51bee2257daee'),
  (5, 4, 14, '\xb8630d66803d26df92dece5e4e7190ac4ebb49851570d271376551d60de36d50'),
  (5, 4, 13, '\xd1b89a3fab41ea30a6a899e73b87af8c6f096da7b7cd680c17675a8e32b0fd73'),
  (5, 6, 27, '\x60c8169753f5178afa1119428cdee5bf67602f766ffed54f3572f832aa101fb6'),
  (5, 6, 26, '\xc3d7279c385dd8ea0d6f73145c26fa7619559e6ef991281facfbcd91a3681130'),
  (5, 6, 28, '\xc990a62654680d407c0cecc62a7c1675354f4b2b821c20abf5c51bee2257daee');
INSERT INTO t.log (id, what, who) VALUES
  (1, '2 a', 'upgrade_alice'),
  (2, '1 a', 'upgrade_alice'),
  (3, '2 d', 'upgrade_alice'),
  (4, '1 b 1', 'upgrade_alice'),
  (5, '1 b 2', 'upgrade_alice'),
  (6, '1 b 3', 'upgrade_alice'),
  (7, '5 done', 'upgrade_alice'),
  (8, '5 yield', 'upgrade_alice'),
  (9, '7 next', 'upgrade_alice'),
  (10, 'a query', 'upgrade_alice');
SELECT pg_catalog.setval('async.claim_claim_id_seq', 52, true);
SELECT pg_catalog.setval('async.execution_execution_id_seq', 2, true);
SELECT pg_catalog.setval('async.replaced_result_seq', -1, false);
SELECT pg_catalog.setval('async.server_log_server_log_id_seq', 1, true);
SELECT pg_catalog.setval('async.task_id_seq', 34, true);
SELECT pg_catalog.setval('flow.definition_definition_id_seq', 8, true);
SELECT pg_catalog.setval('flow.flow_id_seq', 10, true);
SELECT pg_catalog.setval('t.log_id_seq', 10, true);
GRANT USAGE ON SCHEMA t TO PUBLIC;
GRANT ALL ON TABLE t.gate TO PUBLIC;
GRANT ALL ON TABLE t.log TO PUBLIC;
GRANT ALL ON SEQUENCE t.log_id_seq TO PUBLIC;
GRANT ALL ON TABLE t.numbers TO PUBLIC;
