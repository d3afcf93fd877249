//! PostgreSQL's programs (`initdb`, `pg_ctl`, `psql`), run as a user they accept.
//!
//! The server refuses to run as root: then its programs run as `postgres`, through `runuser`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{bail, Context, Result};

/// Where PostgreSQL's programs are and as whom they run.
#[derive(Clone, Debug)]
pub struct Programs {
    directory: PathBuf,
    as_root: bool,
}

impl Programs {
    /// Those of `PG_CONFIG` (default: Debian's PostgreSQL 15).
    pub fn find() -> Result<Programs> {
        Programs::in_directory(pg_config("--bindir")?)
    }

    /// Those of another installation.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Result<Programs> {
        Ok(Programs { directory: directory.into(), as_root: text_of(Command::new("id").arg("-u"))? == "0" })
    }

    /// A program of the server, to be run as its user.
    pub fn server(&self, program: &str) -> Command {
        self.as_server(&self.directory.join(program))
    }

    /// Any program that refuses to run as root, run as the server's user.
    pub fn as_server(&self, path: &Path) -> Command {
        let mut command = if self.as_root {
            let mut runuser = Command::new("runuser");
            runuser.args(["-u", "postgres", "--"]).arg(path);
            runuser
        } else {
            Command::new(path)
        };
        command.current_dir("/").env("LC_ALL", "C.UTF-8");
        command
    }

    /// A client program, run as whoever runs the tests.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.directory.join(program));
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// Gives a directory to the server's user.
    pub fn hand_over(&self, directory: &Path) -> Result<()> {
        if self.as_root {
            run(Command::new("chown").arg("-R").arg("postgres").arg(directory))?;
        }
        Ok(())
    }
}

/// Runs a command to its end; an error holds what it printed.
pub fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}):\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// What the program that `PG_CONFIG` names says.
pub fn pg_config(what: &str) -> Result<String> {
    let program = std::env::var("PG_CONFIG").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin/pg_config".into());
    text_of(Command::new(&program).arg(what))
        .with_context(|| format!("cannot run {program}; set PG_CONFIG, or run scripts/setup.sh"))
}

fn text_of(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?.stdout).trim().to_owned())
}

/// Sends a signal by its name (`KILL`, `STOP`, …) to one process.
pub fn signal(pid: i32, name: &str) -> Result<()> {
    run(Command::new("kill").arg(format!("-{name}")).arg(pid.to_string())).map(drop)
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}
