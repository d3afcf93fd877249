//! Pause, resume, drain; upgrading or dropping the extension; the switch for the whole server.

use std::time::{Duration, Instant};

use anyhow::ensure;
use pgflow_tests::cluster::{Cluster, Stop};
use pgflow_tests::database::Kind;

use crate::kit::*;

#[test]
fn while_paused_nothing_starts_and_what_runs_goes_on() {
    test("paused", |database, session| {
        configure(
            session,
            "f",
            r#"{"node": "a", "routine": "t.waits"}, {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        configure_one(session, "later", "t.notes")?;
        let first = run(session, "f")?;
        wait_running(database, 1)?;
        session.run("SELECT async.pause()")?;
        let second = run(session, "later")?;
        open_gate(session)?;
        database.wait_until("EXISTS (SELECT FROM t.log)", SOON)?;
        pause(400);
        same(log(session)?, "a")?;
        same(session.text("SELECT server_status FROM async.v_server_info")?, "paused")?;
        // It outlives the dispatcher.
        let dispatcher = the(database, Kind::Dispatcher)?;
        session.run(&format!("SELECT pg_terminate_backend({dispatcher})"))?;
        wait_for("another dispatcher is there", || {
            Ok(database.pids(Kind::Dispatcher)?.iter().any(|pid| *pid != dispatcher))
        })?;
        pause(300);
        same(log(session)?, "a")?;
        session.run("SELECT async.resume()")?;
        same(ended(database, first)?, "a Finished, b Finished")?;
        same(ended(database, second)?, "later Finished").map(drop)
    });
}

#[test]
fn a_pause_that_is_rolled_back_pauses_nothing() {
    test("not_paused", |database, session| {
        configure_one(session, "a", "t.notes")?;
        session.run("BEGIN; SELECT async.pause(); ROLLBACK")?;
        ends_as(database, session, "a", "a Finished").map(drop)
    });
}

#[test]
fn drain_waits_for_what_runs_then_the_extension_can_be_dropped_and_made_again() {
    test("drained", |database, session| {
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        wait_running(database, 1)?;
        let begun = Instant::now();
        same(session.truth("SELECT async.drain('300 ms')")?, false)?;
        ensure!(begun.elapsed() >= Duration::from_millis(290) && begun.elapsed() < AT_ONCE, "{:.1?}", begun.elapsed());

        let mut other = database.connect()?;
        let waiting = std::thread::spawn(move || other.truth("SELECT async.drain('20 s')"));
        pause(200);
        open_gate(session)?;
        ensure!(waiting.join().map_err(|_| anyhow::anyhow!("panicked"))??, "drain gave up");
        same(ended(database, flow_id)?, "a Finished")?;
        let waits = run(session, "a")?;
        pause(300);
        same(session.truth(&format!("SELECT processed IS NULL FROM flow.flow WHERE flow_id = {waits}"))?, true)?;

        at_once(session, "DROP EXTENSION pgflow CASCADE")?;
        at_once(session, "DROP SCHEMA t CASCADE; CREATE EXTENSION pgflow")?;
        let mut session = set_up(database)?;
        configure_one(&mut session, "a", "t.notes")?;
        ends_as(database, &mut session, "a", "a Finished").map(drop)
    });
}

#[test]
fn a_drain_that_is_rolled_back_lets_the_engine_go_on() {
    test("not_drained", |database, session| {
        configure_one(session, "a", "t.notes")?;
        session.run("BEGIN; SELECT async.drain('0'); ROLLBACK")?;
        ends_as(database, session, "a", "a Finished").map(drop)
    });
}

#[test]
fn who_may_not_drain_cannot_hold_the_engine_by_trying() {
    test("held", |database, session| {
        database.role("not_an_admin")?;
        configure_one(session, "a", "t.notes")?;
        let mut user = database.connect_as("not_an_admin")?;
        user.run("BEGIN; SAVEPOINT s")?;
        refused(&mut user, "SELECT async.drain('0')", "permission denied")?;
        user.run("ROLLBACK TO s")?;
        let flow_id = run(session, "a")?;
        pause(1000);
        let ended_meanwhile =
            session.truth(&format!("SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id = {flow_id}"))?;
        user.run("ROLLBACK")?;
        ensure!(ended_meanwhile, "the engine stood still until the stranger's transaction ended");
        for call in [
            "async.pause()",
            "async.resume()",
            "async.adopt()",
            "async.drop_target('x')",
            "async.drop_pool('x')",
            "async.configure('{}')",
            "async.server('x')",
        ] {
            refused(&mut user, &format!("SELECT {call}"), "permission denied")?;
        }
        Ok(())
    });
}

#[test]
fn where_the_engine_is_not_enabled_nothing_starts() {
    test_alone("disabled", Cluster::options().setting("pgflow.enabled", "off"), |database, session| {
        configure_one(session, "a", "t.notes")?;
        let flow_id = run(session, "a")?;
        pause(500);
        same(log(session)?, "")?;
        database.cluster.set(&[("pgflow.enabled".into(), "on".into())])?;
        database.cluster.reload()?;
        same(ended(database, flow_id)?, "a Finished")?;
        // A restart in between loses nothing.
        database.cluster.set(&[("pgflow.enabled".into(), "off".into())])?;
        database.cluster.reload()?;
        pause(300);
        let flow_id = run(session, "a")?;
        database.cluster.restart(Stop::Fast)?;
        let mut session = database.connect()?;
        pause(500);
        same(log(&mut session)?, "a")?;
        contains(
            &session.text("SELECT server_status || ' ' || coalesce(starvation, '') FROM async.v_server_info")?,
            "enabled",
        )?;
        database.cluster.set(&[("pgflow.enabled".into(), "on".into())])?;
        database.cluster.reload()?;
        same(ended(database, flow_id)?, "a Finished")
    });
}

/// Workers hold tasks that have not begun: drained means that none of them begins any more.
#[test]
fn after_a_drain_nothing_starts() {
    test("operating_drained", |database, session| {
        session.run(
            "CREATE PROCEDURE t.many(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
             DECLARE _steps JSONB[];
             BEGIN
               IF _args.step_arguments = '{}' THEN
                 _steps := ARRAY(SELECT jsonb_build_object('s', i) FROM generate_series(1, 20000) i);
                 CALL flow.push_steps(_args.flow_id, _args.node, _steps);
               END IF;
             END $$",
        )?;
        configure_one(session, "many", "t.many")?;
        let flow_id = run(session, "many")?;
        let count = "SELECT count(*) FROM async.task WHERE processed IS NOT NULL";
        wait_for("steps run", || Ok(database.connect()?.number(count)? > 1000))?;
        same(session.text("SELECT async.drain('20 s')::TEXT")?, "true")?;
        let then = session.number(count)?;
        pause(300);
        same(session.number(count)?, then)?;
        session.run("SELECT async.resume()")?;
        same(ended(database, flow_id)?, "many Finished")
    });
}
