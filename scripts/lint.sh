#!/usr/bin/env bash
# Formatting, clippy, SQL and shell style, and whether the SQL reference is current. Checks everything, then fails if
# anything was wrong. Changes nothing.
# The extension must be installed (make lint does that).
# Usage: scripts/lint.sh [check ...]     checks: fmt, clippy, shell, text, links, client, frozen, packaging, sql   (default: all)
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

fmt() { cargo fmt --all --check -- --color never; }

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
      *.rs | *.sql | *.sh | *.py | *.mjs)
        lines=$(wc -l <"$file")
        # A file that is made of others may be as long as they are together.
        [ "$lines" -le 600 ] || [[ $file = sql/pgflow[_-]*.sql ]] || { echo "$file: $lines lines, more than 600"; bad=1; } ;;
    esac
  done < <(sources '*.rs' '*.sql' '*.sh' '*.py' '*.mjs' '*.md' '*.toml' Makefile .ci/run)
  return $bad
}

# Links of the documents to files that are not there.
links() {
  local bad=0 file link
  while IFS=: read -r file link; do
    case "$link" in *://*) continue ;; esac
    [ -e "$(dirname "$file")/$link" ] || { echo "$file: link to $link leads nowhere"; bad=1; }
  done < <(sources '*.md' | xargs grep -oHE '\]\([^)#]+' | sed 's/\](//')
  return $bad
}

client() { scripts/pgflow-client.sh --check; }

# Scripts of released versions are what databases were made with: a change is a new version. The list only grows.
frozen() {
  local bad=0 file
  sha256sum --check --quiet sql/frozen.sha256 || bad=1
  while read -r file; do
    grep -qF "  $file" sql/frozen.sha256 || { echo "$file is not in sql/frozen.sha256"; bad=1; }
  done < <(sources 'sql/pgflow--*.sql' tests/upgrade/[0-9]*.sql)
  return $bad
}

# With what scripts/setup.sh hadolint pgxn has put into the cache. META.json says the version that is built.
packaging() {
  local cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgflow bad=0 version
  "$cache/hadolint" Containerfile || bad=1
  "$cache/pgxn_meta" META.json || bad=1
  version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
  [ "$(grep -c "\"version\": \"$version\"" META.json)" = 2 ] || { echo "META.json: not of version $version"; bad=1; }
  return $bad
}

# In a database that has the extension: search_path, COMMENTs, rights; the generated reference; the settings as documented.
sql() {
  local cluster=lint-$$ out status=0 setting
  eval "$(scripts/scratch.sh start "$cluster" fsync=off)"
  [ -n "${PGPORT:-}" ] || return
  out=$("$("$PG_CONFIG" --bindir)/psql" -Xq -v ON_ERROR_STOP=1 -f scripts/lint.sql) || status=1
  if [ -n "$out" ]; then printf '%s\n' "$out"; status=1; fi
  scripts/sql-reference.sh --check --connected || status=1
  while read -r setting; do
    grep -qF "$setting" docs/operations.md || { echo "docs/operations.md lacks: $setting"; status=1; }
  done < <("$("$PG_CONFIG" --bindir)/psql" -XAtc \
    "SELECT format('| \`%s\` | \`%s\` |', name, current_setting(name)) FROM pg_settings WHERE name LIKE 'pgflow.%'")
  scripts/scratch.sh stop "$cluster" 2>/dev/null
  return $status
}

[ $# = 0 ] && set -- fmt text links shell client frozen packaging sql clippy
for name in "$@"; do
  case "$name" in
    fmt) check "cargo fmt" fmt ;;
    clippy) check "cargo clippy, warnings denied" clippy ;;
    shell) check "shellcheck" shell ;;
    links) check "links of the documents" links ;;
    client) check "sql/pgflow_client.sql is made of sql/client" client ;;
    packaging) check "Containerfile and META.json" packaging ;;
    frozen) check "released scripts are as they were" frozen ;;
    text) check "text: tabs, blanks, length, paths" text ;;
    sql) check "SQL: search_path, comments, rights, reference" sql ;;
    *) echo "unknown check '$name' (fmt, clippy, shell, text, links, client, frozen, packaging, sql)" >&2; exit 2 ;;
  esac
done
echo
if [ ${#faults[@]} = 0 ]; then echo "lint: all good"; else
  printf 'lint: failed: %s\n' "${faults[@]}"
  exit 1
fi
