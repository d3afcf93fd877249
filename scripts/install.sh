#!/usr/bin/env bash
# Builds pgflow and installs it for the server of PG_CONFIG (default: the newest pg_config of Debian's PostgreSQL 15).
# STRIP=yes leaves debug information out, which is most of the file with PROFILE=dev.
# Usage: scripts/install.sh [--sql-only]
# With DESTDIR=dir the files go below that directory, where Debian's packages of this PostgreSQL have theirs.
set -euo pipefail
cd "$(dirname "$0")/.."
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
major=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
target=${CARGO_TARGET_DIR:-target}
profile=${PROFILE:-release}
unset PROFILE  # cargo would build anew what looks at it, and again in the next cargo test

as_owner_of() { # runs a command with the rights that writing to $1 needs
  local dir=$1; shift
  if [ -w "$dir" ]; then "$@"; else sudo "$@"; fi
}

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

# The extension script: the files of sql/load_order, in that order.
script=$made/pgflow--$version.sql
{
  echo "-- pgflow $version, made from sql/load_order; do not edit."
  printf '%s\n' '\echo Use "CREATE EXTENSION pgflow" to load this file. \quit'
  grep -vE '^\s*(#|$)' sql/load_order | while read -r file; do
    printf '\n-- %s\n' "$file"
    cat "sql/$file"
  done
} >"$script"

# The upgrade script to this version: what is written by hand, and the rest.
for by_hand in sql/upgrade/*--"$version".sql; do
  [ -e "$by_hand" ] || continue
  from=$(basename "$by_hand" "--$version.sql")
  awk -v target="$version" -f scripts/upgrade.awk "sql/pgflow--$from.sql" "$script" "$by_hand" >"$made/pgflow--$from--$version.sql"
done

share=$("$PG_CONFIG" --sharedir)/extension
lib=$("$PG_CONFIG" --pkglibdir)
if [ -n "${DESTDIR:-}" ]; then
  share=$DESTDIR/usr/share/postgresql/$major/extension
  lib=$DESTDIR/usr/lib/postgresql/$major/lib
  install -d "$share" "$lib"
fi
sed "s/@CARGO_VERSION@/$version/" pgflow.control | as_owner_of "$share" tee "$share/pgflow.control" >/dev/null
# Those of earlier versions are kept as they were released.
as_owner_of "$share" install -m 644 sql/pgflow--*.sql "$made"/*.sql "$share"

if [ "${1:-}" != --sql-only ]; then
  dir=$profile; [ "$profile" = dev ] && dir=debug
  [ -e "$target/$dir/libpgflow.so" ] || echo "building pgflow $version (takes minutes the first time)" >&2
  PGRX_PG_CONFIG_PATH=$PG_CONFIG cargo build --quiet --profile "$profile" --no-default-features --features "pg$major" -p pgflow
  # A new file, not new content in the old one: servers that run have it mapped.
  as_owner_of "$lib" install -m 755 "$target/$dir/libpgflow.so" "$lib/pgflow.so.new"
  [ -z "${STRIP:-}" ] || as_owner_of "$lib" strip --strip-debug "$lib/pgflow.so.new"
  as_owner_of "$lib" mv "$lib/pgflow.so.new" "$lib/pgflow.so"
fi
echo "installed pgflow $version for $("$PG_CONFIG" --version) ($lib)" >&2
