"""Steps batched by opt-in (several in one transaction, a subtransaction each), beside pgbench's durable transactions."""

from harness import throughput
from harness.pairs import against_pgbench

ABOUT = 'trivial steps of a node with "steps_per_transaction": 32'
SECONDS = 40
STEPS_PER_TRANSACTION = 32
BAR = 3


def measure(cluster, sizes, say):
    if not cluster.accepts("steps_per_transaction", STEPS_PER_TRANSACTION):
        say("not supported by this version: the node option steps_per_transaction")
        return {"supported": False, "rates": []}
    cluster.configure("bench_batched", {"nodes": [{
        "node": "work", "node_routine": "bench.push", "step_routine": "bench.insert_row",
        "steps_per_transaction": STEPS_PER_TRANSACTION}]})
    return {"supported": True, "rates": [against_pgbench(cluster, sizes, say, 4, "bench_batched")]}


def tables(figures):
    return {"batched": throughput.table(figures)}


def charts(figures):
    return {"batched": throughput.chart(f"{STEPS_PER_TRANSACTION} steps a transaction", figures)} if figures["rates"] else {}


def verdicts(figures):
    what = "steps batched by opt-in, full durability, 4 workers"
    if not figures["supported"]:
        return [throughput.unsupported(what, f"≥ {BAR} × N(4)", "steps_per_transaction")]
    return [throughput.verdict(what, figures["rates"][0], BAR, "N(4)")]
