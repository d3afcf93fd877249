//! Library and extension must be of the same version: the library's statements are written for its own tables. Between
//! installing new files, restarting the server and `ALTER EXTENSION pgflow UPDATE` they are not. Then the engine does
//! nothing in that database, and what would change something is refused.
//!
//! What is not refused, that is views and functions that read, goes on calling this library from the SQL of another
//! version. Therefore a C function never changes its arguments or result: a changed one gets another symbol, and the old
//! one stays, as `version::refuse()` if it cannot do its work any more.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::Ordering::*;

use pgrx::prelude::*;

use crate::engine::shmem::try_shared;
use crate::error::raise;
use crate::store;

/// The version of this library.
pub const LIBRARY: &str = env!("CARGO_PKG_VERSION");

thread_local! {
    /// The count of updates at which the versions were last found to be the same.
    static SAME_AT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What must be done before anything runs, given the version of the extension that is installed.
pub fn advice(extension: &str) -> &'static str {
    let number = |version: &str| version.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    if number(extension) < number(LIBRARY) {
        "ALTER EXTENSION pgflow UPDATE"
    } else {
        "install its library and restart the server"
    }
}

/// Both versions in a user's words.
fn both(extension: &str) -> String {
    format!("the library of pgflow is {LIBRARY}, the extension in this database {extension}")
}

/// What is wrong and what to do, in one line; `None`: the versions are the same, or there is no extension. Inside an SPI
/// connection.
pub fn mismatch() -> Option<String> {
    let extension = store::extension_version()?;
    (extension != LIBRARY).then(|| format!("{}: {}", both(&extension), advice(&extension)))
}

/// Raises unless the versions are the same. Looked up once, and again when some extension was updated.
pub fn require_same() {
    let updates = try_shared().map_or(0, |shared| shared.updates.load(Acquire));
    if SAME_AT.get() == Some(updates) {
        return;
    }
    match store::connected(store::extension_version) {
        Some(extension) if extension != LIBRARY => refuse_because(&extension),
        _ => SAME_AT.set(Some(updates)),
    }
}

/// Something was replaced that may be ours: look again.
pub fn forget() {
    let _ = SAME_AT.try_with(|same| same.set(None));
}

fn refuse_because(extension: &str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        both(extension),
        Some("Nothing runs in this database, and nothing can be changed, while they differ.".to_owned()),
        Some(&format!("To go on: {}.", advice(extension))),
    )
}

#[pg_extern(sql = false)]
fn library_version() -> &'static str {
    LIBRARY
}

#[pg_extern(sql = false)]
fn version_mismatch() -> Option<String> {
    store::connected(mismatch)
}
