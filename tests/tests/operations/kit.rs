//! What the tests of this binary share: the cluster, callbacks that note, wait and fail, and short ways to run them.

use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};
use pgflow_tests::cluster::{Cluster, Options};
use pgflow_tests::database::{Database, Kind};
use pgflow_tests::failure::{in_database, with_report};
use pgflow_tests::session::Session;

/// "Soon", on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(20);
/// "At once": what waits for something else than the engine waits longer than this.
pub const AT_ONCE: Duration = Duration::from_secs(4);

fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static FIRST: Mutex<()> = Mutex::new(());
    let _one = FIRST.lock();
    CLUSTER.get_or_init(|| {
        let options = Cluster::options()
            .setting("pgflow.max_workers", "64")
            .setting("pgflow.workers", "8")
            .setting("pgflow.workers_per_role", "8")
            .setting("pgflow.worker_idle_time", "5s");
        let cluster = start(options);
        // The first extension creates the roles, which are the whole cluster's.
        cluster.database("first").unwrap_or_else(|error| panic!("cannot create an extension: {error:#}"));
        cluster
    })
}

/// Starts a cluster, one at a time: a port is taken only when its server listens.
pub fn start(options: Options) -> Cluster {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock();
    options.start().unwrap_or_else(|error| panic!("cannot start a cluster: {error:#}"))
}

/// Runs a test in a database of its own on the shared cluster.
pub fn test(name: &str, body: impl FnOnce(&Database, &mut Session) -> Result<()>) {
    in_database(shared(), name, |database| {
        let mut session = set_up(database)?;
        body(database, &mut session)
    });
}

/// Runs a test in a database on a cluster of its own.
pub fn test_alone(name: &str, options: Options, body: impl FnOnce(&Database, &mut Session) -> Result<()>) {
    let cluster = start(options);
    in_database(&cluster, name, |database| {
        let mut session = set_up(database)?;
        body(database, &mut session)
    });
}

/// Runs a test in a database without the extension on the shared cluster.
pub fn test_without_extension(name: &str, body: impl FnOnce(&Database) -> Result<()>) {
    match shared().plain_database(name) {
        Ok(database) => with_report(&database, body),
        Err(error) => panic!("cannot create database {name}: {error:#}"),
    }
}

/// Callbacks: `t.nothing`; `t.notes` writes to `t.log`; `t.fails`; `t.waits` waits until `t.gate` has a row, then notes.
pub fn set_up(database: &Database) -> Result<Session> {
    let mut session = database.connect()?;
    session.run(
        "CREATE SCHEMA t;
         CREATE TABLE t.log (id SERIAL, what TEXT, who NAME DEFAULT current_user, at TIMESTAMPTZ DEFAULT clock_timestamp());
         CREATE TABLE t.gate (i INT);
         GRANT USAGE ON SCHEMA t TO PUBLIC;
         GRANT ALL ON t.log, t.log_id_seq, t.gate TO PUBLIC",
    )?;
    for (name, body) in [
        ("nothing", "NULL;"),
        ("fails", "RAISE EXCEPTION 'this one fails';"),
        ("notes", "INSERT INTO t.log (what) VALUES (_args.node || coalesce(_args.step_arguments->>'s', ''));"),
        (
            "waits",
            "FOR i IN 1..6000 LOOP EXIT WHEN EXISTS (SELECT FROM t.gate); PERFORM pg_sleep(0.01); END LOOP;
             INSERT INTO t.log (what) VALUES (_args.node || coalesce(_args.step_arguments->>'s', ''));",
        ),
    ] {
        callback(&mut session, name, body)?;
    }
    Ok(session)
}

/// Creates the procedure `t.<name>` with a body in PL/pgSQL.
pub fn callback(session: &mut Session, name: &str, body: &str) -> Result<()> {
    session.run(&format!(
        "CREATE PROCEDURE t.{name}(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $callback$
         BEGIN {body} END $callback$"
    ))
}

/// Creates the procedure `t.pushes`, which pushes the steps {"s": 1} to {"s": count} to its node.
pub fn pushing(session: &mut Session, count: usize) -> Result<()> {
    session.run(&format!(
        "CREATE PROCEDURE t.pushes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $callback$
         DECLARE _steps JSONB[] := ARRAY(SELECT jsonb_build_object('s', i) FROM generate_series(1, {count}) i);
         BEGIN CALL flow.push_steps(_args.flow_id, _args.node, _steps); END $callback$"
    ))
}

pub fn configure(session: &mut Session, flow: &str, nodes: &str) -> Result<()> {
    session.run(&format!("SELECT flow.configure_flow('{flow}', '{{\"nodes\": [{nodes}]}}')"))
}

/// A flow of one node, which bears the flow's name.
pub fn configure_one(session: &mut Session, flow: &str, routine: &str) -> Result<()> {
    configure(session, flow, &format!(r#"{{"node": "{flow}", "routine": "{routine}"}}"#))
}

pub fn run(session: &mut Session, flow: &str) -> Result<i64> {
    session.number(&format!("SELECT flow.run_flow('{flow}', '{{}}')"))
}

/// Waits for the end of a run; returns its nodes with their status words: "a Finished, b Failed".
pub fn ended(database: &Database, flow_id: i64) -> Result<String> {
    database.wait_run(flow_id)?;
    let mut session = database.connect()?;
    let found = nodes(&mut session, flow_id)?;
    // For the message of a test that expects otherwise.
    println!(
        "run {flow_id}: {}",
        session.text(&format!("SELECT coalesce(first_error, 'no error') FROM flow.flow WHERE flow_id = {flow_id}"))?
    );
    Ok(found)
}

pub fn nodes(session: &mut Session, flow_id: i64) -> Result<String> {
    session.text(&format!(
        "SELECT string_agg(node || ' ' || status, ', ' ORDER BY node) FROM flow.v_flow_node_status WHERE flow_id = {flow_id}"
    ))
}

/// Runs a flow that is configured and checks how its nodes end.
pub fn ends_as(database: &Database, session: &mut Session, flow: &str, wanted: &str) -> Result<i64> {
    let flow_id = run(session, flow)?;
    same(ended(database, flow_id)?, wanted)?;
    Ok(flow_id)
}

pub fn log(session: &mut Session) -> Result<String> {
    session.text("SELECT coalesce(string_agg(what, ' ' ORDER BY id), '') FROM t.log")
}

pub fn open_gate(session: &mut Session) -> Result<()> {
    session.run("INSERT INTO t.gate VALUES (1)")
}

pub fn wait_running(database: &Database, count: usize) -> Result<()> {
    database.wait_until(&format!("(SELECT count(*) = {count} FROM async.running())"), SOON)
}

/// Waits until exactly one process of this kind is there, and returns its pid.
pub fn the(database: &Database, kind: Kind) -> Result<i32> {
    let until = Instant::now() + SOON;
    loop {
        let pids = database.pids(kind)?;
        if let [pid] = pids[..] {
            return Ok(pid);
        }
        ensure!(Instant::now() < until, "{} {}s: {pids:?}", pids.len(), kind.name());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until none of the engine's processes is in the database.
pub fn wait_gone(database: &Database, kind: Kind) -> Result<()> {
    let until = Instant::now() + SOON;
    while !database.pids(kind)?.is_empty() {
        ensure!(Instant::now() < until, "{}s {:?} are still there", kind.name(), database.pids(kind)?);
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Waits until a condition of Rust is true.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + SOON;
    while !condition()? {
        if Instant::now() > until {
            bail!("not so within {SOON:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Runs a statement that must not take long.
pub fn at_once(session: &mut Session, sql: &str) -> Result<()> {
    let begun = Instant::now();
    session.run(sql)?;
    ensure!(begun.elapsed() < AT_ONCE, "took {:.1?}: {sql}", begun.elapsed());
    Ok(())
}

pub fn pause(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// The two must be equal; says what was found if not.
pub fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(found: T, wanted: U) -> Result<()> {
    ensure!(found == wanted, "found  {found:?}\nwanted {wanted:?}");
    Ok(())
}

/// A text must have this part in it.
pub fn contains(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "found  {text:?}\nwanted {part:?} in it");
    Ok(())
}

/// A statement must be refused with an error that has this part in it.
pub fn refused(session: &mut Session, sql: &str, part: &str) -> Result<()> {
    let error = session.error(sql)?;
    ensure!(error.contains(part), "{sql}\nfound  {error}\nwanted {part:?} in it");
    Ok(())
}
