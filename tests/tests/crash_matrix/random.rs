//! Rounds by chance: any point, any pass of it, any death, often a second one while the server recovers from the first, and
//! random flows beside the known work, compared with the reference model. A round's choices follow from its seed alone, the
//! first round's being `PGFLOW_SEED`, so that `PGFLOW_ROUNDS=1` repeats a round.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::Kind;
use pgflow_tests::failure::with_report;
use pgflow_tests::generator::random_plan;
use pgflow_tests::model::{expect, Expected};
use pgflow_tests::plan::Plan;
use pgflow_tests::play::{self, Weather};
use pgflow_tests::postmaster::signal;
use pgflow_tests::rng::{seed_from, Rng};

use crate::death::Death;
use crate::point::{Prelude, POINTS};
use crate::round::{finish, Before, Round};
use crate::world::{options, World};

/// How many rounds unless `PGFLOW_ROUNDS` says otherwise.
const ROUNDS: u64 = 4;
/// A pass that does not come has not been waited for longer than this.
const REACHED: Duration = Duration::from_secs(4);
/// After so many failures it is not worth going on.
const FAILURES: usize = 10;

#[test]
fn anything_dies_anywhere() -> Result<()> {
    let seed = seed_from("PGFLOW_SEED");
    let rounds = std::env::var("PGFLOW_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    println!("PGFLOW_SEED={seed} PGFLOW_ROUNDS={rounds}");
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut next = seed;
    while next < seed + rounds && tally.failed.len() < FAILURES {
        // A server of its own for what comes after a failure.
        next = some_rounds(next, seed + rounds, &mut tally)?;
    }
    println!("{}", tally.summary(seed, next - seed, begun.elapsed()));
    ensure!(tally.failed.is_empty(), "rounds failed, by seed: {:?}", tally.failed);
    Ok(())
}

/// Rounds up to the first failure; returns the next seed.
fn some_rounds(from: u64, to: u64, tally: &mut Tally) -> Result<u64> {
    let cluster = options().setting("pgflow.keep_runs", "600").start()?;
    let database = cluster.database("soak")?;
    let mut next = from;
    let mut failure = None;
    with_report(&database, |database| {
        let world = World::build(database)?;
        while next < to && failure.is_none() {
            let choice = Choice::of(next);
            let begun = Instant::now();
            let reached = choice.carry_out(&world);
            let ended = match &reached {
                Ok(true) => "reached",
                Ok(false) => "not reached",
                Err(_) => "FAILED",
            };
            println!("seed {next}: {choice}: {ended}, {:.1?}", begun.elapsed());
            tally.count(next, &choice, &reached);
            next += 1;
            failure = reached.err().map(|error| format!("{error:#}\n\n{}", database.report()));
        }
        Ok(())
    });
    if let Some(failure) = failure {
        println!("{failure}");
        keep_log(&cluster, next - 1);
    }
    Ok(next)
}

/// The log of a server that is about to be deleted.
fn keep_log(cluster: &Cluster, seed: u64) {
    let path = std::env::temp_dir().join(format!("pgflow-crash-{seed}.log"));
    match std::fs::copy(cluster.directory().join("log"), &path) {
        Ok(_) => println!("the server's log: {}", path.display()),
        Err(error) => println!("the server's log could not be kept: {error}"),
    }
}

struct Choice {
    round: Round,
    /// A second death, so many milliseconds after the first: (who, signal, when).
    second: Option<(Kind, &'static str, u64)>,
    plans: Vec<(Plan, Expected)>,
    /// Makes the names of this round's flows its own.
    seed: u64,
}

impl Choice {
    fn of(seed: u64) -> Choice {
        let mut rng = Rng::new(seed);
        let point = *rng.pick(&POINTS);
        let mut death = *rng.pick(&Death::ALL);
        // The launcher runs no statement that could be cancelled.
        if death == Death::Cancel && point.who == Some(Kind::Launcher) {
            death = Death::Term;
        }
        let nth = rng.between(1, point.passes);
        let kinds = [Kind::Launcher, Kind::Dispatcher, Kind::Worker];
        let second =
            rng.percent(35).then(|| (*rng.pick(&kinds), *rng.pick(&["KILL", "TERM"]), rng.between(0, 400) as u64));
        let plans = (0..rng.between(0, 2))
            .map(|_| {
                let plan = random_plan(&mut rng);
                let expected = expect(&plan);
                (plan, expected)
            })
            .collect();
        Choice { round: Round { point, nth, death }, second, plans, seed }
    }

    /// Whether the point was reached. An error: something does not hold.
    fn carry_out(&self, world: &World) -> Result<bool> {
        let before = Before::of(world, self.round.may_fail())?;
        let mut runs = Vec::new();
        let reached = self.round.play(world, &before, REACHED, || {
            let mut session = world.session()?;
            for (number, (plan, _)) in self.plans.iter().enumerate() {
                runs.push(play::start(&mut session, &format!("random_{}_{number}", self.seed), plan)?);
            }
            Ok(())
        })?;
        if let Some((kind, how, after)) = self.second {
            std::thread::sleep(Duration::from_millis(after));
            // There may be none just now.
            if let Some(pid) = world.here.pids(kind).unwrap_or_default().first() {
                if signal(*pid, how).is_ok() && how == "KILL" {
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
        finish(world, &before)?;
        let mut wrong = Vec::new();
        for ((plan, expected), flow_id) in self.plans.iter().zip(&runs).filter(|_| !before.may_fail) {
            let found = play::differences_in(Weather::Deadly, &world.here, *flow_id, plan, expected)?;
            if !found.is_empty() {
                wrong.push(format!("run {flow_id}\n{}", play::described(plan, expected, &found)));
            }
        }
        ensure!(wrong.is_empty(), "not as the model expects: {}", wrong.join("\n"));
        Ok(reached)
    }
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Round { point, nth, death } = &self.round;
        let prelude =
            if point.prelude == Prelude::None { String::new() } else { format!(" after {:?}", point.prelude) };
        write!(f, "{} {nth}{prelude}, {death:?}", point.name)?;
        if let Some((kind, how, after)) = self.second {
            write!(f, ", {how} of a {} {after} ms later", kind.name())?;
        }
        write!(f, ", {} random flows", self.plans.len())
    }
}

/// What has happened in all rounds.
#[derive(Default)]
struct Tally {
    reached: usize,
    deaths: BTreeMap<String, usize>,
    points: BTreeMap<&'static str, usize>,
    second: usize,
    flows: usize,
    failed: Vec<u64>,
}

impl Tally {
    fn count(&mut self, seed: u64, choice: &Choice, reached: &Result<bool>) {
        match reached {
            Ok(true) => {
                self.reached += 1;
                *self.deaths.entry(format!("{:?}", choice.round.death)).or_default() += 1;
                *self.points.entry(choice.round.point.name).or_default() += 1;
            }
            Ok(false) => {}
            Err(_) => self.failed.push(seed),
        }
        self.second += usize::from(choice.second.is_some());
        self.flows += choice.plans.len();
    }

    fn summary(&self, seed: u64, rounds: u64, took: Duration) -> String {
        let Tally { reached, deaths, points, second, flows, failed } = self;
        format!(
            "{rounds} rounds of seeds {seed} to {} in {took:.0?}: {} failed; {reached} reached their point, {second} had a \
             second death, {flows} random flows\ndeaths: {deaths:?}\npoints: {points:?}",
            seed + rounds.max(1) - 1,
            failed.len()
        )
    }
}
