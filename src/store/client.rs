//! What sessions of clients write for the engine, as the extension's owner.
#![allow(unsafe_code)]

use std::cell::Cell;

use pgrx::pg_sys;

use super::run;

thread_local! {
    /// This database is known to be somebody's.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

/// Whoever puts the first work into a new database says with it that what is there belongs there: rows that come without
/// this are those of a dump that is being restored. Does not wait for another session that is saying it too; what this one
/// announces at its commit says the same to a dispatcher that is there.
pub fn make_own() {
    if OWN.get() {
        return;
    }
    let known = run(c"SELECT FROM async.engine_state WHERE system_identifier IS NOT NULL", &[]).len > 0;
    OWN.set(known);
    // SAFETY: reading the transaction's isolation level. Under a snapshot of the whole transaction the row may have changed
    // since, which would fail this transaction.
    if !known && unsafe { pg_sys::XactIsoLevel } <= pg_sys::XACT_READ_COMMITTED as i32 {
        run(
            c"UPDATE async.engine_state e SET system_identifier = w.system_identifier, database_oid = w.database_oid
              FROM async.whereabouts() w, (SELECT s.only_row FROM async.engine_state s
                                           WHERE s.system_identifier IS NULL FOR NO KEY UPDATE SKIP LOCKED) l
              WHERE e.only_row = l.only_row",
            &[],
        );
    }
}
