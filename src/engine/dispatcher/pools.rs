//! Pools: how many tasks of a kind may run at once, and how many do. And what is known of targets.

use std::collections::HashMap;
use std::sync::atomic::Ordering::*;

use pgflow_core::queue::Queue;

use super::remote::Remote;
use super::slots::Slots;
use crate::engine::shmem::Database;
use crate::store::dispatcher::{Loaded, Settings};

struct Pool {
    name: String,
    /// A target's own pool, as opposed to one that tasks name.
    of_target: bool,
    max: usize,
    used: usize,
}

#[derive(Default)]
pub struct Pools {
    pools: Vec<Pool>,
    by_name: HashMap<(bool, String), usize>,
    targets: HashMap<String, (String, usize, bool)>,
    named: HashMap<String, usize>,
    default_size: usize,
    self_target: String,
    self_concurrency: Option<usize>,
    yielded: HashMap<i64, usize>,
    /// Targets elsewhere, numbered as they are met.
    places: Vec<String>,
}

impl Pools {
    /// Takes over what was configured; sizes hold at once.
    pub fn configure(&mut self, settings: &Settings) {
        self.targets =
            settings.targets.iter().map(|t| (t.name.clone(), (t.kind.clone(), t.max, t.track_yielded))).collect();
        self.named = settings.pools.iter().cloned().collect();
        self.default_size = settings.default_pool;
        self.self_target = settings.self_target.clone();
        self.self_concurrency = settings.self_concurrency;
        for i in 0..self.pools.len() {
            self.pools[i].max = self.size(self.pools[i].of_target, &self.pools[i].name);
        }
    }

    fn size(&self, of_target: bool, name: &str) -> usize {
        if of_target {
            let own = self.targets.get(name).map(|t| t.1);
            if name == "local" {
                return self.self_concurrency.or(own).unwrap_or(self.default_size);
            }
            own.unwrap_or(self.default_size)
        } else {
            self.named.get(name).copied().unwrap_or(self.default_size)
        }
    }

    fn is_self(&self, target: &str) -> bool {
        target == "async.self" || target == self.self_target
    }

    fn canonical<'a>(&self, target: &'a str) -> &'a str {
        if self.is_self(target) && !self.targets.contains_key(target) {
            "local"
        } else {
            target
        }
    }

    /// The pool of a task: the one it names, else its target's own.
    pub fn of(&mut self, named: Option<&str>, target: &str) -> usize {
        let (of_target, name) = match named {
            Some(name) => (false, name),
            None => (true, self.canonical(target)),
        };
        if let Some(pool) = self.by_name.get(&(of_target, name.to_owned())) {
            return *pool;
        }
        let pool = Pool { name: name.to_owned(), of_target, max: self.size(of_target, name), used: 0 };
        self.pools.push(pool);
        self.by_name.insert((of_target, name.to_owned()), self.pools.len() - 1);
        self.pools.len() - 1
    }

    pub fn is_external(&self, target: &str) -> bool {
        self.targets.get(target).is_some_and(|t| t.0 == "external")
    }

    /// Whether tasks of a target run somewhere else, by way of the executor.
    pub fn is_elsewhere(&self, target: &str) -> bool {
        self.targets.get(target).is_some_and(|t| t.0 != "external" && t.0 != "local")
    }

    /// The number of a target elsewhere.
    pub fn place_of(&mut self, target: &str) -> usize {
        self.places.iter().position(|p| p == target).unwrap_or_else(|| {
            self.places.push(target.to_owned());
            self.places.len() - 1
        })
    }

    pub fn place_name(&self, place: usize) -> &str {
        self.places.get(place).map_or("", String::as_str)
    }

    pub fn tracks_yielded(&self, target: &str) -> bool {
        self.targets.get(target).is_some_and(|t| t.2)
    }

    /// Why a task cannot run at all, in the user's words.
    pub fn refusal(&self, task: &Loaded) -> Option<String> {
        let target = task.target.as_str();
        match self.targets.get(target).map(|t| t.0.as_str()) {
            None if target != "local" && !self.is_self(target) => {
                return Some(format!("target {target} does not exist any more"));
            }
            Some("external") => return None,
            _ => {}
        }
        if task.role == pgrx::pg_sys::Oid::INVALID {
            return Some(format!("role {} does not exist any more", task.role_name));
        }
        let in_a_worker = !self.is_elsewhere(target) || task.starts_here || task.pool.as_deref() == Some("");
        if in_a_worker && !task.can_login && !crate::engine::process::NOLOGIN_ROLES {
            return Some(format!("role {} may not log in, so no worker can run as it", task.role_name));
        }
        None
    }

    pub fn free(&self, pool: usize) -> usize {
        let pool = &self.pools[pool];
        pool.max.saturating_sub(pool.used)
    }

    pub fn hold(&mut self, pool: usize) {
        self.pools[pool].used += 1;
    }

    pub fn release(&mut self, pool: usize) {
        self.pools[pool].used = self.pools[pool].used.saturating_sub(1);
    }

    /// A yielded task of a target that tracks them keeps its place in the pool.
    pub fn hold_yielded(&mut self, task_id: i64, pool: usize) {
        if self.yielded.insert(task_id, pool).is_none() {
            self.hold(pool);
        }
    }

    pub fn free_yielded(&mut self, task_id: i64) {
        if let Some(pool) = self.yielded.remove(&task_id) {
            self.release(pool);
        }
    }

    /// Before the memory is made anew: yielded tasks will be found again.
    pub fn forget_yielded(&mut self) {
        for (_, pool) in std::mem::take(&mut self.yielded) {
            self.release(pool);
        }
    }

    /// Shows the pools to the views.
    pub fn publish(&self, database: &Database, queue: &Queue, slots: &Slots, remote: &Remote) {
        for (shown, (i, pool)) in database.pools.iter().zip(self.pools.iter().enumerate()) {
            shown.name.set(&pool.name);
            shown.max.store(pool.max as u32, Release);
            shown.running.store((slots.running_in(i) + remote.running_in(i)) as u32, Release);
            shown.waiting.store(queue.waiting_in(i) as u64, Release);
        }
        database.queued.store(queue.waiting().0 as u32, Release);
    }
}
