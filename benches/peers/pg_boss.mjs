// pg-boss as the benchmarks run it: as many workers as pgflow has, each fetching batches without a pause while batches are full
// (its documentation's advice for throughput) and woken by NOTIFY. "batched": the jobs of a batch run side by side, over a pool
// of 25 connections; else one after the other, so that as many run at a time as there are workers.
// Usage: node pg_boss.mjs '{"action": "work", "jobs": 1000, "concurrency": 4, "batched": false}'
import pg from "pg";
import { PgBoss } from "pg-boss";
import { microseconds, spec, tell } from "./node_peer.mjs";

const pool = new pg.Pool({ max: spec.batched ? 25 : spec.concurrency });
const boss = new PgBoss({
  host: process.env.PGHOST, port: Number(process.env.PGPORT), user: process.env.PGUSER, database: process.env.PGDATABASE,
  max: 10, useListenNotify: true,
});
boss.on("error", (error) => { console.error(error); process.exitCode = 1; });
await boss.start();
const queue = spec.action;
await boss.createQueue(queue, { notify: true });
const options = {
  localConcurrency: spec.concurrency, batchSize: spec.batched ? 500 : 100, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5,
};
const insert = (job) =>
  pool.query({ name: "insert", text: "INSERT INTO bench.by_peer (i) VALUES ($1)", values: [job.data.i] });

async function work() {
  const began = performance.now();
  for (let low = 1; low <= spec.jobs; low += 10000) {
    const length = Math.min(10000, spec.jobs - low + 1);
    await boss.insert(queue, Array.from({ length }, (_, k) => ({ data: { i: low + k } })));
  }
  const enqueueSeconds = (performance.now() - began) / 1000;
  let done = 0, ended;
  const end = new Promise((resolve) => { ended = resolve; });
  await boss.work(queue, options, async (jobs) => {
    if (spec.batched) await Promise.all(jobs.map(insert));
    else for (const job of jobs) await insert(job);
    done += jobs.length;
    if (done === spec.jobs) ended();
  });
  await end;
  tell({ enqueue_seconds: enqueueSeconds, jobs: spec.jobs });
}

// Latency and the chain with batches of one: nothing else waits.
async function latency() {
  let started;
  await boss.work(queue, { pollingIntervalSeconds: 0.5, localConcurrency: spec.concurrency }, async () => started(microseconds()));
  const found = [], began = performance.now();
  for (let n = 0; n < spec.jobs + 5 && performance.now() - began < spec.seconds * 1000; n++) {
    const handled = new Promise((resolve) => { started = resolve; });
    await boss.send(queue, {});
    const committed = microseconds();
    if (n >= 5) found.push(((await handled) - committed) / 1000); else await handled;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  tell({ milliseconds: found });
}

async function chain() {
  let ended, links = 0;
  const end = new Promise((resolve) => { ended = resolve; });
  const began = performance.now();
  await boss.work(queue, { pollingIntervalSeconds: 0.5, localConcurrency: spec.concurrency }, async ([job]) => {
    links++;
    const late = performance.now() - began > spec.seconds * 1000;
    if (job.data.left > 1 && !late) await boss.send(queue, { left: job.data.left - 1 });
    else ended();
  });
  await boss.send(queue, { left: spec.jobs });
  await end;
  tell({ seconds: (performance.now() - began) / 1000, links });
}

await { work, latency, chain }[spec.action]();
await boss.stop({ graceful: true, timeout: 10000 });
await pool.end();
