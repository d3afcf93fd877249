//! The least of HTTP that tests need for looks of their own: one request, one connection, the whole answer in memory.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

/// Status and body. HTTP/1.0, so that the body is neither chunked nor followed by anything.
pub(super) fn request(port: u16, head: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    let mut stream =
        TcpStream::connect(("127.0.0.1", port)).with_context(|| format!("cannot connect to port {port}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    write!(stream, "{head}Host: 127.0.0.1:{port}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        anyhow::bail!("no answer: {error}; so far: {:?}", String::from_utf8_lossy(&answer));
    }
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").context("an answer without an end of its head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("an answer without a status: {head}"))?, answer.split_off(end + 4)))
}
