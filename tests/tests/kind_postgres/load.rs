//! Many at once, and much at once.

use std::time::Duration;

use anyhow::{ensure, Result};
use pgflow_executor::job::{Ending, Job};
use pgflow_executor::results::{Batch, Keep};
use pgflow_tests::cluster::Cluster;

use crate::kit::*;

#[test]
fn five_hundred_are_in_flight_at_once() -> Result<()> {
    let cluster = start(Cluster::options().setting("max_connections", "600"));
    let string = string(&cluster, "postgres");
    let mut bench = Bench::with_places(600);
    let from = std::time::Instant::now();
    for _ in 0..500 {
        bench.begin(&job(&string, query("SELECT pg_sleep(1)")));
    }
    for _ in 0..500 {
        let (_, ending, _) = bench.ending();
        ensure!(matches!(ending, Ending::Finished(_)), "{ending:?}");
    }
    // One after the other they take 500 s.
    ensure!(from.elapsed() < Duration::from_secs(250), "{:?}", from.elapsed());
    Ok(())
}

#[test]
fn a_large_result_needs_little_memory() -> Result<()> {
    const ROWS: u64 = 400_000;
    let (string, _) = database("a_large_result")?;
    let mut bench = Bench::new();
    let (sender, mut batches) = tokio::sync::mpsc::channel(4);
    let text = format!("SELECT i, repeat('x', 1000) AS x FROM generate_series(1, {ROWS}) AS i");
    let large = Job { keep: Keep::Worker(sender), ..job(&string, query(&text)) };
    let before = memory();
    bench.begin(&large);
    drop(large);
    let (mut rows, mut most) = (0, 0);
    let mut columns = 0;
    while let Some(batch) = batches.blocking_recv() {
        match batch {
            Batch::Columns(all) => columns = all.len(),
            Batch::Rows(some) => rows += some.len() as u64,
        }
        most = most.max(memory());
    }
    let (_, ending, _) = bench.ending();
    ensure!(matches!(ending, Ending::Finished(_)), "{ending:?}");
    ensure!((columns, rows) == (2, ROWS), "{columns} columns, {rows} rows");
    ensure!(bench.progress.lock().unwrap().rows == ROWS);
    // 400 MB have passed. Other tests run in this process too.
    ensure!(most.saturating_sub(before) < 150, "{} MB more", most.saturating_sub(before));
    Ok(())
}

/// What this process holds, in MB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() / 1024
}
