//! The executor: one thread that runs every job, with bounded channels to and from whoever hands them in.
//!
//! Must never be handed more than it has places for: `run` refuses then, and the caller keeps the job. What is reported is
//! masked: no secret of a job leaves here in a message.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bridge::{Bridge, Offer};
use crate::job::{Done, Ending, Failure, Job, Target};
use crate::kind::{Context, Kind, Progress, STOP_GRACE};
use crate::results::{self, Kept, Store};
use crate::storable;

/// How often kinds may close what idles.
const TIDY: Duration = Duration::from_secs(5);

/// How long what runs may take to stop when the executor ends: shorter, because somebody waits for a server to stop or a
/// database to be dropped.
const LAST_GRACE: Duration = Duration::from_secs(2);

/// How long it may take to find out whether a target is there again.
const PROBE: Duration = Duration::from_secs(30);

/// What is told while a job runs.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

enum Command {
    Run(Box<Job>, OnProgress),
    Stop { task_id: i64, attempt: i32 },
    Errand(Errand),
    Listen(PathBuf),
    Answer { task_id: i64, attempt: i32, offer: Offer },
    End,
}

/// Small work beside jobs.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Whether a target that was down is there again.
    Probe(Arc<Target>),
    /// Deletes objects of a store: (id, path). One that is not there any more counts as deleted.
    Delete { store: Arc<Store>, objects: Vec<(i64, String)> },
}

/// What the executor has to say.
#[derive(Debug)]
pub enum Report {
    Ended {
        task_id: i64,
        attempt: i32,
        ending: Ending,
        /// With `Ending::Stopped`: because the time was up.
        timed_out: bool,
        took: Duration,
    },
    Probed {
        target: Arc<Target>,
        outcome: Result<(), Failure>,
    },
    /// A local worker asks for the executor on behalf of its task: see `bridge`. `answer` it.
    Wanted {
        task_id: i64,
        attempt: i32,
        pid: i32,
    },
    /// Local workers cannot be listened to.
    Deaf(String),
    /// Deleted ids, and those that could not be, with the reason.
    Deleted {
        ids: Vec<i64>,
        kept: Vec<(i64, String)>,
    },
}

/// The handle of the executor's thread.
pub struct Executor {
    commands: mpsc::Sender<Command>,
    reports: mpsc::Receiver<Report>,
    thread: Option<JoinHandle<()>>,
}

impl Executor {
    /// Starts the thread. At most `places` jobs are in flight; `wake` is called, on the executor's threads, when there is
    /// something to `take`. The caller has blocked every signal that these threads must not handle.
    pub fn start(
        kinds: Vec<Box<dyn Kind>>,
        places: usize,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<Executor> {
        // Room for a job and a stop of each place, and for errands.
        let (commands, inbox) = mpsc::channel(places * 2 + 64);
        let (outbox, reports) = mpsc::channel(places + 64);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
        let thread = std::thread::Builder::new().name("pgflow executor".into()).spawn(move || {
            let kinds = kinds.into_iter().map(|kind| (kind.name(), Arc::from(kind))).collect();
            let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(wake);
            runtime.block_on(serve(inbox, Outbox { reports: outbox, wake }, kinds));
            runtime.shutdown_timeout(Duration::from_millis(200));
        })?;
        Ok(Executor { commands, reports, thread: Some(thread) })
    }

    /// Hands a job over. Gives it back when there is no room or the thread is gone.
    pub fn run(&self, job: Job, progress: OnProgress) -> Result<(), Box<Job>> {
        self.commands.try_send(Command::Run(Box::new(job), progress)).map_err(|error| match error.into_inner() {
            Command::Run(job, _) => job,
            _ => unreachable!("what was sent comes back"),
        })
    }

    /// Has a job stopped; it is reported as any other. False: there is no room now, ask again.
    pub fn stop(&self, task_id: i64, attempt: i32) -> bool {
        self.commands.try_send(Command::Stop { task_id, attempt }).is_ok()
    }

    /// False: there is no room now, ask again.
    pub fn errand(&self, errand: Errand) -> bool {
        self.commands.try_send(Command::Errand(errand)).is_ok()
    }

    /// Listens to local workers at a path. False: there is no room now, ask again.
    pub fn listen(&self, path: PathBuf) -> bool {
        self.commands.try_send(Command::Listen(path)).is_ok()
    }

    /// Answers `Report::Wanted`. False: there is no room now; the worker will find that nobody answered.
    pub fn answer(&self, task_id: i64, attempt: i32, offer: Offer) -> bool {
        self.commands.try_send(Command::Answer { task_id, attempt, offer }).is_ok()
    }

    /// What has been reported and not been taken; never waits.
    pub fn take(&mut self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// Whether something can be taken.
    pub fn has_report(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Whether the thread has ended by itself, which it must not.
    pub fn is_gone(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops every job and ends the thread; waits at most `patience`.
    pub fn end(&mut self, patience: Duration) {
        let _ = self.commands.try_send(Command::End);
        let until = Instant::now() + patience;
        while let Some(thread) = self.thread.take() {
            if thread.is_finished() {
                let _ = thread.join();
            } else if Instant::now() < until {
                // Reports are taken, so that none is waited for.
                while self.take().is_some() {}
                self.thread = Some(thread);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[derive(Clone)]
pub(crate) struct Outbox {
    reports: mpsc::Sender<Report>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Outbox {
    /// Nobody reads it.
    #[cfg(test)]
    pub fn nowhere() -> Outbox {
        Outbox { reports: mpsc::channel(1).0, wake: Arc::new(|| {}) }
    }

    pub async fn put(&self, report: Report) {
        if self.reports.send(report).await.is_ok() {
            (self.wake)();
        }
    }
}

pub(crate) type Kinds = HashMap<&'static str, Arc<dyn Kind>>;

async fn serve(mut inbox: mpsc::Receiver<Command>, outbox: Outbox, kinds: Kinds) {
    let mut running: HashMap<(i64, i32), CancellationToken> = HashMap::new();
    let (ended, mut ends) = mpsc::unbounded_channel::<(i64, i32)>(); // bounded by the jobs in flight
    let end = CancellationToken::new();
    let bridge = Bridge::new(kinds.clone(), outbox.clone(), end.clone());
    let mut kept_open = false;
    let mut tidy = tokio::time::interval(TIDY);
    tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Run(job, progress)) => {
                    let stop = CancellationToken::new();
                    running.insert((job.task_id, job.attempt), stop.clone());
                    let context = Context { stop, progress };
                    tokio::spawn(attempt(kinds.get(job.target.kind.as_str()).cloned(), job, context, outbox.clone(), ended.clone()));
                }
                Some(Command::Stop { task_id, attempt }) => {
                    if let Some(stop) = running.get(&(task_id, attempt)) {
                        stop.cancel();
                    }
                }
                Some(Command::Errand(errand)) => {
                    tokio::spawn(run_errand(errand, kinds.clone(), outbox.clone()));
                }
                Some(Command::Listen(path)) => {
                    if let Err(error) = bridge.listen(path) {
                        outbox.put(Report::Deaf(error.to_string())).await;
                    }
                }
                Some(Command::Answer { task_id, attempt, offer }) => bridge.answer(task_id, attempt, offer),
                Some(Command::End) | None => break,
            },
            Some(end) = ends.recv() => {
                running.remove(&end);
                kept_open = true;
            }
            // An idle executor with nothing open sleeps.
            _ = tidy.tick(), if kept_open || !running.is_empty() => {
                kept_open = false;
                for kind in kinds.values() {
                    kept_open |= kind.tidy().await;
                }
            }
        }
    }
    end.cancel();
    for stop in running.values() {
        stop.cancel();
    }
    let all = async {
        while !running.is_empty() {
            match ends.recv().await {
                Some(end) => running.remove(&end),
                None => break,
            };
        }
    };
    let _ = tokio::time::timeout(LAST_GRACE, all).await;
}

/// One attempt from its start to its report.
async fn attempt(
    kind: Option<Arc<dyn Kind>>,
    job: Box<Job>,
    context: Context,
    outbox: Outbox,
    ended: mpsc::UnboundedSender<(i64, i32)>,
) {
    let from = Instant::now();
    let (ending, timed_out) = match kind {
        Some(kind) => drive(kind.as_ref(), &job, &context).await,
        None => (Ending::Failed(Failure::new(format!("there is no kind of target {}", job.target.kind))), false),
    };
    let ending = masked(&job, ending);
    let (task_id, attempt) = (job.task_id, job.attempt);
    // Connections that a dropped future held are closed before anybody hears of the end.
    drop(job);
    outbox.put(Report::Ended { task_id, attempt, ending, timed_out, took: from.elapsed() }).await;
    let _ = ended.send((task_id, attempt));
}

/// Runs a job within its time and stops it when asked to. The second value: whether its time was up.
pub(crate) async fn drive(kind: &dyn Kind, job: &Job, context: &Context) -> (Ending, bool) {
    let run = AssertUnwindSafe(kind.run(job, context))
        .catch_unwind()
        .map(|ending| ending.unwrap_or_else(|panic| Ending::Failed(internal(panic.as_ref()))));
    tokio::pin!(run);
    let limit = job.time_limit;
    let time_is_up = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let timed_out = tokio::select! {
        ending = &mut run => return (ending, false),
        _ = time_is_up => true,
        _ = context.stop.cancelled() => false,
    };
    context.stop.cancel();
    let ending = tokio::time::timeout(STOP_GRACE, run).await.unwrap_or(Ending::Stopped);
    (ending, timed_out)
}

fn internal(panic: &(dyn std::any::Any + Send)) -> Failure {
    let what = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Failure::new(format!("internal error of pgflow's executor: {what}"))
}

/// Without secrets of the job, and without what Postgres cannot store.
pub(crate) fn masked(job: &Job, ending: Ending) -> Ending {
    let clean = |failure| masked_failure(job, failure);
    match ending {
        Ending::Finished(mut done) => {
            for notice in &mut done.notices {
                notice.message = job.masked(&notice.message);
            }
            storable::done(&mut done);
            match done.kept.map(Kept::holdable).transpose() {
                Ok(kept) => Ending::Finished(Done { kept, ..done }),
                Err(failure) => Ending::Failed(clean(failure)),
            }
        }
        Ending::Failed(failure) => Ending::Failed(clean(failure)),
        Ending::Again { failure, after, down } => Ending::Again { failure: clean(failure), after, down },
        Ending::Lost(failure) => Ending::Lost(clean(failure)),
        Ending::Stopped => Ending::Stopped,
    }
}

fn masked_failure(job: &Job, failure: Failure) -> Failure {
    let mut masked = Failure {
        code: failure.code,
        message: job.masked(&failure.message),
        detail: failure.detail.map(|d| job.masked(&d)),
        hint: failure.hint.map(|h| job.masked(&h)),
    };
    storable::failure(&mut masked);
    masked
}

/// Whether a target is there again; whatever its kind does, there is an answer within the time.
async fn probe(kind: &dyn Kind, target: &Target, limit: Duration) -> Result<(), Failure> {
    let probe = AssertUnwindSafe(kind.probe(target)).catch_unwind();
    match tokio::time::timeout(limit, probe).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(internal(panic.as_ref())),
        Err(_) => Err(Failure::new(format!("there was no answer within {} s", limit.as_secs_f32()))),
    }
}

async fn run_errand(errand: Errand, kinds: Kinds, outbox: Outbox) {
    match errand {
        Errand::Probe(target) => {
            let outcome = match kinds.get(target.kind.as_str()) {
                Some(kind) => probe(kind.as_ref(), &target, PROBE).await,
                None => Ok(()),
            };
            let job = Job { target: target.clone(), ..Job::default() };
            let outcome = outcome.map_err(|failure| masked_failure(&job, failure));
            outbox.put(Report::Probed { target, outcome }).await;
        }
        Errand::Delete { store, objects } => {
            let (ids, kept) = results::delete(&store, objects).await;
            outbox.put(Report::Deleted { ids, kept }).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use async_trait::async_trait;
    use serde_json::{Map, Value};

    use super::*;
    use crate::job::Secret;
    use crate::kind::{Fault, Needs};

    /// Does what the query says.
    struct Puppet;

    #[async_trait]
    impl Kind for Puppet {
        fn name(&self) -> &'static str {
            "puppet"
        }
        fn check_target(&self, _: &Target) -> Vec<Fault> {
            Vec::new()
        }
        fn check_options(&self, _: &Map<String, Value>) -> Vec<Fault> {
            Vec::new()
        }
        fn needs(&self) -> Needs {
            Needs::Query
        }
        async fn run(&self, job: &Job, context: &Context) -> Ending {
            match job.work.query.as_deref().unwrap_or_default() {
                "panic" => panic!("with hunter22"),
                "obey" => {
                    context.stop.cancelled().await;
                    Ending::Stopped
                }
                "disobey" => std::future::pending().await,
                "sleep" => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    Ending::Finished(Done::default())
                }
                _ => Ending::Failed(Failure::new("no: hunter22").detail("hunter22 too")),
            }
        }
        async fn probe(&self, target: &Target) -> Result<(), Failure> {
            match target.name.as_str() {
                "panic" => panic!("with hunter22"),
                "silent" => std::future::pending().await,
                _ => Err(Failure::new("hunter22 is refused\0").detail("hunter22 too")),
            }
        }
    }

    fn job(task_id: i64, query: &str, limit: Option<Duration>) -> Job {
        let target = Target {
            kind: "puppet".into(),
            connection_string: Some(Secret::new("host=h password=hunter22")),
            ..Target::default()
        };
        let work = crate::job::Work { query: Some(query.into()), ..Default::default() };
        Job { task_id, attempt: 1, target: Arc::new(target), work, time_limit: limit, ..Job::default() }
    }

    fn executor() -> (Executor, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counted = wakes.clone();
        let executor = Executor::start(vec![Box::new(Puppet)], 600, move || {
            counted.fetch_add(1, SeqCst);
        });
        (executor.unwrap(), wakes)
    }

    fn run(executor: &Executor, job: Job) {
        executor.run(job, Arc::new(|_| {})).unwrap();
    }

    /// Waits for a report.
    fn next(executor: &mut Executor) -> Report {
        for _ in 0..4000 {
            if let Some(report) = executor.take() {
                return report;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("no report");
    }

    #[test]
    fn no_secret_leaves_in_a_failure_a_panic_or_a_probe() {
        let (mut executor, wakes) = executor();
        run(&executor, job(1, "fail", None));
        run(&executor, job(2, "panic", None));
        executor.errand(Errand::Probe(job(3, "", None).target));
        let panics = Target { name: "panic".into(), ..(*job(4, "", None).target).clone() };
        executor.errand(Errand::Probe(Arc::new(panics)));
        for _ in 0..4 {
            let report = format!("{:?}", next(&mut executor));
            assert!(report.contains("***") && !report.contains("hunter22"), "{report}");
            assert!(!report.contains("\\0") && !report.contains("Ok("), "{report}");
        }
        assert!(wakes.load(SeqCst) >= 4);
    }

    #[tokio::test]
    async fn a_probe_is_answered_within_its_time() {
        let silent = Target { name: "silent".into(), ..Target::default() };
        let failure = probe(&Puppet, &silent, Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(failure.message, "there was no answer within 0.01 s");
    }

    #[test]
    fn nothing_is_told_with_nul() {
        let lost = masked(&job(1, "", None), Ending::Lost(Failure::new("a\0b").detail("\0")));
        let Ending::Lost(failure) = lost else { panic!("{lost:?}") };
        assert_eq!(failure, Failure::new("a\u{fffd}b").detail("\u{fffd}"));
        let row = serde_json::json!({"k": "\0"}).as_object().cloned().unwrap();
        let kept = results::Kept { content: Some(vec![row]), ..Default::default() };
        let done = Done { kept: Some(kept), ..Done::default() };
        // A result is the user's: it is not changed, it fails.
        let ended = masked(&job(1, "", None), Ending::Finished(done));
        assert!(matches!(&ended, Ending::Failed(failure) if failure.message.contains("NUL")), "{ended:?}");
    }

    #[test]
    fn a_job_that_obeys_stops_at_once_and_one_that_does_not_is_dropped() {
        let (mut executor, _) = executor();
        run(&executor, job(1, "obey", None));
        assert!(executor.stop(1, 1));
        assert!(matches!(next(&mut executor), Report::Ended { ending: Ending::Stopped, timed_out: false, .. }));
        run(&executor, job(2, "obey", Some(Duration::from_millis(20))));
        assert!(matches!(next(&mut executor), Report::Ended { ending: Ending::Stopped, timed_out: true, .. }));
        run(&executor, job(3, "disobey", Some(Duration::from_millis(20))));
        match next(&mut executor) {
            Report::Ended { ending: Ending::Stopped, timed_out: true, took, .. } => assert!(took >= STOP_GRACE),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hundreds_are_in_flight_at_once() {
        let (mut executor, _) = executor();
        let from = Instant::now();
        for id in 0..500 {
            run(&executor, job(id, "sleep", None));
        }
        for _ in 0..500 {
            assert!(matches!(next(&mut executor), Report::Ended { ending: Ending::Finished(_), .. }));
        }
        assert!(from.elapsed() < Duration::from_secs(75), "one after the other takes 150 s");
        executor.end(Duration::from_secs(10));
    }

    #[test]
    fn an_end_stops_what_runs() {
        let (mut executor, _) = executor();
        run(&executor, job(1, "obey", None));
        executor.end(Duration::from_secs(10));
        assert!(executor.is_gone());
        assert!(executor.run(job(2, "sleep", None), Arc::new(|_| {})).is_err());
    }
}
