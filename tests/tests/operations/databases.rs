//! Databases come and go: each with the extension has a dispatcher, and none is kept from being dropped or renamed.

use anyhow::ensure;
use pgflow_tests::cluster::SUPERUSER;
use pgflow_tests::database::{Database, Kind};

use crate::kit::*;

#[test]
fn several_databases_run_at_once() {
    test("several_a", |first, session| {
        let cluster = first.cluster;
        let others = [cluster.database("several_b")?, cluster.database("several_c")?];
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        let mut runs = vec![(first, flow_id)];
        for other in &others {
            let mut session = set_up(other)?;
            configure_one(&mut session, "a", "t.waits")?;
            runs.push((other, run(&mut session, "a")?));
        }
        for (database, _) in &runs {
            wait_running(database, 1)?;
        }
        for (database, flow_id) in &runs {
            open_gate(&mut database.connect()?)?;
            same(ended(database, *flow_id)?, "a Finished")?;
        }
        Ok(())
    });
}

#[test]
fn create_extension_is_noticed_at_once() {
    test_without_extension("noticed", |database| {
        pause(500); // the launcher has looked and found nothing
        let mut session = database.connect()?;
        session.run("CREATE EXTENSION pgflow")?;
        database.wait_until(
            "EXISTS (SELECT FROM async.processes() p WHERE p.kind = 'dispatcher' AND p.state = 'running'
            AND p.database_oid = (SELECT oid FROM pg_database WHERE datname = current_database()))",
            AT_ONCE,
        )
    });
}

#[test]
fn a_rolled_back_create_extension_starts_nothing() {
    test_without_extension("not_created", |database| {
        database.connect()?.run("BEGIN; CREATE EXTENSION pgflow; ROLLBACK")?;
        pause(500);
        same(database.pids(Kind::Dispatcher)?.len(), 0)
    });
}

#[test]
fn drop_extension_ends_the_processes_and_create_again_works() {
    test("dropped", |database, session| {
        configure_one(session, "a", "t.notes")?;
        ends_as(database, session, "a", "a Finished")?;
        session.run("DROP EXTENSION pgflow CASCADE")?;
        wait_gone(database, Kind::Dispatcher)?;
        wait_gone(database, Kind::Worker)?;
        session.run("DROP SCHEMA t CASCADE; CREATE EXTENSION pgflow")?;
        let mut session = set_up(database)?;
        configure_one(&mut session, "a", "t.notes")?;
        ends_as(database, &mut session, "a", "a Finished").map(drop)
    });
}

/// What the dispatcher knew of the old one is not true of the new one: not that it was paused, not which tasks there are.
#[test]
fn drop_and_create_in_one_transaction_begins_anew() {
    test("dropped_and_created", |database, session| {
        configure_one(session, "a", "t.notes")?;
        ends_as(database, session, "a", "a Finished")?;
        session.run("SELECT async.pause()")?;
        run(session, "a")?;
        session.run("BEGIN; DROP EXTENSION pgflow CASCADE; DROP SCHEMA t CASCADE; CREATE EXTENSION pgflow; COMMIT")?;
        let mut session = set_up(database)?;
        configure_one(&mut session, "b", "t.notes")?;
        for _ in 0..3 {
            ends_as(database, &mut session, "b", "b Finished")?;
        }
        same(log(&mut session)?, "b b b")
    });
}

#[test]
fn a_rolled_back_drop_extension_ends_nothing() {
    test("not_dropped", |database, session| {
        configure_one(session, "a", "t.notes")?;
        let dispatcher = the(database, Kind::Dispatcher)?;
        session.run("BEGIN; DROP EXTENSION pgflow CASCADE; ROLLBACK")?;
        ends_as(database, session, "a", "a Finished")?;
        same(the(database, Kind::Dispatcher)?, dispatcher)
    });
}

#[test]
fn drop_extension_while_a_task_runs_ends_it() {
    test("dropped_busy", |database, session| {
        configure_one(session, "a", "t.waits")?;
        run(session, "a")?;
        wait_running(database, 1)?;
        at_once(session, "DROP EXTENSION pgflow CASCADE")?;
        wait_gone(database, Kind::Worker)?;
        wait_gone(database, Kind::Dispatcher)
    });
}

#[test]
fn a_database_with_a_busy_worker_can_be_renamed() {
    test("rename_before", |database, session| {
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        wait_running(database, 1)?;
        let mut admin = database.cluster.connect("postgres", SUPERUSER)?;
        // Our own session is in the way; the engine's processes must not be.
        admin.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'rename_before' AND backend_type = 'client backend'")?;
        pause(100);
        at_once(&mut admin, "ALTER DATABASE rename_before RENAME TO rename_after")?;
        let after = Database::new(database.cluster, "rename_after");
        open_gate(&mut after.connect()?)?;
        let result = ended(&after, flow_id);
        admin.run("ALTER DATABASE rename_after RENAME TO rename_before")?;
        same(result?, "a Finished")
    });
}

#[test]
fn a_database_with_a_busy_worker_can_be_dropped() {
    test("stays", |database, _| {
        let doomed = database.cluster.database("doomed")?;
        {
            let mut session = set_up(&doomed)?;
            configure_one(&mut session, "a", "t.waits")?;
            run(&mut session, "a")?;
            wait_running(&doomed, 1)?;
        }
        let mut admin = database.cluster.connect("postgres", SUPERUSER)?;
        admin.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'doomed' AND backend_type = 'client backend'")?;
        pause(100);
        at_once(&mut admin, "DROP DATABASE doomed")?;
        let mine = "SELECT count(*) FROM async.processes() p WHERE p.database_oid IS NOT NULL
            AND NOT EXISTS (SELECT FROM pg_database d WHERE d.oid = p.database_oid)";
        let mut session = database.connect()?;
        wait_for("no process is left of a dropped database", || Ok(session.number(mine)? == 0))
    });
}

#[test]
fn where_nobody_may_connect_nothing_runs_until_one_may_again() {
    test("no_connections", |database, session| {
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        wait_running(database, 1)?;
        let mut admin = database.cluster.connect("postgres", SUPERUSER)?;
        admin.run("ALTER DATABASE no_connections ALLOW_CONNECTIONS false")?;
        let ours =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = 'no_connections' AND backend_type LIKE 'pgflow%'";
        let result = wait_for("the engine's processes have left", || Ok(admin.number(ours)? == 0));
        pause(700);
        let back = admin.number(ours)?;
        admin.run("ALTER DATABASE no_connections ALLOW_CONNECTIONS true")?;
        result?;
        same(back, 0)?;
        open_gate(session)?;
        same(ended(database, flow_id)?, "a Finished")
    });
}

#[test]
fn who_does_not_own_a_database_cannot_stop_its_engine() {
    test("not_yours", |database, session| {
        session.run("DROP ROLE IF EXISTS creates_databases; CREATE ROLE creates_databases LOGIN CREATEDB")?;
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        wait_running(database, 1)?;
        let before = (the(database, Kind::Dispatcher)?, the(database, Kind::Worker)?);
        let mut stranger = database.cluster.connect("postgres", "creates_databases")?;
        for statement in [
            "DROP DATABASE not_yours",
            "DROP DATABASE not_yours WITH (FORCE)",
            "ALTER DATABASE not_yours RENAME TO mine",
            "ALTER DATABASE not_yours ALLOW_CONNECTIONS false",
            "CREATE DATABASE mine TEMPLATE not_yours",
        ] {
            let error = stranger.error(statement)?;
            ensure!(error.contains("must be owner") || error.contains("permission denied"), "{statement}: {error}");
        }
        same((the(database, Kind::Dispatcher)?, the(database, Kind::Worker)?), before)?;
        open_gate(session)?;
        same(ended(database, flow_id)?, "a Finished")?;
        same(session.number("SELECT max(attempt) FROM async.task")?, 1)
    });
}

#[test]
fn an_owner_who_is_refused_gets_the_engine_back() {
    test("refused_drop", |database, session| {
        configure_one(session, "a", "t.notes")?;
        let mut admin = database.cluster.connect("postgres", SUPERUSER)?;
        // This very session is connected, so the statement fails, after five seconds.
        refused(&mut admin, "DROP DATABASE refused_drop", "being accessed by other users")?;
        ends_as(database, session, "a", "a Finished").map(drop)
    });
}

#[test]
fn a_terminated_dispatcher_comes_back_and_running_tasks_go_on() {
    test("terminated", |database, session| {
        configure(
            session,
            "f",
            r#"{"node": "a", "routine": "t.waits"}, {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        let flow_id = run(session, "f")?;
        wait_running(database, 1)?;
        let worker = the(database, Kind::Worker)?;
        for _ in 0..3 {
            let old = the(database, Kind::Dispatcher)?;
            session.run(&format!("SELECT pg_terminate_backend({old})"))?;
            wait_for("another dispatcher is there", || {
                let pids = database.pids(Kind::Dispatcher)?;
                Ok(pids.len() == 1 && pids[0] != old)
            })?;
        }
        same(the(database, Kind::Worker)?, worker)?;
        open_gate(session)?;
        same(ended(database, flow_id)?, "a Finished, b Finished")?;
        same(session.number("SELECT max(attempt) FROM async.task")?, 1)?;
        same(log(session)?, "a b")
    });
}
