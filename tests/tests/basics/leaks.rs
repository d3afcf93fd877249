//! C21: nothing of a callback reaches the next task on its worker.

use anyhow::Result;

use crate::kit::{same, test, Kit};

/// Runs `dirty` and then `clean` on the same worker; what `clean` sees is in the log, after the worker's pid.
fn after(kit: &mut Kit, dirty: &str, clean: &str) -> Result<String> {
    kit.session.run(r#"SELECT async.configure('{"targets": [{"target": "one", "max_concurrency": 1}]}')"#)?;
    kit.callback("dirty", &format!("{dirty} INSERT INTO t.log (what) VALUES (pg_backend_pid());"))?;
    kit.callback(
        "clean",
        &format!(
            "INSERT INTO t.log (what) VALUES (pg_backend_pid()); INSERT INTO t.log (what) SELECT ({clean})::TEXT;"
        ),
    )?;
    kit.flow(
        r#"{"node": "a", "routine": "t.dirty", "target": "one"},
           {"node": "b", "routine": "t.clean", "target": "one", "dependencies": [{"parent": "a"}]}"#,
    )?;
    let flow_id = kit.run_to_end()?;
    same(kit.nodes(flow_id)?, "a Finished, b Finished")?;
    let log = kit.session.column("SELECT what FROM t.log ORDER BY id")?;
    same(log.len(), 3)?;
    same(&log[0], &log[1])?;
    Ok(log[2].clone())
}

#[test]
fn c21_settings() {
    test("c21_settings", |kit| {
        let seen = after(
            kit,
            "SET work_mem = '77MB'; SET search_path = t; SET my.own = 'x'; SET statement_timeout = '1min';
             SET default_transaction_read_only = on; SET session_replication_role = replica; SET timezone = 'Asia/Tokyo';",
            "concat_ws(' ', current_setting('work_mem'), current_setting('search_path'), nullif(current_setting('my.own', true), ''),
               current_setting('statement_timeout'), current_setting('default_transaction_read_only'),
               current_setting('session_replication_role'), current_setting('timezone'))",
        )?;
        same(seen, r#"4MB "$user", public 0 off origin UTC"#)
    });
}

#[test]
fn c21_temporary_tables() {
    test("c21_temp", |kit| {
        let seen = after(kit, "CREATE TEMP TABLE mine (i INT);", "to_regclass('pg_temp.mine')")?;
        same(seen, "")
    });
}

#[test]
fn c21_prepared_statements_and_cursors() {
    test("c21_prepared", |kit| {
        let seen = after(
            kit,
            "EXECUTE 'PREPARE p AS SELECT 1'; EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT 1';",
            "(SELECT count(*) FROM pg_prepared_statements WHERE from_sql) + (SELECT count(*) FROM pg_cursors WHERE is_holdable)",
        )?;
        same(seen, "0")
    });
}

#[test]
fn c21_advisory_locks() {
    test("c21_locks", |kit| {
        let seen = after(
            kit,
            "PERFORM pg_advisory_lock(7); PERFORM pg_advisory_lock(7); PERFORM pg_advisory_lock(8, 9);",
            "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())",
        )?;
        same(seen, "0")
    });
}

#[test]
fn c21_role() {
    test("c21_role", |kit| {
        kit.database.role("c21_other")?;
        kit.session.run("GRANT ALL ON SCHEMA t TO c21_other; GRANT ALL ON ALL TABLES IN SCHEMA t TO c21_other")?;
        let seen = after(kit, "EXECUTE 'SET ROLE c21_other';", "current_user || ' ' || session_user")?;
        same(seen, "postgres postgres")
    });
}

#[test]
fn c21_sequences() {
    test("c21_sequences", |kit| {
        kit.session.run("CREATE SEQUENCE t.s CACHE 10")?;
        let seen = after(kit, "PERFORM nextval('t.s');", "nextval('t.s')")?;
        same(seen, "11")
    });
}
