//! An installation of PostgreSQL that is that of `PG_CONFIG`, but for files of a test's own in its extension directory: for
//! versions of the extension that there are only in a test. Nothing of the real installation is touched.
//!
//! The server finds its files from where its own program lies. So the programs that look for theirs are copied, and
//! everything else is links.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Options};
use crate::guard::Guard;
use crate::place::temporary_directory;
use crate::postmaster::{pg_config, Programs};

/// Programs that look for files from where they lie.
const COPIED: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

pub struct Overlay {
    programs: Programs,
    extensions: PathBuf,
    /// Dropped last: deletes the directory.
    _guard: Guard,
}

impl Overlay {
    pub fn new() -> Result<Overlay> {
        let directory = temporary_directory()?;
        let guard = Guard::watch(&directory)?;
        let [bin, share, library] =
            ["--bindir", "--sharedir", "--pkglibdir"].map(|what| pg_config(what).map(PathBuf::from));
        let (bin, share, library) = (bin?, share?, library?);
        let root = common(&common(&bin, &share), &library);
        let here =
            |path: &Path| -> Result<PathBuf> { Ok(directory.join("package/root").join(path.strip_prefix(&root)?)) };

        fill(&bin, &here(&bin)?, |name| COPIED.contains(&name))?;
        fill(&share, &here(&share)?, |_| false)?;
        let extensions = here(&share)?.join("extension");
        fs::remove_file(&extensions)?;
        fill(&share.join("extension"), &extensions, |_| false)?;
        fill(&library, &here(&library)?, |_| false)?;
        // Programs out of a Python wheel look for their libraries beside the package.
        for entry in root.ancestors().nth(2).map(|beside| beside.read_dir()).transpose()?.into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "libs") {
                symlink(&path, directory.join(path.file_name().unwrap_or_default()))?;
            }
        }
        Ok(Overlay { programs: Programs::in_directory(here(&bin)?)?, extensions, _guard: guard })
    }

    /// Adds a file to the extension directory.
    pub fn add(&self, name: &str, content: &str) -> Result<()> {
        let path = self.extensions.join(name);
        fs::write(&path, content).with_context(|| path.display().to_string())
    }

    /// Options of a cluster of this installation.
    pub fn options(&self) -> Options {
        Cluster::options().run_by(self.programs.clone())
    }
}

fn common(one: &Path, other: &Path) -> PathBuf {
    one.components().zip(other.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

/// Makes a directory with links to what is in another, or copies of it. What is there already stays.
fn fill(from: &Path, to: &Path, is_copied: impl Fn(&str) -> bool) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in from.read_dir().with_context(|| from.display().to_string())? {
        let name = entry?.file_name();
        let (source, target) = (from.join(&name), to.join(&name));
        if name.to_str().is_some_and(&is_copied) {
            fs::copy(&source, &target).with_context(|| source.display().to_string())?;
        } else if !target.exists() {
            symlink(&source, &target).with_context(|| target.display().to_string())?;
        }
    }
    Ok(())
}
