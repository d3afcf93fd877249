//! Decides which waiting tasks go to which workers now, and how many workers there should be.

use super::{Dispatcher, Due};
use crate::engine::process;
use crate::engine::stop_points::{self, Point};
use crate::settings;
use crate::store::dispatcher as store;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Acquire;

use pgflow_core::queue::{Place, State};

/// What a worker is handed: its slot, the lane, the tasks with their attempts.
type Batch = (usize, usize, Vec<(i64, i32)>);

/// What is to be done about tasks that were running when the server died.
enum Suspects {
    /// There are none, or none that others must wait for.
    None,
    /// One runs, or is about to: nothing else starts.
    Wait,
    Handed,
}

/// Without a free place for a worker, look again after this long (microseconds).
const STARVED: i64 = 1_000_000;

impl Dispatcher {
    /// Hands out what may run. Returns whether anything was handed out.
    pub(super) fn assign(&mut self) -> bool {
        self.slots.insist();
        let resting = self.paused || !self.adopted || !settings::enabled() || self.database.held.load(Acquire);
        if resting {
            // What was handed out and has not begun comes back: nothing starts any more.
            self.slots.revoke_all();
        }
        // In order: each goes to the front of its lane.
        for (task_id, attempt) in self.slots.drop_revoked(&mut self.pools, &mut self.finished_claims).into_iter().rev()
        {
            self.queue.requeue(task_id, attempt);
        }
        if resting {
            return false;
        }
        let stolen = self.slots.steal(self.role_at_most(), &mut self.pools, &mut self.finished_claims);
        for (task_id, attempt) in stolen.into_iter().rev() {
            self.queue.requeue(task_id, attempt);
        }
        match self.assign_suspect() {
            Suspects::Handed => return true,
            Suspects::Wait => return false,
            Suspects::None => {}
        }
        let was_starving = std::mem::take(&mut self.starving);
        let (handed, chosen) = self.choose();
        if was_starving && !self.starving {
            self.database.last_error.set("");
        }
        let sent = self.mark_to_send(chosen);
        if handed.is_empty() {
            return sent;
        }
        self.ends_soon = handed.iter().all(|(_, lane, _)| self.queue.lane(*lane).takes_less_than(process::SOON));
        self.mark_and_hand(handed, false);
        true
    }

    /// Goes through the lanes, the most urgent first, and chooses what each worker is handed. A worker is not filled up
    /// with tasks of a lane while a more urgent one of its role waits for a worker.
    fn choose(&mut self) -> (Vec<Batch>, Vec<super::elsewhere::Batch>) {
        let mut handed: Vec<Batch> = Vec::new();
        let mut sent: Vec<super::elsewhere::Batch> = Vec::new();
        let mut count_sent = 0;
        let mut held: HashMap<usize, usize> = HashMap::new();
        let mut waiting_roles: HashSet<u32> = HashSet::new();
        for lane in self.queue.order(crate::store::now(), settings::priority_ageing()) {
            let key = self.queue.lane(lane).key;
            if let Place::Target(place) = key.place {
                let free = self.pools.free(key.pool).saturating_sub(held.get(&key.pool).copied().unwrap_or(0));
                if let Some(batch) = self.choose_to_send(lane, place, free, count_sent) {
                    *held.entry(key.pool).or_default() += batch.1.len();
                    count_sent += batch.1.len();
                    sent.push(batch);
                }
                continue;
            }
            let depth = self.queue.lane(lane).depth(crate::engine::shmem::QUEUE / 2);
            if !waiting_roles.contains(&key.role) {
                for (slot, more) in self.slots.hungry(lane, depth) {
                    let most = more.min(self.slots.room(slot));
                    let tasks = self.queue.take(lane, most, slot);
                    if !tasks.is_empty() {
                        handed.push((slot, lane, tasks));
                    }
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
                waiting_roles.insert(key.role);
                self.want_workers(key.role, self.queue.lane(lane).waiting().min(free));
            }
        }
        (handed, sent)
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
        stop_points::pass(Point::DispatcherMarked);
        if careful {
            self.end_transaction();
            super::set(c"synchronous_commit", c"off");
        }
    }

    /// Tasks that were running when the server died run one at a time, with nothing else beside them for a while.
    fn assign_suspect(&mut self) -> Suspects {
        let queue = &self.queue;
        self.suspects.retain(|id| queue.task(*id).is_some_and(|t| t.state != State::Waiting));
        if self.suspects.is_empty() {
            return Suspects::None;
        }
        if self.slots.busy() {
            let over = crate::store::now() >= self.quarantine_until;
            return if over { Suspects::None } else { Suspects::Wait };
        }
        // One whose role can have no worker does not keep the others from running.
        let mut coming = false;
        for task_id in self.suspects.clone() {
            let Some(task) = self.queue.task(task_id).copied() else { continue };
            let role = self.queue.lane(task.lane).key.role;
            if let Some(slot) = self.slots.idle(role).pop() {
                if self.queue.take_one(task_id, slot) {
                    self.quarantine_until = crate::store::now() + settings::suspect_quarantine_ms() * 1000;
                    self.remind(self.quarantine_until, Due::Look);
                    self.mark_and_hand(vec![(slot, task.lane, vec![(task_id, task.attempt)])], true);
                    return Suspects::Handed;
                }
                continue;
            }
            if self.slots.starting(role) == 0 {
                self.want_workers(role, 1);
            }
            coming |= self.slots.starting(role) > 0;
        }
        if coming {
            Suspects::Wait
        } else {
            Suspects::None
        }
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
                    // One of another role ends when it has done what it holds.
                    self.slots.release_one();
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
        self.remind(crate::store::now() + STARVED, Due::Look);
    }
}
