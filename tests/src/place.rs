//! Where a server of the tests lives: a directory of its own and a port that nobody has. Gives neither twice.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

pub(crate) fn temporary_directory() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    // Not TMPDIR: the path of a socket in it must be short.
    let directory = PathBuf::from(format!("/tmp/pgflow-test-{}-{number}", std::process::id()));
    fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

/// A port that nobody listens on right now, and that nobody else in this process has been given. From below those that the
/// kernel gives to outgoing connections (32768 and on): while a server is down, a client that tries to reach it must not
/// be given its port, let alone be connected with itself.
pub fn free_port() -> Result<u16> {
    const LOWEST: u32 = 10_000;
    const PORTS: u32 = 10_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() % PORTS * 7; // apart from the processes started at the same time
    (0..PORTS)
        .map(|_| (LOWEST + (start + GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS) as u16)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .with_context(|| format!("no free port between {LOWEST} and {}", LOWEST + PORTS))
}

/// A secret that nobody has seen: 32 hexadecimal digits.
pub fn random_secret() -> Result<String> {
    let mut bytes = [0u8; 16];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("no random numbers")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
