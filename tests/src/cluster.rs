//! A scratch PostgreSQL cluster of a test binary's own: made by `initdb` in a temporary directory, on a free port, with
//! pgflow preloaded. Stopped and deleted when dropped, and also when the process ends without dropping it.
//!
//! Must never touch a server that it did not start.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::database::Database;
use crate::guard::Guard;
use crate::place::{free_port, temporary_directory};
use crate::postmaster::{is_alive, run, signal, Programs};
use crate::servers::certificates::Certificate;
use crate::session::Session;

pub const SUPERUSER: &str = "postgres";

/// How a server is told to stop.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    Fast,
    Immediate,
}

/// What a cluster is to be like.
pub struct Options {
    fsync: bool,
    preload: bool,
    settings: Vec<(String, String)>,
    /// Instead of the programs of PG_CONFIG.
    programs: Option<Programs>,
    access: Access,
}

/// How roles other than the superuser come in. The superuser always does without a password, for the tests' own looks.
enum Access {
    Trusted,
    Password,
    /// Only over TLS, with a password.
    Tls(Certificate),
}

impl Options {
    /// Durable commits (default: off, because most tests do not need them and are faster without).
    pub fn durable(mut self) -> Options {
        self.fsync = true;
        self
    }

    /// Leaves pgflow out of `shared_preload_libraries`.
    pub fn not_preloaded(mut self) -> Options {
        self.preload = false;
        self
    }

    pub fn setting(mut self, name: &str, value: &str) -> Options {
        self.settings.push((name.into(), value.into()));
        self
    }

    pub fn max_connections(self, count: u32) -> Options {
        self.setting("max_connections", &count.to_string())
    }

    /// Every role but the superuser needs its password (SCRAM).
    pub fn with_passwords(mut self) -> Options {
        self.access = Access::Password;
        self
    }

    /// Every role but the superuser needs TLS and its password (`hostssl … scram-sha-256`).
    pub fn with_tls(mut self, certificate: &Certificate) -> Options {
        self.access = Access::Tls(certificate.clone());
        self
    }

    /// Made by these programs, which have pgflow.
    pub(crate) fn run_by(mut self, programs: Programs) -> Options {
        self.programs = Some(programs);
        self
    }

    /// A server of another version, made by these programs: without pgflow, only a target.
    pub(crate) fn made_by(self, programs: Programs) -> Options {
        self.run_by(programs).not_preloaded()
    }

    pub fn start(self) -> Result<Cluster> {
        Cluster::create(self)
    }
}

pub struct Cluster {
    programs: Programs,
    /// psql and its like: those of PG_CONFIG, whatever the server is.
    clients: Programs,
    directory: PathBuf,
    port: u16,
    /// Held while a database is made: the extension's roles are the whole cluster's.
    creating: Mutex<()>,
    /// Dropped last: stops the server and deletes the directory.
    _guard: Guard,
}

impl Cluster {
    pub fn options() -> Options {
        Options { fsync: false, preload: true, settings: Vec::new(), programs: None, access: Access::Trusted }
    }

    fn create(options: Options) -> Result<Cluster> {
        let clients = Programs::find()?;
        let programs = options.programs.clone().unwrap_or_else(|| clients.clone());
        let directory = temporary_directory()?;
        let guard = Guard::watch(&directory)?;
        programs.hand_over(&directory)?;
        let port = free_port()?;
        let cluster = Cluster { programs, clients, directory, port, creating: Mutex::new(()), _guard: guard };
        run(cluster
            .programs
            .server("initdb")
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", SUPERUSER, "--pgdata"])
            .arg(cluster.data()))?;
        cluster.write_configuration(&options)?;
        cluster.write_access(&options.access)?;
        cluster.start()?;
        Ok(cluster)
    }

    fn write_configuration(&self, options: &Options) -> Result<()> {
        let mut settings: Vec<(String, String)> = vec![
            ("listen_addresses".into(), "127.0.0.1".into()),
            ("port".into(), self.port.to_string()),
            ("unix_socket_directories".into(), self.directory.display().to_string()),
            ("max_connections".into(), "100".into()),
            ("max_worker_processes".into(), "100".into()),
            ("shared_buffers".into(), "128MB".into()),
            ("log_line_prefix".into(), "%m [%p] %b %d: ".into()),
            ("timezone".into(), "UTC".into()),
        ];
        if !options.fsync {
            settings.push(("fsync".into(), "off".into()));
        }
        if options.preload {
            settings.push(("shared_preload_libraries".into(), "pgflow".into()));
            settings.push(("pgflow.max_databases".into(), "128".into()));
            settings.push(("pgflow.max_workers".into(), "32".into()));
        }
        settings.extend(options.settings.iter().cloned());
        self.set(&settings)
    }

    fn write_access(&self, access: &Access) -> Result<()> {
        let others = match access {
            Access::Trusted => return Ok(()),
            Access::Password => "host all all 127.0.0.1/32 scram-sha-256",
            Access::Tls(certificate) => {
                for (from, to) in [(certificate.file(), "server.crt"), (certificate.key_file(), "server.key")] {
                    fs::copy(from, self.data().join(to)).with_context(|| format!("cannot copy {}", from.display()))?;
                }
                self.set(&[("ssl".into(), "on".into())])?;
                "hostssl all all 127.0.0.1/32 scram-sha-256"
            }
        };
        let trusted = format!("local all all trust\nhost all {SUPERUSER} 127.0.0.1/32 trust\n");
        fs::write(self.data().join("pg_hba.conf"), format!("{trusted}{others}\n"))?;
        // The key must be the server's own.
        self.programs.hand_over(&self.data())
    }

    /// Adds lines to `postgresql.conf`; later lines win. `reload` or `restart` makes them count.
    pub fn set(&self, settings: &[(String, String)]) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let mut file = fs::OpenOptions::new().append(true).open(&path).with_context(|| path.display().to_string())?;
        for (name, value) in settings {
            writeln!(file, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        Ok(())
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    // The server's life.

    /// Starts the server and waits until it takes connections. After a crash the old shared memory may be in use for a
    /// moment still: tried again for ten seconds.
    pub fn start(&self) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let started = run(self
                .programs
                .server("pg_ctl")
                .args(["start", "--wait", "--silent", "--timeout", "60", "--pgdata"])
                .arg(self.data())
                .arg("--log")
                .arg(self.log_path()));
            match started {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => {
                    return Err(error.context(format!("the server's log ends with:\n{}", self.log_tail(30, ""))));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    pub fn stop(&self, mode: Stop) -> Result<()> {
        let mode = match mode {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        run(self
            .programs
            .server("pg_ctl")
            .args(["stop", "--wait", "--silent", "--mode", mode, "--pgdata"])
            .arg(self.data()))
        .map(drop)
    }

    pub fn restart(&self, mode: Stop) -> Result<()> {
        self.stop(mode)?;
        self.start()
    }

    /// Has the server read its configuration again.
    pub fn reload(&self) -> Result<()> {
        signal(self.postmaster()?, "HUP")
    }

    /// `kill -9` of the postmaster; waits until it is gone.
    pub fn kill_postmaster(&self) -> Result<()> {
        let pid = self.postmaster()?;
        signal(pid, "KILL")?;
        for _ in 0..500 {
            if !is_alive(pid) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the postmaster {pid} lives after kill -9")
    }

    pub fn postmaster(&self) -> Result<i32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).context("the server does not run")?;
        file.lines().next().unwrap_or("").trim().parse().context("postmaster.pid has no pid")
    }

    // Speaking to it.

    pub fn connect(&self, database: &str, user: &str) -> Result<Session> {
        Session::connect(self.port, database, user)
    }

    /// Like `connect`, but tried until the server is there again, as after a crash.
    pub fn connect_again(&self, database: &str, user: &str) -> Result<Session> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match self.connect(database, user) {
                Ok(session) => return Ok(session),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(30)),
            }
        }
    }

    /// Creates a database with the extension in it.
    pub fn database(&self, name: &str) -> Result<Database<'_>> {
        let database = self.plain_database(name)?;
        let _alone = self.creating.lock();
        database.connect()?.run("CREATE EXTENSION pgflow")?;
        Ok(database)
    }

    /// Creates a database without the extension.
    pub fn plain_database(&self, name: &str) -> Result<Database<'_>> {
        self.connect("postgres", SUPERUSER)?.run(&format!("CREATE DATABASE \"{name}\""))?;
        Ok(Database::new(self, name))
    }

    /// Runs a script with the real psql, stopping at the first error; returns what it printed, both streams.
    pub fn psql(&self, database: &str, user: &str, script: &str) -> Result<String> {
        let mut psql = self
            .clients
            .client("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-U", user, "-d", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run psql")?;
        psql.stdin.take().context("psql takes no input")?.write_all(script.as_bytes())?;
        let output = psql.wait_with_output()?;
        let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "psql failed ({}):\n{printed}", output.status);
        Ok(printed)
    }

    /// A program of PostgreSQL's, such as `pg_dump`, that connects to this cluster as superuser.
    pub fn client_program(&self, program: &str) -> std::process::Command {
        let mut command = self.clients.client(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", SUPERUSER]);
        command
    }

    /// The last lines of the server's log that have `part` in them.
    pub fn log_tail(&self, lines: usize, part: &str) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().filter(|line| line.contains(part)).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }
}
