//! In a worker: the transaction around a callback, and what is reset so that nothing of a task reaches the next one.
#![allow(unsafe_code)]

use pgrx::pg_sys;

extern "C-unwind" {
    fn ResetSequenceCaches();
    fn Async_UnlistenAll();
}

/// Lock method of advisory locks.
const USER_LOCKMETHOD: u16 = 2;

/// Begins a transaction with no snapshot, as a client's statement would: the callback may COMMIT in it.
pub fn start_transaction() {
    // SAFETY: called between transactions.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
    }
}

/// The transactions that follow, up to `reset`, are not waited for until they are on disk.
pub fn be_lazy() {
    // SAFETY: between transactions; both texts are static.
    unsafe {
        pg_sys::SetConfigOption(
            c"synchronous_commit".as_ptr(),
            c"off".as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

pub fn commit() {
    // SAFETY: called in the transaction that `start_transaction` or the callback's last COMMIT began.
    unsafe { pg_sys::CommitTransactionCommand() }
}

/// Resets settings, role, cursors, prepared statements, temporary tables, advisory locks, LISTENs and sequence caches:
/// what DISCARD ALL does, but for the plans, which are the worker's own.
pub fn reset(role: pg_sys::Oid) {
    // SAFETY: between transactions; the same calls in the same order as DiscardAll().
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::PortalHashTableDeleteAll();
        if pg_sys::GetSessionUserId() != role {
            pg_sys::SetPGVariable(c"session_authorization".as_ptr(), std::ptr::null_mut(), false);
        }
        if pg_sys::GetUserId() != role {
            pg_sys::SetPGVariable(c"role".as_ptr(), std::ptr::null_mut(), false);
        }
        pg_sys::ResetAllOptions();
        pg_sys::DropAllPreparedStatements();
        Async_UnlistenAll();
        pg_sys::LockReleaseAll(USER_LOCKMETHOD, true);
        pg_sys::ResetTempTableNamespace();
        ResetSequenceCaches();
        pg_sys::CommitTransactionCommand();
    }
}
