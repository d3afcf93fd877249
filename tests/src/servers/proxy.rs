//! A TCP proxy between a client and a server that breaks connections where a test says. It knows no protocol.
//!
//! A cut is an abrupt end on the client's side (a reset) and an ordinary one on the server's, so that the server has read
//! whatever was passed on before. What cuts is armed once, and cuts once.

use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::place::free_port;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// Whether a pattern that cuts a connection still gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    Withheld,
    /// Nor does what was sent with it: mostly the whole message.
    WithheldWithAll,
    PassedOn,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Connections are refused; those that are open go on.
    Refuse,
    /// Connections are accepted, but nothing passes in either direction.
    Stall,
}

enum Trap {
    /// So many more bytes pass.
    Bytes(Direction, u64),
    BytesOf(Direction, Vec<u8>, Pattern),
}

struct State {
    trap: Option<Trap>,
    connections: u64,
    open: u64,
    cuts: u64,
    passed: [u64; 2],
}

struct Shared {
    server: u16,
    state: Mutex<State>,
    mode: watch::Sender<Mode>,
    listens: watch::Sender<bool>,
    /// Every connection that was open when it changes is cut.
    cut: watch::Sender<u64>,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Proxy {
    /// In front of a port of this machine.
    pub fn to(server: u16) -> Result<Proxy> {
        let port = free_port()?;
        let state = State { trap: None, connections: 0, open: 0, cuts: 0, passed: [0; 2] };
        let shared = Arc::new(Shared {
            server,
            state: Mutex::new(state),
            mode: watch::Sender::new(Mode::Pass),
            listens: watch::Sender::new(true),
            cut: watch::Sender::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = listen(port)?;
        runtime.spawn(accept(port, listener, shared.clone()));
        Ok(Proxy { port, shared, runtime: Some(runtime) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every open connection, in both directions at once.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|count| *count += 1);
    }

    /// Cuts the connection over which the byte after the next `count` would pass.
    pub fn cut_after(&self, direction: Direction, count: u64) {
        self.shared.state().trap = Some(Trap::Bytes(direction, count));
    }

    /// Cuts the connection over which these bytes pass.
    pub fn cut_at(&self, direction: Direction, bytes: &[u8], pattern: Pattern) {
        self.shared.state().trap = Some(Trap::BytesOf(direction, bytes.to_vec(), pattern));
    }

    /// Refuses connections from now on, and cuts those that are open: the server is down.
    pub fn refuse(&self) {
        self.set(Mode::Refuse);
        self.cut();
    }

    /// From now on nothing passes, and nobody is told: a black hole.
    pub fn stall(&self) {
        self.set(Mode::Stall);
    }

    /// Everything passes again; what was armed is not any more.
    pub fn heal(&self) {
        self.shared.state().trap = None;
        self.set(Mode::Pass);
    }

    fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        // The listener is opened or closed by another thread: the caller may rely on it.
        let until = Instant::now() + Duration::from_secs(10);
        while *self.shared.listens.borrow() == (mode == Mode::Refuse) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.state().connections
    }

    pub fn open(&self) -> u64 {
        self.shared.state().open
    }

    /// Connections that were cut so far.
    pub fn cuts(&self) -> u64 {
        self.shared.state().cuts
    }

    /// Bytes that have passed in a direction so far.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.shared.state().passed[direction as usize]
    }

    /// Waits until a connection has been cut, beside the first `before`.
    pub fn wait_for_cut(&self, before: u64) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        while self.cuts() <= before {
            ensure!(Instant::now() < until, "nothing was cut: what was to cut has not passed");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of a chunk may pass, and whether the connection is cut then. `seen` holds what came before the chunk, as
    /// far as a pattern may have begun in it.
    fn examine(&self, direction: Direction, seen: &mut Vec<u8>, chunk: &[u8]) -> (usize, bool) {
        let mut state = self.state();
        let mut pass = (chunk.len(), false);
        match &mut state.trap {
            Some(Trap::Bytes(towards, left)) if *towards == direction => {
                if (chunk.len() as u64) > *left {
                    pass = (*left as usize, true);
                } else {
                    *left -= chunk.len() as u64;
                }
            }
            Some(Trap::BytesOf(towards, bytes, pattern)) if *towards == direction => {
                let before = seen.len();
                seen.extend_from_slice(chunk);
                if let Some(at) = seen.windows(bytes.len()).position(|window| window == bytes) {
                    let end = match pattern {
                        Pattern::PassedOn => at + bytes.len(),
                        Pattern::Withheld => at,
                        Pattern::WithheldWithAll => 0,
                    };
                    pass = (end.saturating_sub(before), true);
                }
                let keep = bytes.len().saturating_sub(1).min(seen.len());
                seen.drain(..seen.len() - keep);
            }
            _ => seen.clear(),
        }
        if pass.1 {
            state.trap = None;
        }
        state.passed[direction as usize] += pass.0 as u64;
        pass
    }
}

fn listen(port: u16) -> Result<StdListener> {
    let listener = StdListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn accept(port: u16, first: StdListener, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    let mut listener = TcpListener::from_std(first).ok();
    loop {
        let refuse = *mode.borrow_and_update() == Mode::Refuse;
        if refuse {
            listener = None;
        } else if listener.is_none() {
            listener = listen(port).ok().and_then(|listener| TcpListener::from_std(listener).ok());
            if listener.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        }
        shared.listens.send_replace(!refuse);
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            Ok((client, _)) = accepted => {
                shared.state().connections += 1;
                tokio::spawn(connection(client, shared.clone()));
            }
        }
    }
}

async fn connection(mut client: TcpStream, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    cut.mark_unchanged();
    shared.state().open += 1;
    let was_cut = match TcpStream::connect(("127.0.0.1", shared.server)).await {
        Ok(mut server) => {
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let both = async {
                tokio::select! {
                    true = pump(Direction::ToServer, from_client, to_server, &shared) => true,
                    true = pump(Direction::ToClient, from_server, to_client, &shared) => true,
                    else => false,
                }
            };
            tokio::select! {
                was_cut = both => was_cut,
                _ = cut.changed() => true,
            }
        }
        // A server that is down: the client sees a connection that ends at once.
        Err(_) => true,
    };
    if was_cut {
        let _ = client.set_zero_linger();
    }
    drop(client);
    let mut state = shared.state();
    state.open -= 1;
    state.cuts += u64::from(was_cut);
}

/// Passes bytes on until the end. True: the connection is to be cut.
async fn pump(direction: Direction, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, shared: &Shared) -> bool {
    let mut mode = shared.mode.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    let mut seen = Vec::new();
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return false;
            }
            Ok(count) => count,
            // One side was reset: so is the other.
            Err(_) => return true,
        };
        if mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
            return true;
        }
        let (pass, cut) = shared.examine(direction, &mut seen, &buffer[..count]);
        if to.write_all(&buffer[..pass]).await.is_err() || cut {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// A server that sends back what it gets, and tells how much that was when a connection has ended.
    fn echo() -> (u16, std::sync::mpsc::Receiver<usize>) {
        let listener = StdListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, tell) = (stream.unwrap(), tell.clone());
                std::thread::spawn(move || {
                    let (mut total, mut buffer) = (0, [0; 1024]);
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        total += count;
                        let _ = stream.write_all(&buffer[..count]);
                    }
                    let _ = tell.send(total);
                });
            }
        });
        (port, told)
    }

    fn client(proxy: &Proxy) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    fn round_trip(stream: &mut std::net::TcpStream, text: &str) -> std::io::Result<String> {
        stream.write_all(text.as_bytes())?;
        let mut buffer = vec![0; text.len()];
        stream.read_exact(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }

    #[test]
    fn a_proxy_passes_and_cuts_where_it_is_told() {
        let (server, received) = echo();
        let proxy = Proxy::to(server).unwrap();
        let mut stream = client(&proxy);
        assert_eq!(round_trip(&mut stream, "hello").unwrap(), "hello");
        drop(stream);
        assert_eq!((received.recv().unwrap(), proxy.cuts()), (5, 0));

        let cases: [(&dyn Fn(), usize); 5] = [
            (&|| proxy.cut_after(Direction::ToServer, 7), 7),
            (&|| proxy.cut_at(Direction::ToServer, b"56", Pattern::Withheld), 5),
            (&|| proxy.cut_at(Direction::ToServer, b"56", Pattern::WithheldWithAll), 0),
            (&|| proxy.cut_at(Direction::ToServer, b"56", Pattern::PassedOn), 7),
            (&|| proxy.cut_at(Direction::ToClient, b"56", Pattern::Withheld), 10),
        ];
        for (number, (arm, arrives)) in cases.iter().enumerate() {
            let mut stream = client(&proxy);
            arm();
            assert!(round_trip(&mut stream, "0123456789").is_err());
            proxy.wait_for_cut(number as u64).unwrap();
            assert_eq!(received.recv().unwrap(), *arrives);
            // Only once.
            assert_eq!(round_trip(&mut client(&proxy), "0123456789").unwrap(), "0123456789");
            received.recv().unwrap();
        }

        // A pattern in two chunks.
        let mut stream = client(&proxy);
        proxy.cut_at(Direction::ToServer, b"ab", Pattern::PassedOn);
        assert_eq!(round_trip(&mut stream, "xa").unwrap(), "xa");
        assert!(round_trip(&mut stream, "by").is_err());
        assert_eq!(received.recv().unwrap(), 3);
    }

    #[test]
    fn a_proxy_refuses_stalls_and_heals() {
        let (server, _received) = echo();
        let proxy = Proxy::to(server).unwrap();
        let mut open = client(&proxy);
        assert_eq!(round_trip(&mut open, "a").unwrap(), "a");
        proxy.refuse();
        assert!(std::net::TcpStream::connect(("127.0.0.1", proxy.port())).is_err());
        assert!(round_trip(&mut open, "b").is_err());
        proxy.heal();
        let mut open = client(&proxy);
        assert_eq!(round_trip(&mut open, "c").unwrap(), "c");
        proxy.stall();
        open.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(round_trip(&mut open, "d").is_err());
        proxy.heal();
        let mut late = [0];
        open.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        open.read_exact(&mut late).unwrap();
        assert_eq!(&late, b"d");
        proxy.cut();
        assert!(round_trip(&mut open, "e").is_err());
        proxy.wait_for_cut(1).unwrap();
        assert_eq!(proxy.connections(), 2);
    }
}
