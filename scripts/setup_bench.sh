# The parts "bench" and "peers" of scripts/setup.sh: what the benchmarks are written in, and the other systems that make bench
# measures beside pgflow, all of them in ~/.cache/pgflow/bench with pinned versions. A directory whose file `complete` is the
# list that it was made from is not touched and not downloaded again.
# Only read by setup.sh (say, die and apt_need come from there).
# shellcheck shell=bash

bench_cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgflow/bench
benches=$(dirname "${BASH_SOURCE[0]}")/../benches

# A virtual environment of Python with exactly what a list names.
bench_python() { # name list
  local made=$bench_cache/$1 list=$2
  cmp -s "$list" "$made/complete" && return
  say "fetching what $list names (once, into $made)"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "the benchmarks need Python 3.11"
  rm -rf "$made"
  python3 -m venv "$made"
  "$made/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$list" >&2
  "$made/bin/pip" check >&2
  cp "$list" "$made/complete"
}

need_bench() {
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then apt_need python3 python3-venv; fi
  bench_python python "$benches/requirements.txt"
}

need_peers() {
  need_bench
  bench_python peers-python "$benches/peers/requirements.txt"
  command -v npm >/dev/null || apt_need npm
  local made=$bench_cache/peers-node list=$benches/peers/package-lock.json
  cmp -s "$list" "$made/complete" && return
  say "fetching what $list names (once, into $made)"
  rm -rf "$made"
  mkdir -p "$made"
  cp "$benches/peers/package.json" "$list" "$made/"
  (cd "$made" && npm ci --silent --no-audit --no-fund >&2)
  "$made/node_modules/.bin/node" --version >/dev/null || die "the Node.js in $made does not start"
  cp "$list" "$made/complete"
}
