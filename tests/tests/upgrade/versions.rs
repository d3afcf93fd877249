//! Versions that there are only here, over the current library: what happens to work that is under way when the extension
//! becomes of another version, and when it does not after all.

use anyhow::{ensure, Result};
use pgflow_tests::database::{Database, Kind};
use pgflow_tests::failure::in_database;
use pgflow_tests::overlay::Overlay;
use pgflow_tests::session::Session;

use crate::kit::*;

/// A version after the current one.
fn next(number: u32) -> String {
    format!("{CURRENT}.{number}")
}

/// An installation with scripts from the current version to others, and back.
fn with_versions() -> Result<Overlay> {
    let overlay = Overlay::new()?;
    // The functions behind public ones are other functions afterwards.
    let again = "DROP FUNCTION async.drain_as(OID, INTERVAL);
        CREATE FUNCTION async.drain_as(_caller OID, _timeout INTERVAL) RETURNS BOOL
        LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT _timeout IS NULL';";
    for (from, to, script) in [
        (CURRENT, &*next(1), "-- nothing"),
        (&*next(1), CURRENT, "-- nothing"),
        (CURRENT, &*next(2), "ALTER TABLE async.task ADD COLUMN more INT; SELECT 1/0;"),
        (CURRENT, &*next(3), again),
        (&*next(3), CURRENT, "ALTER TABLE async.task ADD COLUMN more INT;"),
        (CURRENT, "99.0.0", include_str!("../../../sql/async/version.sql")),
    ] {
        overlay.add(&format!("pgflow--{from}--{to}.sql"), script)?;
    }
    Ok(overlay)
}

const STEPS: i64 = 300;

/// Runs a test in a cluster that has those versions, in a database with flow `f`: node `many` with its steps, beside a node
/// that waits until `t.gate` has a row; then node `last`.
fn test(name: &str, body: impl FnOnce(&Database, &mut Session) -> Result<()>) {
    let overlay = with_versions().unwrap_or_else(|error| panic!("cannot make an installation: {error:#}"));
    let cluster = start(overlay.options().setting("pgflow.workers", "2"));
    in_database(&cluster, name, |database| {
        let mut session = database.connect()?;
        session.run(&format!(
            r#"CREATE SCHEMA t; CREATE TABLE t.log (what TEXT); CREATE TABLE t.gate (i INT);
            CREATE PROCEDURE t.notes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN
              PERFORM pg_sleep(0.002); INSERT INTO t.log VALUES (_args.node || coalesce(_args.step_arguments->>'s', '')); END $$;
            CREATE PROCEDURE t.waits(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN
              FOR i IN 1..6000 LOOP EXIT WHEN EXISTS (SELECT FROM t.gate); PERFORM pg_sleep(0.01); END LOOP;
              INSERT INTO t.log VALUES (_args.node); END $$;
            SELECT flow.configure_flow('f', jsonb_build_object('nodes', jsonb_build_array(
              jsonb_build_object('node', 'many', 'routine', 't.notes', 'steps', (SELECT jsonb_agg(jsonb_build_object('s', i)) FROM generate_series(1, {STEPS}) i)),
              '{{"node": "wait", "routine": "t.waits"}}'::JSONB,
              '{{"node": "last", "routine": "t.notes", "dependencies": [{{"parent": "many"}}, {{"parent": "wait"}}]}}'::JSONB)))"#
        ))?;
        body(database, &mut session)
    });
}

/// Starts a run and waits until some of its steps are done and some are not.
fn under_way(database: &Database, session: &mut Session) -> Result<i64> {
    let run = session.number("SELECT flow.run_flow('f', '{}')")?;
    database.wait_until("(SELECT count(*) > 20 FROM t.log)", SOON)?;
    database.wait_until(
        "EXISTS (SELECT FROM async.running() r JOIN async.task t USING (task_id) WHERE NOT t.is_step)",
        SOON,
    )?;
    Ok(run)
}

/// Lets the run end; every callback has had its effect once.
fn ends(database: &Database, session: &mut Session, run: i64) -> Result<()> {
    session.run("INSERT INTO t.gate VALUES (1)")?;
    database.wait_run(run)?;
    same(session.text("SELECT string_agg(what, ' ') FROM t.log WHERE what IN ('many', 'wait', 'last')")?.len(), 14)?;
    same(
        session.text("SELECT format('%s %s', count(*), count(DISTINCT what)) FROM t.log")?,
        format!("{0} {0}", STEPS + 3),
    )?;
    same(
        session.text(&format!(
            "SELECT string_agg(DISTINCT status, ', ') FROM flow.v_flow_node_status WHERE flow_id = {run}"
        ))?,
        "Finished",
    )
}

fn wait_gone(database: &Database) -> Result<()> {
    for kind in [Kind::Dispatcher, Kind::Worker] {
        let condition = format!(
            "NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pgflow {}' AND datname = current_database())",
            kind.name()
        );
        database.wait_until(&condition, SOON)?;
    }
    Ok(())
}

#[test]
fn what_is_under_way_stops_at_an_update_beyond_the_library_and_goes_on_when_they_agree_again() {
    test("beyond", |database, session| {
        let run = under_way(database, session)?;
        let mut admin = database.connect()?;
        admin.run(&format!("ALTER EXTENSION pgflow UPDATE TO '{}'", next(1)))?;
        wait_gone(database)?;
        let done = session.number("SELECT count(*) FROM t.log")?;
        ensure!(done < STEPS, "all steps were done before the update: it was not in the middle");
        let said = format!(
            "the library of pgflow is {CURRENT}, the extension in this database {}: install its library and restart the server",
            next(1)
        );
        same(session.text("SELECT server_status FROM async.v_server_info")?, said.as_str())?;
        contains(&session.text("SELECT starvation FROM async.v_server_info")?, &said)?;
        same(
            session.text("SELECT library_version || ' ' || extension_version FROM async.v_server_info")?,
            format!("{CURRENT} {}", next(1)),
        )?;
        // Also in a session that has called before.
        let error = session.error("SELECT flow.run_flow('f', '{}')")?;
        contains(&error, "ERROR 55000")?;
        contains(&error, "HINT: To go on: install its library and restart the server.")?;
        pause(500);
        same(session.number("SELECT count(*) FROM t.log")?, done)?;

        admin.run(&format!("ALTER EXTENSION pgflow UPDATE TO '{CURRENT}'"))?;
        ends(database, session, run)
    });
}

#[test]
fn an_update_that_is_rolled_back_or_fails_stops_nothing() {
    test("rolled_back", |database, session| {
        let run = under_way(database, session)?;
        let dispatcher = database.pids(Kind::Dispatcher)?;
        let mut admin = database.connect()?;
        admin.run(&format!("BEGIN; ALTER EXTENSION pgflow UPDATE TO '{}'", next(1)))?;
        let before = session.number("SELECT count(*) FROM t.log")?;
        database.wait_until(&format!("(SELECT count(*) > {before} + 10 FROM t.log)"), SOON)?;
        admin.run("ROLLBACK")?;
        contains(&admin.error(&format!("ALTER EXTENSION pgflow UPDATE TO '{}'", next(2)))?, "division by zero")?;
        contains(&admin.error("SELECT more FROM async.task")?, "does not exist")?;
        // One that needs a later library is refused before anything is done.
        let error = admin.error("ALTER EXTENSION pgflow UPDATE TO '99.0.0'")?;
        contains(&error, &format!("ERROR 55000: pgflow 99.0.0 needs its own library, but {CURRENT} is in use"))?;
        contains(&error, "HINT: Restart the server")?;
        same(admin.text("SELECT extversion FROM pg_extension WHERE extname = 'pgflow'")?, CURRENT)?;
        admin.run("SELECT flow.run_flow('f', '{}', ARRAY['last'])")?;
        ends_with_another(database, session, run)?;
        same(database.pids(Kind::Dispatcher)?, dispatcher)
    });
}

/// As `ends`, where another run has had node `last` once more.
fn ends_with_another(database: &Database, session: &mut Session, run: i64) -> Result<()> {
    database.wait_run(run + 1)?;
    session.run("DELETE FROM t.log WHERE ctid = (SELECT ctid FROM t.log WHERE what = 'last')")?;
    ends(database, session, run)
}

#[test]
fn after_a_drain_nothing_is_lost_and_the_pause_outlives_the_update() {
    test("drained", |database, session| {
        let run = under_way(database, session)?;
        session.run("INSERT INTO t.gate VALUES (1)")?;
        same(session.text("SELECT async.drain('20 s')")?, "t")?;
        session.run(&format!("ALTER EXTENSION pgflow UPDATE TO '{}'", next(1)))?;
        wait_gone(database)?;
        session.run(&format!("ALTER EXTENSION pgflow UPDATE TO '{CURRENT}'"))?;
        database.wait_until("(SELECT server_status = 'paused' FROM async.v_server_info)", SOON)?;
        let done = session.number("SELECT count(*) FROM t.log")?;
        pause(300);
        same(session.number("SELECT count(*) FROM t.log")?, done)?;
        session.run("SELECT async.resume()")?;
        ends(database, session, run)?;
        // Nothing was interrupted.
        same(session.number("SELECT max(attempt) FROM async.task")?, 1)
    });
}

/// What a session knows of functions does not outlive them.
#[test]
fn a_session_that_has_called_before_finds_the_functions_of_after_the_update() {
    test("sessions", |database, session| {
        same(session.text("SELECT async.drain('1 s')")?, "t")?;
        let mut admin = database.connect()?;
        admin.run(&format!("ALTER EXTENSION pgflow UPDATE TO '{}'", next(3)))?;
        admin.run(&format!("ALTER EXTENSION pgflow UPDATE TO '{CURRENT}'"))?;
        same(session.text("SELECT async.drain('1 s')")?, "f")?;
        same(session.text("SELECT async.drain(NULL)")?, "t")?;
        // Statements that were planned before the table had its new column.
        let run = session.number("SELECT flow.run_flow('f', '{}', ARRAY['last'])")?;
        session.run("SELECT async.resume()")?;
        database.wait_run(run)?;
        same(session.text("SELECT what FROM t.log")?, "last")
    });
}
