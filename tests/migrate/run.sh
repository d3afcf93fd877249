#!/usr/bin/env bash
# Takes a fixture of the SQL library over, in databases of its own on a given server, and looks at what came of it.
# The server has pgflow installed and preloaded; PGHOST, PGPORT and PGUSER lead to it as a superuser.
# Usage: tests/migrate/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
bin=$("$PG_CONFIG" --bindir)
database=pgflow_migrate_$$
roles=(migrate_etl migrate_reader)
background=

on() { local name=$1; shift; "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -d "$name" "$@"; }
migrate() { on "$database" "$@" -f sql/migrate/from_original.sql; }
finish() {
  local role
  [ -z "$background" ] || kill "$background" 2>/dev/null || true
  on postgres -c "DROP DATABASE IF EXISTS $database WITH (FORCE)"
  for role in "${roles[@]}"; do on postgres -c "DROP ROLE IF EXISTS $role" 2>/dev/null || true; done
}
trap finish EXIT
fixture() {
  on postgres -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" -c "CREATE DATABASE $database" 2>/dev/null
  on "$database" -f tests/migrate/original_fixture.sql
}
say() { printf 'ok      migrate: %s\n' "$*"; }
die() { printf 'FAILED  migrate: %s\n' "$*"; exit 1; }
# What must be refused, with what message; nothing may have changed.
refused() { # what, pattern, arguments of migrate
  local what=$1 pattern=$2 before after message
  shift 2
  before=$(state)
  if message=$(migrate "$@" 2>&1); then die "$what: not refused"; fi
  grep -qE "$pattern" <<<"$message" || die "$what: $message"
  after=$(state)
  [ "$before" = "$after" ] || die "$what: refused, but changed: $before / $after"
  say "$what: refused"
}
state() {
  on "$database" <<'SQL'
    SELECT count(*), md5(string_agg(o.what, ',' ORDER BY o.what)) FROM (
      SELECT c.oid::REGCLASS::TEXT AS what FROM pg_class c WHERE c.relnamespace::REGNAMESPACE::TEXT !~ '^pg_t'
      UNION ALL SELECT p.oid::REGPROCEDURE::TEXT FROM pg_proc p WHERE p.pronamespace::REGNAMESPACE::TEXT !~ '^pg_t'
      UNION ALL SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_t'
      UNION ALL SELECT extname FROM pg_extension) AS o
SQL
}

fixture
refused 'open runs' 'open work: 1 runs \(19 of etl'
refused 'a word that is none' 'open_runs is "maybe"' -v open_runs=maybe
refused 'an owner that is none' 'role "nobody_of_that_name" does not exist' -v owner=nobody_of_that_name
refused 'a name that is taken' 'schema app exists already' -v flow_old=app
on "$database" -c "SET application_name = main_loop" -c "CALL async.main()" >/dev/null 2>&1 &
background=$!
for _ in {1..100}; do
  [ "$(on postgres -c "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'main_loop' AND query ~ 'main\(' AND state = 'active'")" = 0 ] || break
  sleep 0.1
done
refused 'a running main loop' 'the main loop runs: process [0-9]+' -v open_runs=abandon
on postgres -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'main_loop'" >/dev/null
wait "$background" 2>/dev/null || true
background=

migrate -v open_runs=abandon >/dev/null
refused 'a second time' 'extension pgflow is here already' -v open_runs=abandon
PGOPTIONS='-c test.owner=postgres' on "$database" -f tests/migrate/checks.sql
say 'settings, flows, history, routines, views; runs on the new engine'

# An older library: columns and tables that it did not have yet. Other names, an owner.
fixture
on "$database" >/dev/null <<'SQL'
UPDATE flow.flow SET processed = now() WHERE processed IS NULL;
UPDATE async.task SET processed = now() WHERE processed IS NULL;
DROP VIEW app.inside, app.open_runs, app.finished, flow.v_flow_status, flow.v_flow_task;
DROP TABLE async.concurrency_pool, async.client_control;
ALTER TABLE async.control DROP COLUMN debug_log, DROP COLUMN startup_routines, DROP COLUMN loop_routines,
  DROP COLUMN default_concurrency_pool_workers;
ALTER TABLE async.task DROP COLUMN eligible_when, DROP COLUMN tracked, DROP COLUMN track_yielded, DROP COLUMN manual_timeout;
ALTER TABLE flow.node DROP COLUMN step_timeout, DROP COLUMN synchronous, ALTER COLUMN priority TYPE SMALLINT;
ALTER TABLE flow.flow DROP COLUMN force_priority, DROP COLUMN parent_flow_id, DROP COLUMN first_error;
SQL
migrate -v "async_old=Old async" -v flow_old=f1 -v owner=migrate_etl >/dev/null
on "$database" <<'SQL'
DO $$
BEGIN
  ASSERT (SELECT count(*) FROM flow.flow WHERE run_as = 'migrate_etl') = 9 AND (SELECT count(*) FROM flow.configured WHERE owner = 'migrate_etl') = 3;
  ASSERT (SELECT count(*) FROM "Old async".task) = (SELECT count(*) FROM async.task WHERE run_as = 'migrate_etl');
  ASSERT (SELECT count(*) FROM f1.migration_report WHERE outcome = 'done') > 20;
  ASSERT to_regprocedure('app.load(flow.callback_arguments_t)') IS NOT NULL;
END
$$;
GRANT flow_user TO migrate_etl;
SET ROLE migrate_etl;
DO $$ BEGIN ASSERT (SELECT count(*) FROM flow.v_flow_status) = 9, 'the owner sees its history'; END $$;
SQL
say 'an older library, other names, an owner'

# Schemas that only have the names.
on postgres -c "DROP DATABASE $database WITH (FORCE)" -c "CREATE DATABASE $database"
on "$database" -c "CREATE SCHEMA async" -c "CREATE SCHEMA flow" -c "CREATE TABLE flow.flow (flow_id INT)"
refused 'other schemas of these names' 'schemas async and flow are not those of the SQL library'
