"""What an idle system costs: CPU time and context switches of our processes, and WAL, over a minute with thousands of
configured flows and finished runs; beside PostgreSQL's own background processes in the same minute."""

import time

from harness.cluster import Process
from harness.figures import Table, Verdict, number

ABOUT = "idle with 1,000 configured flows and 100,000 finished runs"
SECONDS = 150


def activity(cluster):
    """CPU seconds and context switches: of our processes, of PostgreSQL's own; and the position of the log."""
    found = {"pgflow": {}, "postgres": {}}
    for pid, kind in cluster.sql(
            "SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type NOT IN ('client backend', 'parallel worker')"):
        process = Process(pid)
        found["pgflow" if kind.startswith("pgflow") else "postgres"][f"{kind} {pid}"] = (
            process.cpu_seconds(), process.switches())
    return found, cluster.one("SELECT pg_current_wal_insert_lsn() - '0/0'::PG_LSN")


def fill(cluster, sizes):
    """Configures flows, runs some and waits for their end."""
    cluster.sql("""SELECT flow.configure_flow('bench_idle_' || i,
                     '{"nodes": [{"node": "nothing", "routine": "bench.nothing"}]}') FROM generate_series(1, %s::INT) AS i""",
                sizes.idle_flows)
    for low in range(1, sizes.idle_runs + 1, 10_000):
        cluster.sql("""SELECT count(flow.run_flow('bench_idle_' || 1 + i %% %s, '{}')) FROM generate_series(%s::INT, %s::INT) AS i""",
                    sizes.idle_flows, low, min(low + 9_999, sizes.idle_runs))
    deadline = time.monotonic() + 600
    while cluster.one("SELECT EXISTS (SELECT FROM flow.flow WHERE processed IS NULL)"):
        if time.monotonic() > deadline:
            raise RuntimeError("runs are still open after 10 minutes")
        time.sleep(0.1)


def measure(cluster, sizes, say):
    cluster.set(synchronous_commit="off", pgflow__worker_idle_time="100ms", autovacuum="off")
    began = time.monotonic()
    fill(cluster, sizes)
    runs = cluster.one("SELECT count(*) FROM flow.flow WHERE processed IS NOT NULL AND count_failed_nodes = 0")
    say(f"{runs:,} finished runs in {time.monotonic() - began:.0f} s")
    cluster.sql("VACUUM ANALYZE")
    cluster.sql("CHECKPOINT")
    time.sleep(35 if sizes.idle_seconds >= 30 else 2)  # the server itself writes a last record some time after a checkpoint
    before, wal_before = activity(cluster)
    time.sleep(sizes.idle_seconds)
    after, wal_after = activity(cluster)
    figures = {"seconds": sizes.idle_seconds, "flows": sizes.idle_flows, "runs": runs, "wal": int(wal_after - wal_before),
               "same": sorted(before["pgflow"]) == sorted(after["pgflow"])}
    for who in before:
        common = before[who].keys() & after[who].keys()
        figures[who] = {"processes": len(after[who]),
                        "cpu": sum(after[who][name][0] - before[who][name][0] for name in common),
                        "switches": sum(after[who][name][1] - before[who][name][1] for name in common)}
    say(f"idle for {sizes.idle_seconds} s: pgflow {figures['pgflow']}, PostgreSQL itself {figures['postgres']}, "
        f"{figures['wal']} bytes of WAL, the same processes: {figures['same']}")
    return figures


def tables(figures):
    return {"idle": Table([f"over {figures['seconds']} s", "processes", "CPU time, s", "context switches", "WAL, bytes"], [
        ["pgflow", figures["pgflow"]["processes"], f"{figures['pgflow']['cpu']:.2f}", figures["pgflow"]["switches"],
         figures["wal"]],
        ["PostgreSQL's own background processes", figures["postgres"]["processes"], f"{figures['postgres']['cpu']:.2f}",
         figures["postgres"]["switches"], "(all of the server)"]])}


def charts(_figures):
    return {}  # zeros make no picture


def verdicts(figures):
    ours = figures["pgflow"]
    return [Verdict(
        f"idle for {figures['seconds']} s, {number(figures['flows'], 0)} configured flows, {number(figures['runs'], 0)} finished runs",
        "CPU time and context switches unchanged, no WAL",
        f"{ours['cpu']:.2f} s, {ours['switches']} switches, {figures['wal']} bytes of WAL",
        f"PostgreSQL itself {figures['postgres']['cpu']:.2f} s, {figures['postgres']['switches']} switches",
        figures["same"] and ours["cpu"] == 0 and ours["switches"] == 0 and figures["wal"] == 0)]
