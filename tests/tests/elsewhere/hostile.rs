//! What users write, and what they lock, must neither end the dispatcher nor hold it up: the task at fault fails, the others
//! run, the process stays the same.

use anyhow::Result;
use pgflow_tests::database::Kind;

use crate::kit::*;

/// The dispatcher that there is now; the test fails if it is another at the end.
fn with_one_dispatcher(name: &str, body: impl FnOnce(&mut Place) -> Result<()>) {
    test(name, |place| {
        let first = place.push("there", "SELECT 1", "")?;
        place.ends(first, "Finished")?;
        let before = place.here.pids(Kind::Dispatcher)?;
        body(place)?;
        let last = place.push("there", "SELECT 1", "")?;
        place.ends(last, "Finished")?;
        same(place.here.pids(Kind::Dispatcher)?, before)
    });
}

#[test]
fn data_that_cannot_be_read_fails_its_task() {
    with_one_dispatcher("unreadable", |place| {
        place.sql.run("SELECT async.pause()")?;
        let deep = "SELECT async.push_query('there', 'SELECT 1',
                      _task_data => (repeat('[', 300) || repeat(']', 300))::jsonb)";
        let deep = place.sql.number(deep)?;
        let long = place.push("there", "SELECT 1", ", _timeout => '178000000 years'")?;
        let good = place.push("there", "INSERT INTO t.log (what) VALUES ('good')", "")?;
        place.sql.run("SELECT async.resume()")?;
        place.ends(good, "Finished")?;
        place.ends(long, "Finished")?;
        place.ends(deep, "Failed")
    });
}

#[test]
fn a_store_that_was_dropped_fails_the_runs_that_want_it() {
    with_one_dispatcher("no_store", |place| {
        place.sql.run(
            "SELECT async.configure('{\"stores\": [{\"store\": \"gone\", \"url\": \"file:///tmp/pgflow-no-such\"}]}')",
        )?;
        place.flow(
            "f",
            r#"{"node": "a", "target": "there", "query": "SELECT 1", "result": {"to": "object", "store": "gone", "format": "csv"}}"#,
        )?;
        place.sql.run("SELECT async.drop_store('gone')")?;
        let run = place.sql.rows("SELECT flow.run_flow('f', '{}')");
        // Refused at once, or failed: never the end of the dispatcher.
        if run.is_ok() {
            place.here.wait_until("(SELECT bool_and(processed IS NOT NULL) FROM flow.flow)", SOON)?;
            same(place.sql.text("SELECT string_agg(status, ' ') FROM flow.v_flow_node_status")?, "Failed")?;
        }
        Ok(())
    });
}

#[test]
fn a_task_that_is_restarted_while_its_old_attempt_is_being_stopped_waits_for_that() {
    with_one_dispatcher("restarted", |place| {
        let task = place.push("there", "SELECT pg_sleep(600)", "")?;
        place.wait_state(task, "Running")?;
        for _ in 0..5 {
            place.sql.run(&format!("SELECT async.cancel(ARRAY[{task}]); SELECT async.restart_task({task})"))?;
            place.wait_state(task, "Running")?;
        }
        place.sql.run(&format!("SELECT async.cancel(ARRAY[{task}])"))?;
        place.here.wait_until("NOT EXISTS (SELECT FROM async.running())", SOON)?;
        // No place of the pool is lost.
        place.here.wait_until("(SELECT running = 0 FROM async.pool_use() WHERE concurrency_pool = 'there')", SOON)?;
        let left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active' AND pid <> pg_backend_pid()";
        same(place.there()?.number(left)?, 0)
    });
}

#[test]
fn a_row_that_a_client_has_locked_is_written_when_it_is_free_and_keeps_what_was_decided() {
    with_one_dispatcher("locked", |place| {
        place.sql.run("SELECT async.pause()")?;
        let task = place.push("there", "SELECT pg_sleep(1)", "")?;
        place.sql.run("SELECT async.resume()")?;
        place.wait_state(task, "Running")?;
        // As flow.finish in a callback there would have it.
        place.sql.run(&format!(
            "INSERT INTO async.decision (task_id, attempt, status, message) VALUES ({task}, 1, 'FAILED', 'no good')"
        ))?;
        let mut holder = place.here.connect()?;
        holder.run(&format!("BEGIN; SELECT FROM async.task WHERE task_id = {task} FOR UPDATE"))?;
        let dispatcher = place.here.pids(Kind::Dispatcher)?[0];
        let other = place.push("there", "SELECT pg_sleep(2)", "")?;
        place.ends(other, "Finished")?;
        // It does not spin meanwhile: 3 s at full speed would be 300 ticks.
        let ticks = || -> Result<i64> {
            let stat = std::fs::read_to_string(format!("/proc/{dispatcher}/stat"))?;
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
            Ok(fields[11].parse::<i64>()? + fields[12].parse::<i64>()?)
        };
        let before = ticks()?;
        std::thread::sleep(std::time::Duration::from_secs(3));
        let spent = ticks()? - before;
        anyhow::ensure!(spent < 150, "the dispatcher spent {spent} ticks in 3 s on a row it cannot have");
        holder.run("ROLLBACK")?;
        // By itself, not when the tables are compared with the memory, once a minute.
        let is_failed = format!("(SELECT state = 'Failed' FROM async.v_task WHERE task_id = {task})");
        place.here.wait_until(&is_failed, std::time::Duration::from_secs(40))?;
        contains(&place.error(task)?, &["no good"])
    });
}
