#!/usr/bin/env bash
# A ClickHouse of one's own in a directory, out of the cache that scripts/setup.sh clickhouse fills: HTTP on 127.0.0.1, one
# user `demo` with a password. For the demo's second act; tests start theirs themselves (tests/src/servers/clickhouse.rs).
# Usage: scripts/clickhouse.sh start|stop directory
#   start  makes it when missing, reuses it while it runs; prints shell lines on stdout: export CLICKHOUSE_URL=… and so on
#   stop   ends it; what is in the directory stays
# As root it runs as user postgres, who must be able to write to the directory's parent.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-}
dir=${2:-}
library=${XDG_CACHE_HOME:-$HOME/.cache}/pgflow/servers/clickhouse/libchdb.so

say() { printf 'clickhouse: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

if [ "$(id -u)" = 0 ]; then
  as_server() { (cd / && exec runuser -u postgres -- "$@"); }
else
  as_server() { (cd / && exec "$@"); }
fi

python=/usr/bin/python3
[ -x "$python" ] || python=python3

# Ours, and not another process that got its number.
is_running() {
  local pid
  pid=$(cat "$dir/pid" 2>/dev/null) && grep -qzxF -- "--path=$dir/data" "/proc/$pid/cmdline" 2>/dev/null
}

answers() { "$python" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1] + "/ping", timeout=5)' "$(cat "$dir/url")" 2>/dev/null; }

free_ports() {
  "$python" -c 'import socket
taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*[s.getsockname()[1] for s in taken])'
}

write_configuration() { # password
  as_server tee "$dir/users.xml" >/dev/null <<XML
<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>
  <default><no_password/><networks><ip>::1</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT SYSTEM LISTEN ON *.*</query><query>GRANT SELECT ON system.numbers</query></grants></default>
  <demo><password>$1</password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></demo>
</users></clickhouse>
XML
  as_server tee "$dir/config.xml" >/dev/null <<XML
<clickhouse>
  <users_config>$dir/users.xml</users_config>
  <max_server_memory_usage>1500000000</max_server_memory_usage>
  <query_log><database>system</database><table>query_log</table>
    <flush_interval_milliseconds>500</flush_interval_milliseconds></query_log>
  <logger><log>$dir/server.log</log></logger>
</clickhouse>
XML
}

start_anew() {
  local password http_port tcp_port pid waited=0
  # It makes its query log anew and fails if there is one.
  as_server rm -rf "$dir"
  as_server mkdir -m 700 "$dir"
  read -r http_port tcp_port < <(free_ports)
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  write_configuration "$password"
  printf '%s\n' "$password" | as_server tee "$dir/password" >/dev/null
  printf 'http://127.0.0.1:%s\n' "$http_port" | as_server tee "$dir/url" >/dev/null
  as_server tee "$dir/launcher.py" <tests/src/servers/clickhouse.py >/dev/null
  # shellcheck disable=SC2016  # expanded by the inner shell, which writes its own number before it becomes the server
  as_server setsid sh -c 'cd "$0" && echo $$ >pid && exec "$@" >said 2>&1 </dev/null' "$dir" \
    "$python" "$dir/launcher.py" "$(readlink -f "$library")" "--config-file=$dir/config.xml" "--path=$dir/data" \
    --listen_host=127.0.0.1 --log-level=warning "--http_port=$http_port" "--tcp_port=$tcp_port" \
    --query "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(1) FROM system.numbers
      SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 FORMAT Null" >/dev/null 2>&1 </dev/null &
  until answers; do
    waited=$((waited + 1))
    if [ "$waited" -gt 10 ] && ! is_running; then tail -n 3 "$dir/said" >&2 || true; die "it has ended"; fi
    [ "$waited" -lt 600 ] || die "it does not answer; its log is $dir/server.log"
    sleep 0.1
  done
}

start() {
  [ -e "$library" ] || die "it is not installed (scripts/setup.sh clickhouse)"
  command -v "$python" >/dev/null || die "there is no python3"
  if ! is_running || ! answers; then
    stop
    start_anew
  fi
  printf 'export CLICKHOUSE_URL=%s CLICKHOUSE_USER=demo CLICKHOUSE_PASSWORD=%s\n' "$(cat "$dir/url")" "$(cat "$dir/password")"
}

stop() {
  is_running || return 0
  local pid waited=0
  pid=$(cat "$dir/pid")
  as_server kill "$pid"
  while is_running; do
    waited=$((waited + 1))
    [ "$waited" != 100 ] || as_server kill -9 "$pid"
    [ "$waited" -lt 200 ] || die "it (pid $pid) does not stop"
    sleep 0.1
  done
}

[ -n "$dir" ] || what=
case "$what" in
  start) start ;;
  stop) stop ;;
  *) sed -n '2,6s/^# //p' "$0" >&2; exit 2 ;;
esac
