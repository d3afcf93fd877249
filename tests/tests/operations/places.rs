//! Few places for processes: everything still ends, and what waits says which setting is to blame.

use pgflow_tests::cluster::{Cluster, Options};
use pgflow_tests::database::Kind;

use crate::kit::*;

/// The launcher, one dispatcher, and two places more. An idle worker stays for ever.
fn four() -> Options {
    Cluster::options()
        .setting("max_worker_processes", "4")
        .setting("max_logical_replication_workers", "0")
        .setting("pgflow.worker_idle_time", "1h")
}

const TWO_AT_ONCE: &str = r#"{"node": "a", "routine": "t.waits"}, {"node": "b", "routine": "t.waits"}"#;

#[test]
fn an_idle_worker_makes_room_for_another_role() {
    test_alone("few_roles", four(), |database, session| {
        configure(session, "f", TWO_AT_ONCE)?;
        open_gate(session)?;
        for role in ["few_one", "few_two", "few_three"] {
            database.role(role)?;
            let mut session = database.connect_as(role)?;
            for _ in 0..2 {
                ends_as(database, &mut session, "f", "a Finished, b Finished")?;
            }
        }
        Ok(())
    });
}

#[test]
fn busy_workers_keep_a_role_waiting_which_is_said_with_the_setting() {
    test_alone("few_busy", four(), |database, session| {
        database.role("few_waits")?;
        configure(session, "f", TWO_AT_ONCE)?;
        let first = run(session, "f")?;
        wait_running(database, 2)?;
        let mut other = database.connect_as("few_waits")?;
        let second = run(&mut other, "f")?;
        database.wait_until(
            "(SELECT coalesce(starvation, '') LIKE '%max_worker_processes%' FROM async.v_server_info)",
            SOON,
        )?;
        database.wait_until(
            "EXISTS (SELECT FROM async.processes() WHERE last_error LIKE '%max_worker_processes%')",
            SOON,
        )?;
        println!("{}", session.text("SELECT starvation FROM async.v_server_info")?);
        open_gate(session)?;
        same(ended(database, first)?, "a Finished, b Finished")?;
        same(ended(database, second)?, "a Finished, b Finished")?;
        // It is not said for ever.
        database.wait_until(
            "(SELECT coalesce(starvation, '') NOT LIKE '%max_worker_processes%' FROM async.v_server_info)",
            SOON,
        )
    });
}

#[test]
fn two_databases_share_four_places() {
    test_alone("few_here", four(), |database, session| {
        configure(session, "f", TWO_AT_ONCE)?;
        open_gate(session)?;
        ends_as(database, session, "f", "a Finished, b Finished")?;
        same(database.pids(Kind::Worker)?.len(), 2)?;
        // The other database's dispatcher needs a place too; then there is one left for the workers of both.
        let other = database.cluster.database("few_there")?;
        let mut there = set_up(&other)?;
        configure(&mut there, "f", TWO_AT_ONCE)?;
        open_gate(&mut there)?;
        for _ in 0..3 {
            ends_as(&other, &mut there, "f", "a Finished, b Finished")?;
            ends_as(database, session, "f", "a Finished, b Finished")?;
        }
        Ok(())
    });
}
