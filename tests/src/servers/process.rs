//! A server process of a test: started, stopped, killed, and gone with its directory when the test is, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::guard::Guard;
use crate::place::temporary_directory;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Process {
    directory: PathBuf,
    child: Mutex<Option<Child>>,
    /// Dropped last: deletes the directory.
    _guard: Guard,
}

impl Process {
    /// A directory for a server; nothing runs yet.
    pub fn new() -> Result<Process> {
        let directory = temporary_directory()?;
        let guard = Guard::watch(&directory)?;
        Ok(Process { directory, child: Mutex::new(None), _guard: guard })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a command and waits until it is ready. What it prints goes to the file `log`.
    pub fn start(&self, command: &Command, ready: impl Fn() -> bool) -> Result<()> {
        self.start_by(Command::new("sh"), command, ready)
    }

    /// `start`, by a shell of somebody else's: a server that refuses to run as root.
    pub fn start_by(&self, mut shell: Command, command: &Command, ready: impl Fn() -> bool) -> Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(child.is_none(), "the server runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        // The shell notes its pid before it becomes the server, so that the guard knows it from the first moment.
        shell.args(["-c", r#"echo $$ >"$0" && exec "$@""#]).arg(self.pid_path());
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let started = shell
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {command:?}"))?;
        let running = child.insert(started);
        let until = Instant::now() + PATIENCE;
        while !ready() {
            if let Some(status) = running.try_wait()? {
                *child = None;
                bail!("{:?} ended ({status}):\n{}", command.get_program(), self.log_tail());
            }
            ensure!(Instant::now() < until, "{:?} is not ready:\n{}", command.get_program(), self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// SIGTERM, and SIGKILL if that does not help.
    pub fn stop(&self) -> Result<()> {
        self.end("TERM")
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<()> {
        self.end("KILL")
    }

    /// Freezes it (SIGSTOP): it accepts connections, as the kernel does that, and answers nothing.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// The pid of the server itself (not of the shell or runuser before it).
    pub fn pid(&self) -> Result<u32> {
        let text = fs::read_to_string(self.pid_path()).context("the server does not run")?;
        text.trim().parse().context("server.pid has no pid")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid()?.to_string();
        let done = Command::new("sh").args(["-c", r#"kill -"$0" "$1""#, name, &pid]).status()?;
        ensure!(done.success(), "cannot send SIG{name} to {pid}");
        Ok(())
    }

    fn end(&self, signal: &str) -> Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut running) = child.take() else { return Ok(()) };
        if running.try_wait()?.is_none() {
            self.signal(signal)?;
        }
        let until = Instant::now() + PATIENCE;
        while running.try_wait()?.is_none() {
            if Instant::now() > until {
                self.signal("KILL")?;
                running.wait()?;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Its pid may be another's from now on.
        fs::remove_file(self.pid_path()).context("cannot remove server.pid")
    }

    /// The end of what it printed.
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn pid_path(&self) -> PathBuf {
        self.directory.join("server.pid")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
