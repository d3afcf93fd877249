//! An HTTP server that remembers what it was asked, and holds answers back while its gate is closed. It wants a bearer
//! token, but for its gate: that is what ClickHouse waits for.

use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pgflow_tests::place::{free_port, random_secret};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub struct Receiver {
    pub port: u16,
    pub token: String,
    shared: Arc<Shared>,
    runtime: Mutex<Option<Runtime>>,
}

struct Shared {
    token: String,
    /// (key, Idempotency-Key), in the order of arrival.
    effects: Mutex<Vec<(String, String)>>,
    gate: watch::Sender<bool>,
    held: AtomicUsize,
}

struct Request {
    path: String,
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    fn json(&self, name: &str) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body[name].as_str().unwrap_or_default().to_owned()
    }
}

impl Receiver {
    pub fn start() -> Receiver {
        let token = random_secret().unwrap();
        let shared = Shared {
            token: token.clone(),
            effects: Mutex::default(),
            gate: watch::Sender::new(true),
            held: AtomicUsize::new(0),
        };
        let receiver =
            Receiver { port: free_port().unwrap(), token, shared: Arc::new(shared), runtime: Mutex::new(None) };
        receiver.start_again();
        receiver
    }

    /// Ends it at once, with every connection.
    pub fn kill(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
        self.shared.held.store(0, SeqCst);
    }

    pub fn start_again(&self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = StdListener::bind(("127.0.0.1", self.port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = self.shared.clone();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        *self.runtime.lock().unwrap() = Some(runtime);
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn set_gate(&self, open: bool) {
        self.shared.gate.send_replace(open);
    }

    /// Requests that wait at the gate.
    pub fn held(&self) -> usize {
        self.shared.held.load(SeqCst)
    }

    pub fn effects(&self, key: &str) -> Vec<String> {
        let effects = self.shared.effects.lock().unwrap_or_else(PoisonError::into_inner);
        effects.iter().filter(|(of, _)| of == key).map(|(_, idempotency)| idempotency.clone()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Connections are kept open between requests.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut pending = Vec::new();
    while let Some(request) = read(&mut stream, &mut pending).await {
        if answer(&mut stream, &request, &shared).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<Request> {
    let mut buffer = [0; 16 * 1024];
    let (mut end, mut length) = (None, 0);
    loop {
        if end.is_none() {
            if let Some(at) = pending.windows(4).position(|part| part == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&pending[..at]).to_ascii_lowercase();
                let stated = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                length = stated.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
                end = Some(at + 4);
            }
        }
        if let Some(end) = end.filter(|end| pending.len() >= end + length) {
            let body = pending[end..end + length].to_vec();
            let head = String::from_utf8_lossy(&pending[..end]).into_owned();
            pending.drain(..end + length);
            let mut line = head.split_whitespace().map(str::to_owned);
            return Some(Request { path: line.nth(1)?, head, body });
        }
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => pending.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}

async fn answer(stream: &mut TcpStream, request: &Request, shared: &Shared) -> std::io::Result<()> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let number = || query.split_once('=').and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0);
    if path == "/gate" {
        if request.head.starts_with("HEAD") {
            return say(stream, 200, "text/plain", "").await;
        }
        return trickle(stream, shared).await;
    }
    if request.header("authorization") != Some(&format!("Bearer {}", shared.token)) {
        return say(stream, 401, "text/plain", "who are you?").await;
    }
    match path {
        "/effect" | "/gated" => {
            let idempotency = request.header("idempotency-key").unwrap_or("none").to_owned();
            let effect = (request.json("key"), idempotency);
            shared.effects.lock().unwrap_or_else(PoisonError::into_inner).push(effect);
            if path == "/gated" {
                wait_at_gate(stream, shared).await?;
            }
            say(stream, 200, "application/json", r#"{"done": true}"#).await
        }
        "/rows" => {
            let rows: Vec<Value> = (1..=number()).map(|n| serde_json::json!({"n": n, "t": "a text"})).collect();
            say(stream, 200, "application/json", &Value::from(rows).to_string()).await
        }
        "/large" => large(stream, number()).await,
        "/failing" => say(stream, 422, "text/plain", "it cannot be done").await,
        "/repeat" => say(stream, 422, "application/json", &String::from_utf8_lossy(&request.body)).await,
        _ => say(stream, 404, "text/plain", "there is no such thing").await,
    }
}

/// Lines of 0 until the gate opens, then a 1. They are long because ClickHouse waits until a buffer is full: whoever reads
/// them can be stopped between two.
async fn trickle(stream: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut gate = shared.gate.subscribe();
    let line = format!("{}\n", "0".repeat(16 * 1024 - 1));
    stream.write_all(b"HTTP/1.1 200 X\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n").await?;
    while !*gate.borrow_and_update() {
        stream.write_all(line.as_bytes()).await?;
        let _ = tokio::time::timeout(Duration::from_millis(300), gate.changed()).await;
    }
    stream.write_all(b"1\n").await?;
    Err(std::io::ErrorKind::ConnectionAborted.into())
}

/// Counted as held until the gate opens; ends too when the client has gone.
async fn wait_at_gate(stream: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
    shared.held.fetch_add(1, SeqCst);
    let mut gate = shared.gate.subscribe();
    let mut byte = [0];
    let waited = tokio::select! {
        _ = gate.wait_for(|open| *open) => Ok(()),
        gone = stream.read(&mut byte) => Err(gone.err().unwrap_or(std::io::ErrorKind::UnexpectedEof.into())),
    };
    shared.held.fetch_sub(1, SeqCst);
    waited
}

async fn say(stream: &mut TcpStream, status: u16, kind: &str, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

/// CSV of at least so many bytes.
async fn large(stream: &mut TcpStream, bytes: u64) -> std::io::Result<()> {
    let line = format!("1,{}\n", "x".repeat(1021));
    let block = line.repeat(64);
    let blocks = bytes / block.len() as u64 + 1;
    let length = 4 + blocks * block.len() as u64;
    let head = format!("HTTP/1.1 200 X\r\nContent-Type: text/csv\r\nContent-Length: {length}\r\n\r\nn,t\n");
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..blocks {
        stream.write_all(block.as_bytes()).await?;
    }
    Ok(())
}
