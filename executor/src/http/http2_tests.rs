//! HTTP/2, where the other side speaks it: many requests on one connection.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::job::Work;

const TOGETHER: usize = 50;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn acceptor(directory: &std::path::Path) -> TlsAcceptor {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=server", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success());
    let certificate = CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// What happens to a request.
#[derive(Clone, Copy)]
enum Play {
    /// The first is answered at once, others when so many wait.
    Answer,
    /// The server says that it has not looked at it, once; then it answers.
    RefuseFirst,
    /// The stream ends without an answer.
    Reset,
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, play: Play) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let mut waiting: Vec<u32> = Vec::new();
    let mut requests = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match kind {
            SETTINGS if flags & ACK == 0 => stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?,
            GOAWAY => return Ok(()),
            HEADERS | DATA if flags & END_STREAM != 0 => {
                requests += 1;
                match play {
                    Play::Reset => stream.write_all(&frame(RST_STREAM, 0, id, &2u32.to_be_bytes())).await?,
                    Play::RefuseFirst if requests == 1 => {
                        stream.write_all(&frame(RST_STREAM, 0, id, &7u32.to_be_bytes())).await?;
                    }
                    _ => waiting.push(id),
                }
                let held = matches!(play, Play::Answer) && requests > 1 && waiting.len() < TOGETHER;
                for id in if held { Vec::new() } else { std::mem::take(&mut waiting) } {
                    // 0x88: `:status: 200`.
                    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88])).await?;
                }
            }
            _ => {}
        }
        stream.flush().await?;
    }
}

struct Served {
    port: u16,
    connections: Arc<AtomicUsize>,
    directory: PathBuf,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn served(play: Play) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let directory = std::env::temp_dir().join(format!("pgflow-http2-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let acceptor = acceptor(&directory);
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            tokio::spawn(serve(stream, acceptor.clone(), play));
        }
    });
    Served { port, connections, directory }
}

fn job(served: &Served) -> Job {
    let options = json!({
        "base_url": format!("https://127.0.0.1:{}", served.port), "allow_private": true, "verify": "none", "timeout": 120
    });
    let target = Target {
        kind: "http".into(),
        options: options.as_object().cloned().unwrap(),
        connection_options: BTreeMap::new(),
        ..Target::default()
    };
    let options = json!({"request": {"body": {"a": 1}}}).as_object().cloned().unwrap();
    Job { target: Arc::new(target), work: Work { options, ..Work::default() }, ..Job::default() }
}

fn context() -> Context {
    Context { stop: Default::default(), progress: Arc::new(|_| {}) }
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let served = served(Play::Answer).await;
    let http = Http::default();
    let (job, context) = (job(&served), context());
    assert!(matches!(http.run(&job, &context).await, Ending::Finished(_)));
    let all = (0..TOGETHER).map(|_| http.run(&job, &context));
    for ending in futures_util::future::join_all(all).await {
        assert!(matches!(ending, Ending::Finished(_)), "{ending:?}");
    }
    assert_eq!(served.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn what_the_other_side_has_not_looked_at_is_sent_again_and_what_it_broke_off_is_unknown() {
    let served_once = served(Play::RefuseFirst).await;
    let ending = Http::default().run(&job(&served_once), &context()).await;
    assert!(matches!(ending, Ending::Finished(_)), "{ending:?}");
    let served = served(Play::Reset).await;
    let ending = Http::default().run(&job(&served), &context()).await;
    assert!(matches!(ending, Ending::Lost(_)), "{ending:?}");
}
