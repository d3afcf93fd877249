//! Tests the tests: each deliberate mistake in the cascade is noticed by a small run of the property test, and the
//! cascade as it is passes the same run.
//!
//! `PGFLOW_SEED` changes the flows; the default is fixed, so that a mutation that is caught stays caught.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::Database;
use pgflow_tests::generator::random_plan;
use pgflow_tests::model::{expect, Expected};
use pgflow_tests::mutation::{Mutation, MUTATIONS};
use pgflow_tests::plan::Plan;
use pgflow_tests::play;
use pgflow_tests::rng::Rng;

const FLOWS: usize = 25;
const SEED: u64 = 20_261_120;
/// Runs in which nothing moves for so long are stuck.
const STILLNESS: Duration = Duration::from_millis(1500);

#[test]
fn every_mutation_is_caught() -> Result<()> {
    let seed = std::env::var("PGFLOW_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED);
    let mut rng = Rng::new(seed);
    let plans: Vec<(Plan, Expected)> = (0..FLOWS)
        .map(|_| {
            let plan = random_plan(&mut rng);
            let expected = expect(&plan);
            (plan, expected)
        })
        .collect();
    let cluster = Cluster::options().setting("pgflow.max_workers", "100").start()?;

    passes_unchanged(&cluster, "before", &plans)?;
    let mut survivors = Vec::new();
    for (number, mutation) in MUTATIONS.iter().enumerate() {
        let begun = Instant::now();
        let evidence = evidence(&cluster, &format!("mutant_{number}"), Some(mutation), &plans)?;
        let verdict = evidence.as_deref().unwrap_or("NOT CAUGHT");
        println!("{:<52}  {:>4.1} s  {}", mutation.name, begun.elapsed().as_secs_f32(), shortened(verdict));
        if evidence.is_none() {
            survivors.push(mutation.name);
        }
    }
    // A control: nothing that an earlier database left behind has caught the later mutations.
    passes_unchanged(&cluster, "after", &plans)?;
    ensure!(survivors.is_empty(), "not caught (PGFLOW_SEED={seed}): {survivors:?}");
    Ok(())
}

fn passes_unchanged(cluster: &Cluster, name: &str, plans: &[(Plan, Expected)]) -> Result<()> {
    if let Some(evidence) = evidence(cluster, name, None, plans)? {
        bail!("the cascade fails without a mutation: {evidence}\n{}", cluster.log_tail(25, ""));
    }
    println!("{:<52}          passes", "(no mutation)");
    Ok(())
}

/// Runs all plans in a database of their own, with a mutation in it; says what is wrong there, if anything is.
fn evidence(
    cluster: &Cluster,
    name: &str,
    mutation: Option<&Mutation>,
    plans: &[(Plan, Expected)],
) -> Result<Option<String>> {
    let database = cluster.database(name)?;
    if let Some(mutation) = mutation {
        mutation.apply(&mut database.connect()?)?;
    }
    let evidence = run_all(&database, plans)?;
    // A broken dispatcher must not disturb the next mutation.
    cluster.connect("postgres", "postgres")?.run(&format!("DROP DATABASE \"{name}\" WITH (FORCE)"))?;
    Ok(evidence)
}

fn run_all(database: &Database, plans: &[(Plan, Expected)]) -> Result<Option<String>> {
    let mut session = database.connect()?;
    play::set_up(&mut session)?;
    let mut runs = Vec::new();
    for (number, (plan, _)) in plans.iter().enumerate() {
        match play::start(&mut session, &format!("random_{number}"), plan) {
            Ok(flow_id) => runs.push(flow_id),
            Err(error) => return Ok(Some(format!("error: {error:#}"))),
        }
    }
    let open = play::wait_while_moving(&mut session, &runs, STILLNESS)?;
    for ((plan, expected), flow_id) in plans.iter().zip(&runs) {
        let wrong = play::differences(database, *flow_id, plan, expected)?;
        if let Some(first) = wrong.first() {
            return Ok(Some(match open {
                0 => first.clone(),
                _ => format!("{open} runs stuck; {first}"),
            }));
        }
    }
    Ok((open > 0).then(|| format!("{open} runs stuck")))
}

fn shortened(text: &str) -> String {
    text.lines().next().unwrap_or("").chars().take(110).collect()
}
