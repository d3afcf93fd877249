#!/usr/bin/env bash
# A scratch cluster with the installed pgflow: made when missing, reused while it runs, started anew when the installed
# library has changed. Belongs to this checkout; several live side by side under names.
# Usage: scripts/scratch.sh start|stop [name [setting=value ...]]     (default name: scratch)
#   start  prints only shell lines on stdout: export PGHOST=… PGPORT=… PGUSER=… PGDATABASE=…
#   stop   ends it, with the ClickHouse that the demo may have started, and removes its files
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
what=${1:-}
name=${2:-scratch}
shift $(($# < 2 ? $# : 2))
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
bin=$("$PG_CONFIG" --bindir)

# A place that the server's user can write to, short enough for a socket's path: the checkout is keyed by its path.
key=$(printf '%s' "$checkout" | cksum | cut -d' ' -f1)
dir=/var/tmp/pgflow-$(id -u)-$key-$name
data=$dir/data

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 1; }

# The server refuses root: then everything of it runs as user postgres.
server_user=$(id -un)
if [ "$(id -u)" = 0 ]; then
  server_user=postgres
  id postgres >/dev/null 2>&1 || die "there is no user postgres to run the server as"
  as_server() { (cd / && runuser -u postgres -- "$@"); }
else
  as_server() { (cd / && "$@"); }
fi

running() { as_server "$bin/pg_ctl" -D "$data" status >/dev/null 2>&1; }

# Above the ports that the kernel gives to outgoing connections.
some_port() { echo $((61000 + (key + RANDOM) % 4500)); }

checksum_of() { { cat "$@" 2>/dev/null || true; } | sha256sum | cut -d' ' -f1; }

make_cluster() {
  say "making a cluster in $dir"
  as_server "$bin/initdb" -D "$data" -U postgres --auth=trust --encoding=UTF8 --locale=C >/dev/null
  local setting
  {
    echo "# Written by scripts/scratch.sh"
    echo "listen_addresses = '127.0.0.1'"
    echo "unix_socket_directories = '$dir'"
    echo "shared_preload_libraries = 'pgflow'"
    for setting in "$@"; do echo "${setting%%=*} = '${setting#*=}'"; done
  } | as_server tee -a "$data/postgresql.conf" >/dev/null
}

# On the port of the last time, or on another one while that is taken.
start_server() {
  local port try
  port=$(cat "$dir/port" 2>/dev/null || some_port)
  for try in {1..20}; do
    if as_server "$bin/pg_ctl" -D "$data" -l "$dir/log" -w -t 60 -o "-p $port" start >/dev/null 2>&1 </dev/null; then
      echo "$port" >"$dir/port"
      return
    fi
    tail -n 5 "$dir/log" | grep -q 'could not create any TCP/IP sockets' || break
    port=$(some_port)
  done
  tail -n 20 "$dir/log" >&2 || true
  die "the server did not start (attempt $try); its log is $dir/log"
}

stop_server() {
  as_server "$bin/pg_ctl" -D "$data" -w -t 30 -m fast stop >/dev/null 2>&1 ||
    as_server "$bin/pg_ctl" -D "$data" -w -t 30 -m immediate stop >/dev/null 2>&1 ||
    die "the server (pid $(head -n 1 "$data/postmaster.pid")) does not stop"
}

sql() { "$bin/psql" -XAtq -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$(cat "$dir/port")" -U postgres "$@"; }

start() {
  local library script
  [ -e "$("$PG_CONFIG" --pkglibdir)/pgflow.so" ] || die "pgflow is not installed: make install"
  library=$(checksum_of "$("$PG_CONFIG" --pkglibdir)/pgflow.so")
  script=$(checksum_of "$("$PG_CONFIG" --sharedir)"/extension/pgflow{.control,--*.sql})

  # The parent is open to everybody: only what we made ourselves is ours.
  [ -d "$dir" ] || mkdir -m 755 "$dir"
  case "$(stat -c '%F of %U' "$dir")" in
    "directory of $(id -un)" | "directory of $server_user") ;;
    *) die "$dir is not ours" ;;
  esac
  [ "$(id -u)" != 0 ] || chown "$server_user" "$dir"
  exec 9>"$dir/lock"
  flock 9

  [ -e "$data/PG_VERSION" ] || make_cluster "$@" 9>&-
  if running && [ "$(cat "$dir/library" 2>/dev/null)" != "$library" ]; then
    say "the installed library has changed: starting the server anew"
    stop_server
  fi
  running || start_server 9>&-
  echo "$library" >"$dir/library"

  if [ "$(cat "$dir/script" 2>/dev/null)" != "$script" ]; then
    [ -e "$dir/script" ] && say "the extension's script has changed: making database pgflow anew"
    sql -d postgres -c "SET client_min_messages = error" -c "DROP DATABASE IF EXISTS pgflow WITH (FORCE)" -c "CREATE DATABASE pgflow"
    sql -d pgflow -c "CREATE EXTENSION pgflow"
    echo "$script" >"$dir/script"
  fi
  say "running on port $(cat "$dir/port"), log in $dir/log"
  echo "export PGHOST=127.0.0.1 PGPORT=$(cat "$dir/port") PGUSER=postgres PGDATABASE=pgflow"
}

stop() {
  if [ ! -d "$dir" ]; then say "there is none"; return; fi
  scripts/clickhouse.sh stop "$dir/clickhouse"  # the demo's
  if running; then stop_server; fi
  rm -rf "$dir"
  say "stopped, files removed"
}

case "$what" in
  start) start "$@" ;;
  stop) stop ;;
  *) sed -n '2,6s/^# //p' "$0" >&2; exit 2 ;;
esac
