#!/usr/bin/env bash
# All test layers, the fast ones first. Goes on after a failure, so that one run tells everything; ends with a line
# "N passed, M failed" and fails if anything did.
# The extension must be installed (make test does that).
# Usage: scripts/test.sh [layer ...]     layers: unit, sql, server, scripts   (default: all)
#   unit     what needs no PostgreSQL: cargo test of core/
#   sql      tests/sql/*.sql, self-checking, each in a fresh database of a scratch cluster
#   server   the crate in tests/: integration, property, mutation and crash tests, with clusters of its own
#   scripts  the demo, the README's first flow and a short benchmark, end to end
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
export PG_CONFIG PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
bin=$("$PG_CONFIG" --bindir)
passed=0 failed=0
failures=()
work=$(mktemp -d)
cluster=test-$$
trap 'scripts/scratch.sh stop "$cluster" 2>/dev/null; rm -rf "$work"' EXIT

section() { printf '\n== %s\n' "$*"; }
count() { # passed? name
  if [ "$1" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); failures+=("$2"); fi
}

# Runs cargo test and adds up what its binaries report. A build that fails counts as one failure.
cargo_layer() { # name, arguments of cargo test
  local name=$1 status ok bad
  shift
  timeout "${LIMIT:-45m}" cargo test --quiet --no-fail-fast "$@" 2>&1 </dev/null | tee "$work/$name.log"
  status=${PIPESTATUS[0]}
  read -r ok bad < <(sed -nE 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed;.*/\1 \2/p' "$work/$name.log" |
    awk '{ ok += $1; bad += $2 } END { print ok + 0, bad + 0 }')
  [ "$status" != 0 ] && [ "$bad" = 0 ] && bad=1
  passed=$((passed + ok)) failed=$((failed + bad))
  [ "$bad" = 0 ] || failures+=("$name: cargo test $*")
}

unit() {
  section "unit: cargo test -p pgflow-core"
  cargo_layer unit -p pgflow-core
}

sql() {
  section "sql: tests/sql"
  local connection file name database
  connection=$(scripts/scratch.sh start "$cluster" fsync=off synchronous_commit=off log_min_messages=log) || {
    count 1 "sql: no scratch cluster"
    return
  }
  eval "$connection"
  for file in tests/sql/*.sql; do
    name=$(basename "$file" .sql)
    database=regress_$name
    if {
      "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -c "CREATE DATABASE $database" &&
        "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -d "$database" -c "CREATE EXTENSION pgflow" &&
        timeout 300 "$bin/psql" -Xq -v ON_ERROR_STOP=1 -d "$database" -f "$file"
    } >"$work/$name.out" 2>&1 </dev/null; then
      printf 'ok      %s\n' "$file"
      count 0 "$file"
    else
      printf 'FAILED  %s\n' "$file"
      tail -n 30 "$work/$name.out" | sed 's/^/        /'
      count 1 "$file"
    fi
    "$bin/psql" -XAtq -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" >/dev/null 2>&1 </dev/null || true
  done
  unset PGHOST PGPORT PGUSER PGDATABASE
  scripts/scratch.sh stop "$cluster" 2>/dev/null
}

server() {
  section "server: cargo test -p pgflow-tests"
  cargo_layer server -p pgflow-tests
}

# The README's first flow, as it stands there, run by an ordinary role.
first_flow() {
  local connection
  connection=$(scripts/scratch.sh start "$cluster") || return
  eval "$connection"
  "$bin/psql" -Xq -v ON_ERROR_STOP=1 -c "CREATE ROLE alice LOGIN IN ROLE flow_user" -c "GRANT CREATE ON SCHEMA public TO alice" || return
  sed -n '/^CREATE TABLE day_total/,/^```/{/^```/d;p}' README.md >"$work/first_flow.sql"
  PGUSER=alice "$bin/psql" -Xq -v ON_ERROR_STOP=1 -f "$work/first_flow.sql" >"$work/first_flow.out" &&
    grep -qE 'extract *\| Finished *\| +31' "$work/first_flow.out"
}

scripts() {
  section "scripts: the demo, the README's first flow, a short benchmark"
  local what
  for what in demo/run.sh first_flow benches/run.sh; do
    if (PACE=0.1 SCRATCH=$cluster SMOKE=1 "$what") >"$work/script.out" 2>&1 </dev/null; then
      printf 'ok      %s\n' "$what"
      count 0 "$what"
    else
      printf 'FAILED  %s\n' "$what"
      tail -n 30 "$work/script.out" | sed 's/^/        /'
      count 1 "$what"
    fi
  done
  scripts/scratch.sh stop "$cluster" 2>/dev/null
}

[ $# = 0 ] && set -- unit sql server scripts
for layer in "$@"; do
  case "$layer" in
    unit | sql | server | scripts) "$layer" ;;
    *) echo "unknown layer '$layer' (unit, sql, server, scripts)" >&2; exit 2 ;;
  esac
done

echo
for failure in ${failures[@]+"${failures[@]}"}; do printf 'failed: %s\n' "$failure"; done
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
