//! The way between the local workers of a server and the executor: a Unix socket that only the server's own operating
//! system user can reach.
//!
//! A worker that needs the executor (rows from elsewhere for a table of its role's, rows of its own for an object store)
//! connects and names its task. Whoever drives the executor is asked (`Report::Wanted`) and answers with a job or a
//! refusal; nothing is run on a worker's word alone. Then rows flow one way, in bounded pieces, and an ending the other.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::job::{Ending, Failure, Job, Notice};
use crate::kind::{Context, Progress};
use crate::results::{Batch, Column, Keep, Kept, Rows};
use crate::runner::{masked, OnProgress, Outbox, Report};
use crate::storable;

/// A frame larger than this is not ours (a batch of rows may hold large values).
const FRAME_MAX: usize = 1 << 30;
/// How long a worker may take to say who it is, and whoever drives the executor to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What goes over the socket: the length in four bytes, little end first, then JSON.
#[derive(Debug, Serialize, Deserialize)]
pub enum Frame {
    /// The worker's first.
    Hello {
        task_id: i64,
        attempt: i32,
    },
    /// The executor's first: it has a job for this task.
    Ready,
    Columns(Vec<Column>),
    Rows(Vec<Vec<Value>>),
    /// The worker has sent every row.
    NoMore,
    /// Everything is done. After `NoMore`: what was kept.
    Done {
        notices: Vec<Notice>,
        kept: Option<Kept>,
    },
    /// It came to nothing.
    Broken(Broken),
}

/// How it came to nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Broken {
    pub kind: BrokenKind,
    pub failure: Failure,
    /// Microseconds, if the other side said when to try again.
    pub after: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BrokenKind {
    Failed,
    /// Nothing was done; may be tried again. `Down`: the target could not be reached.
    Again,
    Down,
    /// It may have been done.
    Lost,
    Stopped,
}

impl Frame {
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, self)?;
        let length = u32::try_from(bytes.len() - 4).map_err(|_| io::ErrorKind::InvalidData)?;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        Ok(bytes)
    }

    /// The frame at the start of what has been read, taken out of it; None: there is more to come.
    pub fn take(buffer: &mut Vec<u8>) -> io::Result<Option<Frame>> {
        let Some(length) = buffer.get(..4) else { return Ok(None) };
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if length > FRAME_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(body) = buffer.get(4..4 + length) else { return Ok(None) };
        let frame = serde_json::from_slice(body)?;
        buffer.drain(..4 + length);
        Ok(Some(frame))
    }
}

/// What a worker's task is to be.
pub enum Offer {
    /// Rows come from elsewhere: the job's kind runs it, whatever its `keep` says.
    Fetch(Box<Job>, OnProgress),
    /// Rows come from the worker: they are kept as the job's `keep` says.
    Store(Box<Job>),
    Refuse(Failure),
    /// The target cannot be reached now: to be asked for again after that time.
    Later(Failure, Duration),
}

/// Workers that wait for the answer about their task's attempt.
type Waiting = Arc<Mutex<HashMap<(i64, i32), oneshot::Sender<Offer>>>>;

/// The executor's end.
#[derive(Clone)]
pub(crate) struct Bridge {
    kinds: crate::runner::Kinds,
    outbox: Outbox,
    waiting: Waiting,
    /// Cancelled when the executor ends.
    end: CancellationToken,
}

impl Bridge {
    pub fn new(kinds: crate::runner::Kinds, outbox: Outbox, end: CancellationToken) -> Self {
        Bridge { kinds, outbox, waiting: Arc::default(), end }
    }

    /// Listens at a path; a socket that an earlier process has left there is replaced. Its directory is made if it is not
    /// there: Postgres makes its own for temporary files only when it needs it.
    pub fn listen(&self, path: PathBuf) -> io::Result<()> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let bridge = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = bridge.end.cancelled() => break,
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => {
                            tokio::spawn(bridge.clone().welcome(stream));
                        }
                        // Out of descriptors, say: the worker's attempt fails by itself.
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    },
                }
            }
            let _ = std::fs::remove_file(&path);
        });
        Ok(())
    }

    /// The answer to `Report::Wanted`.
    pub fn answer(&self, task_id: i64, attempt: i32, offer: Offer) {
        let waiting = self.waiting.lock().map(|mut w| w.remove(&(task_id, attempt)));
        if let Ok(Some(waiting)) = waiting {
            // A worker that has given up meanwhile needs no answer.
            let _ = waiting.send(offer);
        }
    }

    async fn welcome(self, stream: UnixStream) {
        let Some(pid) = stream.peer_cred().ok().and_then(|c| c.pid()) else { return };
        let (read, write) = stream.into_split();
        let (mut read, mut write) = (Reader { half: read, buffer: Vec::new() }, write);
        let hello = tokio::time::timeout(PATIENCE, read.next()).await;
        let Ok(Ok(Some(Frame::Hello { task_id, attempt }))) = hello else { return };
        let (sender, offered) = oneshot::channel();
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.insert((task_id, attempt), sender);
        }
        self.outbox.put(Report::Wanted { task_id, attempt, pid }).await;
        let offer = match tokio::time::timeout(PATIENCE, offered).await {
            Ok(Ok(offer)) => offer,
            _ => Offer::Refuse(Failure::new("the dispatcher did not answer")),
        };
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.remove(&(task_id, attempt));
        }
        let last = match offer {
            Offer::Refuse(failure) => broken(BrokenKind::Failed, failure, None),
            Offer::Later(failure, wait) => broken(BrokenKind::Down, failure, Some(wait)),
            Offer::Fetch(job, progress) => match put(&mut write, &Frame::Ready).await {
                Ok(()) => self.fetch(*job, progress, &mut read, &mut write).await,
                Err(_) => return,
            },
            Offer::Store(job) => match put(&mut write, &Frame::Ready).await {
                Ok(()) => match store(&job, &mut read).await {
                    Some(Ok(kept)) => Frame::Done { notices: Vec::new(), kept: Some(kept) },
                    Some(Err(failure)) => match masked(&job, Ending::Failed(failure)) {
                        Ending::Failed(failure) => broken(BrokenKind::Failed, failure, None),
                        _ => return,
                    },
                    None => return,
                },
                Err(_) => return,
            },
        };
        let _ = put(&mut write, &last).await;
    }

    /// Runs a job and sends its rows to the worker; stops it when the worker hangs up.
    async fn fetch(&self, mut job: Job, progress: OnProgress, read: &mut Reader, write: &mut OwnedWriteHalf) -> Frame {
        let (sender, mut rows) = mpsc::channel(2);
        job.keep = Keep::Worker(sender);
        let stop = self.end.child_token();
        let context = Context { stop: stop.clone(), progress };
        let Some(kind) = self.kinds.get(job.target.kind.as_str()).cloned() else {
            let failure = Failure::new(format!("there is no kind of target {}", job.target.kind));
            return broken(BrokenKind::Failed, failure, None);
        };
        let run = async {
            let (ending, _) = crate::runner::drive(kind.as_ref(), &job, &context).await;
            masked(&job, ending)
        };
        tokio::pin!(run);
        let mut hung_up = false;
        let ending = loop {
            tokio::select! {
                biased;
                Some(batch) = rows.recv() => {
                    let frame = match batch {
                        Batch::Columns(columns) => Frame::Columns(columns),
                        Batch::Rows(rows) => Frame::Rows(rows),
                    };
                    if !hung_up && put(write, &frame).await.is_err() {
                        hung_up = true;
                        stop.cancel();
                    }
                }
                ending = &mut run => break ending,
                // A worker says nothing while it takes rows: whatever comes is its end.
                _ = read.next(), if !hung_up => {
                    hung_up = true;
                    stop.cancel();
                }
            }
        };
        // What was sent before the end is still in the channel.
        while let Ok(batch) = rows.try_recv() {
            let frame = match batch {
                Batch::Columns(columns) => Frame::Columns(columns),
                Batch::Rows(rows) => Frame::Rows(rows),
            };
            if put(write, &frame).await.is_err() {
                break;
            }
        }
        match ending {
            Ending::Finished(done) => Frame::Done { notices: done.notices, kept: None },
            Ending::Failed(failure) => broken(BrokenKind::Failed, failure, None),
            Ending::Again { failure, after, down: true } => {
                let target = job.target.clone();
                self.outbox.put(Report::Probed { target, outcome: Err(failure.clone()) }).await;
                broken(BrokenKind::Down, failure, after)
            }
            Ending::Again { failure, after, down: false } => broken(BrokenKind::Again, failure, after),
            Ending::Lost(failure) => broken(BrokenKind::Lost, failure, None),
            Ending::Stopped => broken(BrokenKind::Stopped, Failure::new("it was stopped"), None),
        }
    }
}

/// Keeps the rows that a worker sends. None: it hung up before the end, and nothing is left of them.
async fn store(job: &Job, read: &mut Reader) -> Option<Result<Kept, Failure>> {
    let mut rows: Option<Rows> = None;
    loop {
        let failed = match read.next().await {
            Ok(Some(Frame::Columns(columns))) if rows.is_none() => match Rows::open(&job.keep, columns).await {
                Ok(opened) => {
                    rows = Some(opened);
                    None
                }
                Err(failure) => Some(failure),
            },
            Ok(Some(Frame::Rows(batch))) => match &mut rows {
                Some(rows) => push(rows, batch).await.err(),
                None => Some(Failure::new("rows came before their columns")),
            },
            Ok(Some(Frame::NoMore)) => {
                return Some(match rows {
                    Some(rows) => {
                        rows.close().await.map(|kept| Kept { path: job.keep.path().map(str::to_owned), ..kept })
                    }
                    None => Err(Failure::new("there was no result")),
                })
            }
            _ => {
                if let Some(rows) = rows {
                    rows.abort().await;
                }
                return None;
            }
        };
        if let Some(failure) = failed {
            if let Some(rows) = rows {
                rows.abort().await;
            }
            return Some(Err(failure));
        }
    }
}

async fn push(rows: &mut Rows, batch: Vec<Vec<Value>>) -> Result<(), Failure> {
    for row in batch {
        rows.push(row).await?;
    }
    Ok(())
}

fn broken(kind: BrokenKind, mut failure: Failure, after: Option<Duration>) -> Frame {
    storable::failure(&mut failure);
    let after = after.map(|a| a.as_micros().min(u64::MAX.into()) as u64);
    Frame::Broken(Broken { kind, failure, after })
}

async fn put(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    to.write_all(&frame.to_bytes()?).await
}

struct Reader {
    half: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl Reader {
    /// The next frame; None: the other side has closed. May be dropped and called again.
    async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = Frame::take(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            if read_some(&mut self.half, &mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

async fn read_some(from: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.reserve(64 * 1024);
    from.read_buf(buffer).await
}

/// Progress that nobody looks at.
pub fn unseen() -> OnProgress {
    Arc::new(|_: Progress| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let frames = [
            Frame::Hello { task_id: 7, attempt: 2 },
            Frame::Rows(vec![vec![Value::from("ü"), Value::Null], vec![Value::from(1), Value::from(true)]]),
            Frame::NoMore,
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(|f| f.to_bytes().unwrap()).collect();
        let (mut buffer, mut out) = (Vec::new(), Vec::new());
        for byte in bytes {
            buffer.push(byte);
            while let Some(frame) = Frame::take(&mut buffer).unwrap() {
                out.push(format!("{frame:?}"));
            }
        }
        assert_eq!(out, frames.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>());
        assert!(Frame::take(&mut vec![255; 8]).is_err(), "no such length is ours");
    }

    #[test]
    fn what_came_to_nothing_is_told_without_nul() {
        let failure = Failure::new("no\0thing").detail("a\0").hint("\0b").code("1\0");
        let Frame::Broken(told) = broken(BrokenKind::Failed, failure, None) else { panic!("another frame") };
        let expected = Failure::new("no\u{fffd}thing").detail("a\u{fffd}").hint("\u{fffd}b").code("1\u{fffd}");
        assert_eq!(told.failure, expected);
    }

    #[tokio::test]
    async fn the_directory_is_made_and_is_the_users_own() {
        use std::os::unix::fs::PermissionsExt;
        let top = std::env::temp_dir().join(format!("pgflow-bridge-{}", std::process::id()));
        let end = CancellationToken::new();
        let bridge = Bridge::new(HashMap::new(), Outbox::nowhere(), end.clone());
        for _ in 0..2 {
            bridge.listen(top.join("a/b/socket")).unwrap();
            UnixStream::connect(top.join("a/b/socket")).await.unwrap();
        }
        for made in ["a", "a/b"] {
            assert_eq!(std::fs::metadata(top.join(made)).unwrap().permissions().mode() & 0o777, 0o700, "{made}");
        }
        std::fs::write(top.join("file"), "").unwrap();
        assert!(bridge.listen(top.join("file/socket")).is_err());
        end.cancel();
        std::fs::remove_dir_all(top).unwrap();
    }
}
