//! The worlds that are checked. Each is as small as what it is about allows; together they have every kind of transition.

use crate::properties::*;
use crate::{Broken, Client, Node, Scenario};

/// Two nodes, one after the other, one worker, nobody who disturbs.
fn chain(name: &'static str) -> Scenario {
    Scenario {
        name,
        nodes: vec![Node::default(), Node { parent: Some(0), ..Node::default() }],
        workers: 1,
        depth: 1,
        ring: 8,
        clients: vec![],
        failing: 0,
        committing: 0,
        poison: None,
        worker_ends: 0,
        dispatcher_ends: 0,
        crashes: 0,
        max_crash_attempts: 3,
        broken: None,
    }
}

/// One node with a task of its own and two static steps, two workers.
fn fan(name: &'static str) -> Scenario {
    Scenario { nodes: vec![Node { steps: 2, ..Node::default() }], workers: 2, ..chain(name) }
}

/// The numbers of tasks as bits.
const OWN: u16 = 1;
const BOTH_STEPS: u16 = 0b110;
const SECOND_OWN: u16 = 1 << 3;

pub fn all() -> Vec<Scenario> {
    let push = |slot| Client::Push { node: 1, slot };
    let empty = Node { parent: Some(0), empty: true, ..Node::default() };
    vec![
        Scenario { worker_ends: 1, dispatcher_ends: 1, crashes: 2, failing: SECOND_OWN, ..chain("chain, crashes") },
        Scenario { crashes: 2, committing: OWN | SECOND_OWN, ..chain("chain, callbacks that COMMIT") },
        Scenario { crashes: 1, worker_ends: 1, ..fan("fan, crashes") },
        Scenario { dispatcher_ends: 1, worker_ends: 1, failing: BOTH_STEPS, ..fan("fan, steps that fail") },
        Scenario {
            workers: 1,
            depth: 2,
            dispatcher_ends: 1,
            worker_ends: 1,
            failing: BOTH_STEPS,
            ..fan("fan, batches")
        },
        Scenario { ring: 1, worker_ends: 1, dispatcher_ends: 1, ..fan("fan, a ring of one event") },
        Scenario {
            nodes: vec![Node { pushes: 2, ..Node::default() }],
            worker_ends: 1,
            crashes: 1,
            ..fan("steps of the callback")
        },
        Scenario { clients: vec![push(0), push(1)], ..chain("two pushers") },
        Scenario {
            clients: vec![push(0)],
            dispatcher_ends: 1,
            worker_ends: 1,
            crashes: 1,
            ..chain("a pusher, crashes")
        },
        Scenario {
            nodes: vec![Node::default(), empty],
            clients: vec![push(0)],
            dispatcher_ends: 1,
            worker_ends: 1,
            crashes: 1,
            ..chain("a pusher to an empty node")
        },
        Scenario { clients: vec![push(0), Client::Cancel], ring: 2, ..chain("a pusher and a late cancel") },
        Scenario { clients: vec![Client::Cancel], worker_ends: 1, crashes: 1, ..fan("fan, a late cancel") },
        Scenario { clients: vec![Client::Cancel, Client::Retry], failing: 0b10, ..fan("fan, cancel and retry") },
        Scenario { clients: vec![Client::Cancel, Client::Restart], ..fan("fan, cancel and restart") },
        Scenario {
            workers: 3,
            clients: vec![Client::Retry, Client::Retry],
            failing: 0b10,
            ..fan("fan, two retries beside what was stopped")
        },
        Scenario { workers: 2, poison: Some(1), ..fan("a step that takes the server down") },
    ]
}

/// The world of this name.
pub fn named(name: &str) -> Option<Scenario> {
    all().into_iter().find(|s| s.name == name)
}

/// What is broken, where it shows, and as what.
pub fn broken() -> Vec<(Broken, &'static str, &'static str)> {
    vec![
        (Broken::OutcomeAfterEffects, "chain, crashes", ONCE),
        (Broken::OutcomeNotGuarded, "fan, a late cancel", STOPPED),
        (Broken::AttemptNotCompared, "fan, cancel and retry", STOPPED),
        (Broken::StoppedNotCounted, "fan, cancel and retry", STOPPED),
        (Broken::EarlierTaken, "fan, two retries beside what was stopped", STOPPED),
        (Broken::FinishedFromMemory, "two pushers", STEPS),
        (Broken::EndedTwice, "a pusher, crashes", COUNTERS),
        (Broken::ToldBeforeClaim, "chain, callbacks that COMMIT", COUNTED),
        (Broken::LostNotCounted, "chain, callbacks that COMMIT", COUNTED),
        (Broken::NoRebuild, "fan, a ring of one event", ENDS),
        (Broken::CascadeForgotten, "chain, crashes", ENDS),
        (Broken::HeldForgotten, "a pusher to an empty node", ENDS),
        (Broken::SilentAbort, "two pushers", ENDS),
        (Broken::EmptyNotAsked, "a pusher to an empty node", ENDS),
        (Broken::ReportedFirst, "fan, a ring of one event", ENDS),
        (Broken::UnreportedKept, "fan, crashes", ENDS),
        (Broken::ReopenedUnseen, "fan, cancel and retry", ENDS),
    ]
}
