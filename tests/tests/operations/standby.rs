//! A standby runs nothing; promoted, it goes on with what was open.

use std::time::{Duration, Instant};

use anyhow::ensure;
use pgflow_tests::cluster::{Cluster, Stop};
use pgflow_tests::standby::Standby;

use crate::kit::*;

#[test]
fn a_standby_runs_nothing_and_goes_on_when_it_is_promoted() {
    test_alone("streamed", Cluster::options().setting("pgflow.workers", "2"), |database, session| {
        callback(
            session,
            "slowly",
            "INSERT INTO t.log (what) VALUES (_args.step_arguments->>'s'); PERFORM pg_sleep(0.02);",
        )?;
        pushing(session, 200)?;
        configure(
            session,
            "f",
            r#"{"node": "a", "node_routine": "t.pushes", "step_routine": "t.slowly"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        let standby = Standby::of(database.cluster)?;
        let flow_id = run(session, "f")?;
        database.wait_until("(SELECT count(*) FROM t.log) > 30", SOON)?;
        let mut there = standby.connect("streamed")?;
        wait_for("the standby shows some of it", || Ok(there.number("SELECT count(*) FROM t.log")? > 30))?;

        let processes = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pgflow%'";
        same(there.number(processes)?, 0)?;
        same(
            there.text(&format!(
                "SELECT status FROM flow.v_flow_node_status WHERE flow_id = {flow_id} AND node = 'a'"
            ))?,
            "Running Steps",
        )?;
        let status = there.text("SELECT server_status FROM async.v_server_info")?;
        refused(&mut there, "SELECT flow.run_flow('f', '{}')", "read-only")?;

        database.cluster.stop(Stop::Immediate)?;
        let before = there.number("SELECT count(*) FROM t.log")?;
        ensure!(before < 200, "the run had ended before the primary was stopped");
        standby.promote()?;
        let begun = Instant::now();
        wait_for("the launcher is there", || {
            Ok(there.number("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgflow launcher'")? == 1)
        })?;
        let took = begun.elapsed();
        println!("launcher {took:.1?} after the promotion");
        ensure!(took < Duration::from_secs(3), "launcher only {took:.1?} after the promotion");
        wait_for("the run has ended", || {
            there.truth(&format!("SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id = {flow_id}"))
        })?;
        same(nodes(&mut there, flow_id)?, "a Finished, b Finished")?;
        same(there.text("SELECT count(*) || ' ' || count(DISTINCT what) FROM t.log")?, "201 201")?;
        ensure!(status.contains("standby"), "on the standby, v_server_info said {status:?}");
        // The old primary's report, if the test fails, is of use only when it runs.
        database.cluster.start()
    });
}
