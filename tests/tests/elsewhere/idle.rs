//! When work elsewhere has ended the dispatcher sleeps, with nothing left open.

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::Kind;

use crate::kit::*;

#[test]
fn after_work_elsewhere_the_dispatcher_sleeps_and_closes_what_it_had_open() {
    let cluster = start(Cluster::options().setting("autovacuum", "off").setting("pgflow.worker_idle_time", "200ms"));
    test_on(&cluster, away(), "asleep", |place| {
        place.with_clickhouse()?;
        let string = place.string();
        place.target("there", &format!(r#""connection_string": "{string}""#), r#""idle_time": 1"#)?;
        let tasks = [
            place.push("there", "SELECT 1", "")?,
            place.push("house", "SELECT 1", r#", _result => '"inline"'"#)?,
            place.push("house", "SELECT 1 AS a", r#", _result => '{"to": "table", "table": "t.made"}'"#)?,
        ];
        if soak() {
            let task = place.request(r#"{"path": "/ok"}"#, "")?;
            place.ends(task, "Finished")?;
            pause(95_000);
        }
        for task in tasks {
            place.ends(task, "Finished")?;
        }
        place.there.wait_until(
            "NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'pgflow%' AND pid <> pg_backend_pid() AND application_name <> 'pgflow-tests')",
            SOON,
        )?;
        wait_for("no worker is left", || Ok(place.here.pids(Kind::Worker)?.is_empty()))?;
        let dispatcher = place.dispatcher()?;
        // What ClickHouse's clients have open is closed after a minute.
        pause(60_000);
        // What is kept open is closed by and by (clients of HTTP after 90 s: only in a soak); then nothing wakes it.
        wait_for("the dispatcher sleeps", || -> Result<bool> {
            let before = spent(dispatcher)?;
            pause(6000);
            Ok(spent(dispatcher)? == before)
        })?;
        // And it wakes up.
        let task = place.push("there", "SELECT 1", "")?;
        place.ends(task, "Finished")?;
        ensure!(place.dispatcher()? == dispatcher, "it is another one");
        Ok(())
    });
}
