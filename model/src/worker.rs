//! A worker (`engine::worker`): it reads its batch, runs each task in a transaction, writes the outcome into that same
//! transaction, announces and reports.

use crate::state::{Action, EntryState, Event, Outcome, Phase, State};
use crate::tables::{Ended, Id, NodeState, Task};
use crate::{Broken, Scenario};

/// Whether a task's number is among these.
fn among(tasks: u16, id: Id) -> bool {
    tasks & 1 << id.place != 0
}

impl State {
    pub fn worker_actions(&self, scenario: &Scenario, w: usize, actions: &mut Vec<Action>) {
        let worker = &self.workers[w];
        if worker.gone {
            return;
        }
        match &worker.phase {
            Phase::Idle if !worker.batch.is_empty() => actions.push(Action::BeginTask(w)),
            Phase::Idle if worker.head < worker.entries.len() => actions.push(Action::ReadBatch(w)),
            Phase::Idle => {}
            Phase::Begun { id, committed, pushed, .. } => {
                let id = *id;
                if Some(id.place) == scenario.poison {
                    return;
                }
                let is_free = !self.is_locked(id);
                let pushes = !id.is_step() && scenario.nodes[id.node()].pushes > 0 && pushed.is_none();
                if among(scenario.committing, id) && !committed {
                    if is_free {
                        actions.push(Action::CommitPart(w));
                    }
                } else if pushes {
                    if self.dispatcher.cycle.nodes_locked & 1 << id.node() == 0 {
                        actions.push(Action::PushSteps(w));
                    }
                } else if is_free || scenario.is(Broken::OutcomeAfterEffects) {
                    actions.push(Action::WriteOutcome(w));
                }
                if among(scenario.failing, id) {
                    actions.push(Action::Raise(w));
                }
            }
            Phase::Written { .. } => actions.push(Action::CommitOutcome(w)),
            Phase::EffectsOnly { id, .. } | Phase::Raised { id, .. } => {
                if !self.is_locked(*id) {
                    let late = matches!(worker.phase, Phase::EffectsOnly { .. });
                    actions.push(if late { Action::OutcomeLate(w) } else { Action::WriteFailure(w) });
                }
            }
            Phase::Over { notes, .. } if !notes.is_empty() => actions.push(Action::Announce(w)),
            Phase::Over { .. } if !scenario.is(Broken::ReportedFirst) => actions.push(Action::Pass(w)),
            Phase::Over { .. } | Phase::Passed { .. } => actions.push(Action::Report(w)),
            Phase::Reported => actions.push(Action::Pass(w)),
        }
    }

    pub fn worker_step(&mut self, scenario: &Scenario, w: usize, action: Action) {
        match action {
            Action::ReadBatch(_) => {
                let next = |t: &Task| t.is_open().then_some(t.attempt + 1);
                let entries = &self.workers[w].entries[self.workers[w].head..];
                self.workers[w].batch = entries.iter().map(|e| self.tables.task(e.id).and_then(next)).collect();
            }
            Action::BeginTask(_) => self.begin_task(w),
            Action::Pass(_) => self.pass(w),
            Action::Report(_) => self.report(scenario, w),
            Action::Announce(_) => {
                if let Phase::Over { notes, .. } = &mut self.workers[w].phase {
                    for event in std::mem::take(notes) {
                        self.send(scenario, event);
                    }
                }
            }
            _ => {
                let phase = std::mem::replace(&mut self.workers[w].phase, Phase::Idle);
                self.workers[w].phase = self.run_task(scenario, phase, action);
            }
        }
    }

    /// The entry's state is exchanged; one that was taken back is passed over.
    fn begin_task(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        let entry = &mut worker.entries[worker.head];
        let read = worker.batch.remove(0);
        if entry.state != EntryState::Assigned {
            worker.head += 1;
            return;
        }
        entry.state = EntryState::Started;
        let (id, attempt) = (entry.id, entry.attempt);
        worker.phase = match self.tables.task(id).filter(|_| read == Some(attempt)) {
            Some(task) => {
                // A task that was ended since it was read is run all the same; its outcome will not match.
                let intention = task.intention;
                Phase::Begun { id, attempt, intention, committed: false, pushed: None }
            }
            None => Phase::Over { id, attempt, outcome: Outcome::Stale, notes: vec![] },
        };
    }

    /// The entry is done: whoever takes the slot over does not wait for it.
    fn pass(&mut self, w: usize) {
        let worker = &mut self.workers[w];
        worker.entries[worker.head].state = EntryState::Done;
        worker.head += 1;
        worker.phase = match worker.phase {
            Phase::Over { id, attempt, outcome, .. } => Phase::Passed { id, attempt, outcome },
            _ => Phase::Idle,
        };
    }

    /// The event; after a failure what is behind it is given back.
    fn report(&mut self, scenario: &Scenario, w: usize) {
        let worker = &mut self.workers[w];
        let (id, attempt, outcome, behind) = match worker.phase {
            Phase::Passed { id, attempt, outcome } => (id, attempt, outcome, worker.head),
            Phase::Over { id, attempt, outcome, .. } => (id, attempt, outcome, worker.head + 1),
            _ => unreachable!("nothing to report"),
        };
        worker.phase = if behind == worker.head { Phase::Idle } else { Phase::Reported };
        if outcome == Outcome::Failed {
            for entry in worker.entries[behind..].iter_mut().take(worker.batch.len()) {
                if entry.state == EntryState::Assigned {
                    entry.state = EntryState::Revoked;
                }
            }
        }
        self.send(scenario, Event::Ended { id, attempt, outcome });
    }

    /// Whether an outcome of this attempt matches the task's row.
    fn matches(&self, scenario: &Scenario, id: Id, attempt: u8) -> bool {
        let task = self.tables.task(id);
        if scenario.is(Broken::OutcomeNotGuarded) {
            return task.is_some();
        }
        let is_compared = !scenario.is(Broken::AttemptNotCompared);
        task.is_some_and(|t| t.is_open() && (t.attempt + 1 == attempt || !is_compared))
    }

    /// What happens between the beginning of a task and the end of its transaction. Returns the next phase.
    fn run_task(&mut self, scenario: &Scenario, phase: Phase, action: Action) -> Phase {
        match (action, phase) {
            // The callback's own COMMIT marks the attempt, or is refused.
            (Action::CommitPart(_), Phase::Begun { id, attempt, intention, pushed, .. }) => {
                if !self.matches(scenario, id, attempt) {
                    return Phase::Raised { id, attempt };
                }
                if let Some(task) = self.tables.task_mut(id) {
                    task.parts |= 1 << attempt;
                }
                self.flush();
                Phase::Begun { id, attempt, intention, committed: true, pushed }
            }
            (Action::PushSteps(_), Phase::Begun { id, attempt, intention, committed, .. }) => {
                // flow.push_steps raises when the node has ended.
                let state = self.tables.nodes[id.node()].state;
                if state.has_ended() {
                    return Phase::Raised { id, attempt };
                }
                Phase::Begun { id, attempt, intention, committed, pushed: Some(state == NodeState::Waiting) }
            }
            (Action::Raise(_), Phase::Begun { id, attempt, pushed, .. }) => {
                if pushed.is_some() {
                    self.tell_released(scenario, id.node());
                }
                Phase::Raised { id, attempt }
            }
            (Action::WriteOutcome(_), Phase::Begun { id, attempt, .. }) if scenario.is(Broken::OutcomeAfterEffects) => {
                if let Some(task) = self.tables.task_mut(id) {
                    task.effects += 1;
                }
                self.flush();
                Phase::EffectsOnly { id, attempt }
            }
            (Action::WriteOutcome(_), Phase::Begun { id, attempt, intention, pushed, .. }) => {
                if self.matches(scenario, id, attempt) {
                    return Phase::Written { id, attempt, intention, pushed };
                }
                if pushed.is_some() {
                    self.tell_released(scenario, id.node());
                }
                Phase::Raised { id, attempt }
            }
            (Action::CommitOutcome(_), Phase::Written { id, attempt, intention, pushed }) => {
                let notes = pushed.map_or(vec![], |held| self.insert_pushed(scenario, id, held));
                if let Some(task) = self.tables.task_mut(id) {
                    self.stopped_committed |= task.intention != intention || task.ended == Some(Ended::Cancelled);
                    task.effects += 1;
                    end(task, attempt, Ended::Finished);
                }
                self.flush();
                Phase::Over { id, attempt, outcome: Outcome::Finished, notes }
            }
            (Action::OutcomeLate(_), Phase::EffectsOnly { id, attempt }) => {
                self.write_ended(scenario, id, attempt, Ended::Finished)
            }
            (Action::WriteFailure(_), Phase::Raised { id, attempt }) => {
                self.write_ended(scenario, id, attempt, Ended::Failed)
            }
            (action, phase) => unreachable!("{action:?} while {phase:?}"),
        }
    }

    /// An outcome in a transaction of its own.
    fn write_ended(&mut self, scenario: &Scenario, id: Id, attempt: u8, ended: Ended) -> Phase {
        let mut outcome = Outcome::Stale;
        if self.matches(scenario, id, attempt) {
            if let Some(task) = self.tables.task_mut(id) {
                end(task, attempt, ended);
            }
            self.flush();
            outcome = if ended == Ended::Finished { Outcome::Finished } else { Outcome::Failed };
        }
        Phase::Over { id, attempt, outcome, notes: vec![] }
    }

    /// The steps that a node's own callback has pushed become visible; what is to be announced of them.
    fn insert_pushed(&mut self, scenario: &Scenario, own: Id, held: bool) -> Vec<Event> {
        let spec = &scenario.nodes[own.node()];
        let first = own.place + 1 + spec.steps;
        let ids: Vec<Id> = (first..first + spec.pushes).map(|place| Id { place, age: own.age }).collect();
        for id in &ids {
            self.tables.tasks[usize::from(id.place)] = Some(Task { held, ..Task::new(own.age) });
        }
        let node = own.node() as u8;
        vec![Event::Released { node }, Event::Arrived { ids, node: Some(node) }]
    }
}

fn end(task: &mut Task, attempt: u8, ended: Ended) {
    task.ended = Some(ended);
    task.attempt = attempt;
    task.consumed = true;
    task.suspect = false;
}
