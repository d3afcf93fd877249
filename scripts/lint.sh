#!/usr/bin/env bash
# Formatting, clippy, SQL and shell style, and whether the SQL reference is current. Checks everything, then fails if
# anything was wrong. Changes nothing.
# The extension must be installed (make lint does that).
# Usage: scripts/lint.sh [check ...]     checks: fmt, clippy, shell, text, sql   (default: all)
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}
export PG_CONFIG PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
major=$("$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
faults=()

check() { # name, command
  local name=$1
  shift
  printf '== %s\n' "$name"
  if "$@" </dev/null; then printf 'ok\n'; else faults+=("$name"); printf 'FAILED: %s\n' "$name"; fi
}

sources() { git ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do [ ! -f "$file" ] || echo "$file"; done; }

fmt() { cargo fmt --all --check; }

# With the release profile, so that the bindings are not made a second time.
clippy() {
  PGRX_PG_CONFIG_PATH=$PG_CONFIG cargo clippy --quiet --release --workspace --all-targets --no-default-features \
    --features "pg$major" -- --deny warnings
}

shell() { sources '*.sh' .ci/run | xargs shellcheck --severity=warning; }

# Tabs, blanks at the end of a line, a missing last newline, files that nobody reads in one sitting, paths of a machine.
text() {
  local bad=0 file lines
  while read -r file; do
    case "$file" in *.lock | LICENSE | docs/sql-reference.md) continue ;; esac
    [ "$file" = Makefile ] || ! grep -nHP '\t' "$file" || bad=1
    ! grep -nHP ' +$' "$file" || bad=1
    [ ! -s "$file" ] || [ "$(tail -c 1 "$file" | wc -l)" = 1 ] || { echo "$file: no newline at the end"; bad=1; }
    ! grep -nHE '(^|[^[:alnum:]])/(work|root|home)/[a-z]' "$file" || bad=1
    case "$file" in
      *.rs | *.sql | *.sh)
        lines=$(wc -l <"$file")
        [ "$lines" -le 600 ] || { echo "$file: $lines lines, more than 600"; bad=1; } ;;
    esac
  done < <(sources '*.rs' '*.sql' '*.sh' '*.md' '*.toml' Makefile .ci/run)
  return $bad
}

# In a database that has the extension: search_path, COMMENTs, rights; and the generated reference.
sql() {
  local cluster=lint-$$ out status=0
  eval "$(scripts/scratch.sh start "$cluster" fsync=off)"
  [ -n "${PGPORT:-}" ] || return
  out=$("$("$PG_CONFIG" --bindir)/psql" -Xq -v ON_ERROR_STOP=1 -f scripts/lint.sql) || status=1
  if [ -n "$out" ]; then printf '%s\n' "$out"; status=1; fi
  scripts/sql-reference.sh --check || status=1
  scripts/scratch.sh stop "$cluster" 2>/dev/null
  return $status
}

[ $# = 0 ] && set -- fmt text shell sql clippy
for name in "$@"; do
  case "$name" in
    fmt) check "cargo fmt" fmt ;;
    clippy) check "cargo clippy, warnings denied" clippy ;;
    shell) check "shellcheck" shell ;;
    text) check "text: tabs, blanks, length, paths" text ;;
    sql) check "SQL: search_path, comments, rights, reference" sql ;;
    *) echo "unknown check '$name' (fmt, clippy, shell, text, sql)" >&2; exit 2 ;;
  esac
done
echo
if [ ${#faults[@]} = 0 ]; then echo "lint: all good"; else
  printf 'lint: failed: %s\n' "${faults[@]}"
  exit 1
fi
