//! Stopping: the statement is cancelled there, at once, whatever it does.

use std::time::{Duration, Instant};

use anyhow::Result;
use pgflow_executor::job::{Ending, Job};
use serde_json::json;

use crate::kit::*;

fn active(job: &Job) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND state = 'active'",
        job.attempt_key(job.attempt)
    )
}

#[test]
fn a_stop_cancels_the_statement() -> Result<()> {
    let (string, mut session) = database("a_stop_cancels")?;
    session.run(TYPE)?;
    session.run("CREATE PROCEDURE slow(_a flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(300); END $$")?;
    let mut bench = Bench::new();
    for inbox in [false, true] {
        if inbox {
            session.run(INBOX)?;
            bench = Bench::new();
        }
        for work in [query("SELECT pg_sleep(300)"), call("slow", json!({}))] {
            for keep in [pgflow_executor::results::Keep::Nothing, inline()] {
                let slow = Job { keep, ..job(&string, work.clone()) };
                bench.begin(&slow);
                wait_for(&mut session, &active(&slow), "1")?;
                bench.stop(&slow);
                let (_, ending, timed_out) = bench.ending();
                assert!(matches!(ending, Ending::Stopped) && !timed_out, "{ending:?}");
                wait_for(&mut session, &active(&slow), "0")?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_time_limit_stops_it_and_the_server_knows_the_limit() -> Result<()> {
    let (string, mut session) = database("a_time_limit")?;
    let mut bench = Bench::new();
    let limit = Some(Duration::from_secs(2));
    let shown = Job { time_limit: limit, ..job(&string, query("SELECT current_setting('statement_timeout') AS t")) };
    assert_eq!(bench.rows(shown)?[0]["t"], json!("12s"));
    let slow = Job { time_limit: limit, ..job(&string, query("SELECT pg_sleep(300)")) };
    bench.begin(&slow);
    let (_, ending, timed_out) = bench.ending();
    assert!(matches!(ending, Ending::Stopped) && timed_out, "{ending:?}");
    wait_for(&mut session, &active(&slow), "0")
}

#[test]
fn what_catches_the_cancel_is_terminated() -> Result<()> {
    let (string, mut session) = database("catches_the_cancel")?;
    session.run(TYPE)?;
    session.run(
        "CREATE PROCEDURE stubborn(_a flow.callback_arguments_t) LANGUAGE plpgsql AS $$
         BEGIN
           LOOP
             BEGIN PERFORM pg_sleep(300); EXCEPTION WHEN query_canceled THEN NULL; END;
           END LOOP;
         END $$",
    )?;
    let mut bench = Bench::new();
    let stubborn = job(&string, call("stubborn", json!({})));
    bench.begin(&stubborn);
    wait_for(&mut session, &active(&stubborn), "1")?;
    bench.stop(&stubborn);
    let (_, ending, _) = bench.ending();
    assert!(matches!(ending, Ending::Stopped), "{ending:?}");
    wait_for(&mut session, &active(&stubborn), "0")
}

#[test]
fn a_statement_that_somebody_else_cancels_has_failed() -> Result<()> {
    let (string, mut session) = database("somebody_else")?;
    let mut bench = Bench::new();
    let slow = job(&string, query("SELECT pg_sleep(300)"));
    bench.begin(&slow);
    wait_for(&mut session, &active(&slow), "1")?;
    session.run(&format!(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'",
        slow.attempt_key(1)
    ))?;
    let (_, ending, _) = bench.ending();
    assert!(matches!(&ending, Ending::Failed(f) if f.code.as_deref() == Some("57014")), "{ending:?}");
    Ok(())
}

#[test]
fn a_stop_while_it_connects_is_heeded() -> Result<()> {
    // Listens, and never answers.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0")?;
    let string = format!("host=127.0.0.1 port={} user=x", deaf.local_addr()?.port());
    let mut bench = Bench::new();
    let waiting = job(&string, query("SELECT 1"));
    let from = Instant::now();
    bench.begin(&waiting);
    std::thread::sleep(Duration::from_millis(300));
    bench.stop(&waiting);
    assert!(matches!(bench.ending().1, Ending::Stopped));
    // The time-out of the connection is 10 s.
    assert!(from.elapsed() < Duration::from_secs(9));
    let impatient = job_at(target(&string, json!({"connect_timeout": 1})), query("SELECT 1"));
    let ending = bench.run(&impatient);
    assert!(
        matches!(&ending, Ending::Again { failure, down: true, .. } if failure.message.contains("no answer")),
        "{ending:?}"
    );
    Ok(())
}
