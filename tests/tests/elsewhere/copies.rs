//! A copy of a database is another engine to servers elsewhere: what the original did there is none of its doing.

use anyhow::ensure;
use pgflow_tests::database::Database;
use pgflow_tests::postmaster::run as run_program;

use crate::kit::*;

#[test]
fn a_restored_dump_keeps_targets_and_stores_and_is_another_engine_once_adopted() {
    test("dumped_elsewhere", |place| {
        let directory = shelf(&place.here)?;
        place.sql.run(&format!(
            r#"SELECT async.configure('{{"stores": [{{"store": "shelf", "url": "file://{}"}}]}}')"#,
            directory.display()
        ))?;
        let done = place.push("there", "SELECT 5 AS a", r#", _result => '"inline"'"#)?;
        place.ends(done, "Finished")?;
        place.flow("f", r#"{"node": "a", "target": "there", "routine": "t.waits"}"#)?;
        let flow_id = place.run("f")?;
        place.wait_running(1)?;
        let file = place.here.cluster.directory().join("dumped_elsewhere.dump");
        run_program(
            place.here.cluster.client_program("pg_dump").args(["-Fc", "-f"]).arg(&file).arg("dumped_elsewhere"),
        )?;
        place.here.cluster.plain_database("restored_elsewhere")?;
        run_program(
            place
                .here
                .cluster
                .client_program("pg_restore")
                .args(["--exit-on-error", "-d", "restored_elsewhere"])
                .arg(&file),
        )?;

        let copy = Database::new(place.here.cluster, "restored_elsewhere");
        let mut sql = copy.connect()?;
        let engine = "SELECT engine_id FROM async.engine_state";
        for query in [
            engine,
            "SELECT jsonb_agg(to_jsonb(t) ORDER BY target) FROM async.target t",
            "SELECT jsonb_agg(to_jsonb(s)) FROM async.store s",
            "SELECT jsonb_agg(to_jsonb(r)) FROM async.result r",
            "SELECT flow.configuration()",
        ] {
            same(sql.text(query)?, place.sql.text(query)?)?;
        }
        same(sql.text(&format!("SELECT async.fetch_result({done})"))?, r#"{"a": 5}"#)?;
        pause(500);
        same(sql.number("SELECT count(*) FROM async.running()")?, 0)?;
        same(
            place.there()?.number(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pgflow-.*[0-9]$' AND state = 'active' AND datname = current_database()",
            )?,
            1,
        )?;
        sql.run("SELECT async.adopt()")?;
        let (theirs, ours) = (sql.text(engine)?, place.sql.text(engine)?);
        ensure!(theirs != ours, "both are {ours}");
        // Both are at it: neither takes the other's attempt for its own.
        copy.wait_until("(SELECT count(*) = 1 FROM async.running())", SOON)?;
        place.there.wait_until(
            "(SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name ~ '^pgflow-.*[0-9]$' AND state = 'active' AND datname = current_database())",
            SOON,
        )?;
        place.there()?.run("INSERT INTO t.gate VALUES (1)")?;
        same(place.ended(flow_id)?, "a Finished")?;
        copy.wait_until(&format!("(SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id = {flow_id})"), SOON)?;
        same(place.there()?.number("SELECT count(*) FROM t.log")?, 2)?;
        // Adopting again changes nothing: it is where its work runs.
        sql.run("SELECT async.adopt()")?;
        same(sql.text(engine)?, theirs)
    });
}
