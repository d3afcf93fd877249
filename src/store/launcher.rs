//! What the launcher reads: the list of databases, from the shared catalog, without being connected to any.
#![allow(unsafe_code)]

use pgrx::pg_sys;

/// Databases that may have work: those one can connect to and that are not templates.
pub fn databases() -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    // SAFETY: the pattern of autovacuum's launcher: pg_database is readable without a database; the scan is ended and
    // the relation closed before the transaction commits.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::GetTransactionSnapshot();
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::GETSTRUCT(tuple) as pg_sys::Form_pg_database;
            if (*row).datallowconn && !(*row).datistemplate {
                found.push((*row).oid);
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        pg_sys::CommitTransactionCommand();
    }
    found
}
