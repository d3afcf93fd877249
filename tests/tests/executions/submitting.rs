//! One in flight for a role and a query_id, whoever submits when and how.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};
use pgflow_tests::database::{Database, SOON};
use pgflow_tests::session::Session;

use crate::kit::*;

const SUBMIT: &str = "SELECT execution_id || ' ' || collapsed FROM async.submit('SELECT 1')";

/// Under REPEATABLE READ and above Postgres may ask to try again; the answer is right or none.
fn submit(session: &mut Session, level: &str) -> Result<String> {
    for _ in 0..200 {
        session.run(&format!("BEGIN ISOLATION LEVEL {level}"))?;
        match session.text(SUBMIT).and_then(|answer| session.run("COMMIT").map(|()| answer)) {
            Ok(answer) => return Ok(answer),
            Err(error) if error.to_string().contains("40001") => session.run("ROLLBACK")?,
            Err(error) => return Err(error),
        }
    }
    bail!("not submitted in 200 attempts")
}

fn at_once(database: &Database, levels: &[&str]) -> Result<Vec<String>> {
    let mut sessions = (0..50).map(|_| database.connect_as("ann")).collect::<Result<Vec<_>>>()?;
    let together = Barrier::new(sessions.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .enumerate()
            .map(|(n, session)| {
                let together = &together;
                let level = levels[n % levels.len()];
                scope.spawn(move || {
                    together.wait();
                    submit(session, level)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("a session panicked"))).collect()
    })
}

fn one_and_49(name: &str, levels: &[&str]) {
    test(name, |database, session| {
        let answers = at_once(database, levels)?;
        let first: Vec<_> = answers.iter().filter(|a| a.ends_with("false")).collect();
        ensure!(first.len() == 1, "{answers:?}");
        let mut ids: Vec<_> = answers.iter().filter_map(|a| a.split(' ').next()).collect();
        ids.dedup();
        ensure!(ids.len() == 1, "{answers:?}");
        same(session.text("SELECT count(*) || ' ' || max(collapsed_counter) FROM async.execution")?, "1 49".into())?;
        same(session.number("SELECT count(*) FROM async.task")?, 1)
    });
}

#[test]
fn fifty_submits_at_once_are_one_execution() {
    one_and_49("fifty", &["READ COMMITTED"]);
}

#[test]
fn fifty_submits_at_once_are_one_execution_at_every_isolation_level() {
    one_and_49("fifty_levels", &["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]);
}

#[test]
fn a_submit_waits_for_one_that_has_not_committed() {
    test("waits", |database, session| {
        for (end, collapsed) in [("ROLLBACK", "false"), ("COMMIT", "true")] {
            let mut first = database.connect_as("ann")?;
            let mut second = database.connect_as("ann")?;
            first.run("BEGIN")?;
            let theirs = first.text(SUBMIT)?;
            ensure!(theirs.ends_with("false"), "{theirs}");
            let answer = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| second.text(SUBMIT));
                database.wait_until(
                    "EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'ann' AND wait_event_type = 'Lock')",
                    SOON,
                )?;
                first.run(end)?;
                waiting.join().unwrap_or_else(|_| bail!("it panicked"))
            })?;
            ensure!(answer.ends_with(collapsed), "after {end}: {answer}");
            ensure!((answer.split(' ').next() == theirs.split(' ').next()) == (end == "COMMIT"), "{theirs}, {answer}");
            let ids = session.column("SELECT execution_id FROM async.execution WHERE open")?;
            for id in ids {
                session.run(&format!("SELECT async.cancel_execution({id})"))?;
            }
        }
        Ok(())
    });
}

/// Submits while executions end: what is in flight is one at any moment, and every submit gets one that was in flight.
#[test]
fn ends_and_submits_that_meet_leave_one_in_flight() {
    test("meet", |database, session| {
        let until = Instant::now() + Duration::from_secs(5);
        std::thread::scope(|scope| {
            let submitters: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| -> Result<usize> {
                        let mut session = database.connect_as("ann")?;
                        let mut count = 0;
                        while Instant::now() < until {
                            session.text(SUBMIT)?;
                            count += 1;
                        }
                        Ok(count)
                    })
                })
                .collect();
            let mut ended = 0;
            while Instant::now() < until {
                same(
                    session
                        .truth("SELECT count(*) <= 1 FROM async.v_execution WHERE status IN ('PENDING', 'RUNNING')")?,
                    true,
                )?;
                let open = "SELECT task_id FROM async.task WHERE processed IS NULL";
                for task_id in session.column(open)? {
                    finish(session, task_id.parse()?, r#"{"kept_as": "inline", "content": []}"#)?;
                    ended += 1;
                }
                session.run("SELECT async.expire_executions(10)")?;
            }
            let mut submitted = 0;
            for submitter in submitters {
                submitted += submitter.join().unwrap_or_else(|_| bail!("a session panicked"))?;
            }
            ensure!(ended > 1, "{ended} ended");
            let counted = session.number("SELECT sum(collapsed_counter + 1) FROM async.execution")?;
            same(counted, submitted as i64)?;
            same(session.number("SELECT count(*) - count(DISTINCT task_id) FROM async.execution")?, 0)
        })
    });
}
