-- Who may see and call what. Nothing is for PUBLIC. A function is either one that finds out its caller's rights itself (it
-- goes through as_owner), or one that needs none, or the owner's alone: by default, the last.

GRANT flow_user, flow_monitor TO flow_admin;
GRANT USAGE ON SCHEMA async, flow TO flow_user, flow_monitor;
GRANT USAGE ON FOREIGN DATA WRAPPER pgflow TO flow_admin;

-- Rows. The functions are evaluated once a query, not once a row.
CREATE FUNCTION async.reads_everything() RETURNS BOOL
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT pg_has_role('flow_monitor', 'USAGE') OR pg_has_role('flow_admin', 'USAGE');
$$;
COMMENT ON FUNCTION async.reads_everything IS 'Whether you may read the runs and tasks of all roles.';

CREATE FUNCTION async.readable_roles() RETURNS NAME[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT array_agg(r.rolname) FROM pg_roles r WHERE r.rolname = current_user OR pg_has_role(r.oid, 'USAGE');
$$;
COMMENT ON FUNCTION async.readable_roles IS 'The roles whose runs and tasks you may read: those whose rights you have.';

ALTER TABLE async.task ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.task FOR SELECT
  USING ((SELECT async.reads_everything()) OR run_as = ANY ((SELECT async.readable_roles())::NAME[]));
ALTER TABLE flow.flow ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON flow.flow FOR SELECT
  USING ((SELECT async.reads_everything()) OR run_as = ANY ((SELECT async.readable_roles())::NAME[]));

ALTER TABLE async.task_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.task_log FOR SELECT
  USING ((SELECT async.reads_everything()) OR EXISTS (SELECT FROM async.task t WHERE t.task_id = task_log.task_id));
ALTER TABLE async.external_queue ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.external_queue FOR SELECT
  USING ((SELECT async.reads_everything()) OR EXISTS (SELECT FROM async.task t WHERE t.task_id = external_queue.task_id));
ALTER TABLE async.result ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.result FOR SELECT
  USING ((SELECT async.reads_everything()) OR run_as = ANY ((SELECT async.readable_roles())::NAME[]));
ALTER TABLE async.execution ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON async.execution FOR SELECT
  USING ((SELECT async.reads_everything()) OR created_by = ANY ((SELECT async.readable_roles())::NAME[]));
ALTER TABLE async.task_secret ENABLE ROW LEVEL SECURITY;  -- and no policy: nobody but the owner
ALTER TABLE async.decision ENABLE ROW LEVEL SECURITY;
ALTER TABLE async.callback_token ENABLE ROW LEVEL SECURITY;
ALTER TABLE flow.flow_node ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON flow.flow_node FOR SELECT
  USING ((SELECT async.reads_everything()) OR EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = flow_node.flow_id));
ALTER TABLE flow.flow_step ENABLE ROW LEVEL SECURITY;
CREATE POLICY pgflow_read ON flow.flow_step FOR SELECT
  USING ((SELECT async.reads_everything()) OR EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = flow_step.flow_id));

-- Tables and views: reading only; configured flows are for all users of flows, as functions are in pg_proc (the routine's
-- own EXECUTE right decides who can run it).
REVOKE ALL ON ALL TABLES IN SCHEMA async, flow FROM flow_user, flow_monitor, flow_admin;  -- in an upgrade
GRANT SELECT ON ALL TABLES IN SCHEMA async, flow TO flow_user, flow_monitor;
REVOKE SELECT ON async.target, async.control, async.claim, async.server_log, async.store, async.task_secret, async.decision,
  async.callback_token,
  async.client_server, async.inbox, flow.client_arguments, async.role_limit FROM flow_user, flow_monitor;
GRANT SELECT ON async.claim, async.server_log, async.role_limit TO flow_monitor;
GRANT SELECT ON async.target, async.control, async.store TO flow_admin;  -- a connection string may hold a password
GRANT SELECT (target, kind, max_concurrency, asynchronous_finish, default_timeout, concurrency_track_yielded, server, owner)
  ON async.target TO flow_user, flow_monitor;
GRANT SELECT (store, url, server, keep_for, owner) ON async.store TO flow_user, flow_monitor;
GRANT SELECT (only_row, workers, self_target, self_concurrency, default_timeout, default_concurrency_pool_workers,
  task_keep_duration, advisory_mutex_id, debug_log, paused)
  ON async.control TO flow_user, flow_monitor;

-- Functions.
REVOKE ALL ON ALL ROUTINES IN SCHEMA async, flow FROM PUBLIC, flow_user, flow_monitor, flow_admin;
DO $$
DECLARE
  -- Plain ones, without as_owner. Reading: for monitors too.
  _reading CONSTANT TEXT[] := ARRAY[
    'async.adopted', 'async.interval_pretty', 'async.may_read', 'async.reads_everything', 'async.readable_roles',
    'async.running', 'async.processes', 'async.pool_use', 'async.setting', 'async.wait_for_change', 'async.last_message',
    'async.first_task_since', 'async.target_name', 'async.target_kind', 'async.tail_once', 'async.tail', 'async.worker_info',
    'async.wait_for_latch', 'async.main', 'async.task', 'async.executor_kinds', 'async.masked_options',
    'async.fetch_result', 'async.read_stored', 'async.result_url', 'async.refuse_result', 'async.table_fault', 'async.execution',
    'async.search_executions', 'async.execution_result', 'async.execution_keep',
    'async.library_version', 'async.version_mismatch',
    'flow.args', 'flow.configuration', 'flow.walk_flow', 'flow.flows', 'flow.task_list', 'flow.graphviz',
    'flow.graphviz_events', 'flow.node_status_color', 'flow.validate', 'flow.watch', 'flow.wait',
    -- and what these call
    'async.is_client', 'flow.server_args',
    'flow.visible_run', 'flow.render_graphviz', 'flow.diagram_edges', 'flow.changed_here', 'flow.watch_look', 'flow.has_ended',
    'flow.milliseconds'];
  _doing CONSTANT TEXT[] := ARRAY[
    'async.push_task', 'async.log', 'async.note_progress', 'async.is_own_task', 'async.require_commit',
    'flow.push_steps', 'flow.finish', 'flow.defer',
    'flow.configure_flow'];
  _routine RECORD;
BEGIN
  FOR _routine IN
    SELECT p.oid::pg_catalog.regprocedure AS signature, s.name,
           p.prosrc = 'as_owner' AND l.lanname = 'c' AS checks_itself,
           EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid
                    WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                      AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = p.oid) AS in_a_view
      FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_language l ON l.oid = p.prolang,
           LATERAL (SELECT p.pronamespace::pg_catalog.regnamespace || '.' || p.proname) AS s(name)
     WHERE p.pronamespace IN ('async'::pg_catalog.regnamespace, 'flow'::pg_catalog.regnamespace)
       AND p.proname !~ '_as$|^announce_'
  LOOP
    IF _routine.in_a_view OR _routine.name = ANY (_reading) THEN
      EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO flow_user, flow_monitor', _routine.signature);
    ELSIF _routine.checks_itself OR _routine.name = ANY (_doing) THEN
      EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO flow_user', _routine.signature);
    END IF;
  END LOOP;
END
$$;

-- What must be so, whatever was added above: rows of users are protected, views ask for the reader's rights.
DO $$
DECLARE
  _bad TEXT;
BEGIN
  SELECT pg_catalog.string_agg(c.oid::pg_catalog.regclass::TEXT, ', ') INTO _bad
    FROM pg_catalog.pg_class c
   WHERE c.relnamespace IN ('async'::pg_catalog.regnamespace, 'flow'::pg_catalog.regnamespace)
     AND (c.relkind = 'v' AND NOT coalesce(c.reloptions @> ARRAY['security_invoker=true'], false)
          OR c.relkind = 'r' AND NOT c.relrowsecurity AND EXISTS (
            SELECT FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = c.oid AND a.attname IN ('flow_id', 'task_id') AND NOT a.attisdropped));
  IF _bad IS NOT NULL THEN
    RAISE EXCEPTION 'without row-level security or security_invoker: %', _bad;
  END IF;
END
$$;

SELECT async.wake_launcher();
