#!/usr/bin/env bash
# All test layers, the fast ones first. Goes on after a failure, so that one run tells everything; ends with a line
# "N passed, M failed" and fails if anything did.
# The extension must be installed (make test does that).
# Usage: scripts/test.sh [layer ...]     (default: all, in this order)
#   unit       what needs no PostgreSQL: cargo test of core/, executor/ and model/
#   sql        tests/sql/*.sql, self-checking, each in a fresh database
#   upgraded   the same in databases that were made with the first version and updated (not by default)
#   isolation  tests/isolation: sessions that interleave, step by step
#   migrate    tests/migrate: an installation of the SQL library is taken over
#   server     the crate in tests/: rules, operations, property, mutation and crash tests, with clusters of its own
#   scripts    the README's first flow, the demo, the Debian package and a short benchmark, end to end
#   core       what another major version of PostgreSQL must pass: upgraded, the rules, a few crashes (not by default)
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
export PG_CONFIG PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
bin=$("$PG_CONFIG" --bindir)
# The same random flows every time, so that a failure here is one of the change; PGFLOW_SEED=… or make soak for others.
export PGFLOW_SEED=${PGFLOW_SEED:-20261120}
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
  section "unit: cargo test -p pgflow-core -p pgflow-executor -p pgflow-model"
  cargo_layer unit -p pgflow-core -p pgflow-executor -p pgflow-model
}

# Runs a command with the environment of the scratch cluster.
with_cluster() {
  local connection
  connection=$(scripts/scratch.sh start "$cluster" fsync=off 2>"$work/cluster.log") || {
    cat "$work/cluster.log"
    count 1 "no scratch cluster for: $*"
    return
  }
  eval "$connection"
  "$@"
  unset PGHOST PGPORT PGUSER PGDATABASE
}

# How the databases of the SQL files get the extension.
create=(-c "CREATE EXTENSION pgflow")

sql_file() { # file
  local name database
  name=$(basename "$1" .sql)
  database=regress_$name
  "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" -c "CREATE DATABASE $database" &&
    "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -d "$database" "${create[@]}" &&
    timeout 300 "$bin/psql" -Xq -v ON_ERROR_STOP=1 -d "$database" -f "$1" &&
    "$bin/psql" -XAtq -c "DROP DATABASE $database WITH (FORCE)"
}

sql_files() { for file in tests/sql/*.sql; do succeeds "$(basename "$file")" sql_file "$file"; done; }

sql() {
  section "sql: tests/sql"
  with_cluster sql_files
}

upgraded() {
  section "upgraded: tests/sql where 0.1.0 was updated"
  create=(-c "CREATE EXTENSION pgflow VERSION '0.1.0'" -c "ALTER EXTENSION pgflow UPDATE")
  with_cluster sql_files
}

core() {
  upgraded
  section "core: the rules, and a kill of each kind"
  PGFLOW_KILLS=1 PGFLOW_STEPS=3000 cargo_layer core -p pgflow-tests --test basics --test crash
}

server() {
  section "server: cargo test -p pgflow-tests"
  cargo_layer server -p pgflow-tests
}

# A script that prints "ok …" and "FAILED …" lines (pg_isolation_regress: "test … ok"): each is counted. One that fails
# without saying so counts as one failure.
script_layer() { # name, command
  local name=$1 status ok bad
  shift
  "$@" 2>&1 </dev/null | tee "$work/$name.log"
  status=${PIPESTATUS[0]}
  ok=$(grep -cE '^(ok |test .* \.\.\. ok)' "$work/$name.log")
  bad=$(grep -cE '^(FAILED |test .* \.\.\. FAILED)' "$work/$name.log")
  [ "$status" != 0 ] && [ "$bad" = 0 ] && bad=1
  passed=$((passed + ok)) failed=$((failed + bad))
  [ "$bad" = 0 ] || failures+=("$name: $*")
}

isolation() {
  section "isolation: tests/isolation"
  with_cluster script_layer isolation tests/isolation/run.sh
}

migrate() {
  section "migrate: an installation of the SQL library is taken over"
  with_cluster script_layer migrate tests/migrate/run.sh
}

# The README's first flow, as it stands there, run by an ordinary role.
first_flow() {
  "$bin/psql" -Xq -v ON_ERROR_STOP=1 -c "CREATE ROLE alice LOGIN IN ROLE flow_user" -c "GRANT CREATE ON SCHEMA public TO alice" || return
  sed -n '/^CREATE TABLE day_total/,/^```/{/^```/d;p}' README.md >"$work/first_flow.sql"
  PGUSER=alice "$bin/psql" -Xq -v ON_ERROR_STOP=1 -f "$work/first_flow.sql" >"$work/first_flow.out" &&
    grep -qE 'extract *\| Finished *\| +31' "$work/first_flow.out"
}

# What must succeed as it is; its output is shown only if it does not.
succeeds() { # name, command
  local name=$1
  shift
  if "$@" >"$work/$name.out" 2>&1 </dev/null; then
    printf 'ok      %s\n' "$name"
    count 0 "$name"
  else
    printf 'FAILED  %s\n' "$name"
    tail -n 30 "$work/$name.out" | sed 's/^/        /'
    count 1 "$name"
  fi
}

# Both acts of the demo. The second one may only be left out where there is no ClickHouse to install.
both_acts() {
  demo/run.sh | tee "$work/acts" && grep -qE '^ clean .*Finished .* 13 ' "$work/acts" || return
  if [ "$(uname -m)" = x86_64 ]; then
    grep -qE '^ estimate .*Finished .* 16 ' "$work/acts" && grep -qE '^ ORD  Chicago .* 1095 ' "$work/acts" &&
      grep -qE '^ to_parquet .* parquet .* 2228 ' "$work/acts" && [ -s demo/out/flights_on_clickhouse.png ]
  fi
}

scripts() {
  section "scripts: the README's first flow, the demo, the Debian package, a short benchmark"
  with_cluster succeeds first_flow first_flow
  SCRATCH=$cluster PACE=0.1 succeeds demo both_acts
  succeeds package scripts/package-test.sh
  succeeds bench_self_test benches/run.sh --self-test
  # Without the other systems: the same on every machine, and nothing of theirs is downloaded for a test.
  succeeds bench benches/run.sh --profile smoke --without peers --out "$work/bench"
}

[ $# = 0 ] && set -- unit sql isolation migrate server scripts
for layer in "$@"; do
  case "$layer" in
    unit | sql | upgraded | isolation | migrate | server | scripts | core) "$layer" ;;
    *) echo "unknown layer '$layer' (unit, sql, upgraded, isolation, migrate, server, scripts, core)" >&2; exit 2 ;;
  esac
done

echo
for failure in ${failures[@]+"${failures[@]}"}; do printf 'failed: %s\n' "$failure"; done
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
