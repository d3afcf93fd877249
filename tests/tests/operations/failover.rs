//! Failover: the primary dies in the middle of a run, its standby is promoted and goes on; the old primary comes back as a
//! standby and runs nothing; and the same the other way round, planned.

use anyhow::{ensure, Context as _};
use pgflow_tests::cluster::{Cluster, Stop, SUPERUSER};
use pgflow_tests::session::Session;
use pgflow_tests::standby::Standby;

use crate::kit::*;

const STEPS: usize = 150;

#[test]
fn the_old_primary_returns_as_a_standby_and_runs_nothing() {
    let options = Cluster::options()
        .setting("wal_log_hints", "on")
        .setting("wal_keep_size", "64MB")
        .setting("pgflow.workers", "2");
    test_alone("failover", options, |database, session| {
        callback(
            session,
            "slowly",
            "INSERT INTO t.log (what) VALUES (_args.flow_id || ' ' || (_args.step_arguments->>'s')); PERFORM pg_sleep(0.01);",
        )?;
        pushing(session, STEPS)?;
        configure(
            session,
            "f",
            r#"{"node": "a", "node_routine": "t.pushes", "step_routine": "t.slowly"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        let old = database.cluster;
        let new = Standby::of(old)?;
        let first = run(session, "f")?;
        database.wait_until(&format!("{DONE} > 20"), SOON)?;
        wait_for("the standby has some of it", || new.connect("failover")?.truth(&format!("SELECT {DONE} > 20")))?;

        // The primary dies, its standby takes over.
        old.kill_postmaster()?;
        new.promote()?;
        let mut there = new.connect("failover")?;
        ensure!(there.truth(&format!("SELECT {DONE} < {STEPS}"))?, "the run had ended before the primary died");
        ended_once(&mut there, first)?;

        // It comes back, as a standby of the other.
        old.return_as_standby_of(&new)?;
        let second = run(&mut there, "f")?;
        let mut back = old.connect("failover", SUPERUSER)?;
        wait_for("the old primary follows", || {
            Ok(back.number(&format!("SELECT count(*) FROM flow.flow WHERE flow_id = {second}"))? == 1)
        })
        .with_context(|| old.log_tail(12, ""))?;
        runs_nothing(&mut back)?;
        ensure!(back.text("SELECT server_status FROM async.v_server_info")?.contains("standby"), "it does not say so");
        refused(&mut back, "SELECT flow.run_flow('f', '{}')", "read-only")?;

        // And takes over again, planned: nothing is lost, and nothing is a suspect.
        wait_for("some of the second run is done", || {
            there.truth(&format!("SELECT count(*) > {STEPS} + 20 FROM t.log"))
        })?;
        runs_nothing(&mut back)?;
        new.stop(Stop::Fast)?;
        ensure!(back.truth(&format!("SELECT processed IS NULL FROM flow.flow WHERE flow_id = {second}"))?, "too late");
        old.promote()?;
        ended_once(&mut old.connect("failover", SUPERUSER)?, second)
    });
}

/// How many steps of all runs have left their row.
const DONE: &str = "(SELECT count(*) FROM t.log WHERE what LIKE '% %')";

/// Waits for the end of a run, every step of which must have left one row.
fn ended_once(session: &mut Session, flow_id: i64) -> anyhow::Result<()> {
    wait_for("the run has ended", || {
        session.truth(&format!("SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id = {flow_id}"))
    })?;
    same(nodes(session, flow_id)?, "a Finished, b Finished")?;
    let rows = format!("SELECT count(*) || ' ' || count(DISTINCT what) FROM t.log WHERE what LIKE '{flow_id} %'");
    same(session.text(&rows)?, format!("{STEPS} {STEPS}"))
}

fn runs_nothing(session: &mut Session) -> anyhow::Result<()> {
    ensure!(session.truth("SELECT pg_is_in_recovery()")?, "it is no standby");
    same(session.number("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pgflow%'")?, 0)
}
