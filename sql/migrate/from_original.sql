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
-- Reads from top to bottom, the parts in files of their own beside this one.
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

-- Reads the original through temporary views old_async_task … and raises unless everything is as it must be.
\ir check.sql

-- Out of the way, and the extension in.
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

\ir settings.sql
\ir routines.sql
\ir flows.sql
\ir history.sql
\ir leftovers.sql

-- The views of check.sql would go with the session; they depend on the old schemas until then.
DO $$
DECLARE
  _view TEXT;
BEGIN
  FOR _view IN SELECT DISTINCT format('pg_temp.%I', 'old_' || replace(c.relation, '.', '_')) FROM original_column c LOOP
    EXECUTE 'DROP VIEW ' || _view || ' CASCADE';
  END LOOP;
END
$$;
DROP VIEW old_type, old_object, old_schema, report;
DROP FUNCTION pg_temp.renamed, pg_temp.role_name, pg_temp.move_routine, pg_temp.node_configuration, pg_temp.resolved,
  pg_temp.schema_of;
COMMIT;

\echo 'Taken over:'
SELECT kind, count(*) FILTER (WHERE outcome = 'done') AS done, count(*) FILTER (WHERE outcome = 'refused') AS refused,
       count(*) FILTER (WHERE outcome = 'look') AS to_look_at
  FROM :"flow_old".migration_report GROUP BY kind ORDER BY min(line);
\echo 'To look at (kept in' :flow_old '.migration_report, with advice):'
SELECT outcome, kind, name, reason FROM :"flow_old".migration_report WHERE outcome <> 'done' ORDER BY outcome DESC, line;
