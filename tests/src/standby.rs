//! A streaming standby of a scratch cluster: made by `pg_basebackup`, with a directory, port and guard of its own.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::cluster::{Cluster, SUPERUSER};
use crate::guard::Guard;
use crate::postmaster::{run, Programs};
use crate::session::Session;

pub struct Standby {
    programs: Programs,
    data: PathBuf,
    port: u16,
    /// Dropped last: stops the server and deletes the directory.
    _guard: Guard,
}

impl Standby {
    /// Copies a running cluster and starts the copy as its standby.
    pub fn of(primary: &Cluster) -> Result<Standby> {
        let programs = Programs::find()?;
        let directory = PathBuf::from(format!("{}-standby", primary.directory().display()));
        fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        let guard = Guard::watch(&directory)?;
        programs.hand_over(&directory)?;
        let data = directory.join("data");
        run(programs
            .server("pg_basebackup")
            .args(["--no-sync", "--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf"])
            .args(["-h", "127.0.0.1", "-p", &primary.port().to_string(), "-U", SUPERUSER, "--pgdata"])
            .arg(&data))?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut file = fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
        writeln!(file, "port = {port}\nunix_socket_directories = '{}'", directory.display())?;
        run(programs
            .server("pg_ctl")
            .args(["start", "--wait", "--silent", "--timeout", "60", "--pgdata"])
            .arg(&data)
            .arg("--log")
            .arg(directory.join("log")))?;
        Ok(Standby { programs, data, port, _guard: guard })
    }

    pub fn connect(&self, database: &str) -> Result<Session> {
        Session::connect(self.port, database, SUPERUSER)
    }

    /// Makes it a server of its own; waits until it is.
    pub fn promote(&self) -> Result<()> {
        run(self.programs.server("pg_ctl").args(["promote", "--wait", "--silent", "--pgdata"]).arg(&self.data))
            .map(drop)
    }
}
