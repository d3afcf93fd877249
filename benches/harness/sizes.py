"""How much is measured: one set of sizes for the page, one for a first look, one that only shows that all of it works."""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Sizes:
    """A full run: its total stays under 20 minutes on 2 cores. Any of them can be set: SIZES="pairs=3 steps=20000"."""

    name: str = "full"
    steps: int = 50_000            # of a throughput figure
    pairs: int = 5                 # ours and the other, one after the other, who goes first changes
    pgbench_seconds: float = 3.0   # of each pgbench run beside it
    latency: int = 3_000           # runs with a warm worker; the 99.9th percentile is then the fourth worst
    cold: int = 15                 # runs with a worker that has to be started
    chain: int = 100
    small_graph: int = 1_000       # nodes; per-node cost is compared with …
    large_graph: int = 10_000      # … that of this many
    repeats: int = 3               # of what is not paired: the median counts
    million: int = 1_000_000       # steps of one node
    flows: int = 10_000            # open at the same time
    push: int = 100_000            # rows pushed in one call
    cancel: int = 100_000          # open steps of the run that is cancelled
    idle_flows: int = 1_000        # configured
    idle_runs: int = 100_000       # finished
    idle_seconds: int = 60
    remote: int = 500              # tasks in flight elsewhere
    peer_seconds: float = 4.0      # as many jobs as a peer does in about this time …
    peer_jobs: int = 50_000        # … but no more than this
    peer_pairs: int = 2
    peer_latency: int = 200
    peer_latency_seconds: float = 5.0  # those that poll do fewer


FULL = Sizes()
REDUCED = Sizes(
    name="reduced", steps=20_000, pairs=3, pgbench_seconds=3, latency=1_000, cold=8, million=300_000, flows=3_000,
    push=50_000, cancel=50_000, idle_flows=200, idle_runs=10_000, idle_seconds=30, peer_seconds=3, peer_pairs=2,
    peer_latency=100, peer_latency_seconds=4)
SMOKE = Sizes(
    name="smoke", steps=1_000, pairs=1, pgbench_seconds=0.5, latency=40, cold=1, chain=20, small_graph=40, large_graph=120,
    repeats=1, million=2_000, flows=50, push=1_000, cancel=1_000, idle_flows=10, idle_runs=100, idle_seconds=1, remote=30,
    peer_seconds=0.5, peer_jobs=200, peer_pairs=1, peer_latency=5, peer_latency_seconds=2)
PROFILES = {sizes.name: sizes for sizes in (FULL, REDUCED, SMOKE)}


def chosen(profile: str, changes: str) -> Sizes:
    """The sizes of a profile with changes such as "pairs=3 steps=20000"."""
    types = {field.name: field.type for field in fields(Sizes)}
    values = {}
    for change in changes.split():
        name, _, value = change.partition("=")
        if name not in types or name == "name":
            raise SystemExit(f"there is no size '{name}'; there are: {', '.join(n for n in types if n != 'name')}")
        values[name] = float(value) if types[name] in (float, "float") else int(value)
    sizes = PROFILES[profile]
    return replace(sizes, name=f"{profile}, {changes.strip()}", **values) if values else sizes
