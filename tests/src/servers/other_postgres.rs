//! PostgreSQL of other major versions: servers only, without pgflow, as targets.

use anyhow::Result;

use super::installed;
use crate::cluster::{Cluster, Options};
use crate::postmaster::Programs;

/// The versions that setup.sh installs.
pub const MAJORS: [u32; 3] = [16, 17, 18];

/// Options of a cluster of that version, to be started.
pub fn of_major(major: u32) -> Result<Options> {
    let programs = Programs::in_directory(installed(&format!("postgres-{major}"))?.join("native/bin"))?;
    Ok(Cluster::options().made_by(programs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::SUPERUSER;

    #[test]
    fn each_version_starts_and_tells_its_name() {
        for major in MAJORS {
            let cluster = of_major(major).unwrap().start().unwrap();
            let mut session = cluster.connect("postgres", SUPERUSER).unwrap();
            let version = session.text("SHOW server_version").unwrap();
            assert!(version.starts_with(&format!("{major}.")), "{version}");
        }
    }
}
