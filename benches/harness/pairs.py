"""Throughput in pairs: our steps and pgbench's transactions, one after the other, and the median of the ratios."""

from harness import pgbench
from harness.figures import counted, median


def steps_rate(cluster, steps, flow="bench_steps"):
    """Steps a second, from the release of the pushed steps (the node's own task has ended) to the end of the run."""
    cluster.sql("TRUNCATE bench.by_steps")
    cluster.sql("CHECKPOINT")
    run = cluster.run(flow, {"steps": steps})
    exactly_once(cluster, "bench.by_steps", steps)
    seconds = cluster.one(
        """SELECT extract(epoch FROM f.processed - t.processed)::FLOAT
           FROM flow.flow f JOIN flow.flow_node n USING (flow_id) JOIN async.task t ON t.task_id = n.task_id
           WHERE f.flow_id = %s""", run)
    return steps / seconds


def exactly_once(cluster, table, rows):
    """Each of the numbers 1 … rows is in the table, once."""
    found = cluster.sql(f"SELECT count(*), count(DISTINCT i), coalesce(min(i), 0), coalesce(max(i), 0) FROM {table}")[0]
    if found != (rows, rows, 1, rows):
        raise RuntimeError(f"{table} should have 1 … {rows} once each, but has (rows, distinct, least, most) {found}")


def alternate(pairs, ours, theirs):
    """Calls both so many times; who goes first changes."""
    found = []
    for pair in range(pairs):
        if pair % 2:
            other = theirs()
            found.append((ours(), other))
        else:
            own = ours()
            found.append((own, theirs()))
    return found


def against_pgbench(cluster, sizes, say, workers, flow="bench_steps", synchronous_commit="on"):
    """One figure with its pairs: rates of ours and pgbench's, and the median of the ratios."""
    cluster.workers(workers)
    cluster.run(flow, {"steps": 200})
    pairs = alternate(
        sizes.pairs, lambda: steps_rate(cluster, sizes.steps, flow),
        lambda: pgbench.rate(cluster, workers, sizes.pgbench_seconds, synchronous_commit))
    ratio = median(own / other for own, other in pairs)
    figure = {
        "workers": workers, "pairs": pairs, "ours": median(own for own, _ in pairs),
        "pgbench": median(other for _, other in pairs), "ratio": ratio}
    say(f"{counted(workers, 'worker')}: {figure['ours']:,.0f} steps/s, pgbench {figure['pgbench']:,.0f}/s, median ratio {ratio:.2f}"
        f" ({', '.join(f'{own / other:.2f}' for own, other in pairs)})")
    return figure
