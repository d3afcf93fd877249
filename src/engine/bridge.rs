//! In a worker: the line to the executor, which is a thread of the dispatcher's process. Rows from elsewhere come in
//! through it, rows of a local query go out to an object store. See `pgflow_executor::bridge` for what is said.
//!
//! The worker is in its task's transaction while it waits here, and can be cancelled.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::Ordering::*;

use pgflow_executor::bridge::{Broken, BrokenKind, Frame};
use pgrx::{pg_sys, PgSqlErrorCode};

use super::own_task::Attempt;
use super::shmem::my_database;
use crate::error::raise;

/// The dispatcher that does not listen after this long never will (microseconds).
const PATIENCE: i64 = 20_000_000;

/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;

/// Where a database's dispatcher listens, from the data directory, which is where every process of the server is: below
/// what the server empties when it starts, and what backups leave out.
pub fn socket(database: u32) -> PathBuf {
    PathBuf::from(format!("base/pgsql_tmp/pgsql_tmp.pgflow.{database}"))
}

thread_local! {
    /// Why the task came to nothing elsewhere, for whoever writes its outcome.
    static BROKEN: RefCell<Option<Broken>> = const { RefCell::new(None) };
}

/// What the last task met elsewhere, if that is not simply a failure.
pub fn broken() -> Option<Broken> {
    BROKEN.take()
}

pub struct Line {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// What is read at once.
    piece: Vec<u8>,
}

impl Line {
    /// Connects, and has the executor take the job of this attempt.
    pub fn open(attempt: Attempt) -> Line {
        BROKEN.set(None);
        // SAFETY: reading a process-global OID.
        let path = socket(unsafe { pg_sys::MyDatabaseId }.to_u32());
        let until = crate::store::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(error) if crate::store::now() > until => cannot(&error),
                Err(_) => {
                    if let Some(database) = my_database() {
                        database.wants_executor.store(true, Release);
                        database.dispatcher.wake();
                    }
                    super::process::wait_briefly(20);
                }
            }
        };
        if let Err(error) = stream.set_nonblocking(true) {
            cannot(&error);
        }
        let mut line = Line { stream, buffer: Vec::new(), piece: vec![0; PIECE] };
        line.send(&Frame::Hello { task_id: attempt.task_id, attempt: attempt.attempt });
        match line.receive() {
            Frame::Ready => line,
            other => unexpected(&other),
        }
    }

    pub fn send(&mut self, frame: &Frame) {
        let bytes = frame.to_bytes().unwrap_or_else(|error| cannot(&error));
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(pg_sys::WL_SOCKET_WRITEABLE),
                // It has hung up because of something it has said.
                Err(_) => match self.receive() {
                    Frame::Ready => self.gone(),
                    other => unexpected(&other),
                },
            }
        }
    }

    /// The next frame. What came to nothing is raised.
    pub fn receive(&mut self) -> Frame {
        loop {
            match Frame::take(&mut self.buffer) {
                Ok(Some(Frame::Broken(broken))) => come_to_nothing(broken),
                Ok(Some(frame)) => return frame,
                Ok(None) => {}
                Err(error) => cannot(&error),
            }
            match self.stream.read(&mut self.piece) {
                Ok(0) => self.gone(),
                Ok(count) => self.buffer.extend_from_slice(&self.piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(pg_sys::WL_SOCKET_READABLE),
                Err(_) => self.gone(),
            }
        }
    }

    fn wait(&self, event: u32) {
        // SAFETY: our own latch and an open socket; the postmaster's death ends the process. An interrupt raises, which
        // closes the socket on the way out.
        unsafe {
            let events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH | event;
            let socket = self.stream.as_raw_fd();
            pg_sys::WaitLatchOrSocket(pg_sys::MyLatch, events as i32, socket, -1, pg_sys::PG_WAIT_EXTENSION);
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        pgrx::check_for_interrupts!();
    }

    /// The dispatcher has ended: what ran elsewhere may have been done.
    fn gone(&self) -> ! {
        let failure = pgflow_executor::job::Failure::new("the dispatcher ended");
        come_to_nothing(Broken { kind: BrokenKind::Lost, failure, after: None })
    }
}

fn come_to_nothing(broken: Broken) -> ! {
    let failure = broken.failure.clone();
    if broken.kind != BrokenKind::Failed {
        BROKEN.set(Some(broken));
    }
    let message = failure.code.map_or(failure.message.clone(), |code| format!("{} ({code})", failure.message));
    raise(PgSqlErrorCode::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION, message, failure.detail, failure.hint.as_deref())
}

fn cannot(error: &dyn std::fmt::Display) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
        format!("the worker cannot reach the executor: {error}"),
        None,
        Some("The executor is a thread of the dispatcher: see the server's log."),
    )
}

fn unexpected(frame: &Frame) -> ! {
    cannot(&format!("unexpected {}", format!("{frame:?}").chars().take(40).collect::<String>()))
}
