#!/usr/bin/env bash
# Starts benches/run.py with the Python that scripts/setup.sh bench has made. benches/run.sh --help says what can be given.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${XDG_CACHE_HOME:-$HOME/.cache}/pgflow/bench/python/bin/python
[ -x "$python" ] || { echo "bench: what the benchmarks need is not there: scripts/setup.sh bench" >&2; exit 1; }
exec "$python" -B benches/run.py "$@"
