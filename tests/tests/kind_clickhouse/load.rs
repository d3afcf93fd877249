//! Hundreds of queries in flight on one thread.

use std::time::Instant;

use pgflow_executor::job::Ending;

use crate::kit::{job, kind, server, start};

#[tokio::test]
async fn five_hundred_queries_are_in_flight_at_once() {
    crate::kit::done(crate::kit::run(&job("SELECT 1")).await);
    let kind = kind();
    let from = Instant::now();
    let all: Vec<_> = (0..500).map(|_| start(&kind, &job("SELECT sleep(3)"))).collect();
    let most = async {
        let mut most = 0;
        loop {
            let running = crate::kit::ask(server(), "SELECT count() FROM system.processes".into()).await;
            most = most.max(running.parse::<usize>().unwrap());
            if most > 300 {
                return most;
            }
        }
    };
    let most = tokio::time::timeout(crate::kit::PATIENCE, most).await.expect("300 at once");
    for one in all {
        let ending = one.ending.await.unwrap();
        assert!(matches!(ending, Ending::Finished(_)), "{ending:?}");
    }
    println!("500 in {:?}, {most} seen at once", from.elapsed());
}
