//! What the tests share: a server for all that do not break theirs, jobs, and running them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use pgflow_executor::job::{Done, Ending, Failure, Job, Secret, Target, Work};
use pgflow_executor::kind::{Context, Kind, Progress};
use pgflow_executor::results::{Compression, Format, Keep, Kept, Store};
use pgflow_tests::servers::clickhouse::ClickHouse;
use serde_json::{Map, Value};

/// Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn server() -> &'static ClickHouse {
    static SERVER: OnceLock<ClickHouse> = OnceLock::new();
    SERVER.get_or_init(|| ClickHouse::start().unwrap())
}

pub fn kind() -> Arc<dyn Kind> {
    Arc::from(pgflow_executor::kinds::by_name("clickhouse").unwrap())
}

pub fn target(server: &ClickHouse, port: u16) -> Target {
    let string = format!("http://{}:{}@127.0.0.1:{port}/default", server.user(), server.password());
    Target {
        name: "ch".into(),
        kind: "clickhouse".into(),
        connection_string: Some(Secret::new(string)),
        fingerprint: u64::from(port),
        ..Target::default()
    }
}

pub fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// A first attempt on the shared server.
pub fn job(query: &str) -> Job {
    job_on(target(server(), server().http_port()), query)
}

pub fn job_on(target: Target, query: &str) -> Job {
    static TASK: AtomicI64 = AtomicI64::new(1);
    Job {
        task_id: TASK.fetch_add(1, Relaxed),
        attempt: 1,
        engine: format!("t{}", std::process::id()),
        role: "ann".into(),
        target: Arc::new(target),
        work: Work { query: Some(query.into()), ..Work::default() },
        ..Job::default()
    }
}

pub fn inline() -> Keep {
    Keep::Inline { max_rows: 1000, max_bytes: 1 << 20 }
}

/// A run that can be watched and stopped.
pub struct Running {
    pub context: Context,
    pub progress: Arc<Mutex<Vec<Progress>>>,
    pub ending: tokio::task::JoinHandle<Ending>,
}

pub fn start(kind: &Arc<dyn Kind>, job: &Job) -> Running {
    let progress = Arc::new(Mutex::new(Vec::new()));
    let seen = progress.clone();
    let context = Context { stop: Default::default(), progress: Arc::new(move |at| seen.lock().unwrap().push(at)) };
    let (kind, job, its) = (kind.clone(), job.clone(), context.clone());
    let ending = tokio::spawn(async move { kind.run(&job, &its).await });
    Running { context, progress, ending }
}

pub async fn end(running: Running) -> Ending {
    tokio::time::timeout(PATIENCE, running.ending).await.expect("it ends").unwrap()
}

pub async fn run(job: &Job) -> Ending {
    end(start(&kind(), job)).await
}

pub fn done(ending: Ending) -> Done {
    match ending {
        Ending::Finished(done) => done,
        other => panic!("{other:?}"),
    }
}

pub fn kept(ending: Ending) -> Kept {
    done(ending).kept.expect("something is kept")
}

pub fn failed(ending: Ending) -> Failure {
    match ending {
        Ending::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

/// Runs a query whose rows come inline.
pub async fn rows(query: &str) -> Kept {
    kept(run(&Job { keep: inline(), ..job(query) }).await)
}

/// Asks a server beside everything; the shared one's tests run at once.
pub async fn ask(server: &'static ClickHouse, query: String) -> String {
    tokio::task::spawn_blocking(move || server.query(&query).unwrap()).await.unwrap()
}

/// Waits for something.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let all = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{what}"));
}

/// How many queries of a job the server runs now.
pub async fn running(server: &'static ClickHouse, job: &Job) -> usize {
    let id = job.attempt_key(job.attempt);
    let query = format!("SELECT count() FROM system.processes WHERE query_id = '{id}'");
    ask(server, query).await.parse().unwrap()
}

/// A directory as a store; deleted with it.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("pgflow-clickhouse-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub fn keep(&self, path: &str, format: Format, compression: Compression) -> Keep {
        let url = format!("file://{}", self.0.display());
        let store = Store { name: "dir".into(), url, options: BTreeMap::new() };
        Keep::Object { store: Arc::new(store), path: path.into(), format, compression }
    }

    /// Everything in it, parts and left-overs too.
    pub fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
