//! Other major versions as targets: the same things work there.

use anyhow::{ensure, Result};
use pgflow_executor::job::{Ending, Job};
use pgflow_tests::servers::other_postgres::{of_major, MAJORS};
use serde_json::json;

use crate::kit::*;

#[test]
fn every_version_that_is_served_does_the_same() -> Result<()> {
    for major in MAJORS {
        let cluster = start(of_major(major)?);
        let string = string(&cluster, "postgres");
        let mut session = cluster.connect("postgres", "postgres")?;
        session.run(TYPE)?;
        session.run(INBOX)?;
        session.run(
            "CREATE TABLE t (x INT);
             CREATE PROCEDURE p(_a flow.callback_arguments_t) LANGUAGE plpgsql AS $$
             BEGIN
               INSERT INTO t VALUES (1);
               COMMIT;
               RAISE NOTICE 'half';
               INSERT INTO t VALUES (2);
             END $$",
        )?;
        let mut bench = Bench::new();
        let called = job(&string, call("p", json!({"a": 1})));
        ensure!(bench.done(&called)?.notices.len() == 1);
        bench.done(&Job { attempt: 2, unsure: true, ..called })?;
        bench.done(&job(&string, query("VACUUM t")))?;
        let rows = bench
            .rows(job(&string, query("SELECT current_setting('server_version_num')::int / 10000 AS v, 1.5 AS n")))?;
        assert_eq!((&rows[0]["v"], &rows[0]["n"]), (&json!(major), &json!("1.5")));
        assert_eq!(session.text("SELECT string_agg(x::text, '' ORDER BY x) FROM t")?, "12");
        bench.done(&job(&string, query("SET ROLE pg_monitor")))?;
        std::thread::sleep(std::time::Duration::from_millis(300));
        let rows = bench.rows(job(&string, query("SELECT current_user::text AS u")))?;
        assert_eq!(rows[0]["u"], json!("postgres"));
        let slow = job(&string, query("SELECT pg_sleep(300)"));
        bench.begin(&slow);
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event = 'PgSleep'",
            slow.attempt_key(1)
        );
        wait_for(&mut session, &running, "1")?;
        bench.stop(&slow);
        ensure!(matches!(bench.ending().1, Ending::Stopped));
    }
    Ok(())
}
