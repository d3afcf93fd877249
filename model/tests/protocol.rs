//! The protocol has every property in every world; each broken variant of it lacks the one that it is about.

use std::time::Instant;

use pgflow_model::{progress, properties, scenarios, Scenario};
use stateright::{Checker, HasDiscoveries, Model};

/// Far above what the worlds have: a mistake in the model must end as a failure, not as a full memory.
const MOST: usize = 4_000_000;

fn holds(scenario: Scenario) {
    let began = Instant::now();
    let checker = scenario.clone().checker().target_state_count(MOST).spawn_bfs().join();
    println!("{:34} {:7} states  {:5.1?}", scenario.name, checker.unique_state_count(), began.elapsed());
    assert!(checker.state_count() < MOST, "{}: more states than a test may visit", scenario.name);
    for property in scenario.properties() {
        let found = checker.discovery(property.name);
        if property.name == properties::FINISHES {
            assert!(found.is_some(), "{}: never: {}", scenario.name, property.name);
        } else if let Some(path) = found {
            panic!("{}: not so: {}\n{:#?}", scenario.name, property.name, path.into_actions());
        }
    }
}

#[test]
fn the_protocol_holds_in_every_world() {
    scenarios::all().into_iter().for_each(holds);
}

/// With the property about the end of every path: whatever happens, the run ends.
#[test]
fn the_engine_never_goes_round_in_circles() {
    for scenario in scenarios::all() {
        let found = progress::search(&scenario);
        println!("{:34} {:7} states  {:7} transitions", scenario.name, found.states, found.transitions);
        assert!(found.circle.is_none(), "{}: {:#?}", scenario.name, found.circle);
    }
}

#[test]
fn what_is_broken_is_caught() {
    for (broken, name, property) in scenarios::broken() {
        let scenario = scenarios::named(name).expect("a world of that name").with(broken);
        let checker = scenario.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
        let path = checker.discovery(property);
        println!("{:20} {:7} states  {:?}", format!("{broken:?}"), checker.unique_state_count(), path.is_some());
        let path = path.unwrap_or_else(|| panic!("{broken:?} does not show in \"{name}\" as \"{property}\""));
        println!("    after {} steps, not so: {property}", path.into_actions().len());
    }
}
