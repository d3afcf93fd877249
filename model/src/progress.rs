//! Whether the engine can go round in circles: a depth-first search for a path that leads back to a state on it.
//!
//! Faults and sessions come a bounded number of times, so a circle would consist of the engine's own steps. Without one,
//! every path ends, and the property about its end says that the run has ended. Stateright does not look for circles.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use stateright::Model;

use crate::{Action, Scenario, State};

pub struct Progress {
    pub states: usize,
    pub transitions: usize,
    /// The longest path that the search followed.
    pub depth: usize,
    /// The transitions of a circle, if there is one.
    pub circle: Option<Vec<Action>>,
}

struct Frame {
    hash: u64,
    state: State,
    actions: Vec<Action>,
    /// How this state was reached.
    by: Option<Action>,
}

fn hash(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

fn frame(scenario: &Scenario, hash: u64, state: State, by: Option<Action>) -> Frame {
    let mut actions = Vec::new();
    scenario.actions(&state, &mut actions);
    Frame { hash, state, actions, by }
}

/// Visits every state once.
pub fn search(scenario: &Scenario) -> Progress {
    let mut progress = Progress { states: 0, transitions: 0, depth: 0, circle: None };
    // Whether a state that was seen is on the path.
    let mut seen: HashMap<u64, bool> = HashMap::new();
    let mut path = Vec::new();
    for state in scenario.init_states() {
        let at = hash(&state);
        seen.insert(at, true);
        path.push(frame(scenario, at, state, None));
    }
    while let Some(top) = path.last_mut() {
        let Some(action) = top.actions.pop() else {
            seen.insert(top.hash, false);
            path.pop();
            continue;
        };
        let Some(next) = scenario.next_state(&top.state, action.clone()) else { continue };
        progress.transitions += 1;
        let at = hash(&next);
        match seen.entry(at) {
            Entry::Vacant(entry) => {
                entry.insert(true);
                path.push(frame(scenario, at, next, Some(action)));
                progress.depth = progress.depth.max(path.len());
            }
            Entry::Occupied(entry) if *entry.get() => {
                let from = path.iter().position(|f| f.hash == at).unwrap_or_default();
                let steps = path[from + 1..].iter().filter_map(|f| f.by.clone()).chain([action]);
                progress.circle = Some(steps.collect());
                break;
            }
            Entry::Occupied(_) => {}
        }
    }
    progress.states = seen.len();
    progress
}
