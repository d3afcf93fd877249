//! The dispatcher's beginning and end: who it may work for, what was running when it was not there, and the memory made
//! anew from the tables.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering::*};

use pgflow_core::queue::{Range, State, Task};
use pgrx::pg_sys;

use super::{Dispatcher, Due, LOCKED};
use crate::engine::events::Event;
use crate::engine::process;
use crate::engine::stop_points::{self, Point};
use crate::store::dispatcher as store;

/// After a crash marks are written durably for this long (microseconds).
const CAREFUL: i64 = 60_000_000;

static STOP: AtomicBool = AtomicBool::new(false);

/// SIGTERM ends the dispatcher between two cycles, so that it can say that it stopped cleanly.
pub fn install_stop_signal() {
    process::standard_signals_but(on_stop);
}

unsafe extern "C-unwind" fn on_stop(_: i32) {
    STOP.store(true, Release);
    process::wake_self();
}

pub fn stop_asked() -> bool {
    STOP.load(Acquire)
}

fn system_identifier() -> i64 {
    // SAFETY: reads the control data that every process has.
    unsafe { pg_sys::GetSystemIdentifier() as i64 }
}

impl Dispatcher {
    /// From the tables and the workers that are there to a memory that is true.
    pub(super) fn recover(&mut self) {
        self.database.last_error.set("");
        self.extension = crate::store::transaction(crate::store::extension_oid);
        let state = crate::store::transaction(store::engine_state);
        // From now on events are queued; what was committed before is read from the tables below.
        while let Some(event) = self.database.ring().pop() {
            self.spoken_to |= !matches!(Event::unpack(event), None | Some(Event::Settings));
        }
        self.database.rebuild.store(false, Release);
        self.database.attached.store(true, Release);
        stop_points::begin(Point::DispatcherRecovery);
        self.db();
        self.read_settings();
        let adopted_workers = self.slots.adopt();
        if self.adopted {
            crate::store::remote::resume_deletions();
            self.settle_claims(state.clean_stop);
            self.mark_running();
            if !state.clean_stop {
                self.careful_until = crate::store::now() + CAREFUL;
            }
        }
        for (slot, handed) in adopted_workers {
            self.take_over(slot, &handed);
        }
        self.end_transaction();
        stop_points::end();
        stop_points::pass(Point::DispatcherRecovered);
        self.rebuild();
    }

    /// Tasks that a worker of an earlier dispatcher still holds.
    fn take_over(&mut self, slot: usize, handed: &[(i64, i32)]) {
        for row in store::look(handed.iter().map(|h| h.0).collect()) {
            let lane = {
                let key = self.key(&row);
                self.queue.lane_of(key)
            };
            let Some(&(task_id, attempt)) = handed.iter().find(|h| h.0 == row.task_id) else { continue };
            let node = (row.flow_id, row.node_no);
            self.queue.adopt(task_id, Task { node, is_step: row.is_step, lane, attempt, state: State::Assigned(slot) });
            let pool = self.queue.lane(lane).key.pool;
            self.slots.place(slot, lane, pool, &mut self.pools);
            if row.ended {
                self.touched.push(task_id);
            }
        }
    }

    /// Marks whose tasks no worker holds are attempts that were lost. After a crash all of them are suspects; one that
    /// was alone is charged.
    fn settle_claims(&mut self, clean_stop: bool) {
        let claims = store::claims();
        if claims.is_empty() {
            return;
        }
        let mut lost = Vec::new();
        for (_, task_id, attempt, alone) in &claims {
            if !self.slots.holds(*task_id, *attempt) {
                lost.push((*task_id, *attempt, *alone && !clean_stop));
            }
        }
        let reason = if clean_stop { "the server or the dispatcher was stopped" } else { "the server died" };
        for chunk in lost.chunks(1000) {
            self.lose(chunk, !clean_stop, reason);
        }
        // Marks of tasks that workers still hold stay until the next start: they cost nothing and say the truth.
        // So do those whose loss could not be written yet.
        let is_kept = |c: &&(i64, i64, i32, bool)| self.slots.holds(c.1, c.2) || self.unsettled.contains_key(&c.1);
        let held: Vec<i64> = claims.iter().filter(is_kept).map(|c| c.0).collect();
        store::delete_claims(claims.iter().map(|c| c.0).filter(|c| !held.contains(c)).collect());
    }

    /// Accounts for lost attempts (task, attempt, charged). What a client has locked is accounted for later, and does not run
    /// before that: nobody would know that it may have been done.
    fn lose(&mut self, lost: &[(i64, i32, bool)], suspect: bool, reason: &'static str) {
        for (task_id, ended) in store::lose_attempts(lost, suspect, reason) {
            self.unsettled.remove(&task_id);
            if ended {
                self.touched.push(task_id);
            }
        }
        let open = store::look(lost.iter().map(|l| l.0).collect());
        for &(task_id, attempt, charged) in lost {
            if open.iter().any(|t| t.task_id == task_id && !t.ended && t.attempt == attempt - 1) {
                self.unsettled.insert(task_id, (attempt, charged, suspect, reason));
                self.remind(crate::store::now() + LOCKED, Due::Look);
            } else if self.unsettled.remove(&task_id).is_some() {
                self.touched.push(task_id);
            }
        }
    }

    /// What could not be accounted for because a client had it locked.
    pub(super) fn lose_again(&mut self) {
        for (task_id, (attempt, charged, suspect, reason)) in self.unsettled.clone() {
            self.db();
            self.lose(&[(task_id, attempt, charged)], suspect, reason);
            if !self.unsettled.contains_key(&task_id) {
                self.touched.push(task_id);
            }
        }
    }

    /// Reads targets, pools and switches; sizes hold at once.
    pub(super) fn read_settings(&mut self) {
        self.db();
        let settings = store::settings();
        self.pools.configure(&settings);
        let another_engine = self.remote.configured();
        self.paused = settings.paused;
        self.workers_at_most = settings.workers.unwrap_or_else(crate::settings::workers);
        let state = store::engine_state();
        // SAFETY: reading a process-global OID.
        let here = unsafe { pg_sys::MyDatabaseId };
        let was_adopted = self.adopted;
        self.adopted = match (state.system_identifier, state.database_oid) {
            (Some(id), Some(oid)) => id == system_identifier() && oid == here,
            // Nothing has run here yet. Rows may be those of a dump that is being restored, whose own identity is still to
            // come: they count once somebody has called us, which a restore does not.
            _ => self.spoken_to,
        };
        // What was known before, perhaps while a dump was being restored, does not count.
        if another_engine {
            self.unsettled.clear();
            self.database.rebuild.store(true, Release);
        }
        if !self.adopted {
            if state.system_identifier.is_some() || store::any_open_task() {
                self.database.last_error.set(
                    "this database was copied or restored: nothing runs until SELECT async.adopt() says that it may",
                );
            }
        } else if !was_adopted {
            self.database.last_error.set("");
        }
        if self.adopted != was_adopted {
            self.database.rebuild.store(true, Release);
        }
    }

    /// Makes the memory anew from the tables, but for what workers hold.
    pub(super) fn rebuild(&mut self) {
        self.db();
        // Reports may be among the events that were lost: what workers are done with is not with them any more.
        for task_id in self.slots.forget_done(&mut self.pools, &mut self.finished_claims) {
            self.queue.forget(task_id);
        }
        self.queue.clear();
        self.ranges.clear();
        self.due.clear();
        self.reminders.clear();
        self.suspects.clear();
        self.pools.forget_yielded();
        // The tables of a copy may be half loaded: nothing is concluded from them.
        if !self.adopted {
            self.candidates.clear();
            self.touched.clear();
            self.changed_runs.clear();
            self.end_transaction();
            return;
        }
        self.look_for_expiry();
        if !self.unsettled.is_empty() {
            self.remind(crate::store::now() + LOCKED, Due::Look);
        }
        let low = store::engine_state().open_low;
        for (flow_id, node_no, low, high) in store::open_ranges(low) {
            self.ranges.push(Range { low, high, flow_id, node_no });
        }
        // Somebody may have ended what runs.
        self.touched.extend(self.queue.find(|task| task.is_handed_out()));
        self.parents.extend(store::children_that_ended());
        if !self.parents.is_empty() {
            self.remind(crate::store::now(), Due::Look);
        }
        for (flow_id, node_no, times_up) in store::open_nodes(None) {
            self.candidates.entry((flow_id, node_no)).or_default();
            if let Some(at) = times_up {
                self.remind(at, Due::Node(flow_id, node_no));
            }
        }
        self.end_transaction();
    }

    /// Settles what workers that are gone have left.
    pub(super) fn reap(&mut self) -> bool {
        // The server stops, and workers with it: what they ran is for the next start, without suspicion.
        if stop_asked() {
            return false;
        }
        let all = self.slots.gone(&mut self.pools, &mut self.finished_claims);
        let any = !all.is_empty();
        for left in all {
            if left.never_started && left.lost.is_empty() {
                self.database.last_error.set(&format!(
                    "a worker of role {} could not start: see the server's log (may it log in and connect?)",
                    left.role
                ));
                // Its tasks are looked at again: they fail if the role is gone or may not log in.
                let queue = &self.queue;
                let waiting = queue.find(|t| t.state == State::Queued && queue.lane(t.lane).key.role == left.role);
                self.touched.extend(waiting);
            }
            for (task_id, attempt) in left.unstarted {
                self.queue.requeue(task_id, attempt);
            }
            for (task_id, attempt) in left.unknown {
                // No worker has it any more, whatever its row says.
                self.queue.wait(task_id, attempt);
                self.touched.push(task_id);
            }
            if !left.lost.is_empty() {
                self.db();
                let lost: Vec<_> = left.lost.iter().map(|l| (l.0, l.1, !left.dismissed)).collect();
                self.lose(&lost, false, "its worker was terminated");
                for (task_id, attempt) in left.lost {
                    self.suspects.retain(|s| *s != task_id);
                    self.queue.wait(task_id, attempt + 1);
                    self.touched.push(task_id);
                }
            }
        }
        any
    }

    /// The server stops: say that it was in order.
    pub(super) fn stop(&mut self) {
        // What runs elsewhere is stopped there as well as can be; the next start looks what became of it.
        self.remote.end();
        // Workers are told by the postmaster too; what they hold is lost in order, not in a crash.
        if self.adopted {
            self.mark_clean();
        }
    }

    /// engine_state says that work may be under way, unless a client has it locked: then later.
    pub(super) fn mark_running(&mut self) {
        if !self.marked {
            // SAFETY: reading a process-global OID.
            let here = unsafe { pg_sys::MyDatabaseId };
            self.marked = store::set_engine_state(system_identifier(), here, false);
        }
    }

    fn mark_clean(&mut self) {
        // SAFETY: reading a process-global OID.
        let here = unsafe { pg_sys::MyDatabaseId };
        super::set(c"synchronous_commit", c"on");
        crate::store::transaction(|| store::set_engine_state(system_identifier(), here, true));
    }
}
