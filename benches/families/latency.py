"""From the commit of run_flow to the callback's first statement on an idle system, beside one INSERT transaction."""

from harness import pgbench
from harness.figures import Chart, Table, Verdict, spread

ABOUT = "from the commit of run_flow to the callback, warm and cold worker"
SECONDS = 40


def measure(cluster, sizes, say):
    cluster.sql("CALL bench.measure_latency('warm-up', 10, 0.01)")
    cluster.sql("CALL bench.measure_latency('warm', %s::INT, 0.005)", sizes.latency)
    cluster.set(pgflow__worker_idle_time="100ms")
    cluster.sql("CALL bench.measure_latency('cold', %s::INT, 0.7)", sizes.cold)
    figures = {"insert": spread(pgbench.latencies(cluster, max(1, sizes.pgbench_seconds)))}
    for kind in ("warm", "cold"):
        for column in ("after_commit", "with_commit"):
            values = [row[0] for row in cluster.sql(
                f"SELECT {column}::FLOAT FROM bench.latency WHERE kind = %s", kind)]
            figures[f"{kind}_{column}"] = spread(values)
    for name, figure in figures.items():
        say(f"{name}: p50 {figure['p50']:.3f} ms, p99 {figure['p99']:.3f} ms, p99.9 {figure['p999']:.3f} ms")
    return figures


ROWS = [
    ("warm_after_commit", "warm worker, from the end of the commit"),
    ("warm_with_commit", "warm worker, from the begin of the commit"),
    ("cold_after_commit", "a worker has to be started, from the end of the commit"),
    ("insert", "pgbench: one INSERT with its commit, 1 client")]


def tables(figures):
    return {"latency": Table(["", "p50, ms", "p99, ms", "p99.9, ms", "measured"], [
        [label, *(f"{figures[name][p]:.2f}" for p in ("p50", "p99", "p999")), figures[name]["count"]]
        for name, label in ROWS])}


def charts(figures):
    labels = ["p50", "p99", "p99.9"]
    return {"latency": Chart("Latency of a callback's start", "milliseconds", labels, {
        label: [figures[name][p] for p in ("p50", "p99", "p999")]
        for name, label in (("warm_after_commit", "pgflow, warm worker"), ("insert", "pgbench, one INSERT"))})}


def verdicts(figures):
    ours, beside = figures["warm_after_commit"], figures["insert"]
    return [
        Verdict(f"latency of a callback's start, {p}", f"< {bar} ms", f"{ours[p]:.2f} ms",
                f"one INSERT with its commit {beside[p]:.2f} ms", ours[p] < bar) for p, bar in (("p50", 1), ("p99", 5))]
