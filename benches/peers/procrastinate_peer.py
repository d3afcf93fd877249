"""procrastinate as the benchmarks run it: asynchronous tasks, LISTEN/NOTIFY, batch_defer for many jobs. "batched": 24 at a time
over a pool of 25 (it has no batches); else as many as pgflow has workers.

Usage: procrastinate_peer.py '{"action": "work", "jobs": 1000, "concurrency": 4, "batched": false}'
"""

import asyncio
import json
import sys
import time

import procrastinate
import psycopg_pool

spec = json.loads(sys.argv[1])
concurrency = 24 if spec["batched"] else spec["concurrency"]
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo="", max_size=concurrency + 2))
pool = psycopg_pool.AsyncConnectionPool("", min_size=concurrency, max_size=concurrency, kwargs={"autocommit": True}, open=False)
state = {"done": 0}


@app.task(name="insert")
async def insert(i):
    async with pool.connection() as connection:
        await connection.execute("INSERT INTO bench.by_peer (i) VALUES (%s)", (i,))
    state["done"] += 1


@app.task(name="stamp")
async def stamp():
    state["started"].set_result(time.perf_counter())


@app.task(name="link")
async def link(left):
    if left > 1:
        await link.defer_async(left=left - 1)
    else:
        state["ended"].set()


def worker(**options):
    return asyncio.create_task(app.run_worker_async(concurrency=concurrency, install_signal_handlers=False, **options))


async def stop(task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def work():
    jobs = spec["jobs"]
    began = time.perf_counter()
    for low in range(1, jobs + 1, 10_000):
        await insert.batch_defer_async(*({"i": i} for i in range(low, min(low + 10_000, jobs + 1))))
    enqueue_seconds = time.perf_counter() - began
    await app.run_worker_async(concurrency=concurrency, install_signal_handlers=False, wait=False)
    return {"enqueue_seconds": enqueue_seconds, "jobs": state["done"]}


async def latency():
    running = worker()
    await asyncio.sleep(0.5)
    found, began = [], time.perf_counter()
    for n in range(spec["jobs"] + 5):
        if time.perf_counter() - began > spec["seconds"]:
            break
        state["started"] = asyncio.get_running_loop().create_future()
        await stamp.defer_async()
        committed = time.perf_counter()
        started = await state["started"]
        if n >= 5:
            found.append((started - committed) * 1000)
        await asyncio.sleep(0.005)
    await stop(running)
    return {"milliseconds": found}


async def chain():
    state["ended"] = asyncio.Event()
    running = worker()
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    await link.defer_async(left=spec["jobs"])
    await state["ended"].wait()
    seconds = time.perf_counter() - began
    await stop(running)
    return {"seconds": seconds, "links": spec["jobs"]}


async def main():
    async with app.open_async(), pool:
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        print(json.dumps(await {"work": work, "latency": latency, "chain": chain}[spec["action"]]()))


asyncio.run(main())
