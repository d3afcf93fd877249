//! Connections that are cut, servers that die: never a result that is not whole, never a failure that is none.

use std::sync::OnceLock;

use pgflow_executor::job::{Ending, Job};
use pgflow_executor::results::{Compression, Format, Keep};
use pgflow_tests::servers::clickhouse::ClickHouse;
use pgflow_tests::servers::proxy::{Direction, Pattern, Proxy};

use crate::kit::{ask, done, end, inline, job_on, kept, kind, run, running, server, start, target, until, Directory};

fn through(proxy: &Proxy, query: &str) -> Job {
    job_on(target(server(), proxy.port()), query)
}

#[tokio::test]
async fn cut_before_anything_was_sent_nothing_was_done() {
    let proxy = Proxy::to(server().http_port()).unwrap();
    proxy.refuse();
    let job = through(&proxy, "SELECT 1");
    assert!(matches!(run(&job).await, Ending::Again { down: true, .. }));
    proxy.heal();
    done(run(&job).await);
}

#[tokio::test]
async fn cut_while_it_runs_it_is_lost() {
    let proxy = Proxy::to(server().http_port()).unwrap();
    for keep in [Keep::Nothing, inline()] {
        let job = Job { keep, ..through(&proxy, "SELECT sleep(3)") };
        let run = start(&kind(), &job);
        until("it runs", async || running(server(), &job).await == 1).await;
        proxy.cut();
        assert!(matches!(end(run).await, Ending::Lost(_)));
    }
}

#[tokio::test]
async fn an_answer_that_ends_early_is_lost_and_leaves_no_object() {
    let directory = Directory::new("cut");
    let query = "SELECT number, toString(cityHash64(number)) AS t FROM numbers(300000)";
    for count in [0, 1000, 50_000, 300_000, 2_000_000] {
        for format in [None, Some(Format::Csv), Some(Format::Parquet), Some(Format::Json), Some(Format::Arrow)] {
            let keep = match format {
                Some(format) => directory.keep("x", format, Compression::None),
                None => Keep::Inline { max_rows: u64::MAX, max_bytes: u64::MAX },
            };
            // What is cut may be the connection of a look at the progress instead; then the result is whole.
            for _ in 0..20 {
                let proxy = Proxy::to(server().http_port()).unwrap();
                proxy.cut_after(Direction::ToClient, count);
                match run(&Job { keep: keep.clone(), ..through(&proxy, query) }).await {
                    Ending::Lost(_) => break,
                    ending => assert_eq!(kept(ending).rows, Some(300_000), "{format:?} after {count}"),
                }
                directory.files().iter().for_each(|name| std::fs::remove_file(directory.0.join(name)).unwrap());
            }
            assert_eq!(directory.files(), Vec::<String>::new(), "{format:?} after {count}");
        }
    }
}

#[tokio::test]
async fn cut_at_the_very_end_it_is_lost() {
    let proxy = Proxy::to(server().http_port()).unwrap();
    // The last chunk of an answer: without it nobody knows that it was the last.
    proxy.cut_at(Direction::ToClient, b"\r\n0\r\n\r\n", Pattern::Withheld);
    let ending = run(&Job { keep: inline(), ..through(&proxy, "SELECT 1 AS a") }).await;
    assert!(matches!(ending, Ending::Lost(_)), "{ending:?}");
}

#[tokio::test]
async fn a_server_that_stops_in_the_middle_is_lost_and_found_again() {
    static OWN: OnceLock<ClickHouse> = OnceLock::new();
    let own = OWN.get_or_init(|| ClickHouse::start().unwrap());
    let kind = kind();
    let on_own = |query: &str| job_on(target(own, own.http_port()), query);
    // An idle connection from before must not matter.
    done(kind_run(&kind, &on_own("SELECT 1")).await);
    let job = on_own("SELECT sleep(3), sleep(3)");
    let run = start(&kind, &job);
    until("it runs", async || running(own, &job).await == 1).await;
    tokio::task::spawn_blocking(|| own.kill().unwrap()).await.unwrap();
    assert!(matches!(end(run).await, Ending::Lost(_)));
    assert!(kind.probe(&job.target).await.is_err());
    let next = Job { attempt: 2, unsure: true, keep: inline(), ..on_own("SELECT 1 AS a") };
    assert!(matches!(kind_run(&kind, &next).await, Ending::Again { down: true, .. }));
    tokio::task::spawn_blocking(|| own.start_again().unwrap()).await.unwrap();
    assert!(kind.probe(&job.target).await.is_ok());
    assert_eq!(kept(kind_run(&kind, &next).await).rows, Some(1));
    ask(own, "SELECT 1".into()).await;
}

async fn kind_run(kind: &std::sync::Arc<dyn pgflow_executor::kind::Kind>, job: &Job) -> Ending {
    end(start(kind, job)).await
}
