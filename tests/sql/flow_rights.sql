-- Who may see and do what with flows and runs. Needs the grants of the installed extension.
\ir flow_helpers.psql

CREATE ROLE t_one LOGIN IN ROLE flow_user;
CREATE ROLE t_two LOGIN IN ROLE flow_user;
CREATE ROLE t_member LOGIN IN ROLE t_one;
CREATE ROLE t_watcher LOGIN IN ROLE flow_monitor;
CREATE ROLE t_admin LOGIN IN ROLE flow_admin;
CREATE ROLE t_night LOGIN IN ROLE flow_user;
GRANT t_night TO t_one;
CREATE ROLE t_nobody LOGIN;
GRANT USAGE ON SCHEMA t TO flow_user;
CREATE TABLE t.runs (name TEXT PRIMARY KEY, flow_id BIGINT);
GRANT SELECT, INSERT ON t.runs TO PUBLIC;

-- A statement as a role.
CREATE FUNCTION t.raised_as(_role NAME, _statement TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
DECLARE
  _raised TEXT;
BEGIN
  EXECUTE format('SET LOCAL ROLE %I', _role);
  _raised := t.raised(_statement);
  RESET ROLE;
  RETURN _raised;
END
$$;

CREATE FUNCTION t.seen_by(_role NAME, _query TEXT) RETURNS TEXT LANGUAGE plpgsql AS $$
DECLARE
  _seen TEXT;
BEGIN
  EXECUTE format('SET LOCAL ROLE %I', _role);
  EXECUTE _query INTO _seen;
  RESET ROLE;
  RETURN _seen;
END
$$;

DO $$
DECLARE
  _run BIGINT; _call TEXT; _operation TEXT;
BEGIN
  PERFORM t.flow('f', '[{"node": "a"}, {"node": "b", "parents": ["a"]}]', '{}', 't_one'::REGROLE);
  -- The flow belongs to who configured it first.
  ASSERT t.raised('SELECT t.flow(''f'', ''[{"node": "c"}]'', ''{}'', ''t_two''::REGROLE)')
    = '42501 permission denied for flow "f"';
  PERFORM t.flow('f', '[{"node": "a"}, {"node": "b", "parents": ["a"]}, {"node": "c"}]', '{}', 't_member'::REGROLE);
  PERFORM t.flow('f', '[{"node": "a"}, {"node": "b", "parents": ["a"]}]', '{}', 't_admin'::REGROLE);
  ASSERT (SELECT owner FROM flow.configured WHERE flow = 'f') = 't_one';
  ASSERT t.raised_as('t_two', 'SELECT flow.drop_flow(''f'')') = '42501 permission denied for flow "f"';

  -- Everybody runs it with his own rights.
  _run := t.seen_by('t_one', 'SELECT flow.run_flow(''f'', ''{"x": 1}'')');
  ASSERT (SELECT run_as FROM flow.flow WHERE flow_id = _run) = 't_one';
  ASSERT (SELECT run_as FROM async.task WHERE task_id = t.own(_run, 'a')) = 't_one';
  ASSERT t.raised_as('t_nobody', 'SELECT flow.run_flow(''f'', NULL)') LIKE '42501 %';
  ASSERT t.raised_as('t_watcher', 'SELECT flow.run_flow(''f'', NULL)') LIKE '42501 %';

  FOREACH _operation IN ARRAY ARRAY['SELECT flow.cancel(%1$s)', 'SELECT flow.set_priority(%1$s, 1)',
    'SELECT flow.set_step_priority(%1$s, %2$s, 1)', 'SELECT flow.restart_flow(%1$s)', 'SELECT flow.retry_failed(%1$s)',
    'CALL flow.push_steps(%1$s, ''a'', ARRAY[''{"i": 1}'']::JSONB[])',
    'CALL flow.finish(ROW(%1$s, ''f'', ''{}'', ''a'', ''{}'', %2$s)::flow.callback_arguments_t)',
    'CALL flow.defer(ROW(%1$s, ''f'', ''{}'', ''a'', ''{}'', %2$s)::flow.callback_arguments_t, ''1 s'')',
    'SELECT flow.run_flow(''f'', NULL, _parent_task_id => %2$s)']
  LOOP
    _call := format(_operation, _run, t.own(_run, 'a'));
    ASSERT t.raised_as('t_two', _call) LIKE '42501 permission denied for %', _call;
    ASSERT t.raised_as('t_watcher', _call) LIKE '42501 permission denied for %', _call;
    ASSERT t.raised_as('t_member', _call) NOT LIKE '42501 %', _call || ': ' || t.raised_as('t_member', _call);
    ASSERT t.raised_as('t_admin', _call) NOT LIKE '42501 %', _call;
  END LOOP;

  -- Rows are for the run's role, its members and monitors.
  FOREACH _operation IN ARRAY ARRAY['SELECT count(*) FROM flow.flow WHERE flow_id = %s',
    'SELECT count(*) FROM flow.v_flow_status WHERE flow_id = %s', 'SELECT count(*) / 2 FROM flow.v_flow_node_status WHERE flow_id = %s',
    'SELECT count(*) / 2 FROM flow.v_flow_task_status WHERE flow_id = %s', 'SELECT count(*) FROM flow.v_flow_task WHERE flow_id = %s',
    'SELECT count(*) FROM flow.dependency WHERE flow_id = %s', 'SELECT count(*) FROM flow.arguments WHERE flow_id = %s',
    'SELECT jsonb_array_length(flow.task_list(%s)) / 2', 'SELECT count(*) / 2 FROM flow.graphviz_events(%s, NULL)']
  LOOP
    _call := format(_operation, _run);
    ASSERT t.seen_by('t_one', _call) = '1' AND t.seen_by('t_member', _call) = '1', _call;
    ASSERT t.seen_by('t_watcher', _call) = '1' AND t.seen_by('t_admin', _call) = '1', _call;
    ASSERT t.seen_by('t_two', _call) = '0', _call;
    ASSERT t.raised_as('t_nobody', _call) LIKE '42501 permission denied%', _call;
  END LOOP;
  FOREACH _operation IN ARRAY ARRAY['SELECT flow.args(%s)', 'SELECT flow.graphviz(%s)', 'SELECT flow.watch_look(%s)',
    'SELECT flow.wait(%s)']
  LOOP
    _call := format(_operation, _run);
    ASSERT t.raised_as('t_two', _call) = format('42704 run %s does not exist', _run), _call || t.raised_as('t_two', _call);
    ASSERT t.raised_as('t_watcher', _call) NOT LIKE '42%', _call || ': ' || t.raised_as('t_watcher', _call);
    ASSERT t.raised_as('t_nobody', _call) LIKE '42501 %', _call;
  END LOOP;
  ASSERT t.seen_by('t_two', 'SELECT count(*) FROM flow.walk_flow(''f'')') = '2', 'configured flows are for all users';
  ASSERT t.seen_by('t_two', 'SELECT flow.configuration(''f'') IS NOT NULL') = 'true';
  ASSERT t.raised_as('t_two', 'SELECT flow.graphviz(''f''::TEXT)') = 'nothing';
  ASSERT t.raised_as('t_two', 'SELECT count(*) FROM flow.v_flow_configuration') = 'nothing';
  ASSERT t.raised_as('t_two', 'SELECT count(*), flow.flows() FROM flow.node, flow.step, flow.flow_configuration') = 'nothing';

  -- What is internal.
  FOREACH _call IN ARRAY ARRAY['flow.cancel_as(10, 1)', 'flow.run_flow_as(10, ''f'', NULL, NULL, false, false, NULL, NULL)',
    'flow.insert_steps(1, 0, NULL, false)', 'flow.purge(''0'', 0, 100)', 'flow.store_definition(10, ''f'', ''{}'', ''{}'', ''[]'')',
    'flow.end_runs(ARRAY[1], ''x'')', 'flow.reset_nodes(1, ARRAY[1])', 'flow.start_run(1)']
  LOOP
    ASSERT t.raised_as('t_one', 'SELECT ' || _call) LIKE '42501 permission denied for function %', _call;
    ASSERT t.raised_as('t_admin', 'SELECT ' || _call) LIKE '42501 permission denied for function %', _call;
  END LOOP;
  ASSERT t.raised_as('t_one', 'DELETE FROM flow.flow') LIKE '42501 %' AND t.raised_as('t_admin', 'UPDATE async.task SET run_as = ''x''') LIKE '42501 %';
END $$;

-- A flow that runs as another role.
DO $$
DECLARE
  _run BIGINT;
BEGIN
  ASSERT t.raised('SELECT t.flow(''n'', ''[{"node": "a"}]'', ''{"run_as": "t_night"}'', ''t_two''::REGROLE)')
    LIKE '42501 role "t_two" may not make a flow run as role "t_night"';
  ASSERT t.raised('SELECT t.flow(''n'', ''[{"node": "a"}]'', ''{"run_as": "t_none"}'', ''t_two''::REGROLE)')
    LIKE '42704 role "t_none" does not exist';
  PERFORM t.flow('n', '[{"node": "a"}]', '{"run_as": "t_night"}', 't_one'::REGROLE);
  _run := t.seen_by('t_one', 'SELECT flow.run_flow(''n'', NULL)');
  ASSERT (SELECT run_as FROM flow.flow WHERE flow_id = _run) = 't_night';
  ASSERT t.raised_as('t_two', 'SELECT flow.run_flow(''n'', NULL)') = '42501 permission denied for flow "n"', 'not for everybody';
  -- A restart by another keeps the role.
  PERFORM flow.cancel(_run);
  PERFORM t.seen_by('t_admin', format('SELECT flow.restart_flow(%s)', _run));
  ASSERT (SELECT run_as FROM async.task WHERE task_id = t.own(_run, 'a')) = 't_night';
END $$;

-- A routine that the role may not execute; a role that cannot run.
DO $$
BEGIN
  CREATE PROCEDURE t.secret(_args flow.callback_arguments_t) LANGUAGE plpgsql AS 'BEGIN END';
  REVOKE EXECUTE ON PROCEDURE t.secret FROM PUBLIC;
  PERFORM t.flow('s', '[{"node": "a", "routine_resolved": "t.secret"}]', '{}', 't_one'::REGROLE);
  ASSERT t.raised_as('t_one', 'SELECT flow.run_flow(''s'', NULL)') = '42501 permission denied for procedure t.secret';
  ALTER ROLE t_two NOLOGIN;
  ASSERT t.raised_as('t_two', 'SELECT flow.run_flow(''f'', NULL)') LIKE
    CASE WHEN current_setting('server_version_num')::INT < 170000 THEN '55000 role "t_two" cannot run tasks%' ELSE 'nothing' END;
END $$;

ROLLBACK;
\echo flow_rights: ok
