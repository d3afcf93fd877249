"""Very many small flows open at the same time, beside one flow with as many steps."""

import time

from harness.figures import Chart, Table, Verdict, median, number
from harness.pairs import alternate

ABOUT = "10,000 flows of 3 nodes at once, beside one flow with as many steps"
SECONDS = 65
WORKERS = 4
NODES = 3


def small_flows(cluster, count):
    """Tasks a second of so many runs of three nodes, all of them open before the first task starts."""
    cluster.sql("SELECT async.pause()")
    first = cluster.one("SELECT min(flow.run_flow('bench_three', '{}')) FROM generate_series(1, %s::INT)", count)
    cluster.sql("CHECKPOINT")
    cluster.sql("SELECT async.resume()")
    resumed = cluster.one("SELECT clock_timestamp()")
    deadline = time.monotonic() + 600
    while open_runs := cluster.one("SELECT count(*) FROM flow.flow WHERE flow_id >= %s AND processed IS NULL", first):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{open_runs} of {count} runs have not ended after 10 minutes")
        time.sleep(0.1)
    seconds, good = cluster.sql(
        """SELECT extract(epoch FROM max(processed) - %s)::FLOAT, count(*) FILTER (WHERE count_failed_nodes = 0)
           FROM flow.flow WHERE flow_id >= %s""", resumed, first)[0]
    if good != count:
        raise RuntimeError(f"{count - good} of {count} runs failed")
    return count * NODES / seconds


def one_flow(cluster, steps):
    """Steps a second of one run, all of them pushed before the first starts."""
    run = cluster.run("bench_nothings", {"steps": steps})
    return steps / cluster.one(
        """SELECT extract(epoch FROM f.processed - t.processed)::FLOAT
           FROM flow.flow f JOIN flow.flow_node n USING (flow_id) JOIN async.task t ON t.task_id = n.task_id
           WHERE f.flow_id = %s""", run)


def measure(cluster, sizes, say):
    cluster.configure("bench_three", {"nodes": [
        {"node": "a", "routine": "bench.nothing"},
        {"node": "b", "routine": "bench.nothing", "dependencies": [{"parent": "a"}]},
        {"node": "c", "routine": "bench.nothing", "dependencies": [{"parent": "b"}]}]})
    cluster.configure("bench_nothings", {"nodes": [
        {"node": "work", "node_routine": "bench.push", "step_routine": "bench.nothing"}]})
    cluster.workers(WORKERS)
    pairs = alternate(sizes.repeats, lambda: small_flows(cluster, sizes.flows),
                      lambda: one_flow(cluster, sizes.flows * NODES))
    figures = {"flows": sizes.flows, "pairs": pairs, "small": median(small for small, _ in pairs),
               "one": median(one for _, one in pairs), "ratio": median(small / one for small, one in pairs)}
    say(f"{sizes.flows:,} flows of {NODES} nodes: {figures['small']:,.0f} tasks/s; one flow {figures['one']:,.0f}; "
        f"ratio {figures['ratio']:.2f}")
    return figures


def tables(figures):
    return {"flows": Table(["flows of 3 nodes", "their tasks/s", "one flow with as many steps, steps/s", "ratio"], [[
        number(figures["flows"], 0), number(figures["small"], 0), number(figures["one"], 0), f"**{figures['ratio']:.2f}**"]])}


def charts(figures):
    return {"flows": Chart("Many small flows, one large flow", "tasks a second", ["tasks a second"], {
        f"{number(figures['flows'], 0)} flows of 3 nodes": [figures["small"]],
        "one flow with as many steps": [figures["one"]]})}


def verdicts(figures):
    return [Verdict(f"{number(figures['flows'], 0)} flows of 3 nodes open at once", "≥ 0.7 × one flow with as many steps",
                    f"{figures['ratio']:.2f} × ({number(figures['small'], 0)}/s)", f"one flow {number(figures['one'], 0)}/s",
                    figures["ratio"] >= 0.7)]
