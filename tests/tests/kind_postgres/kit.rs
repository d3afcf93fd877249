//! What these tests share: servers, an executor, and short ways to make jobs and to run them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Result};
use pgflow_executor::job::{Arguments, Done, Ending, Failure, Job, Secret, Target, Work};
use pgflow_executor::kind::Progress;
use pgflow_executor::results::Keep;
use pgflow_executor::runner::{Executor, Report};
use pgflow_tests::cluster::{Cluster, Options};
use pgflow_tests::session::Session;
use serde_json::{json, Map, Value};

/// "Soon", on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(60);

/// A server that most tests share. It trusts whoever comes from this machine, but for users whose names begin with `pw_`.
pub fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = start(Cluster::options());
        let mut session = cluster.connect("postgres", "postgres").unwrap();
        session.run("CREATE ROLE pw_ann LOGIN PASSWORD 'hunter22'; CREATE ROLE bob LOGIN").unwrap();
        admit(&cluster, "host all pw_ann all scram-sha-256");
        cluster
    })
}

/// Starts a server, one at a time: a port is taken only when it listens.
pub fn start(options: Options) -> Cluster {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock();
    options.not_preloaded().start().unwrap_or_else(|error| panic!("cannot start a cluster: {error:#}"))
}

/// Puts a line before the others of pg_hba.conf.
pub fn admit(cluster: &Cluster, line: &str) {
    let path = cluster.data().join("pg_hba.conf");
    let old = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{line}\n{old}")).unwrap();
    cluster.reload().unwrap();
    std::thread::sleep(Duration::from_millis(300));
}

/// A database of the test's own on the shared server.
pub fn database(name: &str) -> Result<(String, Session)> {
    shared().plain_database(name)?;
    Ok((string(shared(), name), shared().connect(name, "postgres")?))
}

pub fn string(cluster: &Cluster, database: &str) -> String {
    format!("host=127.0.0.1 port={} dbname={database} user=postgres", cluster.port())
}

/// The type of callbacks' arguments, as pgflow_client.sql makes it.
pub const TYPE: &str = "
    CREATE SCHEMA IF NOT EXISTS flow;
    CREATE TYPE flow.callback_arguments_t AS (
      flow_id BIGINT, flow TEXT, flow_arguments JSONB, node TEXT, step_arguments JSONB, task_id BIGINT)";

/// The inbox, as pgflow_client.sql makes it.
pub const INBOX: &str = "
    CREATE SCHEMA IF NOT EXISTS async;
    CREATE TABLE async.inbox (
      engine TEXT, task_id BIGINT, attempt INT, done TIMESTAMPTZ DEFAULT clock_timestamp(),
      PRIMARY KEY (engine, task_id, attempt));
    CREATE FUNCTION async.enter_inbox(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS VOID
      LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
      AS 'INSERT INTO async.inbox (engine, task_id, attempt) VALUES (_engine, _task_id, _attempt)';
    CREATE FUNCTION async.in_inbox(_engine TEXT, _task_id BIGINT, _attempt INT) RETURNS BOOL
      LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
      AS 'SELECT EXISTS (SELECT FROM async.inbox AS i
                          WHERE (i.engine, i.task_id, i.attempt) = (_engine, _task_id, _attempt))'";

pub fn target(string: &str, options: Value) -> Target {
    let mut target = Target {
        name: "there".into(),
        kind: "postgres".into(),
        connection_string: Some(Secret::new(string)),
        options: options.as_object().cloned().unwrap_or_default(),
        ..Target::default()
    };
    target.fingerprint = fingerprint(&target);
    target
}

pub fn fingerprint(target: &Target) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    target.connection_string.as_ref().map(Secret::expose).hash(&mut hasher);
    target.connection_options.iter().for_each(|(k, v)| (k, v.expose()).hash(&mut hasher));
    (target.password_required, Value::Object(target.options.clone()).to_string()).hash(&mut hasher);
    hasher.finish()
}

/// The first attempt of a new task.
pub fn job(string: &str, work: Work) -> Job {
    job_at(target(string, json!({})), work)
}

pub fn job_at(target: Target, work: Work) -> Job {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    Job {
        task_id: NEXT.fetch_add(1, Ordering::Relaxed),
        attempt: 1,
        engine: "7438-16384".into(),
        role: "postgres".into(),
        target: Arc::new(target),
        work,
        ..Job::default()
    }
}

pub fn query(text: &str) -> Work {
    Work { query: Some(text.into()), ..Work::default() }
}

pub fn call(routine: &str, step: Value) -> Work {
    let arguments = Arguments {
        flow_id: Some(7),
        flow: Some("nightly's".into()),
        flow_arguments: json!({"day": "2026-11-20"}),
        node: Some("load".into()),
        step_arguments: step,
    };
    Work { routine: Some(routine.into()), arguments, ..Work::default() }
}

pub fn inline() -> Keep {
    Keep::Inline { max_rows: 10_000, max_bytes: 100_000_000 }
}

/// An executor of a test's own.
pub struct Bench {
    executor: Executor,
    pub progress: Arc<Mutex<Progress>>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with_places(64)
    }

    pub fn with_places(places: usize) -> Bench {
        let executor = Executor::start(pgflow_executor::kinds::all(), places, || {}).unwrap();
        Bench { executor, progress: Arc::default() }
    }

    pub fn begin(&self, job: &Job) {
        let progress = self.progress.clone();
        let told = move |now| *progress.lock().unwrap() = now;
        assert!(self.executor.run(job.clone(), Arc::new(told)).is_ok());
    }

    pub fn stop(&self, job: &Job) {
        assert!(self.executor.stop(job.task_id, job.attempt));
    }

    /// The next ending of any job: its task, how, and whether its time was up.
    pub fn ending(&mut self) -> (i64, Ending, bool) {
        let until = Instant::now() + 2 * SOON;
        loop {
            match self.executor.take() {
                Some(Report::Ended { task_id, ending, timed_out, .. }) => return (task_id, ending, timed_out),
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(2)),
            }
            assert!(Instant::now() < until, "no report");
        }
    }

    pub fn run(&mut self, job: &Job) -> Ending {
        self.begin(job);
        self.ending().1
    }

    pub fn done(&mut self, job: &Job) -> Result<Done> {
        match self.run(job) {
            Ending::Finished(done) => Ok(done),
            other => bail!("{other:?}"),
        }
    }

    pub fn failure(&mut self, job: &Job) -> Result<Failure> {
        match self.run(job) {
            Ending::Failed(failure) => Ok(failure),
            other => bail!("{other:?}"),
        }
    }

    /// Runs a job for its rows.
    pub fn rows(&mut self, job: Job) -> Result<Vec<Map<String, Value>>> {
        let done = self.done(&Job { keep: inline(), ..job })?;
        done.kept.and_then(|kept| kept.content).ok_or_else(|| anyhow!("nothing was kept"))
    }

    pub fn probe(&mut self, target: &Target) -> Result<(), Failure> {
        let errand = pgflow_executor::runner::Errand::Probe(Arc::new(target.clone()));
        assert!(self.executor.errand(errand));
        let until = Instant::now() + SOON;
        loop {
            if let Some(Report::Probed { outcome, .. }) = self.executor.take() {
                return outcome;
            }
            assert!(Instant::now() < until, "no report");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Waits until a query's first value is this.
pub fn wait_for(session: &mut Session, sql: &str, wanted: &str) -> Result<()> {
    let until = Instant::now() + SOON;
    loop {
        let found = session.text(sql)?;
        if found == wanted {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{sql} is {found}, not {wanted}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
