//! PostgreSQL of other major versions with pgflow in them: what `scripts/majors.sh` finds. pgflow must have been installed
//! there: `PG_CONFIG=$(scripts/majors.sh 16) PROFILE=dev scripts/install.sh`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::cluster::{Cluster, Options};
use crate::postmaster::{text_of, Programs};

/// The programs of that major version, with pgflow.
pub fn programs(major: u32) -> Result<Programs> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/majors.sh");
    let pg_config = text_of(Command::new(script).arg(major.to_string()))?;
    let says = |what: &str| text_of(Command::new(&pg_config).arg(what)).map(PathBuf::from);
    let control = says("--sharedir")?.join("extension/pgflow.control");
    let how = format!("install it: PG_CONFIG={pg_config} PROFILE=dev scripts/install.sh");
    let control = std::fs::read_to_string(&control).with_context(|| format!("{}: {how}", control.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    ensure!(control.contains(&format!("default_version = '{version}'")), "{pg_config} has not pgflow {version}: {how}");
    Programs::in_directory(says("--bindir")?)
}

/// Options of a cluster of that major version, with pgflow preloaded.
pub fn of_major(major: u32) -> Result<Options> {
    Ok(Cluster::options().run_by(programs(major)?))
}
