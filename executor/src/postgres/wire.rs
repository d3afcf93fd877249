//! The stream under a connection: negotiates TLS as `sslmode` says, and watches what the server says while it logs us in.
//!
//! tokio-postgres is told that every connection speaks TLS at once, so that it hands the fresh socket to `Negotiator`, which
//! asks for TLS itself and gives back either the socket or what is in the tunnel. So both can be watched: whether the server
//! asked for a password (which libpq tells by PQconnectionUsedPassword and tokio-postgres does not), and which process id it
//! announces (a pooler announces another than the backend has).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::Socket;
use tokio_postgres_rustls::MakeRustlsConnect;

type Boxed = Box<dyn std::error::Error + Send + Sync>;
type Tunnel = Box<dyn TlsStream + Unpin + Send>;

/// What the server said before the session began.
#[derive(Debug, Default)]
pub struct Seen {
    asked_for_password: AtomicBool,
    process_id: AtomicI32,
}

impl Seen {
    pub fn asked_for_password(&self) -> bool {
        self.asked_for_password.load(Ordering::Relaxed)
    }

    /// The process id that cancel requests name.
    pub fn process_id(&self) -> i32 {
        self.process_id.load(Ordering::Relaxed)
    }
}

/// The server answered that it has no TLS where it is demanded.
#[derive(Debug)]
pub struct NotOffered;

impl std::fmt::Display for NotOffered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the server does not support TLS")
    }
}

impl std::error::Error for NotOffered {}

/// How one connection is to be encrypted.
#[derive(Clone)]
pub enum Encryption {
    Never,
    IfOffered(Arc<ClientConfig>),
    Always(Arc<ClientConfig>),
    /// Without asking first.
    AtOnce(Arc<ClientConfig>),
}

/// Hands out the stream of one connection, or of a cancel request for it.
#[derive(Clone)]
pub struct Negotiator {
    pub encryption: Encryption,
    /// The name that the certificate must have.
    pub name: String,
    pub seen: Arc<Seen>,
    /// The other side closes: so a cancel request ends, when it has been dealt with. A pooler forgets those whose sender is
    /// gone (pgbouncer 1.18 even dies of them).
    pub they_close: bool,
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

impl Negotiator {
    async fn negotiate<S>(self, mut stream: S) -> Result<Watched<S>, Boxed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = match &self.encryption {
            Encryption::Never => return Ok(Watched::new(Transport::Plain(stream), self.seen, self.they_close)),
            Encryption::AtOnce(config) => config.clone(),
            Encryption::IfOffered(config) | Encryption::Always(config) => {
                stream.write_all(&SSL_REQUEST).await?;
                // One byte and no more: what follows belongs to the handshake, so that nothing can be slipped in before it.
                match stream.read_u8().await? {
                    b'S' => config.clone(),
                    b'N' if matches!(self.encryption, Encryption::IfOffered(_)) => {
                        return Ok(Watched::new(Transport::Plain(stream), self.seen, self.they_close));
                    }
                    b'N' => return Err(Box::new(NotOffered)),
                    // 'E': the server is too busy to start a process.
                    _ => return Err(Box::new(io::Error::from(io::ErrorKind::ConnectionReset))),
                }
            }
        };
        let mut maker = MakeRustlsConnect::new((*config).clone());
        let connect = <MakeRustlsConnect as MakeTlsConnect<S>>::make_tls_connect(&mut maker, &self.name)?;
        let tunnel = connect.connect(stream).await?;
        Ok(Watched::new(Transport::Tls(Box::new(tunnel)), self.seen, self.they_close))
    }
}

impl<S> TlsConnect<S> for Negotiator
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Watched<S>;
    type Error = Boxed;
    type Future = Pin<Box<dyn Future<Output = Result<Watched<S>, Boxed>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(self.negotiate(stream))
    }
}

impl MakeTlsConnect<Socket> for Negotiator {
    type Stream = Watched<Socket>;
    type TlsConnect = Negotiator;
    type Error = std::convert::Infallible;

    fn make_tls_connect(&mut self, _: &str) -> Result<Negotiator, Self::Error> {
        Ok(self.clone())
    }
}

enum Transport<S> {
    Plain(S),
    Tls(Tunnel),
}

/// A stream whose first messages are read along.
pub struct Watched<S> {
    transport: Transport<S>,
    login: Option<Login>,
    they_close: bool,
}

impl<S> Watched<S> {
    fn new(transport: Transport<S>, seen: Arc<Seen>, they_close: bool) -> Self {
        Watched { transport, login: Some(Login { seen, head: Vec::new(), skip: 0 }), they_close }
    }
}

/// Reads the server's messages along until the first `ReadyForQuery`.
struct Login {
    seen: Arc<Seen>,
    /// The beginning of a message: its kind, its length, and four bytes of what it says.
    head: Vec<u8>,
    skip: usize,
}

impl Login {
    /// Whether the session has begun.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let Some((first, rest)) = bytes.split_first() else { return false };
            self.head.push(*first);
            bytes = rest;
            if self.head.len() < 5 {
                continue;
            }
            let length = u32::from_be_bytes([self.head[1], self.head[2], self.head[3], self.head[4]]) as usize;
            // The length counts itself.
            if self.head.len() < 9 && self.head.len() < length + 1 {
                continue;
            }
            if self.head.len() == 9 {
                let word = i32::from_be_bytes([self.head[5], self.head[6], self.head[7], self.head[8]]);
                match self.head[0] {
                    // Clear text, MD5, SCRAM.
                    b'R' if [3, 5, 10].contains(&word) => self.seen.asked_for_password.store(true, Ordering::Relaxed),
                    b'K' => self.seen.process_id.store(word, Ordering::Relaxed),
                    _ => {}
                }
            }
            if self.head[0] == b'Z' {
                return true;
            }
            self.skip = (length + 1).saturating_sub(self.head.len());
            self.head.clear();
        }
        false
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let from = buf.filled().len();
        let polled = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if self.login.as_mut().is_some_and(|login| login.read(&buf.filled()[from..])) {
            self.login = None;
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.they_close {
            let mut bytes = [0; 64];
            let mut buf = ReadBuf::new(&mut bytes);
            let polled = self.as_mut().poll_read(cx, &mut buf);
            self.they_close = match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => !buf.filled().is_empty(),
                Poll::Ready(Err(_)) => false,
            };
        }
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Watched<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.transport {
            Transport::Plain(_) => ChannelBinding::none(),
            Transport::Tls(stream) => stream.channel_binding(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    fn login(messages: &[Vec<u8>], piece: usize) -> (bool, bool, i32) {
        let seen = Arc::new(Seen::default());
        let mut login = Login { seen: seen.clone(), head: Vec::new(), skip: 0 };
        let bytes = messages.concat();
        let begun = bytes.chunks(piece).any(|chunk| login.read(chunk));
        (begun, seen.asked_for_password(), seen.process_id())
    }

    #[test]
    fn a_login_is_read_along_in_whatever_pieces_it_comes() {
        let rest = [
            message(b'S', b"server_version\x0015\0"),
            message(b'N', b""),
            message(b'K', &[0, 0, 1, 2, 9, 9, 9, 9]),
            message(b'Z', b"I"),
        ];
        for piece in [1, 2, 3, 5, 7, 1000] {
            let scram = [&[message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), message(b'R', &[0; 4])], &rest[..]].concat();
            assert_eq!(login(&scram, piece), (true, true, 258));
            let trust = [&[message(b'R', &[0; 4])], &rest[..]].concat();
            assert_eq!(login(&trust, piece), (true, false, 258));
            // A password is asked for by 3, 5 and 10, not by what only goes on with it.
            assert_eq!(login(&[message(b'R', &[0, 0, 0, 12])], piece), (false, false, 0));
        }
    }
}
