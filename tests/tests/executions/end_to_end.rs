//! Executions from their submit to the deletion of their results, against a real ClickHouse.

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::{Database, SOON};
use pgflow_tests::failure::in_database;
use pgflow_tests::servers::clickhouse::ClickHouse;
use pgflow_tests::session::Session;

use crate::kit::*;

fn with_clickhouse(name: &str, body: impl FnOnce(&Database, &mut Session, &ClickHouse, &Shelf) -> Result<()>) {
    let cluster = Cluster::options()
        .setting("pgflow.purge_interval", "100ms")
        .start()
        .unwrap_or_else(|error| panic!("cannot start a cluster: {error:#}"));
    let clickhouse = ClickHouse::start().unwrap_or_else(|error| panic!("cannot start ClickHouse: {error:#}"));
    in_database(&cluster, name, |database| {
        let mut session = database.connect()?;
        database.role("ann")?;
        let shelf = Shelf::make(database, &mut session)?;
        let url =
            format!("http://{}:{}@127.0.0.1:{}", clickhouse.user(), clickhouse.password(), clickhouse.http_port());
        session.run(&format!(
            r#"SELECT async.configure('{{"targets": [{{"target": "warehouse", "kind": "clickhouse", "connection_string": "{url}"}}]}}');
               SELECT async.configure_executions(
                 _result => '{{"to": "object", "store": "shelf", "format": "json", "compression": "gzip"}}')"#
        ))?;
        let mut ann = database.connect_as("ann")?;
        body(database, &mut ann, &clickhouse, &shelf)
    });
}

#[test]
fn a_result_is_computed_kept_found_again_and_deleted() {
    with_clickhouse("whole", |database, ann, _, shelf| {
        let submit = "SELECT execution_id FROM async.submit(
            'SELECT number AS n, {site:String} AS s, length({key:String}) AS l FROM numbers({count:UInt32})', 'daily',
            _arguments => '{\"site\": \"docs\", \"count\": 5000}', _secrets => '{\"key\": \"hunter2\"}', _stale_after => '1 hour')";
        let id = ann.number(submit)?;
        let status =
            |word: &str| format!("(SELECT status FROM async.v_execution WHERE execution_id = {id}) = '{word}'");
        database.wait_until(&status("SUCCEEDED"), SOON)?;
        let task_id = ann.number(&format!("SELECT task_id FROM async.execution({id})"))?;
        same(
            ann.text(&format!("SELECT async.execution_result({id}, 2, 4998)"))?,
            r#"{"data": [{"l": 7, "n": 4998, "s": "docs"}, {"l": 7, "n": 4999, "s": "docs"}], "meta": [{"name": "n", "type": "UInt64"}, {"name": "s", "type": "String"}, {"name": "l", "type": "UInt64"}], "rows": 5000}"#
                .replace("\\", ""),
        )?;
        same(ann.number(&format!("SELECT count(*) FROM async.fetch_result({task_id})"))?, 5000)?;
        // Fresh enough: nothing runs.
        same(ann.number(submit)?, id)?;
        same(database.connect()?.number("SELECT count(*) FROM async.task_secret")?, 0)?;
        // Gone when it is dropped: the dispatcher deletes the file.
        let files = || -> Result<usize> { Ok(std::fs::read_dir(&shelf.directory)?.count()) };
        same(files()?, 1)?;
        ann.run(&format!("SELECT async.drop_result({task_id})"))?;
        database.wait_until(&format!("NOT EXISTS (SELECT FROM async.result WHERE task_id = {task_id})"), SOON)?;
        same(files()?, 0)
    });
}

#[test]
fn a_long_query_shows_its_progress_and_is_killed_when_cancelled() {
    with_clickhouse("long", |database, ann, clickhouse, _| {
        let id = ann.number(
            "SELECT execution_id FROM async.submit('SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1')",
        )?;
        let is = |condition: &str| format!("(SELECT {condition} FROM async.v_execution WHERE execution_id = {id})");
        database.wait_until(&is("status = 'RUNNING' AND (progress->>'rows')::BIGINT > 0"), SOON)?;
        ann.run(&format!("SELECT async.cancel_execution({id}, 'enough')"))?;
        database.wait_until(&is("status = 'CANCELED' AND error = 'enough'"), SOON)?;
        for _ in 0..400 {
            let running = clickhouse.query("SELECT count() FROM system.processes WHERE query LIKE '%sipHash64(number) = 1%' AND query NOT LIKE '%system.processes%'")?;
            if running.trim() == "0" {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        ensure!(false, "the query still runs");
        Ok(())
    });
}

#[test]
fn a_failed_query_says_what_clickhouse_said() {
    with_clickhouse("failed", |database, ann, _, _| {
        let id = ann.number("SELECT execution_id FROM async.submit('SELECT nothing FROM nowhere')")?;
        let is = |condition: &str| format!("(SELECT {condition} FROM async.v_execution WHERE execution_id = {id})");
        database.wait_until(&is("status = 'FAILED'"), SOON)?;
        let error = ann.text(&format!("SELECT error FROM async.execution({id})"))?;
        ensure!(error.contains("nowhere") && error.contains("60"), "{error}");
        // The next submit is a new one.
        same(ann.text("SELECT collapsed FROM async.submit('SELECT nothing FROM nowhere')")?, "f".into())
    });
}
