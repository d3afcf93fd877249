#!/usr/bin/env bash
# Installs what a bare Debian machine with Rust lacks. Idempotent: what is there already is left alone.
# Usage: scripts/setup.sh [build|demo|lint ...]   (default: build)
#   build  PostgreSQL with headers, clang (for the bindings), cargo-pgrx
#   demo   Graphviz and npm (to draw the diagram and to fetch the public data)
#   lint   cargo-deny, rustfmt, clippy
set -euo pipefail

PG_MAJOR=${PG_MAJOR:-15}
PGRX_VERSION=0.18.1
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}
export PATH="$CARGO_HOME/bin:$PATH"

say() { printf 'setup: %s\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else say "need root (or sudo) for: $*"; exit 1; fi
}

# Installs the Debian packages among "$@" that are missing, in one go.
apt_need() {
  local missing=() p
  for p in "$@"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing Debian packages: ${missing[*]}"
  # A cluster of the distribution's own on port 5432 is not wanted here.
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    as_root mkdir -p /etc/postgresql-common
    printf 'create_main_cluster = false\n' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

need_build() {
  apt_need "postgresql-$PG_MAJOR" "postgresql-server-dev-$PG_MAJOR" clang libclang-dev gcc make pkg-config
  if ! cargo pgrx --version 2>/dev/null | grep -qF "$PGRX_VERSION"; then
    say "installing cargo-pgrx $PGRX_VERSION (a few minutes, once)"
    cargo install --quiet --locked --version "$PGRX_VERSION" cargo-pgrx >&2
  fi
}

need_demo() {
  apt_need graphviz
  command -v npm >/dev/null || apt_need npm
}

need_lint() {
  rustup component list --installed 2>/dev/null | grep -q '^clippy' || rustup component add clippy rustfmt >&2 || true
}

[ $# = 0 ] && set -- build
for what in "$@"; do
  case "$what" in
    build | demo | lint) "need_$what" ;;
    *) say "unknown part '$what' (build, demo, lint)"; exit 2 ;;
  esac
done
