//! The interface of a kind of target. A new kind is one file that implements `Kind`, and one line in `kinds`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::job::{Ending, Failure, Job, Target};

/// Something wrong with a configuration: where (relative to what was checked, such as `.settings.max_threads`) and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub path: String,
    pub message: String,
}

impl Fault {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Fault { path: path.into(), message: message.into() }
    }
}

/// How far a job is; what is not known stays zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub rows: u64,
    pub bytes: u64,
    pub total_rows: u64,
}

/// What a job needs beside itself while it runs.
#[derive(Clone)]
pub struct Context {
    /// Cancelled when the job is to stop: it was cancelled, its time is up, or the engine stops. A kind then stops the
    /// work on the other side as well as it can (a cancel request, KILL QUERY), with time limits of its own, and returns
    /// `Ending::Stopped`. If it has not within `STOP_GRACE`, it is dropped where it stands.
    pub stop: CancellationToken,
    /// Told whenever something is known, at most a few times a second.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

/// How long a kind may take to stop the other side.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// A kind of target: how tasks run there. One instance serves every target of the kind, and keeps what may be used again
/// (connections, clients) by `Target::fingerprint`, within bounds.
#[async_trait]
pub trait Kind: Send + Sync {
    /// The word in configurations: `"kind": "clickhouse"`.
    fn name(&self) -> &'static str;

    /// What is wrong with a target as configured: its connection and its options. Pure: connects nowhere.
    fn check_target(&self, target: &Target) -> Vec<Fault>;

    /// What is wrong with what a node or task says beside the query: unknown keys, wrong types. Pure.
    fn check_options(&self, options: &Map<String, Value>) -> Vec<Fault>;

    /// Whether a task needs a query, a routine to call, either, or neither (it is all in the options).
    fn needs(&self) -> Needs;

    /// Runs one attempt to its end. If `job.unsure`, looks up first what became of the attempts before
    /// (`job.attempt_key` of `job.unsure_attempts()`), where the kind can: then `Finished`, or goes on with this one.
    /// Never panics, never waits without a limit of its own, never returns a secret in a message.
    async fn run(&self, job: &Job, context: &Context) -> Ending;

    /// Whether a target that was down is there again. Cheap; with a time limit of its own.
    async fn probe(&self, target: &Target) -> Result<(), Failure>;

    /// Closes what has idled for long. Called every few seconds while jobs run or anything is kept open; returns whether
    /// anything still is.
    async fn tidy(&self) -> bool {
        false
    }
}

/// What a task of a kind must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Query,
    QueryOrRoutine,
    Options,
}
