//! Decides which waiting tasks go to which workers now, and how many workers there should be.

use super::{Dispatcher, Due};
use crate::settings;
use crate::store::dispatcher as store;
use std::cmp::Reverse;
use std::sync::atomic::Ordering::Acquire;

/// What a worker is handed: its slot, the lane, the tasks with their attempts.
type Batch = (usize, usize, Vec<(i64, i32)>);

/// Without a free place for a worker, look again after this long (microseconds).
const STARVED: i64 = 1_000_000;

impl Dispatcher {
    /// Hands out what may run. Returns whether anything was handed out.
    pub(super) fn assign(&mut self) -> bool {
        if self.paused || !self.adopted || !settings::enabled() || self.database.held.load(Acquire) {
            return false;
        }
        // In order: each goes to the front of its lane.
        for (task_id, attempt) in self.slots.drop_revoked(&mut self.pools, &mut self.finished_claims).into_iter().rev()
        {
            self.queue.requeue(task_id, attempt);
        }
        self.slots.insist();
        let stolen = self.slots.steal(self.role_at_most(), &mut self.pools, &mut self.finished_claims);
        for (task_id, attempt) in stolen.into_iter().rev() {
            self.queue.requeue(task_id, attempt);
        }
        if !self.suspects.is_empty() && self.assign_suspect() {
            return true;
        }
        if !self.suspects.is_empty() && !self.quarantine_is_over() {
            return false;
        }
        let was_starving = std::mem::take(&mut self.starving);
        let mut handed: Vec<Batch> = Vec::new();
        let mut held: std::collections::HashMap<usize, usize> = Default::default();
        for lane in self.queue.order() {
            let key = self.queue.lane(lane).key;
            let depth = self.queue.lane(lane).depth(crate::engine::shmem::QUEUE / 2);
            for (slot, more) in self.slots.hungry(lane, depth) {
                let most = more.min(self.slots.room(slot));
                let tasks = self.queue.take(lane, most, slot);
                if !tasks.is_empty() {
                    handed.push((slot, lane, tasks));
                }
            }
            let mut idle: Vec<usize> =
                self.slots.idle(key.role).into_iter().filter(|s| !handed.iter().any(|h| h.0 == *s)).collect();
            let mut free = self.pools.free(key.pool).saturating_sub(held.get(&key.pool).copied().unwrap_or(0));
            while self.queue.lane(lane).waiting() > 0 && free > 0 {
                let Some(slot) = idle.pop() else { break };
                let share = self.queue.lane(lane).waiting().div_ceil(idle.len() + 1);
                let tasks = self.queue.take(lane, depth.min(share).min(self.slots.room(slot)), slot);
                if !tasks.is_empty() {
                    handed.push((slot, lane, tasks));
                    *held.entry(key.pool).or_default() += 1;
                    free -= 1;
                }
            }
            if self.queue.lane(lane).waiting() > 0 && free > 0 {
                self.want_workers(key.role, self.queue.lane(lane).waiting().min(free));
            }
        }
        if was_starving && !self.starving {
            self.database.last_error.set("");
        }
        if handed.is_empty() {
            return false;
        }
        self.mark_and_hand(handed, false);
        true
    }

    /// The mark in the table comes first; workers are told when it is committed.
    fn mark_and_hand(&mut self, handed: Vec<Batch>, alone: bool) {
        self.db();
        let careful = alone || crate::store::now() < self.careful_until;
        if careful {
            super::set(c"synchronous_commit", c"on");
        }
        let all: Vec<(i64, i32)> = handed.iter().flat_map(|h| h.2.iter().copied()).collect();
        let claim = store::claim(&all, alone);
        for (slot, lane, tasks) in handed {
            let pool = self.queue.lane(lane).key.pool;
            self.slots.hand(slot, lane, pool, &tasks, claim, &mut self.pools);
        }
        if careful {
            self.end_transaction();
            super::set(c"synchronous_commit", c"off");
        }
    }

    /// Tasks that were running when the server died run one at a time, with nothing else beside them.
    fn assign_suspect(&mut self) -> bool {
        if self.slots.busy() {
            return false;
        }
        let Some(&task_id) = self.suspects.first() else { return false };
        let Some(task) = self.queue.task(task_id).copied() else {
            self.suspects.remove(0);
            return false;
        };
        let key = self.queue.lane(task.lane).key;
        let Some(slot) = self.slots.idle(key.role).pop() else {
            self.want_workers(key.role, 1);
            return false;
        };
        if !self.queue.take_one(task_id, slot) {
            self.suspects.remove(0);
            return false;
        }
        self.quarantine_until = crate::store::now() + settings::suspect_quarantine_ms() * 1000;
        self.due.push(Reverse((self.quarantine_until, Due::Look)));
        self.mark_and_hand(vec![(slot, task.lane, vec![(task_id, task.attempt)])], true);
        true
    }

    fn quarantine_is_over(&self) -> bool {
        self.slots.busy() && crate::store::now() >= self.quarantine_until
    }

    fn role_at_most(&self) -> usize {
        settings::workers_per_role().min(self.workers_at_most)
    }

    /// Starts workers for a role, as many as its tasks need and the limits allow.
    fn want_workers(&mut self, role: u32, needed: usize) {
        if !self.slots.may_start(role) {
            return;
        }
        let starting = self.slots.starting(role);
        for _ in starting..needed {
            if self.slots.of_role(role) >= self.role_at_most() || self.slots.count() >= self.workers_at_most {
                if self.slots.of_role(role) == 0 {
                    self.starve(role, "all pgflow.workers of this database are busy");
                }
                return;
            }
            if !self.slots.start(role) {
                self.starve(
                    role,
                    "no place for a worker is free; raise max_worker_processes (and pgflow.max_workers) and restart",
                );
                return;
            }
        }
    }

    /// No worker can start: an idle one elsewhere is asked to make room, and the views say why this one waits.
    fn starve(&mut self, role: u32, why: &str) {
        if !self.slots.ask_to_yield(role) && self.slots.of_role(role) == 0 {
            self.database.last_error.set(&format!("tasks of role {role} wait: {why}"));
            self.starving = true;
        }
        self.due.push(Reverse((crate::store::now() + STARVED, Due::Look)));
    }
}
