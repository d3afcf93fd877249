"""A session that holds a snapshot open for the whole run, beside the same run without one. With synchronous_commit off in
the whole cluster, so that the disk hides nothing."""

import psycopg

from harness.figures import Chart, Table, Verdict, median, number
from harness.pairs import alternate, steps_rate

ABOUT = "a snapshot held open for the whole run"
SECONDS = 60
WORKERS = 2


def held(cluster, steps):
    """The rate while another session holds a snapshot from before the run."""
    with psycopg.connect() as holder:
        holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM flow.configured")
        rate = steps_rate(cluster, steps)
        holder.rollback()
    return rate


def measure(cluster, sizes, say):
    cluster.set(synchronous_commit="off")
    cluster.workers(WORKERS)
    pairs = alternate(sizes.pairs, lambda: held(cluster, sizes.steps), lambda: steps_rate(cluster, sizes.steps))
    figures = {"pairs": pairs, "held": median(own for own, _ in pairs), "free": median(other for _, other in pairs),
               "ratio": median(own / other for own, other in pairs)}
    say(f"with a snapshot held {figures['held']:,.0f} steps/s, without {figures['free']:,.0f}; ratio {figures['ratio']:.2f}")
    return figures


def tables(figures):
    return {"snapshot": Table(["steps/s with a snapshot held open", "without", "ratio (median of pairs)"], [[
        number(figures["held"], 0), number(figures["free"], 0), f"**{figures['ratio']:.2f}**"]])}


def charts(figures):
    return {"snapshot": Chart("A snapshot held open for the whole run", "steps a second", ["steps a second"], {
        "held": [figures["held"]], "not held": [figures["free"]]})}


def verdicts(figures):
    return [Verdict("a snapshot held open for the whole run", "rate falls by less than 20 %",
                    f"{(1 - figures['ratio']) * 100:.0f} % ({number(figures['held'], 0)}/s)",
                    f"without {number(figures['free'], 0)}/s", figures["ratio"] > 0.8)]
