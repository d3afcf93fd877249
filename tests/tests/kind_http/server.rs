//! A small HTTP/1.1 server that does as the path says, and remembers what it was sent.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `POST /path?query`.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What a server does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Status, headers (a line each), body.
    Full(u16, Vec<String>, Vec<u8>),
    /// Written as it is; then the connection is closed.
    Raw(Vec<u8>),
    /// Written as it is; then nothing more comes.
    Hang(Vec<u8>),
    /// A body of this many bytes, in chunks, without a length.
    Endless(usize),
    Close,
}

pub fn answer(status: u16, headers: &[&str], body: &str) -> Answer {
    Answer::Full(status, headers.iter().map(|h| (*h).to_owned()).collect(), body.as_bytes().to_vec())
}

pub fn json(body: &str) -> Answer {
    answer(200, &["Content-Type: application/json; charset=utf-8"], body)
}

type Handler = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

#[derive(Clone)]
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// On a port that the system gives.
pub async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port that nobody listens on, for as long as this is held.
pub fn nobody() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// Waits for what must come, for longer than any machine is slow.
pub async fn until(condition: impl Fn() -> bool) {
    for _ in 0..24_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come");
}

impl Server {
    pub async fn start(handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Server {
        let (listener, port) = listen().await;
        let server = Server {
            port,
            seen: Arc::default(),
            connections: Arc::default(),
            open: Arc::default(),
            most: Arc::default(),
        };
        let handler: Handler = Arc::new(handler);
        let accepting = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, SeqCst);
                let (server, handler) = (accepting.clone(), handler.clone());
                tokio::spawn(async move {
                    // A client that goes away is what some tests are about.
                    let _ = server.serve(stream, handler).await;
                });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// Requests that were open at the same time.
    pub fn most_at_once(&self) -> usize {
        self.most.load(SeqCst)
    }

    pub fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    async fn serve(&self, mut stream: TcpStream, handler: Handler) -> io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(seen) = read(&mut stream, &mut buffer).await? {
            self.seen.lock().unwrap().push(seen.clone());
            let now = self.open.fetch_add(1, SeqCst) + 1;
            self.most.fetch_max(now, SeqCst);
            // Answered when so many are there.
            let together = seen.header("x-together").and_then(|n| n.parse().ok()).unwrap_or(0);
            until(|| self.most_at_once() >= together).await;
            let goes_on = reply(&mut stream, handler(&seen)).await;
            self.open.fetch_sub(1, SeqCst);
            if !goes_on? {
                break;
            }
        }
        Ok(())
    }
}

/// One request; None when the client has closed.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Seen>> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
    while buffer.len() < head + 4 + length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = String::from_utf8_lossy(&buffer[head + 4..head + 4 + length]).into_owned();
    buffer.drain(..head + 4 + length);
    Ok(Some(Seen { line, headers, body }))
}

/// False: the connection is done with.
async fn reply(stream: &mut TcpStream, answer: Answer) -> io::Result<bool> {
    match answer {
        Answer::Full(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
            headers.iter().for_each(|line| head.push_str(&format!("{line}\r\n")));
            head.push_str("\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
            Ok(true)
        }
        Answer::Raw(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
            Ok(false)
        }
        Answer::Hang(bytes) => {
            stream.write_all(&bytes).await?;
            // Until the client goes.
            let mut rest = [0; 16];
            while stream.read(&mut rest).await? > 0 {}
            Ok(false)
        }
        Answer::Endless(bytes) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
            for _ in 0..bytes / 0x4000 {
                stream.write_all(chunk.as_bytes()).await?;
            }
            stream.write_all(b"0\r\n\r\n").await?;
            Ok(true)
        }
        Answer::Close => Ok(false),
    }
}

/// An authority, a certificate of it, and `openssl s_server` with that: TLS by somebody else's code.
pub struct TlsServer {
    pub port: u16,
    pub authority: PathBuf,
    directory: PathBuf,
    child: Child,
}

impl TlsServer {
    /// Tells about the connection, whatever it is asked. `name`: the certificate's subject alternative name, such as
    /// `IP:127.0.0.1`.
    pub async fn start(name: &str) -> TlsServer {
        TlsServer::serving(name, None).await
    }

    /// `page`: the whole of what it answers to `GET /page`.
    pub async fn serving(name: &str, page: Option<&str>) -> TlsServer {
        let number = STARTED.fetch_add(1, SeqCst);
        let directory = std::env::temp_dir().join(format!("pgflow-http-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        certificates(&directory, name);
        if let Some(page) = page {
            std::fs::write(directory.join("page"), page).unwrap();
        }
        let told = directory.join("told");
        let child = Command::new("openssl")
            .args(["s_server", if page.is_some() { "-HTTP" } else { "-www" }, "-accept", "127.0.0.1:0"])
            .args(["-cert", "server.pem", "-key", "server.key"])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&told).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let authority = directory.join("ca.pem");
        let mut server = TlsServer { port: 0, authority, directory, child };
        until(|| accepting(&told).is_some()).await;
        server.port = accepting(&told).unwrap();
        server
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

/// `ACCEPT 127.0.0.1:40123`, once it listens.
fn accepting(told: &Path) -> Option<u16> {
    let told = std::fs::read_to_string(told).ok()?;
    let line = told.lines().find(|line| line.starts_with("ACCEPT") && told.contains(&format!("{line}\n")))?;
    line.rsplit_once(':')?.1.trim().parse().ok()
}

static STARTED: AtomicUsize = AtomicUsize::new(0);

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn certificates(directory: &Path, name: &str) {
    let extensions = directory.join("extensions");
    std::fs::write(&extensions, format!("subjectAltName={name}\nbasicConstraints=CA:FALSE\n")).unwrap();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    openssl(
        directory,
        &[&["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority"][..], &key].concat(),
    );
    let request = ["req", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server"];
    openssl(directory, &[&request[..], &key[..5]].concat());
    let sign =
        ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
    openssl(directory, &[&sign[..], &["-out", "server.pem", "-extfile", "extensions"]].concat());
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
