// graphile-worker as the benchmarks run it. The preset is that of its page on performance (worker.graphile.org/docs/performance);
// with "batched": false as many jobs at a time as pgflow has workers, everything else as delivered.
// Usage: node graphile_worker.mjs '{"action": "work", "jobs": 1000, "concurrency": 4, "batched": false}'
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";
import { microseconds, spec, tell } from "./node_peer.mjs";

const tuned = { concurrentJobs: 24, maxPoolSize: 25, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
const plain = { concurrentJobs: spec.concurrency, maxPoolSize: spec.concurrency + 1 };
const settings = spec.batched ? tuned : plain;
const pgPool = new pg.Pool({ max: settings.maxPoolSize });
const preset = { worker: settings };
const logger = new Logger(() => () => {});
const utils = await makeWorkerUtils({ pgPool, preset, logger });

async function work() {
  const began = performance.now();
  for (let low = 1; low <= spec.jobs; low += 10000) {
    const length = Math.min(10000, spec.jobs - low + 1);
    await utils.addJobs(Array.from({ length }, (_, k) => ({ identifier: "insert", payload: { i: low + k } })));
  }
  const enqueueSeconds = (performance.now() - began) / 1000;
  let done = 0;
  await new Promise((resolve, reject) => {
    run({
      pgPool, preset, logger, noHandleSignals: true,
      taskList: {
        insert: async (payload, helpers) => {
          await helpers.query({ name: "insert", text: "INSERT INTO bench.by_peer (i) VALUES ($1)", values: [payload.i] });
          if (++done === spec.jobs) resolve();
        },
      },
    }).then((runner) => { stopping = () => runner.stop(); }, reject);
  });
  await stopping();
  tell({ enqueue_seconds: enqueueSeconds, jobs: spec.jobs });
}

async function latency() {
  let started;
  const runner = await run({
    pgPool, preset, logger, noHandleSignals: true, taskList: { stamp: () => started(microseconds()) },
  });
  const found = [], began = performance.now();
  for (let n = 0; n < spec.jobs + 5 && performance.now() - began < spec.seconds * 1000; n++) {
    const handled = new Promise((resolve) => { started = resolve; });
    await utils.addJob("stamp", {});
    const committed = microseconds();
    if (n >= 5) found.push(((await handled) - committed) / 1000); else await handled;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await runner.stop();
  tell({ milliseconds: found });
}

async function chain() {
  let ended;
  const end = new Promise((resolve) => { ended = resolve; });
  const runner = await run({
    pgPool, preset, logger, noHandleSignals: true,
    taskList: { link: (payload, helpers) => (payload.left > 1 ? helpers.addJob("link", { left: payload.left - 1 }) : ended()) },
  });
  const began = performance.now();
  await utils.addJob("link", { left: spec.jobs });
  await end;
  const seconds = (performance.now() - began) / 1000;
  await runner.stop();
  tell({ seconds, links: spec.jobs });
}

let stopping;
await { work, latency, chain }[spec.action]();
await utils.release();
await pgPool.end();
