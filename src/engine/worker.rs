//! The local worker: takes the tasks its dispatcher assigns, runs each in a transaction of its own, writes the outcome
//! into that same transaction, and reports.
//!
//! The process is connected as the role that the tasks run as. Bookkeeping runs with the rights of the extension's owner,
//! around the callback and never during it: before the switch, deferred triggers have fired and cursors are closed.
#![allow(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::sync::atomic::{fence, AtomicPtr, Ordering::*};

use pgflow_executor::bridge::Broken;
use pgrx::pg_sys;

use super::bridge;
use super::callback;
use super::events::{Event, Outcome};
use super::kept_rows;
use super::notices;
use super::own_task::{self, Attempt, Decision};
use super::process;
use super::session;
use super::shared_steps;
use super::shmem::{my_database, shared, DatabaseState, Worker, WorkerState, ASSIGNED, DONE, REVOKED, STARTED};
use super::stop_points::{self, Point};
use crate::settings;
use crate::store::remote;
use crate::store::worker::{self as store, Details, What};

/// BGWORKER_BYPASS_ROLELOGINCHECK, from 17 on.
const BYPASS_ROLELOGINCHECK: u32 = 2;

static MY_SLOT: AtomicPtr<Worker> = AtomicPtr::new(std::ptr::null_mut());

/// In a worker: its slot.
pub fn my_slot() -> Option<&'static Worker> {
    // SAFETY: set once to a slot in shared memory, which outlives the process.
    unsafe { MY_SLOT.load(Acquire).as_ref() }
}

/// Entry point; the argument is the slot's number and, above 16 bits, its generation.
#[no_mangle]
#[pgrx::pg_guard]
pub extern "C-unwind" fn pgflow_worker_main(argument: pg_sys::Datum) {
    let (number, generation) = (argument.value() & 0xffff, (argument.value() >> 16) as u32);
    let Some(slot) = shared().workers().get(number) else { return };
    if slot.state() != WorkerState::Starting || slot.generation.load(Acquire) != generation {
        return;
    }
    MY_SLOT.store(slot as *const Worker as *mut Worker, Release);
    slot.process.enter();
    // SAFETY: the callback is a plain function; handlers are installed before signals are unblocked.
    unsafe {
        pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0));
        process::set_handler(libc::SIGINT, on_cancel);
    }
    process::standard_signals();
    // SAFETY: the dispatcher wrote both OIDs before it registered this process.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            pg_sys::Oid::from(slot.database.load(Acquire)),
            pg_sys::Oid::from(slot.role.load(Acquire)),
            if process::NOLOGIN_ROLES { BYPASS_ROLELOGINCHECK } else { 0 },
        );
    }
    let dismissed = my_database().is_none_or(|d| d.state() == DatabaseState::Dismissed);
    if dismissed || slot.dismissed.load(Acquire) {
        return;
    }
    let Some((owner, callback_type)) =
        crate::store::transaction(|| Some((crate::store::extension_owner()?, store::callback_type()?)))
    else {
        return;
    };
    super::announce::register();
    notices::init();
    let mut worker = Local { slot, owner, calls: callback::Calls::new(callback_type), memory: memory_context() };
    stop_points::pass(Point::WorkerBegins);
    slot.was_ready.store(true, Release);
    if !slot.change_state(WorkerState::Starting, WorkerState::Ready) {
        return;
    }
    wake_dispatcher();
    worker.serve();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _argument: pg_sys::Datum) {
    if let Some(slot) = my_slot() {
        slot.process.leave();
        slot.set_state(WorkerState::Gone);
        wake_dispatcher();
    }
}

fn wake_dispatcher() {
    match my_database() {
        Some(database) if database.dispatcher.pid() != 0 => database.dispatcher.wake(),
        // Nobody here settles what this worker leaves: the launcher frees its place.
        _ => {
            shared().launcher_wanted.store(true, Release);
            shared().launcher.wake();
        }
    }
}

/// SIGINT: cancels the statement that runs, unless the cancel was meant for a task that is over.
unsafe extern "C-unwind" fn on_cancel(_: i32) {
    let Some(slot) = MY_SLOT.load(Acquire).as_ref() else { return };
    // Each cancel is taken once: one that comes late, for a task that is over, must not hit the next.
    let (wanted, current) = (slot.cancel.swap(0, AcqRel), slot.task_id.load(Acquire));
    if current != 0 && (wanted == 0 || wanted == current) {
        pg_sys::InterruptPending = 1;
        pg_sys::QueryCancelPending = 1;
        process::wake_self();
    }
}

fn memory_context() -> pg_sys::MemoryContext {
    // SAFETY: a context below the top one, never deleted.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopMemoryContext,
            c"pgflow tasks".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    }
}

pub(super) struct Local {
    pub(super) slot: &'static Worker,
    owner: pg_sys::Oid,
    pub(super) calls: callback::Calls,
    /// What lives as long as a batch: arguments of its tasks.
    memory: pg_sys::MemoryContext,
}

/// A task that this worker was handed.
pub(super) struct Assigned {
    pub position: u64,
    pub attempt: Attempt,
    pub found: Found,
}

pub(super) enum Found {
    Open(Box<Details>),
    /// It has ended, or this attempt of it.
    Ended,
    Unreadable(String),
}

impl Assigned {
    pub fn details(&self) -> Option<&Details> {
        match &self.found {
            Found::Open(details) => Some(details),
            _ => None,
        }
    }
}

impl Local {
    /// Runs what is assigned until there was nothing for a while.
    fn serve(&mut self) {
        let mut idle_since = crate::store::now();
        let mut reported_idle = false;
        let mut follows_soon = false;
        loop {
            if self.slot.pending() > 0 {
                let began = crate::store::now();
                let came_soon = began - idle_since < 2 * process::SOON;
                self.run_batch();
                idle_since = crate::store::now();
                // Short tasks that follow each other are perhaps the hops of a chain.
                follows_soon = came_soon && idle_since - began < process::SOON;
                reported_idle = false;
                // SAFETY: between transactions; a no-op unless statistics are due.
                unsafe { pg_sys::pgstat_report_stat(false) };
                process::check_interrupts();
                continue;
            }
            if !reported_idle {
                // SAFETY: as above, forced.
                unsafe { pg_sys::pgstat_report_stat(true) };
                process::report_activity(None);
                reported_idle = true;
            }
            let idle = (crate::store::now() - idle_since) / 1000;
            let left = settings::worker_idle_ms() - idle;
            if (left <= 0 || self.slot.leave.load(Acquire)) && self.leave() {
                return;
            }
            let slot = self.slot;
            let has_more = std::mem::take(&mut follows_soon) && process::watch(|| slot.pending() > 0);
            if !has_more && slot.pending() == 0 {
                process::sleep(left.max(1));
            }
        }
    }

    /// Leaves, unless something was assigned meanwhile.
    fn leave(&self) -> bool {
        if !self.slot.change_state(WorkerState::Ready, WorkerState::Leaving) {
            return true;
        }
        if self.slot.pending() > 0 {
            self.slot.set_state(WorkerState::Ready);
            return false;
        }
        true
    }

    /// Reads what is assigned now, in one statement, and runs it in order.
    fn run_batch(&mut self) {
        let (head, tail) = (self.slot.head.load(Acquire), self.slot.tail.load(Acquire));
        let attempts = (head..tail).map(|p| self.slot.entry(p).attempt()).collect();
        let mut assigned = self.read(head, attempts);
        while let Some(first) = assigned.pop_front() {
            let company = shared_steps::company(&first, &assigned);
            let (next, failed) = if company == 0 {
                self.run_alone(&first)
            } else {
                let group: Vec<Assigned> = std::iter::once(first).chain(assigned.drain(..company)).collect();
                self.run_together(&group)
            };
            if failed {
                self.give_back(next..tail);
            }
            if outcome_wakes(self.slot) {
                wake_dispatcher();
            }
            process::check_interrupts();
        }
        // SAFETY: nothing of the batch is used any more.
        unsafe { pg_sys::MemoryContextReset(self.memory) };
    }

    /// What these attempts, handed out from this position on, are to do.
    pub(super) fn read(&self, from: u64, attempts: Vec<Attempt>) -> VecDeque<Assigned> {
        let (mut details, mut unreadable) = self.read_details(attempts.iter().map(|a| a.task_id).collect());
        details.reverse();
        let with_details = |(attempt, position): (Attempt, u64)| {
            let open = details.pop_if(|d| d.task_id == attempt.task_id).filter(|d| d.attempt == attempt.attempt);
            let found = match (open, unreadable.remove(&attempt.task_id)) {
                (Some(details), _) => Found::Open(Box::new(details)),
                (None, Some(error)) => Found::Unreadable(error),
                (None, None) => Found::Ended,
            };
            Assigned { position, attempt, found }
        };
        attempts.into_iter().zip(from..).map(with_details).collect()
    }

    /// Runs one task in a transaction of its own. Returns what comes next, and whether it failed.
    pub(super) fn run_alone(&mut self, task: &Assigned) -> (u64, bool) {
        let (entry, next) = (self.slot.entry(task.position), task.position + 1);
        let mut failed = false;
        if entry.state.compare_exchange(ASSIGNED, STARTED, AcqRel, Acquire).is_ok() {
            let from = crate::store::now();
            let outcome = match &task.found {
                Found::Open(details) => self.run(task.attempt, details, from),
                Found::Unreadable(error) => {
                    self.write_failure(task.attempt, true, from, format!("the task cannot be read: {error}"))
                }
                Found::Ended => Outcome::Stale,
            };
            let took = crate::store::now() - from;
            // Passed before it is reported: whoever takes the slot over, or rebuilds, between the two must not go on
            // waiting for a report that its predecessor, or nobody, has had.
            entry.state.store(DONE, Release);
            self.slot.head.store(next, Release);
            self.report(task.attempt, outcome, took);
            stop_points::pass(Point::WorkerReported);
            failed = outcome == Outcome::Failed;
        } else {
            self.slot.head.store(next, Release);
        }
        (next, failed)
    }

    /// What the tasks are, and why some of them cannot be read: whatever a user has written must not end the worker, which
    /// would be started again for the same task, for ever. One that cannot be read keeps no other from running.
    fn read_details(&self, ids: Vec<i64>) -> (Vec<Details>, HashMap<i64, String>) {
        let (owner, memory, callback_type) = (self.owner, self.memory, self.calls.argument());
        let read = |ids| {
            callback::guarded(|| {
                crate::store::transaction(|| {
                    crate::store::as_user(owner, || store::details(ids, callback_type, memory))
                })
            })
        };
        let mut unreadable = HashMap::new();
        let details = read(ids.clone()).unwrap_or_else(|_| {
            let one_by_one = ids.into_iter().map(|id| read(vec![id]).map_err(|error| unreadable.insert(id, error)));
            one_by_one.flat_map(Result::unwrap_or_default).collect()
        });
        (details, unreadable)
    }

    /// After a failure the dispatcher decides anew what of the rest is still to run: steps beside a failed one are not.
    fn give_back(&self, rest: std::ops::Range<u64>) {
        for position in rest {
            let state = &self.slot.entry(position).state;
            let _ = state.compare_exchange(ASSIGNED, REVOKED, AcqRel, Acquire);
        }
    }

    pub(super) fn report(&self, attempt: Attempt, outcome: Outcome, microseconds: i64) {
        let microseconds = microseconds.clamp(0, u32::MAX.into()) as u32;
        let Attempt { task_id, attempt } = attempt;
        self.slot.tasks_done.fetch_add(1, Relaxed);
        if let Some(database) = my_database() {
            database.send(&Event::Ended { task_id, attempt, outcome, microseconds }.pack());
        }
    }

    /// One attempt, from its mark in shared memory to its outcome in the table.
    fn run(&mut self, attempt: Attempt, task: &Details, started: i64) -> Outcome {
        let (deadline, label) = self.enter_task(attempt, task, started);
        if task.lazy {
            session::be_lazy();
        }
        let done = callback::guarded(|| {
            session::start_transaction();
            // SAFETY: what the callback's errors and pg_stat_activity show as the statement; cleared below.
            unsafe { pg_sys::debug_query_string = label.as_ptr() };
            let outcome = self.run_and_write(attempt, task, started, deadline);
            stop_points::pass(Point::WorkerWrote);
            session::commit();
            stop_points::pass(Point::WorkerCommitted);
            outcome
        });
        // SAFETY: the label is about to be freed.
        unsafe { pg_sys::debug_query_string = std::ptr::null() };
        own_task::end_of_callback();
        // From here on a cancel finds nothing to cancel: what follows is bookkeeping.
        self.slot.clear_task();
        process::forget_cancel();
        let outcome = done.unwrap_or_else(|error| self.write_failure(attempt, task.elsewhere, started, error));
        // It is accounted for: in the transaction that has committed, or as what is to be deleted.
        kept_rows::stored();
        own_task::clear();
        notices::discard();
        session::reset(pg_sys::Oid::from(self.slot.role.load(Acquire)));
        outcome
    }

    /// From now on this is the worker's task. Returns when its time is up, and what pg_stat_activity shows.
    pub(super) fn enter_task(&self, attempt: Attempt, task: &Details, started: i64) -> (i64, CString) {
        let slot = self.slot;
        let deadline = task.timeout.map_or(0, |t| task.first_started.unwrap_or(started).saturating_add(t));
        slot.attempt.store(attempt.attempt, Release);
        slot.started.store(started, Release);
        slot.done.store(f64::NAN.to_bits(), Release);
        slot.total.store(f64::NAN.to_bits(), Release);
        slot.note.set("");
        slot.deadline.store(deadline, Release);
        slot.task_id.store(attempt.task_id, Release);
        // Pairs with the dispatcher's before it sleeps: one of the two sees the other's store.
        fence(SeqCst);
        if let Some(database) = my_database().filter(|d| deadline != 0 && deadline < d.next_wake.load(Acquire)) {
            database.dispatcher.wake();
        }
        let label = CString::new(task.label.replace('\0', "")).unwrap_or_default();
        process::report_activity(Some(&label));
        notices::begin();
        own_task::begin(attempt);
        stop_points::pass(Point::WorkerTook);
        (deadline, label)
    }

    /// Runs the callback and writes its outcome, in the open transaction. Whatever is wrong is raised.
    fn run_and_write(&mut self, attempt: Attempt, task: &Details, started: i64, deadline: i64) -> Outcome {
        let mut kept = None;
        match &task.what {
            What::Query(text) => callback::run_query(text),
            What::Keeping { query, spec } => kept = Some((kept_rows::keep_query(attempt, query, spec), spec)),
            What::Fetch { spec } => {
                let (rows, said) = kept_rows::fetch(attempt, spec);
                notices::add(said);
                kept = Some((rows, spec));
            }
            What::AskQuery { routine, arguments, here } => {
                let query = callback::ask_query(routine, *arguments, self.calls.argument());
                if !here {
                    callback::settle_user_code();
                    own_task::end_of_callback();
                    let open = self.book(|| store::prepared(attempt, &query));
                    return self.settled(open, attempt, Outcome::Prepared);
                }
                match &task.spec {
                    Some(spec) => kept = Some((kept_rows::keep_query(attempt, &query, spec), spec)),
                    None => callback::run_query(&query),
                }
            }
            What::Call { routine, arguments } => self.calls.call(routine, *arguments),
            What::Flow { flow, arguments } => {
                // The step yields first: a child run may end before this transaction does.
                own_task::end_of_callback();
                let open = self.book(|| store::yielded(attempt, started, deadline));
                if open {
                    crate::store::connected(|| store::run_flow(flow, *arguments, attempt.task_id));
                }
                return self.settled(open, attempt, Outcome::Yielded);
            }
            What::Classify { routine, flow_id, node_no, node } => {
                let pool = callback::ask_pool(routine, *flow_id, node);
                callback::settle_user_code();
                own_task::end_of_callback();
                self.book(|| store::classified(*flow_id, *node_no, &pool));
                return Outcome::Classified;
            }
        }
        callback::settle_user_code();
        own_task::end_of_callback();
        if let Some((kept, spec)) = &kept {
            self.book(|| remote::record_result(attempt, kept, spec));
        }
        let decision = super::announce::pending_decision().or_else(own_task::decided);
        let (outcome, open) = match decision {
            None if task.asynchronous => (Outcome::Yielded, self.book(|| store::yielded(attempt, started, deadline))),
            None | Some(Decision::Finished) => (Outcome::Finished, self.book(|| store::finish(attempt, started))),
            Some(Decision::Failed(message)) => {
                let message = message.unwrap_or_else(|| "failed by flow.finish".to_owned());
                let partially = own_task::partially_committed();
                (Outcome::Failed, self.book(|| store::fail(attempt, started, &message, partially)))
            }
            Some(Decision::Deferred(delay)) => {
                let open = self.book(|| {
                    store::log_deferral(attempt, delay);
                    store::defer(attempt, started, delay)
                });
                (Outcome::Deferred, open)
            }
        };
        if open && task.elsewhere && outcome != Outcome::Yielded {
            self.book(|| store::forget_secrets(attempt, outcome != Outcome::Deferred));
        }
        self.settled(open, attempt, outcome)
    }

    /// An outcome that matches no open attempt rolls the callback's transaction back, unless flow.finish was what ended
    /// it, or the callback itself.
    fn settled(&self, open: bool, attempt: Attempt, outcome: Outcome) -> Outcome {
        if !open {
            if let Some(failed) = self.book(|| store::decided(attempt)) {
                return if failed { Outcome::Failed } else { Outcome::Finished };
            }
            pgrx::ereport!(
                ERROR,
                pgrx::PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                format!("task {} was ended by somebody else while it ran", attempt.task_id)
            );
        }
        if let Some((levels, messages)) = notices::take() {
            self.book(|| store::log(attempt, levels, messages));
        }
        outcome
    }

    /// Bookkeeping inside the callback's transaction: as the owner, writable, and back.
    pub(super) fn book<T>(&self, body: impl FnOnce() -> T) -> T {
        crate::store::as_user(self.owner, || store::writable(|| crate::store::connected(body)))
    }

    /// The callback's transaction is rolled back: the failure is recorded in a new one.
    fn write_failure(&self, attempt: Attempt, elsewhere: bool, started: i64, error: String) -> Outcome {
        if let Some(broken) = bridge::broken() {
            return self.write_retry(attempt, started, &broken, error);
        }
        let partially = own_task::partially_committed();
        let logged = notices::take();
        let owner = self.owner;
        let open = crate::store::transaction(|| {
            crate::store::as_user(owner, || {
                store::writable(|| {
                    if let Some((levels, messages)) = logged {
                        store::log(attempt, levels, messages);
                    }
                    if let Some((attempt, kept, spec)) = kept_rows::stored() {
                        remote::discard_result(attempt, &kept, &spec);
                    }
                    let open = store::fail(attempt, started, &error, partially);
                    if open && elsewhere {
                        store::forget_secrets(attempt, true);
                    }
                    open
                })
            })
        });
        if open {
            Outcome::Failed
        } else {
            pgrx::debug1!("pgflow: a late outcome of task {} changes nothing: {error}", attempt.task_id);
            Outcome::Stale
        }
    }
}

impl Local {
    /// What the task needs elsewhere could not be had, or may have been done: it waits and runs again, within limits.
    fn write_retry(&self, attempt: Attempt, started: i64, broken: &Broken, error: String) -> Outcome {
        let owner = self.owner;
        let became = crate::store::transaction(|| {
            crate::store::as_user(owner, || store::writable(|| remote::tried(attempt, started, broken, error)))
        });
        match became.as_deref() {
            Some("failed") => Outcome::Failed,
            Some("waits") => Outcome::Deferred,
            _ => Outcome::Stale,
        }
    }
}

/// Whether the dispatcher should be woken now: when the worker runs dry, or has done a good part of what it was given.
fn outcome_wakes(slot: &Worker) -> bool {
    let left = slot.pending();
    left == 0 || left.is_multiple_of(8)
}
