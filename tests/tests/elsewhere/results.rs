//! What queries return: kept inline, in tables, in stores; read by those who may; deleted when it is over.

use anyhow::{ensure, Result};
use pgflow_tests::postmaster::signal;
use pgflow_tests::session::Session;

use crate::kit::*;

/// Stores `shelf` (a directory) and `cloud` (S3); the directory.
fn stores(place: &mut Place) -> Result<std::path::PathBuf> {
    let directory = shelf(&place.here)?;
    let (server, prefix) = (s3(), place.here.name.clone());
    place.sql.run(&format!(
        r#"SELECT async.configure('{{"stores": [
             {{"store": "shelf", "url": "file://{}"}},
             {{"store": "cloud", "url": "{}", "options": {{"endpoint": "{}", "allow_http": "true", "region": "us-east-1",
               "aws_access_key_id": "{}", "aws_secret_access_key": "{}"}}}}]}}')"#,
        directory.display(),
        server.url(&prefix),
        server.endpoint(),
        server.access_key(),
        server.secret_key()
    ))?;
    Ok(directory)
}

fn fetched(sql: &mut Session, task: i64) -> Result<String> {
    // CSV knows no types: everything comes back as text.
    sql.text(&format!("SELECT string_agg(concat_ws(' ', r->>'n', r->>'t'), ', ' ORDER BY (r->>'n')::INT) FROM async.fetch_result({task}) r"))
}

const ROWS: &str = "1 one, 2 two";
/// The same rows from each kind of target, as (target, query); a request for HTTP.
const QUERIES: [(&str, &str); 3] = [
    ("there", "SELECT n, t FROM (VALUES (1, 'one'), (2, 'two')) AS x(n, t)"),
    ("house", "SELECT toInt32(number + 1) AS n, ['one', 'two'][n] AS t FROM numbers(2)"),
    ("local", "SELECT n, t FROM (VALUES (1, 'one'), (2, 'two')) AS x(n, t)"),
];

/// Pushes the same work to every kind, keeping its rows in this way.
fn push_all(place: &mut Place, result: &str) -> Result<Vec<i64>> {
    let more = format!(", _result => '{result}'");
    let mut tasks: Vec<i64> =
        QUERIES.iter().map(|(target, query)| place.push(target, query, &more)).collect::<Result<_>>()?;
    tasks.push(place.request(r#"{"path": "/rows"}"#, &more)?);
    Ok(tasks)
}

#[test]
fn rows_come_back_inline_from_everywhere() {
    test("inline", |place| {
        place.with_clickhouse()?;
        for task in push_all(place, r#"{"to": "inline"}"#)? {
            place.ends(task, "Finished")?;
            same(fetched(&mut place.sql, task)?, ROWS)?;
            same(
                place.sql.text(&format!(
                    "SELECT kind_of_result || ' ' || rows FROM async.v_result WHERE task_id = {task}"
                ))?,
                "inline 2",
            )?;
            same(place.sql.text(&format!("SELECT async.fetch_result({task}, 1, 1)"))?, r#"{"n": 2, "t": "two"}"#)?;
        }
        // More than may be kept fails, and nothing is left.
        for (target, query) in QUERIES {
            let task = place.push(target, query, r#", _result => '{"to": "inline", "max_rows": 1}'"#)?;
            place.ends(task, "Failed")?;
            same(place.sql.number(&format!("SELECT count(*) FROM async.result WHERE task_id = {task}"))?, 0)?;
        }
        Ok(())
    });
}

#[test]
fn rows_come_back_into_tables_from_everywhere() {
    test("tables", |place| {
        place.with_clickhouse()?;
        for (i, task) in push_all(place, r#"{"to": "table", "table": "t.made"}"#)?.into_iter().enumerate() {
            place.ends(task, "Finished")?;
            same(place.sql.text(&format!("SELECT kind_of_result || ' ' || location || ' ' || rows FROM async.v_result WHERE task_id = {task}"))?, "table t.made 2")?;
            ensure!(i < 4, "{i}");
        }
        same(
            place.sql.text("SELECT string_agg(n || t, ' ' ORDER BY n) FROM (SELECT DISTINCT n, t FROM t.made) x")?,
            "1one 2two",
        )?;
        same(place.sql.number("SELECT count(*) FROM t.made")?, 8)?;
        // An existing one, with other columns, a default and a trigger.
        place.sql.run(
            "CREATE TABLE t.mine (t TEXT, made_by NAME DEFAULT current_user, n NUMERIC(10, 2) CHECK (n < 100), extra TEXT);
             CREATE FUNCTION t.marks() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN NEW.extra := 'trigger'; RETURN NEW; END $$;
             CREATE TRIGGER marks BEFORE INSERT ON t.mine FOR EACH ROW EXECUTE FUNCTION t.marks()",
        )?;
        let into = r#", _result => '{"to": "table", "table": "t.mine", "truncate": true}'"#;
        for (target, query) in QUERIES {
            let task = place.push(target, query, into)?;
            place.ends(task, "Finished")?;
            same(
                place
                    .sql
                    .text("SELECT string_agg(concat_ws(' ', n, t, made_by, extra), ', ' ORDER BY n) FROM t.mine")?,
                "1.00 one postgres trigger, 2.00 two postgres trigger",
            )?;
        }
        let task = place.push("house", "SELECT toInt32(200) AS n, 'x' AS t", into)?;
        place.ends(task, "Failed")?;
        contains(&place.error(task)?, &["mine_n_check"])?;
        same(place.sql.number("SELECT count(*) FROM t.mine")?, 2)
    });
}

#[test]
fn a_table_is_written_with_the_rights_of_the_role() {
    test("rights", |place| {
        place.with_clickhouse()?;
        place.here.role("writer")?;
        place.here.role("stranger")?;
        place.sql.run("CREATE TABLE t.closed (n INT, t TEXT); CREATE SCHEMA closed")?;
        let mut writer = place.here.connect_as("writer")?;
        for (target, query) in QUERIES {
            for (table, part) in [
                ("t.closed", "permission denied for table closed"),
                ("closed.made", "permission denied for schema closed"),
            ] {
                let task = writer.number(&format!(
                    r#"SELECT async.push_query('{target}', $q${query}$q$, _result => '{{"to": "table", "table": "{table}"}}')"#
                ))?;
                place.ends(task, "Failed")?;
                contains(&place.error(task)?, &[part])?;
            }
            let task = writer.number(&format!(
                r#"SELECT async.push_query('{target}', $q${query}$q$, _result => '{{"to": "table", "table": "t.by_{target}"}}')"#
            ))?;
            place.ends(task, "Finished")?;
            same(
                place.sql.text(&format!("SELECT tableowner FROM pg_tables WHERE tablename = 'by_{target}'"))?,
                "writer",
            )?;
            same(fetched(&mut writer, task)?, ROWS)?;
            let mut stranger = place.here.connect_as("stranger")?;
            contains(&stranger.error(&format!("SELECT async.fetch_result({task})"))?, &["no result of task"])?;
        }
        same(place.sql.number("SELECT count(*) FROM t.closed")?, 0)
    });
}

#[test]
fn rows_come_back_as_objects_of_every_format_and_are_deleted_once() {
    test("objects", |place| {
        place.with_clickhouse()?;
        let directory = stores(place)?;
        place.here.role("stranger")?;
        let bucket = s3().bucket_directory().join("objects");
        let mut all = Vec::new();
        for store in ["shelf", "cloud"] {
            for (format, compression) in [("parquet", "zstd"), ("csv", "gzip"), ("json", "none"), ("arrow", "none")] {
                let result = format!(
                    r#"{{"to": "object", "store": "{store}", "format": "{format}", "compression": "{compression}", "path": "{format}/{{task_id}}-{{attempt}}"}}"#
                );
                all.extend(push_all(place, &result)?);
            }
        }
        for task in &all {
            place.ends(*task, "Finished")?;
            same(fetched(&mut place.sql, *task)?, ROWS)?;
        }
        same((files(&directory)?.len(), files(&bucket)?.len()), (16, 16))?;
        let mut stranger = place.here.connect_as("stranger")?;
        contains(&stranger.error(&format!("SELECT async.fetch_result({})", all[0]))?, &["no result of task"])?;
        contains(&stranger.error(&format!("SELECT async.result_url({})", all[0]))?, &["no result of task"])?;
        let url = place.sql.text(&format!("SELECT async.result_url({})", all[31]))?;
        ensure!(url.starts_with("http") && !url.contains(s3().secret_key()), "{url}");
        // All over now; none is there any more, and nothing else is gone.
        std::fs::write(directory.join("parquet/other"), "kept")?;
        place.sql.run(&format!("SELECT count(async.drop_result(i)) FROM unnest(ARRAY{all:?}) i"))?;
        place.here.wait_until("NOT EXISTS (SELECT FROM async.result)", SOON)?;
        same(files(&directory)?, vec!["parquet/other".to_owned()])?;
        same(files(&bucket)?.len(), 0)?;
        // By its time.
        let task = place.push(
            "there",
            QUERIES[0].1,
            r#", _result => '{"to": "object", "store": "shelf", "format": "json", "keep_for": "1 second"}'"#,
        )?;
        place.ends(task, "Finished")?;
        place.here.wait_until("NOT EXISTS (SELECT FROM async.result)", SOON)?;
        same(files(&directory)?, vec!["parquet/other".to_owned()])
    });
}

#[test]
fn clickhouse_exports_by_itself() {
    test("exports", |place| {
        place.with_clickhouse()?;
        stores(place)?;
        for format in ["parquet", "csv", "json"] {
            let task = place.push(
                "house",
                QUERIES[1].1,
                &format!(r#", _result => '{{"to": "export", "store": "cloud", "format": "{format}", "path": "x/{{task_id}}"}}'"#),
            )?;
            place.ends(task, "Finished")?;
            same(fetched(&mut place.sql, task)?, ROWS)?;
        }
        same(files(&s3().bucket_directory().join("exports"))?.len(), 3)
    });
}

/// Nobody but the worker knew of the object.
#[test]
fn a_local_query_whose_transaction_fails_at_its_end_leaves_no_object() {
    test("late_failure", |place| {
        let directory = stores(place)?;
        place.sql.run(
            "CREATE TABLE t.checked (n INT);
             CREATE FUNCTION t.refuses() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN RAISE 'too late'; END $$;
             CREATE CONSTRAINT TRIGGER refuses AFTER INSERT ON t.checked DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION t.refuses()",
        )?;
        let result = r#", _result => '{"to": "object", "store": "shelf", "format": "csv", "path": "late"}'"#;
        let task = place.push("local", "INSERT INTO t.checked VALUES (1), (2) RETURNING n", result)?;
        place.ends(task, "Failed")?;
        contains(&place.error(task)?, &["too late"])?;
        wait_for("nothing is left", || Ok(files(&directory)?.is_empty()))?;
        place.here.wait_until("NOT EXISTS (SELECT FROM async.result)", SOON)?;
        // What a failed attempt had stored is no business of the next task of the same worker.
        let task = place.push("local", QUERIES[2].1, result)?;
        place.ends(task, "Finished")?;
        let failed = place.push("local", "SELECT 1 / 0", "")?;
        place.ends(failed, "Failed")?;
        same(fetched(&mut place.sql, task)?, ROWS)
    });
}

#[test]
fn values_that_cannot_be_kept_fail_instead_of_becoming_null() {
    test("deep", |place| {
        stores(place)?;
        for result in [
            r#""inline""#,
            r#"{"to": "table", "table": "t.deep"}"#,
            r#"{"to": "object", "store": "shelf", "format": "json"}"#,
        ] {
            for levels in [101, 126, 200] {
                let query = format!("SELECT 1 AS n, (repeat('[', {levels}) || repeat(']', {levels}))::JSON AS j");
                let task = place.push("local", &query, &format!(", _result => '{result}'"))?;
                place.ends(task, "Failed")?;
                contains(&place.error(task)?, &["nested more than 100 levels deep"])?;
            }
            let query = "SELECT 1 AS n, (repeat('[', 100) || repeat(']', 100))::JSON AS t";
            let task = place.push("local", query, &format!(", _result => '{result}'"))?;
            place.ends(task, "Finished")?;
            same(
                place
                    .sql
                    .number(&format!("SELECT length(replace(r->>'t', ' ', '')) FROM async.fetch_result({task}) r"))?,
                200,
            )?;
            place.sql.run("DROP TABLE IF EXISTS t.deep")?;
        }
        Ok(())
    });
}

#[test]
fn a_statement_that_returns_nothing_empties_the_table_it_was_to_fill() {
    test("nothing", |place| {
        place.sql.run("CREATE TABLE t.mine AS SELECT 1 AS n")?;
        let query = "CREATE TEMP TABLE nothing ()";
        for (more, left) in [("", 1), (r#", "truncate": true"#, 0)] {
            let result = format!(r#", _result => '{{"to": "table", "table": "t.mine"{more}}}'"#);
            let task = place.push("there", query, &result)?;
            place.ends(task, "Finished")?;
            same(place.sql.text(&format!("SELECT location FROM async.v_result WHERE task_id = {task}"))?, "t.mine")?;
            same(place.sql.number("SELECT count(*) FROM t.mine")?, left)?;
        }
        let task = place.push("there", query, r#", _result => '{"to": "table", "table": "t.none"}'"#)?;
        place.ends(task, "Finished")?;
        same(place.sql.number(&format!("SELECT count(*) FROM async.fetch_result({task})"))?, 0)
    });
}

#[test]
fn secrets_of_a_task_that_fills_a_table_end_with_it() {
    test("table_secrets", |place| {
        let more = r#", _secrets => '{"key": "4711"}', _result => '{"to": "table", "table": "t.made"}'"#;
        for (query, state) in [("SELECT {key:int} AS n", "Finished"), ("SELECT {key:int} / 0 AS n", "Failed")] {
            let task = place.push("there", query, more)?;
            place.ends(task, state)?;
            same(place.sql.number(&format!("SELECT count(*) FROM async.task_secret WHERE task_id = {task}"))?, 0)?;
        }
        same(place.sql.text("SELECT n FROM t.made")?, "4711")
    });
}

/// What a client has locked, the engine leaves for later instead of waiting.
#[test]
fn bookkeeping_of_results_never_waits_for_a_client() {
    test("patient", |place| {
        place.sql.run("SET lock_timeout = '5s'")?;
        let task = place.push("there", QUERIES[0].1, r#", _result => '"inline"'"#)?;
        place.ends(task, "Finished")?;
        let submitted = place.sql.number(
            r#"SELECT task_id FROM async.submit('SELECT 1 AS n', 'one', _target => 'there', _result => '"inline"')"#,
        )?;
        place.ends(submitted, "Finished")?;
        let mut client = place.here.connect()?;
        client.run(&format!(
            "BEGIN; SELECT async.drop_result({task}); SELECT async.drop_result({submitted});
             SELECT 1 FROM async.execution FOR UPDATE"
        ))?;
        // A new result of the first one, from another attempt; then it is purged. The other one stays.
        place.sql.run(&format!(
            r#"SELECT async.record_result({task}, 2, '{{"kept_as": "inline", "content": [{{"n": 7}}]}}')"#
        ))?;
        place.sql.run("SELECT async.expire_results(100)")?;
        place.sql.run("SELECT async.expire_executions(100)")?;
        same(place.sql.number(&format!("SELECT attempt FROM async.result WHERE task_id = {task}"))?, 1)?;
        same(place.sql.number("SELECT async.purge('0 s', NULL, 0)")?, 0)?;
        client.run("ROLLBACK")?;
        // As the dispatcher does, which does not know of what somebody else records.
        wait_for("it is recorded", || {
            place.sql.run("SELECT async.expire_results(100)")?;
            Ok(place.sql.number(&format!("SELECT attempt FROM async.result WHERE task_id = {task}"))? == 2)
        })?;
        same(place.sql.text(&format!("SELECT async.fetch_result({task})->>'n'"))?, "7")?;

        client.run(&format!(
            "BEGIN; SELECT 1 FROM async.result WHERE task_id = {task} FOR UPDATE; SELECT 1 FROM async.execution FOR UPDATE"
        ))?;
        same(place.sql.number("SELECT async.purge('0 s', NULL, 100)")?, 1)?;
        same(place.sql.number(&format!("SELECT count(*) FROM async.task WHERE task_id = {submitted}"))?, 1)?;
        client.run("COMMIT")?;
        wait_for("it is forgotten", || {
            place.sql.run("SELECT async.expire_results(100)")?;
            let left = format!("SELECT count(*) FROM async.result WHERE task_id = {task} OR task_id < 0");
            Ok(place.sql.number(&left)? == 0)
        })?;
        same(place.sql.number("SELECT async.purge('0 s', NULL, 100)")?, 1)?;
        same(place.sql.text("SELECT status FROM async.v_execution")?, "SUCCEEDED")
    });
}

/// The rows come in the transaction that ends the task: all once, or not at all and again.
#[test]
fn a_table_has_its_rows_once_when_its_worker_or_its_dispatcher_dies() {
    let cluster = start(pgflow_tests::cluster::Cluster::options().durable());
    test_on(&cluster, away(), "torn", |place| {
        place.with_clickhouse()?;
        place.sql.run("CREATE TABLE t.rows (n BIGINT, s INT); CREATE TABLE t.seen (n BIGINT)")?;
        let query = "SELECT toInt64(number) AS n, sleepEachRow(0.002) AS s FROM numbers(1000) SETTINGS max_block_size = 50, function_sleep_max_microseconds_per_block = 0";
        for round in 0..3 {
            let task =
                place.push("house", query, r#", _result => '{"to": "table", "table": "t.rows", "truncate": true}'"#)?;
            place.wait_state(task, "Running")?;
            pause(600);
            match round {
                0 => {
                    let worker =
                        place.sql.number(&format!("SELECT pid FROM async.running() WHERE task_id = {task}"))?;
                    place.sql.run(&format!("SELECT pg_terminate_backend({worker})"))?;
                }
                1 => {
                    let dispatcher = place.dispatcher()?;
                    place.sql.run(&format!("SELECT pg_terminate_backend({dispatcher})"))?;
                }
                _ => {
                    signal(place.dispatcher()?, "KILL")?;
                    wait_for("the server has noticed", || Ok(place.sql.text("SELECT 1").is_err()))?;
                    place.sql = cluster.connect_again("torn", "postgres")?;
                }
            }
            place.ends(task, "Finished")?;
            same(place.sql.text("SELECT count(*) || ' ' || count(DISTINCT n) FROM t.rows")?, "1000 1000")?;
            ensure!(
                place.sql.number(&format!("SELECT attempt FROM async.task WHERE task_id = {task}"))? > 1,
                "it was not torn"
            );
        }
        Ok(())
    });
}

/// Whoever ends a task while it runs: what it had stored, or was about to, is not left behind.
#[test]
fn a_task_that_is_cancelled_or_failed_while_it_runs_leaves_no_object() {
    test("leftovers", |place| {
        place.with_clickhouse()?;
        let directory = stores(place)?;
        let slow = "SELECT number AS n, 'x' AS t FROM numbers(30) WHERE NOT ignore(sleepEachRow(0.1))
                    SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0";
        for (end, state) in
            [("cancel(ARRAY[{id}])", "Cancelled"), ("finish(ARRAY[{id}], 'FAILED', 'enough')", "Failed")]
        {
            for store in ["shelf", "cloud"] {
                let result = format!(r#", _result => '{{"to": "object", "store": "{store}", "format": "csv"}}'"#);
                let task = place.push("house", slow, &result)?;
                place
                    .here
                    .wait_until(&format!("(SELECT rows > 0 FROM async.running() WHERE task_id = {task})"), SOON)?;
                place.sql.run(&format!("SELECT async.{}", end.replace("{id}", &task.to_string())))?;
                place.ends(task, state)?;
                place.wait_running(0)?;
                wait_for("nothing is left", || {
                    Ok(files(&directory)?.is_empty() && files(&s3().bucket_directory().join("leftovers"))?.is_empty())
                })?;
                contains(&place.sql.error(&format!("SELECT async.fetch_result({task})"))?, &["no result of task"])?;
            }
        }
        Ok(())
    });
}

/// A NUL character, which no text of PostgreSQL can hold: in rows, in errors. It is the task's failure, not the engine's.
#[test]
fn what_postgres_cannot_hold_fails_the_task_and_nothing_else() {
    test("unholdable", |place| {
        place.with_clickhouse()?;
        let directory = stores(place)?;
        let dispatcher = place.dispatcher()?;
        let mut tasks = Vec::new();
        for result in [
            r#"{"to": "inline"}"#,
            r#"{"to": "table", "table": "t.made"}"#,
            r#"{"to": "object", "store": "shelf", "format": "json"}"#,
        ] {
            let more = format!(", _result => '{result}'");
            tasks.push(place.push("house", "SELECT 'a\\0b' AS t", &more)?);
            tasks.push(place.request(r#"{"path": "/nul"}"#, &more)?);
        }
        tasks.push(place.push("house", "SELECT throwIf(1, 'a\\0b')", "")?);
        tasks.push(place.request(r#"{"path": "/fail/nul"}"#, "")?);
        for task in &tasks {
            place
                .here
                .wait_until(&format!("(SELECT processed IS NOT NULL FROM async.task WHERE task_id = {task})"), SOON)?;
            println!("{task}: {} {}", place.state(*task)?, place.error(*task)?);
        }
        same(place.dispatcher()?, dispatcher)?;
        same(place.sql.text("SELECT max(attempt) FROM async.task")?, "1")?;
        for task in [tasks[0], tasks[1], tasks[2], tasks[3], tasks[6], tasks[7]] {
            same(place.state(task)?, "Failed")?;
        }
        // A file can hold it; whoever reads it here is told.
        same(files(&directory)?.len(), 2)?;
        place.sql.run("SELECT count(async.drop_result(task_id)) FROM async.result")
    });
}
