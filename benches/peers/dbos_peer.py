"""DBOS Transact as the benchmarks run it: a workflow with one step a job, on a queue. "batched": the queue hands out a
hundred at a time and the pools have 25 connections (it has no batches); else as many at a time as pgflow has workers. The queue
is asked a hundred times a second, in its favour: as delivered it is once. A chain is one workflow with as many steps, which is
what it is made for.

Usage: dbos_peer.py '{"action": "work", "jobs": 1000, "concurrency": 4, "batched": false}'
"""

import json
import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg_pool
from dbos import DBOS, DBOSConfig

spec = json.loads(sys.argv[1])
concurrency = 24 if spec["batched"] else spec["concurrency"]
environment = os.environ
url = f"postgresql+psycopg://{environment['PGUSER']}@/{environment['PGDATABASE']}?host={environment['PGHOST']}&port={environment['PGPORT']}"
config: DBOSConfig = {
    "name": "bench", "system_database_url": url, "sys_db_pool_size": concurrency + 2, "console_log_level": "ERROR",
    "log_level": "ERROR", "application_version": "1", "executor_id": "bench"}
DBOS(config=config)
logging.getLogger("dbos").setLevel(logging.ERROR)
pool = psycopg_pool.ConnectionPool("", min_size=concurrency, max_size=concurrency, kwargs={"autocommit": True}, open=True)
done = threading.Semaphore(0)
started = []


@DBOS.step()
def insert_row(i):
    with pool.connection() as connection:
        connection.execute("INSERT INTO bench.by_peer (i) VALUES (%s)", (i,))


@DBOS.workflow()
def insert(i):
    insert_row(i)
    done.release()


@DBOS.workflow()
def stamp():
    started.append(time.perf_counter())
    done.release()


@DBOS.step()
def nothing():
    pass


@DBOS.workflow()
def link(left):
    for _ in range(left):
        nothing()


def work():
    jobs = spec["jobs"]
    began = time.perf_counter()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: DBOS.enqueue_workflow("later", insert, i), range(1, jobs + 1), chunksize=50))
    enqueue_seconds = time.perf_counter() - began
    # Only now does anybody take from the queue: the jobs were enqueued on one that hands out nothing.
    DBOS.retrieve_queue("later").set_worker_concurrency(100 if spec["batched"] else concurrency)
    for _ in range(jobs):
        done.acquire()
    return {"enqueue_seconds": enqueue_seconds, "jobs": jobs}


def latency():
    found, began = [], time.perf_counter()
    for n in range(spec["jobs"] + 2):
        if time.perf_counter() - began > spec["seconds"]:
            break
        DBOS.enqueue_workflow("now", stamp)
        committed = time.perf_counter()
        done.acquire()
        if n >= 2:
            found.append((started[-1] - committed) * 1000)
        time.sleep(0.005)
    return {"milliseconds": found}


def chain():
    began = time.perf_counter()
    DBOS.start_workflow(link, spec["jobs"]).get_result()
    return {"seconds": time.perf_counter() - began, "links": spec["jobs"]}


DBOS.launch()
DBOS.register_queue("now", polling_interval_sec=0.01)
if spec["action"] == "work":
    DBOS.register_queue("later", worker_concurrency=0, polling_interval_sec=0.01)
answer = {"work": work, "latency": latency, "chain": chain}[spec["action"]]()
print(json.dumps(answer))
DBOS.destroy(workflow_completion_timeout_sec=10)
