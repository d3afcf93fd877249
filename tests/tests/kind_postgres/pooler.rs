//! Through pgbouncer in transaction mode: nothing of a session lasts, and nothing may need it.

use anyhow::{Context as _, Result};
use pgflow_executor::job::{Ending, Job, Work};
use pgflow_tests::servers::pgbouncer::Pgbouncer;
use pgflow_tests::session::Session;
use serde_json::json;

use crate::kit::*;

#[test]
fn jobs_run_through_a_transaction_pooler() -> Result<()> {
    let (_, mut session) = database("through_a_pooler")?;
    session.run(TYPE)?;
    session.run(
        "CREATE TYPE mood AS ENUM ('sad');
         CREATE TABLE t (x INT);
         CREATE PROCEDURE p(_a flow.callback_arguments_t) LANGUAGE plpgsql AS $$
         BEGIN
           INSERT INTO t VALUES (current_setting('my.own')::int);
           COMMIT;
           INSERT INTO t VALUES (2);
         END $$",
    )?;
    let pooler = Pgbouncer::before(shared(), &[])?;
    let outcome = through(&mut session, &pooler);
    outcome.with_context(|| format!("the pooler's log ends with:\n{}", pooler.process().log_tail()))
}

fn through(session: &mut Session, pooler: &Pgbouncer) -> Result<()> {
    let string = format!("host=127.0.0.1 port={} dbname=through_a_pooler user=postgres", pooler.port());
    for (options, inbox) in [(json!({}), false), (json!({"pooler": true}), false), (json!({}), true)] {
        if inbox {
            session.run(INBOX)?;
        }
        session.run("TRUNCATE t")?;
        let mut bench = Bench::new();
        let at = |work: Work| job_at(target(&string, options.clone()), work);
        let settings = json!({"settings": {"my.own": 1}}).as_object().cloned().unwrap_or_default();
        for _ in 0..3 {
            let read = Work {
                options: settings.clone(),
                ..query(
                    "SELECT current_setting('my.own') AS o, 'sad'::mood AS m, current_setting('application_name') AS a",
                )
            };
            let job = at(read);
            let rows = bench.rows(job.clone())?;
            assert_eq!((&rows[0]["o"], &rows[0]["m"]), (&json!("1"), &json!("sad")));
            assert_eq!(rows[0]["a"], json!(job.attempt_key(1)));
            let mut called = call("p", json!({}));
            called.options = settings.clone();
            bench.done(&at(called))?;
            bench.done(&at(query("INSERT INTO t VALUES (3); INSERT INTO t VALUES (4)")))?;
            bench.done(&at(query("VACUUM t")))?;
        }
        assert_eq!(session.text("SELECT string_agg(x::text, '' ORDER BY x) FROM t")?, "111222333444");
        // Nothing is left in the sessions that everybody shares.
        let look = "SELECT (SELECT count(*) FROM pg_prepared_statements) AS p, current_setting('my.own', true) AS o,
                           current_setting('statement_timeout') AS t";
        let rows = bench.rows(at(query(look)))?;
        // The one that is asking.
        assert_eq!((&rows[0]["p"], &rows[0]["t"]), (&json!(1), &json!("0")));
        assert!(rows[0]["o"] == json!("") || rows[0]["o"].is_null(), "{rows:?}");
        if inbox {
            let count = session.text("SELECT count(*) FROM async.inbox")?;
            assert_eq!(count, "10", "each but VACUUM");
        }
        // Stopped, and taken up again by the next attempt.
        let slow = at(query("INSERT INTO t VALUES (5); SELECT pg_sleep(300)"));
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event = 'PgSleep'",
            slow.attempt_key(1)
        );
        bench.begin(&slow);
        wait_for(session, &running, "1")?;
        bench.stop(&slow);
        assert!(matches!(bench.ending().1, Ending::Stopped));
        wait_for(session, &running, "0")?;
        bench.done(&Job { attempt: 2, unsure: true, work: query("INSERT INTO t VALUES (6)"), ..slow })?;
        assert_eq!(session.text("SELECT string_agg(x::text, '') FROM t WHERE x > 4")?, "6");
    }
    // What the pooler says when the server is gone is no failure of the task.
    let gone = string.replace("through_a_pooler", "nowhere");
    let ending = Bench::new().run(&job(&gone, query("SELECT 1")));
    assert!(matches!(&ending, Ending::Failed(f) if f.message.contains("nowhere")), "{ending:?}");
    pooler.stop()?;
    let ending = Bench::new().run(&job(&string, query("SELECT 1")));
    assert!(matches!(ending, Ending::Again { down: true, .. }), "{ending:?}");
    Ok(())
}
