//! Runs a property: a fixed number of cases, or for as long as the environment says.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

/// Cases of a property in the unit layer, and in each round of a long run.
const CASES: u32 = 300;
/// How many properties share the minutes of a long run.
const PROPERTIES: u32 = 7;

fn minutes() -> Option<f64> {
    std::env::var("PGFLOW_FUZZ_MINUTES").ok().and_then(|text| text.parse().ok()).filter(|minutes| *minutes > 0.0)
}

/// The seed of a long run; each round has the next one.
fn first_seed() -> u64 {
    let given = std::env::var("PGFLOW_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()))
}

fn round<S: Strategy>(seed: u64, strategy: &S, property: &impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    if let Err(error) = runner.run(strategy, property) {
        panic!("PGFLOW_FUZZ_SEED={seed}: {error}");
    }
}

/// Holds the property for many values of the strategy.
pub fn holds<S: Strategy>(name: &str, strategy: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let Some(minutes) = minutes() else {
        round(1, &strategy, &property);
        return;
    };
    let (begun, first) = (Instant::now(), first_seed());
    let lasts = Duration::from_secs_f64(minutes * 60.0 / f64::from(PROPERTIES));
    let mut rounds = 0;
    while begun.elapsed() < lasts {
        round(first + rounds, &strategy, &property);
        rounds += 1;
    }
    let cases = rounds * u64::from(CASES);
    println!("{name}: {cases} cases in {:.0} s, seeds from {first} on, no fault", begun.elapsed().as_secs_f64());
}
