//! `engine::dispatcher::intake` and what `take_events` does with reports: from rows and events to what is known.

use crate::state::{EntryState, Event, Known, Memo, Outcome, State};
use crate::tables::{Ended, Id, NodeState, Task};
use crate::{Broken, Scenario};

impl State {
    /// `take_events`: everything that is in the ring.
    pub fn take_events(&mut self) {
        for event in std::mem::take(&mut self.ring) {
            match event {
                Event::Arrived { ids, node } => {
                    self.dispatcher.ranges.extend(ids);
                    if let Some(node) = node {
                        self.look_again_at(node);
                    }
                }
                Event::Ended { id, attempt, outcome } => self.reported(id, attempt, outcome),
                Event::Released { node } => self.look_again_at(node),
                Event::Run => self.dispatcher.run_changed = true,
            }
        }
    }

    pub fn look_again_at(&mut self, node: u8) {
        if self.dispatcher.locked & 1 << node != 0 {
            self.dispatcher.locked &= !(1 << node);
            self.candidate(node, None);
        }
    }

    pub fn candidate(&mut self, node: u8, failed: Option<Id>) {
        let candidates = &mut self.dispatcher.candidates;
        match candidates.iter_mut().find(|c| c.0 == node) {
            Some(known) => known.1 = known.1.or(failed),
            None => candidates.push((node, failed)),
        }
    }

    /// `Dispatcher::ended`: a worker has reported.
    fn reported(&mut self, id: Id, attempt: u8, outcome: Outcome) {
        for worker in 0..self.workers.len() {
            if let Some(at) = self.dispatcher.handed[worker].iter().position(|h| h.id == id && h.attempt == attempt) {
                self.drop_handed(worker, at);
                break;
            }
        }
        self.dispatcher.suspects.retain(|s| *s != id);
        if self.dispatcher.memo(id).is_none_or(|m| m.attempt != attempt) {
            return;
        }
        match outcome {
            Outcome::Finished => self.forget(id, false),
            Outcome::Failed => self.forget(id, true),
            Outcome::Stale => {
                self.wait(id, attempt);
                self.dispatcher.touched.push(id);
            }
        }
    }

    pub fn wait(&mut self, id: Id, attempt: u8) {
        if let Some(memo) = self.dispatcher.queue.iter_mut().find(|m| m.id == id) {
            memo.state = Known::Waiting;
            memo.attempt = attempt;
        }
    }

    pub fn requeue(&mut self, id: Id, attempt: u8) {
        if let Some(memo) = self.dispatcher.queue.iter_mut().find(|m| m.id == id) {
            memo.state = Known::Queued;
            memo.attempt = attempt;
        }
    }

    /// `Queue::forget`: true if the node has no known task left, or nothing was known of this one.
    fn forget_memo(&mut self, id: Id) -> bool {
        self.dispatcher.queue.retain(|m| m.id != id);
        !self.dispatcher.queue.iter().any(|m| m.id.node() == id.node())
    }

    /// A task has ended: its node may have.
    fn forget(&mut self, id: Id, failed: bool) {
        let last = self.forget_memo(id);
        if !id.is_step() || failed || last {
            self.candidate(id.node() as u8, (failed && id.is_step()).then_some(id));
        }
    }

    /// `drop_handed`: the worker holds it no more; its claim may go.
    pub fn drop_handed(&mut self, worker: usize, at: usize) {
        let handed = self.dispatcher.handed[worker].remove(at);
        self.dispatcher.finished_claims.extend(handed.claim);
    }

    /// `reap`: what workers that are gone have left.
    pub fn reap(&mut self, scenario: &Scenario) {
        for i in 0..self.workers.len() {
            if !self.workers[i].gone {
                continue;
            }
            let entries = std::mem::take(&mut self.workers[i].entries);
            self.workers[i].head = 0;
            self.workers[i].gone = false;
            for handed in self.dispatcher.handed[i].clone() {
                self.drop_handed(i, 0);
                match entries[handed.position].state {
                    EntryState::Started => {
                        self.lose(handed.id, handed.attempt, true, false, scenario.max_crash_attempts);
                        self.dispatcher.suspects.retain(|s| *s != handed.id);
                        self.wait(handed.id, handed.attempt + 1);
                        self.dispatcher.touched.push(handed.id);
                    }
                    EntryState::Done => {
                        if !scenario.is(Broken::UnreportedKept) {
                            self.wait(handed.id, handed.attempt);
                        }
                        self.dispatcher.touched.push(handed.id);
                    }
                    _ => self.requeue(handed.id, handed.attempt),
                }
            }
        }
    }

    pub fn look_at_run(&mut self, scenario: &Scenario) {
        if !std::mem::take(&mut self.dispatcher.run_changed) {
            return;
        }
        for node in 0..scenario.nodes.len() as u8 {
            self.look_again_at(node);
        }
        self.drop_known(None);
        let ids = self.open_tasks(scenario);
        self.dispatcher.ranges.extend(ids);
    }

    /// `open_ranges`: what a rebuild reads. Steps that are held belong to nodes that have not opened, or are read too.
    pub fn open_tasks(&self, scenario: &Scenario) -> Vec<Id> {
        let view = self.view();
        let waits = |id: Id| scenario.is(Broken::HeldForgotten) || view.nodes[id.node()].state == NodeState::Waiting;
        view.ids().filter(|(id, t)| t.is_open() && !(t.held && waits(*id))).map(|(id, _)| id).collect()
    }

    pub fn look_at_touched(&mut self, scenario: &Scenario) {
        let mut ids = std::mem::take(&mut self.dispatcher.touched);
        ids.sort_unstable();
        ids.dedup();
        let view = self.view();
        let mut open = Vec::new();
        for id in ids {
            let Some(task) = view.task(id) else {
                self.forget_memo(id);
                continue;
            };
            let is_assigned = self.dispatcher.memo(id).is_some_and(|m| m.state == Known::Assigned);
            if is_assigned {
                // One that flow.finish has ended goes on to its end; others are stopped.
                if task.ended == Some(Ended::Cancelled) {
                    self.revoke(id);
                    self.ended_elsewhere(id, task);
                }
            } else if task.is_open() {
                self.forget_memo(id);
                open.push(id);
            } else {
                self.ended_elsewhere(id, task);
            }
        }
        self.take_in(scenario, open);
    }

    /// `Slots::cancel` of what has not begun. What runs is cancelled by a signal: the callback ends sooner, or not.
    fn revoke(&mut self, id: Id) {
        for (worker, handed) in self.workers.iter_mut().zip(&self.dispatcher.handed) {
            for h in handed.iter().filter(|h| h.id == id) {
                let entry = &mut worker.entries[h.position];
                if entry.state == EntryState::Assigned {
                    entry.state = EntryState::Revoked;
                }
            }
        }
    }

    fn ended_elsewhere(&mut self, id: Id, task: &Task) {
        self.forget_memo(id);
        let failed = crate::cascade::is_failed(task.ended);
        self.candidate(id.node() as u8, (failed && id.is_step()).then_some(id));
    }

    pub fn load_ranges(&mut self, scenario: &Scenario) {
        let ids = std::mem::take(&mut self.dispatcher.ranges);
        let view = self.view();
        self.take_in(scenario, ids.into_iter().filter(|id| view.task(*id).is_some_and(Task::is_open)).collect());
    }

    /// `take_in`: open tasks, each by what it waits for.
    fn take_in(&mut self, scenario: &Scenario, ids: Vec<Id>) {
        let view = self.view();
        let (mut refused, mut held) = (Vec::new(), Vec::new());
        for id in ids {
            let is_unsettled = self.dispatcher.unsettled.iter().any(|u| u.0 == id);
            let Some(task) = view.task(id).filter(|_| !is_unsettled) else { continue };
            match self.dispatcher.memo(id) {
                // That attempt is over, the report is to come: somebody has opened the task again meanwhile.
                Some(m) if m.attempt <= task.attempt && !scenario.is(Broken::ReopenedUnseen) => {
                    self.forget_memo(id);
                }
                Some(_) => continue,
                None => {}
            }
            match view.nodes[id.node()].state {
                NodeState::Open | NodeState::Steps if task.held => held.push(id),
                NodeState::Open | NodeState::Steps => {
                    self.dispatcher.queue.push(Memo { id, attempt: task.attempt + 1, state: Known::Queued });
                    if task.suspect {
                        self.dispatcher.suspects.push(id);
                    }
                }
                NodeState::Waiting => {}
                _ => refused.push(id),
            }
        }
        // The step arrived after its node had ended.
        for id in self.cancel_tasks(scenario, refused) {
            self.forget_memo(id);
            self.candidate(id.node() as u8, id.is_step().then_some(id));
        }
        let released = self.release_held(held);
        self.dispatcher.touched.extend(released);
    }
}
