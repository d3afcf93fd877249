//! The fixed table of deaths, a test for each kind of process.

use anyhow::{Context, Result};
use pgflow_tests::failure::in_database;

use crate::death::Death::{self, *};
use crate::point::named;
use crate::round::Round;
use crate::world::{options, World};

/// (point, the how-manieth pass of it, death).
type Row = (&'static str, usize, Death);

/// Carries out a table, one round after the other, in one database.
fn play(name: &str, rows: &[Row]) -> Result<()> {
    let cluster = options().start()?;
    in_database(&cluster, name, |database| {
        let world = World::build(database)?;
        for (point, nth, death) in rows {
            let begun = std::time::Instant::now();
            let round = Round { point: named(point), nth: *nth, death: *death };
            round.run(&world).with_context(|| format!("{point} {nth}, {death:?}"))?;
            println!("{point} {nth}, {death:?}: {:.1?}", begun.elapsed());
        }
        Ok(())
    });
    Ok(())
}

#[test]
fn a_client_dies() -> Result<()> {
    play(
        "client",
        &[
            // Starting a run, in its middle; cancelling; running again.
            ("client.statement", 9, Kill),
            ("client.statement", 9, Terminate),
            ("client.statement", 40, Kill),
            ("client.statement", 45, Terminate),
            ("client.statement", 50, Immediate),
            ("client.statement", 42, Cancel),
            ("client.committed", 2, Kill),
            ("client.committed", 2, Term),
            ("client.committed", 3, Kill),
            ("client.committed", 4, Immediate),
        ],
    )
}

#[test]
fn a_worker_dies() -> Result<()> {
    play(
        "worker",
        &[
            ("worker.begins", 1, Kill),
            ("worker.begins", 1, Terminate),
            ("worker.begins", 1, Immediate),
            ("worker.took", 5, Kill),
            ("worker.took", 9, Terminate),
            ("worker.took", 5, Immediate),
            ("worker.statement", 60, Kill),
            ("worker.statement", 61, Term),
            ("worker.statement", 90, Cancel),
            ("worker.wrote", 6, Kill),
            ("worker.wrote", 9, Terminate),
            ("worker.wrote", 6, Immediate),
            ("worker.committed", 6, Kill),
            ("worker.committed", 9, Terminate),
            ("worker.committed", 6, Immediate),
            ("worker.reported", 6, Kill),
            ("worker.reported", 9, Terminate),
            ("worker.reported", 6, Postmaster),
        ],
    )
}

#[test]
fn the_dispatcher_dies() -> Result<()> {
    play(
        "dispatcher",
        &[
            ("dispatcher.heard", 4, Kill),
            ("dispatcher.heard", 6, Terminate),
            ("dispatcher.heard", 4, Immediate),
            ("dispatcher.cascade", 10, Kill),
            ("dispatcher.cascade", 25, Terminate),
            ("dispatcher.cascade", 18, Immediate),
            ("dispatcher.cascade", 33, Postmaster),
            ("dispatcher.decided", 3, Kill),
            ("dispatcher.decided", 3, Terminate),
            ("dispatcher.marked", 3, Kill),
            ("dispatcher.marked", 4, Terminate),
            ("dispatcher.committed", 4, Kill),
            ("dispatcher.committed", 5, Terminate),
            ("dispatcher.committed", 4, Immediate),
            ("dispatcher.told", 4, Kill),
            ("dispatcher.told", 5, Fast),
        ],
    )
}

#[test]
fn recovery_itself_dies() -> Result<()> {
    play(
        "recovery",
        &[
            ("launcher.looked", 1, Kill),
            ("launcher.looked", 1, Terminate),
            ("launcher.asked", 1, Kill),
            ("launcher.asked", 1, Terminate),
            ("launcher.asked", 1, Immediate),
            ("dispatcher.begins", 1, Kill),
            ("dispatcher.begins", 1, Terminate),
            ("dispatcher.recovery", 1, Kill),
            ("dispatcher.recovery", 5, Kill),
            ("dispatcher.recovery", 6, Terminate),
            ("dispatcher.recovery", 6, Immediate),
            ("dispatcher.recovered", 1, Kill),
            ("dispatcher.recovered", 1, Terminate),
            ("dispatcher.recovered", 1, Postmaster),
        ],
    )
}
