//! A server of Azure blobs (azurite) with one account and one container. What is stored is gone after a restart.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Result};

use super::installed;
use super::process::Process;
use crate::place::{free_port, random_secret};

pub const ACCOUNT: &str = "pgflow";
pub const CONTAINER: &str = "results";
const CREATE_CONTAINER: &str = include_str!("azurite.py");

pub struct Azurite {
    process: Process,
    program: PathBuf,
    port: u16,
    key: String,
}

impl Azurite {
    pub fn start() -> Result<Azurite> {
        let program = installed("azurite")?.join("node_modules/azurite/dist/src/blob/main.js");
        // Hexadecimal digits in a number divisible by four are base64 too.
        let key = format!("{}{}", random_secret()?, random_secret()?);
        let server = Azurite { process: Process::new()?, program, port: free_port()?, key };
        server.start_again()?;
        Ok(server)
    }

    /// Starts it again after `stop` or `kill`, on the same port, with an empty container.
    pub fn start_again(&self) -> Result<()> {
        let mut command = Command::new("node");
        command.arg(&self.program).args(["--silent", "--inMemoryPersistence", "--skipApiVersionCheck"]);
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &self.port.to_string()]);
        command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", self.key));
        self.process.start(&command, || TcpStream::connect(("127.0.0.1", self.port)).is_ok())?;
        let made = Command::new("python3")
            .args(["-c", CREATE_CONTAINER, &self.endpoint(), CONTAINER])
            .env("ACCOUNT_KEY", &self.key)
            .output()?;
        ensure!(made.status.success(), "no container:\n{}", String::from_utf8_lossy(&made.stderr));
        Ok(())
    }

    pub fn stop(&self) -> Result<()> {
        self.process.stop()
    }

    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// With the account in its path, as an emulator has it.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.port)
    }

    /// The account's key, in base64.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `az://results/<prefix>`.
    pub fn url(&self, prefix: &str) -> String {
        format!("az://{CONTAINER}/{prefix}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::http;
    use super::*;

    #[test]
    fn azurite_has_the_container_and_refuses_strangers() {
        let server = Azurite::start().unwrap();
        let head = format!("GET /{ACCOUNT}/{CONTAINER}?restype=container HTTP/1.0\r\nx-ms-version: 2021-08-06\r\n");
        let (status, body) = http::request(server.port(), &head, b"").unwrap();
        assert!(status == 403 || status == 404, "{status} {}", String::from_utf8_lossy(&body));
    }
}
