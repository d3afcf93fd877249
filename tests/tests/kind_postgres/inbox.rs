//! Effectively once: wherever the connection is cut, after the next attempt the work has been done exactly once.

use anyhow::{bail, ensure, Result};
use pgflow_executor::job::{Ending, Job, Work};
use pgflow_tests::session::Session;
use serde_json::json;

use crate::kit::*;
use crate::proxy::{Cut, From, Proxy};

/// What an administrator installs on a target.
const CLIENT: &str = include_str!("../../../sql/pgflow_client.sql");

const CALLBACKS: &str = "
    CREATE TABLE effect (task_id BIGINT, part INT);
    CREATE PROCEDURE once(_a flow.callback_arguments_t) LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO effect VALUES (_a.task_id, 2);
    END $$;
    CREATE PROCEDURE parts(_a flow.callback_arguments_t) LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO effect VALUES (_a.task_id, 1);
      COMMIT;
      INSERT INTO effect VALUES (_a.task_id, 2);
    END $$";

/// Runs a job, cut at one message, and then again as the engine would, until it ends. False: there was no such message.
fn cut_and_retry(proxy: &Proxy, session: &mut Session, first: Job, cut: Cut) -> Result<bool> {
    // A new executor for each: the messages of the log-in count.
    let mut bench = Bench::new();
    let mut job = first;
    proxy.cut_at(cut);
    let mut endings = Vec::new();
    loop {
        let ending = bench.run(&job);
        endings.push(format!("{ending:?}"));
        ensure!(endings.len() < 6, "{cut:?}: {endings:?}");
        match ending {
            Ending::Finished(_) => break,
            // Nothing was done: the same attempt is handed out again.
            Ending::Again { .. } => {}
            Ending::Lost(_) => job = Job { attempt: job.attempt + 1, unsure: true, ..job },
            other => bail!("{cut:?}: {other:?} after {endings:?}"),
        }
    }
    let was_cut = proxy.has_cut();
    proxy.let_go();
    let id = job.task_id;
    let done = session.text(&format!("SELECT count(*) FROM effect WHERE task_id = {id} AND part = 2"))?;
    ensure!(done == "1", "{cut:?}: done {done} times: {endings:?}");
    Ok(was_cut)
}

fn cut_everywhere(name: &str, hold: bool, work: impl Fn() -> Job) -> Result<()> {
    let (_, mut session) = database(name)?;
    session.run(CLIENT)?;
    session.run(CALLBACKS)?;
    let proxy = Proxy::start(shared().port())?;
    let through = format!("host=127.0.0.1 port={} dbname={name} user=postgres sslmode=disable", proxy.port);
    let mut cuts = 0;
    for from in [From::Client, From::Server] {
        for message in 1.. {
            let made = work();
            let mut job = job(&through, made.work);
            // Queries name the task they are of.
            job.work.query = job.work.query.map(|text| text.replace("{task}", &job.task_id.to_string()));
            job.keep = made.keep;
            if !cut_and_retry(&proxy, &mut session, job, Cut { from, message, hold })? {
                break;
            }
            cuts += 1;
        }
    }
    ensure!(cuts > 20, "only {cuts} cuts");
    Ok(())
}

fn bare(work: Work) -> Job {
    Job { work, ..Job::default() }
}

const INSERT: &str = "INSERT INTO effect VALUES ({task}, 2)";

#[test]
fn a_query_is_done_once_wherever_it_is_cut() -> Result<()> {
    cut_everywhere("query_cut", false, || bare(query(INSERT)))
}

#[test]
fn a_query_is_done_once_when_the_server_does_not_notice() -> Result<()> {
    cut_everywhere("query_held", true, || bare(query(INSERT)))
}

#[test]
fn a_query_with_rows_is_done_once_wherever_it_is_cut() -> Result<()> {
    cut_everywhere("rows_cut", false, || Job { keep: inline(), ..bare(query(&format!("{INSERT} RETURNING part"))) })
}

#[test]
fn a_call_is_done_once_wherever_it_is_cut() -> Result<()> {
    cut_everywhere("call_cut", false, || bare(call("once", json!({}))))
}

#[test]
fn a_call_is_done_once_when_the_server_does_not_notice() -> Result<()> {
    cut_everywhere("call_held", true, || bare(call("once", json!({}))))
}

#[test]
fn what_follows_the_last_commit_of_a_call_is_done_once() -> Result<()> {
    cut_everywhere("parts_cut", false, || bare(call("parts", json!({}))))?;
    let mut session = shared().connect("parts_cut", "postgres")?;
    let least =
        session.text("SELECT min(n) FROM (SELECT count(*) AS n FROM effect WHERE part = 1 GROUP BY task_id) AS x")?;
    ensure!(least == "1" || least == "2", "{least}");
    Ok(())
}

#[test]
fn an_attempt_that_still_runs_is_ended_before_the_next_begins() -> Result<()> {
    let (string, mut session) = database("still_runs")?;
    for inbox in [false, true] {
        if inbox {
            session.run(INBOX)?;
        }
        session.run("DROP TABLE IF EXISTS effect; CREATE TABLE effect (x INT)")?;
        let mut bench = Bench::new();
        let slow = job(&string, query("INSERT INTO effect VALUES (1); SELECT pg_sleep(300)"));
        bench.begin(&slow);
        wait_for(&mut session, &sleeping(&slow), "1")?;
        // Another engine's executor takes over.
        let next = Job { attempt: 2, unsure: true, work: query("INSERT INTO effect VALUES (2)"), ..slow.clone() };
        Bench::new().done(&next)?;
        assert_eq!(session.text("SELECT string_agg(x::text, ',') FROM effect")?, "2");
        let (_, ending, _) = bench.ending();
        assert!(matches!(ending, Ending::Lost(_)), "{ending:?}");
        // The first is fenced: should any of it be on its way still, it fails at its own row.
        if inbox {
            let rows = session.text("SELECT string_agg(engine || ' ' || attempt, ', ' ORDER BY 1) FROM async.inbox")?;
            assert!(rows.contains("/fence 1"), "{rows}");
            let late = Bench::new().run(&Job { work: query("INSERT INTO effect VALUES (1)"), ..slow.clone() });
            assert!(matches!(late, Ending::Finished(_)), "{late:?}");
            assert_eq!(session.text("SELECT string_agg(x::text, ',') FROM effect")?, "2");
        }
    }
    Ok(())
}

fn sleeping(job: &Job) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{}' AND wait_event = 'PgSleep'",
        job.attempt_key(job.attempt)
    )
}

#[test]
fn an_attempt_that_was_done_is_not_done_again() -> Result<()> {
    let (string, mut session) = database("not_again")?;
    session.run(INBOX)?;
    session.run("CREATE TABLE effect (x INT)")?;
    let mut bench = Bench::new();
    let first = job(&string, query("INSERT INTO effect VALUES (1) RETURNING x"));
    bench.done(&first)?;
    let second = Job { attempt: 2, unsure: true, keep: inline(), ..first.clone() };
    let done = bench.done(&second)?;
    assert!(done.kept.is_none() && done.notices[0].message.contains("result"), "{done:?}");
    // The very same attempt, handed out twice.
    bench.done(&first)?;
    assert_eq!(session.text("SELECT count(*) FROM effect")?, "1");
    // Without the inbox it would be.
    let off = job_at(target(&string, json!({"inbox": "off"})), first.work.clone());
    bench.done(&off)?;
    bench.done(&Job { attempt: 2, unsure: true, ..off })?;
    assert_eq!(session.text("SELECT count(*) FROM effect")?, "3");
    Ok(())
}

#[test]
fn what_cannot_run_in_a_transaction_runs_without() -> Result<()> {
    let (string, mut session) = database("without_transaction")?;
    session.run(INBOX)?;
    session.run("CREATE TABLE t (x INT); CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (1); COMMIT; END $$")?;
    let mut bench = Bench::new();
    for text in ["VACUUM t", "CREATE DATABASE made_without_transaction", "CALL p()"] {
        let done = bench.done(&job(&string, query(text)))?;
        assert!(done.notices.iter().any(|n| n.message.contains("without one")), "{text}: {done:?}");
    }
    assert_eq!(session.text("SELECT count(*) FROM t")?, "1");
    assert_eq!(session.text("SELECT count(*) FROM async.inbox")?, "0");
    Ok(())
}

#[test]
fn an_inbox_that_the_user_may_not_use_is_none() -> Result<()> {
    let (string, mut session) = database("no_rights")?;
    session.run(INBOX)?;
    session.run("CREATE TABLE t (x INT); GRANT INSERT ON t TO bob")?;
    let as_bob = string.replace("user=postgres", "user=bob");
    Bench::new().done(&job(&as_bob, query("INSERT INTO t VALUES (1)")))?;
    assert_eq!(session.text("SELECT count(*) FROM async.inbox")?, "0");
    session.run("GRANT USAGE ON SCHEMA async TO bob")?;
    Bench::new().done(&job(&as_bob, query("INSERT INTO t VALUES (1)")))?;
    assert_eq!(session.text("SELECT count(*) FROM async.inbox")?, "1");
    Ok(())
}

#[test]
fn a_job_may_become_another_role() -> Result<()> {
    let (string, mut session) = database("another_role")?;
    session.run(TYPE)?;
    session.run(INBOX)?;
    session.run(
        "CREATE TABLE t (who TEXT DEFAULT current_user); GRANT INSERT ON t TO bob; GRANT USAGE ON SCHEMA flow TO bob;
         CREATE PROCEDURE p(_a flow.callback_arguments_t) LANGUAGE plpgsql AS $$
         BEGIN
           SET ROLE bob;
           INSERT INTO t DEFAULT VALUES;
         END $$",
    )?;
    let mut bench = Bench::new();
    bench.done(&job(&string, query("SET ROLE bob; INSERT INTO t DEFAULT VALUES")))?;
    bench.done(&job(&string, call("p", json!({}))))?;
    bench.done(&job(&string, query("INSERT INTO t DEFAULT VALUES")))?;
    assert_eq!(session.text("SELECT string_agg(who, ',' ORDER BY who) FROM t")?, "bob,bob,postgres");
    assert_eq!(session.text("SELECT count(*) FROM async.inbox")?, "3");
    Ok(())
}
