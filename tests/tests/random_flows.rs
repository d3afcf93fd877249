//! The property: random flows, run for real and many at once, end as the reference model says, node by node, with every
//! effect of a callback there exactly as often as it must be.
//!
//! `PGFLOW_SEED` repeats a run, `PGFLOW_FLOWS` changes the number of flows (200).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::Database;
use pgflow_tests::failure::in_database;
use pgflow_tests::generator::{count_features, random_plan, Features, FEATURES};
use pgflow_tests::model::{expect, Expected};
use pgflow_tests::plan::Plan;
use pgflow_tests::play;
use pgflow_tests::rng::{seed_from, Rng};

const FLOWS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn random_flows_agree_with_the_reference_model() -> Result<()> {
    let seed = seed_from("PGFLOW_SEED");
    let flows = std::env::var("PGFLOW_FLOWS").ok().and_then(|text| text.parse().ok()).unwrap_or(FLOWS);
    println!("PGFLOW_SEED={seed} PGFLOW_FLOWS={flows}");
    let cluster = Cluster::options().start()?;
    in_database(&cluster, "random_flows", |database| agree(database, seed, flows));
    Ok(())
}

/// The dispatcher's event queue overflows all the time: what it is not told it must find in the tables.
#[test]
fn they_agree_when_events_are_lost() -> Result<()> {
    let seed = seed_from("PGFLOW_SEED");
    println!("PGFLOW_SEED={seed}, event_queue_size 16");
    let cluster = Cluster::options().setting("pgflow.event_queue_size", "16").start()?;
    in_database(&cluster, "lost_events", |database| agree(database, seed, FLOWS / 4));
    Ok(())
}

fn agree(database: &Database, seed: u64, flows: usize) -> Result<()> {
    let mut rng = Rng::new(seed);
    let plans: Vec<(Plan, Expected)> = (0..flows)
        .map(|_| {
            let plan = random_plan(&mut rng);
            let expected = expect(&plan);
            (plan, expected)
        })
        .collect();
    if flows >= FLOWS {
        print_features(&plans)?;
    }

    let mut session = database.connect()?;
    play::set_up(&mut session)?;
    let begun = Instant::now();
    let mut runs = Vec::new();
    for (number, (plan, _)) in plans.iter().enumerate() {
        runs.push(play::start(&mut session, &format!("random_{number}"), plan)?);
    }
    println!("{flows} runs started in {:.1?}", begun.elapsed());
    let all_ended = play::wait_for_all(&mut session, &runs, PATIENCE)?;
    let tasks = session.number("SELECT count(*) FROM async.task")?;
    println!(
        "{} after {:.1?}, {tasks} tasks",
        if all_ended { "all ended" } else { "SOME STILL OPEN" },
        begun.elapsed()
    );

    let mut failed = 0;
    let mut kinds = BTreeMap::new();
    for (number, ((plan, expected), flow_id)) in plans.iter().zip(&runs).enumerate() {
        let wrong = play::differences(database, *flow_id, plan, expected)?;
        if !wrong.is_empty() {
            failed += 1;
            for difference in &wrong {
                *kinds.entry(kind(difference)).or_insert(0) += 1;
            }
            if failed <= 3 {
                println!("\nflow {number} of PGFLOW_SEED={seed}, run {flow_id}, is not as expected");
                println!("{}", play::described(plan, expected, &wrong));
            }
        }
    }
    for (kind, count) in kinds {
        println!("{count:>7} times  {kind}");
    }
    let died = database.cluster.log_tail(5, "background worker \"pgflow");
    if !died.is_empty() {
        println!("processes of the engine have ended by themselves:\n{died}");
    }
    if failed > 0 {
        bail!("{failed} of {flows} flows are not as the model expects; PGFLOW_SEED={seed}");
    }
    ensure!(all_ended, "runs are open still, yet nothing differs");
    ensure!(died.is_empty(), "a process of the engine has ended by itself; PGFLOW_SEED={seed}");
    Ok(())
}

/// A difference without its numbers.
fn kind(difference: &str) -> String {
    difference.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(100).collect()
}

fn print_features(plans: &[(Plan, Expected)]) -> Result<()> {
    let mut counts = Features::new();
    for (plan, expected) in plans {
        count_features(plan, expected, &mut counts);
    }
    for feature in FEATURES {
        let count = counts.get(feature).copied().unwrap_or(0);
        println!("{count:>7}  {feature}");
        ensure!(count > 0, "no plan has any {feature}");
    }
    Ok(())
}
