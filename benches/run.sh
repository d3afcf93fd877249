#!/usr/bin/env bash
# Benchmarks of the installed extension against pgbench in the same cluster and run. Ratios are to be trusted, absolute
# figures are this machine's. Settings, by environment (SMOKE=1: all of it in about 20 s, to see that it works):
#   STEPS=50000 PAIRS=5 WORKERS="1 2" LATENCY=500 COLD=20 CHAIN=100 FAN=1000 LAYERS=14 IDLE=60 (seconds) REMOTE=500
set -euo pipefail
cd "$(dirname "$0")/.."
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
PATH=$("$PG_CONFIG" --bindir):$PATH
if [ -n "${SMOKE:-}" ]; then
  : "${STEPS:=2000}" "${PAIRS:=1}" "${WORKERS:=1 2}" "${LATENCY:=50}" "${COLD:=3}" "${CHAIN:=20}" "${FAN:=100}" "${LAYERS:=5}" "${IDLE:=3}" "${REMOTE:=50}"
else
  : "${STEPS:=50000}" "${PAIRS:=5}" "${WORKERS:=1 2}" "${LATENCY:=500}" "${COLD:=20}" "${CHAIN:=100}" "${FAN:=1000}" "${LAYERS:=14}" "${IDLE:=60}" "${REMOTE:=500}"
fi

cluster=bench-$$
work=$(mktemp -d)
trap 'scripts/scratch.sh stop "$cluster" 2>/dev/null; rm -rf "$work"' EXIT
# Full durability, as delivered; memory and checkpoints so that neither side waits for them.
connection=$(scripts/scratch.sh start "$cluster" shared_buffers=512MB max_wal_size=8GB checkpoint_timeout=1h \
  max_worker_processes=16 autovacuum_naptime=5s max_connections=$((REMOTE + 100)))
eval "$connection"
sql() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }
PGHOST=$(sql -c "SHOW unix_socket_directories")
export PGHOST

say() { printf '%s\n' "$*"; }
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR % 2) print v[(NR + 1) / 2]; else print (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
divide() { awk -v a="$1" -v b="$2" -v f="${3:-%.2f}" 'BEGIN { printf f, a / b }'; }
setting() { sql -c "ALTER SYSTEM SET $1 = $2" -c "SELECT pg_reload_conf()" >/dev/null; }

# Starts a run, waits for its end, prints its flow_id. Fails if anything in it failed.
run() { # flow arguments
  local id failed arguments=${2:-null}
  id=$(sql -c "SELECT flow.run_flow('$1', '$arguments')")
  timeout 900 psql -XAtq -v ON_ERROR_STOP=1 -c "CALL bench.wait_for($id)"
  failed=$(sql -c "SELECT coalesce(first_error, 'not finished') FROM flow.flow WHERE flow_id = $id AND (processed IS NULL OR count_failed_nodes > 0)")
  [ -z "$failed" ] || { say "run $id of $1: $failed" >&2; exit 1; }
  echo "$id"
}

# Steps a second: from the moment the pushed steps are released (the node's own task has ended) to the end of the run.
steps_rate() {
  local id rows
  sql -c "TRUNCATE bench.by_steps" -c CHECKPOINT
  id=$(run bench_steps "{\"steps\": $STEPS}")
  rows=$(sql -c "SELECT count(DISTINCT i) || ' of ' || count(*) FROM bench.by_steps")
  [ "$rows" = "$STEPS of $STEPS" ] || { say "wrong rows: $rows, expected $STEPS" >&2; exit 1; }
  sql -c "SELECT round($STEPS / extract(epoch FROM f.processed - t.processed))
          FROM flow.flow f JOIN flow.flow_node n USING (flow_id) JOIN async.task t ON t.task_id = n.task_id WHERE f.flow_id = $id"
}

pgbench_rate() { # clients
  sql -c "TRUNCATE bench.by_pgbench" -c CHECKPOINT
  echo '\set i random(1, 1000000)
INSERT INTO bench.by_pgbench (i) VALUES (:i);' >"$work/insert.sql"
  pgbench -n -M prepared -c "$1" -j "$1" -t $((STEPS / $1)) -f "$work/insert.sql" 2>"$work/pgbench.err" |
    sed -nE 's/^tps = ([0-9]+).*without initial.*/\1/p'
}

say "$(sql -c "SELECT 'PostgreSQL ' || current_setting('server_version')"), $(nproc) cores, $(sed -nE 's/^model name\s*: //p' /proc/cpuinfo | head -n 1), $(date -u +%F)"
sql -f benches/bench.sql

say ""
say "Throughput: $STEPS trivial steps, each inserting a row, full durability; pairs with pgbench -M prepared"
for workers in $WORKERS; do
  setting pgflow.workers "$workers"
  setting pgflow.workers_per_role "$workers"
  sleep 1
  run bench_steps '{"steps": 500}' >/dev/null
  : >"$work/ratios"
  for ((pair = 1; pair <= PAIRS; pair++)); do
    # Who goes first changes from pair to pair.
    if ((pair % 2)); then ours=$(steps_rate); theirs=$(pgbench_rate "$workers"); else theirs=$(pgbench_rate "$workers"); ours=$(steps_rate); fi
    ratio=$(divide "$ours" "$theirs")
    say "  $workers workers, pair $pair: $ours steps/s, pgbench $theirs/s, ratio $ratio"
    echo "$ratio" >>"$work/ratios"
    echo "$theirs" >>"$work/pgbench-$workers"
  done
  say "  $workers workers: median ratio $(median <"$work/ratios")"
done
sql -c "ALTER SYSTEM RESET pgflow.workers" -c "ALTER SYSTEM RESET pgflow.workers_per_role"
sql -c "SELECT pg_reload_conf()" >/dev/null

percentiles() { # kind label
  sql -F ' ' -c "SELECT to_char(percentile_cont(0.5) WITHIN GROUP (ORDER BY after_commit), 'FM990.000'),
      to_char(percentile_cont(0.99) WITHIN GROUP (ORDER BY after_commit), 'FM990.000'),
      to_char(percentile_cont(0.5) WITHIN GROUP (ORDER BY with_commit), 'FM990.000'),
      to_char(percentile_cont(0.99) WITHIN GROUP (ORDER BY with_commit), 'FM990.000'), count(*)
    FROM bench.latency WHERE kind = '$1'" |
    while read -r p50 p99 p50c p99c count; do
      say "  $2: p50 $p50 ms, p99 $p99 ms; counted from the begin of the commit p50 $p50c ms, p99 $p99c ms ($count runs)"
    done
}
say ""
say "Latency: from the commit of run_flow to the first statement of the callback, idle system"
sql -c "CALL bench.measure_latency('warm-up', 10, 0.01)" -c "CALL bench.measure_latency('warm', $LATENCY, 0.02)"
percentiles warm "warm worker"
setting pgflow.worker_idle_time 100
sleep 1
sql -c "CALL bench.measure_latency('cold', $COLD, 0.7)"
percentiles cold "cold worker"
sql -c "ALTER SYSTEM RESET pgflow.worker_idle_time"
sql -c "SELECT pg_reload_conf()" >/dev/null

duration() { sql -c "SELECT round((extract(epoch FROM processed - created) * 1000)::numeric, 1) FROM flow.flow WHERE flow_id = $1"; }
best_of_three() { # flow
  for _ in 1 2 3; do duration "$(run "$1")"; done | median
}
timed() { # SQL; milliseconds
  local began=${EPOCHREALTIME/[.,]/}
  sql -c "$1" >/dev/null
  divide "$((${EPOCHREALTIME/[.,]/} - began))" 1000 %.0f
}
say ""
say "Shapes"
if ! [ -s "$work/pgbench-1" ]; then pgbench_rate 1 >"$work/pgbench-1"; fi
commit=$(divide 1000 "$(median <"$work/pgbench-1")" %.3f)
sql -c "SELECT flow.configure_flow('bench_chain', bench.chain($CHAIN))" -c "SELECT flow.configure_flow('bench_fan', bench.fan($FAN))" >/dev/null
chain=$(best_of_three bench_chain)
say "  chain of $CHAIN: $chain ms = $(divide "$chain" "$CHAIN" %.3f) ms a node, $(divide "$(divide "$chain" "$CHAIN" %.4f)" "$commit") durable commits ($commit ms each)"
fan=$(best_of_three bench_fan)
say "  fan-out 1 -> $FAN -> 1: $fan ms = $(divide "$fan" $((FAN + 2)) %.3f) ms a node"
say "  configure $LAYERS fully connected layers of 2: $(timed "SELECT flow.configure_flow('bench_layers', bench.layers($LAYERS))") ms"
say "  configure a fan of $((FAN * 10)) nodes: $(timed "SELECT flow.configure_flow('bench_wide', bench.fan($((FAN * 10))))") ms"

# Of our processes: CPU time (clock ticks), context switches; and the WAL position. Autovacuum is off, so that nobody else
# has anything to do either.
activity() {
  local pid
  for pid in $(sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pgflow%' ORDER BY pid"); do
    awk -v pid="$pid" '{ printf "%s: %d ticks, ", pid, $14 + $15 }' "/proc/$pid/stat"
    awk '/ctxt_switches/ { n += $2 } END { print n " switches" }' "/proc/$pid/status"
  done
  ((IDLE < 30)) || sql -c "SELECT pg_current_wal_lsn()"
}
say ""
setting pgflow.worker_idle_time 100
setting autovacuum off
sql -c "VACUUM ANALYZE" -c CHECKPOINT
sleep 3
((IDLE < 30)) || sleep 30   # the server itself writes a last record some time after a checkpoint
before=$(activity)
sleep "$IDLE"
after=$(activity)
if [ "$before" = "$after" ]; then
  wal=$( ((IDLE < 30)) || echo ", no WAL")
  say "Idle for $IDLE s: no CPU time, no context switch$wal ($(grep -c ticks <<<"$before") processes of ours)"
else
  say "Idle for $IDLE s: NOT idle"
  diff <(echo "$before") <(echo "$after") | sed 's/^/  /' || true
fi

# Tasks on another server, here this one by TCP: how many are seen in flight at once, and what that costs the dispatcher.
say ""
sql -c "SELECT async.configure(jsonb_build_object('targets', jsonb_build_array(jsonb_build_object(
          'target', 'bench_elsewhere', 'kind', 'postgres', 'max_concurrency', $REMOTE,
          'connection_string', format('host=127.0.0.1 port=%s dbname=%s user=%s sslmode=disable',
            current_setting('port'), current_database(), current_user)))))" >/dev/null
elsewhere() { # tasks; seconds from the push to the end of the last one, the most seen in flight
  local began=${EPOCHREALTIME/[.,]/} most=0 now
  sql -c "SELECT count(*) FROM async.push_tasks((SELECT array_agg(async.task('SELECT pg_sleep(1)', 'bench_elsewhere'))
          FROM generate_series(1, $1)))" >/dev/null
  while true; do
    now=$(sql -c "SELECT count(*) FROM async.running()")
    ((now <= most)) || most=$now
    [ "$(sql -c "SELECT count(*) FROM async.task WHERE target = 'bench_elsewhere' AND processed IS NULL")" = 0 ] && break
    sleep 0.1
  done
  [ "$(sql -c "SELECT count(*) FROM async.task WHERE target = 'bench_elsewhere' AND failed")" = 0 ] || { say "tasks failed" >&2; exit 1; }
  echo "$(divide "$((${EPOCHREALTIME/[.,]/} - began))" 1000000) $most"
}
dispatcher=$(sql -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pgflow dispatcher'
                     AND datname = current_database()")
ticks() { awk '{ print $14 + $15 }' "/proc/$dispatcher/stat"; }
elsewhere 5 >/dev/null
for when in "new connections" "connections kept"; do
  before=$(ticks)
  read -r took most < <(elsewhere "$REMOTE")
  say "$REMOTE tasks of 1 s elsewhere, $when: $took s, $most in flight at once, $(divide "$(($(ticks) - before))" "$(getconf CLK_TCK)") s of CPU in the dispatcher's process, $(awk '/VmHWM/ { printf "%d MB", $2 / 1024 }' "/proc/$dispatcher/status") at most"
done
