//! C14, E5: cancelling a run.

use crate::kit::{contains, same, test, Clock};

#[test]
fn c14_cancel_stops_what_runs_at_once() {
    test("c14", |kit| {
        kit.flow(
            r#"{"node": "a", "routine": "t.sleeps"},
               {"node": "b", "node_routine": "t.nothing", "step_routine": "t.sleeps", "steps": [{"s": 1}]},
               {"node": "c", "routine": "t.notes", "dependencies": [{"parent": "a"}]},
               {"node": "d", "routine": "t.nothing"}"#,
        )?;
        let flow_id = kit.run()?;
        kit.wait_until("(SELECT count(*) FROM async.running()) = 2")?;
        kit.wait_for_status(flow_id, "b", "Running Steps")?;
        kit.wait_for_status(flow_id, "d", "Finished")?;
        let clock = Clock::start();
        kit.session.run(&format!("SELECT flow.cancel({flow_id})"))?;
        // At once means: not when the workers have noticed.
        same(kit.session.text(&format!("SELECT complete FROM flow.v_flow_status WHERE flow_id = {flow_id}"))?, "Yes")?;
        kit.wait_until("(SELECT count(*) FROM async.running()) = 0")?;
        clock.at_once()?;
        same(kit.nodes(flow_id)?, "a Cancelled, b Cancelled, c Cancelled, d Finished")?;
        same(kit.steps(flow_id)?, r#"{"s": 1} Cancelled"#)?;
        same(kit.session.number("SELECT count(*) FROM async.task WHERE processed IS NULL")?, 0)?;
        same(kit.session.number("SELECT count(*) FROM async.task WHERE finish_status = 'CANCELED'")?, 2)?;
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        same(kit.session.number(waiting)?, 0)
    });
}

#[test]
fn c14_cancel_of_a_finished_or_unknown_run() {
    test("c14_ended", |kit| {
        kit.flow(r#"{"node": "a", "routine": "t.nothing"}"#)?;
        let flow_id = kit.run_to_end()?;
        kit.session.run(&format!("SELECT flow.cancel({flow_id})"))?;
        same(kit.nodes(flow_id)?, "a Finished")?;
        contains(&kit.session.error("SELECT flow.cancel(987654)")?, "987654")
    });
}

#[test]
fn c14_nothing_of_a_cancelled_callback_lasts() {
    test("c14_trap", |kit| {
        kit.callback(
            "traps",
            "BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
             INSERT INTO t.log (what) VALUES ('trapped'); COMMIT; INSERT INTO t.log (what) VALUES ('again');",
        )?;
        kit.flow(r#"{"node": "a", "routine": "t.traps"}"#)?;
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Running")?;
        kit.session.run(&format!("SELECT flow.cancel({flow_id})"))?;
        kit.wait_until("(SELECT count(*) FROM async.running()) = 0")?;
        same(kit.log()?, "")?;
        // The worker is none the worse for it.
        kit.named_flow("g", r#"{"node": "b", "routine": "t.notes"}"#)?;
        let flow_id = kit.session.number("SELECT flow.run_flow('g', '{}')")?;
        kit.wait(flow_id)?;
        same(kit.log()?, "b")
    });
}

#[test]
fn c14_a_rolled_back_cancel_cancels_nothing() {
    test("c14_rollback", |kit| {
        kit.callback("short", "PERFORM pg_sleep(0.5); INSERT INTO t.log (what) VALUES ('done');")?;
        kit.flow(r#"{"node": "a", "routine": "t.short"}"#)?;
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Running")?;
        kit.session.run(&format!("BEGIN; SELECT flow.cancel({flow_id}); ROLLBACK"))?;
        kit.wait(flow_id)?;
        same((kit.nodes(flow_id)?.as_str(), kit.log()?.as_str()), ("a Finished", "done"))
    });
}
