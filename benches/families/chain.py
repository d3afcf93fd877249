"""A chain of nodes, each the parent of the next, beside as many durable commits."""

from harness import pgbench, shapes
from harness.figures import Chart, Table, Verdict, median
from harness.pairs import alternate

ABOUT = "a chain of 100 nodes, in durable commits"
SECONDS = 22


def measure(cluster, sizes, say):
    cluster.configure("bench_chain", shapes.chain(sizes.chain))
    cluster.run("bench_chain")

    def ours():
        run = cluster.run("bench_chain")
        return cluster.one(
            "SELECT extract(epoch FROM processed - created)::FLOAT * 1000 FROM flow.flow WHERE flow_id = %s", run)

    pairs = alternate(sizes.pairs, ours, lambda: 1000 / pgbench.rate(cluster, 1, sizes.pgbench_seconds))
    figures = {"nodes": sizes.chain, "pairs": pairs, "chain": median(own for own, _ in pairs),
               "commit": median(commit for _, commit in pairs),
               "commits": median(own / sizes.chain / commit for own, commit in pairs)}
    say(f"chain of {sizes.chain}: {figures['chain']:.1f} ms; a durable commit {figures['commit']:.3f} ms; "
        f"{figures['commits']:.2f} commits a node")
    return figures


def tables(figures):
    return {"chain": Table(["nodes", "run, ms", "a node, ms", "a durable commit (pgbench, 1 client), ms", "commits a node"], [[
        figures["nodes"], f"{figures['chain']:.1f}", f"{figures['chain'] / figures['nodes']:.3f}", f"{figures['commit']:.3f}",
        f"**{figures['commits']:.2f}**"]])}


def charts(figures):
    return {"chain": Chart("A chain of nodes", "milliseconds a node", ["a node"], {
        "pgflow": [figures["chain"] / figures["nodes"]], "pgbench: a durable commit": [figures["commit"]]})}


def verdicts(figures):
    bar = figures["nodes"] * 2 * figures["commit"]
    return [Verdict(f"chain of {figures['nodes']} trivial nodes", f"< {figures['nodes']} × 2 × one durable commit",
                    f"{figures['chain']:.0f} ms ({figures['commits']:.2f} commits a node)",
                    f"{bar:.0f} ms (a commit {figures['commit']:.2f} ms)", figures["commits"] < 2)]
