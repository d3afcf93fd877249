"""What a step leaves behind: WAL, dead tuples, growth of tables and indexes; beside pgbench's transaction."""

import time

from harness import pgbench
from harness.figures import Chart, Table, number

ABOUT = "WAL bytes, dead tuples and index growth per step"
SECONDS = 25


def state(cluster, schemas):
    """Position of the log; rows made dead (still there, as statistics say), bytes of tables and of indexes."""
    cluster.sql("SELECT pg_stat_force_next_flush()")
    wal = cluster.one("SELECT pg_current_wal_insert_lsn() - '0/0'::PG_LSN")
    dead, heap, index = cluster.sql(
        """SELECT sum(n_dead_tup), sum(pg_table_size(relid)), sum(pg_indexes_size(relid))
           FROM pg_stat_user_tables WHERE schemaname = ANY(%s) AND relname NOT IN ('by_steps', 'by_pgbench')""", schemas)[0]
    return {"wal": int(wal), "dead": int(dead), "table": int(heap), "index": int(index)}


def difference(before, after, count):
    return {key: (after[key] - before[key]) / count for key in before}


def measure(cluster, sizes, say):
    cluster.set(autovacuum="off")
    cluster.workers(2)
    schemas = ["async", "flow"]
    cluster.sql("VACUUM ANALYZE")
    cluster.sql("TRUNCATE bench.by_steps")
    cluster.sql("CHECKPOINT")
    cluster.sql("SELECT async.pause()")
    start = state(cluster, schemas)
    run = cluster.start("bench_late")
    cluster.push(run, 1, sizes.steps)
    pushed = state(cluster, schemas)
    cluster.sql("SELECT async.resume()")
    cluster.wait(run)
    time.sleep(1.5)  # workers report what they have counted within a second
    done = state(cluster, schemas)
    before = state(cluster, ["bench"])
    rate = pgbench.rate(cluster, 2, sizes.pgbench_seconds)
    after = state(cluster, ["bench"])
    count = cluster.one("SELECT count(*) FROM bench.by_pgbench")
    figures = {"steps": sizes.steps, "push": difference(start, pushed, sizes.steps), "run": difference(pushed, done, sizes.steps),
               "pgbench": difference(before, after, count), "pgbench_rate": rate}
    for part in ("push", "run", "pgbench"):
        say(f"{part}: " + ", ".join(f"{key} {value:.1f}" for key, value in figures[part].items()))
    return figures


ROWS = [("push", "a step is pushed"), ("run", "a step runs (with the row that its callback inserts)"),
        ("pgbench", "pgbench: a transaction that inserts a row")]


def tables(figures):
    return {"storage": Table(["per", "WAL, bytes", "dead tuples", "tables of pgflow, bytes", "indexes of pgflow, bytes"], [
        [label, number(figures[part]["wal"], 0), f"{figures[part]['dead']:.2f}",
         *(("", "") if part == "pgbench" else (number(figures[part]["table"], 0), number(figures[part]["index"], 1)))]
        for part, label in ROWS])}


def charts(figures):
    return {"storage": Chart("Write-ahead log", "bytes", [label for _, label in ROWS], {
        "bytes of WAL": [figures[part]["wal"] for part, _ in ROWS]})}


def verdicts(_figures):
    return []
