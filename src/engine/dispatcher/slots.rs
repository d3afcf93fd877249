//! The dispatcher's view of its workers: what each was handed, who idles, who is late, who is gone.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering::*;

use super::pools::Pools;
use crate::engine::process::{self, signal};
use crate::engine::shmem::{shared, Database, Worker, WorkerState, ASSIGNED, DONE, PENDING, QUEUE, REVOKED, STARTED};
use crate::settings;

/// A worker that has not reported this long after it was asked for never will (microseconds).
const START_TIMEOUT: i64 = 10_000_000;
/// A callback that traps its cancel is asked again this often (microseconds).
const CANCEL_AGAIN: i64 = 1_000_000;
/// Tasks handed out behind one that takes longer than this go to others (microseconds).
const STEAL_AFTER: i64 = 5_000;
/// A worker that ends while it runs something may be the first sign that the server stops: what it ran is settled this much
/// later, and not at all if it was so (microseconds).
const SETTLE_AFTER: i64 = 200_000;
/// The pause after which a role whose workers cannot start is tried again (microseconds).
const START_PAUSE: i64 = 2_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Handed {
    pub task_id: i64,
    pub attempt: i32,
    position: u64,
    claim: i64,
}

struct Slot {
    role: u32,
    pool: Option<usize>,
    lane: Option<usize>,
    handed: VecDeque<Handed>,
    /// Where the worker will be told to read to, once the marks are committed.
    tail: u64,
    asked: i64,
    /// When its process was first seen to be gone.
    gone_since: Option<i64>,
    cancel: Option<Cancel>,
}

struct Cancel {
    task_id: i64,
    since: i64,
    again: i64,
}

pub struct Slots {
    database: &'static Database,
    mine: BTreeMap<usize, Slot>,
    claims: HashMap<i64, usize>,
    dirty: Vec<usize>,
    /// Roles whose workers did not start: not before this time.
    pause: HashMap<u32, i64>,
}

/// What a worker that is gone leaves behind.
pub struct Left {
    pub role: u32,
    /// It had started: lost.
    pub lost: Vec<(i64, i32)>,
    /// It had not been started: to be handed out again.
    pub unstarted: Vec<(i64, i32)>,
    /// It had been done, but the report is missing.
    pub unknown: Vec<(i64, i32)>,
    pub never_started: bool,
    /// It was ended to make room, not because of what it ran.
    pub dismissed: bool,
}

impl Slot {
    /// Whether it has begun something that it has not ended.
    fn has_begun(&self, w: &Worker) -> bool {
        self.handed.iter().any(|h| w.entry(h.position).state.load(Acquire) == STARTED)
    }
}

fn worker(slot: usize) -> &'static Worker {
    &shared().workers()[slot]
}

impl Slots {
    pub fn new(database: &'static Database) -> Self {
        Slots { database, mine: BTreeMap::new(), claims: HashMap::new(), dirty: Vec::new(), pause: HashMap::new() }
    }

    /// Takes over workers that a dispatcher before this one has started: (slot, what it holds).
    pub fn adopt(&mut self) -> Vec<(usize, Vec<(i64, i32)>)> {
        let mut adopted = Vec::new();
        let oid = self.database.oid.load(Acquire);
        for (i, w) in shared().workers().iter().enumerate() {
            if w.state() == WorkerState::Free || w.database.load(Acquire) != oid {
                continue;
            }
            let (head, tail) = (w.head.load(Acquire), w.tail.load(Acquire));
            let handed: VecDeque<Handed> = (head..tail)
                .map(|position| {
                    let e = w.entry(position);
                    let (task_id, attempt) = (e.task_id.load(Acquire), e.attempt.load(Acquire));
                    Handed { task_id, attempt, position, claim: 0 }
                })
                .collect();
            let role = w.role.load(Acquire);
            adopted.push((i, handed.iter().map(|h| (h.task_id, h.attempt)).collect()));
            let asked = crate::store::now();
            self.mine
                .insert(i, Slot { role, pool: None, lane: None, handed, tail, asked, gone_since: None, cancel: None });
        }
        adopted
    }

    /// An adopted worker's place in its pool.
    pub fn place(&mut self, slot: usize, lane: usize, pool: usize, pools: &mut Pools) {
        if let Some(s) = self.mine.get_mut(&slot) {
            s.lane = Some(lane);
            if s.pool.is_none() {
                s.pool = Some(pool);
                pools.hold(pool);
            }
        }
    }

    pub fn holds(&self, task_id: i64, attempt: i32) -> bool {
        self.mine.values().any(|s| s.handed.iter().any(|h| h.task_id == task_id && h.attempt == attempt))
    }

    /// Whether the process of this number is a worker of ours that runs this attempt.
    pub fn runs(&self, pid: i32, task_id: i64, attempt: i32) -> bool {
        pid != 0
            && self.mine.keys().map(|i| worker(*i)).any(|w| {
                w.process.pid() == pid && w.task_id.load(Acquire) == task_id && w.attempt.load(Acquire) == attempt
            })
    }

    /// A worker has reported the end of an attempt: it holds one task less.
    pub fn reported(&mut self, task_id: i64, attempt: i32, pools: &mut Pools, finished_claims: &mut Vec<i64>) {
        let found = self.mine.iter_mut().find_map(|(i, s)| {
            let at = s.handed.iter().position(|h| h.task_id == task_id && h.attempt == attempt)?;
            Some((*i, at))
        });
        if let Some((slot, at)) = found {
            self.drop_handed(slot, at, pools, finished_claims);
        }
    }

    fn drop_handed(&mut self, slot: usize, at: usize, pools: &mut Pools, finished_claims: &mut Vec<i64>) {
        let Some(s) = self.mine.get_mut(&slot) else { return };
        let Some(handed) = s.handed.remove(at) else { return };
        if s.cancel.as_ref().is_some_and(|c| c.task_id == handed.task_id) {
            s.cancel = None;
        }
        if s.handed.is_empty() {
            s.lane = None;
            if let Some(pool) = s.pool.take() {
                pools.release(pool);
            }
        }
        if let Some(left) = self.claims.get_mut(&handed.claim) {
            *left -= 1;
            if *left == 0 {
                self.claims.remove(&handed.claim);
                finished_claims.push(handed.claim);
            }
        }
    }

    /// Slots whose process is gone, settled; they are free afterwards.
    pub fn gone(&mut self, pools: &mut Pools, finished_claims: &mut Vec<i64>) -> Vec<Left> {
        let now = crate::store::now();
        let gone: Vec<usize> = self
            .mine
            .iter_mut()
            .filter_map(|(i, s)| {
                let w = worker(*i);
                let never = w.process.pid() == 0 && now - s.asked > START_TIMEOUT;
                let is_gone = match w.state() {
                    WorkerState::Gone => {
                        let since = *s.gone_since.get_or_insert(now);
                        now - since >= SETTLE_AFTER || !s.has_begun(w) || w.dismissed.load(Acquire)
                    }
                    _ => never && w.change_state(WorkerState::Starting, WorkerState::Gone),
                };
                is_gone.then_some(*i)
            })
            .collect();
        let mut all = Vec::new();
        for i in gone {
            let w = worker(i);
            let Some(s) = self.mine.get(&i) else { continue };
            let mut left = Left {
                role: s.role,
                lost: Vec::new(),
                unstarted: Vec::new(),
                unknown: Vec::new(),
                dismissed: w.dismissed.load(Acquire),
                never_started: !w.was_ready.load(Acquire) && !w.dismissed.load(Acquire),
            };
            for h in &s.handed {
                match w.entry(h.position).state.load(Acquire) {
                    STARTED => left.lost.push((h.task_id, h.attempt)),
                    DONE => left.unknown.push((h.task_id, h.attempt)),
                    _ => left.unstarted.push((h.task_id, h.attempt)),
                }
            }
            while self.mine.get(&i).is_some_and(|s| !s.handed.is_empty()) {
                self.drop_handed(i, 0, pools, finished_claims);
            }
            self.mine.remove(&i);
            w.reset();
            w.set_state(WorkerState::Free);
            if left.never_started {
                self.pause.insert(left.role, now + START_PAUSE);
            }
            all.push(left);
        }
        all
    }

    /// Workers of a role that could take tasks now: idle ones.
    pub fn idle(&self, role: u32) -> Vec<usize> {
        self.mine
            .iter()
            .filter(|(i, s)| s.role == role && s.handed.is_empty() && takes_more(worker(**i)))
            .map(|(i, _)| *i)
            .collect()
    }

    /// Workers that run a lane's tasks and will soon have none left: (slot, how many more).
    pub fn hungry(&self, lane: usize, depth: usize) -> Vec<(usize, usize)> {
        let now = crate::store::now();
        self.mine
            .iter()
            .filter(|(i, s)| {
                let w = worker(**i);
                s.lane == Some(lane) && s.cancel.is_none() && takes_more(w) && !is_long(w, now)
            })
            .filter_map(|(i, s)| {
                let held = s.handed.len();
                (held > 0 && held * 2 <= depth).then(|| (*i, depth - held))
            })
            .collect()
    }

    pub fn starting(&self, role: u32) -> usize {
        self.mine.iter().filter(|(i, s)| s.role == role && worker(**i).state() == WorkerState::Starting).count()
    }

    pub fn of_role(&self, role: u32) -> usize {
        self.mine.values().filter(|s| s.role == role).count()
    }

    pub fn count(&self) -> usize {
        self.mine.len()
    }

    /// Whether any worker holds a task.
    pub fn busy(&self) -> bool {
        self.mine.values().any(|s| !s.handed.is_empty())
    }

    pub fn running_in(&self, pool: usize) -> usize {
        self.mine.values().filter(|s| s.pool == Some(pool)).count()
    }

    pub fn may_start(&self, role: u32) -> bool {
        self.pause.get(&role).is_none_or(|until| crate::store::now() >= *until)
    }

    /// When roles that are paused may be tried again.
    pub fn pause_ends(&self) -> Option<i64> {
        let now = crate::store::now();
        self.pause.values().copied().filter(|t| *t > now).min()
    }

    /// Starts a worker for a role in a free slot. False: no slot of ours or of the server's is free.
    pub fn start(&mut self, role: u32) -> bool {
        let free = shared()
            .workers()
            .iter()
            .position(|w| w.state() == WorkerState::Free && w.change_state(WorkerState::Free, WorkerState::Starting));
        let Some(slot) = free else { return false };
        let w = worker(slot);
        w.reset();
        let generation = w.generation.fetch_add(1, AcqRel).wrapping_add(1);
        w.database.store(self.database.oid.load(Acquire), Release);
        w.role.store(role, Release);
        let argument = slot as u64 | u64::from(generation) << 16;
        if !process::start("pgflow worker", "pgflow worker", "pgflow_worker_main", argument) {
            w.set_state(WorkerState::Free);
            return false;
        }
        let asked = crate::store::now();
        let new = Slot {
            role,
            pool: None,
            lane: None,
            handed: VecDeque::new(),
            tail: 0,
            asked,
            gone_since: None,
            cancel: None,
        };
        self.mine.insert(slot, new);
        true
    }

    /// Asks an idle worker that serves another role or database to leave its place. Returns whether one was found.
    pub fn ask_to_yield(&self, role: u32) -> bool {
        let oid = self.database.oid.load(Acquire);
        let other = shared().workers().iter().find(|w| {
            w.state() == WorkerState::Ready
                && w.pending() == 0
                && !w.leave.load(Acquire)
                && (w.role.load(Acquire) != role || w.database.load(Acquire) != oid)
        });
        if let Some(w) = other {
            w.leave.store(true, Release);
            w.process.wake();
        }
        other.is_some()
    }

    /// A worker of the role that has most takes nothing more and ends when it is done, to make room for another role.
    pub fn release_one(&self) {
        let leaving = self.mine.keys().any(|i| worker(*i).leave.load(Acquire));
        let most = self.mine.iter().filter(|(i, _)| takes_more(worker(**i))).max_by_key(|(_, s)| self.of_role(s.role));
        if let Some((i, _)) = most.filter(|_| !leaving) {
            worker(*i).leave.store(true, Release);
            worker(*i).process.wake();
        }
    }

    /// Takes back everything that has not begun.
    pub fn revoke_all(&self) {
        for (i, s) in &self.mine {
            for h in &s.handed {
                let state = &worker(*i).entry(h.position).state;
                let _ = state.compare_exchange(ASSIGNED, REVOKED, AcqRel, Acquire);
            }
        }
    }

    /// Notes what a worker is to be handed once the marks are committed.
    pub fn hand(&mut self, slot: usize, lane: usize, pool: usize, tasks: &[(i64, i32)], claim: i64, pools: &mut Pools) {
        let Some(s) = self.mine.get_mut(&slot) else { return };
        let w = worker(slot);
        for &(task_id, attempt) in tasks {
            let entry = w.entry(s.tail);
            entry.task_id.store(task_id, Release);
            entry.attempt.store(attempt, Release);
            entry.state.store(ASSIGNED, Release);
            s.handed.push_back(Handed { task_id, attempt, position: s.tail, claim });
            s.tail += 1;
        }
        s.lane = Some(lane);
        if s.pool.is_none() {
            s.pool = Some(pool);
            pools.hold(pool);
        }
        *self.claims.entry(claim).or_default() += tasks.len();
        self.dirty.push(slot);
    }

    /// Room in a worker's queue of assignments.
    pub fn room(&self, slot: usize) -> usize {
        let Some(s) = self.mine.get(&slot) else { return 0 };
        QUEUE - (s.tail - worker(slot).head.load(Acquire)) as usize
    }

    /// Tells workers what they were handed.
    pub fn publish(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            if let Some(s) = self.mine.get(&slot) {
                worker(slot).tail.store(s.tail, Release);
                worker(slot).process.wake();
            }
        }
    }

    /// Running tasks whose time is up and that are not being cancelled yet: (slot, task).
    pub fn late(&self, now: i64) -> Vec<(usize, i64)> {
        self.mine
            .iter()
            .filter_map(|(i, s)| {
                let w = worker(*i);
                let (task_id, deadline) = (w.task_id.load(Acquire), w.deadline.load(Acquire));
                let is_late = task_id != 0 && deadline != 0 && deadline <= now;
                let cancelling = s.cancel.as_ref().is_some_and(|c| c.task_id == task_id);
                (is_late && !cancelling).then_some((*i, task_id))
            })
            .collect()
    }

    /// Stops a task that a worker holds: its statement is cancelled, or it is taken back if it has not begun.
    pub fn cancel(&mut self, slot: usize, task_id: i64) {
        let Some(s) = self.mine.get_mut(&slot) else { return };
        let w = worker(slot);
        let Some(h) = s.handed.iter().find(|h| h.task_id == task_id) else { return };
        if w.entry(h.position).state.compare_exchange(ASSIGNED, REVOKED, AcqRel, Acquire).is_ok() {
            // The worker skips it, and reports nothing.
            return;
        }
        // The worker may have gone on to this one after it was asked to stop another, whose report is still to be heard. As long
        // as that one is not over, the two share a transaction, which is being cancelled.
        let is_over = |before: &Cancel| {
            let before = s.handed.iter().find(|h| h.task_id == before.task_id);
            before.is_none_or(|h| !matches!(w.entry(h.position).state.load(Acquire), STARTED | PENDING))
        };
        if s.cancel.as_ref().is_none_or(is_over) {
            let now = crate::store::now();
            s.cancel = Some(Cancel { task_id, since: now, again: now });
            send_cancel(w, task_id);
        }
    }

    /// Asks again where a callback has trapped its cancel; ends workers whose grace has passed.
    pub fn insist(&mut self) {
        let now = crate::store::now();
        for (i, s) in &mut self.mine {
            let Some(cancel) = &mut s.cancel else { continue };
            let w = worker(*i);
            if now - cancel.since > settings::cancel_grace_ms() * 1000 {
                signal(w.process.pid(), libc::SIGTERM);
                cancel.since = now;
            } else if now - cancel.again > CANCEL_AGAIN {
                send_cancel(w, cancel.task_id);
                cancel.again = now;
            }
        }
    }

    /// Takes back tasks that wait behind a long one, where another worker could run them: one idles, or may be started
    /// (`at_most` a role).
    pub fn steal(&mut self, at_most: usize, pools: &mut Pools, finished_claims: &mut Vec<i64>) -> Vec<(i64, i32)> {
        let now = crate::store::now();
        let mut stolen = Vec::new();
        let slots: Vec<(usize, u32)> = self.mine.iter().map(|(i, s)| (*i, s.role)).collect();
        for (i, role) in slots {
            let w = worker(i);
            let has_room = self.mine.get(&i).and_then(|s| s.pool).is_some_and(|pool| pools.free(pool) > 0);
            let has_worker = !self.idle(role).is_empty() || self.of_role(role) < at_most;
            if !(is_long(w, now) && has_room && has_worker) {
                continue;
            }
            let mut at = 0;
            while let Some(h) = self.mine.get(&i).and_then(|s| s.handed.get(at)).copied() {
                if w.entry(h.position).state.compare_exchange(ASSIGNED, REVOKED, AcqRel, Acquire).is_ok() {
                    stolen.push((h.task_id, h.attempt));
                    self.drop_handed(i, at, pools, finished_claims);
                } else {
                    at += 1;
                }
            }
        }
        stolen
    }

    /// Forgets what workers have passed, whether they could report it or not; returns the tasks.
    pub fn forget_done(&mut self, pools: &mut Pools, finished_claims: &mut Vec<i64>) -> Vec<i64> {
        let mut done = Vec::new();
        let slots: Vec<usize> = self.mine.keys().copied().collect();
        for i in slots {
            let head = worker(i).head.load(Acquire);
            while let Some(h) = self.mine.get(&i).and_then(|s| s.handed.front()).copied().filter(|h| h.position < head)
            {
                done.push(h.task_id);
                self.drop_handed(i, 0, pools, finished_claims);
            }
        }
        done
    }

    /// Entries that were taken or given back are no longer held: (task, attempt).
    pub fn drop_revoked(&mut self, pools: &mut Pools, finished_claims: &mut Vec<i64>) -> Vec<(i64, i32)> {
        let mut back = Vec::new();
        let slots: Vec<usize> = self.mine.keys().copied().collect();
        for i in slots {
            let w = worker(i);
            let mut at = 0;
            while let Some(h) = self.mine.get(&i).and_then(|s| s.handed.get(at)).copied() {
                if w.entry(h.position).state.load(Acquire) == REVOKED {
                    back.push((h.task_id, h.attempt));
                    self.drop_handed(i, at, pools, finished_claims);
                } else {
                    at += 1;
                }
            }
        }
        back
    }

    /// When the dispatcher must look at its workers again without being woken.
    pub fn next_look(&self, now: i64) -> i64 {
        let mut next = i64::MAX;
        for (i, s) in &self.mine {
            let w = worker(*i);
            if s.cancel.is_some() {
                next = next.min(now + CANCEL_AGAIN / 4);
            } else {
                let deadline = w.deadline.load(Acquire);
                if deadline != 0 && w.task_id.load(Acquire) != 0 {
                    next = next.min(deadline.max(now + 10_000));
                }
            }
            if s.handed.len() > 1 {
                next = next.min(now + STEAL_AFTER);
            }
            if let Some(since) = s.gone_since {
                next = next.min(since + SETTLE_AFTER);
            }
            if w.state() == WorkerState::Starting {
                next = next.min(s.asked + START_TIMEOUT);
            }
        }
        next.min(self.pause_ends().unwrap_or(i64::MAX))
    }

    /// Ends every worker of this database.
    pub fn dismiss(&mut self) {
        for i in self.mine.keys() {
            worker(*i).dismissed.store(true, Release);
            signal(worker(*i).process.pid(), libc::SIGTERM);
        }
    }
}

/// Whether a worker is there and is not to leave.
fn takes_more(w: &Worker) -> bool {
    w.state() == WorkerState::Ready && !w.leave.load(Acquire)
}

/// Whether what a worker runs takes so long that nothing should wait behind it.
fn is_long(w: &Worker, now: i64) -> bool {
    w.task_id.load(Acquire) != 0 && now - w.started.load(Acquire) > STEAL_AFTER
}

fn send_cancel(w: &Worker, task_id: i64) {
    w.cancel.store(task_id, Release);
    signal(w.process.pid(), libc::SIGINT);
}
