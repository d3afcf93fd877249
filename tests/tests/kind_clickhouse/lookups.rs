//! An attempt whose fate nobody knows is looked up: it runs, has ended, has failed, or never was.

use pgflow_executor::job::{Ending, Job, Secret, Target};
use pgflow_executor::results::{Compression, Format, Keep};
use pgflow_tests::servers::clickhouse::READER;
use pgflow_tests::servers::proxy::Proxy;

use crate::kit::{ask, done, end, failed, inline, job_on, kept, kind, run, running, server, start, target, until};

/// An attempt that is lost while it runs: the job, and the next attempt of it.
async fn lost(query: &str) -> (Job, Job) {
    lost_as(query, Keep::Nothing).await
}

async fn lost_as(query: &str, keep: Keep) -> (Job, Job) {
    let proxy = Proxy::to(server().http_port()).unwrap();
    let job = crate::stored::sharing(Job { keep, ..job_on(target(server(), proxy.port()), query) });
    let run = start(&kind(), &job);
    until("it runs", async || running(server(), &job).await == 1).await;
    proxy.cut();
    assert!(matches!(end(run).await, Ending::Lost(_)));
    // The proxy goes with its test; the next attempt finds the server.
    let target = std::sync::Arc::new(target(server(), server().http_port()));
    let next = Job { attempt: 2, unsure: true, target, ..job.clone() };
    (job, crate::stored::sharing(next))
}

/// How often a table has been written to.
async fn count(table: &str) -> String {
    ask(server(), format!("SELECT count() FROM {table}")).await
}

fn slow_insert(table: &str) -> String {
    format!("INSERT INTO {table} SELECT sleep(3) FROM numbers(1)")
}

#[tokio::test]
async fn one_that_still_runs_is_waited_for_and_not_done_again() {
    ask(server(), "CREATE TABLE lookup_runs (a UInt8) ENGINE = Memory".into()).await;
    let (_, next) = lost(&slow_insert("lookup_runs")).await;
    done(run(&next).await);
    assert_eq!(count("lookup_runs").await, "1");
}

#[tokio::test]
async fn one_that_has_ended_is_not_done_again() {
    ask(server(), "CREATE TABLE lookup_ended (a UInt8) ENGINE = Memory".into()).await;
    let (job, next) = lost(&slow_insert("lookup_ended")).await;
    until("it ends", async || running(server(), &job).await == 0).await;
    done(run(&next).await);
    assert_eq!(count("lookup_ended").await, "1");
    // The administrator's restart is another attempt, and sure.
    done(run(&Job { attempt: 3, unsure: false, ..next }).await);
    assert_eq!(count("lookup_ended").await, "2");
}

#[tokio::test]
async fn one_that_has_failed_meanwhile_has_failed() {
    let (job, next) = lost("SELECT throwIf(sleep(3) = 0) FORMAT Null").await;
    until("it ends", async || running(server(), &job).await == 0).await;
    let failure = failed(run(&next).await);
    assert!(failure.code.as_deref().is_some_and(|code| code.starts_with("395")), "{failure}");
}

/// What we send with statements of our own must be no setting.
#[tokio::test]
async fn a_user_who_may_set_nothing_can_look_too() {
    let string = format!("http://{READER}:{}@127.0.0.1:{}/default", server().password(), server().http_port());
    let reader = Target {
        connection_string: Some(Secret::new(string)),
        fingerprint: 1,
        ..target(server(), server().http_port())
    };
    kind().probe(&reader).await.unwrap();
    let mut job = job_on(reader, "SELECT 1 FORMAT Null");
    done(run(&job).await);
    job.work.query = Some("SELECT throwIf(1)".into());
    // The log says that the first attempt was done.
    done(run(&Job { attempt: 2, unsure: true, ..job.clone() }).await);
    let failure = failed(run(&Job { attempt: 3, unsure: false, ..job }).await);
    assert!(failure.code.as_deref().is_some_and(|code| code.starts_with("395")), "{failure}");
}

#[tokio::test]
async fn one_whose_result_is_wanted_is_killed_and_run_again() {
    let (job, next) = lost("SELECT sleep(3), sleep(3) AS a").await;
    let mut next = Job { keep: inline(), ..next };
    next.work.query = Some("SELECT 5 AS a".into());
    assert_eq!(kept(run(&next).await).rows, Some(1));
    assert_eq!(running(server(), &job).await, 0);
}

#[tokio::test]
async fn an_export_that_still_runs_is_waited_for_if_it_writes_the_same_object() {
    let query = "SELECT number AS n, sleep(3) AS s FROM numbers(7)";
    for (path, same) in [("same", true), ("other", false)] {
        let (job, next) = lost_as(query, crate::stored::export("same", Format::Csv, Compression::None)).await;
        let mut next = Job { keep: crate::stored::export(path, Format::Csv, Compression::None), ..next };
        if !same {
            next.work.query = Some("SELECT number AS n FROM numbers(5)".into());
        }
        let kept = kept(run(&next).await);
        assert_eq!((kept.rows, running(server(), &job).await), (Some(if same { 7 } else { 5 }), 0));
        assert!(kept.bytes.is_some() && kept.location.is_some_and(|at| at.ends_with(path)));
        ask(server(), "SYSTEM FLUSH LOGS".into()).await;
        let id = next.attempt_key(2);
        let began = format!("SELECT count() FROM system.query_log WHERE query_id = '{id}' AND type = 'QueryStart'");
        assert_eq!(ask(server(), began).await, if same { "0" } else { "1" });
    }
}

#[tokio::test]
async fn one_that_never_was_is_run() {
    let job = job_on(target(server(), server().http_port()), "SELECT 1 AS a");
    done(run(&Job { attempt: 2, unsure: true, ..job.clone() }).await);
    assert_eq!(kept(run(&Job { attempt: 3, unsure: true, keep: inline(), ..job }).await).rows, Some(1));
}

#[tokio::test]
async fn waiting_for_an_earlier_one_can_be_stopped_and_shows_its_progress() {
    let slow = "INSERT INTO FUNCTION null('a UInt64') SELECT sleepEachRow(0.1) + number FROM system.numbers \
                SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0";
    let (job, next) = lost(slow).await;
    let run = start(&kind(), &next);
    until("progress", async || run.progress.lock().unwrap().last().is_some_and(|at| at.rows > 0)).await;
    assert_eq!(running(server(), &next).await, 0);
    run.context.stop.cancel();
    assert!(matches!(end(run).await, Ending::Stopped));
    assert_eq!(running(server(), &job).await, 0);
}
