//! The dispatcher of a database: takes events, keeps the queue in memory true to the tables, lets the cascade decide, and
//! hands tasks to workers.
//!
//! It runs as the bootstrap superuser and therefore never calls anything of a user's: no routine, trigger, cast or output
//! function. It never waits for a client's lock. Each cycle is one transaction, committed asynchronously: what it writes
//! can be derived again from what workers and clients have committed.
#![allow(unsafe_code)]

mod assign;
mod decide;
mod elsewhere;
mod intake;
mod jobs;
mod pools;
mod recovery;
mod remote;
mod results;
mod slots;

pub use recovery::stop_asked;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::atomic::{fence, Ordering::*};

use pgflow_core::queue::{Queue, Range};
use pgrx::pg_sys;

use super::events::{Event, Outcome};
use super::process;
use super::shmem::{shared, Database, DatabaseState};
use super::stop_points::{self, Point};
use crate::settings;
use crate::store::dispatcher as store;
use pools::Pools;
use remote::{Landed, Remote};
use slots::Slots;

/// Events taken in one cycle.
const EVENTS: usize = 4096;
/// Candidates settled in one cycle.
const CANDIDATES: usize = 1000;
/// A locked row is looked at again after this long even if nobody says so (microseconds).
const RETRY: i64 = 1_000_000;
/// Rows of attempts that a client has locked, and places that other databases hold, are looked at again after this long
/// (microseconds).
const LOCKED: i64 = 100_000;
/// How often the tables are compared with the memory while work is open (microseconds).
const SWEEP: i64 = 60_000_000;

/// Something to do at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Due {
    /// A task that was put off is eligible, or a yielded or leased one's time is up.
    Task(i64),
    /// A node with open steps has its time-out.
    Node(i64, i32),
    /// A result or an execution is over.
    Expiry,
    /// Nothing in particular: look at what was locked, at workers that were asked to end.
    Look,
}

pub(super) struct Dispatcher {
    database: &'static Database,
    /// The installation of the extension that this dispatcher serves.
    extension: Option<pg_sys::Oid>,
    queue: Queue,
    slots: Slots,
    remote: Remote,
    /// Ends of attempts elsewhere whose rows a client has locked.
    unwritten: Vec<Landed>,
    /// Attempts that were lost and whose rows a client has locked: (attempt, charged, suspect, why) by task.
    unsettled: HashMap<i64, (i32, bool, bool, &'static str)>,
    /// When `unwritten` is tried again.
    unwritten_at: i64,
    pools: Pools,
    /// Nodes that may have ended, with a failed step if that is why.
    candidates: HashMap<(i64, i32), Option<i64>>,
    /// Nodes whose rows a client has locked.
    locked: HashSet<(i64, i32)>,
    ranges: Vec<Range>,
    /// Tasks that somebody else changed: to be read anew.
    touched: Vec<i64>,
    changed_runs: HashSet<i64>,
    due: BinaryHeap<Reverse<(i64, Due)>>,
    /// The earliest time each is due, so that none is queued twice.
    reminders: HashMap<Due, i64>,
    /// Ended child runs whose parent's step could not be ended: a client has it locked.
    parents: HashSet<i64>,
    /// engine_state says that this dispatcher runs.
    marked: bool,
    suspects: Vec<i64>,
    /// Until when marks are written durably, after a crash.
    careful_until: i64,
    /// Until when a suspect runs with nothing beside it.
    quarantine_until: i64,
    workers_at_most: usize,
    finished_claims: Vec<i64>,
    paused: bool,
    /// The work in this database's tables is its own, and may run here.
    adopted: bool,
    /// A session of this database has called us since this dispatcher began.
    spoken_to: bool,
    /// What was handed out last takes no longer than to fall asleep and be woken.
    ends_soon: bool,
    next_purge: i64,
    next_sweep: i64,
    /// While the tables are compared with the memory: what was known before, and what was found.
    sweep: Option<(HashSet<i64>, usize)>,
    /// Something has happened since it was last certain that no run is open.
    maybe_open: bool,
    /// Tasks of some role waited for a worker when last looked at; the views say so.
    starving: bool,
    /// A run has ended or was changed: whoever waits is to look.
    run_changed: bool,
    in_transaction: bool,
    /// The cycle's transaction must be on disk before anybody acts on it.
    durable: bool,
}

/// Entry point; the argument is the database's OID.
#[no_mangle]
#[pgrx::pg_guard]
pub extern "C-unwind" fn pgflow_dispatcher_main(argument: pg_sys::Datum) {
    let oid = pg_sys::Oid::from(argument.value() as u32);
    let Some(database) = shared().database(oid) else { return };
    // SAFETY: a plain function; installed before signals are unblocked.
    unsafe {
        pg_sys::before_shmem_exit(Some(at_exit), argument);
    }
    recovery::install_stop_signal();
    database.dispatcher.enter();
    // SAFETY: connects as the bootstrap superuser, as every worker without a user name does.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(oid, pg_sys::Oid::INVALID, 0) };
    prepare_session();
    // What is looked at from here on is what the last one to set it meant.
    database.check_extension.store(false, Release);
    if crate::store::transaction(crate::store::extension_owner).is_none() {
        end_as(database, DatabaseState::Starting, DatabaseState::Absent);
        return;
    }
    if let Some(why) = crate::store::transaction(crate::version::mismatch) {
        be_of_another_version(database, DatabaseState::Starting, &why);
        return;
    }
    if !database.change_state(DatabaseState::Starting, DatabaseState::Running) {
        return;
    }
    // The launcher need not look whether this one has come up.
    shared().launcher.wake();
    Dispatcher::new(database).serve();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, argument: pg_sys::Datum) {
    remote::detach();
    let Some(database) = shared().database(pg_sys::Oid::from(argument.value() as u32)) else { return };
    // The places of what ran elsewhere are for others.
    let oid = argument.value() as u32;
    shared().remotes().iter().filter(|r| r.database.load(Acquire) == oid).for_each(|r| r.free());
    database.attached.store(false, Release);
    database.dispatcher.leave();
    for from in [DatabaseState::Starting, DatabaseState::Running] {
        if database.change_state(from, DatabaseState::Failed) {
            break;
        }
    }
    shared().launcher_wanted.store(true, Release);
    shared().launcher.wake();
}

/// The extension is of another version than this library: nothing of it is read or written. `ALTER EXTENSION` has the
/// launcher look again.
fn be_of_another_version(database: &Database, from: DatabaseState, why: &str) {
    pgrx::warning!("pgflow: nothing runs in database {}: {why}", database.oid.load(Acquire));
    database.last_error.set(why);
    end_as(database, from, DatabaseState::Mismatched);
}

/// Nothing is to be done here, unless the extension was created or updated since that was found.
fn end_as(database: &Database, from: DatabaseState, to: DatabaseState) {
    database.change_state(from, to);
    if database.check_extension.load(Acquire) {
        database.change_state(to, DatabaseState::Unknown);
    }
}

/// Settings of the process: nothing of what a role or database sets may decide how bookkeeping runs.
fn prepare_session() {
    for (name, value) in [
        (c"synchronous_commit", c"off"),
        (c"lock_timeout", c"10s"),
        (c"statement_timeout", c"0"),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"default_transaction_read_only", c"off"),
        (c"default_transaction_isolation", c"read committed"),
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"jit", c"off"),
        (c"max_parallel_workers_per_gather", c"0"),
        (c"row_security", c"off"),
    ] {
        set(name, value);
    }
}

fn set(name: &std::ffi::CStr, value: &std::ffi::CStr) {
    // SAFETY: both are zero-terminated; the values are valid for their settings.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        )
    }
}

impl Dispatcher {
    fn new(database: &'static Database) -> Self {
        Dispatcher {
            database,
            extension: None,
            queue: Queue::default(),
            slots: Slots::new(database),
            remote: Remote::new(database),
            unwritten: Vec::new(),
            unsettled: HashMap::new(),
            unwritten_at: 0,
            pools: Pools::default(),
            candidates: HashMap::new(),
            locked: HashSet::new(),
            ranges: Vec::new(),
            touched: Vec::new(),
            changed_runs: HashSet::new(),
            due: BinaryHeap::new(),
            reminders: HashMap::new(),
            parents: HashSet::new(),
            marked: false,
            suspects: Vec::new(),
            careful_until: 0,
            quarantine_until: 0,
            workers_at_most: settings::workers(),
            finished_claims: Vec::new(),
            paused: false,
            adopted: false,
            spoken_to: false,
            ends_soon: false,
            next_purge: 0,
            next_sweep: 0,
            sweep: None,
            maybe_open: true,
            starving: false,
            run_changed: false,
            in_transaction: false,
            durable: false,
        }
    }

    fn serve(&mut self) {
        stop_points::pass(Point::DispatcherBegins);
        self.recover();
        loop {
            if recovery::stop_asked() {
                self.stop();
                return;
            }
            if self.database.check_extension.swap(false, AcqRel) {
                let now = crate::store::transaction(crate::store::extension_oid);
                if let Some(why) = crate::store::transaction(crate::version::mismatch) {
                    self.slots.dismiss();
                    be_of_another_version(self.database, DatabaseState::Running, &why);
                    return;
                }
                if now != self.extension {
                    self.slots.dismiss();
                    let gone = now.is_none();
                    self.database.set_state(if gone { DatabaseState::Absent } else { DatabaseState::Unknown });
                    return;
                }
            }
            let wakes = self.database.dispatcher.wakes();
            let worked = self.cycle();
            if !worked && self.database.ring().is_empty() && !self.has_work() && !self.hears_soon(wakes) {
                self.sleep(wakes);
            }
        }
    }

    /// One round: everything that has arrived, in one transaction. Returns whether anything was done.
    fn cycle(&mut self) -> bool {
        if self.database.rebuild.swap(false, AcqRel) {
            // Among the events that were lost may have been that work is to go on, or another size of a pool.
            self.read_settings();
            self.rebuild();
        }
        let events = self.take_events();
        if self.database.wants_executor.swap(false, AcqRel) {
            self.remote.listen();
        }
        let reports = self.take_reports();
        let left = self.reap();
        stop_points::pass(Point::DispatcherHeard);
        if !self.adopted {
            self.end_transaction();
            return events || reports || left;
        }
        let due = self.take_due();
        self.sweep_and_purge(events || reports || left || due);
        self.look_at_runs();
        self.look_at_touched();
        self.load_ranges();
        self.settle();
        self.time_out();
        self.look_at_targets();
        let assigned = self.assign();
        self.tidy_claims(assigned);
        let worked = events || reports || left || due || assigned;
        self.maybe_open |= worked;
        self.end_transaction();
        stop_points::pass(Point::DispatcherCommitted);
        self.end_sweep();
        self.slots.publish();
        stop_points::pass(Point::DispatcherTold);
        self.remote.send();
        if worked {
            self.pools.publish(self.database, &self.queue, &self.slots, &self.remote);
            if std::mem::take(&mut self.run_changed) || !(self.slots.busy() || self.remote.busy()) {
                self.database.announce_change();
            }
        }
        worked
    }

    fn has_work(&self) -> bool {
        !self.candidates.is_empty()
            || !self.ranges.is_empty()
            || !self.touched.is_empty()
            || !self.changed_runs.is_empty()
            || self.queue.wants_range()
            || self.remote.has_report()
            || self.database.rebuild.load(Acquire)
    }

    /// Begins the cycle's transaction if it has none yet.
    fn db(&mut self) {
        if !self.in_transaction {
            // SAFETY: between transactions; ended by `end_transaction`. What raises in between ends the process.
            unsafe {
                pg_sys::SetCurrentStatementStartTimestamp();
                pg_sys::StartTransactionCommand();
                pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
                pg_sys::SPI_connect();
            }
            self.in_transaction = true;
        }
    }

    fn end_transaction(&mut self) {
        if self.in_transaction {
            let durable = std::mem::take(&mut self.durable);
            if durable {
                set(c"synchronous_commit", c"on");
            }
            // SAFETY: pairs with `db`.
            unsafe {
                pg_sys::SPI_finish();
                pg_sys::PopActiveSnapshot();
                pg_sys::CommitTransactionCommand();
                pg_sys::pgstat_report_stat(false);
            }
            if durable {
                set(c"synchronous_commit", c"off");
            }
            self.in_transaction = false;
        }
    }

    fn take_events(&mut self) -> bool {
        let ring = self.database.ring();
        let mut any = false;
        for _ in 0..EVENTS {
            let Some(event) = ring.pop() else { break };
            any = true;
            let event = Event::unpack(event);
            if !self.adopted {
                self.hear(event);
                continue;
            }
            match event {
                Some(Event::Arrived { low, high, flow_id, node_no }) => {
                    self.ranges.push(Range { low, high, flow_id, node_no });
                    self.look_again_at(flow_id, node_no);
                }
                Some(Event::Ended { task_id, attempt, outcome, microseconds }) => {
                    self.ended(task_id, attempt, outcome, microseconds);
                }
                Some(Event::Touched { task_id }) => self.touched.push(task_id),
                Some(Event::Released { flow_id, node_no }) => self.look_again_at(flow_id, node_no),
                Some(Event::Run { flow_id }) => {
                    self.changed_runs.insert(flow_id);
                    self.run_changed = true;
                }
                Some(Event::Settings) => {
                    self.read_settings();
                    // A result may have been dropped.
                    self.look_for_expiry();
                }
                Some(Event::Rebuild) => self.database.rebuild.store(true, Release),
                None => pgrx::warning!("pgflow: an event of an unknown kind"),
            }
        }
        any
    }

    /// An event while nothing may run here. When that ends, everything is read from the tables.
    fn hear(&mut self, event: Option<Event>) {
        let settings = event == Some(Event::Settings);
        if settings || !std::mem::replace(&mut self.spoken_to, true) {
            self.read_settings();
        }
    }

    /// Does something at a time, or earlier if that was wanted already.
    fn remind(&mut self, at: i64, due: Due) {
        if self.reminders.get(&due).is_none_or(|before| at < *before) {
            self.reminders.insert(due, at);
            self.due.push(Reverse((at, due)));
        }
    }

    /// A lock that kept us from deciding about a node may be gone.
    fn look_again_at(&mut self, flow_id: i64, node_no: i32) {
        if self.locked.remove(&(flow_id, node_no)) {
            self.candidate(flow_id, node_no, None);
        }
    }

    fn candidate(&mut self, flow_id: i64, node_no: i32, failed: Option<i64>) {
        let entry = self.candidates.entry((flow_id, node_no)).or_default();
        *entry = entry.or(failed);
    }

    /// A worker has reported.
    fn ended(&mut self, task_id: i64, attempt: i32, outcome: Outcome, microseconds: u32) {
        self.slots.reported(task_id, attempt, &mut self.pools, &mut self.finished_claims);
        self.suspects.retain(|s| *s != task_id);
        self.database.tasks_done.fetch_add(1, Relaxed);
        let Some(task) = self.queue.task(task_id).copied() else { return };
        if task.attempt != attempt {
            return;
        }
        if matches!(outcome, Outcome::Finished | Outcome::Failed) {
            self.queue.learn(task.lane, microseconds);
        }
        match outcome {
            Outcome::Finished => self.forget(task_id, false),
            Outcome::Failed => self.forget(task_id, true),
            Outcome::Yielded | Outcome::Deferred => {
                self.queue.wait(task_id, attempt + 1);
                self.touched.push(task_id);
            }
            Outcome::Stale | Outcome::Prepared => {
                self.queue.wait(task_id, attempt);
                self.touched.push(task_id);
            }
            Outcome::Classified => {
                // The pool holds for every task of the node: they are queued anew.
                self.queue.wait(task_id, attempt);
                self.changed_runs.insert(task.node.0);
            }
        }
    }

    /// A task has ended: its node may have.
    fn forget(&mut self, task_id: i64, failed: bool) {
        let Some((task, last)) = self.queue.forget(task_id) else { return };
        let (flow_id, node_no) = task.node;
        if flow_id != 0 && (!task.is_step || failed || last) {
            self.candidate(flow_id, node_no, (failed && task.is_step).then_some(task_id));
        }
    }

    fn tidy_claims(&mut self, assigned: bool) {
        let enough = if assigned { 200 } else { 1 };
        if self.finished_claims.len() >= enough {
            self.db();
            store::delete_claims(std::mem::take(&mut self.finished_claims));
        }
    }

    fn sweep_and_purge(&mut self, active: bool) {
        let now = crate::store::now();
        if !active || now < self.next_purge {
            return;
        }
        self.next_purge = now + settings::purge_interval_ms() * 1000;
        self.db();
        if store::purge(1000) {
            self.next_purge = now;
        }
        store::raise_open_low();
        self.mark_running();
        self.look_for_expiry();
    }

    /// Whether any work is open, so that the tables are compared with the memory now and then.
    fn is_open(&mut self) -> bool {
        if !self.adopted {
            return false;
        }
        if self.queue.is_empty() && self.maybe_open {
            self.maybe_open = crate::store::transaction(store::any_open_run);
        }
        !self.queue.is_empty() || self.maybe_open
    }

    /// What the comparison has found nobody announced, which must not happen.
    fn end_sweep(&mut self) {
        if let Some((_, found)) = self.sweep.take().filter(|s| s.1 > 0) {
            pgrx::warning!("pgflow: {found} tasks were ready and nobody had said so; this is a bug of pgflow");
        }
    }

    /// What was handed out last is all there is, and is about to be done: the next hop waits for nothing but this. While more
    /// is waiting, workers have enough to do, and the processor is theirs.
    fn hears_soon(&mut self, wakes: u64) -> bool {
        let (database, is_soon) = (self.database, std::mem::take(&mut self.ends_soon));
        is_soon
            && self.queue.waiting() == (0, false)
            && process::watch(|| !database.ring().is_empty() || database.dispatcher.wakes() != wakes)
    }

    /// Sleeps until an event or the next time to do something.
    /// `wakes`: the count before the cycle that found nothing to do.
    fn sleep(&mut self, wakes: u64) {
        let now = crate::store::now();
        let open = self.is_open();
        if open && now >= self.next_sweep {
            if self.next_sweep != 0 {
                self.sweep = Some((self.queue.find(|_| true).into_iter().collect(), 0));
                self.rebuild();
                self.next_sweep = now + SWEEP;
                return;
            }
            self.next_sweep = now + SWEEP;
        } else if !open {
            self.next_sweep = 0;
        }
        let mut next = i64::MAX;
        if self.adopted {
            next = self.due.peek().map_or(i64::MAX, |Reverse((at, _))| *at);
            next = next.min(self.slots.next_look(now));
            if !self.unwritten.is_empty() {
                next = next.min(self.unwritten_at);
            }
            if open {
                next = next.min(self.next_sweep);
            }
        }
        self.database.next_wake.store(next, Release);
        fence(SeqCst);
        if self.adopted {
            // A deadline that a worker set before it could see the new time is found now.
            next = next.min(self.slots.next_look(now));
        }
        process::report_activity(None);
        if self.database.dispatcher.wakes() == wakes && !recovery::stop_asked() {
            let wait = if next == i64::MAX { -1 } else { ((next - now) / 1000 + 1).clamp(0, 3_600_000) };
            process::sleep(wait);
        }
        self.database.next_wake.store(i64::MIN, Release);
    }
}
