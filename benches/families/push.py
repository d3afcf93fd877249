"""How fast steps are pushed, by the size of the array, beside a plain INSERT of the same rows."""

from harness.cluster import milliseconds
from harness.figures import Chart, Table, median, number

ABOUT = "rows a second of push_steps, beside a plain INSERT of the same rows"
SECONDS = 36


def measure(cluster, sizes, say):
    cluster.sql("CREATE TABLE bench.plain (id BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY, arguments JSONB NOT NULL)")
    cluster.sql("SELECT async.pause()")
    figures = {"rows": [], "pushed": [], "inserted": []}
    for size in (1, 100, sizes.push // 10, sizes.push):
        calls = max(1, min(200 if size == 1 else 20, sizes.push // size))
        rates = {"pushed": [], "inserted": []}
        for _ in range(sizes.repeats):
            run = cluster.start("bench_sleep")
            for kind, call in (
                    ("pushed", lambda low, high, run=run: cluster.push(run, low, high)),
                    ("inserted", lambda low, high: cluster.sql(
                        """INSERT INTO bench.plain (arguments)
                           SELECT jsonb_build_object('i', i) FROM generate_series(%s::INT, %s::INT) AS i""", low, high))):
                took = sum(milliseconds(lambda low=low, call=call, size=size: call(low, low + size - 1))
                           for low in range(1, calls * size + 1, size))
                rates[kind].append(calls * size / took * 1000)
            pushed = cluster.one("SELECT count(*) FROM flow.flow_step WHERE flow_id = %s", run)
            if pushed != calls * size:
                raise RuntimeError(f"{calls * size} steps were pushed, {pushed} are there")
            cluster.sql("SELECT flow.cancel(%s)", run)
        figures["rows"].append(size)
        for kind, values in rates.items():
            figures[kind].append(median(values))
        say(f"{size:,} rows a call: {figures['pushed'][-1]:,.0f} rows/s, plain INSERT {figures['inserted'][-1]:,.0f}")
    cluster.sql("SELECT async.resume()")
    return figures


def tables(figures):
    return {"push": Table(["rows a call", "push_steps, rows/s", "plain INSERT, rows/s", "ratio"], [
        [number(size, 0), number(ours, 0), number(plain, 0), f"{ours / plain:.2f}"]
        for size, ours, plain in zip(figures["rows"], figures["pushed"], figures["inserted"])])}


def charts(figures):
    return {"push": Chart("Pushing steps, by rows a call", "rows a second", [number(size, 0) for size in figures["rows"]], {
        "flow.push_steps": figures["pushed"], "plain INSERT": figures["inserted"]}, logarithmic=True)}


def verdicts(_figures):
    return []
