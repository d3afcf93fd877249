//! CREATE DATABASE … TEMPLATE of a database at work: quick, and the copy does nothing before it is told to.

use std::time::{Duration, Instant};

use anyhow::ensure;
use pgflow_tests::cluster::SUPERUSER;
use pgflow_tests::database::{Database, Kind};

use crate::kit::*;

#[test]
fn a_copy_is_made_at_once_and_runs_nothing_before_it_is_adopted() {
    test("original", |database, session| {
        configure(
            session,
            "f",
            r#"{"node": "a", "routine": "t.waits"}, {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        let flow_id = run(session, "f")?;
        wait_running(database, 1)?;
        let mut admin = database.cluster.connect("postgres", SUPERUSER)?;
        end_sessions(database)?;
        at_once(&mut admin, "CREATE DATABASE the_copy TEMPLATE original")?;

        let copy = Database::new(database.cluster, "the_copy");
        let mut there = copy.connect()?;
        open_gate(&mut there)?;
        copy.wait_until(
            "(SELECT last_error LIKE '%adopt%' FROM async.processes() WHERE kind = 'dispatcher'
            AND database_oid = (SELECT oid FROM pg_database WHERE datname = 'the_copy'))",
            SOON,
        )?;
        contains(&there.text("SELECT server_status FROM async.v_server_info")?, "adopt")?;
        same(there.truth("SELECT async.adopted()")?, false)?;
        pause(700);
        same(there.number("SELECT count(*) FROM t.log")?, 0)?;
        same(copy.pids(Kind::Worker)?.len(), 0)?;
        same(there.number("SELECT count(*) FROM flow.v_flow_status WHERE complete = 'No'")?, 1)?;

        // The original goes on meanwhile, with the task that was interrupted.
        let mut here = database.connect()?;
        open_gate(&mut here)?;
        same(ended(database, flow_id)?, "a Finished, b Finished")?;
        same(log(&mut here)?, "a b")?;

        there.run("SELECT async.adopt()")?;
        same(ended(&copy, flow_id)?, "a Finished, b Finished")?;
        same(log(&mut there)?, "a b")?;
        ends_as(&copy, &mut there, "f", "a Finished, b Finished").map(drop)
    });
}

/// Making room for a statement is no fault of the task that ran.
#[test]
fn copies_are_not_charged_to_the_task_that_they_interrupt() {
    test("copied_often", |database, session| {
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        let mut admin = database.cluster.connect("postgres", SUPERUSER)?;
        for i in 1..=4 {
            database.wait_until(
                "NOT EXISTS (SELECT FROM flow.flow WHERE processed IS NULL) OR EXISTS (SELECT FROM async.running())",
                SOON,
            )?;
            end_sessions(database)?;
            at_once(&mut admin, &format!("CREATE DATABASE copied_{i} TEMPLATE copied_often"))?;
            at_once(&mut admin, &format!("DROP DATABASE copied_{i}"))?;
        }
        let mut session = database.connect()?;
        open_gate(&mut session)?;
        let found = ended(database, flow_id)?;
        let error = session.text("SELECT coalesce(max(processing_error), '') FROM async.task")?;
        ensure!(found == "a Finished", "{found}: {error}");
        Ok(())
    });
}

/// A worker that is just starting has no pid yet, and connects a moment later.
#[test]
fn a_copy_is_made_at_once_while_workers_are_starting() {
    test("starting", |database, session| {
        configure_one(session, "a", "t.nothing")?;
        end_sessions(database)?;
        let mut admin = database.cluster.connect("postgres", SUPERUSER)?;
        let mut slowest = Duration::ZERO;
        for i in 0..12 {
            // No warm worker: the last statement has ended it.
            let mut session = database.connect()?;
            database.wait_until(
                "EXISTS (SELECT FROM async.processes() p WHERE p.kind = 'dispatcher' AND p.state = 'running'
                AND p.database_oid = (SELECT oid FROM pg_database WHERE datname = current_database()))",
                SOON,
            )?;
            run(&mut session, "a")?;
            drop(session);
            std::thread::sleep(Duration::from_micros(800 * i));
            let begun = Instant::now();
            admin.run("CREATE DATABASE starting_copy TEMPLATE starting")?;
            slowest = slowest.max(begun.elapsed());
            admin.run("DROP DATABASE starting_copy")?;
        }
        ensure!(slowest < AT_ONCE, "one took {slowest:.1?}");
        Ok(())
    });
}

/// Clients keep a database from being copied; that is not what is tested here.
fn end_sessions(database: &Database) -> anyhow::Result<()> {
    let mut admin = database.cluster.connect("postgres", SUPERUSER)?;
    let others = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = '{}' AND backend_type = 'client backend'",
        database.name
    );
    wait_for("no client is connected", || Ok(admin.number(&others)? == 0))
}
