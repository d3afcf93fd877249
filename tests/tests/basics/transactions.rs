//! C1 and what the client's transaction has to do with a run.

use anyhow::ensure;

use crate::kit::{contains, same, test};

#[test]
fn c1_a_run_that_is_rolled_back_runs_nothing() {
    test("c1", |kit| {
        kit.flow(r#"{"node": "a", "routine": "t.notes"}"#)?;
        kit.session.run("BEGIN; SELECT flow.run_flow('f', '{}'); ROLLBACK")?;
        kit.session.run("BEGIN; SAVEPOINT s; SELECT flow.run_flow('f', '{}'); ROLLBACK TO s; COMMIT")?;
        kit.run_to_end()?;
        same(kit.log()?, "a")?;
        same(kit.session.number("SELECT count(*) FROM flow.flow")?, 1)
    });
}

#[test]
fn c1_nothing_starts_before_the_commit() {
    test("c1_commit", |kit| {
        kit.flow(r#"{"node": "a", "routine": "t.notes"}"#)?;
        kit.session.run("BEGIN")?;
        let flow_id = kit.run()?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        same(kit.database.connect()?.number("SELECT count(*) FROM t.log")?, 0)?;
        kit.session.run("COMMIT")?;
        kit.wait(flow_id)?;
        same(kit.log()?, "a")
    });
}

#[test]
fn waiting_for_a_run_of_the_own_transaction_is_refused() {
    test("wait", |kit| {
        kit.flow(r#"{"node": "a", "routine": "t.nothing"}"#)?;
        kit.session.run("BEGIN")?;
        let flow_id = kit.run()?;
        contains(&kit.session.error(&format!("SELECT flow.wait({flow_id}, '10 s')"))?, "cannot wait")?;
        kit.session.run("ROLLBACK")?;

        let flow_id = kit.run()?;
        ensure!(kit.session.truth(&format!("SELECT flow.wait({flow_id}, '20 s')"))?, "it has not ended");
        kit.named_flow("slow", r#"{"node": "a", "routine": "t.sleeps"}"#)?;
        let flow_id = kit.session.number("SELECT flow.run_flow('slow', '{}')")?;
        ensure!(!kit.session.truth(&format!("SELECT flow.wait({flow_id}, '200 ms')"))?, "it cannot have ended");
        Ok(())
    });
}

#[test]
fn prepare_transaction_is_refused_after_a_call_of_ours() {
    test("prepare", |kit| {
        kit.flow(r#"{"node": "a", "routine": "t.nothing"}"#)?;
        kit.session.run("BEGIN; SELECT flow.run_flow('f', '{}')")?;
        let error = kit.session.error("PREPARE TRANSACTION 'p'")?;
        kit.session.run("ROLLBACK")?;
        contains(&error, "PREPARE")?;
        same(kit.session.number("SELECT count(*) FROM pg_prepared_xacts")?, 0)?;
        // Transactions that have nothing to do with us are none of our business.
        kit.session.run("BEGIN; INSERT INTO t.log (what) VALUES ('x'); PREPARE TRANSACTION 'p'")?;
        kit.session.run("ROLLBACK PREPARED 'p'")
    });
}

#[test]
fn a_callback_cannot_leave_its_transaction_prepared() {
    test("prepare_inside", |kit| {
        kit.callback("prepares", "EXECUTE 'PREPARE TRANSACTION ''p''';")?;
        kit.flow(r#"{"node": "a", "routine": "t.prepares"}"#)?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Failed")?;
        same(kit.session.number("SELECT count(*) FROM pg_prepared_xacts")?, 0)
    });
}
