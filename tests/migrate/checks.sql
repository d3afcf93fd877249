-- After the migration of original_fixture.sql with open_runs=abandon: what must be so. Self-checking.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
DO $$
DECLARE
  _is RECORD;
BEGIN
  -- Settings.
  SELECT * INTO _is FROM async.control;
  ASSERT _is.workers = 20 AND _is.self_target = 'async.self' AND _is.default_timeout = '1 hour' AND _is.self_concurrency = 6
     AND _is.task_keep_duration = '10 years' AND _is.default_concurrency_pool_workers = 4, 'control';
  ASSERT (SELECT string_agg(target || ' ' || kind || ' ' || max_concurrency, ', ' ORDER BY target) FROM async.target)
     = 'local local 6, robots external 9, self local 12, self_async local 3, warehouse postgres 5', 'targets';
  ASSERT (SELECT connection_string LIKE '%password=s3cret' AND default_timeout = '20 minutes' FROM async.target
      WHERE target = 'warehouse');
  ASSERT (SELECT asynchronous_finish AND concurrency_track_yielded FROM async.target WHERE target = 'self_async');
  ASSERT (SELECT array_agg(concurrency_pool || max_workers) FROM async.concurrency_pool) = '{api2}';
  ASSERT async.server() = '' AND NOT async.is_client(), 'what was the server stays one';

  -- Flows: those that are right, with everything that the old tables said.
  ASSERT (SELECT array_agg(flow ORDER BY flow) FROM flow.configured) = '{etl,far,nightly}';
  ASSERT (SELECT string_agg(name, ', ' ORDER BY name) FROM flow_old.migration_report
      WHERE kind = 'flow' AND outcome = 'refused')
     = 'cyclic, hollow, lost';
  ASSERT (SELECT bool_and(reason ~ CASE name WHEN 'cyclic' THEN 'ring_a → ring_b → ring_a' WHEN 'hollow'
      THEN 'steps\[0\]' ELSE 'no_such_routine' END
            AND advice LIKE '%flow.configure_flow(%') FROM flow_old.migration_report
                WHERE kind = 'flow' AND outcome = 'refused');
  ASSERT (SELECT node_timeout = '30 minutes' AND priority = 5 AND routine = 'app.load' AND target = 'self' FROM flow.node
      WHERE flow = 'etl' AND node = 'load');
  ASSERT (SELECT NOT all_steps_must_complete AND routine = 'app.clean' AND step_routine = 'app.load' FROM flow.node
      WHERE flow = 'etl' AND node = 'clean');
  ASSERT (SELECT array_agg(arguments ORDER BY arguments) FROM flow.step
      WHERE flow = 'etl') = ARRAY['{"s": 1}', '{"s": 2, "of": null}']::JSONB[];
  ASSERT (SELECT empty FROM flow.node WHERE flow = 'etl' AND node = 'gate');
  ASSERT (SELECT concurrency_group_routine FROM flow.flow_configuration WHERE flow = 'etl') LIKE '%pool_of';
  ASSERT (SELECT count(*) FROM flow.dependency_configuration WHERE flow = 'etl') = 4
     AND (SELECT continue_on_failure FROM flow.dependency_configuration WHERE flow = 'etl' AND child = 'publish');
  ASSERT (SELECT string_agg(owner, '') = current_setting('test.owner') || current_setting('test.owner') || current_setting('test.owner') FROM flow.configured);

  -- History: every run and task, under its number.
  ASSERT (SELECT array_agg(f.flow_id ORDER BY f.flow_id)
      FROM flow.flow f) = (SELECT array_agg(o.flow_id ORDER BY o.flow_id) FROM flow_old.flow o);
  ASSERT (SELECT array_agg(t.task_id ORDER BY t.task_id) FROM async.task t WHERE t.task_id <= 5000)
       = (SELECT array_agg(o.task_id ORDER BY o.task_id) FROM async_old.task o);
  ASSERT NOT EXISTS (SELECT FROM async.task t JOIN async_old.task o USING (task_id)
    WHERE (o.processed IS NOT NULL) AND (t.entered, t.processed, t.processing_error, t.failed) IS DISTINCT
        FROM (o.entered, o.processed, o.processing_error, o.failed));
  ASSERT NOT EXISTS (SELECT FROM flow.flow f JOIN flow_old.flow o USING (flow_id)
    WHERE (f.flow, f.arguments, f.created, f.parent_task_id, f.parent_flow_id, f.only_these_nodes)
      IS DISTINCT FROM (o.flow, o.arguments, o.created, o.parent_task_id, o.parent_flow_id, o.only_these_nodes));
  ASSERT nextval('async.task_id_seq') > 5000 AND nextval('flow.flow_id_seq') > 40, 'sequences';
  ASSERT NOT EXISTS (SELECT FROM flow.flow WHERE processed IS NULL) AND NOT EXISTS (SELECT FROM async.task
      WHERE processed IS NULL);
  ASSERT (SELECT count(*) FROM flow.flow_step) = 7, 'steps';
  FOR _is IN
    SELECT v.*, (SELECT string_agg(s.node || ' ' || s.status, ', ' ORDER BY s.node) FROM flow.v_flow_node_status s
        WHERE s.flow_id = v.flow_id) AS got
      FROM (VALUES
      (11, 'check_it Finished, clean Finished, gate Finished, load Finished, publish Finished'),
      (12, 'check_it Skipped, clean Skipped, gate Finished, load Failed, publish Finished'),
      (13, 'check_it Skipped, clean Skipped, gate Finished, load Cancelled, publish Cancelled'),
      (14, 'days Finished'),
      (15, 'check_it Skipped, clean Timed Out, gate Finished, load Finished, publish Finished'),
      (16, 'check_it Finished, clean Finished, gate Finished, load Finished, publish Finished'),
      (17, 'check_it Finished, clean Finished, load Finished, publish Finished'),
      (18, 'ring_a Skipped, ring_b Skipped'),
      (19, 'check_it Cancelled, clean Cancelled, gate Finished, load Finished, publish Cancelled')) AS v(flow_id, expected)
  LOOP
    ASSERT _is.got = _is.expected, format('run %s: %s', _is.flow_id, _is.got);
  END LOOP;
  ASSERT (SELECT complete = 'Yes' AND count_nodes = 5 AND count_finished_nodes = 2 AND count_failed_nodes = 3
      AND first_error LIKE '%boom'
            FROM flow.v_flow_status WHERE flow_id = 12);
  ASSERT (SELECT steps = 2 AND steps_failed = 2 AND started = '2024-01-13 00:01:00' AND finished = '2024-01-13 00:02:00'
            FROM flow.v_flow_node_status WHERE flow_id = 12 AND node = 'load');
  ASSERT (SELECT string_agg(status || ' ' || coalesce(processing_error, ''), ', ' ORDER BY task_id)
      FROM flow.v_flow_task_status
           WHERE flow_id = 12 AND node = 'load' AND type = 'Step') = 'Failed boom, Cancelled ';
  ASSERT (SELECT skipped_by FROM flow.v_flow_node_status WHERE flow_id = 12 AND node = 'check_it') = 'clean';
  ASSERT (SELECT count(*) FROM flow.v_flow_task WHERE flow_id = 11) = 8;
  ASSERT (SELECT depth FROM flow.flow WHERE flow_id = 15) = 1;
  ASSERT (SELECT array_agg(excluded ORDER BY node) FROM flow.flow_node WHERE flow_id = 16) = '{t,f,t,f,t}';
  ASSERT (SELECT state FROM async.v_task WHERE task_id = 501) = 'Failed' AND (SELECT query FROM async.task
      WHERE task_id = 501) = 'SELECT 1/0'
     AND (SELECT concurrency_pool FROM async.task WHERE task_id = 501) = 'api';
  ASSERT (SELECT state FROM async.v_task WHERE task_id = 502) = 'Cancelled';
  ASSERT flow.graphviz(12) LIKE 'digraph%' AND jsonb_array_length(flow.task_list(12)) = 7 AND flow.args(12) = '{"day": 12}';
  -- A run points to the configured version when that is what it ran.
  ASSERT (SELECT count(DISTINCT f.definition_id) = 2 AND bool_and((f.definition_id = c.definition_id) = (f.flow_id <> 17))
            FROM flow.flow f JOIN flow.configured c USING (flow) WHERE f.flow = 'etl');

  -- Routines follow with everything they had.
  ASSERT (SELECT array_agg(name ORDER BY name) FROM flow_old.migration_report WHERE kind = 'routine' AND outcome = 'refused')
       = '{app.name_of(flow_old.callback_arguments_t)}';
  ASSERT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'app'::REGNAMESPACE) = 10;
  SELECT p.*, pg_get_userbyid(p.proowner) AS owner, obj_description(p.oid, 'pg_proc') AS comment INTO _is
    FROM pg_proc p WHERE p.oid = 'app.load(flow.callback_arguments_t)'::REGPROCEDURE;
  ASSERT _is.owner = 'migrate_etl' AND _is.comment = 'Loads; the owner''s pride.' AND _is.proconfig = '{work_mem=8MB}'
     AND _is.prosrc LIKE '%-- said in text%';
  ASSERT _is.proacl::TEXT[] @> '{migrate_etl=X/migrate_etl,migrate_reader=X*/migrate_etl}'
      AND cardinality(_is.proacl) = 2, _is.proacl::TEXT;
  ASSERT (SELECT prosecdef AND proacl IS NULL OR prosecdef AND proacl::TEXT[] @> '{=X/postgres}' FROM pg_proc
      WHERE oid = 'app.clean(flow.callback_arguments_t)'::REGPROCEDURE);
  ASSERT to_regprocedure('app.load(flow.callback_arguments_t, text)') IS NOT NULL
      AND to_regprocedure('app.many(flow.callback_arguments_t[])') IS NOT NULL
     AND to_regprocedure('app.status(async.finish_status_t)') IS NOT NULL;
  ASSERT (SELECT node FROM app.again(1)) = 'n';
  ASSERT pg_get_functiondef('app.atomic(flow.callback_arguments_t)'::REGPROCEDURE) !~ 'flow_old';
  ASSERT (SELECT (args).node = 'load' AND (args).flow_arguments = '{"day": 1}'
      AND status = 'FAILED'::async.finish_status_t FROM app.simulated);
  ASSERT (SELECT atttypid = 'flow.callback_arguments_t'::REGTYPE FROM pg_attribute
      WHERE attrelid = 'app.job'::REGCLASS AND attname = 'args');

  -- Views too; what could not follow is listed.
  ASSERT pg_get_viewdef('app.open_runs'::REGCLASS) !~ '_old' AND (SELECT count(*) FROM app.finished) = 9;
  ASSERT (SELECT reloptions = '{security_barrier=true}' AND relacl::TEXT ~ 'migrate_reader' FROM pg_class
      WHERE oid = 'app.finished'::REGCLASS);
  ASSERT (SELECT array_agg(name ORDER BY name) FROM flow_old.migration_report WHERE kind = 'dependent')
       = '{constraint ticket_flow_id_fkey on table app.ticket,function app.name_of(flow_old.callback_arguments_t),view app.inside,view app.names}';
  ASSERT (SELECT count(*) FROM flow_old.migration_report WHERE kind = 'grant' AND name = 'migrate_reader') = 1;
  ASSERT EXISTS (SELECT FROM flow_old.migration_report WHERE name = 'loop_routines' AND reason = 'app.each_loop');
END
$$;

-- A migrated flow runs on the new engine.
SELECT flow.run_flow('etl', '{"day": 99}') AS run \gset
DO $$ BEGIN ASSERT flow.wait((SELECT max(flow_id) FROM flow.flow), '30 s'), 'it does not end'; END $$;
DO $$ BEGIN CALL flow.push_steps(flow.run_flow('nightly', '{}'), 'days', ARRAY['{"day": 100}']::JSONB[]); END $$;
DO $$
BEGIN
  ASSERT flow.wait((SELECT max(flow_id) FROM flow.flow WHERE flow = 'nightly'), '30 s'), 'it does not end';
  ASSERT (SELECT string_agg(d.node || ' ' || d.step, ', ' ORDER BY d.node, d.step) FROM app.done d
      WHERE d.arguments = '{"day": 99}')
    = 'check_it {}, clean {}, clean {"s": 1}, clean {"s": 2, "of": null}, load {}, load {"part": 1}, load {"part": 2}, publish {}',
    (SELECT string_agg(d::TEXT, ' ') FROM app.done d);
  ASSERT (SELECT count_failed_nodes = 0 FROM flow.v_flow_status WHERE flow_id = (SELECT max(flow_id) FROM flow.flow
      WHERE flow = 'nightly'));
  ASSERT (SELECT count(*) FROM app.done WHERE arguments = '{"day": 100}') = 8;
  -- History can be run again.
  PERFORM flow.restart_flow(12, 'clean');
END
$$;
DO $$
BEGIN
  ASSERT flow.wait(12, '30 s');
  ASSERT (SELECT string_agg(status, ',' ORDER BY node) FROM flow.v_flow_node_status WHERE flow_id = 12) IS NOT NULL;
  PERFORM flow.restart_flow(17);
END
$$;
DO $$
BEGIN
  ASSERT flow.wait(17, '30 s');
  ASSERT (SELECT count_failed_nodes = 0 AND count_finished_nodes = 4 FROM flow.v_flow_status WHERE flow_id = 17),
    (SELECT string_agg(n.node || ': ' || n.error, ', ') FROM flow.flow_node n WHERE n.flow_id = 17);
END
$$;
-- The old schemas can go, but for what was listed.
DROP VIEW app.inside, app.names;
DROP FUNCTION app.name_of;
ALTER TABLE app.ticket DROP CONSTRAINT ticket_flow_id_fkey;
DROP SCHEMA async_old, flow_old CASCADE;
DO $$ BEGIN ASSERT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'app'::REGNAMESPACE) = 9 AND (SELECT count(*)
    FROM app.finished) = 11 + 1; END $$;
