//! Executions from their submit to the deletion of their results, against a real ClickHouse.

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::{Database, SOON};
use pgflow_tests::failure::in_database;
use pgflow_tests::servers::clickhouse::ClickHouse;
use pgflow_tests::servers::s3::S3;
use pgflow_tests::session::Session;

use crate::kit::*;

fn with_clickhouse(name: &str, body: impl FnOnce(&Database, &mut Session, &ClickHouse, &Shelf) -> Result<()>) {
    let cluster = Cluster::options().start().unwrap_or_else(|error| panic!("cannot start a cluster: {error:#}"));
    let clickhouse = ClickHouse::start().unwrap_or_else(|error| panic!("cannot start ClickHouse: {error:#}"));
    in_database(&cluster, name, |database| {
        let mut session = database.connect()?;
        database.role("ann")?;
        let shelf = Shelf::make(database, &mut session)?;
        let url =
            format!("http://{}:{}@127.0.0.1:{}", clickhouse.user(), clickhouse.password(), clickhouse.http_port());
        session.run(&format!(
            r#"SELECT async.configure('{{"targets": [{{"target": "warehouse", "kind": "clickhouse", "connection_string": "{url}",
                 "options": {{"export_credentials": "shared"}}}}]}}');
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

/// As Dekart's users have it: ClickHouse writes the file, at a place made of the report and the query.
#[test]
fn an_export_lies_where_the_path_says_and_its_status_is_in_their_words() {
    with_clickhouse("export", |database, ann, _, _| {
        let s3 = S3::start()?;
        database.connect()?.run(&format!(
            r#"SELECT async.configure('{{"stores": [{{"store": "shelf", "url": "{}"}}, {{"store": "dekart", "url": "{}",
                 "options": {{"endpoint": "{}", "allow_http": "true", "region": "us-east-1", "access_key_id": "{}",
                              "secret_access_key": "{}"}}}}]}}')"#,
            database.connect()?.text("SELECT url FROM async.store")?,
            s3.url("files"),
            s3.endpoint(),
            s3.access_key(),
            s3.secret_key()
        ))?;
        let id = ann.number(
            r#"SELECT async.push_query('warehouse', 'SELECT number AS n, toString(number) AS t FROM numbers(10);',
                 _task_data => '{"report": "7c1e", "query": "41aa"}', _timeout => '10 minutes',
                 _result => '{"to": "export", "store": "dekart", "path": "{report}/{query}/result", "format": "csv"}')"#,
        )?;
        database.wait_until(
            &format!("(SELECT status IN ('DONE', 'FAILED') FROM async.v_dekart_job WHERE task_id = {id})"),
            SOON,
        )?;
        let job = "SELECT concat_ws(' ', report, query, status, location, error) FROM async.v_dekart_job";
        same(ann.text(job)?, format!("7c1e 41aa DONE {}/7c1e/41aa/result.csv", s3.url("files")))?;
        let file = s3.bucket_directory().join("files/7c1e/41aa/result.csv");
        let size = std::fs::metadata(&file)?.len() as i64;
        same(ann.number("SELECT result_size FROM async.v_dekart_job")?, size)?;
        same(
            ann.text(&format!("SELECT string_agg(f->>'t', '') FROM async.fetch_result({id}) AS f"))?,
            "0123456789".into(),
        )?;
        let url = ann.text(&format!("SELECT async.result_url({id})"))?;
        ensure!(url.starts_with(&s3.endpoint()) && !url.contains(s3.secret_key()), "{url}");
        ann.run(&format!("SELECT async.drop_result({id})"))?;
        database.wait_until("NOT EXISTS (SELECT FROM async.result)", SOON)?;
        ensure!(!file.exists(), "the file is still there");
        Ok(())
    });
}
