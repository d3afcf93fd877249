-- Takes an installation of the SQL library pgflow on pgasync over: its schemas async and flow are renamed, the extension is
-- created, and settings, flows, routines and history follow. docs/migrating.md explains every step.
--
-- Run it with psql as a superuser, with the search_path that the library's tasks had, its main loop stopped:
--   psql -d app -f from_original.sql [-v name=value …]
--     async_old, flow_old   what the old schemas are called afterwards     (default: async_old, flow_old)
--     open_runs             refuse, or abandon: import open work as cancelled   (default: refuse)
--     owner                 the role that the flows and the history belong to   (default: who runs this)
-- One transaction: it is all done, or nothing is. What needs a look afterwards is in <flow_old>.migration_report.
-- The old schemas stay, with all their rows, until you drop them.
-- Reads from top to bottom: variables, what the original looks like, checks, rename, settings, routines, flows, history.
\set ON_ERROR_STOP 1
\set QUIET 1
\if :{?async_old} \else \set async_old async_old \endif
\if :{?flow_old} \else \set flow_old flow_old \endif
\if :{?open_runs} \else \set open_runs refuse \endif
\if :{?owner} \else \set owner '' \endif

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '10s';
SET LOCAL jit = off;
CREATE TEMP TABLE migration_settings ON COMMIT DROP AS
SELECT :'async_old' AS async_old, :'flow_old' AS flow_old, :'open_runs' AS open_runs,
       coalesce(nullif(:'owner', ''), current_user)::NAME AS owner, current_setting('search_path') AS search_path;

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

-- 1. Checks. Nothing has been changed when one of them raises.
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
  IF _pid IS NULL AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'async.control'::REGCLASS AND attname = 'advisory_mutex_id')
  THEN
    EXECUTE $q$
      SELECT l.pid FROM async.control c JOIN pg_locks l ON l.locktype = 'advisory' AND l.granted
         AND (l.classid::BIGINT << 32 | l.objid::BIGINT) = c.advisory_mutex_id AND l.objsubid = 1
         AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) LIMIT 1 $q$ INTO _pid;
  END IF;
  IF _pid IS NOT NULL THEN
    RAISE object_in_use USING
      MESSAGE = format('the main loop runs: process %s', _pid),
      HINT = format('Take its CALL out of cron, then UPDATE async.control SET enabled = false, or SELECT pg_terminate_backend(%s).', _pid);
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

-- 2. Out of the way, and the extension in.
CREATE TEMP TABLE old_sequence ON COMMIT DROP AS
SELECT p.name, coalesce(pg_sequence_last_value(pg_get_serial_sequence(p.name, p.id)::REGCLASS), 0) AS last
  FROM (VALUES ('async.task', 'task_id'), ('flow.flow', 'flow_id')) AS p(name, id);
ALTER SCHEMA flow RENAME TO :"flow_old";
ALTER SCHEMA async RENAME TO :"async_old";
CREATE EXTENSION pgflow;

CREATE TABLE :"flow_old".migration_report (
  line BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY, kind TEXT NOT NULL, name TEXT NOT NULL,
  outcome TEXT NOT NULL CHECK (outcome IN ('done', 'refused', 'look')), reason TEXT, advice TEXT);
COMMENT ON TABLE :"flow_old".migration_report IS
  'What became of each part of the SQL library. outcome: done; refused (reason, advice); look: something for you to decide.';
CREATE TEMP VIEW report AS TABLE :"flow_old".migration_report;

-- 3. Control, targets, pools: what async.configure finds fault with is left out and listed.
DO $$
DECLARE
  _given JSONB;
  _fault RECORD;
  _part  TEXT[];
BEGIN
  SELECT jsonb_build_object(
           'control', (SELECT jsonb_strip_nulls(to_jsonb(c) - ARRAY['pid', 'running_since', 'startup_routines', 'loop_routines'])
                         FROM old_async_control c),
           -- Every target was a pool of its own; the self target is "local" here. Without a connection there were only clients.
           'targets', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(t) || jsonb_build_object(
                                'kind', CASE WHEN t.connection_string IS NULL THEN 'external' END)) ORDER BY t.target), '[]')
                         FROM old_async_target t
                        WHERE t.target NOT IN (SELECT c.self_target FROM old_async_control c) AND t.target <> 'async.self'),
           'concurrency_pools', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(to_jsonb(p)) ORDER BY p.concurrency_pool), '[]')
                         FROM old_async_concurrency_pool p
                        WHERE p.concurrency_pool NOT IN (SELECT t.target FROM old_async_target t)))
    INTO _given;
  INSERT INTO report (kind, name, outcome, reason, advice)
  SELECT 'target', t->>'target', 'look', 'it has no connection string: "kind" is now "external"',
         'Clients take its tasks with async.get_tasks. For work in this database, leave "target" out of the nodes.'
    FROM jsonb_array_elements(_given->'targets') t WHERE t->>'kind' = 'external'
  UNION ALL
  SELECT 'target', t->>'target', 'look', 'it leads to another server',
         'Kept, but tasks cannot run on another server yet: runs of flows that use it fail with an error that says so.'
    FROM jsonb_array_elements(_given->'targets') t
   WHERE t->>'connection_string' IS NOT NULL AND NOT async.leads_here(t->>'connection_string')
  UNION ALL
  SELECT 'target', t->>'target', 'look', format('its tasks ran as role "%s"', o.user),
         format('Now they run as the role that calls run_flow. To keep it: {"flow": {"run_as": "%s"}} in the configurations.', o.user)
    FROM jsonb_array_elements(_given->'targets') t, LATERAL (SELECT async.conninfo_options(t->>'connection_string')->>'user') o("user")
   WHERE async.leads_here(t->>'connection_string') AND o.user IS NOT NULL
  UNION ALL
  SELECT 'control', r.key, 'look', array_to_string(r.value, ', '), 'Not called any more: nothing loops. Run it with pg_cron if it is needed.'
    FROM old_async_control c, LATERAL (VALUES ('startup_routines', c.startup_routines), ('loop_routines', c.loop_routines)) r(key, value)
   WHERE cardinality(r.value) > 0;

  LOOP  -- each round takes at least one faulty part out
    SELECT f.path, f.message INTO _fault FROM async.configuration_faults(_given) f WHERE f.severity = 'error' LIMIT 1;
    EXIT WHEN NOT FOUND;
    _part := regexp_match(_fault.path, '^\$\.(control|targets|concurrency_pools)(?:\.(\w+)|\[(\d+)\])?');
    IF coalesce(_part[2], _part[3]) IS NULL THEN
      RAISE EXCEPTION 'cannot take over the settings: %: %', _fault.path, _fault.message;
    END IF;
    INSERT INTO report (kind, name, outcome, reason, advice)
    VALUES (CASE _part[1] WHEN 'control' THEN 'control' WHEN 'targets' THEN 'target' ELSE 'pool' END,
            coalesce(_part[2], _given->_part[1]->_part[3]::INT->>'target', _given->_part[1]->_part[3]::INT->>'concurrency_pool', '?'),
            'refused', _fault.message, 'Set it with async.configure.');
    _given := _given #- ARRAY[_part[1], coalesce(_part[2], _part[3])];
  END LOOP;
  PERFORM set_config('client_min_messages', 'error', true);
  PERFORM async.configure(_given);
  PERFORM async.server(c.connection_string) FROM old_async_client_control c WHERE c.connection_string <> '';
  PERFORM set_config('client_min_messages', 'warning', true);
  INSERT INTO report (kind, name, outcome)
  SELECT 'control', k, 'done' FROM jsonb_object_keys(_given->'control') k
  UNION ALL SELECT 'target', t->>'target', 'done' FROM jsonb_array_elements(_given->'targets') t
  UNION ALL SELECT 'pool', p->>'concurrency_pool', 'done' FROM jsonb_array_elements(_given->'concurrency_pools') p;
END
$$;

-- 4. Users' routines and columns of the old types follow to the new ones: above all callbacks, which take
-- flow.callback_arguments_t. A routine is made anew from its own definition; owner, grants and comment stay.
CREATE TEMP VIEW old_type AS
SELECT t.oid, n.new_schema || '.' || quote_ident(t.typname) AS new_name
  FROM pg_type t
  JOIN (SELECT s.async_old AS old_schema, 'async' AS new_schema FROM migration_settings s
        UNION ALL SELECT s.flow_old, 'flow' FROM migration_settings s) AS n ON t.typnamespace = to_regnamespace(quote_ident(n.old_schema))
  JOIN pg_type w ON w.typname = t.typname AND w.typnamespace = n.new_schema::REGNAMESPACE;

CREATE FUNCTION pg_temp.renamed(_text TEXT) RETURNS TEXT LANGUAGE sql STABLE AS $$
  SELECT replace(replace(_text, quote_ident(s.flow_old) || '.', 'flow.'), quote_ident(s.async_old) || '.', 'async.')
    FROM migration_settings s;
$$;

-- search_path is pg_catalog here, so that definitions come with all names qualified.
CREATE FUNCTION pg_temp.move_routine(_routine OID) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
  _is         RECORD;
  _definition TEXT := pg_get_functiondef(_routine);
  _body_at    INT;
  _new        REGPROCEDURE;
  _grant      RECORD;
BEGIN
  SELECT p.*, p.prosqlbody IS NOT NULL AS parsed, obj_description(p.oid, 'pg_proc') AS comment,
         pg_get_userbyid(p.proowner) AS owner, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl,
         -- A name in text is resolved when it is called: only what the catalogue has parsed must be renamed.
         pg_temp.renamed(format('%s(%s)', p.oid::REGPROC, pg_get_function_identity_arguments(p.oid))) AS signature
    INTO _is FROM pg_proc p WHERE p.oid = _routine;
  _body_at := strpos(_definition, E'\nAS ');
  IF _is.parsed OR _body_at = 0 THEN
    _definition := pg_temp.renamed(_definition);
  ELSE
    _definition := pg_temp.renamed(left(_definition, _body_at)) || substr(_definition, _body_at + 1);
  END IF;
  EXECUTE format('DROP ROUTINE %s', _routine::REGPROCEDURE);
  EXECUTE _definition;
  SELECT p.oid INTO STRICT _new FROM pg_proc p
   WHERE p.pronamespace = _is.pronamespace AND p.proname = _is.proname
     AND format('%s(%s)', p.oid::REGPROC, pg_get_function_identity_arguments(p.oid)) = _is.signature;
  EXECUTE format('ALTER ROUTINE %s OWNER TO %I', _new, _is.owner);
  FOR _grant IN SELECT DISTINCT g.grantee FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) g WHERE p.oid = _new LOOP
    EXECUTE format('REVOKE ALL ON ROUTINE %s FROM %s', _new, CASE _grant.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(_grant.grantee)) END);
  END LOOP;
  FOR _grant IN SELECT * FROM aclexplode(_is.acl) LOOP
    EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s%s', _new,
      CASE _grant.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(_grant.grantee)) END,
      CASE WHEN _grant.is_grantable AND _grant.grantee <> _is.proowner THEN ' WITH GRANT OPTION' ELSE '' END);
  END LOOP;
  IF _is.comment IS NOT NULL THEN
    EXECUTE format('COMMENT ON ROUTINE %s IS %L', _new, _is.comment);
  END IF;
END
$$;

SET LOCAL search_path = pg_catalog;
SET LOCAL check_function_bodies = off;
DO $$
DECLARE
  _found  RECORD;
  _reason TEXT;
BEGIN
  FOR _found IN
    SELECT c.oid::REGCLASS AS relation, a.attname, pg_temp.renamed(format_type(a.atttypid, a.atttypmod)) AS type
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p', 'c') AND NOT c.relispartition
      JOIN pg_type t ON t.oid = a.atttypid
     WHERE (a.atttypid IN (SELECT o.oid FROM pg_temp.old_type o) OR t.typelem IN (SELECT o.oid FROM pg_temp.old_type o))
       AND NOT a.attisdropped AND c.relpersistence <> 't'
       AND c.relnamespace NOT IN (SELECT to_regnamespace(quote_ident(n)) FROM pg_temp.migration_settings s, unnest(ARRAY[s.async_old, s.flow_old]) n)
  LOOP
    BEGIN
      IF (SELECT c.relkind FROM pg_class c WHERE c.oid = _found.relation) = 'c' THEN
        EXECUTE format('ALTER TYPE %s ALTER ATTRIBUTE %I TYPE %s', _found.relation, _found.attname, _found.type);
      ELSE
        EXECUTE format('ALTER TABLE %1$s ALTER COLUMN %2$I TYPE %3$s USING %2$I::TEXT::%3$s', _found.relation, _found.attname, _found.type);
      END IF;
      INSERT INTO pg_temp.report (kind, name, outcome) VALUES ('column', format('%s.%I', _found.relation, _found.attname), 'done');
    EXCEPTION WHEN OTHERS THEN
      INSERT INTO pg_temp.report (kind, name, outcome, reason, advice)
      VALUES ('column', format('%s.%I', _found.relation, _found.attname), 'refused', SQLERRM,
              format('Change its type to %s yourself before you drop the old schemas.', _found.type));
    END;
  END LOOP;

  FOR _found IN
    SELECT p.oid, p.oid::REGPROCEDURE::TEXT AS name, p.prokind, x.extname
      FROM pg_proc p
      LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::REGCLASS AND d.objid = p.oid AND d.deptype = 'e'
      LEFT JOIN pg_extension x ON x.oid = d.refobjid
     WHERE EXISTS (SELECT FROM unnest(p.proargtypes || coalesce(p.proallargtypes, '{}') || p.prorettype) AS u(type)
                     JOIN pg_type t ON t.oid = u.type
                    WHERE t.oid IN (SELECT o.oid FROM pg_temp.old_type o) OR t.typelem IN (SELECT o.oid FROM pg_temp.old_type o))
       AND p.pronamespace NOT IN (SELECT to_regnamespace(quote_ident(n)) FROM pg_temp.migration_settings s, unnest(ARRAY[s.async_old, s.flow_old]) n)
     ORDER BY p.oid
  LOOP
    _reason := CASE WHEN _found.extname IS NOT NULL THEN 'it belongs to extension ' || _found.extname
                    WHEN _found.prokind NOT IN ('f', 'p') THEN 'it is an aggregate or window function' END;
    IF _reason IS NULL THEN
      BEGIN
        PERFORM pg_temp.move_routine(_found.oid);
        INSERT INTO pg_temp.report (kind, name, outcome) VALUES ('routine', pg_temp.renamed(_found.name), 'done');
        CONTINUE;
      EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS _reason = PG_EXCEPTION_DETAIL;
        _reason := concat_ws(E'\n', SQLERRM, nullif(_reason, ''));
      END;
    END IF;
    INSERT INTO pg_temp.report (kind, name, outcome, reason, advice)
    VALUES ('routine', _found.name, 'refused', _reason,
            'Create it again with the type of schema flow or async; then configure the flows that were refused for it.');
  END LOOP;

  -- Views on the library's views and tables would show the past for ever. CREATE OR REPLACE keeps owner and grants.
  FOR _found IN
    SELECT DISTINCT c.oid, c.oid::REGCLASS AS relation, array_to_string(c.reloptions, ', ') AS options
      FROM pg_class c
      JOIN pg_rewrite w ON w.ev_class = c.oid
      JOIN pg_depend d ON d.classid = 'pg_rewrite'::REGCLASS AND d.objid = w.oid
       AND (d.refclassid, d.refobjid) IN (
         SELECT 'pg_class'::REGCLASS::OID, o.oid FROM pg_class o
          WHERE o.relnamespace IN (SELECT to_regnamespace(quote_ident(n)) FROM pg_temp.migration_settings s, unnest(ARRAY[s.async_old, s.flow_old]) n)
         UNION ALL SELECT 'pg_proc'::REGCLASS::OID, o.oid FROM pg_proc o
          WHERE o.pronamespace IN (SELECT to_regnamespace(quote_ident(n)) FROM pg_temp.migration_settings s, unnest(ARRAY[s.async_old, s.flow_old]) n))
     WHERE c.relkind = 'v' AND c.relpersistence <> 't'
       AND c.relnamespace NOT IN (SELECT to_regnamespace(quote_ident(n)) FROM pg_temp.migration_settings s, unnest(ARRAY[s.async_old, s.flow_old]) n)
     ORDER BY c.oid
  LOOP
    BEGIN
      EXECUTE format('CREATE OR REPLACE VIEW %s %s AS %s', _found.relation, 'WITH (' || _found.options || ')',
                     pg_temp.renamed(pg_get_viewdef(_found.oid)));
      INSERT INTO pg_temp.report (kind, name, outcome) VALUES ('view', _found.relation::TEXT, 'done');
    EXCEPTION WHEN OTHERS THEN
      INSERT INTO pg_temp.report (kind, name, outcome, reason, advice)
      VALUES ('view', _found.relation::TEXT, 'refused', SQLERRM,
              'It still shows the old schemas. Make it anew: ' || pg_get_viewdef(_found.oid));
    END;
  END LOOP;
END
$$;
SELECT set_config('search_path', search_path, true) AS search_path FROM migration_settings \gset old_

-- 5. Flows.
CREATE FUNCTION pg_temp.node_configuration(_node TEXT) RETURNS JSONB LANGUAGE sql STABLE AS $$
  SELECT jsonb_strip_nulls(to_jsonb(n) || jsonb_build_object(
           'routine', nullif(n.routine, ''), 'node_routine', nullif(n.node_routine, ''), 'step_routine', nullif(n.step_routine, ''),
           'all_steps_must_complete', CASE WHEN NOT n.all_steps_must_complete THEN false END,
           'empty', CASE WHEN n.empty THEN true END, 'synchronous', CASE WHEN n.synchronous THEN true END,
           'steps', (SELECT jsonb_agg(s.arguments ORDER BY s.arguments) FROM old_flow_step s WHERE s.node = n.node)))
    FROM old_flow_node n WHERE n.node = _node;
$$;

DO $$
DECLARE
  _flow   RECORD;
  _given  JSONB;
  _detail TEXT;
  _hint   TEXT;
BEGIN
  FOR _flow IN SELECT * FROM old_flow_flow_configuration ORDER BY flow LOOP
    SELECT jsonb_strip_nulls(jsonb_build_object(
             'concurrency_group_routine', nullif(_flow.concurrency_group_routine, ''),
             'nodes', coalesce(jsonb_agg(pg_temp.node_configuration(m.node) || jsonb_strip_nulls(jsonb_build_object('dependencies', (
               SELECT jsonb_agg(jsonb_build_object('parent', d.parent, 'continue_on_failure', coalesce(d.continue_on_failure, false)) ORDER BY d.parent)
                 FROM old_flow_dependency_configuration d WHERE d.flow = _flow.flow AND d.child = m.node))) ORDER BY m.node), '[]')))
      INTO _given
      FROM (SELECT n.node FROM old_flow_flow_node n WHERE n.flow = _flow.flow
            UNION SELECT x.node FROM old_flow_dependency_configuration d, LATERAL (VALUES (d.parent), (d.child)) x(node)
            WHERE d.flow = _flow.flow) AS m;
    BEGIN
      PERFORM flow.configure_flow(_flow.flow, _given);
      INSERT INTO report (kind, name, outcome) VALUES ('flow', _flow.flow, 'done');
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS _detail = PG_EXCEPTION_DETAIL, _hint = PG_EXCEPTION_HINT;
      INSERT INTO report (kind, name, outcome, reason, advice)
      VALUES ('flow', _flow.flow, 'refused', concat_ws(E'\n', SQLERRM, nullif(_detail, '')),
              format('Correct it, then: SELECT flow.configure_flow(%L, %L)', _flow.flow, _given));
    END;
  END LOOP;
  UPDATE flow.configured SET owner = s.owner FROM migration_settings s;
  UPDATE flow.definition SET author = s.owner FROM migration_settings s;
END
$$;

-- 6. History. Runs point to the configured version where they had its nodes and dependencies, else to one that is made for them.
CREATE TEMP TABLE m_task ON COMMIT DROP AS
SELECT t.*, f.flow_id, t.task_data->>'node' AS node, coalesce(t.task_data->'step_arguments', '{}') AS arguments,
       f.flow_id IS NOT NULL AND coalesce(t.task_data->'step_arguments', '{}') <> '{}' AS is_step,
       CASE WHEN t.processed IS NULL THEN 'CANCELED'
            WHEN t.finish_status IN ('FINISHED', 'FAILED', 'CANCELED', 'TIMED_OUT', 'DOA') THEN t.finish_status
            WHEN t.failed THEN 'FAILED' ELSE 'FINISHED' END::async.finish_status_t AS status
  FROM old_async_task t
  LEFT JOIN old_flow_flow f ON f.flow_id = (t.task_data->>'flow_id')::BIGINT;

CREATE INDEX ON m_task (flow_id, node) WHERE NOT is_step;
CREATE TEMP TABLE m_dependency ON COMMIT DROP AS
SELECT d.flow_id, d.parent, d.child, coalesce(d.continue_on_failure, false) AS continue_on_failure FROM old_flow_dependency d;
CREATE INDEX ON m_dependency (flow_id);

CREATE TEMP TABLE m_run_node ON COMMIT DROP AS
SELECT t.flow_id, t.node FROM m_task t WHERE t.flow_id IS NOT NULL AND t.node IS NOT NULL
UNION SELECT d.flow_id, x.node FROM m_dependency d, LATERAL (VALUES (d.parent), (d.child)) x(node);
CREATE INDEX ON m_run_node (flow_id);
ANALYZE m_task, m_dependency, m_run_node;

CREATE TEMP TABLE m_run ON COMMIT DROP AS
SELECT f.flow_id, f.flow, md5(concat_ws(E'\n', n.nodes, e.edges)) AS shape
  FROM old_flow_flow f
  LEFT JOIN (SELECT x.flow_id, string_agg(x.node, ',' ORDER BY x.node COLLATE "C") AS nodes
               FROM m_run_node x GROUP BY x.flow_id) n ON n.flow_id = f.flow_id
  LEFT JOIN (SELECT x.flow_id, string_agg(x.parent || '>' || x.child || x.continue_on_failure, ','
                                          ORDER BY x.parent COLLATE "C", x.child COLLATE "C") AS edges
               FROM m_dependency x GROUP BY x.flow_id) e ON e.flow_id = f.flow_id;
ANALYZE m_run;
CREATE TEMP TABLE m_shape ON COMMIT DROP AS
SELECT r.flow, r.shape, min(r.flow_id) AS flow_id, c.definition_id
  FROM m_run r
  LEFT JOIN (
    SELECT c.flow, c.definition_id, md5(concat_ws(E'\n',
             (SELECT string_agg(n.node, ',' ORDER BY n.node COLLATE "C") FROM flow.definition_node n WHERE n.definition_id = c.definition_id),
             (SELECT string_agg(d.parent || '>' || d.child || d.continue_on_failure, ',' ORDER BY d.parent COLLATE "C", d.child COLLATE "C")
                FROM flow.dependency_configuration d WHERE d.flow = c.flow))) AS shape
      FROM flow.configured c) AS c ON c.flow = r.flow AND c.shape = r.shape
 GROUP BY r.flow, r.shape, c.definition_id;

CREATE TEMP TABLE m_node ON COMMIT DROP AS
SELECT s.flow, s.shape, n.node, 0 AS rank FROM m_shape s JOIN m_run_node n ON n.flow_id = s.flow_id WHERE s.definition_id IS NULL;
CREATE TEMP TABLE m_edge ON COMMIT DROP AS
SELECT s.flow, s.shape, d.parent, d.child, d.continue_on_failure
  FROM m_shape s JOIN m_dependency d ON d.flow_id = s.flow_id WHERE s.definition_id IS NULL;
DO $$
DECLARE
  _longest INT := (SELECT max(c.nodes) FROM (SELECT count(*) AS nodes FROM m_node GROUP BY flow, shape) c);
BEGIN
  FOR _round IN 1 .. coalesce(_longest, 0) LOOP  -- the original ran cycles too: then the bound ends it
    UPDATE m_node n SET rank = p.rank
      FROM (SELECT e.flow, e.shape, e.child, max(x.rank) + 1 AS rank
              FROM m_edge e JOIN m_node x ON x.flow = e.flow AND x.shape = e.shape AND x.node = e.parent GROUP BY 1, 2, 3) p
     WHERE p.flow = n.flow AND p.shape = n.shape AND p.child = n.node AND n.rank < p.rank;
    EXIT WHEN NOT FOUND;
  END LOOP;
END
$$;

-- A routine as the engine stores it, or null: a routine that is gone can be part of history, but cannot be run again.
CREATE FUNCTION pg_temp.resolved(_routine TEXT) RETURNS TEXT LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (SELECT format('%I.%I', n.nspname, p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE p.oid = to_regprocedure(_routine || '(flow.callback_arguments_t)'));
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END
$$;

DO $$
DECLARE
  _shape RECORD;
BEGIN
  FOR _shape IN SELECT s.flow, s.shape, s.flow_id FROM m_shape s WHERE s.definition_id IS NULL ORDER BY s.flow_id LOOP
    WITH made AS (
      INSERT INTO flow.definition (flow, configuration, concurrency_group_routine, author, created)
      SELECT _shape.flow, jsonb_build_object('nodes', coalesce((
               SELECT jsonb_agg(coalesce(pg_temp.node_configuration(n.node), jsonb_build_object('node', n.node)) || jsonb_strip_nulls(jsonb_build_object('dependencies', (
                 SELECT jsonb_agg(jsonb_build_object('parent', e.parent, 'continue_on_failure', e.continue_on_failure) ORDER BY e.parent)
                   FROM m_edge e WHERE e.flow = n.flow AND e.shape = n.shape AND e.child = n.node))) ORDER BY n.rank, n.node)
                 FROM m_node n WHERE n.flow = _shape.flow AND n.shape = _shape.shape), '[]')),
             NULL, s.owner, f.created
        FROM migration_settings s, old_flow_flow f WHERE f.flow_id = _shape.flow_id
      RETURNING definition_id)
    UPDATE m_shape m SET definition_id = made.definition_id FROM made WHERE m.flow = _shape.flow AND m.shape = _shape.shape;
  END LOOP;
END
$$;
INSERT INTO flow.definition_node (
  definition_id, node_no, node, rank, target, routine, routine_resolved, step_routine, step_routine_resolved, priority,
  all_steps_must_complete, empty, steps_to_flow, synchronous, node_timeout, step_timeout, count_parents, steps)
SELECT s.definition_id, row_number() OVER (PARTITION BY s.definition_id ORDER BY n.rank, n.node) - 1, n.node, n.rank,
       coalesce(async.target_name(o.target), o.target), r.own, pg_temp.resolved(r.own), r.step, pg_temp.resolved(r.step),
       coalesce(o.priority, 0), coalesce(o.all_steps_must_complete, true), coalesce(o.empty, false), o.steps_to_flow,
       coalesce(o.synchronous, false), o.node_timeout, o.step_timeout,
       (SELECT count(*) FROM m_edge e WHERE e.flow = n.flow AND e.shape = n.shape AND e.child = n.node),
       (SELECT jsonb_agg(x.arguments ORDER BY x.arguments) FROM old_flow_step x WHERE x.node = n.node AND x.arguments <> '{}')
  FROM m_node n
  JOIN m_shape s ON s.flow = n.flow AND s.shape = n.shape
  LEFT JOIN old_flow_node o ON o.node = n.node
  CROSS JOIN LATERAL (SELECT coalesce(nullif(o.node_routine, ''), nullif(o.routine, ''), n.node) AS own,
                             coalesce(nullif(o.step_routine, ''), nullif(o.routine, ''), n.node) AS step) r;
INSERT INTO flow.definition_edge (definition_id, parent_no, node_no, continue_on_failure)
SELECT s.definition_id, p.node_no, c.node_no, e.continue_on_failure
  FROM m_edge e
  JOIN m_shape s ON s.flow = e.flow AND s.shape = e.shape
  JOIN flow.definition_node p ON p.definition_id = s.definition_id AND p.node = e.parent
  JOIN flow.definition_node c ON c.definition_id = s.definition_id AND c.node = e.child;

INSERT INTO async.task (
  task_id, target, priority, run_as, entered, consumed, first_consumed, yielded, processed, finish_status, failed,
  processing_error, times_up, attempt, asynchronous_finish, track_yielded, is_step, flow_id, node_no, concurrency_pool,
  manual_timeout, source, query, task_data)
SELECT t.task_id, coalesce(async.target_name(t.target), t.target), coalesce(t.priority, 0), s.owner,
       coalesce(t.entered, t.consumed, t.processed, now()), w.consumed, w.consumed, t.yielded, coalesce(t.processed, now()),
       t.status, t.status <> 'FINISHED',
       CASE WHEN t.processed IS NULL THEN 'abandoned: open when the installation was taken over' ELSE t.processing_error END,
       t.times_up, (w.consumed IS NOT NULL)::INT, coalesce(t.asynchronous_finish, false), coalesce(t.track_yielded, false),
       t.is_step, t.flow_id, n.node_no, nullif(t.concurrency_pool, t.target), t.manual_timeout, t.source,
       CASE WHEN t.flow_id IS NULL THEN t.query END,
       CASE WHEN t.flow_id IS NULL THEN t.task_data WHEN t.is_step THEN t.arguments END
  FROM m_task t
 CROSS JOIN migration_settings s
 CROSS JOIN LATERAL (SELECT CASE WHEN t.status <> 'DOA' THEN t.consumed END AS consumed) w  -- that one never ran
  LEFT JOIN m_run r ON r.flow_id = t.flow_id
  LEFT JOIN m_shape h ON h.flow = r.flow AND h.shape = r.shape
  LEFT JOIN flow.definition_node n ON n.definition_id = h.definition_id AND n.node = t.node
 ORDER BY t.task_id;

INSERT INTO flow.flow_step (flow_id, node_no, task_id, arguments_hash)
SELECT t.flow_id, t.node_no, t.task_id, sha256(convert_to(t.task_data::TEXT, 'UTF8'))
  FROM async.task t WHERE t.is_step AND t.flow_id IS NOT NULL AND t.node_no IS NOT NULL ORDER BY t.task_id
ON CONFLICT DO NOTHING;

INSERT INTO flow.flow_node (flow_id, node_no, node, state, excluded, parents_open, task_id, opened, ended, error)
SELECT f.flow_id, d.node_no, d.node, v.state, v.state = 'N', 0, t.task_id,
       CASE WHEN v.state NOT IN ('K', 'N') THEN coalesce(t.consumed, t.entered) END,
       coalesce(t.processed, f.processed, now()), CASE WHEN v.state IN ('E', 'T', 'C') THEN t.processing_error END
  FROM old_flow_flow f
  JOIN m_run r ON r.flow_id = f.flow_id
  JOIN m_shape h ON h.flow = r.flow AND h.shape = r.shape
  JOIN flow.definition_node d ON d.definition_id = h.definition_id
  LEFT JOIN async.task t ON t.task_id = (
    SELECT max(m.task_id) FROM m_task m WHERE m.flow_id = f.flow_id AND m.node = d.node AND NOT m.is_step)
 CROSS JOIN LATERAL (SELECT CASE
     WHEN f.only_these_nodes IS NOT NULL AND d.node <> ALL (f.only_these_nodes)
      AND coalesce(t.finish_status, 'FINISHED') = 'FINISHED' THEN 'N'
     WHEN t.task_id IS NULL THEN CASE WHEN f.processed IS NULL THEN 'C' ELSE 'K' END
     ELSE CASE t.finish_status WHEN 'FINISHED' THEN 'F' WHEN 'DOA' THEN 'K' WHEN 'CANCELED' THEN 'C'
                               WHEN 'TIMED_OUT' THEN 'T' ELSE 'E' END END AS state) v;

-- Who kept a node from running. A node that nobody kept, in a run that is over, was cancelled with it.
ANALYZE async.task, flow.flow_node, flow.flow_step, flow.definition_node, flow.definition_edge;
UPDATE flow.flow_node n SET blocked_by = b.parent, error = format('not run because %s failed', b.parent)
  FROM (SELECT c.flow_id, c.node_no, min(p.node) AS parent
          FROM flow.flow_node c
          JOIN m_run r ON r.flow_id = c.flow_id
          JOIN m_shape h ON h.flow = r.flow AND h.shape = r.shape
          JOIN flow.definition_edge e ON e.definition_id = h.definition_id AND e.node_no = c.node_no AND NOT e.continue_on_failure
          JOIN flow.flow_node p ON p.flow_id = c.flow_id AND p.node_no = e.parent_no AND p.state::"char" IN ('E', 'K', 'C', 'T')
         WHERE c.state::"char" = 'K' GROUP BY 1, 2) b
 WHERE n.flow_id = b.flow_id AND n.node_no = b.node_no;
UPDATE flow.flow_node SET state = 'C' WHERE state::"char" = 'K' AND blocked_by IS NULL;

INSERT INTO flow.flow (
  flow_id, flow, definition_id, run_as, arguments, created, processed, cancelled, parent_task_id, parent_flow_id,
  only_these_nodes, force_priority, count_nodes, count_finished_nodes, count_failed_nodes, first_error)
SELECT f.flow_id, f.flow, h.definition_id, s.owner, coalesce(f.arguments, '{}'), coalesce(f.created, f.processed, now()),
       coalesce(f.processed, now()), f.processed IS NULL OR n.cancelled, f.parent_task_id, f.parent_flow_id,
       f.only_these_nodes, f.force_priority, n.nodes, n.nodes, n.failed,
       coalesce(f.first_error, CASE WHEN f.processed IS NULL THEN 'abandoned: open when the installation was taken over' END)
  FROM old_flow_flow f
  JOIN m_run r ON r.flow_id = f.flow_id
  JOIN m_shape h ON h.flow = r.flow AND h.shape = r.shape
 CROSS JOIN migration_settings s
 CROSS JOIN LATERAL (
   SELECT count(*) AS nodes, count(*) FILTER (WHERE x.state::"char" IN ('E', 'K', 'C', 'T')) AS failed,
          coalesce(bool_or(x.state::"char" = 'C') AND NOT bool_or(x.state::"char" IN ('E', 'T')), false) AS cancelled
     FROM flow.flow_node x WHERE x.flow_id = f.flow_id) n
 ORDER BY f.flow_id;

WITH RECURSIVE below AS (
  SELECT f.flow_id, 0 AS depth FROM flow.flow f
   WHERE f.parent_flow_id IS NULL OR NOT EXISTS (SELECT FROM flow.flow p WHERE p.flow_id = f.parent_flow_id)
  UNION ALL SELECT f.flow_id, b.depth + 1 FROM below b JOIN flow.flow f ON f.parent_flow_id = b.flow_id WHERE b.depth < 1000)
UPDATE flow.flow f SET depth = b.depth FROM below b WHERE b.flow_id = f.flow_id AND b.depth > 0;

SELECT setval('async.task_id_seq', greatest(1, (SELECT last FROM old_sequence WHERE name = 'async.task'), (SELECT max(task_id) FROM async.task))),
       setval('flow.flow_id_seq', greatest(1, (SELECT last FROM old_sequence WHERE name = 'flow.flow'), (SELECT max(flow_id) FROM flow.flow))) \gset old_
INSERT INTO report (kind, name, outcome, reason)
SELECT 'history', x.name, 'done', x.rows || ' rows'
  FROM (VALUES ('runs', (SELECT count(*) FROM flow.flow)), ('nodes', (SELECT count(*) FROM flow.flow_node)),
               ('steps', (SELECT count(*) FROM flow.flow_step)), ('tasks', (SELECT count(*) FROM async.task))) AS x(name, rows)
UNION ALL
SELECT 'history', 'open work', 'look', x.runs || ' runs and ' || x.tasks || ' tasks were open and are shown as cancelled'
  FROM (SELECT (SELECT count(*) FROM old_flow_flow f WHERE f.processed IS NULL) AS runs,
               (SELECT count(*) FROM m_task t WHERE t.processed IS NULL) AS tasks) x WHERE x.runs + x.tasks > 0
UNION ALL
SELECT 'history', 'tasks of runs that are gone', 'look', count(*) || ' tasks, kept as tasks of no flow'
  FROM m_task t WHERE t.flow_id IS NULL AND t.task_data->>'flow_id' IS NOT NULL HAVING count(*) > 0;

-- 7. What is left to do: rights, schedules, and whatever still refers to the old schemas.
INSERT INTO report (kind, name, outcome, reason, advice)
SELECT 'grant', g.role, 'look', 'it could use the old schemas', format('GRANT flow_user TO %I (sees and runs its own flows), or flow_monitor, or flow_admin', g.role)
  FROM (SELECT DISTINCT r.rolname AS role
          FROM pg_namespace n
          JOIN migration_settings s ON n.nspname IN (s.async_old, s.flow_old)
          CROSS JOIN LATERAL aclexplode(n.nspacl) a
          JOIN pg_roles r ON r.oid = a.grantee
         WHERE NOT r.rolsuper) g;
INSERT INTO report (kind, name, outcome, reason, advice)
SELECT 'dependent', x.name, 'look', 'still refers to ' || min(x.to_what), 'Make it anew on schemas async and flow: DROP SCHEMA … CASCADE would drop it.'
  FROM (
SELECT CASE d.classid WHEN 'pg_rewrite'::REGCLASS
            THEN (SELECT format('%s %s', CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END, c.oid::REGCLASS)
                    FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid = d.objid)
            ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END AS name,
       pg_describe_object(d.refclassid, d.refobjid, 0) AS to_what
  FROM pg_depend d
  JOIN (SELECT 'pg_class'::REGCLASS AS class, c.oid, c.relnamespace AS schema FROM pg_class c
        UNION ALL SELECT 'pg_proc'::REGCLASS, p.oid, p.pronamespace FROM pg_proc p
        UNION ALL SELECT 'pg_type'::REGCLASS, t.oid, t.typnamespace FROM pg_type t) AS o ON o.class = d.refclassid AND o.oid = d.refobjid
  JOIN migration_settings s ON o.schema IN (to_regnamespace(quote_ident(s.async_old)), to_regnamespace(quote_ident(s.flow_old)))
 CROSS JOIN LATERAL (SELECT CASE d.classid
     WHEN 'pg_rewrite'::REGCLASS THEN (SELECT c.relnamespace FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid = d.objid)
     WHEN 'pg_class'::REGCLASS THEN (SELECT c.relnamespace FROM pg_class c WHERE c.oid = d.objid)
     WHEN 'pg_proc'::REGCLASS THEN (SELECT p.pronamespace FROM pg_proc p WHERE p.oid = d.objid)
     WHEN 'pg_constraint'::REGCLASS THEN (SELECT k.connamespace FROM pg_constraint k WHERE k.oid = d.objid)
     WHEN 'pg_policy'::REGCLASS THEN (SELECT c.relnamespace FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.oid = d.objid)
     WHEN 'pg_attrdef'::REGCLASS THEN (SELECT c.relnamespace FROM pg_attrdef a JOIN pg_class c ON c.oid = a.adrelid WHERE a.oid = d.objid)
   END AS schema) w
 WHERE w.schema IS NOT NULL AND d.deptype IN ('n', 'a')
   AND w.schema NOT IN (to_regnamespace(quote_ident(s.async_old)), to_regnamespace(quote_ident(s.flow_old)), pg_my_temp_schema())
) AS x WHERE x.to_what NOT LIKE 'index %' GROUP BY x.name;
INSERT INTO report (kind, name, outcome, reason, advice)
SELECT 'dependent', format('trigger %I on %s', g.tgname, g.tgrelid::REGCLASS), 'look', 'it fires on a table of the old library only',
       'Runs and tasks are in flow.flow and async.task; a node of its own at the end of a flow is the better place.'
  FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_proc p ON p.oid = g.tgfoid, migration_settings s
 WHERE NOT g.tgisinternal AND c.relnamespace IN (to_regnamespace(quote_ident(s.async_old)), to_regnamespace(quote_ident(s.flow_old)))
   AND p.pronamespace NOT IN (to_regnamespace(quote_ident(s.async_old)), to_regnamespace(quote_ident(s.flow_old)));
DO $$
BEGIN
  IF to_regclass('cron.job') IS NOT NULL THEN
    EXECUTE $q$ INSERT INTO report (kind, name, outcome, reason, advice)
      SELECT 'schedule', 'cron job ' || j.jobid, 'look', j.command, 'Unschedule it: a background worker does this now.'
        FROM cron.job j WHERE j.command ~* 'async\.main' $q$;
  END IF;
  IF current_setting('shared_preload_libraries') !~ '\mpgflow\M' THEN
    INSERT INTO report (kind, name, outcome, reason, advice) VALUES
      ('server', 'shared_preload_libraries', 'look', 'pgflow is not in it: nothing runs', 'Add pgflow in postgresql.conf and restart.');
  END IF;
END
$$;
DO $$
DECLARE
  _view TEXT;
BEGIN
  FOR _view IN SELECT DISTINCT format('pg_temp.%I', 'old_' || replace(c.relation, '.', '_')) FROM original_column c LOOP
    EXECUTE 'DROP VIEW ' || _view || ' CASCADE';
  END LOOP;
END
$$;
DROP VIEW old_type, report;
DROP FUNCTION pg_temp.renamed, pg_temp.move_routine, pg_temp.node_configuration, pg_temp.resolved;
COMMIT;

\echo 'Taken over:'
SELECT kind, count(*) FILTER (WHERE outcome = 'done') AS done, count(*) FILTER (WHERE outcome = 'refused') AS refused,
       count(*) FILTER (WHERE outcome = 'look') AS to_look_at
  FROM :"flow_old".migration_report GROUP BY kind ORDER BY min(line);
\echo 'To look at (kept in' :flow_old '.migration_report, with advice):'
SELECT outcome, kind, name, reason FROM :"flow_old".migration_report WHERE outcome <> 'done' ORDER BY outcome DESC, line;
