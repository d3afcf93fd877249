//! Queries that run in ClickHouse for long: how far they are, how they end when they are cancelled, that an INSERT whose
//! dispatcher dies is looked up and not done again.

use anyhow::ensure;
use pgflow_tests::cluster::Cluster;
use pgflow_tests::postmaster::signal;

use crate::kit::*;

#[test]
fn progress_rises_until_the_query_is_cancelled() {
    test("rising", |place| {
        let house = place.with_clickhouse()?;
        let task = place.push("house", "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1", "")?;
        let rows = format!("(SELECT rows FROM async.running() WHERE task_id = {task})");
        place.here.wait_until(&format!("{rows} > 0"), SOON)?;
        let first = place.sql.number(&format!("SELECT {rows}"))?;
        place.here.wait_until(&format!("{rows} > {first}"), SOON)?;
        same(
            place.sql.text(&format!(
                "SELECT concat_ws(' ', state, rows > {first}, bytes > 0, total_rows > 0) FROM async.v_task WHERE task_id = {task}"
            ))?,
            "Running t t t",
        )?;
        place.sql.run(&format!("SELECT async.cancel(ARRAY[{task}])"))?;
        wait_for("ClickHouse runs nothing", || {
            Ok(house.query("SELECT count() FROM system.processes WHERE current_database = 'rising'")? == "0")
        })?;
        place.ends(task, "Cancelled")?;
        place.wait_running(0)
    });
}

/// The INSERT goes on in ClickHouse, whoever had it done: the next dispatcher finds it by its name.
#[test]
fn an_insert_whose_dispatcher_dies_is_done_once() {
    let cluster = start(Cluster::options().durable());
    test_on(&cluster, away(), "looked_up", |place| {
        let house = place.with_clickhouse()?;
        house.query("CREATE TABLE looked_up.facts (round UInt8, n UInt64) ENGINE = MergeTree ORDER BY n")?;
        for round in 0..3 {
            let task = place.push(
                "house",
                "INSERT INTO facts SELECT {round:UInt8}, number FROM numbers(20) WHERE NOT ignore(sleepEachRow(0.1))
                 SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0, min_insert_block_size_rows = 1000",
                &format!(r#", _parameters => '{{"round": {round}}}'"#),
            )?;
            wait_for("the query runs", || {
                Ok(house.query("SELECT count() FROM system.processes WHERE current_database = 'looked_up' AND query LIKE 'INSERT%'")? == "1")
            })?;
            match round {
                0 => {
                    signal(place.dispatcher()?, "KILL")?;
                    wait_for("the server has noticed", || Ok(place.sql.text("SELECT 1").is_err()))?;
                }
                1 => {
                    cluster.kill_postmaster()?;
                    cluster.start()?;
                }
                _ => {
                    let dispatcher = place.dispatcher()?;
                    place.sql.run(&format!("SELECT pg_terminate_backend({dispatcher})"))?;
                }
            }
            pause(300);
            place.sql = cluster.connect_again("looked_up", "postgres")?;
            place.ends(task, "Finished")?;
            same(
                house.query(&format!("SELECT count(), uniqExact(n) FROM looked_up.facts WHERE round = {round}"))?,
                "20\t20",
            )?;
            ensure!(
                place.sql.number(&format!("SELECT attempt FROM async.task WHERE task_id = {task}"))? > 1,
                "nothing was lost"
            );
        }
        Ok(())
    });
}
