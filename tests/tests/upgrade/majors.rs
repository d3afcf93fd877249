//! `pg_upgrade` to the next major version, with ended and open runs: nothing is lost, nothing runs before `async.adopt()`,
//! because the system identifier is another one; then everything goes on.

use anyhow::{ensure, Result};
use pgflow_tests::cluster::{Cluster, Stop, SUPERUSER};
use pgflow_tests::database::{Database, Kind};
use pgflow_tests::failure::with_report;
use pgflow_tests::postmaster::Programs;
use pgflow_tests::servers::majors;
use pgflow_tests::session::Session;

use crate::kit::*;

const DATABASE: &str = "moved";

/// Every row of the extension's tables, and everything that views show of it that does not depend on the time.
fn everything(session: &mut Session) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let tables = session.column(
        // A copy forgets which targets were down for the original.
        "SELECT c.oid::regclass::TEXT FROM pg_class c WHERE c.relkind = 'r' AND c.relname <> 'target_down'
         AND c.relnamespace IN ('async'::regnamespace, 'flow'::regnamespace, 't'::regnamespace) ORDER BY 1",
    )?;
    let shown = ["flow.v_flow_status", "flow.v_flow_node_status", "flow.v_flow_task_status", "async.v_result"];
    for table in tables.iter().map(String::as_str).chain(shown) {
        let rows = session
            .column(&format!("SELECT to_jsonb(t) - '{{run_time,changed,in_progress}}'::TEXT[] FROM {table} t"))?;
        // What is put off is eligible when its time has come, also while nothing runs.
        let rows = rows.into_iter().map(|row| row.replace("\"status\": \"Deferred\"", "\"status\": \"Pending\""));
        let mut rows: Vec<_> = rows.map(|row| format!("{table}: {row}")).collect();
        rows.sort_unstable();
        all.extend(rows);
    }
    all.extend(session.column(
        "SELECT format('%s: %s', c.oid::regclass::TEXT, pg_sequence_last_value(c.oid)) FROM pg_class c
         WHERE c.relkind = 'S' AND c.relnamespace IN ('async'::regnamespace, 'flow'::regnamespace) ORDER BY 1",
    )?);
    // Results and rights, by what they give and not by how they are stored.
    all.extend(session.column("SELECT async.fetch_result(29)")?);
    all.extend(session.column(
        "SELECT format('%s %s', p.oid::regprocedure::TEXT, array(SELECT x::TEXT FROM unnest(p.proacl) x ORDER BY 1)) FROM pg_proc p
         WHERE p.pronamespace IN ('async'::regnamespace, 'flow'::regnamespace) ORDER BY 1",
    )?);
    Ok(all)
}

/// Two that differ in nothing; says the first difference.
fn same_rows(found: &[String], wanted: &[String]) -> Result<()> {
    for (found, wanted) in found.iter().zip(wanted) {
        same(found, wanted)?;
    }
    same(found.len(), wanted.len())
}

/// A cluster of PG_CONFIG's server, or of the one before where there is none after it.
fn old_cluster() -> Cluster {
    let is_last = Programs::find().and_then(|programs| programs.major()).is_ok_and(|major| major >= 18);
    start(if is_last { majors::of_major(16).unwrap() } else { Cluster::options() })
}

/// Stops the old cluster and starts a new one of the next major version with what was in it.
fn moved(old: &Cluster, mode: &str) -> Result<Cluster> {
    let next = if old.major()? < 16 { 16 } else { 18 };
    let new = start(majors::of_major(next)?.setting("pgflow.worker_idle_time", "5s"));
    // 15.20 notes a version with every column, which no 16 of before that day knows: pg_upgrade then fails with any table.
    old.connect(DATABASE, SUPERUSER)?.run(
        "UPDATE pg_attribute SET attoptions = nullif(ARRAY(SELECT o FROM unnest(attoptions) o WHERE o NOT LIKE 'pg_attver=%'), '{}')
         WHERE attoptions::TEXT LIKE '%pg_attver=%'",
    )?;
    old.stop(Stop::Fast)?;
    new.stop(Stop::Fast)?;
    new.upgrade_from(old, mode)?;
    new.start()?;
    Ok(new)
}

fn is_at_rest(database: &Database) -> Result<()> {
    same(database.pids(Kind::Worker)?.len(), 0)
}

/// Ends what run 5 and the others wait for.
fn ends(database: &Database, alice: &mut Session) -> Result<()> {
    answer(database, alice)?;
    for run in [5, 6, 8, 9, 10] {
        database.wait_run(run)?;
    }
    let words =
        "SELECT string_agg(DISTINCT status, ', ') FROM flow.v_flow_node_status WHERE flow_id IN (5, 6, 8, 9, 10)";
    same(alice.text(words)?, "Finished")?;
    let effects = "SELECT string_agg(what, ', ' ORDER BY what) FROM t.log WHERE what ~ '^(5|6|8|9|10) '";
    same(
        alice.text(effects)?,
        "10 a, 5 defer, 5 done, 5 hold, 5 hold 7, 5 hold 8, 5 last, 5 wait, 5 wait 1, 5 wait 2, 5 wait 3, 5 yield, 6 next, 6 old, 8 a, 9 a",
    )?;
    // New work gets numbers that nothing had.
    let run = alice.number("SELECT flow.run_flow('good', '{}')")?;
    ensure!(run > 10, "run {run}");
    database.wait_run(run)
}

#[test]
fn pg_upgrade_keeps_everything_and_nothing_runs_before_it_is_adopted() {
    let old = old_cluster();
    let database = left_by_0_1_0(&old, DATABASE).unwrap();
    let mut admin = database.connect().unwrap();
    update(&mut admin).unwrap();
    // Two tasks run, one waits for a server elsewhere, others for other things, as the server is stopped.
    database.wait_until("(SELECT count(*) = 2 FROM async.running() WHERE task_id IN (15, 16))", SOON).unwrap();
    // Nothing of ours runs while we look at what was left.
    old.set(&[("shared_preload_libraries".into(), String::new())]).unwrap();
    old.restart(Stop::Fast).unwrap();
    let before = everything(&mut database.connect().unwrap()).unwrap();

    let new = moved(&old, "--copy").unwrap();
    with_report(&Database::new(&new, DATABASE), |database| {
        let mut admin = database.connect()?;
        let mut alice = database.connect_as("upgrade_alice")?;
        same_rows(&everything(&mut admin)?, &before)?;
        database.wait_until("(SELECT server_status LIKE 'a copy:%' FROM async.v_server_info)", SOON)?;
        pause(500);
        is_at_rest(database)?;
        same(admin.text("SELECT async.adopted()")?, "f")?;
        admin.run("SELECT async.adopt()")?;
        database.wait_until("(SELECT count(*) = 2 FROM async.running() WHERE task_id IN (15, 16))", SOON)?;
        ends(database, &mut alice)
    });
}

#[test]
fn pg_upgrade_with_links_takes_an_earlier_version_which_is_updated_there() {
    let old = old_cluster();
    let database = left_by_0_1_0(&old, DATABASE).unwrap();
    let before = everything(&mut database.connect().unwrap()).unwrap();

    let new = moved(&old, "--link").unwrap();
    with_report(&Database::new(&new, DATABASE), |database| {
        let mut admin = database.connect()?;
        let mut alice = database.connect_as("upgrade_alice")?;
        same_rows(&everything(&mut admin)?, &before)?;
        same(admin.text("SELECT extversion FROM pg_extension WHERE extname = 'pgflow'")?, "0.1.0")?;
        contains(&admin.error("SELECT async.adopt()")?, "ALTER EXTENSION pgflow UPDATE")?;
        update(&mut admin)?;
        database.wait_until("(SELECT server_status LIKE 'a copy:%' FROM async.v_server_info)", SOON)?;
        is_at_rest(database)?;
        admin.run("SELECT async.adopt()")?;
        ends(database, &mut alice)
    });
}
