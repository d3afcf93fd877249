//! Nobody polls: an idle system uses no CPU and writes no WAL.

use std::fs;

use anyhow::{ensure, Context, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::{Database, Kind};

use crate::kit::*;

/// CPU ticks and voluntary context switches of a process.
fn spent(pid: i32) -> Result<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).context("status")?;
    Ok((fields[11].parse::<u64>()? + fields[12].parse::<u64>()?, switches.trim().parse()?))
}

fn ours(database: &Database) -> Result<Vec<i32>> {
    let mut session = database.cluster.connect("postgres", pgflow_tests::cluster::SUPERUSER)?;
    let pids = session.column("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pgflow%' ORDER BY 1")?;
    Ok(pids.iter().filter_map(|pid| pid.parse().ok()).collect())
}

#[test]
fn an_idle_system_uses_no_cpu_and_writes_no_wal() {
    let options = Cluster::options()
        .setting("autovacuum", "off")
        .setting("pgflow.worker_idle_time", "200ms")
        .setting("wal_level", "minimal")
        .setting("max_wal_senders", "0");
    test_alone("idles", options, |database, session| {
        configure(
            session,
            "f",
            r#"{"node": "a", "routine": "t.notes", "steps": [{"s": 1}, {"s": 2}]}, {"node": "b", "routine": "t.fails"}"#,
        )?;
        for _ in 0..5 {
            ends_as(database, session, "f", "a Finished, b Failed")?;
        }
        let other = database.cluster.database("idles_too")?;
        let mut there = set_up(&other)?;
        // A run that waits for somebody is no reason to be awake, but for a look at the tables now and then.
        there.run(r#"SELECT async.configure('{"targets": [{"target": "later", "asynchronous_finish": true}]}')"#)?;
        configure_one(&mut there, "a", "t.nothing")?;
        ends_as(&other, &mut there, "a", "a Finished")?;
        wait_gone(database, Kind::Worker)?;
        wait_gone(&other, Kind::Worker)?;
        session.run("VACUUM ANALYZE")?;
        session.run("CHECKPOINT")?;
        pause(1500);

        let pids = ours(database)?;
        same(pids.len(), 3)?;
        let wal = session.text("SELECT pg_current_wal_insert_lsn()")?;
        let before: Vec<_> = pids.iter().map(|pid| spent(*pid)).collect::<Result<_>>()?;
        pause(20_000);
        let after: Vec<_> = pids.iter().map(|pid| spent(*pid)).collect::<Result<_>>()?;
        same(session.text("SELECT pg_current_wal_insert_lsn()")?, wal)?;
        ensure!(before == after, "(ticks, switches) of {pids:?}\nbefore {before:?}\nafter  {after:?}");
        same(ours(database)?, pids)
    });
}
