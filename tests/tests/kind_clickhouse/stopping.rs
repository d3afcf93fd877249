//! Progress while a query runs, and its stop: gone from the server, whatever it was doing.

use std::time::{Duration, Instant};

use pgflow_executor::job::{Ending, Job};
use pgflow_executor::results::{Compression, Format, Keep};

use crate::kit::{ask, end, failed, inline, job, kind, running, server, start, until, Directory};

const SLOW: &str = "SELECT max(sipHash64(toString(number))) FROM numbers(100000000) SETTINGS max_threads = 1";

#[tokio::test]
async fn a_hundred_million_rows_show_their_progress_and_are_stopped() {
    let job = Job { keep: inline(), ..job(SLOW) };
    let run = start(&kind(), &job);
    until("progress rises", async || run.progress.lock().unwrap().len() >= 3).await;
    let seen = run.progress.lock().unwrap().clone();
    assert!(seen.windows(2).all(|two| two[0].rows <= two[1].rows && two[0].bytes <= two[1].bytes), "{seen:?}");
    assert!(seen[2].rows > seen[0].rows && seen[2].total_rows == 100_000_000, "{seen:?}");
    let from = Instant::now();
    run.context.stop.cancel();
    assert!(matches!(end(run).await, Ending::Stopped));
    println!("stopped within {:?}", from.elapsed());
    assert_eq!(running(server(), &job).await, 0);
    assert!(from.elapsed() < Duration::from_secs(5), "{:?}", from.elapsed());
}

#[tokio::test]
async fn whatever_is_done_with_the_result_it_is_stopped() {
    let directory = Directory::new("stopped");
    let object = directory.keep("x.csv", Format::Csv, Compression::None);
    let (sender, mut batches) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move { while batches.recv().await.is_some() {} });
    for (query, keep) in [
        (SLOW, Keep::Nothing),
        ("SELECT number FROM system.numbers", Keep::Nothing),
        ("SELECT number FROM system.numbers", Keep::Worker(sender)),
        ("SELECT number FROM system.numbers", object),
        ("INSERT INTO FUNCTION null('a UInt64') SELECT number FROM system.numbers", Keep::Nothing),
    ] {
        let job = Job { keep, ..job(query) };
        let run = start(&kind(), &job);
        until("it runs", async || running(server(), &job).await == 1).await;
        run.context.stop.cancel();
        assert!(matches!(end(run).await, Ending::Stopped), "{query}");
        assert_eq!(running(server(), &job).await, 0, "{query}");
        assert_eq!(directory.files(), Vec::<String>::new(), "{query}");
    }
}

#[tokio::test]
async fn a_stop_at_any_moment_leaves_nothing_running() {
    let kind = kind();
    for moment in [0, 1, 3, 10, 30, 100, 200] {
        let job = Job { keep: inline(), ..job(SLOW) };
        let run = start(&kind, &job);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        run.context.stop.cancel();
        assert!(matches!(end(run).await, Ending::Stopped), "after {moment} ms");
        assert_eq!(running(server(), &job).await, 0, "after {moment} ms");
    }
}

#[tokio::test]
async fn what_is_dropped_is_killed_too() {
    let job = Job { keep: inline(), ..job(SLOW) };
    let run = start(&kind(), &job);
    until("it runs", async || running(server(), &job).await == 1).await;
    run.ending.abort();
    until("it is gone", async || running(server(), &job).await == 0).await;
}

#[tokio::test]
async fn a_query_that_somebody_else_kills_has_failed() {
    let job = Job { keep: inline(), ..job(SLOW) };
    let run = start(&kind(), &job);
    until("it runs", async || running(server(), &job).await == 1).await;
    ask(server(), format!("KILL QUERY WHERE query_id = '{}' SYNC", job.attempt_key(1))).await;
    let failure = failed(end(run).await);
    assert!(failure.message.contains("killed by somebody else"), "{failure}");
}

#[tokio::test]
async fn a_time_limit_goes_with_the_query_as_a_net() {
    let query = "SELECT toFloat64(getSetting('max_execution_time')) AS t";
    let mut job = Job { keep: inline(), time_limit: Some(Duration::from_secs(60)), ..job(query) };
    let limit = |ending| crate::kit::kept(ending).content.unwrap()[0]["t"].as_f64().unwrap();
    assert!(limit(crate::kit::run(&job).await) >= 60.0);
    job.work.options = crate::kit::map(serde_json::json!({"settings": {"max_execution_time": 7}}));
    assert!((limit(crate::kit::run(&job).await) - 7.0).abs() < 0.1);
}
