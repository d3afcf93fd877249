#!/usr/bin/env bash
# Writes docs/sql-reference.md from the comments in a database that has the installed extension.
# Usage: scripts/sql-reference.sh [--check] [--connected]
#   --check      fails if the file is not current, changes nothing
#   --connected  PGHOST, PGPORT and so on name the database; else a scratch cluster is made for it
set -euo pipefail
cd "$(dirname "$0")/.."
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
file=docs/sql-reference.md
fresh=$(mktemp)
cluster=
trap 'rm -f "$fresh"; [ -z "$cluster" ] || scripts/scratch.sh stop "$cluster" 2>/dev/null' EXIT
if [[ " $* " != *" --connected "* ]]; then
  cluster=reference-$$
  eval "$(scripts/scratch.sh start "$cluster" fsync=off)"
fi
"$("$PG_CONFIG" --bindir)/psql" -Xq -v ON_ERROR_STOP=1 -f scripts/sql-reference.sql | cat -s >"$fresh"
if [[ " $* " = *" --check "* ]]; then
  diff -u "$file" "$fresh" >&2 || { echo "$file is not current: make sql-reference" >&2; exit 1; }
else
  cat "$fresh" >"$file"
  echo "wrote $file ($(grep -c '^### ' "$file") objects)" >&2
fi
