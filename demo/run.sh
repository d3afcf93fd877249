#!/usr/bin/env bash
# The demo: runs the flow of demo.sql on public flight data in the scratch cluster, shows it live, prints what came out, and
# draws it to demo/out. PACE=0 runs it at full speed. Start it with make demo, which builds and installs first.
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

look() {
  analyst -F $'\x1f' -v run="$run" <<'SQL'
SELECT s.node, s.status, s.steps, s.steps_finished, coalesce(s.progress_done, 0), coalesce(s.progress_total, 0),
  CASE s.status WHEN 'Pending' THEN '' ELSE s.run_time END,
  CASE s.status WHEN 'Deferred' THEN 'its file is not there yet' ELSE coalesce(s.progress_note, split_part(s.error, E'\n', 1), '') END,
  f.processed IS NOT NULL
FROM flow.v_flow_node_status s JOIN flow.walk_flow('flights') w USING (node) JOIN flow.flow f USING (flow_id)
WHERE flow_id = :run ORDER BY w.rank, w.node;
SQL
}

bar() { # done total
  local width=13 i
  for ((i = 1; i <= width; i++)); do if ((i * $2 <= $1 * width)); then printf '%s' "$full"; else printf '%s' "$empty"; fi; done
  printf ' %d/%d' "$1" "$2"
}

declare -A shown=()
drawn=0
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

over=f
late=yes
while :; do
  draw "$(look)"
  [ "$over" = f ] || break
  (($(clock) < 600)) || { echo "the run does not end: see SELECT * FROM flow.v_flow_task_status WHERE flow_id = $run" >&2; exit 1; }
  if [ -n "$late" ] && (($(clock) >= late_file_after)); then
    late=
    deliver airports.csv airports_csv "FORMAT csv, HEADER, NULL 'NA'" >"$files/said"
    [ -n "$tty" ] || cat "$files/said"
  fi
  sleep 0.1
done

title "4  What came out"
PGUSER=analyst psql -Xq -v ON_ERROR_STOP=1 -v run="$run" -P pager=off -P linestyle="$line_style" -f demo/results.sql

title "5  The diagram"
mkdir -p "$out"
analyst -v run="$run" <<<"SELECT flow.graphviz(:run)" >"$out/flights.dot"
dot -Tsvg -o "$out/flights.svg" "$out/flights.dot"
dot -Tpng -Gdpi=120 -o "$out/flights.png" "$out/flights.dot"
printf '   %s\n' "$out"/flights.{dot,svg,png}

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

TEXT
