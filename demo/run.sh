#!/usr/bin/env bash
# The demo: runs the flow of demo.sql on public flight data in the scratch cluster, shows it live, prints what came out, and
# draws it to demo/out. Then the same flights on ClickHouse (clickhouse.sql), if it is installed. PACE=0 runs at full speed.
# Start it with make demo, which builds and installs first.
set -euo pipefail
cd "$(dirname "$0")/.."
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
PATH=$("$PG_CONFIG" --bindir):$PATH
archive=${XDG_CACHE_HOME:-$HOME/.cache}/pgflow/vega-datasets-3.2.1.tgz
out=demo/out
pace=${PACE:-0.4}
late_file_after=25   # tenths of a second

bold='' dim='' red='' green='' yellow='' cyan='' plain='' tty=
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
  tty=yes
  if [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' cyan=$'\e[36m' plain=$'\e[0m'
  fi
fi
full='#' empty='.' line_style=ascii
if [ "$(locale charmap 2>/dev/null)" = UTF-8 ]; then full='█' empty='░' line_style=unicode; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
clock() { local now=${EPOCHREALTIME/[.,]/}; printf '%s' $(((now - began) / 100000)); }  # tenths of a second

eval "$(scripts/scratch.sh start "${SCRATCH:-scratch}")"
analyst() { PGUSER=analyst PGOPTIONS='-c client_min_messages=warning' psql -XAtq -v ON_ERROR_STOP=1 "$@"; }

title "1  An ordinary role, its callbacks, a flow"
psql -XAtq -v ON_ERROR_STOP=1 <<'SQL'
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'analyst') THEN
    CREATE ROLE analyst LOGIN IN ROLE flow_user;
  END IF;
  EXECUTE format('GRANT CREATE ON DATABASE %I TO analyst', current_database());
END
$$;
SQL
analyst -f demo/demo.sql
printf '%s\n' "   Role analyst may log in, is a member of flow_user, and nothing else." \
  "   demo/demo.sql: nine procedures, one configuration."

title "2  The data"
files=$(mktemp -d)
trap 'rm -rf "$files"' EXIT
tar xzf "$archive" -C "$files" --strip-components=2 package/data/{flights-20k.json,airports.csv,birdstrikes.csv}
# One transaction a file: the rows and the note that it is there.
deliver() { # file table options
  analyst --single-transaction -c "COPY demo.$2 FROM STDIN WITH ($3)" \
    -c "INSERT INTO demo.delivery VALUES ('$1')" <"$files/$1"
  printf '   %-18s %5s kB delivered\n' "$1" $(($(stat -c %s "$files/$1") / 1000))
}
deliver flights-20k.json flights_json "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'"
deliver birdstrikes.csv strikes_csv "FORMAT csv, HEADER, NULL 'NA'"
printf '   %-18s %s\n' airports.csv "is late"

title "3  SELECT flow.run_flow('flights', '{\"pace\": $pace}')"
began=${EPOCHREALTIME/[.,]/}
run=$(analyst -v pace="$pace" <<<"SELECT flow.run_flow('flights', jsonb_build_object('pace', :pace::numeric))")

look() { # flow
  analyst -F $'\x1f' -v run="$run" -v flow="$1" <<'SQL'
SELECT s.node, s.status, s.steps, s.steps_finished, coalesce(s.progress_done, 0), coalesce(s.progress_total, 0),
  CASE s.status WHEN 'Pending' THEN '' ELSE s.run_time END,
  CASE s.status WHEN 'Deferred' THEN 'its file is not there yet'
    ELSE coalesce(s.progress_note, split_part(s.error, E'\n', 1), CASE WHEN s.status LIKE 'Running%' THEN x.rows END, '') END,
  f.processed IS NOT NULL
FROM flow.v_flow_node_status s JOIN flow.walk_flow(:'flow') w USING (node) JOIN flow.flow f USING (flow_id)
CROSS JOIN LATERAL (
  SELECT format('%s of %s rows in %s queries', sum(t.progress_done), sum(t.progress_total), count(*)) AS rows
  FROM flow.v_flow_task_status t
  WHERE t.flow_id = :run AND t.node = s.node AND t.target <> 'local' AND t.progress_total > 0 HAVING count(*) > 0
  UNION ALL SELECT '' LIMIT 1) AS x
WHERE flow_id = :run ORDER BY w.rank, w.node;
SQL
}

bar() { # done total
  local width=13 i
  for ((i = 1; i <= width; i++)); do if ((i * $2 <= $1 * width)); then printf '%s' "$full"; else printf '%s' "$empty"; fi; done
  printf ' %d/%d' "$1" "$2"
}

declare -A shown
draw() { # rows
  local node status steps finished made total time note ended colour text lines=0 row
  if [ -n "$tty" ] && ((drawn)); then printf '\e[%dA' "$drawn"; fi
  while IFS=$'\x1f' read -r node status steps finished made total time note ended; do
    case "$status" in
      Finished) colour=$green ;; Failed | 'Timed Out' | Cancelled) colour=$red ;; Running*) colour=$yellow ;;
      Deferred) colour=$cyan ;; *) colour=$dim ;;
    esac
    text=
    if ((steps)); then text=$(bar "$finished" "$steps"); elif ((${total%.*})); then text=$(bar "${made%.*}" "${total%.*}"); fi
    text=$text$(printf '%*s' $((22 - ${#text})) '')   # printf itself would count bytes
    row=$(printf '   %-18s %s%-14s%s %s %8s  %s' "$node" "$colour" "$status" "$plain" "$text" "$time" "$note")
    if [ -n "$tty" ]; then
      printf '%s\e[K\n' "$row"
      lines=$((lines + 1))
    elif [ "${shown[$node]:-Pending}" != "$status" ]; then
      printf '%4d.%d s%s\n' $(($(clock) / 10)) $(($(clock) % 10)) "$row"
      shown[$node]=$status
    fi
    over=$ended
  done <<<"$1"
  drawn=$lines
}

# Shows the run until it is over, and calls a command every now and then.
follow() { # flow command
  over=f drawn=0 shown=()
  while :; do
    draw "$(look "$1")"
    [ "$over" = f ] || break
    (($(clock) < 600)) || { echo "the run does not end: see SELECT * FROM flow.v_flow_task_status WHERE flow_id = $run" >&2; exit 1; }
    "$2"
    sleep 0.1
  done
}

deliver_the_late_one() {
  if [ -n "$late" ] && (($(clock) >= late_file_after)); then
    late=
    deliver airports.csv airports_csv "FORMAT csv, HEADER, NULL 'NA'" >"$files/said"
    [ -n "$tty" ] || cat "$files/said"
  fi
}

late=yes
follow flights deliver_the_late_one

title "4  What came out"
print_results() { # file
  PGUSER=analyst psql -Xq -v ON_ERROR_STOP=1 -v run="$run" -P pager=off -P linestyle="$line_style" -f "$1"
}
print_results demo/results.sql

title "5  The diagram"
draw_diagram() { # flow
  mkdir -p "$out"
  analyst -v run="$run" <<<"SELECT flow.graphviz(:run)" >"$out/$1.dot"
  dot -Tsvg -o "$out/$1.svg" "$out/$1.dot"
  dot -Tpng -Gdpi=120 -o "$out/$1.png" "$out/$1.dot"
  printf '   %s\n' "$out/$1".{dot,svg,png}
}
draw_diagram flights
first_run=$run

# Configures ClickHouse as a target and a directory as a store, as an administrator does, beside what is configured already.
configure_warehouse() {
  psql -XAtq -v ON_ERROR_STOP=1 -v url="$CLICKHOUSE_URL" -v user="$CLICKHOUSE_USER" -v password="$CLICKHOUSE_PASSWORD" \
    -v store="file://$home/results" <<'SQL'
SET client_min_messages = warning;
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'flight_reader') THEN
    CREATE ROLE flight_reader LOGIN;   -- as whom ClickHouse reads; the scratch cluster asks for no passwords
  END IF;
END
$$;
GRANT USAGE ON SCHEMA demo TO flight_reader;
GRANT SELECT ON demo.flight TO flight_reader;
DROP SERVER IF EXISTS demo_clickhouse CASCADE;
CREATE SERVER demo_clickhouse TYPE 'clickhouse' FOREIGN DATA WRAPPER pgflow OPTIONS (url :'url');
CREATE USER MAPPING FOR analyst SERVER demo_clickhouse OPTIONS (user :'user', password :'password');
SELECT async.configure(jsonb_build_object(
  'targets', (SELECT coalesce(jsonb_agg(jsonb_build_object('target', target)), '[]') FROM async.target WHERE target NOT IN ('local', 'warehouse'))
    || jsonb_build_object('target', 'warehouse', 'server', 'demo_clickhouse', 'max_concurrency', 4),
  'stores', (SELECT coalesce(jsonb_agg(jsonb_build_object('store', store)), '[]') FROM async.store WHERE store <> 'demo')
    || jsonb_build_object('store', 'demo', 'url', :'store'))) AS configured \gset
SQL
}

second_act() {
  title "6  The same flights on ClickHouse"
  configure_warehouse
  analyst -f demo/clickhouse.sql
  printf '%s\n' "   A server in $CLICKHOUSE_URL, started for this. An administrator has made it target \"warehouse\"," \
    "   with the password in a user mapping, and a directory store \"demo\" (demo/run.sh)." \
    "   demo/clickhouse.sql: one procedure, one configuration. Role analyst starts it as any other flow."
  local draws
  draws=$(analyst -v pace="$pace" <<<"SELECT (10000 + 50000 * least(:pace::numeric, 4))::int")
  title "7  SELECT flow.run_flow('flights_on_clickhouse', '{\"draws\": $draws, …}')"
  began=${EPOCHREALTIME/[.,]/}
  run=$(analyst -v draws="$draws" -v postgres="$PGHOST:$PGPORT" <<'SQL'
SELECT flow.run_flow('flights_on_clickhouse',
  jsonb_build_object('draws', :draws, 'postgres', :'postgres', 'database', current_database()))
SQL
  )
  follow flights_on_clickhouse :
  title "8  What came out"
  print_results demo/clickhouse_results.sql
  title "9  The diagram"
  draw_diagram flights_on_clickhouse
}

home=$(dirname "$(psql -XAtqc 'SHOW data_directory')")
if connection=$(scripts/clickhouse.sh start "$home/clickhouse"); then
  eval "$connection"
  second_act
else
  title "The second act is skipped: no ClickHouse here, as said above (scripts/setup.sh clickhouse installs it)"
fi
run=$first_run

title "Now you"
cat <<TEXT
   The cluster stays until: make scratch-stop. Connect as that ordinary role with

     PGHOST=$PGHOST PGPORT=$PGPORT PGDATABASE=$PGDATABASE PGUSER=analyst psql

   and try

     -- leave the bad rows out, and run again only what failed and what depends on it:
     UPDATE demo.strictness SET skip_bad_rows = true;
     SELECT flow.retry_failed($run); CALL flow.watch($run);
     SELECT label, late_share, strikes FROM demo.report WHERE part = 'week' ORDER BY place;

     -- why load_airports took so long:
     SELECT l.at, l.attempt, l.level, l.message FROM flow.v_flow_task_status s JOIN async.v_task_log l USING (task_id)
     WHERE s.flow_id = $run AND s.node = 'load_airports' ORDER BY l.at;

     -- a new run, at full speed:
     SELECT flow.run_flow('flights', '{}') AS run \\gset
     CALL flow.watch(:run);

     -- a query of your own on ClickHouse, and its rows:
     SELECT async.push_query('warehouse', 'SELECT origin, max(delay) AS worst FROM flight GROUP BY origin LIMIT 5',
       _result => '"inline"') AS task \\gset
     SELECT async.fetch_result(:task);

TEXT
