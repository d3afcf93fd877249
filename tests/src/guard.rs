//! Cleans up behind a scratch cluster, however the test process ends: returning, panicking, by Ctrl-C or `kill -9`.
//!
//! A shell waits for the end of its standard input, which only the test process holds open; then it stops the server
//! by its pid file (PostgreSQL's, or `server.pid` of another), unmounts what is mounted in the directory and deletes it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

const SCRIPT: &str = r#"
trap "" INT TERM HUP
cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
  for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
  kill -KILL "$pid" 2>/dev/null
fi
pid=$(cat "$1/server.pid" 2>/dev/null)
[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
awk -v d="$1/" 'index($2, d) == 1 { print $2 }' /proc/mounts | while read -r mount; do umount -l "$mount" || sudo -n umount -l "$mount"; done
rm -rf "$1"
"#;

/// Dropping it cleans up and waits until that is done.
pub struct Guard {
    shell: Child,
}

impl Guard {
    /// Watches over a directory that has (or will have) a data directory `data` or a file `server.pid` in it.
    pub fn watch(directory: &Path) -> Result<Guard> {
        let shell = Command::new("setsid")
            .args(["sh", "-c", SCRIPT, "pgflow-test-guard"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the guard of a scratch cluster")?;
        Ok(Guard { shell })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
