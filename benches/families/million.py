"""One node with a million steps: does it end, does its rate hold, what does the dispatcher need; and how long do views and
diagrams take beside a million finished tasks. With synchronous_commit off in the whole cluster, to be done in time: what is
asked is whether things grow, not how fast the disk is."""

import threading
import time

from harness import pgbench
from harness.cluster import milliseconds
from harness.figures import Chart, Table, Verdict, median, number

ABOUT = "one node with 1,000,000 steps; memory; views and diagrams beside them"
SECONDS = 110
WORKERS = 4
# What the dispatcher may take for a million open steps, however they were pushed.
MEMORY_BOUND = 128 << 20
SHARE = 0.2  # of the steps: pushed a second time, a thousand a call


class Highest:
    """The most private memory of a process, looked at 20 times a second."""

    def __init__(self, process):
        self.process, self.bytes, self.done = process, process.private_bytes(), threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        while not self.done.wait(0.05):
            self.bytes = max(self.bytes, self.process.private_bytes())

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_exception):
        self.done.set()
        self.thread.join()
        self.bytes = max(self.bytes, self.process.private_bytes())


LOOKS = {
    "v_flow_status, all runs": "SELECT count(*) FROM (SELECT * FROM flow.v_flow_status OFFSET 0) v",
    "v_flow_status, one small run": "SELECT * FROM flow.v_flow_status WHERE flow_id = {small}",
    "v_flow_status, the large run": "SELECT * FROM flow.v_flow_status WHERE flow_id = {large}",
    "v_flow_node_status, the large run": "SELECT * FROM flow.v_flow_node_status WHERE flow_id = {large}",
    "graphviz, one small run": "SELECT flow.graphviz({small})",
    "graphviz, the large run": "SELECT flow.graphviz({large})",
    "count(*) of async.task, to compare": "SELECT count(*) FROM async.task"}


def look(cluster, small, large, repeats):
    """Milliseconds of each query."""
    return {label: median(
        milliseconds(lambda query=query: cluster.sql(query.format(small=small, large=large))) for _ in range(repeats))
        for label, query in LOOKS.items()}


def many_small_pushes(cluster, steps):
    """Private bytes of the dispatcher before and after a client has pushed steps to a paused engine, 1,000 a call."""
    dispatcher = cluster.process("pgflow dispatcher")
    cluster.sql("SELECT async.pause()")
    run = cluster.start("bench_sleep")
    before = dispatcher.private_bytes()
    for low in range(0, steps, 1000):
        cluster.push(run, low + 1, min(low + 1000, steps))
    time.sleep(1)  # until it has read what came last
    after = dispatcher.private_bytes()
    cluster.sql("SELECT flow.cancel(%s)", run)
    cluster.sql("SELECT async.resume()")
    return after - before


def measure(cluster, sizes, say):
    cluster.set(synchronous_commit="off")
    cluster.workers(WORKERS)
    small = cluster.run("bench_steps", {"steps": 10})
    large = cluster.run("bench_steps", {"steps": 1000})
    cluster.sql("ANALYZE")
    figures = {"steps": sizes.million, "few": look(cluster, small, large, 5)}
    cluster.sql("TRUNCATE bench.by_steps")
    cluster.sql("CHECKPOINT")
    dispatcher = cluster.process("pgflow dispatcher")
    before = dispatcher.private_bytes()
    with Highest(dispatcher) as highest:
        run = cluster.run("bench_steps", {"steps": sizes.million})
    if cluster.one("SELECT count(DISTINCT i) = %s AND count(*) = %s FROM bench.by_steps", sizes.million, sizes.million) is not True:
        raise RuntimeError("not every step has inserted its row once")
    tenths = cluster.one(
        """SELECT percentile_disc(ARRAY(SELECT i / 10.0::FLOAT FROM generate_series(0, 10) AS i))
                  WITHIN GROUP (ORDER BY extract(epoch FROM at)::FLOAT) FROM bench.by_steps""")
    figures["tenths"] = [sizes.million / 10 / (high - low) for low, high in zip(tenths, tenths[1:])]
    figures["memory"] = {"before": before, "one_push": highest.bytes - before}
    figures["pgbench"] = pgbench.rate(cluster, WORKERS, sizes.pgbench_seconds, "off")
    say(f"rate in the first tenth {figures['tenths'][0]:,.0f}/s, in the last {figures['tenths'][-1]:,.0f}/s; "
        f"pgbench {figures['pgbench']:,.0f}/s")
    cluster.sql("ANALYZE")
    figures["many"] = look(cluster, small, run, max(1, sizes.repeats))
    for label, took in figures["many"].items():
        say(f"{label}: {took:.1f} ms; with few tasks {figures['few'][label]:.1f} ms")
    pushed = max(1000, int(sizes.million * SHARE))
    figures["memory"]["small_pushes"] = many_small_pushes(cluster, pushed) * sizes.million / pushed
    say(f"memory of the dispatcher: {before / 2**20:.1f} MB, more with one push {figures['memory']['one_push'] / 2**20:.1f} MB, "
        f"with small pushes (from {pushed:,}) {figures['memory']['small_pushes'] / 2**20:.1f} MB")
    return figures


def _megabytes(value):
    return f"{value / 2**20:.1f}"


def tables(figures):
    memory, steps = figures["memory"], number(figures["steps"], 0)
    return {
        "million": Table(["steps", "steps/s in the first tenth", "in the last tenth", "ratio", "pgbench, transactions/s"], [[
            steps, number(figures["tenths"][0], 0), number(figures["tenths"][-1], 0),
            f"**{figures['tenths'][-1] / figures['tenths'][0]:.2f}**", number(figures["pgbench"], 0)]]),
        "memory": Table(["private memory of the dispatcher", "MB"], [
            ["without work", _megabytes(memory["before"])],
            [f"more, for {steps} open steps of one push", _megabytes(memory["one_push"])],
            [f"more, for {steps} open steps pushed 1,000 a call (reckoned from a fifth)", _megabytes(memory["small_pushes"])]]),
        "views": Table(["query", "with about 1,000 finished tasks, ms", f"with {steps}, ms"], [
            [label, f"{figures['few'][label]:.1f}", f"{figures['many'][label]:.1f}"] for label in LOOKS])}


def charts(figures):
    return {
        "million": Chart("One node with very many steps: rate in each tenth of the run", "steps a second",
                         [f"{tenth}." for tenth in range(1, 11)],
                         {"pgflow": figures["tenths"], "pgbench, same setting": [figures["pgbench"]] * 10}),
        "views": Chart("Views and diagrams", "milliseconds", list(LOOKS), {
            "few finished tasks": [figures["few"][label] for label in LOOKS],
            f"{number(figures['steps'], 0)} finished tasks": [figures["many"][label] for label in LOOKS]}, logarithmic=True)}


def verdicts(figures):
    first, last = figures["tenths"][0], figures["tenths"][-1]
    worst = max(figures["memory"]["one_push"], figures["memory"]["small_pushes"])
    steps = number(figures["steps"], 0)
    return [
        Verdict(f"one node with {steps} steps: rate in the last tenth", "≥ 0.8 × the first", f"{number(last, 0)}/s",
                f"first tenth {number(first, 0)}/s; pgbench {number(figures['pgbench'], 0)}/s", last >= 0.8 * first),
        Verdict(f"dispatcher's memory for {steps} open steps, however pushed", f"≤ {MEMORY_BOUND >> 20} MB more",
                f"{worst / 2**20:.1f} MB", f"without work {figures['memory']['before'] / 2**20:.1f} MB", worst <= MEMORY_BOUND)]
