//! The launcher: it comes back, leaves templates alone, and says when there are more databases than it may serve.

use std::time::Instant;

use anyhow::{ensure, Result};
use pgflow_tests::cluster::{Cluster, SUPERUSER};
use pgflow_tests::database::{Database, Kind};

use crate::kit::*;

#[test]
fn a_terminated_launcher_comes_back_and_nothing_stops_meanwhile() {
    test_alone("launched", Cluster::options(), |database, session| {
        configure_one(session, "a", "t.notes")?;
        ends_as(database, session, "a", "a Finished")?;
        let (launcher, dispatcher) = (the(database, Kind::Launcher)?, the(database, Kind::Dispatcher)?);
        session.run(&format!("SELECT pg_terminate_backend({launcher})"))?;
        ends_as(database, session, "a", "a Finished")?;
        let begun = Instant::now();
        wait_for("another launcher is there", || {
            let pids = database.pids(Kind::Launcher)?;
            Ok(pids.len() == 1 && pids[0] != launcher)
        })?;
        ensure!(begun.elapsed() < AT_ONCE, "after {:.1?}", begun.elapsed());
        same(the(database, Kind::Dispatcher)?, dispatcher)?;
        // It still serves: new databases, and dispatchers that end.
        let later = database.cluster.database("later")?;
        later.wait_until(
            "EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'later' AND backend_type = 'pgflow dispatcher')",
            SOON,
        )?;
        session.run(&format!("SELECT pg_terminate_backend({dispatcher})"))?;
        ends_as(database, session, "a", "a Finished")?;
        extension_in_template1(database)
    });
}

/// An extension in template1 gives every new database one, and keeps nobody from creating them.
fn extension_in_template1(database: &Database) -> Result<()> {
    let cluster = database.cluster;
    cluster.connect("template1", SUPERUSER)?.run("CREATE EXTENSION pgflow")?;
    pause(500);
    let mut admin = cluster.connect("postgres", SUPERUSER)?;
    same(admin.number("SELECT count(*) FROM pg_stat_activity WHERE datname = 'template1' AND pid <> pg_backend_pid() AND backend_type LIKE 'pgflow%'")?, 0)?;
    at_once(&mut admin, "CREATE DATABASE born_with_it")?;
    at_once(&mut admin, "CREATE DATABASE born_too TEMPLATE template1")?;
    for name in ["born_with_it", "born_too"] {
        let born = Database::new(cluster, name);
        let mut session = set_up(&born)?;
        configure_one(&mut session, "a", "t.notes")?;
        ends_as(&born, &mut session, "a", "a Finished")?;
    }
    Ok(())
}

#[test]
fn more_databases_than_can_be_served_are_named_in_the_log() {
    // These two take the places.
    let options = Cluster::options().setting("pgflow.max_databases", "2");
    test_alone("served_a", options, |database, session| {
        let cluster = database.cluster;
        cluster.database("served_b")?;
        let refused = cluster.database("not_served")?;
        let mut there = set_up(&refused)?;
        configure_one(&mut there, "a", "t.notes")?;
        let flow_id = run(&mut there, "a")?;
        pause(500);
        let log = cluster.log_tail(5, "pgflow.max_databases");
        ensure!(log.contains("max_databases"), "the log says nothing");
        println!("{log}");
        contains(
            &there.text("SELECT server_status || ' ' || coalesce(starvation, '') FROM async.v_server_info")?,
            "max_databases",
        )?;
        // A place that becomes free is used.
        configure_one(session, "a", "t.notes")?;
        cluster.connect("postgres", SUPERUSER)?.run("DROP DATABASE served_b")?;
        same(ended(&refused, flow_id)?, "a Finished")
    });
}

#[test]
fn databases_without_the_extension_take_no_place() {
    let options = Cluster::options().setting("pgflow.max_databases", "2");
    let cluster = start(options);
    let body = |cluster: &Cluster| -> Result<()> {
        for name in ["plain_a", "plain_b", "plain_c"] {
            cluster.plain_database(name)?;
        }
        pause(500);
        let database = cluster.database("the_one")?;
        let mut session = set_up(&database)?;
        configure_one(&mut session, "a", "t.notes")?;
        ends_as(&database, &mut session, "a", "a Finished").map(drop)
    };
    body(&cluster).unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.log_tail(10, "")));
}

#[test]
fn dropped_databases_and_extensions_leave_no_worker_place_taken() {
    let options = Cluster::options().setting("pgflow.max_workers", "3").setting("pgflow.max_databases", "5");
    let cluster = start(options);
    let body = |cluster: &Cluster| -> Result<()> {
        let mut admin = cluster.connect("postgres", SUPERUSER)?;
        for i in 0..8 {
            let database = cluster.database(&format!("passing_{i}"))?;
            let mut session = set_up(&database)?;
            configure_one(&mut session, "a", "t.notes")?;
            ends_as(&database, &mut session, "a", "a Finished")?;
            if i % 2 == 0 {
                session.run("DROP EXTENSION pgflow CASCADE")?;
            }
            drop(session);
            admin.run(&format!("DROP DATABASE passing_{i} WITH (FORCE)"))?;
        }
        Ok(())
    };
    body(&cluster).unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.log_tail(10, "")));
}
