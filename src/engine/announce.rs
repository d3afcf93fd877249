//! Notes made in a transaction that take effect when it ends: what the dispatcher must be told, and what a callback
//! decided about its own task. A rolled-back savepoint takes its notes along.
//!
//! The transaction callbacks must never raise: at commit it is too late to.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::Ordering::*;

use pgrx::pg_sys;

use super::events::Event;
use super::own_task::{self, Decision};
use super::shmem::{my_database, try_shared, DatabaseState};
use super::stop_points::{self, Point};

#[derive(Clone, Debug)]
pub enum Note {
    Tell(Event),
    Decide(Decision),
    /// The launcher is to look; `here`: this database may have got or lost the extension.
    WakeLauncher {
        here: bool,
    },
    /// An extension was updated.
    Updated,
    /// A statement has the database with this OID to itself until the transaction ends.
    LetBack(u32),
    /// The engine is held until the transaction ends; what the table says counts then.
    Resume,
}

struct Noted {
    level: i32,
    note: Note,
}

thread_local! {
    static NOTES: RefCell<Vec<Noted>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: RefCell<bool> = const { RefCell::new(false) };
}

/// Adds a note to the current (sub)transaction.
pub fn note(note: Note) {
    register();
    // SAFETY: reading the transaction's nesting level.
    let level = unsafe { pg_sys::GetCurrentTransactionNestLevel() };
    NOTES.with_borrow_mut(|notes| {
        let repeated = match (&note, notes.last()) {
            (Note::Tell(new), Some(Noted { level: l, note: Note::Tell(last) })) => *l == level && new == last,
            _ => false,
        };
        if !repeated {
            notes.push(Noted { level, note });
        }
    });
}

/// Registers the transaction callbacks of this process, once.
pub fn register() {
    REGISTERED.with_borrow_mut(|registered| {
        if !*registered {
            // SAFETY: the callbacks are plain functions that live as long as the library, which is never unloaded.
            unsafe {
                pg_sys::RegisterXactCallback(Some(at_end), std::ptr::null_mut());
                pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
            }
            *registered = true;
        }
    });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT => own_task::before_commit(),
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            let notes = NOTES.take();
            stop_points::pass(Point::ClientCommitted);
            own_task::after_commit(notes.iter().rev().find_map(|n| match &n.note {
                Note::Decide(decision) => Some(decision.clone()),
                _ => None,
            }));
            tell(notes.into_iter().map(|n| n.note), true);
        }
        pg_sys::XactEvent::XACT_EVENT_ABORT => {
            let notes = NOTES.take();
            tell(notes.into_iter().map(|n| n.note), false);
        }
        pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => refuse_to_prepare(),
        _ => {}
    }
}

/// COMMIT PREPARED happens in another session, which would not tell the dispatcher.
fn refuse_to_prepare() {
    if NOTES.with_borrow(|notes| !notes.is_empty()) {
        crate::error::raise(
            pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot PREPARE a transaction that has called pgflow".to_owned(),
            None,
            Some("Call pgflow in a transaction that commits in its own session."),
        );
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    _mine: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    let level = pg_sys::GetCurrentTransactionNestLevel();
    NOTES.with_borrow_mut(|notes| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            for noted in notes.iter_mut().filter(|n| n.level >= level) {
                noted.level = level - 1;
            }
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            // Locks are gone, which the dispatcher must hear all the same.
            notes.retain_mut(|n| n.level < level || after_abort(&mut n.note));
            for noted in notes.iter_mut().filter(|n| n.level >= level) {
                noted.level = level - 1;
            }
        }
        _ => {}
    });
}

/// Whether a note matters after its (sub)transaction was rolled back.
fn after_abort(note: &mut Note) -> bool {
    matches!(
        note,
        Note::Tell(Event::Released { .. } | Event::Run { .. } | Event::Touched { .. })
            | Note::LetBack(_)
            | Note::Resume
    )
}

fn tell(notes: impl Iterator<Item = Note>, committed: bool) {
    let Some(shared) = try_shared() else { return };
    let database = my_database();
    let mut told = false;
    for mut note in notes {
        if !committed && !after_abort(&mut note) {
            continue;
        }
        match note {
            Note::Tell(event) => {
                if let Some(database) = database {
                    database.send(&event.pack());
                    told = true;
                }
            }
            Note::WakeLauncher { here } => {
                // SAFETY: reading a process-global OID.
                let here = here.then(|| shared.database_or_new(unsafe { pg_sys::MyDatabaseId })).flatten();
                if let Some(database) = here {
                    for from in [DatabaseState::Absent, DatabaseState::Mismatched] {
                        database.change_state(from, DatabaseState::Unknown);
                    }
                    database.check_extension.store(true, Release);
                    database.dispatcher.wake();
                }
                shared.launcher_wanted.store(true, Release);
                shared.launcher.wake();
            }
            Note::Updated => {
                shared.updates.fetch_add(1, AcqRel);
            }
            Note::LetBack(oid) => {
                if let Some(database) = shared.database(pg_sys::Oid::from(oid)) {
                    database.change_state(DatabaseState::Dismissed, DatabaseState::Unknown);
                }
                shared.launcher_wanted.store(true, Release);
                shared.launcher.wake();
            }
            Note::Resume => {
                if let Some(database) = database {
                    database.held.store(false, Release);
                    database.send(&Event::Settings.pack());
                    told = true;
                }
            }
            Note::Decide(_) => {}
        }
    }
    if let Some(database) = database.filter(|_| told) {
        database.dispatcher.wake();
    }
}

/// The same, and forgets it: the transaction goes on with another task.
pub fn take_decision() -> Option<Decision> {
    let decision = pending_decision();
    NOTES.with_borrow_mut(|notes| notes.retain(|n| !matches!(n.note, Note::Decide(_))));
    decision
}

/// What the callback decided for its own task in the transaction that is still open.
pub fn pending_decision() -> Option<Decision> {
    NOTES.with_borrow(|notes| {
        notes.iter().rev().find_map(|n| match &n.note {
            Note::Decide(decision) => Some(decision.clone()),
            _ => None,
        })
    })
}
