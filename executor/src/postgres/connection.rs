//! One connection: its session, what is known of the server behind it, and how its statement is cancelled.
//!
//! The session's messages are read by a task of the runtime. Dropping a `Connection` closes the socket at once, whatever
//! runs on it; `close` says goodbye first. A connection whose transaction may be open is never used again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_postgres::error::DbError;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Error};

use super::options::TargetOptions;
use super::placeholders::Text;
use super::wire::{Negotiator, Seen};
use crate::job::Notice;

/// Messages of one attempt that are kept, and how long each may be.
const NOTICES: usize = 100;
const NOTICE_BYTES: usize = 8_192;
/// After which a connection is not used again.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long a cancel request may take.
const REQUEST: Duration = Duration::from_secs(2);

/// How a cancel request gets there.
#[derive(Clone)]
pub enum Way {
    Network(Negotiator),
    Socket(Negotiator, String),
}

/// What is behind a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// The process that runs our statements.
    pub backend: i32,
    /// Something stands between that hands sessions out by the transaction.
    pub pooler: bool,
    /// The server has the inbox of pgflow_client.sql, we may use it, and it takes writes: without any there is nothing that
    /// could be done twice.
    pub inbox: bool,
    pub standby: bool,
    pub read_only: bool,
}

/// Notices as they come.
#[derive(Default)]
struct Collected {
    notices: Vec<Notice>,
    more: usize,
}

pub struct Connection {
    pub client: Client,
    pub place: String,
    /// Used by an attempt before.
    pub reused: bool,
    /// Not to be used again, though it could be.
    pub spoilt: bool,
    born: Instant,
    facts: Facts,
    way: Way,
    seen: Arc<Seen>,
    collected: Arc<Mutex<Collected>>,
    task: AbortHandle,
    parting: bool,
}

/// Sends cancel requests for a connection.
#[derive(Clone)]
pub struct Canceller {
    token: CancelToken,
    way: Way,
}

const FACTS: &str = "
    SELECT pg_catalog.pg_backend_pid(),
           pg_catalog.pg_is_in_recovery(),
           pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on',
           (SELECT pg_catalog.count(*)
              FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n
                ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
             WHERE n.nspname OPERATOR(pg_catalog.=) 'async'
               AND p.proname OPERATOR(pg_catalog.=) ANY ('{enter_inbox,in_inbox}'::pg_catalog.name[])
               AND p.proargtypes OPERATOR(pg_catalog.=) '25 20 23'::pg_catalog.oidvector
               AND pg_catalog.has_schema_privilege(r.role, n.oid, 'USAGE')
               AND pg_catalog.has_function_privilege(r.role, p.oid, 'EXECUTE'))
      FROM (SELECT COALESCE($1::pg_catalog.text, current_user::pg_catalog.text)::pg_catalog.name) AS r (role)";

impl Connection {
    pub fn new<S, T>(
        client: Client,
        session: tokio_postgres::Connection<S, T>,
        way: Way,
        seen: Arc<Seen>,
        place: String,
    ) -> Connection
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let collected = Arc::new(Mutex::new(Collected::default()));
        let task = tokio::spawn(attend(session, collected.clone())).abort_handle();
        Connection {
            client,
            place,
            reused: false,
            spoilt: false,
            born: Instant::now(),
            facts: Facts::default(),
            way,
            seen,
            collected,
            task,
            parting: false,
        }
    }

    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// Whether what is known of the server may not be so any more: a standby may be promoted, an inbox be installed.
    pub fn is_outdated(&self) -> bool {
        self.facts.standby || self.facts.read_only || self.born.elapsed() >= LIFETIME
    }

    pub fn asked_for_password(&self) -> bool {
        self.seen.asked_for_password()
    }

    /// Asks the server what it is. Changes nothing of the session.
    pub async fn find_out(&mut self, options: &TargetOptions) -> Result<(), Error> {
        let role = options.role.as_ref().map_or_else(Text::default, Text::new);
        let rows = self.client.query_typed(FACTS, &[(&role, Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let backend: i32 = row.try_get(0)?;
        // A pooler announces a number of its own, that cancel requests are to name.
        let announced = self.seen.process_id();
        let (standby, read_only): (bool, bool) = (row.try_get(1)?, row.try_get(2)?);
        self.facts = Facts {
            backend,
            pooler: options.pooler.unwrap_or(announced != 0 && announced != backend),
            inbox: options.inbox && row.try_get::<_, i64>(3)? == 2 && !standby && !read_only,
            standby,
            read_only,
        };
        Ok(())
    }

    pub fn canceller(&self) -> Canceller {
        Canceller { token: self.client.cancel_token(), way: self.way.clone() }
    }

    /// Forgets messages of before.
    pub fn listen(&self) {
        *self.collected.lock().unwrap_or_else(PoisonError::into_inner) = Collected::default();
    }

    /// What the server has said since `listen`.
    pub fn notices(&self) -> Vec<Notice> {
        let collected = std::mem::take(&mut *self.collected.lock().unwrap_or_else(PoisonError::into_inner));
        let mut notices = collected.notices;
        if collected.more > 0 {
            let message = format!("{} more messages were not kept", collected.more);
            notices.push(Notice { level: "WARNING".into(), message });
        }
        notices
    }

    /// Makes the session as it was when it began. False: it cannot be used again.
    pub async fn reset(&self, limit: Duration) -> bool {
        if self.spoilt || self.client.is_closed() {
            return false;
        }
        // Behind a pooler nothing of a session is ours to reset.
        let reset = async { self.facts.pooler || self.client.batch_execute("DISCARD ALL").await.is_ok() };
        tokio::time::timeout(limit, reset).await.unwrap_or(false)
    }

    /// Says goodbye. Only where nothing runs.
    pub fn close(mut self) {
        self.parting = true;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.parting {
            self.task.abort();
        }
    }
}

impl Canceller {
    /// Asks the server to cancel what runs. Whether it does shows only in what becomes of it. The request is seen to its end
    /// also if nobody waits any more, because what was to be cancelled has ended: see `Negotiator::they_close`.
    pub fn request(&self) -> JoinHandle<()> {
        let canceller = self.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(REQUEST, canceller.cancel()).await;
        })
    }

    async fn cancel(&self) -> Result<(), Error> {
        match &self.way {
            Way::Network(negotiator) => self.token.cancel_query(patient(negotiator)).await,
            Way::Socket(negotiator, path) => match UnixStream::connect(path).await {
                Ok(socket) => self.token.cancel_query_raw(socket, patient(negotiator)).await,
                // The connection it is for shows the same.
                Err(_) => Ok(()),
            },
        }
    }
}

fn patient(negotiator: &Negotiator) -> Negotiator {
    Negotiator { they_close: true, ..negotiator.clone() }
}

/// Reads what the server says until the connection ends.
async fn attend<S, T>(mut session: tokio_postgres::Connection<S, T>, collected: Arc<Mutex<Collected>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // An error ends the stream as well; whoever waits for an answer is told so.
    while let Some(Ok(message)) = std::future::poll_fn(|cx| session.poll_message(cx)).await {
        if let AsyncMessage::Notice(notice) = message {
            let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
            if collected.notices.len() < NOTICES {
                collected.notices.push(kept(&notice));
            } else {
                collected.more += 1;
            }
        }
    }
}

fn kept(notice: &DbError) -> Notice {
    let mut message = notice.message().to_owned();
    for (word, text) in [("DETAIL", notice.detail()), ("HINT", notice.hint())] {
        if let Some(text) = text {
            message.push_str(&format!("\n{word}: {text}"));
        }
    }
    if message.len() > NOTICE_BYTES {
        let mut end = NOTICE_BYTES;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    Notice { level: notice.severity().to_owned(), message }
}
