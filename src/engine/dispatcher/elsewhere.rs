//! The dispatcher's part in tasks that run somewhere else: sending them, writing how they ended, waiting for targets that
//! are down.

use std::collections::HashMap;
use std::sync::atomic::Ordering::*;

use pgflow_core::queue::{Place, State};
use pgflow_executor::bridge::Offer;
use pgflow_executor::job::{Ending, Failure};
use pgflow_executor::runner::{Errand, Report};

use super::remote::Landed;
use super::{results, Dispatcher, Due, LOCKED};
use crate::engine::pauses;
use crate::store::dispatcher as tasks;
use crate::store::guarded;
use crate::store::remote::{self as store, End};

/// Results that are forgotten in one transaction.
const EXPIRED_AT_ONCE: i32 = 200;

/// Tasks of a lane that were chosen to be sent: (lane, (task, attempt)).
pub(super) type Batch = (usize, Vec<(i64, i32)>);

impl Dispatcher {
    /// Writes how attempts ended that the executor has reported. Returns whether there were any.
    pub(super) fn take_reports(&mut self) -> bool {
        let (landed, others) = self.remote.take_reports(&mut self.pools, &mut self.finished_claims);
        let again =
            if crate::store::now() >= self.unwritten_at { std::mem::take(&mut self.unwritten) } else { Vec::new() };
        let any = !landed.is_empty() || !others.is_empty();
        let landed: Vec<Landed> = again.into_iter().chain(landed).collect();
        if any || !landed.is_empty() {
            self.db();
        }
        for report in others {
            match report {
                Report::Probed { target, outcome: Ok(()) } => self.remote.note_up(&target.name),
                Report::Probed { target, outcome: Err(failure) } => {
                    self.remote.note_down(target, &failure.message);
                }
                Report::Deleted { ids, kept } => self.deleted(ids, kept),
                Report::Wanted { task_id, attempt, pid } => self.offer(task_id, attempt, pid),
                Report::Deaf(why) => {
                    pgrx::warning!("pgflow: workers cannot reach the executor: {why}");
                    self.remote.deaf();
                }
                Report::Ended { .. } => {}
            }
        }
        let landed: Vec<Landed> = landed.into_iter().filter_map(|l| self.unless_it_was_down(l)).collect();
        if landed.is_empty() {
            return any;
        }
        // Elsewhere it cannot be undone: what is known of it must not be lost with the server.
        self.durable = true;
        let mut written = any;
        for (l, word) in write(landed) {
            written |= word.as_deref() != Some("locked");
            match word.as_deref() {
                Some("finished") => {
                    self.queue_learns(&l);
                    self.forget(l.task_id, false);
                }
                Some("failed") => {
                    self.discard(&l);
                    self.queue_learns(&l);
                    self.forget(l.task_id, true);
                }
                Some("waits") => {
                    self.queue.wait(l.task_id, l.attempt + 1);
                    self.touched.push(l.task_id);
                }
                Some("locked") => {
                    // The sleep ends then.
                    self.unwritten_at = crate::store::now() + LOCKED;
                    self.unwritten.push(l);
                }
                _ => {
                    self.discard(&l);
                    self.queue.wait(l.task_id, l.attempt);
                    self.touched.push(l.task_id);
                }
            }
        }
        written
    }

    fn discard(&mut self, l: &Landed) {
        if results::discard(l) {
            self.remind(crate::store::now(), Due::Expiry);
        }
    }

    /// The target could not be reached: nothing happened, and the task goes back to where it waited.
    fn unless_it_was_down(&mut self, l: Landed) -> Option<Landed> {
        let Ending::Again { failure, down: true, .. } = &l.ending else {
            // Whoever was only told to stop, or never answered, says nothing about the target.
            if matches!(l.ending, Ending::Finished(_) | Ending::Failed(_) | Ending::Again { .. }) {
                self.remote.note_up(&l.target.name);
            }
            return Some(l);
        };
        let next = self.remote.note_down(l.target.clone(), &failure.message);
        self.remind(next, Due::Look);
        self.queue.requeue(l.task_id, l.attempt);
        None
    }

    /// What is over is forgotten, a batch at a time; objects are deleted when their marks are committed.
    pub(super) fn expire(&mut self) {
        self.db();
        let expired = guarded(|| {
            let objects = store::expire_results(EXPIRED_AT_ONCE);
            let full = objects.len() >= EXPIRED_AT_ONCE as usize;
            (objects, full | (store::expire_executions(EXPIRED_AT_ONCE) >= EXPIRED_AT_ONCE))
        });
        let (objects, full) = expired.unwrap_or_else(|why| {
            pgrx::warning!("pgflow: what is over could not be forgotten: {why}");
            (Vec::new(), false)
        });
        let mut by_store: HashMap<String, Vec<(i64, String)>> = HashMap::new();
        for (task_id, place, path) in objects {
            by_store.entry(place).or_default().push((task_id, path));
        }
        for (name, objects) in by_store {
            if let Ok(Some(place)) = guarded(|| results::open_store(&name)) {
                self.remote.later(Errand::Delete { store: place, objects });
            }
        }
        if full {
            self.remind(crate::store::now(), Due::Expiry);
        } else {
            self.look_for_expiry();
        }
    }

    /// Wakes up when the next result or execution is over.
    pub(super) fn look_for_expiry(&mut self) {
        if let Some(at) = store::next_expiry() {
            self.remind(at.max(crate::store::now() + 1_000_000), Due::Expiry);
        }
    }

    fn deleted(&mut self, ids: Vec<i64>, kept: Vec<(i64, String)>) {
        if !ids.is_empty() {
            store::results_deleted(ids);
        }
        if !kept.is_empty() {
            store::results_not_deleted(kept);
        }
    }

    /// A worker needs the executor for the task it runs. Only the worker that was handed it is answered.
    fn offer(&mut self, task_id: i64, attempt: i32, pid: i32) {
        let offer = if self.slots.runs(pid, task_id, attempt) {
            self.remote.offer(task_id, attempt)
        } else {
            Err("it is not this process that runs the task".to_owned())
        };
        self.remote.answer(task_id, attempt, offer.unwrap_or_else(|why| Offer::Refuse(Failure::new(why))));
    }

    fn queue_learns(&mut self, l: &Landed) {
        self.database.tasks_done.fetch_add(1, Relaxed);
        if let Some(lane) = self.queue.task(l.task_id).map(|t| t.lane) {
            self.queue.learn(lane, l.microseconds);
        }
    }

    /// Chooses what of a lane may be sent now.
    pub(super) fn choose_to_send(&mut self, lane: usize, place: usize, free: usize, chosen: usize) -> Option<Batch> {
        if !self.remote.is_up(self.pools.place_name(place)) {
            return None;
        }
        let most = free.min(self.remote.room().saturating_sub(chosen));
        let tasks = self.queue.take_to_send(lane, most);
        (!tasks.is_empty()).then_some((lane, tasks))
    }

    /// Marks what was chosen and prepares it; it is sent when the marks are committed. Returns whether anything is.
    pub(super) fn mark_to_send(&mut self, chosen: Vec<Batch>) -> bool {
        let mut all = Vec::new();
        // Places are free again: others may be chosen.
        let mut some_failed = false;
        for (lane, tasks) in chosen {
            self.db();
            let key = self.queue.lane(lane).key;
            let prepared = self.remote.prepare(&tasks, key, &mut self.pools);
            for (task_id, attempt, why) in prepared.faults {
                let ended = tasks::end_tasks(vec![task_id], "FAILED", &why);
                if ended.is_empty() {
                    // A client has it locked.
                    self.queue.requeue(task_id, attempt);
                    self.remind(crate::store::now() + LOCKED, Due::Look);
                }
                some_failed |= !ended.is_empty();
                for task in tasks::look(ended) {
                    self.ended_elsewhere(&task);
                }
            }
            for (task_id, attempt) in prepared.changed {
                self.queue.wait(task_id, attempt);
                self.touched.push(task_id);
            }
            if !prepared.no_place.is_empty() {
                self.remind(crate::store::now() + LOCKED, Due::Look);
            }
            for (task_id, attempt) in prepared.no_place.into_iter().rev() {
                self.queue.requeue(task_id, attempt);
            }
            all.extend(prepared.ready);
        }
        if all.is_empty() {
            return some_failed;
        }
        let claim = tasks::claim(&all, false);
        self.remote.marked(&all, claim);
        self.durable = true;
        true
    }

    /// Asks targets that are down whether they are there again; fails what has waited for one for longer than it may.
    pub(super) fn look_at_targets(&mut self) {
        if self.remote.none_is_down() {
            return;
        }
        if self.remote.probe_is_due() {
            self.db();
        }
        let wanted: Vec<&str> = self.queue.wanted_targets().into_iter().map(|p| self.pools.place_name(p)).collect();
        let probed = self.remote.probe(|name| wanted.contains(&name));
        if let Some(next) = probed.next {
            self.remind(next, Due::Look);
        }
        for target in probed.forgotten {
            self.db();
            store::target_up(Some(&target));
        }
        for (target, error) in probed.given_up {
            let (queue, pools) = (&self.queue, &self.pools);
            let waiting = queue.find(|t| {
                t.state == State::Queued
                    && matches!(queue.lane(t.lane).key.place, Place::Target(p) if pools.place_name(p) == target)
            });
            if !waiting.is_empty() {
                self.db();
                let why = format!("target {target} could not be reached for longer than give_up_after: {error}");
                for task in tasks::look(tasks::end_tasks(waiting, "FAILED", &why)) {
                    self.ended_elsewhere(&task);
                }
            }
        }
    }
}

/// Writes how attempts ended, with what they have left, and what became of each. One that cannot be written because of what
/// is in it fails with that reason; it does not keep the others from being written.
fn write(landed: Vec<Landed>) -> Vec<(Landed, Option<String>)> {
    let together = |landed: &[&Landed]| {
        let became: HashMap<i64, String> =
            store::end_attempts(&landed.iter().map(|l| end(l)).collect::<Vec<_>>()).into_iter().collect();
        let counts = |l: &&&Landed| matches!(became.get(&l.task_id).map(String::as_str), Some("finished" | "waits"));
        landed.iter().filter(counts).for_each(|l| results::record(l));
        became
    };
    let all: Vec<&Landed> = landed.iter().collect();
    let mut became = guarded(|| together(&all)).unwrap_or_else(|_| {
        let mut became = HashMap::new();
        for l in &all {
            match guarded(|| together(&[*l])) {
                Ok(one) => became.extend(one),
                Err(why) => {
                    let failed = End { word: "failed", error: Some(why), delay: None, ..end(l) };
                    match guarded(|| store::end_attempts(&[failed])) {
                        Ok(one) => became.extend(one),
                        Err(why) => pgrx::warning!("pgflow: the end of task {} cannot be written: {why}", l.task_id),
                    }
                }
            }
        }
        became
    });
    landed
        .into_iter()
        .map(|l| {
            let word = became.remove(&l.task_id);
            (l, word)
        })
        .collect()
}

/// What is written of an attempt.
fn end(l: &Landed) -> End {
    let (word, error, delay) = match &l.ending {
        Ending::Finished(done) => (if done.goes_on { "goes_on" } else { "finished" }, None, l.time_limit),
        Ending::Failed(failure) => ("failed", Some(failure.to_string()), None),
        Ending::Again { failure, after, .. } => {
            let after = after.map(|a| a.as_micros().min(i64::MAX as u128) as i64);
            ("again", Some(failure.to_string()), Some(after.unwrap_or_else(|| pauses::of_task(l.tries))))
        }
        Ending::Lost(failure) => ("lost", Some(failure.to_string()), Some(pauses::of_task(l.tries))),
        Ending::Stopped if l.timed_out => ("timed_out", Some("time-out: it took too long".to_owned()), None),
        // Whoever had it stopped has ended the task before; else it runs again.
        Ending::Stopped => ("lost", Some("it was stopped".to_owned()), Some(pauses::of_task(l.tries))),
    };
    End { task_id: l.task_id, attempt: l.attempt, started: l.started, word, error, delay, max_attempts: l.max_attempts }
}
