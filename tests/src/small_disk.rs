//! A disk that can be full: a small file system in memory (`tmpfs`), which takes the right to mount (root, or sudo).
//!
//! Where nothing may be mounted, a limit on the size of the server's files takes its place (`prlimit --fsize`): then a table
//! cannot grow beyond it, as on a full disk, but small tables still can, so that less of the engine is put to the test. The
//! test says which of the two it was.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::postmaster::run;

pub enum SmallDisk {
    Mounted {
        place: PathBuf,
    },
    /// No file of the server's may be longer than this, once it is "full".
    Limited {
        place: PathBuf,
        bytes: u64,
    },
}

impl SmallDisk {
    /// A directory in the cluster's own, of a size, for the server to write to. A limit, if it comes to that, is a third of
    /// the size, and not below 20 MB: the log of transactions has files of 16.
    pub fn make(cluster: &Cluster, name: &str, megabytes: u64) -> Result<SmallDisk> {
        let place = cluster.directory().join(name);
        fs::create_dir(&place).with_context(|| place.display().to_string())?;
        let disk = match mount(&place, megabytes) {
            Ok(()) => SmallDisk::Mounted { place: place.clone() },
            Err(error) => {
                println!("nothing can be mounted here ({error:#}): files are limited in size instead");
                SmallDisk::Limited { place: place.clone(), bytes: (megabytes / 3).max(20) << 20 }
            }
        };
        cluster.hand_over(&place)?;
        Ok(disk)
    }

    pub fn place(&self) -> &Path {
        match self {
            SmallDisk::Mounted { place } | SmallDisk::Limited { place, .. } => place,
        }
    }

    pub fn is_mounted(&self) -> bool {
        matches!(self, SmallDisk::Mounted { .. })
    }

    /// Takes all room but so many bytes.
    pub fn fill(&self, cluster: &Cluster, leave: u64) -> Result<()> {
        match self {
            SmallDisk::Mounted { place } => {
                let mut ballast = fs::File::create(place.join("ballast"))?;
                let block = vec![0u8; 4096];
                let mut written = 0;
                // The error is that there is no room left.
                while ballast.write_all(&block).is_ok() {
                    written += block.len() as u64;
                }
                ballast.set_len(written.saturating_sub(leave)).context("ballast")
            }
            SmallDisk::Limited { bytes, .. } => limit(cluster, &format!("{bytes}:unlimited")),
        }
    }

    /// Gives the room back.
    pub fn free(&self, cluster: &Cluster) -> Result<()> {
        match self {
            SmallDisk::Mounted { place } => fs::remove_file(place.join("ballast")).context("ballast"),
            SmallDisk::Limited { .. } => limit(cluster, "unlimited:unlimited"),
        }
    }
}

/// `PGFLOW_NO_MOUNT=1`: as if nothing could be mounted.
fn mount(place: &Path, megabytes: u64) -> Result<()> {
    anyhow::ensure!(std::env::var("PGFLOW_NO_MOUNT").is_err(), "PGFLOW_NO_MOUNT is set");
    let size = format!("size={megabytes}m");
    let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"];
    run(Command::new("mount").args(arguments).arg(place))
        .or_else(|_| run(Command::new("sudo").args(["-n", "mount"]).args(arguments).arg(place)))
        .map(drop)
}

/// Limits the postmaster and every process it has started; those that it starts later inherit it.
fn limit(cluster: &Cluster, limits: &str) -> Result<()> {
    let postmaster = cluster.postmaster()?.to_string();
    let children = Command::new("pgrep").args(["-P", &postmaster]).output().context("pgrep")?;
    let children = String::from_utf8_lossy(&children.stdout).into_owned();
    run(Command::new("prlimit").args(["--pid", &postmaster, &format!("--fsize={limits}")]))?;
    for pid in children.split_whitespace() {
        // One may have ended by itself meanwhile.
        let _ = run(Command::new("prlimit").args(["--pid", pid, &format!("--fsize={limits}")]));
    }
    Ok(())
}
