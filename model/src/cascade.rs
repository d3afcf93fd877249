//! What `sql/flow/cascade.sql` does: candidates, the decision about a node, and what follows from it. The open cycle's
//! writes are laid over what is committed; nobody else sees them before its commit.

use crate::state::{At, Cycle, Known, State, Verdict};
use crate::tables::{own_place, step_places, Ended, Id, Node, NodeState, Run, Tables, Task};
use crate::{Broken, Scenario};

impl Cycle {
    pub fn is_empty(&self) -> bool {
        self.nodes.iter().all(Option::is_none)
            && self.tasks.iter().all(Option::is_none)
            && self.run.is_none()
            && self.new_claims.is_empty()
            && self.old_claims.is_empty()
    }
}

impl State {
    /// The tables as the dispatcher's transaction sees them.
    pub fn view(&self) -> Tables {
        let cycle = &self.dispatcher.cycle;
        let mut view = self.tables.clone();
        for (row, written) in view.nodes.iter_mut().zip(cycle.nodes) {
            *row = written.unwrap_or(*row);
        }
        for (row, written) in view.tasks.iter_mut().zip(cycle.tasks) {
            *row = written.or(*row);
        }
        view.run = cycle.run.unwrap_or(view.run);
        view.claims.retain(|c| !cycle.old_claims.contains(c));
        view.claims.extend(&cycle.new_claims);
        view.claims.sort_unstable();
        view
    }

    pub fn write_task(&mut self, id: Id, change: impl FnOnce(&mut Task)) {
        let mut view = self.view();
        if let Some(task) = view.task_mut(id) {
            change(task);
            self.dispatcher.cycle.tasks[usize::from(id.place)] = Some(*task);
        }
    }

    pub fn write_node(&mut self, node: usize, change: impl FnOnce(&mut Node)) {
        let mut row = self.view().nodes[node];
        change(&mut row);
        self.dispatcher.cycle.nodes[node] = Some(row);
    }

    fn write_run(&mut self, change: impl FnOnce(&mut Run)) {
        let mut row = self.view().run;
        change(&mut row);
        self.dispatcher.cycle.run = Some(row);
    }

    /// `async.end_tasks` in the dispatcher: what is locked is skipped. Returns what was ended.
    pub fn cancel_tasks(&mut self, scenario: &Scenario, ids: Vec<Id>) -> Vec<Id> {
        let view = self.view();
        let open = |id: &Id| view.task(*id).is_some_and(Task::is_open);
        let free = |id: &Id| !self.is_locked_by_client(*id) && !self.is_locked_by_worker(*id);
        let ended: Vec<Id> = ids.into_iter().filter(|id| open(id) && free(id)).collect();
        for id in &ended {
            let running: Vec<u8> = self.running(*id).collect();
            let any = scenario.is(Broken::EarlierTaken);
            self.write_task(*id, |t| {
                let running = running.into_iter().find(|r| any || *r > t.attempt);
                t.ended = Some(Ended::Cancelled);
                t.suspect = false;
                t.consumed |= running.is_some();
                t.attempt = running.unwrap_or(t.attempt);
            });
        }
        ended
    }

    /// The first half of `flow.settle`: the run is locked, candidates are read, those whose own part is done go on to their
    /// steps.
    pub fn settle(&mut self, scenario: &Scenario) {
        let candidates = std::mem::take(&mut self.dispatcher.candidates);
        self.dispatcher.at = At::Settled;
        if self.tables.run.ended {
            return;
        }
        if self.is_run_locked() {
            for (node, _) in candidates {
                self.dispatcher.locked |= 1 << node;
            }
            return;
        }
        self.dispatcher.cycle.run_locked = true;
        let view = self.view();
        for (node, failed) in candidates {
            let n = usize::from(node);
            if !matches!(view.nodes[n].state, NodeState::Open | NodeState::Steps) && !scenario.is(Broken::EndedTwice) {
                continue;
            }
            let own = view.tasks[own_place(n)];
            let step_failed = failed.and_then(|id| view.task(id)).is_some_and(|t| is_failed(t.ended));
            if own.is_some_and(|t| is_failed(t.ended)) {
                let cancelled = own.is_some_and(|t| t.ended == Some(Ended::Cancelled));
                let state = if cancelled { NodeState::Cancelled } else { NodeState::Failed };
                self.dispatcher.todo.push((node, Verdict::Fails(state)));
                continue;
            } else if step_failed {
                self.dispatcher.todo.push((node, Verdict::Fails(NodeState::Failed)));
                continue;
            }
            if view.nodes[n].state == NodeState::Open {
                if own.is_some_and(|t| t.is_open()) {
                    continue;
                }
                if scenario.nodes[n].steps > 0 || view.steps(n).next().is_some() {
                    self.write_node(n, |row| row.state = NodeState::Steps);
                    self.release_steps(scenario, n, true);
                }
            }
            self.dispatcher.todo.push((node, Verdict::Check));
        }
        if !self.dispatcher.todo.is_empty() {
            self.dispatcher.at = At::Deciding;
        }
    }

    /// The second half, node by node, each by a statement that begins after the lock on the node was taken; then what
    /// follows for the nodes below.
    pub fn decide(&mut self, scenario: &Scenario) {
        let (node, verdict) = self.dispatcher.todo.remove(0);
        let n = usize::from(node);
        let state = match verdict {
            Verdict::Fails(state) => Some(state),
            Verdict::Check if scenario.is(Broken::FinishedFromMemory) => {
                let is_known = self.dispatcher.queue.iter().any(|m| m.id.node() == n);
                (!is_known && self.dispatcher.ranges.is_empty()).then_some(NodeState::Finished)
            }
            Verdict::Check if self.is_pushed_to(scenario, n) => {
                self.dispatcher.locked |= 1 << node;
                None
            }
            Verdict::Check => {
                self.dispatcher.cycle.nodes_locked |= 1 << node;
                let view = self.view();
                let (mut open, mut failed) = (false, false);
                for (_, step) in view.steps(n) {
                    open |= step.is_open();
                    failed |= is_failed(step.ended);
                }
                if failed {
                    Some(NodeState::Failed)
                } else {
                    (!open).then_some(NodeState::Finished)
                }
            }
        };
        if let Some(state) = state {
            self.write_node(n, |row| row.state = state);
            if state.is_failure() {
                let tasks = self.view().ids().map(|t| t.0).filter(|id| id.node() == n).collect();
                self.cancel_tasks(scenario, tasks);
                self.drop_known(Some(n));
            }
            self.dispatcher.ended.push(node);
        }
        if self.dispatcher.todo.is_empty() {
            let ended = std::mem::take(&mut self.dispatcher.ended);
            if !ended.is_empty() {
                self.propagate(scenario, ended);
            }
            self.load_ranges(scenario);
            self.dispatcher.at = At::Settled;
        }
    }

    /// `flow.release_steps`: the static ones and those that were held. `has_own`: of a node with a task of its own, whose
    /// held steps have lower numbers.
    fn release_steps(&mut self, scenario: &Scenario, node: usize, has_own: bool) {
        let view = self.view();
        let held: Vec<Id> =
            view.steps(node).filter(|(_, t)| t.held && (!has_own || t.early)).map(|(id, _)| id).collect();
        let first = step_places(node).start;
        for place in first..first + usize::from(scenario.nodes[node].steps) {
            self.dispatcher.cycle.tasks[place] = Some(Task::new(view.run.age));
            self.dispatcher.ranges.push(Id { place: place as u8, age: view.run.age });
        }
        let released = self.release_held(held);
        self.dispatcher.ranges.extend(released);
    }

    /// `flow.release_held`.
    pub fn release_held(&mut self, ids: Vec<Id>) -> Vec<Id> {
        let view = self.view();
        let is_held = |id: &Id| view.task(*id).is_some_and(|t| t.held && t.is_open());
        let released: Vec<Id> = ids.into_iter().filter(|id| is_held(id) && !self.is_locked_by_client(*id)).collect();
        for id in &released {
            self.write_task(*id, |t| t.held = false);
        }
        released
    }

    /// `flow.propagate`, `flow.open_nodes`.
    fn propagate(&mut self, scenario: &Scenario, mut round: Vec<u8>) {
        let mut all = Vec::new();
        while let Some(parent) = round.pop() {
            all.push(parent);
            let failure = self.view().nodes[usize::from(parent)].state.is_failure();
            for (child, spec) in scenario.nodes.iter().enumerate() {
                if spec.parent != Some(parent) || self.view().nodes[child].state != NodeState::Waiting {
                    continue;
                }
                self.write_node(child, |row| {
                    row.parents_open -= 1;
                    row.blocked |= failure;
                });
                if self.open_node(scenario, child) {
                    round.push(child as u8);
                }
            }
        }
        let nodes = self.view().nodes;
        let failed = all.iter().filter(|n| nodes[usize::from(**n)].state.is_failure()).count() as u8;
        if !self.view().run.ended {
            self.write_run(|run| {
                run.finished += all.len() as u8;
                run.failed += failed;
                run.ended = usize::from(run.finished) == scenario.nodes.len();
            });
        }
    }

    /// Opens a node whose parents have ended; true: it has ended at once.
    fn open_node(&mut self, scenario: &Scenario, node: usize) -> bool {
        let view = self.view();
        let (row, spec) = (view.nodes[node], &scenario.nodes[node]);
        let state = if row.blocked {
            NodeState::Skipped
        } else if !spec.empty {
            NodeState::Open
        } else if spec.steps > 0 || view.steps(node).next().is_some() || self.is_pushed_to(scenario, node) {
            NodeState::Steps
        } else {
            self.dispatcher.cycle.nodes_locked |= 1 << node;
            NodeState::Finished
        };
        self.write_node(node, |row| {
            row.state = state;
            row.opened = !state.is_failure();
        });
        match state {
            NodeState::Open => {
                let place = own_place(node);
                self.dispatcher.cycle.tasks[place] = Some(Task::new(view.run.age));
                self.dispatcher.ranges.push(Id { place: place as u8, age: view.run.age });
            }
            NodeState::Steps => {
                self.release_steps(scenario, node, false);
                // Nobody's step is there yet: somebody is pushing.
                if spec.steps == 0 && view.steps(node).next().is_none() && !scenario.is(Broken::EmptyNotAsked) {
                    self.dispatcher.locked |= 1 << node;
                }
            }
            _ => {
                let steps = view.steps(node).map(|t| t.0).collect();
                self.cancel_tasks(scenario, steps);
            }
        }
        state.has_ended()
    }

    /// `async.lose_attempts`, and what `Dispatcher::lose` concludes: what a client has locked is accounted for later.
    pub fn lose(&mut self, id: Id, attempt: u8, charged: bool, suspect: bool, most: u8) {
        let is_this = |t: &Task| t.is_open() && t.attempt + 1 == attempt;
        self.dispatcher.unsettled.retain(|u| u.0 != id);
        if !self.view().task(id).is_some_and(is_this) {
            return;
        }
        if self.is_locked_by_client(id) || self.is_locked_by_worker(id) {
            self.dispatcher.unsettled.push((id, attempt, charged, suspect));
            return;
        }
        self.write_task(id, |t| {
            t.attempt = attempt;
            t.consumed = false;
            t.crashes += u8::from(charged);
            let worn_out = t.crashes >= most;
            t.suspect = suspect && !worn_out;
            if worn_out {
                t.ended = Some(Ended::Failed);
            }
        });
        if self.view().task(id).is_some_and(|t| !t.is_open()) {
            self.dispatcher.touched.push(id);
        }
    }

    /// Forgets what is known of the run or of a node; what workers hold is looked at (`drop_flow`).
    pub fn drop_known(&mut self, node: Option<usize>) {
        let d = &mut self.dispatcher;
        let is_in = |id: Id| node.is_none_or(|n| id.node() == n);
        d.touched.extend(d.queue.iter().filter(|m| is_in(m.id) && m.state == Known::Assigned).map(|m| m.id));
        d.queue.retain(|m| !is_in(m.id) || m.state == Known::Assigned);
    }
}

pub fn is_failed(ended: Option<Ended>) -> bool {
    ended.is_some_and(|e| e != Ended::Finished)
}
