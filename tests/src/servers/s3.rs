//! An S3 server (s3s-fs) with one bucket. Its files outlive a restart.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::installed;
use super::process::Process;
use crate::place::{free_port, random_secret};

pub const BUCKET: &str = "results";

pub struct S3 {
    process: Process,
    program: PathBuf,
    port: u16,
    access_key: String,
    secret_key: String,
}

impl S3 {
    pub fn start() -> Result<S3> {
        let program = installed("s3s-fs")?.join("bin/s3s-fs");
        let process = Process::new()?;
        let (access_key, secret_key) = (random_secret()?, random_secret()?);
        let server = S3 { process, program, port: free_port()?, access_key, secret_key };
        fs::create_dir_all(server.bucket_directory())?;
        server.start_again()?;
        Ok(server)
    }

    /// Starts it again after `stop` or `kill`, on the same port.
    pub fn start_again(&self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["--host", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--access-key", &self.access_key, "--secret-key", &self.secret_key]);
        command.arg(self.process.directory().join("buckets"));
        self.process.start(&command, || TcpStream::connect(("127.0.0.1", self.port)).is_ok())
    }

    pub fn stop(&self) -> Result<()> {
        self.process.stop()
    }

    /// `kill -9`.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        self.start_again()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// `s3://results/<prefix>`.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// The bucket as files: an object is a file of its name.
    pub fn bucket_directory(&self) -> PathBuf {
        self.process.directory().join("buckets").join(BUCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::super::http;
    use super::*;

    #[test]
    fn s3_refuses_strangers_and_starts_again() {
        let server = S3::start().unwrap();
        for _ in 0..2 {
            let (status, body) = http::request(server.port(), "GET /results?list-type=2 HTTP/1.0\r\n", b"").unwrap();
            let body = String::from_utf8_lossy(&body).into_owned();
            assert!(status == 403 && body.contains("AccessDenied"), "{status} {body}");
            server.restart().unwrap();
        }
    }
}
