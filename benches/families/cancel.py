"""How long it takes to cancel a run with very many open steps while workers are at it, beside a plain UPDATE."""

import time

from harness.cluster import milliseconds
from harness.figures import Chart, Table, number

ABOUT = "cancel of a flow with 100,000 open steps"
SECONDS = 12


def measure(cluster, sizes, say):
    cluster.sql("SELECT async.pause()")  # or the node may have ended before its steps come
    run = cluster.start("bench_sleep")
    cluster.push(run, 1, sizes.cancel)
    cluster.sql("SELECT async.resume()")
    deadline = time.monotonic() + 30
    while not (running := cluster.one("SELECT count(*) FROM async.running()")):
        if time.monotonic() > deadline:
            raise RuntimeError("no step has started after 30 s")
        time.sleep(0.05)
    cluster.sql("CREATE TABLE bench.plain (LIKE async.task INCLUDING ALL)")
    cluster.sql("INSERT INTO bench.plain SELECT * FROM async.task WHERE flow_id = %s", run)
    cluster.sql("CHECKPOINT")
    began = time.monotonic()
    cluster.sql("SELECT flow.cancel(%s)", run)
    cancelled = (time.monotonic() - began) * 1000
    while cluster.one("SELECT count(*) FROM async.running()"):
        if time.monotonic() - began > 60:
            raise RuntimeError("steps still run a minute after the cancel")
        time.sleep(0.005)
    stopped = (time.monotonic() - began) * 1000
    if left := cluster.one("SELECT count(*) FROM async.task WHERE flow_id = %s AND processed IS NULL", run):
        raise RuntimeError(f"{left} tasks of the cancelled run are open")
    plain = milliseconds(lambda: cluster.sql(
        "UPDATE bench.plain SET processed = clock_timestamp(), failed = true, finish_status = 'CANCELED'"))
    figures = {"steps": sizes.cancel, "running": running, "cancel": cancelled, "stopped": stopped, "update": plain}
    say(f"{sizes.cancel:,} open steps, {running} running: cancel returns after {cancelled:.0f} ms, nothing runs after "
        f"{stopped:.0f} ms; a plain UPDATE takes {plain:.0f} ms")
    return figures


def tables(figures):
    return {"cancel": Table(["open steps", "flow.cancel returns, ms", "nothing runs any more, ms",
                             "a plain UPDATE of as many rows, ms", "ratio"], [[
        number(figures["steps"], 0), number(figures["cancel"], 0), number(figures["stopped"], 0), number(figures["update"], 0),
        f"{figures['cancel'] / figures['update']:.2f}"]])}


def charts(figures):
    return {"cancel": Chart("Cancelling a run with many open steps", "milliseconds", ["milliseconds"], {
        "flow.cancel": [figures["cancel"]], "nothing runs any more": [figures["stopped"]],
        "plain UPDATE": [figures["update"]]})}


def verdicts(_figures):
    return []
