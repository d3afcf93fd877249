-- After scripts/migrate.sql has taken original.sql over: what came along, and that it runs.
\set ON_ERROR_STOP on
DO $$
BEGIN
  ASSERT (SELECT array_agg(flow ORDER BY flow) FROM flow.flow_configuration) = '{hourly,nightly}';
  ASSERT (SELECT bool_and(owner = 'migrated') FROM flow.flow_configuration);
  ASSERT (SELECT max_concurrency FROM async.target WHERE target = 'reports') = 3;
  ASSERT (SELECT default_timeout FROM async.target WHERE target = 'reports') = '10 minutes';
  ASSERT (SELECT kind FROM async.target WHERE target = 'reports') = 'local', 'a connection string that leads here is local';
  ASSERT (SELECT asynchronous_finish FROM async.target WHERE target = 'lambda');
  ASSERT (SELECT default_timeout FROM async.control) = '1 hour';
  ASSERT (SELECT max_workers FROM async.concurrency_pool WHERE concurrency_pool = 'narrow') = 1;
  ASSERT (SELECT count(*) FROM flow_old.flow) = 1, 'history stays';
  ASSERT (SELECT proowner::regrole::text FROM pg_proc WHERE oid = 'app.refresh(flow.callback_arguments_t)'::regprocedure) = 'migrated';
  ASSERT NOT has_function_privilege('flow_user', 'app.refresh(flow.callback_arguments_t)', 'EXECUTE');
END
$$;
SET ROLE migrated;
SELECT flow.run_flow('nightly', '{}') AS nightly, flow.run_flow('hourly', NULL) AS hourly \gset
SELECT flow.wait(:nightly, '30 seconds'), flow.wait(:hourly, '30 seconds');
RESET ROLE;
DO $$
BEGIN
  ASSERT (SELECT array_agg(node ORDER BY node) FROM ran) = '{app.refresh,load,report}', (SELECT string_agg(first_error, ', ') FROM flow.flow);
END
$$;
