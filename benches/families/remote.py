"""Hundreds of tasks in flight on another server (here this one, by TCP), beside as many clients of pgbench."""

import time

from harness import pgbench
from harness.figures import Chart, Table, number

ABOUT = "500 tasks in flight elsewhere, and what they cost the dispatcher"
SECONDS = 15


def elsewhere(cluster, tasks):
    """Seconds from the push to the end of the last task; the most that were seen in flight."""
    began = time.monotonic()
    ids = [row[0] for row in cluster.sql(
        """SELECT async.push_tasks((SELECT array_agg(async.task('SELECT pg_sleep(1)', 'bench_elsewhere'))
                                    FROM generate_series(1, %s::INT)))""", tasks)]
    most = 0
    while cluster.one("SELECT count(*) FROM async.task WHERE task_id = ANY(%s) AND processed IS NULL", ids):
        most = max(most, cluster.one("SELECT count(*) FROM async.running()"))
        if time.monotonic() - began > 120:
            raise RuntimeError("tasks elsewhere have not ended after two minutes")
        time.sleep(0.05)
    took = time.monotonic() - began
    if failed := cluster.sql("SELECT processing_error FROM async.task WHERE task_id = ANY(%s) AND failed LIMIT 1", ids):
        raise RuntimeError(f"a task elsewhere failed: {failed[0][0]}")
    return took, most


def measure(cluster, sizes, say):
    cluster.sql(
        """SELECT async.configure(jsonb_build_object('targets', jsonb_build_array(jsonb_build_object(
             'target', 'bench_elsewhere', 'kind', 'postgres', 'max_concurrency', %s::INT,
             'connection_string', format('host=127.0.0.1 port=%%s dbname=%%s user=%%s sslmode=disable',
               current_setting('port'), current_database(), current_user)))))""", sizes.remote)
    dispatcher = cluster.process("pgflow dispatcher")
    elsewhere(cluster, 5)
    figures = {"tasks": sizes.remote, "runs": []}
    for label in ("new connections", "connections kept"):
        cpu = dispatcher.cpu_seconds()
        took, most = elsewhere(cluster, sizes.remote)
        figures["runs"].append({"label": label, "seconds": took, "most": most, "cpu": dispatcher.cpu_seconds() - cpu,
                                "memory": dispatcher.private_bytes()})
        say(f"{sizes.remote} tasks of 1 s, {label}: {took:.2f} s, {most} at once, "
            f"{figures['runs'][-1]['cpu']:.2f} s of CPU in the dispatcher")
    figures["pgbench"] = pgbench.at_once(cluster, sizes.remote, "SELECT pg_sleep(1);\n")
    say(f"pgbench, {sizes.remote} clients: {figures['pgbench']:.2f} s")
    return figures


def tables(figures):
    return {"remote": Table(
        [f"{number(figures['tasks'], 0)} tasks of 1 s", "all ended after, s", "most at once", "CPU of the dispatcher, s",
         "its private memory, MB"],
        [*([run["label"], f"{run['seconds']:.2f}", run["most"], f"{run['cpu']:.2f}", f"{run['memory'] / 2**20:.1f}"]
           for run in figures["runs"]), ["pgbench, as many clients, connecting", f"{figures['pgbench']:.2f}", "", "", ""]])}


def charts(figures):
    return {"remote": Chart(f"{number(figures['tasks'], 0)} tasks of a second elsewhere", "seconds", ["seconds"], {
        **{f"pgflow, {run['label']}": [run["seconds"]] for run in figures["runs"]},
        "pgbench, as many clients": [figures["pgbench"]]})}


def verdicts(_figures):
    return []
