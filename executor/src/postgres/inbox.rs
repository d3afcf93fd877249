//! Effectively once: a row in the target's `async.inbox` commits together with what an attempt did, so that the next attempt
//! can see it.
//!
//! An attempt whose predecessor's fate is unknown settles it first, in this order: (1) the predecessor's row is there: it
//! was done. (2) Its backend, known by its application_name, still runs: it is terminated, and waited for. (3) The
//! predecessor is fenced: its row is entered in its stead, and beside it one under the engine's name with `FENCE` behind it,
//! which says that the first means "never again" and not "done". Whatever of the predecessor was still on its way then fails
//! at its own row and rolls back. So an attempt is done once or not at all, wherever the connection was cut.
//!
//! Without the inbox only (2) is done: at least once.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio_postgres::error::DbError;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::connection::Connection;
use super::placeholders::Text;
use crate::job::Job;

/// What the engine's name ends with in rows that fence an attempt off.
const FENCE: &str = "/fence";
/// How long a predecessor that cannot be terminated is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between looks.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest application_name.
const NAME: usize = 63;

/// A row of the inbox.
#[derive(Clone, Debug)]
pub struct Entry {
    pub engine: String,
    pub task_id: i64,
    pub attempt: i32,
}

impl Entry {
    pub fn of(job: &Job) -> Entry {
        Entry { engine: job.engine.clone(), task_id: job.task_id, attempt: job.attempt }
    }

    fn fence(&self) -> Entry {
        Entry { engine: format!("{}{FENCE}", self.engine), ..self.clone() }
    }

    /// Enters the row; in the open transaction if there is one.
    pub async fn enter(&self, client: &Client) -> Result<(), Error> {
        self.ask(
            client,
            "SELECT async.enter_inbox($1, $2::pg_catalog.text::pg_catalog.int8, $3::pg_catalog.text::pg_catalog.int4)",
        )
        .await
        .map(drop)
    }

    async fn is_in(&self, client: &Client) -> Result<bool, Error> {
        let rows = self
            .ask(
                client,
                "SELECT async.in_inbox($1, $2::pg_catalog.text::pg_catalog.int8, $3::pg_catalog.text::pg_catalog.int4)",
            )
            .await?;
        rows.first().map_or(Ok(false), |row| row.try_get(0))
    }

    async fn ask(&self, client: &Client, sql: &str) -> Result<Vec<tokio_postgres::Row>, Error> {
        let (engine, task, attempt) =
            (Text::new(self.engine.as_str()), Text::new(self.task_id.to_string()), Text::new(self.attempt.to_string()));
        client.query_typed(sql, &[(&engine, Type::TEXT), (&task, Type::TEXT), (&attempt, Type::TEXT)]).await
    }
}

/// Whether an error says that a row of the inbox was there already.
pub fn is_taken(error: &DbError) -> bool {
    error.code().code() == "23505" && error.schema() == Some("async") && error.table() == Some("inbox")
}

/// The application_name of an attempt.
pub fn name_of(job: &Job, attempt: i32) -> String {
    let key = job.attempt_key(attempt);
    // The server shows other characters as question marks, and cuts what is longer.
    if key.len() <= NAME && key.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return key;
    }
    format!("pgflow-{}", &hex::encode(Sha256::digest(key.as_bytes()))[..40])
}

/// What became of the attempts before.
#[derive(Debug)]
pub enum Fate {
    Done,
    /// It has left nothing, and never will.
    Undone,
    /// Its process still runs and cannot be stopped.
    Runs(i32),
}

/// Finds out, and makes sure that it stays so. Outside of a transaction. An attempt may have been lost before it had settled
/// those before it: then their fates are looked up too.
pub async fn settle(connection: &Connection, job: &Job) -> Result<Fate, Error> {
    for attempt in job.unsure_attempts() {
        match settle_one(connection, job, attempt).await? {
            Fate::Undone => {}
            decided => return Ok(decided),
        }
    }
    Ok(Fate::Undone)
}

async fn settle_one(connection: &Connection, job: &Job, attempt: i32) -> Result<Fate, Error> {
    let client = &connection.client;
    let before = Entry { attempt, ..Entry::of(job) };
    let inbox = connection.facts().inbox;
    if inbox && was_done(client, &before).await? {
        return Ok(Fate::Done);
    }
    if let Some(process) = end_of(client, &name_of(job, before.attempt)).await? {
        return Ok(Fate::Runs(process));
    }
    if !inbox {
        return Ok(Fate::Undone);
    }
    if was_done(client, &before).await? {
        return Ok(Fate::Done);
    }
    if before.fence().is_in(client).await? {
        return Ok(Fate::Undone);
    }
    client.batch_execute("BEGIN").await?;
    let fenced = async {
        // Waits for whoever has entered the same row and not committed yet.
        before.enter(client).await?;
        before.fence().enter(client).await
    };
    match fenced.await {
        Ok(()) => client.batch_execute("COMMIT").await.map(|()| Fate::Undone),
        Err(error) if error.as_db_error().is_some_and(is_taken) => {
            client.batch_execute("ROLLBACK").await?;
            Ok(if was_done(client, &before).await? { Fate::Done } else { Fate::Undone })
        }
        Err(error) => {
            client.batch_execute("ROLLBACK").await?;
            Err(error)
        }
    }
}

async fn was_done(client: &Client, entry: &Entry) -> Result<bool, Error> {
    Ok(entry.is_in(client).await? && !entry.fence().is_in(client).await?)
}

/// Terminates the backends of an attempt and waits until they are gone; else the id of one that is not.
async fn end_of(client: &Client, name: &str) -> Result<Option<i32>, Error> {
    const RUNNING: &str = "
        SELECT pid FROM pg_catalog.pg_stat_activity
         WHERE application_name OPERATOR(pg_catalog.=) $1 AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()";
    let name = Text::new(name);
    let until = Instant::now() + PATIENCE;
    loop {
        let rows = client.query_typed(RUNNING, &[(&name, Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let process: i32 = row.try_get(0)?;
        if Instant::now() > until {
            return Ok(Some(process));
        }
        let id = Text::new(process.to_string());
        let ended = client
            .query_typed(
                "SELECT pg_catalog.pg_terminate_backend($1::pg_catalog.text::pg_catalog.int4)",
                &[(&id, Type::TEXT)],
            )
            .await;
        match ended {
            // Not ours to terminate: it is waited for.
            Err(error) if error.code().is_some_and(|code| code.code() == "42501") => {}
            other => drop(other?),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_attempts_are_short_and_plain() {
        let job = Job { engine: "7438-16384".into(), task_id: i64::MAX, ..Job::default() };
        assert_eq!(name_of(&job, 3), job.attempt_key(3));
        let long = Job { engine: "x".repeat(80), ..Job::default() };
        let odd = Job { engine: "büro".into(), ..Job::default() };
        for job in [long, odd] {
            assert!(name_of(&job, 1).len() == 47 && name_of(&job, 1) != name_of(&job, 2));
        }
    }
}
