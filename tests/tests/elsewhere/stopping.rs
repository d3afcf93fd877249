//! Stopping work that runs elsewhere: cancelled runs and tasks, databases that are dropped, servers that stop, pauses.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use pgflow_tests::cluster::{Cluster, Stop};
use pgflow_tests::database::Kind;
use pgflow_tests::servers::proxy::Proxy;

use crate::flows::nothing_runs;
use crate::kit::*;

const LONG: &str = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number, {n:UInt32}) = 1";
/// What must not take minutes, on a machine that is busy.
const A_WHILE: Duration = Duration::from_secs(45);

#[test]
fn a_cancelled_run_stops_what_it_runs_elsewhere() {
    test("cancelled", |place| {
        let house = place.with_clickhouse()?;
        place.flow(
            "f",
            &format!(
                r#"{{"node": "a", "target": "there", "empty": true, "step_routine": "t.waits", "steps": [{{"s": 1}}, {{"s": 2}}]}},
                   {{"node": "b", "target": "house", "query": "{LONG}", "parameters": {{"n": 77}}}},
                   {{"node": "c", "target": "web", "request": {{"path": "/gate"}}}}"#
            ),
        )?;
        let flow_id = place.run("f")?;
        place.wait_running(4)?;
        let ours = "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64(number, %' AND current_database = 'cancelled'";
        wait_for("the query runs", || Ok(house.query(ours)? == "1"))?;
        place.there.wait_until("(SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name ~ '^pgflow-.*[0-9]$' AND state = 'active' AND datname = current_database())", SOON)?;
        place.sql.run(&format!("SELECT flow.cancel({flow_id})"))?;
        same(place.ended(flow_id)?, "a Cancelled, b Cancelled, c Cancelled")?;
        nothing_runs(place)?;
        wait_for("ClickHouse runs nothing", || Ok(house.query(ours)? == "0"))?;
        place.wait_running(0)?;
        // What was rolled back there has left nothing.
        same(place.there()?.number("SELECT count(*) FROM t.log")?, 0)
    });
}

#[test]
fn a_cancelled_task_stops_and_the_same_target_goes_on() {
    test("one_cancelled", |place| {
        let long = place.push("there", "SELECT pg_sleep(600)", "")?;
        place.wait_running(1)?;
        place.sql.run(&format!("SELECT async.cancel(ARRAY[{long}])"))?;
        place.ends(long, "Cancelled")?;
        nothing_runs(place)?;
        let next = place.push("there", "INSERT INTO t.log (what) VALUES ('next')", "")?;
        place.ends(next, "Finished")
    });
}

#[test]
fn a_time_out_of_a_task_stops_it_and_counts_from_its_first_start() {
    test("task_timed", |place| {
        let house = place.with_clickhouse()?;
        let tasks = [
            place.push("there", "SELECT pg_sleep(600)", ", _timeout => '500 ms'")?,
            place.push("house", LONG, r#", _parameters => '{"n": 1}', _timeout => '500 ms'"#)?,
            place.request(r#"{"path": "/gate"}"#, ", _timeout => '500 ms'")?,
        ];
        for task in tasks {
            place.ends(task, "Timed Out")?;
            contains(&place.error(task)?, &["time"])?;
        }
        nothing_runs(place)?;
        wait_for("ClickHouse runs nothing", || {
            Ok(house.query("SELECT count() FROM system.processes WHERE current_database = 'task_timed'")? == "0")
        })
    });
}

#[test]
fn paused_nothing_is_sent_and_what_was_sent_goes_on() {
    test("paused_elsewhere", |place| {
        let first = place.request(r#"{"path": "/gate"}"#, "")?;
        place.wait_running(1)?;
        place.sql.run("SELECT async.pause()")?;
        let second = place.request(r#"{"path": "/ok"}"#, "")?;
        pause(500);
        same(place.state(first)?, "Running")?;
        same(place.state(second)?, "Pending")?;
        same(place.web.asked("/ok").len(), 0)?;
        place.web.open_gate();
        place.ends(first, "Finished")?;
        place.sql.run("SELECT async.resume()")?;
        place.ends(second, "Finished")
    });
}

#[test]
fn drain_waits_for_what_runs_elsewhere() {
    test("drained_elsewhere", |place| {
        let task = place.request(r#"{"path": "/gate"}"#, "")?;
        place.wait_running(1)?;
        same(place.sql.truth("SELECT async.drain('300 ms')")?, false)?;
        place.web.open_gate();
        place.ends(task, "Finished")?;
        same(place.sql.truth("SELECT async.drain('30 s')")?, true)
    });
}

/// The other side does not answer, not even to a request to cancel.
#[test]
fn a_database_can_be_dropped_while_its_work_hangs_elsewhere() {
    test("doomed", |place| {
        let proxy = Proxy::to(place.there.cluster.port())?;
        let string = string_by(&place.there, proxy.port());
        place.target("far", &format!(r#""connection_string": "{string}""#), "")?;
        place.push("far", "SELECT pg_sleep(600)", "")?;
        place.push("there", "SELECT pg_sleep(600)", "")?;
        place.wait_running(2)?;
        wait_for("it was sent", || Ok(proxy.open() > 0))?;
        pause(200);
        proxy.stall();
        place.sql = place.here.cluster.connect("postgres", "postgres")?;
        let begun = Instant::now();
        place.sql.run("DROP DATABASE doomed")?;
        ensure!(begun.elapsed() < A_WHILE, "it took {:.1?}", begun.elapsed());
        // The one that nobody could be told to cancel goes on; the other does not.
        place.there.wait_until(
            "(SELECT count(*) <= 1 FROM pg_stat_activity WHERE application_name ~ '^pgflow-.*[0-9]$' AND state = 'active' AND datname = current_database())",
            SOON,
        )?;
        place.there()?.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^pgflow-.*[0-9]$' AND datname = current_database()")?;
        proxy.heal();
        // For whoever reports on a failure.
        place.here.cluster.plain_database("doomed")?;
        Ok(())
    });
}

#[test]
fn the_extension_can_be_dropped_while_its_work_runs_elsewhere() {
    test("dropped", |place| {
        place.push("there", "SELECT pg_sleep(600)", "")?;
        place.wait_running(1)?;
        let begun = Instant::now();
        place.sql.run("DROP EXTENSION pgflow CASCADE")?;
        ensure!(begun.elapsed() < A_WHILE, "it took {:.1?}", begun.elapsed());
        nothing_runs(place)?;
        place.sql.run("CREATE EXTENSION pgflow")?;
        place.sql.run("SELECT async.push_task(async.task('SELECT 1'))")?;
        place.wait_all()
    });
}

/// What ran when the server stopped is looked up and done when it starts again, by the same attempt or another, once.
#[test]
fn a_server_stops_in_time_with_work_elsewhere_and_goes_on_with_it() {
    let cluster = start(Cluster::options());
    test_on(&cluster, away(), "stopped", |place| {
        place.flow("f", r#"{"node": "a", "target": "there", "routine": "t.waits"}"#)?;
        let flow_id = place.run("f")?;
        place.wait_running(1)?;
        for stop in [Stop::Fast, Stop::Immediate] {
            let begun = Instant::now();
            cluster.stop(stop)?;
            ensure!(begun.elapsed() < A_WHILE, "{stop:?} took {:.1?}", begun.elapsed());
            cluster.start()?;
            place.sql = cluster.connect_again("stopped", "postgres")?;
            place.wait_running(1)?;
        }
        place.there()?.run("INSERT INTO t.gate VALUES (1)")?;
        same(place.ended(flow_id)?, "a Finished")?;
        same(place.there()?.text("SELECT string_agg(what, ' ') FROM t.log")?, "a")
    });
}

#[test]
fn a_terminated_dispatcher_is_replaced_and_its_work_done_once() {
    test("replaced", |place| {
        let tasks: Vec<i64> = (0..3)
            .map(|n| place.push("there", &format!("INSERT INTO t.log (what) SELECT '{n}' FROM pg_sleep(1)"), ""))
            .collect::<Result<_>>()?;
        place.wait_running(3)?;
        let dispatcher = place.dispatcher()?;
        place.sql.run(&format!("SELECT pg_terminate_backend({dispatcher})"))?;
        wait_for("another dispatcher is there", || {
            Ok(place.here.pids(Kind::Dispatcher)?.iter().any(|pid| *pid != dispatcher))
        })?;
        for task in tasks {
            place.ends(task, "Finished")?;
        }
        same(place.there()?.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")?, "0 1 2")
    });
}
