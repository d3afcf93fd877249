//! Runs a test's body in a database of its own and, when it fails, says what the server was doing.

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

use anyhow::Result;

use crate::cluster::Cluster;
use crate::database::Database;

/// Creates a database with the extension and runs `body` in it. A failure, as an error or a panic, fails the test with
/// a report of what was open and the end of the server's log.
pub fn in_database(cluster: &Cluster, name: &str, body: impl FnOnce(&Database) -> Result<()>) {
    match cluster.database(name) {
        Ok(database) => with_report(&database, body),
        Err(error) => panic!("cannot create database {name}: {error:#}\n{}", cluster.log_tail(25, "")),
    }
}

/// Runs `body`; see `in_database`.
pub fn with_report(database: &Database, body: impl FnOnce(&Database) -> Result<()>) {
    match catch_unwind(AssertUnwindSafe(|| body(database))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("{error:#}\n\n{}", database.report()),
        Err(panic) => {
            eprintln!("{}", database.report());
            resume_unwind(panic);
        }
    }
}
