//! Real servers that tests speak to, beside PostgreSQL: ClickHouse, S3, Azure blobs, a pooler, other versions of
//! PostgreSQL; certificates for them, and a proxy that breaks connections.
//!
//! `scripts/setup.sh servers` installs them in a cache. A test that needs one that is not there fails and says so; it is
//! never skipped. Each server has a directory, a port and a secret of its own, and is gone when its test is.

pub mod azurite;
pub mod certificates;
pub mod clickhouse;
mod http;
pub mod majors;
pub mod other_postgres;
pub mod pgbouncer;
pub mod process;
pub mod proxy;
pub mod s3;
pub mod terminator;

use std::path::PathBuf;

use anyhow::{Context, Result};

/// What setup.sh has installed under a name, by its real path: user postgres can read that, root's home not.
fn installed(name: &str) -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    let path = cache.join("pgflow/servers").join(name);
    path.canonicalize().with_context(|| {
        format!("{name} is not installed ({} is missing): run scripts/setup.sh servers", path.display())
    })
}
