#!/usr/bin/env bash
# Runs the isolation specs with PostgreSQL's own isolationtester, in a database of its own on a given server, and compares
# with expected/. The server has pgflow installed and preloaded; PGHOST, PGPORT and PGUSER lead to it as a superuser.
# Usage: tests/isolation/run.sh [spec ...]      (default: all)
set -euo pipefail
cd "$(dirname "$0")"
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
bin=$("$PG_CONFIG" --bindir)
testers=$(dirname "$("$PG_CONFIG" --pgxs)")/../test/isolation
[ -x "$testers/pg_isolation_regress" ] || { echo "there is no isolationtester in $testers: install postgresql-server-dev" >&2; exit 2; }
database=pgflow_isolation_$$
work=$(mktemp -d)

# pg_isolation_regress refuses root.
as_user() { "$@"; }
if [ "$(id -u)" = 0 ]; then
  chown postgres "$work"
  as_user() { runuser -u postgres --preserve-environment -- "$@"; }
fi
on() { "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -d "$@"; }
finish() {
  on postgres -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" || true
  rm -rf "$work"
}
trap finish EXIT

specs=("$@")
[ $# != 0 ] || for file in specs/*.spec; do specs+=("$(basename "$file" .spec)"); done
cp -r specs expected "$work"
chmod -R a+rX "$work"
on postgres -c "CREATE DATABASE $database"
on "$database" -f setup.sql >/dev/null
cd "$work"
status=0
as_user "$testers/pg_isolation_regress" --inputdir="$work" --outputdir="$work" --bindir="$bin" --use-existing \
  --dbname="$database" "${specs[@]}" || status=$?
[ "$status" = 0 ] || cat "$work/regression.diffs" 2>/dev/null || true
[ -z "${KEEP_RESULTS:-}" ] || cp "$work"/results/*.out "$KEEP_RESULTS"
exit "$status"
