//! The launcher: one a server. Finds databases, starts a dispatcher for each that has the extension, and starts it again,
//! with growing pauses, when it has failed.
//!
//! It is connected to no database, so that none is kept from being dropped, and reads nothing but the list of databases.
//! Whether one has the extension is found out by its dispatcher, which ends at once where it has not.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::atomic::Ordering::*;

use pgrx::pg_sys;

use super::process;
use super::shmem::{shared, Database, DatabaseState, WorkerState};
use super::stop_points::{self, Point};

/// Dispatchers that may be starting at the same time.
const STARTING_AT_MOST: usize = 3;
/// First and longest pause after a failure (microseconds).
const PAUSE: i64 = 200_000;
const LONGEST_PAUSE: i64 = 60_000_000;
/// A dispatcher that has not reported this long after it was asked for has failed (microseconds).
const START_TIMEOUT: i64 = 10_000_000;

/// Registers the launcher. Called from `_PG_init` while the postmaster preloads.
pub fn init() {
    // SAFETY: reading a flag that only the postmaster changes.
    if !unsafe { pg_sys::IsBinaryUpgrade } {
        process::start_with_server("pgflow launcher", "pgflow launcher", "pgflow_launcher_main");
    }
}

#[derive(Default)]
struct Known {
    /// It was looked at and has no extension.
    absent: bool,
    failures: u32,
    not_before: i64,
    asked: i64,
}

/// Entry point.
#[no_mangle]
#[pgrx::pg_guard]
pub extern "C-unwind" fn pgflow_launcher_main(_argument: pg_sys::Datum) {
    process::standard_signals();
    // SAFETY: without a name: shared catalogues only.
    unsafe {
        pg_sys::before_shmem_exit(Some(at_exit), pg_sys::Datum::from(0));
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
    }
    shared().launcher.enter();
    let mut known: HashMap<u32, Known> = HashMap::new();
    loop {
        shared().launcher_wanted.store(false, Release);
        let next = look(&mut known);
        process::report_activity(None);
        if !shared().launcher_wanted.load(Acquire) {
            let now = crate::store::now();
            process::sleep(next.map_or(-1, |at| ((at - now) / 1000).max(0) + 1));
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_exit(_code: i32, _argument: pg_sys::Datum) {
    shared().launcher.leave();
}

/// Starts what should run. Returns when to look again without being woken.
fn look(known: &mut HashMap<u32, Known>) -> Option<i64> {
    let databases = crate::store::launcher::databases();
    stop_points::pass(Point::LauncherLooked);
    let now = crate::store::now();
    forget_dropped(&databases, known);
    free_places();
    shared().launcher_error.set("");
    let mut next: Option<i64> = None;
    let mut again = |at: i64| next = Some(next.map_or(at, |n| n.min(at)));
    let mut starting = shared()
        .databases()
        .iter()
        .filter(|d| d.oid.load(Acquire) != 0 && d.state() == DatabaseState::Starting)
        .count();
    for oid in databases {
        let entry = known.entry(oid.to_u32()).or_default();
        if entry.absent && shared().database(oid).is_none() {
            continue;
        }
        let Some(database) = shared().database_or_new(oid) else {
            let text = "more databases have pgflow than pgflow.max_databases: raise it and restart";
            pgrx::warning!("pgflow: {text} (database {oid} is not served)");
            shared().launcher_error.set(text);
            continue;
        };
        entry.absent = false;
        let state = database.state();
        match state {
            DatabaseState::Running | DatabaseState::Dismissed | DatabaseState::Mismatched => continue,
            DatabaseState::Absent => {
                // Its place is free for others; what is known of it stays here.
                if database.dispatcher.pid() == 0 {
                    entry.absent = true;
                    forget(database);
                } else {
                    again(now + PAUSE);
                }
                continue;
            }
            DatabaseState::Starting => {
                if database.dispatcher.pid() == 0 && now - entry.asked > START_TIMEOUT {
                    database.change_state(DatabaseState::Starting, DatabaseState::Failed);
                }
                again(entry.asked + START_TIMEOUT);
                continue;
            }
            DatabaseState::Failed => {
                if entry.not_before < entry.asked || entry.not_before == 0 {
                    // One that was well for long, seen or not, has nothing to do with what failed before.
                    if now - entry.asked > LONGEST_PAUSE {
                        entry.failures = 0;
                    }
                    let pause = (PAUSE << entry.failures.min(20)).min(LONGEST_PAUSE);
                    entry.failures += 1;
                    entry.not_before = now + pause;
                }
            }
            DatabaseState::Unknown => {}
        }
        if now < entry.not_before {
            again(entry.not_before);
        } else if starting >= STARTING_AT_MOST {
            again(now + PAUSE);
        } else if start(oid, database, state) {
            stop_points::pass(Point::LauncherAsked);
            starting += 1;
            entry.asked = now;
            again(now + START_TIMEOUT);
        } else {
            ask_to_yield();
            database.last_error.set("no place for the dispatcher is free: raise max_worker_processes and restart");
            entry.not_before = now + PAUSE * 10;
            again(entry.not_before);
        }
    }
    next
}

/// `from`: the state that was looked at; if it has changed since, a statement has the database to itself.
fn start(oid: pg_sys::Oid, database: &Database, from: DatabaseState) -> bool {
    if !database.change_state(from, DatabaseState::Starting) {
        return true;
    }
    let started =
        process::start("pgflow dispatcher", "pgflow dispatcher", "pgflow_dispatcher_main", u64::from(oid.to_u32()));
    if !started {
        database.change_state(DatabaseState::Starting, DatabaseState::Failed);
    }
    started
}

/// Entries of databases that are gone are free for others.
fn forget_dropped(databases: &[pg_sys::Oid], known: &mut HashMap<u32, Known>) {
    for entry in shared().databases() {
        let oid = entry.oid.load(Acquire);
        let gone = oid != 0 && !databases.iter().any(|d| d.to_u32() == oid);
        if gone && entry.dispatcher.pid() == 0 && entry.state() != DatabaseState::Dismissed {
            forget(entry);
        }
    }
    known.retain(|oid, _| databases.iter().any(|d| d.to_u32() == *oid));
}

fn forget(entry: &Database) {
    while entry.ring().pop().is_some() {}
    entry.last_error.set("");
    entry.set_state(DatabaseState::Unknown);
    entry.oid.store(0, Release);
}

/// Places of workers that are gone are freed by their dispatcher; here, those whose database will have none.
fn free_places() {
    for worker in shared().workers().iter().filter(|w| w.state() == WorkerState::Gone) {
        let oid = pg_sys::Oid::from(worker.database.load(Acquire));
        let served = shared().database(oid).is_some_and(|d| d.state() != DatabaseState::Absent);
        if !served && worker.change_state(WorkerState::Gone, WorkerState::Starting) {
            worker.reset();
            worker.set_state(WorkerState::Free);
        }
    }
}

/// An idle worker makes room for a dispatcher.
fn ask_to_yield() {
    let idle = shared()
        .workers()
        .iter()
        .find(|w| w.state() == WorkerState::Ready && w.pending() == 0 && !w.leave.load(Acquire));
    if let Some(worker) = idle {
        worker.leave.store(true, Release);
        worker.process.wake();
    }
}
