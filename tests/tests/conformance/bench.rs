//! A subject, the executor and a proxy between the two: hands jobs over and takes what comes of them, as the dispatcher does.
//! Every report is searched for secrets.

use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use pgflow_executor::job::{Ending, Failure, Job, Secret, Target, Work};
use pgflow_executor::kinds;
use pgflow_executor::runner::{Errand, Executor, Report};
use pgflow_tests::place::random_secret;
use pgflow_tests::servers::proxy::Proxy;

use crate::subject::Subject;

/// How long anything may take before it counts as never.
const PATIENCE: Duration = Duration::from_secs(120);
/// The places of the executor.
const PLACES: usize = 600;

/// Memory is the whole process's: whoever measures it must be alone.
pub static MEMORY: RwLock<()> = RwLock::new(());

pub struct Bench<S: Subject> {
    pub subject: S,
    pub proxy: Proxy,
    /// A secret that jobs carry as `token`.
    pub token: String,
    executor: Executor,
    woken: Receiver<()>,
    ended: HashMap<(i64, i32), Ended>,
    probed: Vec<Result<(), Failure>>,
    engine: String,
    tasks: i64,
    pub shared: Option<RwLockReadGuard<'static, ()>>,
}

#[derive(Clone, Debug)]
pub struct Ended {
    pub ending: Ending,
    pub timed_out: bool,
}

impl<S: Subject> Bench<S> {
    pub fn start() -> Bench<S> {
        let shared = MEMORY.read().unwrap_or_else(PoisonError::into_inner);
        // Hundreds of connections, some with both ends in this process.
        let limit = Command::new("prlimit").args(["--nofile=8192:", "--pid", &std::process::id().to_string()]).status();
        assert!(limit.is_ok_and(|status| status.success()), "this process may not open 8192 files");
        let subject = S::start();
        let proxy = Proxy::to(subject.port()).unwrap();
        let (wake, woken) = channel();
        let executor = Executor::start(kinds::all(), PLACES, move || {
            let _ = wake.send(());
        });
        Bench {
            subject,
            proxy,
            token: random_secret().unwrap(),
            executor: executor.unwrap(),
            woken,
            ended: HashMap::new(),
            probed: Vec::new(),
            engine: format!("test-{}", random_secret().unwrap()),
            tasks: 0,
            shared: Some(shared),
        }
    }

    /// A target with its kind and a fingerprint of its own.
    pub fn settled(mut target: Target) -> Arc<Target> {
        static FINGERPRINTS: AtomicU64 = AtomicU64::new(1);
        target.kind = S::KIND.into();
        target.name = "elsewhere".into();
        target.fingerprint = FINGERPRINTS.fetch_add(1, Relaxed);
        Arc::new(target)
    }

    /// The subject, by way of the proxy.
    pub fn target(&self) -> Arc<Target> {
        Self::settled(self.subject.target(self.proxy.port()))
    }

    /// The subject itself.
    pub fn direct(&self) -> Arc<Target> {
        Self::settled(self.subject.target(self.subject.port()))
    }

    /// The first attempt of a new task.
    pub fn job(&mut self, target: &Arc<Target>, mut work: Work) -> Job {
        self.tasks += 1;
        work.secrets.insert("token".into(), Secret::new(self.token.clone()));
        let (task_id, engine) = (self.tasks, self.engine.clone());
        Job { task_id, attempt: 1, engine, role: "ann".into(), target: target.clone(), work, ..Job::default() }
    }

    pub fn begin(&mut self, job: &Job) {
        self.executor.run(job.clone(), Arc::new(|_| {})).expect("the executor has no place");
    }

    pub fn stop(&mut self, job: &Job) {
        let until = Instant::now() + PATIENCE;
        while !self.executor.stop(job.task_id, job.attempt) {
            assert!(Instant::now() < until, "the executor takes no command");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end of an attempt; told once.
    pub fn end(&mut self, job: &Job) -> Ended {
        let until = Instant::now() + PATIENCE;
        loop {
            self.take_reports();
            if let Some(ended) = self.ended.remove(&(job.task_id, job.attempt)) {
                return ended;
            }
            assert!(Instant::now() < until, "attempt {} of task {} never ended", job.attempt, job.task_id);
            let _ = self.woken.recv_timeout(Duration::from_millis(200));
        }
    }

    pub fn run(&mut self, job: &Job) -> Ended {
        self.begin(job);
        self.end(job)
    }

    pub fn probe(&mut self, target: &Arc<Target>) -> Result<(), Failure> {
        assert!(self.executor.errand(Errand::Probe(target.clone())));
        let until = Instant::now() + PATIENCE;
        while self.probed.is_empty() {
            self.take_reports();
            assert!(Instant::now() < until, "the probe never ended");
            let _ = self.woken.recv_timeout(Duration::from_millis(200));
        }
        self.probed.remove(0)
    }

    fn take_reports(&mut self) {
        while let Some(report) = self.executor.take() {
            self.no_secret_in(&format!("{report:?}"));
            match report {
                Report::Ended { task_id, attempt, ending, timed_out, .. } => {
                    let told = self.ended.insert((task_id, attempt), Ended { ending, timed_out });
                    assert!(told.is_none(), "attempt {attempt} of task {task_id} ended twice");
                }
                Report::Probed { outcome, .. } => self.probed.push(outcome),
                other => panic!("nobody asked for {other:?}"),
            }
        }
        assert!(!self.executor.is_gone(), "the executor's thread has ended");
    }

    fn no_secret_in(&self, text: &str) {
        for secret in self.subject.secrets().iter().chain([&self.token]) {
            // Not printed whole: it would hide where it is.
            assert!(!text.contains(secret.as_str()), "a secret is told: {}", text.replace(secret.as_str(), "<SECRET>"));
        }
    }

    /// The attempt after one whose fate nobody knows.
    pub fn after_unknown(job: &Job) -> Job {
        let since = if job.unsure { job.unsure_since } else { None };
        Job { attempt: job.attempt + 1, unsure: true, unsure_since: since.or(Some(job.attempt)), ..job.clone() }
    }

    /// What the dispatcher hands out when an attempt has ended like this; None: nothing more.
    pub fn next(job: &Job, ended: &Ended) -> Option<Job> {
        match ended.ending {
            // Nothing was done: the same attempt waits until the target is there again.
            Ending::Again { down: true, .. } => Some(job.clone()),
            // Nothing was done either; what was unknown before is so still.
            Ending::Again { down: false, .. } => Some(Job { attempt: job.attempt + 1, ..job.clone() }),
            Ending::Lost(_) => Some(Self::after_unknown(job)),
            _ => None,
        }
    }

    /// Runs a task from this attempt on until it has finished.
    pub fn finish(&mut self, job: Job) {
        let first = job.attempt;
        let mut next = job;
        let mut last = None;
        for _ in 0..50 {
            let ended = self.run(&next);
            match Self::next(&next, &ended) {
                Some(job) => next = job,
                None => {
                    assert!(matches!(ended.ending, Ending::Finished(_)), "{ended:?}");
                    return;
                }
            }
            assert!(next.attempt < first + 10, "not done after ten attempts: {ended:?}");
            last = Some(ended);
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("not done after fifty tries: {last:?}");
    }

    /// Waits until so much gated work is in hand.
    pub fn wait_for_running(&mut self, count: usize) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.take_reports();
            let running = self.subject.running();
            if running == count {
                return;
            }
            let early: Vec<&Ended> = self.ended.values().take(3).collect();
            assert!(Instant::now() < until, "{running} instead of {count} run; ended have {early:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until an effect is there.
    pub fn wait_for_effect(&mut self, key: &str) {
        let until = Instant::now() + PATIENCE;
        while self.subject.effects(key).is_empty() {
            assert!(Instant::now() < until, "there is no effect {key}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn effects(&self, key: &str) -> usize {
        self.subject.effects(key).len()
    }
}

impl<S: Subject> Drop for Bench<S> {
    fn drop(&mut self) {
        self.subject.open_gate();
        self.executor.end(Duration::from_secs(10));
    }
}
