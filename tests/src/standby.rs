//! A streaming standby of a scratch cluster: made by `pg_basebackup`, with a directory, port and guard of its own.

use std::ops::Deref;

use anyhow::Result;

use crate::cluster::{Cluster, SUPERUSER};
use crate::session::Session;

/// A cluster, which can be promoted.
pub struct Standby(Cluster);

impl Standby {
    /// Copies a running cluster and starts the copy as its standby.
    pub fn of(primary: &Cluster) -> Result<Standby> {
        Cluster::standby_of(primary).map(Standby)
    }

    pub fn connect(&self, database: &str) -> Result<Session> {
        self.0.connect(database, SUPERUSER)
    }
}

impl Deref for Standby {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        &self.0
    }
}
