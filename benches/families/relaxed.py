"""Trivial steps of a node that says synchronous_commit off, beside pgbench with the same setting."""

from harness import throughput
from harness.figures import counted
from harness.pairs import against_pgbench

ABOUT = 'trivial steps of a node with "synchronous_commit": "off"'
SECONDS = 75
BARS = {1: 0.6, 2: 0.6}


def measure(cluster, sizes, say):
    if not cluster.accepts("synchronous_commit", "off"):
        say("not supported by this version: the node option synchronous_commit")
        return {"supported": False, "rates": []}
    cluster.configure("bench_relaxed", {"nodes": [{
        "node": "work", "node_routine": "bench.push", "step_routine": "bench.insert_row", "synchronous_commit": "off"}]})
    return {"supported": True, "rates": [
        against_pgbench(cluster, sizes, say, workers, "bench_relaxed", "off") for workers in BARS]}


def tables(figures):
    return {"relaxed": throughput.table(figures)}


def charts(figures):
    return {"relaxed": throughput.chart('Trivial steps, "synchronous_commit": "off"', figures)} if figures["rates"] else {}


def verdicts(figures):
    what = "trivial steps, synchronous_commit = off for the node, {}"
    if not figures["supported"]:
        return [throughput.unsupported(what.format(counted(workers, "worker")), f"≥ {bar} × N({workers})", "synchronous_commit")
                for workers, bar in BARS.items()]
    return [throughput.verdict(what.format(counted(figure["workers"], "worker")), figure, BARS[figure["workers"]],
                               f"N({figure['workers']}) with the same setting") for figure in figures["rates"]]
