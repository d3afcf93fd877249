//! A stop in order is no fault of what was running, in whatever order the server's processes hear of it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use pgflow_tests::cluster::{Cluster, Stop};
use pgflow_tests::database::Kind;
use pgflow_tests::postmaster::signal;

use crate::kit::*;

#[test]
fn c18_a_server_that_is_stopped_in_order_charges_no_task() {
    let options = Cluster::options().setting("pgflow.max_crash_attempts", "100").setting("pgflow.workers", "3");
    test_alone("stops_in_order", options, |database, session| {
        let nodes = ["a", "b", "c"].map(|node| format!(r#"{{"node": "{node}", "routine": "t.waits"}}"#)).join(", ");
        configure(session, "long", &nodes)?;
        let flow_id = run(session, "long")?;
        let charges = "SELECT coalesce(sum(crashes), 0) FROM async.task";
        let mut proved = 0;
        for _ in 0..20 {
            wait_running(database, 3)?;
            let before = database.connect()?.number(charges)?;
            let (workers, postmaster) = (database.pids(Kind::Worker)?, database.cluster.postmaster()?);
            // The workers hear of it first.
            let begun = Instant::now();
            for worker in workers {
                signal(worker, "TERM")?;
            }
            signal(postmaster, "INT")?;
            let took = begun.elapsed();
            database.cluster.restart(Stop::Fast)?;
            // Else the machine was too busy to bring it about.
            if took < Duration::from_millis(80) {
                same(database.connect()?.number(charges)?, before)?;
                proved += 1;
            }
            if proved == 3 {
                break;
            }
        }
        ensure!(proved > 0, "this machine cannot send four signals in 80 ms");
        wait_running(database, 3)?;
        open_gate(&mut database.connect()?)?;
        same(ended(database, flow_id)?, "a Finished, b Finished, c Finished")
    });
}
