//! What the tests of this binary share: a server that orchestrates, one that is orchestrated, ClickHouse, S3, an HTTP
//! server, and short ways to run things on them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use pgflow_tests::cluster::{Cluster, Options, SUPERUSER};
use pgflow_tests::database::{Database, Kind};
use pgflow_tests::failure::with_report;
use pgflow_tests::servers::clickhouse::ClickHouse;
use pgflow_tests::servers::s3::S3;
use pgflow_tests::session::Session;

use crate::web::Web;

/// "Soon", on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(90);
/// The client for servers where the extension cannot be installed.
const CLIENT: &str = include_str!("../../../sql/pgflow_client.sql");

/// Starts a cluster, one at a time: a port is taken only when its server listens.
pub fn start(options: Options) -> Cluster {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock();
    options.start().unwrap_or_else(|error| panic!("cannot start a cluster: {error:#}"))
}

/// The server that orchestrates, if a test needs none of its own.
pub fn home() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let options = Cluster::options()
            .max_connections(200)
            .setting("pgflow.workers_per_role", "8")
            .setting("pgflow.purge_interval", "100ms");
        let cluster = start(options);
        // The first extension creates the roles, which are the whole cluster's.
        cluster.database("first").unwrap_or_else(|error| panic!("cannot create an extension: {error:#}"));
        cluster
    })
}

/// A server without pgflow.
pub fn away() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| start(Cluster::options().not_preloaded().max_connections(300)))
}

pub fn clickhouse() -> &'static ClickHouse {
    static SERVER: OnceLock<ClickHouse> = OnceLock::new();
    SERVER.get_or_init(|| ClickHouse::start().unwrap_or_else(|error| panic!("cannot start ClickHouse: {error:#}")))
}

pub fn s3() -> &'static S3 {
    static SERVER: OnceLock<S3> = OnceLock::new();
    SERVER.get_or_init(|| S3::start().unwrap_or_else(|error| panic!("cannot start S3: {error:#}")))
}

/// A database that orchestrates, and one that is orchestrated.
pub struct Place<'c> {
    pub here: Database<'c>,
    pub there: Database<'c>,
    pub sql: Session,
    pub web: Web,
    /// What is configured, by name.
    targets: BTreeMap<String, String>,
}

/// Runs a test in databases of its own on the shared servers.
pub fn test(name: &str, body: impl FnOnce(&mut Place) -> Result<()>) {
    test_on(home(), away(), name, body);
}

/// Runs a test in databases of its own: targets `there` (PostgreSQL with the client), `web` (HTTP) and `house` (ClickHouse, if
/// the test asks for it).
pub fn test_on<'c>(home: &'c Cluster, away: &'c Cluster, name: &str, body: impl FnOnce(&mut Place<'c>) -> Result<()>) {
    let mut place = Place::new(home, away, name).unwrap_or_else(|error| panic!("cannot set up {name}: {error:#}"));
    let here = place.here.clone();
    with_report(&here, |_| body(&mut place));
}

impl<'c> Place<'c> {
    fn new(home: &'c Cluster, away: &'c Cluster, name: &str) -> Result<Place<'c>> {
        let here = home.database(name)?;
        let there = away.plain_database(name)?;
        make_client(&there, &here)?;
        let mut sql = here.connect()?;
        sql.run(
            "CREATE SCHEMA t; GRANT ALL ON SCHEMA t TO PUBLIC;
             CREATE TABLE t.log (id SERIAL, what TEXT); GRANT ALL ON t.log, t.log_id_seq TO PUBLIC;
             CREATE PROCEDURE t.notes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO t.log (what) VALUES (_args.node || coalesce(_args.step_arguments->>'s', '')); END $$",
        )?;
        let mut place = Place { web: Web::start()?, here, there, sql, targets: BTreeMap::new() };
        let string = place.string();
        place.target("there", &format!(r#""connection_string": "{string}""#), "")?;
        let url = place.web.url();
        place.target(
            "web",
            r#""kind": "http""#,
            &format!(r#""base_url": "{url}", "allow_private": true, "timeout": 600"#),
        )?;
        Ok(place)
    }

    /// Where the orchestrated database is.
    pub fn string(&self) -> String {
        string_by(&self.there, self.there.cluster.port())
    }

    /// Configures a target beside those that there are; keys and options as in JSON.
    pub fn target(&mut self, name: &str, keys: &str, options: &str) -> Result<()> {
        let more = if options.is_empty() { String::new() } else { format!("{options}, ") };
        let target = format!(
            r#"{{"target": "{name}", "max_concurrency": 64, {keys}, "options": {{{more}"retry_delay": 0.2, "retry_delay_max": 0.5}}}}"#
        );
        self.targets.insert(name.to_owned(), target);
        let all: Vec<&str> = self.targets.values().map(String::as_str).collect();
        self.sql.run(&format!(r#"SELECT async.configure($c$ {{"targets": [{}]}} $c$)"#, all.join(", ")))
    }

    /// The shared ClickHouse as target `house`, with a database of the test's own.
    pub fn with_clickhouse(&mut self) -> Result<&'static ClickHouse> {
        let server = clickhouse();
        let name = self.here.name.clone();
        server.query(&format!("CREATE DATABASE {name}"))?;
        let url = format!("http://{}:{}@127.0.0.1:{}", server.user(), server.password(), server.http_port());
        self.target(
            "house",
            &format!(r#""kind": "clickhouse", "connection_string": "{url}""#),
            &format!(r#""database": "{name}", "export_credentials": "shared""#),
        )?;
        Ok(server)
    }

    /// A session on the orchestrated database.
    pub fn there(&self) -> Result<Session> {
        self.there.connect()
    }

    pub fn flow(&mut self, name: &str, nodes: &str) -> Result<()> {
        self.sql.run(&format!("SELECT flow.configure_flow('{name}', $c$ {{\"nodes\": [{nodes}]}} $c$)"))
    }

    pub fn run(&mut self, flow: &str) -> Result<i64> {
        self.run_with(flow, "{}")
    }

    pub fn run_with(&mut self, flow: &str, arguments: &str) -> Result<i64> {
        self.sql.number(&format!("SELECT flow.run_flow('{flow}', $a${arguments}$a$)"))
    }

    /// Waits for the end of a run; its nodes with their status words: "a Finished, b Failed".
    pub fn ended(&mut self, flow_id: i64) -> Result<String> {
        self.here
            .wait_until(&format!("(SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id = {flow_id})"), SOON)?;
        println!("run {flow_id}: {}", self.error_of_run(flow_id)?);
        self.nodes(flow_id)
    }

    pub fn nodes(&mut self, flow_id: i64) -> Result<String> {
        self.sql.text(&format!(
            "SELECT string_agg(node || ' ' || status, ', ' ORDER BY node) FROM flow.v_flow_node_status
             WHERE flow_id = {flow_id}"
        ))
    }

    pub fn error_of_run(&mut self, flow_id: i64) -> Result<String> {
        self.sql.text(&format!("SELECT coalesce(first_error, 'no error') FROM flow.flow WHERE flow_id = {flow_id}"))
    }

    pub fn log(&mut self) -> Result<String> {
        self.sql.text("SELECT coalesce(string_agg(what, ' ' ORDER BY id), '') FROM t.log")
    }

    /// Pushes a query; what follows the query in the call: `, _result => '…'`.
    pub fn push(&mut self, target: &str, query: &str, more: &str) -> Result<i64> {
        self.sql.number(&format!("SELECT async.push_query('{target}', $q${query}$q${more})"))
    }

    pub fn request(&mut self, request: &str, more: &str) -> Result<i64> {
        self.sql.number(&format!("SELECT async.push_request('web', $q${request}$q${more})"))
    }

    pub fn state(&mut self, task_id: i64) -> Result<String> {
        self.sql.text(&format!("SELECT state FROM async.v_task WHERE task_id = {task_id}"))
    }

    pub fn wait_state(&mut self, task_id: i64, state: &str) -> Result<()> {
        let is = format!("(SELECT state = '{state}' FROM async.v_task WHERE task_id = {task_id})");
        self.here.wait_until(&is, SOON).with_context(|| {
            let error = self.error(task_id).unwrap_or_default();
            format!("task {task_id} is not {state}: {error}")
        })
    }

    /// Waits for the end of a task, which must be in this state.
    pub fn ends(&mut self, task_id: i64, state: &str) -> Result<()> {
        self.here
            .wait_until(&format!("(SELECT processed IS NOT NULL FROM async.task WHERE task_id = {task_id})"), SOON)?;
        let found = (self.state(task_id)?, self.error(task_id)?);
        ensure!(found.0 == state, "task {task_id} is {} and not {state}: {}", found.0, found.1);
        Ok(())
    }

    pub fn error(&mut self, task_id: i64) -> Result<String> {
        self.sql.text(&format!("SELECT coalesce(processing_error, '') FROM async.task WHERE task_id = {task_id}"))
    }

    pub fn wait_running(&self, count: usize) -> Result<()> {
        self.here.wait_until(&format!("(SELECT count(*) = {count} FROM async.running())"), SOON)
    }

    /// Every task that is open has ended.
    pub fn wait_all(&self) -> Result<()> {
        self.here.wait_until("NOT EXISTS (SELECT FROM async.task WHERE processed IS NULL)", SOON)
    }

    pub fn dispatcher(&self) -> Result<i32> {
        let until = Instant::now() + SOON;
        loop {
            if let [pid] = self.here.pids(Kind::Dispatcher)?[..] {
                return Ok(pid);
            }
            ensure!(Instant::now() < until, "there is not one dispatcher");
            pause(20);
        }
    }
}

/// A connection string, by a port that may be a proxy's.
pub fn string_by(there: &Database, port: u16) -> String {
    format!("host=127.0.0.1 port={port} dbname={} user={SUPERUSER}", there.name)
}

/// Makes a database a client, with callbacks: `t.notes`; `t.fails`; `t.waits` notes and waits for a row in `t.gate`;
/// `t.pushes` pushes three steps; `t.finishes` and `t.defers` decide about themselves.
fn make_client(there: &Database, here: &Database) -> Result<()> {
    let mut session = there.connect()?;
    session.run("CREATE EXTENSION dblink")?;
    session.run(CLIENT)?;
    let address = string_by(here, here.cluster.port());
    session.run(&format!("SELECT async.server('{address}')"))?;
    session.run(
        "CREATE SCHEMA t;
         CREATE TABLE t.log (id SERIAL, task_id BIGINT, what TEXT);
         CREATE TABLE t.gate (i INT)",
    )?;
    let note = "INSERT INTO t.log (task_id, what) VALUES (_args.task_id, _args.node || coalesce(_args.step_arguments->>'s', ''));";
    let wait = "FOR i IN 1..12000 LOOP EXIT WHEN EXISTS (SELECT FROM t.gate); PERFORM pg_sleep(0.01); END LOOP;";
    for (name, body) in [
        ("notes", note.to_owned()),
        ("fails", "RAISE EXCEPTION 'this one fails there' USING HINT = 'mend it';".to_owned()),
        ("waits", format!("{note} {wait}")),
        (
            "pushes",
            format!(
                "{note} CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{{\"s\": 1}}', '{{\"s\": 2}}', '{{\"s\": 3}}']::JSONB[]);"
            ),
        ),
        ("finishes", format!("{note} CALL flow.finish(_args, true, 'decided there');")),
        ("defers", format!("IF NOT EXISTS (SELECT FROM t.log) THEN CALL flow.defer(_args, '200 ms'); END IF; {note}")),
    ] {
        session.run(&format!(
            "CREATE PROCEDURE t.{name}(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $callback$ BEGIN {body} END $callback$"
        ))?;
    }
    Ok(())
}

/// A directory that the server of a database can write to.
pub fn shelf(database: &Database) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = database.cluster.directory().join(format!("shelf_{}", database.name));
    fs::create_dir(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    Ok(path)
}

/// The files below a directory, by their paths in it.
pub fn files(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(directory)?.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Waits until a condition of Rust is true.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + SOON;
    while !condition()? {
        ensure!(Instant::now() < until, "not so within {SOON:?}: {what}");
        pause(20);
    }
    Ok(())
}

/// `PGFLOW_SOAK=1`: what takes long.
pub fn soak() -> bool {
    std::env::var("PGFLOW_SOAK").is_ok_and(|soak| soak == "1")
}

pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// The two must be equal; says what was found if not.
pub fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(found: T, wanted: U) -> Result<()> {
    ensure!(found == wanted, "found  {found:?}\nwanted {wanted:?}");
    Ok(())
}

/// A text must have these parts in it.
pub fn contains(text: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(text.contains(part), "found  {text:?}\nwanted {part:?} in it");
    }
    Ok(())
}

/// CPU ticks and voluntary context switches of all threads of a process so far.
pub fn spent(pid: i32) -> Result<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
    let mut switches = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).context("status")?;
        switches += line.trim().parse::<u64>()?;
    }
    Ok((fields[11].parse::<u64>()? + fields[12].parse::<u64>()?, switches))
}
