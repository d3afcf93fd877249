//! Something between a client and a server that counts the protocol's messages and cuts the connection at one of them.
//!
//! Plain text only. Once it has cut, everything else passes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::Result;

/// Whose message is not delivered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// Where to cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub from: From,
    /// The first message that is not delivered, counted from the connection's beginning.
    pub message: usize,
    /// The server is not told: its side stays open.
    pub hold: bool,
}

#[derive(Default)]
struct State {
    cut: Option<Cut>,
    held: Vec<TcpStream>,
}

pub struct Proxy {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    pub fn start(server: u16) -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                for from in [From::Client, From::Server] {
                    let (Ok(client), Ok(server)) = (client.try_clone(), server.try_clone()) else { continue };
                    let state = shared.clone();
                    thread::spawn(move || pump(from, client, server, &state));
                }
            }
        });
        Ok(Proxy { port, state })
    }

    pub fn cut_at(&self, cut: Cut) {
        self.state.lock().unwrap().cut = Some(cut);
    }

    /// Whether it has cut since `cut_at`.
    pub fn has_cut(&self) -> bool {
        self.state.lock().unwrap().cut.is_none()
    }

    pub fn let_go(&self) {
        let mut state = self.state.lock().unwrap();
        state.held.clear();
        state.cut = None;
    }
}

fn pump(from: From, mut client: TcpStream, mut server: TcpStream, state: &Mutex<State>) {
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut number = 0;
    let mut typed = from == From::Server;
    loop {
        let source = if from == From::Client { &mut client } else { &mut server };
        let Ok(message) = read(source, typed) else { break };
        typed = true;
        number += 1;
        {
            let mut state = state.lock().unwrap();
            if let Some(cut) = state.cut.filter(|cut| cut.from == from && cut.message == number) {
                state.cut = None;
                let _ = client.shutdown(Shutdown::Both);
                if cut.hold {
                    state.held.push(server);
                } else {
                    let _ = server.shutdown(Shutdown::Both);
                }
                return;
            }
        }
        let sink = if from == From::Client { &mut server } else { &mut client };
        if sink.write_all(&message).is_err() {
            break;
        }
    }
    // Unless the server is to be held: then the other direction has closed the client only.
    if state.lock().unwrap().held.is_empty() {
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}

/// A whole message: its kind (but for the first of a client), its length, the rest.
fn read(source: &mut TcpStream, typed: bool) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; if typed { 5 } else { 4 }];
    source.read_exact(&mut message)?;
    let length = message[message.len() - 4..].iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    let head = message.len();
    message.resize(head + length.saturating_sub(4), 0);
    source.read_exact(&mut message[head..])?;
    Ok(message)
}
