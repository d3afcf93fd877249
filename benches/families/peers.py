"""Other systems that do the same work on the same cluster: throughput, enqueueing, latency, a chain."""

from families.batched import STEPS_PER_TRANSACTION
from harness import pgbench, shapes
from harness.cluster import milliseconds
from harness.figures import Chart, Table, Verdict, median, number, spread
from harness.pairs import exactly_once, steps_rate
from harness.peer import CACHE, PEERS

ABOUT = "graphile-worker, pg-boss, procrastinate and dbos, the same work on the same cluster"
SECONDS = 225
WORKERS = 4
# What tuned settings have at their disposal: the default of pgflow.max_workers, and the 24 that graphile-worker's preset names.
MANY_WORKERS = 16
MANY_CLIENTS = 24
PROBE = 300  # jobs that show about how fast a peer is


def row_rate(cluster, table):
    """Rows a second between the first and the last one."""
    return cluster.one(f"SELECT ((count(*) - 1) / extract(epoch FROM max(at) - min(at)))::FLOAT FROM {table}")


def ours_once(cluster, steps, flow, workers):
    cluster.workers(workers)
    steps_rate(cluster, steps, flow)
    return row_rate(cluster, "bench.by_steps")


def peer_once(cluster, peer, jobs, batched):
    """Rows a second, and jobs a second of enqueueing."""
    cluster.sql("TRUNCATE bench.by_peer")
    cluster.sql("CHECKPOINT")
    answer = peer.ask("work", jobs, WORKERS, batched)
    exactly_once(cluster, "bench.by_peer", jobs)
    return row_rate(cluster, "bench.by_peer"), jobs / answer["enqueue_seconds"]


def throughput(cluster, sizes, say, batched_flow):
    """Rounds of everybody, one after the other; the order turns from round to round."""
    entrants = {
        "pgflow": lambda: (ours_once(cluster, sizes.steps, "bench_steps", WORKERS), None),
        "pgflow, tuned": lambda: (ours_once(cluster, sizes.steps, batched_flow or "bench_steps", MANY_WORKERS), None),
        "pgbench": lambda: (pgbench.rate(cluster, WORKERS, sizes.pgbench_seconds), None),
        "pgbench, tuned": lambda: (pgbench.rate(cluster, MANY_CLIENTS, sizes.pgbench_seconds), None)}
    if batched_flow:
        entrants["pgflow, batched"] = lambda: (ours_once(cluster, sizes.steps, batched_flow, WORKERS), None)
    for peer in PEERS:
        for batched in (False, True):
            label = f"{peer.name}, {'tuned' if batched else 'as many at a time'}"
            jobs = sizes.peer_jobs
            if jobs > PROBE:
                rate, _ = peer_once(cluster, peer, PROBE, batched)
                jobs = int(min(jobs, max(PROBE, rate * sizes.peer_seconds)))
            entrants[label] = lambda peer=peer, jobs=jobs, batched=batched: peer_once(cluster, peer, jobs, batched)
    found = {label: [] for label in entrants}
    order = list(entrants)
    for round_number in range(sizes.peer_pairs):
        turn = round_number * (len(order) // 2 + 1) % len(order)
        for label in order[turn:] + order[:turn]:
            found[label].append(entrants[label]())
    rates = {label: median(rate for rate, _ in values) for label, values in found.items()}
    enqueue = {label: median(rate for _, rate in values) for label, values in found.items() if values[0][1]}
    for label, rate in rates.items():
        say(f"{label}: {rate:,.0f} jobs/s" + (f", enqueued {enqueue[label]:,.0f}/s" if label in enqueue else ""))
    return {"rates": rates, "enqueue": enqueue, "rounds": {label: [rate for rate, _ in found[label]] for label in found}}


def our_enqueue(cluster, rows, repeats):
    """Rows a second of one push_steps."""
    cluster.sql("SELECT async.pause()")
    found = []
    for _ in range(repeats):
        run = cluster.start("bench_sleep")
        found.append(rows * 1000 / milliseconds(lambda run=run: cluster.push(run, 1, rows)))
        cluster.sql("SELECT flow.cancel(%s)", run)
    cluster.sql("SELECT async.resume()")
    return median(found)


def latency_and_chain(cluster, sizes, say):
    cluster.sql("CALL bench.measure_latency('warm-up', 10, 0.01)")
    cluster.sql("CALL bench.measure_latency('warm', %s::INT, 0.005)", sizes.peer_latency)
    found = {"pgflow": spread([row[0] for row in cluster.sql(
        "SELECT after_commit::FLOAT FROM bench.latency WHERE kind = 'warm'")])}
    cluster.configure("bench_chain", shapes.chain(sizes.chain))
    cluster.run("bench_chain")
    run = cluster.run("bench_chain")
    chains = {"pgflow": cluster.one("SELECT extract(epoch FROM processed - created)::FLOAT * 1000 / %s FROM flow.flow "
                                    "WHERE flow_id = %s", sizes.chain, run)}
    for peer in PEERS:
        found[peer.name] = spread(peer.ask(
            "latency", sizes.peer_latency, WORKERS, seconds=sizes.peer_latency_seconds)["milliseconds"])
        answer = peer.ask("chain", sizes.chain, WORKERS, seconds=sizes.peer_latency_seconds)
        chains[peer.name] = answer["seconds"] * 1000 / answer["links"]
    for name, figure in found.items():
        say(f"{name}: latency p50 {figure['p50']:.2f} ms, p99 {figure['p99']:.2f} ms; chain {chains[name]:.2f} ms a link")
    return {"latency": found, "chain": chains}


def measure(cluster, sizes, say):
    missing = [peer.name for peer in PEERS if not peer.installed()]
    if missing:
        raise RuntimeError(f"not installed in {CACHE}: {', '.join(missing)}; scripts/setup.sh peers")
    batched_flow = None
    if cluster.accepts("steps_per_transaction", STEPS_PER_TRANSACTION):
        batched_flow = "bench_batched"
        cluster.configure(batched_flow, {"nodes": [{
            "node": "work", "node_routine": "bench.push", "step_routine": "bench.insert_row",
            "steps_per_transaction": STEPS_PER_TRANSACTION}]})
    cluster.workers(WORKERS)
    figures = {"workers": WORKERS, "batched": batched_flow is not None, "versions": {peer.name: peer.version() for peer in PEERS},
               "tuned": {peer.name: peer.tuned for peer in PEERS}}
    # Before throughput: nothing else has been in the tables yet.
    figures.update(latency_and_chain(cluster, sizes, say))
    figures.update(throughput(cluster, sizes, say, batched_flow))
    figures["enqueue"]["pgflow"] = our_enqueue(cluster, sizes.push, sizes.repeats)
    say(f"pgflow: enqueued {figures['enqueue']['pgflow']:,.0f}/s")
    return figures


def settings(figures, label):
    name, _, kind = label.partition(", ")
    if name == "pgflow":
        batched = kind == "batched" or kind == "tuned" and figures["batched"]
        return (f"{MANY_WORKERS if kind == 'tuned' else figures['workers']} workers"
                + (f", {STEPS_PER_TRANSACTION} steps a transaction" if batched else ""))
    if name == "pgbench":
        return f"{MANY_CLIENTS if kind else figures['workers']} clients"
    return figures["tuned"][name] if kind == "tuned" else f"{figures['workers']} at a time"


def our_rate(rates, label):
    """What a system's row is compared with: a tuned one with our best, another with as many workers."""
    ours = [rate for entrant, rate in rates.items() if entrant.startswith("pgflow")]
    return max(ours) if label.endswith("tuned") else rates["pgflow"]


def named(figures, label):
    name = label.partition(", ")[0]
    return f"{name} {figures['versions'][name]}" if name in figures["versions"] else name


def tables(figures):
    rates = figures["rates"]
    rows = []
    for label, rate in sorted(rates.items(), key=lambda item: -item[1]):
        ratio = rate / our_rate(rates, label) if label.partition(", ")[0] in figures["versions"] else ""
        rows.append([named(figures, label), settings(figures, label), number(rate, 0),
                     ratio and f"{ratio:.2f}" + (" **ahead of pgflow**" if ratio > 1 else "")])
    enqueue = {}
    for label, rate in figures["enqueue"].items():
        name = label.partition(", ")[0]
        enqueue[name] = max(rate, enqueue.get(name, 0))
    latency = figures["latency"]
    return {
        "peers": Table(["system", "settings", "jobs/s", "of pgflow's"], rows),
        "peers_enqueue": Table(["system", "jobs/s", "of pgflow's"], [
            [named(figures, name), number(rate, 0),
             "" if name == "pgflow" else f"{rate / enqueue['pgflow']:.2f}" + (" **ahead of pgflow**" if rate > enqueue["pgflow"] else "")]
            for name, rate in sorted(enqueue.items(), key=lambda item: -item[1])]),
        "peers_latency": Table(["system", "p50, ms", "p99, ms", "measured", "chain, ms a link"], [
            [named(figures, name) + (" **ahead of pgflow**" if name != "pgflow" and (
                figure["p50"] < latency["pgflow"]["p50"] or figures["chain"][name] < figures["chain"]["pgflow"]) else ""),
             f"{figure['p50']:.2f}", f"{figure['p99']:.2f}", figure["count"], f"{figures['chain'][name]:.2f}"]
            for name, figure in latency.items()])}


def charts(figures):
    rates = sorted(figures["rates"].items(), key=lambda item: -item[1])
    latency = sorted(figures["latency"].items(), key=lambda item: item[1]["p50"])
    enqueue = sorted(figures["enqueue"].items(), key=lambda item: -item[1])
    return {
        "peers": Chart("Jobs that insert a row", "jobs a second", [label for label, _ in rates],
                       {"jobs a second": [rate for _, rate in rates]}),
        "peers_enqueue": Chart("Enqueueing", "jobs a second", [label for label, _ in enqueue],
                               {"jobs a second": [rate for _, rate in enqueue]}, logarithmic=True),
        "peers_latency": Chart("From commit to start, one job at a time; a link of a chain", "milliseconds",
                               [name for name, _ in latency], {
                                   "p50 of latency": [figure["p50"] for _, figure in latency],
                                   "p99 of latency": [figure["p99"] for _, figure in latency],
                                   "a link of a chain": [figures["chain"][name] for name, _ in latency]}, logarithmic=True)}


def verdicts(figures):
    rates, latency, chains = figures["rates"], figures["latency"], figures["chain"]
    enqueue = figures["enqueue"]
    lines = []
    for label in rates:
        name = label.partition(", ")[0]
        if name in figures["versions"]:
            ours = our_rate(rates, label)
            lines.append(Verdict(f"{label}: throughput", "ahead", f"{number(ours, 0)}/s", f"{number(rates[label], 0)}/s",
                                 ours > rates[label]))
    for name in figures["versions"]:
        best = max(rate for label, rate in enqueue.items() if label.partition(", ")[0] == name)
        lines += [
            Verdict(f"{name}: enqueueing", "ahead", f"{number(enqueue['pgflow'], 0)}/s", f"{number(best, 0)}/s",
                    enqueue["pgflow"] > best),
            Verdict(f"{name}: latency p50", "ahead", f"{latency['pgflow']['p50']:.2f} ms", f"{latency[name]['p50']:.2f} ms",
                    latency["pgflow"]["p50"] < latency[name]["p50"]),
            Verdict(f"{name}: a link of a chain", "ahead", f"{chains['pgflow']:.2f} ms", f"{chains[name]:.2f} ms",
                    chains["pgflow"] < chains[name])]
    return lines
