//! The protocol between clients, dispatcher and workers as a state machine, small enough to visit every state of it:
//! which transaction writes what, who is told when, and what a crash at any point leaves. `docs/protocol.md` names the
//! code behind each transition.
//!
//! It must never be more forgiving than the engine: what the engine does in two statements is two transitions here, and
//! the timers by which the engine looks again "after a second" are left out, so that a wake-up that is lost shows.
#![forbid(unsafe_code)]

mod cascade;
mod client;
mod dispatcher;
mod intake;
pub mod progress;
pub mod properties;
pub mod scenarios;
pub mod state;
pub mod tables;
mod worker;

use stateright::{Model, Property};

pub use state::{Action, State};

/// A small world: one run of a flow, who works on it, what may go wrong.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub nodes: Vec<Node>,
    pub workers: usize,
    /// Tasks that a worker is handed at once.
    pub depth: usize,
    /// Events that the ring holds.
    pub ring: usize,
    pub clients: Vec<Client>,
    /// Tasks (their numbers as bits) whose callback may raise.
    pub failing: u16,
    /// Tasks whose callback COMMITs before it returns.
    pub committing: u16,
    /// A task that takes the whole server down whenever it runs.
    pub poison: Option<u8>,
    /// How often a worker is terminated, the dispatcher is, the server crashes: at most, and at any moment.
    pub worker_ends: u8,
    pub dispatcher_ends: u8,
    pub crashes: u8,
    /// `pgflow.max_crash_attempts`.
    pub max_crash_attempts: u8,
    pub broken: Option<Broken>,
}

#[derive(Clone, Debug, Default)]
pub struct Node {
    /// The node before it, if any.
    pub parent: Option<u8>,
    /// It has no task of its own.
    pub empty: bool,
    /// Steps of the definition.
    pub steps: u8,
    /// Steps that its own callback pushes.
    pub pushes: u8,
}

/// A session that does one thing at some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// Pushes a step to a node; commits or rolls back.
    Push {
        node: u8,
        slot: u8,
    },
    Cancel,
    /// `flow.restart_flow` of the whole run, once it has ended.
    Restart,
    /// `flow.retry_failed`, once it has ended.
    Retry,
}

/// What the engine does not do, because it would be wrong: the checker must see that it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// A worker commits the effects first, and the outcome in a second transaction.
    OutcomeAfterEffects,
    /// The outcome is written whatever has become of the task meanwhile.
    OutcomeNotGuarded,
    /// The outcome is written if the task is open, whichever attempt that is for.
    AttemptNotCompared,
    /// The node is finished when the dispatcher knows of no open task, without the lock that keeps pushers out.
    FinishedFromMemory,
    /// Workers are told before the claim is committed.
    ToldBeforeClaim,
    /// After a crash the claims that are found are dropped without counting them.
    LostNotCounted,
    /// A full ring loses events, and nothing is rebuilt.
    NoRebuild,
    /// The next dispatcher does not look at the nodes that may have ended meanwhile.
    CascadeForgotten,
    /// Whoever rolls back does not say that its locks are gone.
    SilentAbort,
    /// An attempt that was stopped as it began is not counted when the task is opened again.
    StoppedNotCounted,
    /// A task that is stopped takes the number of an earlier attempt, which was stopped too and runs on.
    EarlierTaken,
    /// The cascade does not look whether a node has ended already.
    EndedTwice,
    /// A worker reports first, and then moves on: whoever reads its slot in between waits for the report for ever.
    ReportedFirst,
    /// What a worker had done and not reported when it was ended stays known as being with it.
    UnreportedKept,
    /// A task that was opened again before the end of its last attempt was reported is taken for one that runs.
    ReopenedUnseen,
    /// An empty node that opens while somebody pushes to it is not looked at again when the push is rolled back.
    EmptyNotAsked,
    /// The next dispatcher does not read steps that were held for a node that has opened meanwhile.
    HeldForgotten,
}

impl Scenario {
    pub fn is(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    pub fn with(mut self, broken: Broken) -> Self {
        self.broken = Some(broken);
        self
    }
}

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::start(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.dispatcher_actions(actions);
        for worker in 0..self.workers {
            state.worker_actions(self, worker, actions);
        }
        for client in 0..=self.clients.len() {
            state.client_actions(self, client, actions);
        }
        state.fault_actions(self, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        next.apply(self, action);
        next.tidy(self);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
