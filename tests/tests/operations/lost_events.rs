//! More is announced than the dispatcher's queue of events holds: what it is not told it finds in the tables.

use pgflow_tests::cluster::Cluster;

use crate::kit::*;

/// Smaller than what each of these transactions announces: its last events are lost.
const FEW: &str = "16";

#[test]
fn a_pause_and_a_resume_are_heard() {
    test_alone("lost", Cluster::options().setting("pgflow.event_queue_size", FEW), |database, session| {
        let push = "SELECT async.push_tasks(ARRAY[async.task('SELECT 1')], NULL) FROM generate_series(1, 100)";
        session.run("CREATE TABLE t.seen (i INT)")?;
        session.run(&format!("BEGIN; {push}; SELECT async.pause(); COMMIT"))?;
        session.run("SELECT async.push_tasks(ARRAY[async.task('INSERT INTO t.seen VALUES (1)')], NULL)")?;
        pause(500);
        same(session.number("SELECT count(*) FROM t.seen")?, 0)?;
        session.run(&format!("BEGIN; {push}; SELECT async.resume(); COMMIT"))?;
        database.wait_until("(SELECT count(*) = 201 FROM async.v_task WHERE processed IS NOT NULL)", SOON)
    });
}

#[test]
fn a_cancel_stops_what_runs() {
    test_alone("stopped", Cluster::options().setting("pgflow.event_queue_size", FEW), |database, session| {
        configure_one(session, "long", "t.waits")?;
        let run = run(session, "long")?;
        database.wait_until("EXISTS (SELECT FROM async.running())", SOON)?;
        let push = "SELECT async.push_tasks(ARRAY[async.task('SELECT 1')], NULL) FROM generate_series(1, 100)";
        session.run(&format!("BEGIN; {push}; SELECT flow.cancel({run}); COMMIT"))?;
        database.wait_until("NOT EXISTS (SELECT FROM async.running())", SOON)
    });
}
