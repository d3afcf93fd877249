//! A transaction pooler (pgbouncer) in front of a cluster: between two transactions a client may be given another
//! connection, so nothing of a session lasts.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Result};

use super::process::Process;
use crate::cluster::{Cluster, SUPERUSER};
use crate::place::free_port;
use crate::postmaster::Programs;
use crate::session::Session;

const PROGRAM: &str = "/usr/sbin/pgbouncer";

pub struct Pgbouncer {
    process: Process,
    programs: Programs,
    port: u16,
}

impl Pgbouncer {
    /// In front of a cluster, for these roles and their passwords; and for the superuser, without one.
    pub fn before(cluster: &Cluster, users: &[(&str, &str)]) -> Result<Pgbouncer> {
        ensure!(Path::new(PROGRAM).exists(), "pgbouncer is not installed: run scripts/setup.sh servers");
        let pooler = Pgbouncer { process: Process::new()?, programs: Programs::find()?, port: free_port()? };
        let directory = pooler.process.directory();
        let all = users.iter().chain(&[(SUPERUSER, "")]);
        let list: String = all.map(|(name, password)| format!("\"{name}\" \"{password}\"\n")).collect();
        fs::write(directory.join("users"), list)?;
        fs::write(
            directory.join("hba"),
            format!("host all {SUPERUSER} 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"),
        )?;
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\npool_mode = transaction\nauth_type = hba\nauth_file = {home}/users\nauth_hba_file = {home}/hba\n\
             max_client_conn = 1000\ndefault_pool_size = 10\nserver_login_retry = 1\nserver_tls_sslmode = prefer\n",
            server = cluster.port(),
            port = pooler.port,
            home = directory.display(),
        );
        fs::write(directory.join("pgbouncer.ini"), configuration)?;
        pooler.programs.hand_over(directory)?;
        pooler.start_again()?;
        Ok(pooler)
    }

    /// Starts it again after `stop` or `kill`, on the same port.
    pub fn start_again(&self) -> Result<()> {
        let mut command = Command::new(PROGRAM);
        command.arg(self.process.directory().join("pgbouncer.ini"));
        let shell = self.programs.as_server(Path::new("/bin/sh"));
        self.process.start_by(shell, &command, || TcpStream::connect(("127.0.0.1", self.port)).is_ok())
    }

    pub fn stop(&self) -> Result<()> {
        self.process.kill()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connect(&self, database: &str, user: &str) -> Result<Session> {
        Session::connect(self.port, database, user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_of_the_pooler_lasts_for_a_transaction() {
        let cluster = Cluster::options().not_preloaded().with_passwords().start().unwrap();
        cluster.connect("postgres", SUPERUSER).unwrap().run("CREATE ROLE ann LOGIN PASSWORD 'right'").unwrap();
        let pooler = Pgbouncer::before(&cluster, &[("ann", "right")]).unwrap();
        let program = fs::read_to_string(format!("/proc/{}/comm", pooler.process().pid().unwrap())).unwrap();
        assert_eq!(program.trim(), "pgbouncer");
        let mut one = pooler.connect("postgres", SUPERUSER).unwrap();
        let mut other = pooler.connect("postgres", SUPERUSER).unwrap();
        let backend = |session: &mut Session| session.text("SELECT pg_backend_pid()").unwrap();
        assert_eq!(backend(&mut one), backend(&mut other));
        one.run("BEGIN").unwrap();
        assert_ne!(backend(&mut one), backend(&mut other));
        for (password, right) in [("right", true), ("wrong", false)] {
            let connected = postgres::Config::new()
                .host("127.0.0.1")
                .port(pooler.port())
                .dbname("postgres")
                .user("ann")
                .password(password)
                .connect(postgres::NoTls);
            assert_eq!(connected.is_ok(), right);
        }
    }
}
