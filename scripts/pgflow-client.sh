#!/usr/bin/env bash
# Writes sql/pgflow_client.sql, the client for servers where the extension cannot be installed, from sql/client.
# Usage: scripts/pgflow-client.sh [--check]
#   --check  fails if the file is not current, changes nothing
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
file=sql/pgflow_client.sql
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT

# The cache of arguments has the name that the SQL original's client gave it; in the extension that one is a view.
for part in alone/head server transport requests inbox alone/calls calls alone/tail; do
  [ "$part" = alone/head ] || printf '\n'
  cat "sql/client/$part.sql"
done | sed -e "s/@VERSION@/$version/g" -e 's/flow\.client_arguments/flow.arguments/g' >"$fresh"

if [ "${1:-}" = --check ]; then
  diff -u "$file" "$fresh" >&2 || { echo "$file is not current: scripts/pgflow-client.sh" >&2; exit 1; }
else
  cat "$fresh" >"$file"
  echo "wrote $file" >&2
fi
