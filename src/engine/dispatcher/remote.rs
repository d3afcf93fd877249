//! The dispatcher's view of tasks that run somewhere else: what the executor has, which targets cannot be reached, what
//! was reported.
//!
//! The executor is a thread of this process that knows nothing of Postgres. It is handed plain values when the marks of
//! their attempts are durable, and never anything that is not in `flying`.

use std::collections::HashMap;
use std::sync::atomic::Ordering::*;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use pgflow_core::queue::Key;
use pgflow_executor::bridge::Offer;
use pgflow_executor::job::{Ending, Failure, Job, Target};
use pgflow_executor::kind::Progress;
use pgflow_executor::kinds;
use pgflow_executor::results::{Keep, ResultSpec};
use pgflow_executor::runner::{Errand, Executor, OnProgress, Report};
use serde_json::{Map, Value};

use super::jobs::{job, read_target};
use super::pools::Pools;
use crate::engine::shmem::{shared, Database, Remote as Shown, Worker};
use crate::engine::{pauses, process};
use crate::settings;
use crate::store::guarded;
use crate::store::remote as store;

/// Jobs prepared in one cycle: a transaction reads and marks them all.
pub const AT_ONCE: usize = 256;
/// Whoever waited for a target that is down comes back within this long after he was told when to (microseconds).
const ASKED_FOR: i64 = 30_000_000;
/// How long the executor may take to stop everything when the dispatcher ends.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether the executor's threads may touch shared memory: not any more when this process is about to detach from it.
static ATTACHED: RwLock<bool> = RwLock::new(false);

/// Runs `body` unless shared memory is gone. For the executor's threads.
fn attached(body: impl FnOnce()) {
    if ATTACHED.read().is_ok_and(|attached| *attached) {
        body();
    }
}

/// From here on no thread touches shared memory; called before this process lets go of it.
pub fn detach() {
    if let Ok(mut attached) = ATTACHED.write() {
        *attached = false;
    }
}

/// What the executor has of ours.
struct Flight {
    attempt: i32,
    claim: i64,
    pool: usize,
    target: Arc<Target>,
    keep: Keep,
    spec: ResultSpec,
    shown: usize,
    started: i64,
    time_limit: Option<i64>,
    tries: i32,
    max_attempts: i32,
    stopping: bool,
}

/// A target that cannot be reached.
struct Down {
    since: i64,
    next_try: i64,
    tries: i32,
    error: String,
    /// Asked about right now.
    probing: bool,
    /// Until then somebody may come back for it: a worker whose task waits for it is in no lane of the target's.
    asked_for_until: i64,
    target: Arc<Target>,
    /// How long its tasks may wait, in microseconds; None: for ever.
    patience: Option<i64>,
}

pub struct Remote {
    database: &'static Database,
    executor: Option<Executor>,
    /// How this engine names itself elsewhere.
    engine_id: String,
    flying: HashMap<i64, Flight>,
    claims: HashMap<i64, usize>,
    /// Handed over once the marks are committed.
    prepared: Vec<Job>,
    down: HashMap<String, Down>,
    /// Stops that found no room.
    stops: Vec<(i64, i32)>,
    listening: bool,
    /// What targets looked like when they were last read.
    targets: Option<String>,
    /// Small work to be begun after the commit.
    errands: Vec<Errand>,
}

/// An attempt that was reported, and what is known of it.
pub struct Landed {
    pub task_id: i64,
    pub attempt: i32,
    pub started: i64,
    pub ending: Ending,
    pub timed_out: bool,
    pub microseconds: u32,
    pub time_limit: Option<i64>,
    /// Attempts before this one that were lost or not taken.
    pub tries: i32,
    pub max_attempts: i32,
    pub target: Arc<Target>,
    /// What was to be done with its result.
    pub keep: Keep,
    pub spec: ResultSpec,
}

/// What was made of tasks that were chosen to be sent: (task, attempt).
#[derive(Default)]
pub struct Prepared {
    pub ready: Vec<(i64, i32)>,
    /// They cannot run, for the reason given.
    pub faults: Vec<(i64, i32, String)>,
    /// Not as they were known: to be read anew.
    pub changed: Vec<(i64, i32)>,
    /// Other databases hold every place, or an earlier attempt is still being stopped.
    pub no_place: Vec<(i64, i32)>,
}

/// What is to be done about targets that are down.
#[derive(Default)]
pub struct Probed {
    /// When the next one is due.
    pub next: Option<i64>,
    /// Down for longer than their tasks may wait: (target, error).
    pub given_up: Vec<(String, String)>,
    /// Nobody waits for them any more: they are found out again if need be.
    pub forgotten: Vec<String>,
}

impl Remote {
    pub fn new(database: &'static Database) -> Self {
        // Places that a dispatcher before this one has left: what ran there is lost.
        let oid = database.oid.load(Acquire);
        for shown in shared().remotes().iter().filter(|r| r.database.load(Acquire) == oid) {
            shown.free();
        }
        Remote {
            database,
            executor: None,
            engine_id: String::new(),
            flying: HashMap::new(),
            claims: HashMap::new(),
            prepared: Vec::new(),
            down: HashMap::new(),
            stops: Vec::new(),
            listening: false,
            targets: None,
            errands: Vec::new(),
        }
    }

    pub fn has_report(&self) -> bool {
        self.executor.as_ref().is_some_and(|e| e.has_report() || (!self.flying.is_empty() && e.is_gone()))
    }

    pub fn busy(&self) -> bool {
        !self.flying.is_empty()
    }

    pub fn running_in(&self, pool: usize) -> usize {
        self.flying.values().filter(|f| f.pool == pool).count()
    }

    /// How many more the executor may be given.
    pub fn room(&self) -> usize {
        settings::max_remote_tasks().saturating_sub(self.flying.len()).min(AT_ONCE)
    }

    pub fn none_is_down(&self) -> bool {
        self.down.is_empty()
    }

    /// Whether a target's tasks may be sent now.
    pub fn is_up(&self, target: &str) -> bool {
        !self.down.contains_key(target)
    }

    /// What was reported since the last look; every place and claim of what has landed is given back.
    pub fn take_reports(&mut self, pools: &mut Pools, finished_claims: &mut Vec<i64>) -> (Vec<Landed>, Vec<Report>) {
        let (mut landed, mut others) = (Vec::new(), Vec::new());
        while let Some(report) = self.executor.as_mut().and_then(Executor::take) {
            match report {
                Report::Ended { task_id, attempt, ending, timed_out, took } => {
                    if self.flying.get(&task_id).is_some_and(|f| f.attempt == attempt) {
                        landed.extend(self.land(task_id, ending, timed_out, took, pools, finished_claims));
                    }
                }
                other => others.push(other),
            }
        }
        if landed.is_empty() && self.executor.as_ref().is_some_and(Executor::is_gone) {
            // It must not end by itself. What it had is lost; another one is started.
            pgrx::warning!("pgflow: the executor's thread has ended; this is a bug of pgflow");
            self.executor = None;
            self.listening = false;
            // What it was to be handed is among the lost, and nobody will answer what it was asked.
            self.prepared.clear();
            self.stops.clear();
            self.down.values_mut().for_each(|d| d.probing = false);
            for task_id in self.flying.keys().copied().collect::<Vec<_>>() {
                let ending = Ending::Lost(Failure::new("the executor's thread has ended"));
                landed.extend(self.land(task_id, ending, false, Duration::ZERO, pools, finished_claims));
            }
        }
        (landed, others)
    }

    fn land(
        &mut self,
        task_id: i64,
        ending: Ending,
        timed_out: bool,
        took: Duration,
        pools: &mut Pools,
        finished_claims: &mut Vec<i64>,
    ) -> Option<Landed> {
        let flight = self.flying.remove(&task_id)?;
        shared().remotes()[flight.shown].free();
        pools.release(flight.pool);
        if let Some(left) = self.claims.get_mut(&flight.claim) {
            *left -= 1;
            if *left == 0 {
                self.claims.remove(&flight.claim);
                finished_claims.push(flight.claim);
            }
        }
        Some(Landed {
            task_id,
            attempt: flight.attempt,
            started: flight.started,
            ending,
            timed_out,
            microseconds: took.as_micros().min(u32::MAX.into()) as u32,
            time_limit: flight.time_limit,
            tries: flight.tries,
            max_attempts: flight.max_attempts,
            target: flight.target,
            keep: flight.keep,
            spec: flight.spec,
        })
    }

    /// Reads what is needed to run these tasks of a lane, and takes places for them.
    pub fn prepare(&mut self, tasks: &[(i64, i32)], lane: Key, pools: &mut Pools) -> Prepared {
        let mut prepared = Prepared::default();
        let mut targets: HashMap<(String, String), Result<Arc<Target>, String>> = HashMap::new();
        let all = self.read(tasks, &mut prepared.faults);
        // Ended meanwhile: whoever did that has said so.
        let known = |task: &&(i64, i32)| {
            all.iter().any(|o| (o.task_id, o.attempt) == **task) || prepared.faults.iter().any(|f| f.0 == task.0)
        };
        prepared.changed = tasks.iter().filter(|t| !known(t)).copied().collect();
        for outgoing in all.iter().filter(|o| tasks.contains(&(o.task_id, o.attempt))) {
            let (task_id, attempt) = (outgoing.task_id, outgoing.attempt);
            if self.flying.contains_key(&task_id) {
                // An earlier attempt is still being stopped there.
                prepared.no_place.push((task_id, attempt));
                continue;
            }
            let target = targets
                .entry((outgoing.target.clone(), outgoing.role.clone()))
                .or_insert_with(|| flat(guarded(|| read_target(&outgoing.target, &outgoing.role))))
                .clone();
            let made = target.and_then(|target| flat(guarded(|| job(&self.engine_id, target, outgoing))));
            let (job, spec) = match made {
                Ok(made) => made,
                Err(why) => {
                    prepared.faults.push((task_id, attempt, why));
                    continue;
                }
            };
            let started = crate::store::now();
            let oid = self.database.oid.load(Acquire);
            let place = shared().remotes().iter().position(|r| r.take(oid, lane.role, task_id, attempt, started));
            let Some(shown) = place else {
                prepared.no_place.push((task_id, attempt));
                continue;
            };
            pools.hold(lane.pool);
            let flight = Flight {
                attempt,
                claim: 0,
                pool: lane.pool,
                target: job.target.clone(),
                keep: job.keep.clone(),
                spec,
                shown,
                started,
                time_limit: outgoing.time_limit,
                tries: outgoing.tries,
                max_attempts: max_attempts(&job),
                stopping: false,
            };
            self.flying.insert(task_id, flight);
            self.prepared.push(job);
            prepared.ready.push((task_id, attempt));
        }
        prepared
    }

    /// Reads tasks at once; where one of them cannot be read, one by one.
    fn read(&self, tasks: &[(i64, i32)], faults: &mut Vec<(i64, i32, String)>) -> Vec<store::Outgoing> {
        guarded(|| store::outgoing(tasks.iter().map(|t| t.0).collect())).unwrap_or_else(|_| {
            let mut all = Vec::new();
            for &(task_id, attempt) in tasks {
                match guarded(|| store::outgoing(vec![task_id])) {
                    Ok(one) => all.extend(one),
                    Err(why) => faults.push((task_id, attempt, why)),
                }
            }
            all
        })
    }

    /// The mark of these attempts is written.
    pub fn marked(&mut self, tasks: &[(i64, i32)], claim: i64) {
        for (task_id, _) in tasks {
            if let Some(flight) = self.flying.get_mut(task_id) {
                flight.claim = claim;
            }
        }
        self.claims.insert(claim, tasks.len());
    }

    /// Hands over what was prepared: the marks are durable.
    pub fn send(&mut self) {
        if self.prepared.is_empty() && self.stops.is_empty() && self.errands.is_empty() {
            return;
        }
        if self.executor.is_none() {
            self.executor = self.start();
        }
        let Some(executor) = &self.executor else { return };
        for job in std::mem::take(&mut self.prepared) {
            let progress = self.flying.get(&job.task_id).map_or_else(nobody, |f| progress_to(f.shown, job.task_id));
            // There is room for every place: what comes back does so because the thread is gone, which is found out.
            if let Err(job) = executor.run(job, progress) {
                self.prepared.push(*job);
            }
        }
        for errand in std::mem::take(&mut self.errands) {
            // Without room it is lost: what it was about is found again when its time has come.
            let _ = executor.errand(errand);
        }
        for (task_id, attempt) in std::mem::take(&mut self.stops) {
            if !executor.stop(task_id, attempt) {
                self.stops.push((task_id, attempt));
            }
        }
    }

    fn start(&self) -> Option<Executor> {
        let database = self.database;
        if let Ok(mut attached) = ATTACHED.write() {
            *attached = true;
        }
        let wake = move || attached(|| process::wake_from_thread(&database.dispatcher));
        let executor = process::without_signals(|| Executor::start(kinds::all(), settings::max_remote_tasks(), wake));
        if let Err(error) = &executor {
            pgrx::warning!("pgflow: the executor cannot start: {error}");
        }
        executor.ok()
    }

    /// Has a task stopped that the executor has.
    pub fn stop(&mut self, task_id: i64) {
        let Some(flight) = self.flying.get_mut(&task_id).filter(|f| !f.stopping) else { return };
        flight.stopping = true;
        self.stops.push((task_id, flight.attempt));
    }

    /// A target could not be reached: nothing is sent there for a while.
    pub fn note_down(&mut self, target: Arc<Target>, error: &str) -> i64 {
        let now = crate::store::now();
        let seconds = |key: &str, default: f64| target.options.get(key).and_then(Value::as_f64).unwrap_or(default);
        let pause = |key: &str, default: f64| Duration::from_secs_f64(seconds(key, default).clamp(0.05, 3600.0));
        let (first, most) = (pause("retry_delay", 1.0), pause("retry_delay_max", 60.0));
        let name = target.name.clone();
        let down = self.down.entry(name.clone()).or_insert_with(|| Down {
            since: now,
            next_try: 0,
            tries: 0,
            error: String::new(),
            probing: false,
            asked_for_until: 0,
            target: target.clone(),
            patience: None,
        });
        if down.next_try <= now || down.probing {
            down.next_try = now + pauses::after(down.tries, first, most);
            down.tries += 1;
        }
        if !down.probing {
            // Somebody's work met it, not our own asking.
            down.asked_for_until = down.next_try + most.as_micros() as i64 + ASKED_FOR;
        }
        down.probing = false;
        down.patience = target.options.get("give_up_after").and_then(Value::as_str).and_then(store::microseconds);
        down.target = target;
        down.error = error.to_owned();
        store::target_down(&name, down.since, down.next_try, down.tries, error);
        down.next_try
    }

    /// A target has answered.
    pub fn note_up(&mut self, target: &str) {
        if self.down.remove(target).is_some() {
            store::target_up(Some(target));
        }
    }

    /// Whether it is time to ask any of them.
    pub fn probe_is_due(&self) -> bool {
        let now = crate::store::now();
        self.down.values().any(|down| down.next_try <= now && !down.probing)
    }

    /// Targets that are down and whose time has come are asked whether they are there again, wherever they are by now.
    pub fn probe(&mut self, wanted: impl Fn(&str) -> bool) -> Probed {
        let now = crate::store::now();
        let mut probed = Probed::default();
        self.down.retain(|name, down| {
            let stays = down.probing || down.next_try > now || down.asked_for_until > now || wanted(name);
            if !stays {
                probed.forgotten.push(name.clone());
            }
            stays
        });
        for (name, down) in &mut self.down {
            if down.patience.is_some_and(|patience| now - down.since > patience) {
                probed.given_up.push((name.clone(), down.error.clone()));
            }
            if down.next_try <= now && !down.probing {
                // Where it leads may have changed since; one that leads nowhere any more keeps nobody waiting.
                match flat(guarded(|| read_target(name, &down.target.role))) {
                    Ok(target) => down.target = target,
                    Err(_) => {
                        probed.forgotten.push(name.clone());
                        continue;
                    }
                }
                let asked = self.executor.as_ref().is_some_and(|e| e.errand(Errand::Probe(down.target.clone())));
                down.probing = asked;
            }
        }
        self.down.retain(|name, _| !probed.forgotten.contains(name));
        probed.next = self.down.values().filter(|d| !d.probing).map(|d| d.next_try.max(now + 50_000)).min();
        probed
    }

    /// Listens to workers that need the executor.
    pub fn listen(&mut self) {
        if self.executor.is_none() {
            self.executor = self.start();
        }
        if let (false, Some(executor)) = (self.listening, &self.executor) {
            self.listening = executor.listen(crate::engine::bridge::socket(self.database.oid.load(Acquire)));
        }
    }

    /// What a worker's task is to be: a job of its own target, or rows of its own to be kept.
    pub fn offer(&mut self, task_id: i64, attempt: i32) -> Result<Offer, String> {
        let outgoing = guarded(|| store::outgoing(vec![task_id]))?.pop().filter(|o| o.attempt == attempt);
        let Some(mut outgoing) = outgoing else { return Err("the task has ended".to_owned()) };
        // The worker watches the time.
        outgoing.time_left = None;
        let target = flat(guarded(|| read_target(&outgoing.target, &outgoing.role)))?;
        if let Some(down) = self.down.get_mut(&target.name) {
            let now = crate::store::now();
            let wait = (down.next_try - now).max(100_000) as u64;
            down.asked_for_until = now + wait as i64 + ASKED_FOR;
            let failure = Failure::new(format!("target {} cannot be reached: {}", target.name, down.error));
            return Ok(Offer::Later(failure, Duration::from_micros(wait)));
        }
        let is_here = target.kind == "local";
        let job = Box::new(flat(guarded(|| job(&self.engine_id, target, &outgoing)))?.0);
        if is_here {
            return Ok(Offer::Store(job));
        }
        let shown = shared().workers().iter().find(|w| w.task_id.load(Acquire) == task_id);
        Ok(Offer::Fetch(job, shown.map_or_else(nobody, |w| progress_in(w, task_id))))
    }

    pub fn answer(&self, task_id: i64, attempt: i32, offer: Offer) {
        if let Some(executor) = &self.executor {
            executor.answer(task_id, attempt, offer);
        }
    }

    /// Small work that is begun when the cycle's transaction is committed.
    pub fn later(&mut self, errand: Errand) {
        self.errands.push(errand);
    }

    /// Settings were read anew: if targets have changed, those that were down are tried again at once. Returns whether this
    /// is another engine to servers elsewhere than it was.
    pub fn configured(&mut self) -> bool {
        let targets = store::targets_digest();
        if self.targets != targets {
            // Also what a dispatcher before this one has noted.
            self.down.clear();
            store::target_up(None);
            self.targets = targets;
        }
        let engine_id = store::engine_id();
        std::mem::replace(&mut self.engine_id, engine_id.clone()) != engine_id
    }

    /// Workers cannot be listened to: tried again when one asks.
    pub fn deaf(&mut self) {
        self.listening = false;
    }

    pub fn end(&mut self) {
        if let Some(mut executor) = self.executor.take() {
            executor.end(PATIENCE);
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.end();
    }
}

fn number(options: &Map<String, Value>, key: &str) -> Option<i64> {
    options.get(key).and_then(Value::as_i64)
}

fn flat<T>(guarded: Result<Result<T, String>, String>) -> Result<T, String> {
    guarded.and_then(|value| value)
}

/// How many attempts may be lost or not taken: what the request says, else the target.
fn max_attempts(job: &Job) -> i32 {
    let of_request = job.work.options.get("request").and_then(Value::as_object).and_then(|r| number(r, "max_attempts"));
    of_request.or_else(|| number(&job.target.options, "max_attempts")).unwrap_or(5).clamp(1, 1000) as i32
}

fn nobody() -> OnProgress {
    Arc::new(|_| {})
}

/// Shows progress in shared memory, as long as the place is this task's.
fn progress_to(shown: usize, task_id: i64) -> OnProgress {
    let place: &'static Shown = &shared().remotes()[shown];
    Arc::new(move |progress: Progress| {
        attached(|| {
            if place.task_id.load(Acquire) == task_id {
                place.rows.store(progress.rows, Release);
                place.bytes.store(progress.bytes, Release);
                place.total_rows.store(progress.total_rows, Release);
            }
        });
    })
}

/// The same for a task that a worker of ours has in its hands.
fn progress_in(worker: &'static Worker, task_id: i64) -> OnProgress {
    Arc::new(move |progress: Progress| {
        attached(|| {
            if worker.task_id.load(Acquire) == task_id {
                worker.done.store((progress.rows as f64).to_bits(), Release);
                let total = if progress.total_rows > 0 { progress.total_rows as f64 } else { f64::NAN };
                worker.total.store(total.to_bits(), Release);
            }
        });
    })
}
