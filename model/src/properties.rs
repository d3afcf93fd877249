//! What must hold: in every state, and when nothing is left to do.

use stateright::{Model, Property};

use crate::state::{Action, Phase, State};
use crate::tables::{own_place, Ended, NodeState};
use crate::Scenario;

pub const ONCE: &str = "the effects of a task are committed at most once";
pub const EXACTLY: &str = "an ended task has its effects exactly if it is finished";
pub const STOPPED: &str = "an attempt that was stopped commits nothing";
pub const COUNTED: &str = "an attempt that has committed a part is counted before the task runs again";
pub const STEPS: &str = "a finished node has no step that is open or failed";
pub const COUNTERS: &str = "counters equal what they count";
pub const ENDS: &str = "when nothing is left to do, the run and all its tasks have ended";
pub const CHARGED: &str = "only a task that ran alone is charged for a crash";
pub const FINISHES: &str = "the run finishes";

pub fn all() -> Vec<Property<Scenario>> {
    vec![
        Property::always(ONCE, |_, s: &State| s.tables.ids().all(|(_, t)| t.effects <= 1)),
        Property::always(EXACTLY, |_, s: &State| {
            let is_right = |ended: Ended, effects: u8| (ended == Ended::Finished) == (effects > 0);
            s.tables.ids().all(|(_, t)| t.ended.is_none_or(|e| is_right(e, t.effects)))
        }),
        Property::always(STOPPED, |_, s: &State| !s.stopped_committed),
        Property::always(COUNTED, |_, s: &State| s.workers.iter().all(|w| is_new(s, &w.phase))),
        Property::always(STEPS, |_, s: &State| finished_nodes_are_done(s)),
        Property::always(COUNTERS, counters_are_right),
        Property::always(ENDS, |scenario, s: &State| !is_stuck(scenario, s)),
        Property::always(CHARGED, |scenario, s: &State| {
            scenario.worker_ends > 0
                || scenario.crashes > 0
                || s.tables.ids().all(|(id, t)| t.crashes == 0 || Some(id.place) == scenario.poison)
        }),
        Property::sometimes(FINISHES, |scenario, s: &State| {
            let nodes = &s.tables.nodes[..scenario.nodes.len()];
            let done = nodes.iter().filter(|n| n.state == NodeState::Finished).count();
            s.tables.run.ended && (done == nodes.len() || scenario.poison.is_some())
        }),
    ]
}

/// An attempt that runs and has committed nothing yet: nobody has committed anything under its number.
fn is_new(state: &State, phase: &Phase) -> bool {
    match phase {
        Phase::Begun { id, attempt, intention, committed: false, .. } => {
            let same = state.tables.task(*id).filter(|t| t.intention == *intention && t.is_open());
            same.is_none_or(|t| t.parts & 1 << attempt == 0)
        }
        _ => true,
    }
}

fn finished_nodes_are_done(state: &State) -> bool {
    let is_finished = |ended: Option<Ended>| ended == Some(Ended::Finished);
    state.tables.nodes.iter().enumerate().filter(|(_, n)| n.state == NodeState::Finished).all(|(i, _)| {
        let own = state.tables.tasks[own_place(i)];
        own.is_none_or(|t| is_finished(t.ended)) && state.tables.steps(i).all(|(_, t)| is_finished(t.ended))
    })
}

fn counters_are_right(scenario: &Scenario, state: &State) -> bool {
    let (run, nodes) = (state.tables.run, &state.tables.nodes[..scenario.nodes.len()]);
    let ended = nodes.iter().filter(|n| n.state.has_ended()).count();
    let failed = nodes.iter().filter(|n| n.state.is_failure()).count();
    let parents = nodes.iter().zip(&scenario.nodes).all(|(n, spec)| {
        let open = spec.parent.is_some_and(|p| !nodes[usize::from(p)].state.has_ended());
        n.state != NodeState::Waiting || n.parents_open == u8::from(open)
    });
    usize::from(run.finished) == ended
        && usize::from(run.failed) == failed
        && run.ended == (ended == nodes.len())
        && parents
}

/// Nobody who works has anything left to do, and yet something is open. Sessions may begin at any time; they need not.
pub fn is_stuck(scenario: &Scenario, state: &State) -> bool {
    let is_open = !state.tables.run.ended || state.tables.ids().any(|(_, t)| t.is_open());
    if !is_open {
        return false;
    }
    let mut actions = Vec::new();
    scenario.actions(state, &mut actions);
    let is_work = |a: &Action| match a {
        Action::Enter(_) | Action::EndWorker(_) | Action::EndDispatcher => false,
        Action::Crash { .. } => state.poisoned(scenario),
        _ => true,
    };
    !actions.iter().any(is_work)
}
