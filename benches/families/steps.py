"""Trivial steps with full durability, each a transaction of its own, beside pgbench with as many clients."""

from harness import throughput
from harness.figures import counted
from harness.pairs import against_pgbench

ABOUT = "trivial steps, full durability, 1, 2 and 4 workers"
SECONDS = 255
BARS = {1: 0.8, 2: 0.8, 4: 0.7}


def measure(cluster, sizes, say):
    return {"rates": [against_pgbench(cluster, sizes, say, workers) for workers in BARS]}


def tables(figures):
    return {"steps": throughput.table(figures)}


def charts(figures):
    return {"steps": throughput.chart("Trivial steps, full durability", figures)}


def verdicts(figures):
    return [
        throughput.verdict(f"trivial steps, full durability, {counted(figure['workers'], 'worker')}", figure, BARS[figure["workers"]],
                           f"N({figure['workers']})") for figure in figures["rates"]]
