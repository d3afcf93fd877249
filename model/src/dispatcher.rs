//! The dispatcher's cycle (`engine::dispatcher`), a transition for each statement between which others may come, and how a
//! new one begins (`recovery`).

use crate::state::{Action, At, Cycle, Dispatcher, Entry, EntryState, Handed, Known, Memo, State};
use crate::tables::{Claim, Id, NodeState};
use crate::{Broken, Scenario};

impl State {
    pub fn dispatcher_actions(&self, actions: &mut Vec<Action>) {
        match self.dispatcher.at {
            At::Down => actions.push(Action::Start),
            At::Recovering => actions.push(Action::Recover),
            At::Rebuilding => actions.push(Action::Rebuild),
            At::Idle => {
                if self.has_work() {
                    actions.push(Action::Take);
                }
                // The timer of attempts whose rows were locked; while they still are, it changes nothing.
                if self.dispatcher.unsettled.iter().any(|u| !self.is_locked_by_client(u.0)) {
                    actions.push(Action::LoseAgain);
                }
            }
            At::Taken => actions.push(Action::Settle),
            At::Deciding => actions.push(Action::Decide),
            At::Settled => actions.push(Action::Assign),
            At::Assigned => actions.push(Action::CommitCycle),
            At::Committed => actions.push(Action::TellWorkers),
        }
    }

    /// What makes `serve` go round once more, and nothing else.
    fn has_work(&self) -> bool {
        let d = &self.dispatcher;
        let is_revoked =
            |w: usize| d.handed[w].iter().any(|h| self.workers[w].entries[h.position].state == EntryState::Revoked);
        self.rebuild
            || !self.ring.is_empty()
            || !d.candidates.is_empty()
            || !d.ranges.is_empty()
            || !d.touched.is_empty()
            || d.run_changed
            || self.workers.iter().any(|w| w.gone)
            || (0..self.workers.len()).any(is_revoked)
    }

    pub fn dispatcher_step(&mut self, scenario: &Scenario, action: Action) {
        match action {
            Action::Start => self.start_dispatcher(scenario),
            Action::Recover => self.recover(scenario),
            Action::Rebuild => {
                self.rebuild_memory(scenario);
                self.dispatcher.at = At::Idle;
            }
            Action::Take => self.take(scenario),
            Action::Settle => self.settle(scenario),
            Action::Decide => self.decide(scenario),
            Action::Assign => self.assign(scenario),
            Action::CommitCycle => {
                self.commit_cycle();
                let tells = !self.dispatcher.handing.is_empty();
                self.dispatcher.at = if tells { At::Committed } else { At::Idle };
            }
            Action::TellWorkers => {
                for (worker, entry) in std::mem::take(&mut self.dispatcher.handing) {
                    self.workers[worker].entries.push(entry);
                }
                let is_early = scenario.is(Broken::ToldBeforeClaim);
                self.dispatcher.at = if is_early { At::Assigned } else { At::Idle };
            }
            Action::LoseAgain => {
                for (id, attempt, charged, suspect) in self.dispatcher.unsettled.clone() {
                    self.lose(id, attempt, charged, suspect, scenario.max_crash_attempts);
                    if !self.dispatcher.unsettled.iter().any(|u| u.0 == id) {
                        self.dispatcher.touched.push(id);
                    }
                }
                self.dispatcher.at = At::Settled;
            }
            other => unreachable!("{other:?} is not of the dispatcher"),
        }
    }

    /// `recover`, up to where events are queued again: what workers hold is taken over.
    fn start_dispatcher(&mut self, scenario: &Scenario) {
        self.ring.clear();
        self.rebuild = false;
        self.attached = true;
        self.dispatcher = Dispatcher::down(scenario.workers);
        self.dispatcher.at = At::Recovering;
        self.dispatcher.careful = true;
        for (worker, handed) in self.workers.iter_mut().zip(&mut self.dispatcher.handed) {
            worker.entries.drain(..worker.head);
            worker.head = 0;
            let held = worker.entries.iter().enumerate();
            *handed =
                held.map(|(position, e)| Handed { id: e.id, attempt: e.attempt, position, claim: None }).collect();
        }
    }

    /// The rest of `recover`: `settle_claims` and `take_over`, in one transaction.
    fn recover(&mut self, scenario: &Scenario) {
        let holds =
            |d: &Dispatcher, c: &Claim| d.handed.iter().flatten().any(|h| h.id == c.id && h.attempt == c.attempt);
        for claim in self.tables.claims.clone() {
            if holds(&self.dispatcher, &claim) {
                continue;
            }
            if !scenario.is(Broken::LostNotCounted) {
                self.lose(claim.id, claim.attempt, claim.alone, true, scenario.max_crash_attempts);
            }
            if !self.dispatcher.unsettled.iter().any(|u| u.0 == claim.id) {
                self.dispatcher.cycle.old_claims.push(claim);
            }
        }
        let view = self.view();
        for handed in self.dispatcher.handed.clone().into_iter().flatten() {
            let Some(task) = view.task(handed.id).filter(|_| self.dispatcher.memo(handed.id).is_none()) else {
                continue;
            };
            self.dispatcher.queue.push(Memo { id: handed.id, attempt: handed.attempt, state: Known::Assigned });
            if !task.is_open() {
                self.dispatcher.touched.push(handed.id);
            }
        }
        self.commit_cycle();
        self.dispatcher.at = At::Rebuilding;
    }

    /// `rebuild`: everything anew from the tables, but for what workers hold.
    fn rebuild_memory(&mut self, scenario: &Scenario) {
        for worker in 0..self.workers.len() {
            while let Some(handed) = self.dispatcher.handed[worker].first().copied() {
                if handed.position >= self.workers[worker].head {
                    break;
                }
                self.drop_handed(worker, 0);
                self.dispatcher.queue.retain(|m| m.id != handed.id);
            }
        }
        self.dispatcher.queue.retain(|m| m.state == Known::Assigned);
        self.dispatcher.suspects.clear();
        self.dispatcher.ranges = self.open_tasks(scenario);
        if self.tables.run.ended || scenario.is(Broken::CascadeForgotten) {
            return;
        }
        for node in 0..scenario.nodes.len() {
            if matches!(self.tables.nodes[node].state, NodeState::Open | NodeState::Steps) {
                self.candidate(node as u8, None);
            }
        }
    }

    /// The first part of `cycle`, up to `load_ranges`.
    fn take(&mut self, scenario: &Scenario) {
        if std::mem::take(&mut self.rebuild) {
            self.rebuild_memory(scenario);
        }
        self.take_events();
        self.reap(scenario);
        self.look_at_run(scenario);
        self.look_at_touched(scenario);
        self.load_ranges(scenario);
        self.dispatcher.at = if self.dispatcher.candidates.is_empty() { At::Settled } else { At::Taken };
    }

    /// `assign`: what may run goes to idle workers; the claim is written before they are told.
    fn assign(&mut self, scenario: &Scenario) {
        for worker in 0..self.workers.len() {
            while let Some(at) = self.dispatcher.handed[worker]
                .iter()
                .position(|h| self.workers[worker].entries[h.position].state == EntryState::Revoked)
            {
                let handed = self.dispatcher.handed[worker][at];
                self.drop_handed(worker, at);
                self.requeue(handed.id, handed.attempt);
            }
        }
        let waits = |d: &Dispatcher, id: Id| d.memo(id).is_some_and(|m| m.state == Known::Waiting);
        let d = &mut self.dispatcher;
        d.suspects = d.suspects.iter().copied().filter(|id| d.memo(*id).is_some() && !waits(d, *id)).collect();
        let is_busy = d.handed.iter().any(|h| !h.is_empty());
        let is_quarantine = !d.suspects.is_empty();
        let (most, ids): (usize, Vec<Id>) = match d.suspects.first() {
            Some(_) if is_busy => (0, vec![]),
            Some(suspect) => (1, vec![*suspect]),
            None => (scenario.depth, d.queue.iter().filter(|m| m.state == Known::Queued).map(|m| m.id).collect()),
        };
        self.hand(most, ids, is_quarantine);
        let d = &mut self.dispatcher;
        if d.handing.is_empty() {
            d.cycle.old_claims.append(&mut d.finished_claims);
        }
        d.cycle.durable = !d.handing.is_empty() && (is_quarantine || d.careful);
        d.at = match (d.cycle.is_empty(), d.handing.is_empty()) {
            (true, true) => At::Idle,
            (_, false) if scenario.is(Broken::ToldBeforeClaim) => At::Committed,
            _ => At::Assigned,
        };
        if d.at == At::Idle {
            d.cycle = Cycle::default();
        }
    }

    /// Shares tasks out among the idle workers, the last one first.
    fn hand(&mut self, most: usize, mut ids: Vec<Id>, alone: bool) {
        let idle = |s: &State, w: &usize| s.dispatcher.handed[*w].is_empty() && !s.workers[*w].gone;
        let mut idle: Vec<usize> = (0..self.workers.len()).filter(|w| idle(self, w)).collect();
        while let Some(worker) = idle.pop() {
            let share = ids.len().div_ceil(idle.len() + 1).min(most);
            for id in ids.drain(..share).collect::<Vec<_>>() {
                let Some(memo) = self.dispatcher.queue.iter_mut().find(|m| m.id == id) else { continue };
                memo.state = Known::Assigned;
                let attempt = memo.attempt;
                let claim = self.new_claim(id, attempt, alone);
                let entry = Entry { id, attempt, state: EntryState::Assigned };
                let position = self.workers[worker].entries.len() + self.dispatcher.handed[worker].len();
                let d = &mut self.dispatcher;
                d.handed[worker].push(Handed { id, attempt, position, claim: Some(claim) });
                d.handing.push((worker, entry));
                d.cycle.new_claims.push(claim);
            }
        }
    }

    fn new_claim(&self, id: Id, attempt: u8, alone: bool) -> Claim {
        let view = self.view();
        let is_used = |again: u8| {
            let same = |c: &Claim| (c.id, c.attempt, c.again) == (id, attempt, again);
            view.claims.iter().chain(&self.dispatcher.finished_claims).any(same)
        };
        let again = (0..).find(|a| !is_used(*a)).unwrap_or(u8::MAX);
        Claim { id, attempt, again, alone }
    }

    /// The cycle's transaction commits, asynchronously unless it must not.
    fn commit_cycle(&mut self) {
        let after = self.view();
        if self.dispatcher.cycle.durable {
            self.flush();
        } else {
            self.unflushed.push(self.tables.clone());
        }
        self.tables = after;
        self.dispatcher.cycle = Cycle::default();
    }
}
