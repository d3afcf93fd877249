//! A snapshot held open does not slow the engine down, and what watches a run holds none.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use pgflow_tests::database::Database;
use pgflow_tests::session::Session;

use crate::kit::*;

const STEPS: i64 = 10_000;

fn timed(database: &Database, session: &mut Session) -> Result<Duration> {
    let begun = Instant::now();
    let flow_id = run(session, "f")?;
    database.wait_until(
        &format!("(SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id = {flow_id})"),
        Duration::from_secs(120),
    )?;
    same(
        session.number(&format!("SELECT count(*) FROM async.task WHERE flow_id = {flow_id} AND NOT failed"))?,
        STEPS + 1,
    )?;
    Ok(begun.elapsed())
}

#[test]
fn a_snapshot_held_open_does_not_slow_a_run_to_a_crawl() {
    test("held_snapshot", |database, session| {
        session.run("CREATE TABLE t.sink (i INT); CREATE TABLE t.busy (i INT PRIMARY KEY)")?;
        pushing(session, STEPS as usize)?;
        callback(session, "writes", "INSERT INTO t.sink VALUES ((_args.step_arguments->>'s')::INT);")?;
        configure(session, "f", r#"{"node": "a", "node_routine": "t.pushes", "step_routine": "t.writes"}"#)?;
        let mut holder = database.connect()?;
        let mut factors = Vec::new();
        for _ in 0..2 {
            let free = timed(database, session)?;
            holder.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM async.task")?;
            let held = timed(database, session)?;
            holder.run("COMMIT")?;
            let factor = held.as_secs_f64() / free.as_secs_f64();
            println!("{STEPS} steps: {free:.1?} free, {held:.1?} with a snapshot held: {factor:.2}");
            factors.push(factor);
            if factor < 3.0 {
                return Ok(());
            }
        }
        anyhow::bail!("held / free: {factors:.2?}")
    });
}

#[test]
fn watching_a_run_does_not_keep_vacuum_from_its_work() {
    test("watched", |database, session| {
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        wait_running(database, 1)?;
        let mut watcher = database.connect()?;
        watcher.run("SET application_name = 'watcher'")?;
        let watching = std::thread::spawn(move || watcher.run(&format!("CALL flow.watch({flow_id}, '5 s')")));
        // Each transaction has a snapshot of its own; other tests' transactions keep backend_xmin itself where it is.
        let snapshot = "SELECT coalesce(xact_start::TEXT, '') FROM pg_stat_activity WHERE application_name = 'watcher' AND datname = 'watched'";
        let mut first = String::new();
        wait_for("it looks", || {
            first = session.text(snapshot).unwrap_or_default();
            Ok(!first.is_empty())
        })?;
        let begun = Instant::now();
        let mut seen = first.clone();
        while seen == first && begun.elapsed() < Duration::from_secs(8) {
            session.run("INSERT INTO t.log (what) VALUES ('time goes by')")?;
            seen = session.text(snapshot)?;
            pause(50);
        }
        println!("transactions: from {first} to {seen:?} after {:.1?}", begun.elapsed());
        ensure!(seen != first && begun.elapsed() < Duration::from_secs(4), "its transaction of {first} goes on");
        open_gate(session)?;
        watching.join().map_err(|_| anyhow::anyhow!("panicked"))??;
        same(ended(database, flow_id)?, "a Finished")
    });
}
