//! Looks at a world by hand: counts its states, prints a counterexample, or serves Stateright's explorer.
//!
//! cargo run -p pgflow-model --example explore -- [list | check WORLD [VARIANT] | serve WORLD [VARIANT]]

use std::process::ExitCode;

use pgflow_model::{progress, scenarios, Scenario};
use stateright::{Checker, HasDiscoveries, Model};

const USAGE: &str = "usage: explore list | check WORLD [VARIANT] | serve WORLD [VARIANT]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (command, world) = match words[..] {
        [] | ["list"] => return list(),
        [command, world] => (command, find(world, None)),
        [command, world, variant] => (command, find(world, Some(variant))),
        _ => (USAGE, None),
    };
    match (command, world) {
        ("check", Some(scenario)) => check(scenario),
        ("serve", Some(scenario)) => {
            println!("http://localhost:3000");
            scenario.checker().serve("localhost:3000");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn find(world: &str, variant: Option<&str>) -> Option<Scenario> {
    let scenario = scenarios::named(world)?;
    let Some(variant) = variant else { return Some(scenario) };
    let broken = scenarios::broken().into_iter().map(|b| b.0).find(|b| format!("{b:?}") == variant)?;
    Some(scenario.with(broken))
}

fn list() -> ExitCode {
    println!("worlds:");
    scenarios::all().iter().for_each(|s| println!("  \"{}\"", s.name));
    println!("broken variants, and the worlds where they show:");
    scenarios::broken().iter().for_each(|(b, world, property)| println!("  {b:?} \"{world}\": not so: {property}"));
    ExitCode::SUCCESS
}

/// Prints every step to the first state that lacks a property, and that state.
fn check(scenario: Scenario) -> ExitCode {
    let checker = scenario.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{} states", checker.unique_state_count());
    let mut found = checker.discoveries();
    found.retain(|name, _| *name != pgflow_model::properties::FINISHES);
    for (name, path) in &found {
        println!("not so: {name}");
        for (number, action) in path.clone().into_actions().iter().enumerate() {
            println!("{:4}  {action:?}", number + 1);
        }
        println!("{:#?}", path.last_state());
    }
    if !found.is_empty() {
        return ExitCode::FAILURE;
    }
    match progress::search(&scenario).circle {
        Some(circle) => {
            println!("a circle: {circle:#?}");
            ExitCode::FAILURE
        }
        None => {
            println!("every property holds");
            ExitCode::SUCCESS
        }
    }
}
