-- A part of from_original.sql, not to be run alone.
-- The original's tables with the columns that are read. "!": without it, this is not the original; the others came and went
-- with its versions and read as null where they are missing.
CREATE TEMP TABLE original_column (relation TEXT, name TEXT, type TEXT, needed BOOL) ON COMMIT DROP;
INSERT INTO original_column
SELECT v.relation, split_part(ltrim(c, '!'), ' ', 1), split_part(c, ' ', 2), c LIKE '!%'
FROM (VALUES
  ('async.control', '!workers int,!self_target text,self_connection_string text,self_concurrency int,
    default_timeout interval,task_keep_duration interval,default_concurrency_pool_workers int,advisory_mutex_id bigint,
    debug_log bool,pid int,running_since timestamptz,startup_routines text[],loop_routines text[]'),
  ('async.client_control', 'client_only bool,connection_string text'),
  ('async.target', '!target text,!max_concurrency int,!connection_string text,asynchronous_finish bool,
    default_timeout interval,concurrency_track_yielded bool'),
  ('async.concurrency_pool', 'concurrency_pool text,max_workers int'),
  ('async.task', '!task_id bigint,!target text,!priority int,!entered timestamptz,!consumed timestamptz,
    !processed timestamptz,yielded timestamptz,finish_status text,source text,!query text,!failed bool,
    !processing_error text,asynchronous_finish bool,times_up timestamptz,!task_data jsonb,concurrency_pool text,
    manual_timeout interval,track_yielded bool'),
  ('flow.flow_configuration', '!flow text,concurrency_group_routine text'),
  ('flow.node', '!node text,!target text,routine text,node_routine text,step_routine text,priority int,
    all_steps_must_complete bool,empty bool,steps_to_flow text,synchronous bool,node_timeout interval,
    step_timeout interval'),
  ('flow.flow_node', '!flow text,!node text'),
  ('flow.dependency_configuration', '!flow text,!parent text,!child text,continue_on_failure bool'),
  ('flow.step', '!node text,!arguments jsonb'),
  ('flow.flow', '!flow_id bigint,!flow text,!arguments jsonb,!created timestamptz,!processed timestamptz,
    parent_task_id bigint,only_these_nodes text[],parent_flow_id bigint,first_error text,force_priority int'),
  ('flow.dependency', '!flow_id bigint,!parent text,!child text,continue_on_failure bool')
) AS v(relation, columns), regexp_split_to_table(v.columns, ',\s*') AS c;

-- Checks. Nothing has been changed when one of them raises.
DO $$
DECLARE
  _s   RECORD;
  _bad TEXT;
  _pid INT;
BEGIN
  SELECT * INTO _s FROM migration_settings;
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    RAISE insufficient_privilege USING MESSAGE = 'run this as a superuser: it renames schemas and creates an extension';
  ELSIF _s.open_runs NOT IN ('refuse', 'abandon') THEN
    RAISE invalid_parameter_value USING MESSAGE = format('open_runs is "%s"', _s.open_runs), HINT = 'refuse or abandon.';
  ELSIF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = _s.owner) THEN
    RAISE undefined_object USING MESSAGE = format('role "%s" does not exist', _s.owner);
  ELSIF EXISTS (SELECT FROM pg_extension WHERE extname = 'pgflow') THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = 'extension pgflow is here already: nothing was done',
      DETAIL = CASE WHEN to_regclass(format('%I.migration_report', _s.flow_old)) IS NOT NULL
        THEN format('The installation was taken over before; %I.migration_report tells how.', _s.flow_old) END;
  ELSIF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pgflow') THEN
    RAISE undefined_file USING MESSAGE = 'extension pgflow is not installed on this server', HINT = 'make install';
  END IF;

  SELECT string_agg(quote_ident(n.nspname), ', ') INTO _bad FROM pg_namespace n
   WHERE n.nspname IN (_s.async_old, _s.flow_old);
  IF _bad IS NOT NULL OR _s.async_old = _s.flow_old OR _s.async_old IN ('async', 'flow') OR _s.flow_old IN ('async', 'flow')
  THEN
    RAISE duplicate_schema USING
      MESSAGE = coalesce(format('schema %s exists already', _bad), 'the new names of the old schemas must be new'),
      HINT = 'Choose other names: -v async_old=… -v flow_old=…';
  END IF;
  SELECT string_agg(format('%s: schema "%s"', x.extname, n.nspname), ', ') INTO _bad
    FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid JOIN pg_namespace n ON n.oid = d.objid
   WHERE d.classid = 'pg_namespace'::REGCLASS AND d.refclassid = 'pg_extension'::REGCLASS AND d.deptype = 'e'
     AND n.nspname IN ('async', 'flow');
  IF _bad IS NOT NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = 'the schemas belong to another extension', DETAIL = _bad,
      HINT = 'This takes over what plain SQL scripts made. ALTER EXTENSION … DROP SCHEMA … releases a schema.';
  END IF;

  IF to_regclass('async.client_control') IS NOT NULL AND to_regclass('async.control') IS NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = 'this database has the client half of the library only', HINT = 'Run this where async.main() ran.';
  END IF;
  SELECT string_agg(c.relation || '.' || c.name, ', ' ORDER BY c.relation, c.name) INTO _bad
    FROM original_column c
   WHERE c.needed AND NOT EXISTS (
     SELECT FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid AND r.relkind IN ('r', 'p')
      WHERE a.attrelid = to_regclass(c.relation) AND a.attname = c.name AND NOT a.attisdropped);
  IF _bad IS NOT NULL OR to_regtype('flow.callback_arguments_t') IS NULL THEN
    RAISE object_not_in_prerequisite_state USING
      MESSAGE = 'schemas async and flow are not those of the SQL library',
      DETAIL = coalesce('Missing columns of tables: ' || _bad, 'There is no type flow.callback_arguments_t.');
  END IF;

  -- The main loop runs in a CALL that never ends, under an advisory lock.
  EXECUTE $q$
    SELECT a.pid FROM async.control c JOIN pg_stat_activity a ON a.datname = current_database()
     WHERE a.pid <> pg_backend_pid() AND a.state IS DISTINCT FROM 'idle'
       AND a.query ~* '\mcall\s+async\.(main|cycle)\M' LIMIT 1 $q$ INTO _pid;
  IF _pid IS NULL AND EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'async.control'::REGCLASS AND attname = 'advisory_mutex_id') THEN
    EXECUTE $q$
      SELECT l.pid FROM async.control c JOIN pg_locks l ON l.locktype = 'advisory' AND l.granted
         AND (l.classid::BIGINT << 32 | l.objid::BIGINT) = c.advisory_mutex_id AND l.objsubid = 1
         AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) LIMIT 1 $q$ INTO _pid;
  END IF;
  IF _pid IS NOT NULL THEN
    RAISE object_in_use USING
      MESSAGE = format('the main loop runs: process %s', _pid),
      HINT = format('Take its CALL out of cron, then UPDATE async.control SET enabled = false, or SELECT '
                    'pg_terminate_backend(%s).', _pid);
  END IF;
END
$$;

-- Whoever still uses the original waits from here on, or is waited for (lock_timeout).
LOCK TABLE async.control, async.target, async.task, flow.flow_configuration, flow.node, flow.flow IN ACCESS EXCLUSIVE MODE;

-- Reading through views that have all columns, whatever the version.
DO $$
DECLARE
  _relation TEXT;
  _columns  TEXT;
BEGIN
  FOR _relation IN SELECT DISTINCT c.relation FROM original_column c LOOP
    SELECT string_agg(format(CASE WHEN a.attname IS NULL THEN 'NULL::%2$s AS %1$I'
                                  WHEN a.atttypid = c.type::REGTYPE THEN '%1$I' ELSE '%1$I::TEXT::%2$s AS %1$I' END,
                             c.name, c.type), ', ') INTO _columns
      FROM original_column c
      LEFT JOIN pg_attribute a ON a.attrelid = to_regclass(c.relation) AND a.attname = c.name AND NOT a.attisdropped
     WHERE c.relation = _relation;
    EXECUTE format('CREATE TEMP VIEW %I AS SELECT %s %s', 'old_' || replace(_relation, '.', '_'), _columns,
                   coalesce('FROM ' || to_regclass(_relation)::TEXT, 'WHERE false'));
  END LOOP;
END
$$;

DO $$
DECLARE
  _open TEXT;
BEGIN
  -- Tasks on the self target are the main loop's own.
  SELECT concat_ws(', ',
           (SELECT nullif(count(*), 0) || ' runs (' || (array_agg(f.flow_id || ' of ' || f.flow ORDER BY f.flow_id))[1] || ' …)'
              FROM old_flow_flow f WHERE f.processed IS NULL),
           (SELECT nullif(count(*), 0) || ' tasks of no flow'
              FROM old_async_task t WHERE t.processed IS NULL AND t.task_data->>'flow_id' IS NULL
               AND t.target NOT IN (SELECT c.self_target FROM old_async_control c)))
    INTO _open;
  IF _open <> '' AND (SELECT s.open_runs FROM migration_settings s) = 'refuse' THEN
    RAISE object_in_use USING
      MESSAGE = 'open work: ' || _open,
      HINT = 'Let the main loop finish it, or import it as cancelled: -v open_runs=abandon';
  END IF;
END
$$;
