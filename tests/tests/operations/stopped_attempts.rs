//! What was stopped and goes on all the same, beside later attempts of its task. Found by the model of the protocol
//! (docs/protocol.md).

use crate::kit::*;

/// The step {"s": 1} fails until `t.passes` has a row; {"s": 2} takes no notice of being cancelled until the gate opens.
const STEP: &str = "
    IF _args.step_arguments->>'s' = '1' THEN
      PERFORM pg_sleep(0.2);
      IF NOT EXISTS (SELECT FROM t.passes) THEN RAISE 'not yet'; END IF;
    ELSE
      FOR i IN 1..6000 LOOP
        EXIT WHEN EXISTS (SELECT FROM t.gate);
        BEGIN PERFORM pg_sleep(0.01); EXCEPTION WHEN query_canceled THEN NULL; END;
      END LOOP;
    END IF;
    INSERT INTO t.log (what) VALUES (_args.step_arguments->>'s');";

#[test]
fn a_stopped_attempt_counts_for_no_later_one() {
    test("stopped_attempts", |database, session| {
        session.run("CREATE TABLE t.passes (i INT); GRANT SELECT ON t.passes TO PUBLIC")?;
        callback(session, "step", STEP)?;
        let nodes = r#"{"node": "a", "empty": true, "step_routine": "t.step", "steps": [{"s": 1}, {"s": 2}]}"#;
        configure(session, "f", nodes)?;
        let flow_id = run(session, "f")?;
        for attempts in 1..=4 {
            same(ended(database, flow_id)?, "a Failed")?;
            let attempt = "SELECT attempt FROM async.task WHERE task_data @> '{\"s\": 2}'";
            same(session.number(attempt)?, attempts)?;
            if attempts == 4 {
                session.run("INSERT INTO t.passes VALUES (1)")?;
            }
            session.run(&format!("SELECT flow.retry_failed({flow_id})"))?;
        }
        wait_running(database, 5)?; // the last attempt beside the four that were stopped
        open_gate(session)?;
        same(ended(database, flow_id)?, "a Finished")?;
        wait_running(database, 0)?;
        same(session.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")?, "1 2")
    });
}

/// A worker that holds several tasks goes on to the next when one is stopped: that one is to be stopped as well.
#[test]
fn a_cancel_reaches_what_a_worker_begins_meanwhile() {
    test("goes_on", |database, session| {
        pushing(session, 64)?;
        callback(session, "quick", "NULL;")?;
        callback(session, "slow", "PERFORM pg_sleep(60);")?;
        configure(session, "quick", r#"{"node": "a", "node_routine": "t.pushes", "step_routine": "t.quick"}"#)?;
        configure(session, "slow", r#"{"node": "a", "node_routine": "t.pushes", "step_routine": "t.slow"}"#)?;
        for _ in 0..12 {
            // Workers are handed many at a time once these are known to be quick.
            ends_as(database, session, "quick", "a Finished")?;
            let flow_id = run(session, "slow")?;
            database.wait_until("(SELECT count(*) > 1 FROM async.running())", SOON)?;
            session.run(&format!("SELECT flow.cancel({flow_id})"))?;
            wait_running(database, 0)?;
        }
        Ok(())
    });
}
