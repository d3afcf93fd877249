//! An HTTP server that remembers what it was asked. `/ok` answers, `/gate` when the gate is open, `/rows` with rows, `/fail`
//! repeats what it was sent and refuses, `/slow` after a second.

use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub struct Web {
    pub port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    asked: Mutex<Vec<Asked>>,
    gate: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    /// In lower case, values too.
    pub head: String,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or("")
    }
}

impl Web {
    pub fn start() -> Result<Web> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = StdListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { asked: Mutex::default(), gate: watch::Sender::new(false) });
        let serving = shared.clone();
        runtime.spawn(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                tokio::spawn(async move {
                    // A client that goes away is what some tests are about.
                    let _ = serve(stream, &shared).await;
                });
            }
        });
        Ok(Web { port, shared, runtime: Some(runtime) })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn open_gate(&self) {
        self.shared.gate.send_replace(true);
    }

    /// Requests to a path so far.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|a| a.path == path).cloned().collect()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut pending = Vec::new();
    while let Some(asked) = read(&mut stream, &mut pending).await? {
        shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        let (status, kind, body) = match asked.path.as_str() {
            "/gate" => {
                let mut gate = shared.gate.subscribe();
                let _ = gate.wait_for(|open| *open).await;
                (200, "application/json", r#"{"waited": true}"#.to_owned())
            }
            "/nul" => (200, "application/json", r#"[{"n": 1, "t": "a\u0000b"}]"#.to_owned()),
            "/fail/nul" => (422, "text/plain", "refused: a\0b".to_owned()),
            "/slow" => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                (200, "application/json", "{}".to_owned())
            }
            "/rows" => (200, "application/json", r#"[{"n": 1, "t": "one"}, {"n": 2, "t": "two"}]"#.to_owned()),
            "/fail" => (422, "text/plain", format!("refused: {} {}", asked.header("authorization"), asked.body)),
            _ => (200, "application/json", r#"{"done": true}"#.to_owned()),
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
    }
    Ok(())
}

async fn read(stream: &mut TcpStream, pending: &mut Vec<u8>) -> std::io::Result<Option<Asked>> {
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(at) = pending.windows(4).position(|part| part == b"\r\n\r\n") {
            let first = String::from_utf8_lossy(&pending[..at]).into_owned();
            let head = first.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let end = at + 4 + length.and_then(|length| length.trim().parse().ok()).unwrap_or(0usize);
            if pending.len() >= end {
                let body = String::from_utf8_lossy(&pending[at + 4..end]).into_owned();
                pending.drain(..end);
                let path = first.split_whitespace().nth(1).unwrap_or("").split('?').next().unwrap_or("").to_owned();
                return Ok(Some(Asked { path, head, body }));
            }
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(None),
            count => pending.extend_from_slice(&buffer[..count]),
        }
    }
}
