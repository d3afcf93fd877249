//! The primary dies at a point, and its standby, which has not everything of it, is promoted: there the work goes on, and all
//! that holds after a crash holds.

use std::time::Duration;

use anyhow::{ensure, Result};
use pgflow_tests::cluster::{Cluster, Stop};
use pgflow_tests::database::Database;
use pgflow_tests::failure::{in_database, with_report};
use pgflow_tests::standby::Standby;

use crate::point::{named, Prelude};
use crate::round::{finish, stands_there, wait_for, Before, Operator};
use crate::world::{options, World};

const NAME: &str = "failing_over";

#[test]
fn a_standby_goes_on_wherever_the_primary_died() -> Result<()> {
    let first = options().start()?;
    let mut servers: Vec<Standby> = Vec::new();
    in_database(&first, NAME, |database| World::build(database).map(drop));
    for (point, nth) in
        [("dispatcher.committed", 4), ("dispatcher.cascade", 20), ("worker.wrote", 9), ("worker.committed", 9)]
    {
        let standby = {
            let primary: &Cluster = servers.last().map_or(&first, |standby| standby);
            fail_over(primary, point, nth)?
        };
        servers.push(standby);
    }
    Ok(())
}

/// One generation: the primary dies at a point; the standby that has taken over, all well.
fn fail_over(primary: &Cluster, point: &str, nth: usize) -> Result<Standby> {
    let database = Database::new(primary, NAME);
    let world = World::of(&database)?;
    let before = Before::of(&world, false)?;
    let standby = Standby::of(primary)?;
    ensure!(named(point).prelude == Prelude::None, "{point} needs more than work");
    world.arm(point, nth)?;
    let work = Operator::sets_to_work(&world, &before, false)?;
    wait_for("somebody stands there", || Ok(stands_there(&world, point)?.is_some()))?;
    // The others go on for a moment.
    std::thread::sleep(Duration::from_millis(50));
    world.disarm()?;
    primary.stop(Stop::Immediate)?;
    work.join()?;

    standby.promote()?;
    let there = Database::new(&standby, NAME);
    with_report(&there, |there| {
        let world = World::of(there)?;
        finish(&world, &Before { log: 0, ..before })?;
        println!("{point} {nth}: the standby has gone on");
        Ok(())
    });
    Ok(standby)
}
