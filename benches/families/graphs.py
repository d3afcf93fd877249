"""Large graphs: a fan-out 1 → n → 1 and n nodes in random layers, each at two sizes, beside pgbench's rate."""

from harness import pgbench, shapes
from harness.figures import Chart, Table, Verdict, median, number

ABOUT = "fan-out 1 → 10,000 → 1 and 10,000 nodes in random layers: is a node's cost constant?"
SECONDS = 40
BAR = 1.5
WORKERS = 4


def measure(cluster, sizes, say):
    cluster.workers(WORKERS)
    figures = {"sizes": [sizes.small_graph, sizes.large_graph], "workers": WORKERS}
    for shape, configuration in {"fan": shapes.fan, "layered": shapes.layered}.items():
        times = {}
        for nodes in figures["sizes"]:
            cluster.configure(f"bench_{shape}_{nodes}", configuration(nodes))
        for _ in range(sizes.repeats):
            for nodes in figures["sizes"]:
                run = cluster.run(f"bench_{shape}_{nodes}")
                seconds = cluster.one(
                    "SELECT extract(epoch FROM processed - created)::FLOAT FROM flow.flow WHERE flow_id = %s", run)
                times.setdefault(nodes, []).append(seconds * 1000 / nodes)
        figures[shape] = [median(times[nodes]) for nodes in figures["sizes"]]
        say(f"{shape}: {figures[shape][0]:.3f} ms a node of {sizes.small_graph}, {figures[shape][1]:.3f} of {sizes.large_graph}")
    figures["transaction"] = 1000 / pgbench.rate(cluster, WORKERS, sizes.pgbench_seconds)
    return figures


NAMES = {"fan": "fan-out 1 → n → 1", "layered": "random layers, 1 to 3 parents a node"}


def tables(figures):
    small, large = (number(nodes, 0) for nodes in figures["sizes"])
    return {"graphs": Table(
        ["shape", f"ms a node of {small}", f"ms a node of {large}", "ratio", "a transaction of pgbench, ms"],
        [[NAMES[shape], f"{figures[shape][0]:.3f}", f"{figures[shape][1]:.3f}",
          f"**{figures[shape][1] / figures[shape][0]:.2f}**", f"{figures['transaction']:.3f}"] for shape in NAMES])}


def charts(figures):
    return {"graphs": Chart("Cost of a node", "milliseconds", [f"{number(nodes, 0)} nodes" for nodes in figures["sizes"]], {
        **{NAMES[shape]: figures[shape] for shape in NAMES}, "pgbench: a transaction": [figures["transaction"]] * 2})}


def verdicts(figures):
    small, large = (number(nodes, 0) for nodes in figures["sizes"])
    return [Verdict(f"{NAMES[shape]}: cost of a node at {large} nodes", f"≤ {BAR} × that at {small}",
                    f"{figures[shape][1] / figures[shape][0]:.2f} × ({figures[shape][1]:.3f} ms)",
                    f"{figures[shape][0]:.3f} ms at {small}; pgbench {figures['transaction']:.3f} ms a transaction",
                    figures[shape][1] <= BAR * figures[shape][0]) for shape in NAMES]
