//! A result of hundreds of megabytes passes through the dispatcher, or a worker, without staying there.

use anyhow::{ensure, Context, Result};
use pgflow_tests::cluster::Cluster;

use crate::kit::*;

/// The most memory that a process has had, in bytes.
fn most_memory(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

/// A result of so many megabytes, from ClickHouse into an object; `PGFLOW_SOAK=1` makes it a gigabyte.
#[test]
fn a_large_result_passes_through_the_dispatcher_in_bounded_memory() {
    let megabytes: u64 = if soak() { 1024 } else { 200 };
    let cluster = start(Cluster::options());
    test_on(&cluster, away(), "large", |place| {
        place.with_clickhouse()?;
        let directory = shelf(&place.here)?;
        place.sql.run(&format!(
            r#"SELECT async.configure('{{"stores": [{{"store": "shelf", "url": "file://{}"}}]}}')"#,
            directory.display()
        ))?;
        let rows = megabytes * 1024;
        let task = place.push(
            "house",
            &format!("SELECT number AS n, hex(randomString(512)) AS t FROM numbers({rows})"),
            r#", _result => '{"to": "object", "store": "shelf", "format": "csv", "path": "large"}'"#,
        )?;
        place.ends(task, "Finished")?;
        let bytes = place.sql.number(&format!("SELECT bytes FROM async.v_result WHERE task_id = {task}"))? as u64;
        ensure!(bytes >= megabytes << 20, "{bytes} bytes");
        same(place.sql.number(&format!("SELECT rows FROM async.v_result WHERE task_id = {task}"))? as u64, rows)?;
        let path = place.sql.text(&format!("SELECT path FROM async.result WHERE task_id = {task}"))?;
        same(std::fs::metadata(directory.join(path))?.len(), bytes)?;
        let most = most_memory(place.dispatcher()?)?;
        ensure!(most < 256 << 20, "the dispatcher took {} MB", most >> 20);
        place.sql.run(&format!("SELECT async.drop_result({task})"))?;
        wait_for("the file is deleted", || Ok(files(&directory)?.is_empty()))
    });
}

#[test]
fn a_large_local_result_passes_through_its_worker_in_bounded_memory() {
    let cluster = start(Cluster::options());
    test_on(&cluster, away(), "large_local", |place| {
        let directory = shelf(&place.here)?;
        place.sql.run(&format!(
            r#"SELECT async.configure('{{"stores": [{{"store": "shelf", "url": "file://{}"}}]}}')"#,
            directory.display()
        ))?;
        let task = place.push(
            "local",
            "SELECT i AS n, repeat('wide ', 100) || i AS t, pg_backend_pid() AS pid FROM generate_series(1, 300000) AS i",
            r#", _result => '{"to": "object", "store": "shelf", "format": "csv", "path": "large"}'"#,
        )?;
        place.ends(task, "Finished")?;
        same(place.sql.number(&format!("SELECT rows FROM async.v_result WHERE task_id = {task}"))?, 300_000)?;
        let worker = place.sql.number(&format!("SELECT (async.fetch_result({task}, 1)->>'pid')::INT"))?;
        let most = most_memory(worker as i32)?;
        ensure!(most < 200 << 20, "the worker took {} MB", most >> 20);
        Ok(())
    });
}
