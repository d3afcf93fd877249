//! One attempt on an open connection, from the settings to the commit.
//!
//! The order is what makes an ending true. The session gets the attempt's name, and only when the server has confirmed that is
//! the work sent: whoever looks for this attempt finds its process. Before that nothing was done (`Again`); after it, whoever
//! loses the connection does not know (`Lost`). What a query did and its inbox row commit together.

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::call;
use super::connection::Connection;
use super::errors::{ends_the_session, failure, lost};
use super::inbox::{self, Entry, Fate};
use super::placeholders::{Bound, Text};
use super::rows::{self, Trouble};
use crate::job::{Done, Ending, Failure, Job, Notice};
use crate::kind::Context;
use crate::results::{Column, Keep, Kept, Rows};

/// How much longer than the task's own limit the server lets a statement run: if the request to cancel it does not arrive.
const BEYOND: Duration = Duration::from_secs(10);
/// How long a transaction may wait for us on the server.
const IDLE_IN_TRANSACTION: &str = "120s";
/// How soon to look again for a predecessor that cannot be stopped.
const STILL_RUNS: Duration = Duration::from_secs(10);

/// What is to be sent.
pub enum Work {
    Call(String),
    Query(Bound),
}

pub struct Attempt<'a> {
    pub job: &'a Job,
    pub context: &'a Context,
    pub work: &'a Work,
    pub role: Option<&'a str>,
    pub settings: &'a [(String, String)],
}

/// How it came out.
pub enum Outcome {
    Ended(Ending),
    /// The connection had been closed while nobody used it: nothing was sent.
    Stale(Failure),
}

/// What is left of a query in a transaction.
enum InTransaction {
    Ended(Ending),
    /// It cannot run in a transaction block, and has not run.
    Impossible,
}

impl Attempt<'_> {
    pub async fn perform(&self, connection: &mut Connection) -> Outcome {
        connection.listen();
        if !connection.facts().pooler {
            if let Err(error) = self.configure(&connection.client, self.of_session(), false).await {
                return match ends_the_session(&error) && connection.reused {
                    true => Outcome::Stale(lost(&error, &connection.place)),
                    false => Outcome::Ended(before_work(&error, &connection.place)),
                };
            }
        }
        if self.job.unsure {
            match inbox::settle(connection, self.job).await {
                Ok(Fate::Undone) => {}
                Ok(Fate::Done) => return Outcome::Ended(Ending::Finished(self.done_before())),
                Ok(Fate::Runs(process)) => return Outcome::Ended(still_runs(process)),
                Err(error) if ends_the_session(&error) && connection.reused => {
                    return Outcome::Stale(lost(&error, &connection.place));
                }
                Err(error) => return Outcome::Ended(before_work(&error, &connection.place)),
            }
        }
        let ending = match self.work {
            Work::Call(routine) => self.call(connection, routine).await,
            Work::Query(bound) => self.query(connection, bound).await,
        };
        Outcome::Ended(match ending {
            Ending::Finished(mut done) => {
                let mut notices = connection.notices();
                notices.append(&mut done.notices);
                Ending::Finished(Done { notices, ..done })
            }
            other => other,
        })
    }

    fn of_session(&self) -> Vec<(String, String)> {
        let mut settings = vec![
            ("application_name".to_owned(), inbox::name_of(self.job, self.job.attempt)),
            ("idle_in_transaction_session_timeout".to_owned(), IDLE_IN_TRANSACTION.to_owned()),
        ];
        if let Some(limit) = self.job.time_limit {
            // The setting holds 24 days.
            let millis = (limit + BEYOND).as_millis().min(i32::MAX as u128);
            settings.push(("statement_timeout".to_owned(), millis.to_string()));
        }
        if let Some(role) = self.role {
            settings.push(("role".to_owned(), role.to_owned()));
        }
        settings.extend(self.settings.iter().cloned());
        settings
    }

    /// Sets settings, of the session or of the transaction.
    async fn configure(&self, client: &Client, settings: Vec<(String, String)>, local: bool) -> Result<(), Error> {
        let calls: Vec<String> = (0..settings.len())
            .map(|at| format!("pg_catalog.set_config(${}, ${}, {local})", at * 2 + 1, at * 2 + 2))
            .collect();
        let texts: Vec<Text> =
            settings.into_iter().flat_map(|(name, value)| [Text::new(name), Text::new(value)]).collect();
        let values: Vec<(&(dyn ToSql + Sync), Type)> =
            texts.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect();
        client.execute_typed(&format!("SELECT {}", calls.join(", ")), &values).await.map(drop)
    }

    async fn call(&self, connection: &mut Connection, routine: &str) -> Ending {
        let facts = connection.facts();
        let entry = facts.inbox.then(|| Entry::of(self.job));
        let before = if facts.pooler { self.of_session() } else { Vec::new() };
        let after = entry.as_ref().map(|entry| (self.own_role(), entry));
        let block = match call::block(self.job, routine, &before, after) {
            Ok(block) => block,
            Err(failure) => return Ending::Failed(failure),
        };
        match connection.client.batch_execute(&block).await {
            // It returns nothing.
            Ok(()) => match self.kept(None).await {
                Ok(kept) => Ending::Finished(Done { kept, ..Done::default() }),
                Err(failure) => Ending::Failed(failure),
            },
            Err(error) => self.after_work(connection, &error, None),
        }
    }

    async fn query(&self, connection: &mut Connection, bound: &Bound) -> Ending {
        let facts = connection.facts();
        let mut notices = Vec::new();
        if facts.inbox || facts.pooler || self.keeps() {
            match self.in_transaction(connection, bound).await {
                InTransaction::Ended(ending) => return ending,
                InTransaction::Impossible if facts.pooler && !self.settings.is_empty() => {
                    return Ending::Failed(
                        Failure::new("a query that cannot run in a transaction cannot have settings behind a pooler")
                            .hint("Leave `settings` out, or let the target lead to the server itself."),
                    );
                }
                InTransaction::Impossible => notices.push(Notice {
                    level: "NOTICE".into(),
                    message: "the query cannot run in a transaction: it ran without one, at least once".into(),
                }),
            }
        }
        match self.send(connection, bound).await {
            Ok(rows) => match self.kept(rows).await {
                Ok(kept) => Ending::Finished(Done { kept, notices, ..Done::default() }),
                Err(failure) => Ending::Failed(failure),
            },
            Err(Trouble::Sql(error)) => self.after_work(connection, &error, Some(&bound.text)),
            Err(Trouble::Ours(failure)) => give_up(connection, failure).await,
        }
    }

    async fn in_transaction(&self, connection: &mut Connection, bound: &Bound) -> InTransaction {
        use InTransaction::Ended;
        let facts = connection.facts();
        let begun = match facts.pooler {
            false => connection.client.batch_execute("BEGIN").await,
            true => {
                let client = &connection.client;
                let (begun, set) =
                    tokio::join!(client.batch_execute("BEGIN"), self.configure(client, self.of_session(), true));
                begun.and(set)
            }
        };
        if let Err(error) = begun {
            connection.spoilt = true;
            return Ended(before_work(&error, &connection.place));
        }
        let rows = match self.send(connection, bound).await {
            Ok(rows) => rows,
            Err(Trouble::Sql(error)) => {
                // A server that wants to copy would take it for data, and never answer.
                let rolled_back =
                    !ends_the_session(&error) && connection.client.batch_execute("ROLLBACK").await.is_ok();
                // active_sql_transaction, invalid_transaction_termination: VACUUM, and CALL of what commits.
                let impossible = matches!(error.code().map(|code| code.code()), Some("25001" | "2D000"));
                return match impossible && rolled_back {
                    true => InTransaction::Impossible,
                    false => Ended(self.after_work(connection, &error, Some(&bound.text))),
                };
            }
            Err(Trouble::Ours(failure)) => return Ended(give_up(connection, failure).await),
        };
        let kept = match self.kept(rows).await {
            Ok(kept) => kept,
            Err(failure) => return Ended(give_up(connection, failure).await),
        };
        if facts.pooler && connection.spoilt {
            if let Err(error) = forget_statements(&connection.client).await {
                return Ended(self.after_work(connection, &error, None));
            }
        }
        let entry = facts.inbox.then(|| Entry::of(self.job));
        let client = &connection.client;
        // Sent together, in this order. The query may have become another role, which cannot enter the row.
        let (itself, entered, committed) = tokio::join!(
            async {
                match &entry {
                    Some(_) => self.configure(client, vec![self.own_role()], true).await,
                    None => Ok(()),
                }
            },
            async {
                match &entry {
                    Some(entry) => entry.enter(client).await,
                    None => Ok(()),
                }
            },
            client.batch_execute("COMMIT")
        );
        match itself.and(entered).and(committed) {
            Ok(()) => Ended(Ending::Finished(Done { kept, ..Done::default() })),
            Err(error) => Ended(self.after_work(connection, &error, None)),
        }
    }

    /// The role that the session has, whatever the work has become.
    fn own_role(&self) -> (String, String) {
        ("role".to_owned(), self.role.unwrap_or("none").to_owned())
    }

    fn keeps(&self) -> bool {
        !matches!(self.job.keep, Keep::Nothing)
    }

    /// Sends the query itself.
    async fn send(&self, connection: &mut Connection, bound: &Bound) -> Result<Option<Rows>, Trouble> {
        let client = &connection.client;
        if self.keeps() {
            let streamed = rows::stream(client, bound, &self.job.keep, self.context).await?;
            // What tokio-postgres has prepared for itself would not survive a reset of the session.
            connection.spoilt |= streamed.looked_up;
            return Ok(Some(streamed.rows));
        }
        if bound.values.is_empty() {
            client.batch_execute(&bound.text).await?;
        } else {
            let values: Vec<(&(dyn ToSql + Sync), Type)> =
                bound.values.iter().map(|value| (value as &(dyn ToSql + Sync), Type::UNKNOWN)).collect();
            client.execute_typed(&bound.text, &values).await?;
        }
        Ok(None)
    }

    /// What is kept: the rows, or none where some were asked for and there are none.
    async fn kept(&self, rows: Option<Rows>) -> Result<Option<Kept>, Failure> {
        let rows = match rows {
            Some(rows) => rows,
            None if self.keeps() => Rows::open(&self.job.keep, Vec::<Column>::new()).await?,
            None => return Ok(None),
        };
        rows.close().await.map(Some)
    }

    /// The ending of an error after the work was sent.
    fn after_work(&self, connection: &mut Connection, error: &Error, text: Option<&str>) -> Ending {
        if let Some(db) = error.as_db_error() {
            if inbox::is_taken(db) {
                return Ending::Finished(self.done_before());
            }
        }
        if ends_the_session(error) {
            connection.spoilt = true;
            // COPY wants to speak to a client; the connection is well, but what runs there waits for us.
            if !connection.client.is_closed() && error.to_string().starts_with("unexpected message") {
                return Ending::Failed(
                    Failure::new("the query wants to copy from or to its client, and there is none")
                        .hint("Use COPY with a file or a program of the server, or INSERT and SELECT."),
                );
            }
            return Ending::Lost(lost(error, &connection.place));
        }
        Ending::Failed(failure(error, text))
    }

    fn done_before(&self) -> Done {
        let mut done = Done::default();
        if self.keeps() {
            done.notices.push(Notice {
                level: "WARNING".into(),
                message: "it was done by an attempt whose connection was lost, and its result with it".into(),
            });
        }
        done
    }
}

/// The ending of an error before the work was sent.
fn before_work(error: &Error, place: &str) -> Ending {
    match ends_the_session(error) {
        true => Ending::Again { failure: lost(error, place), after: None, down: true },
        false => Ending::Failed(failure(error, None)),
    }
}

fn still_runs(process: i32) -> Ending {
    Ending::Again {
        failure: Failure::new("the attempt before this one still runs there")
            .detail(format!("Process {process}."))
            .hint(
            "GRANT pg_signal_backend to the user of the target, or end that process there with pg_terminate_backend.",
        ),
        after: Some(STILL_RUNS),
        down: false,
    }
}

/// What runs is of no use any more: it is cancelled, and the connection is closed.
async fn give_up(connection: &mut Connection, failure: Failure) -> Ending {
    connection.spoilt = true;
    // If it does not get there, the server notices by the closed connection.
    let _ = connection.canceller().request().await;
    Ending::Failed(failure)
}

/// Behind a pooler, statements that tokio-postgres has prepared in this transaction would stay with somebody else's session.
async fn forget_statements(client: &Client) -> Result<(), Error> {
    const OURS: &str = "
        SELECT name FROM pg_catalog.pg_prepared_statements
         WHERE NOT from_sql AND prepare_time OPERATOR(pg_catalog.>=) pg_catalog.transaction_timestamp()";
    for row in client.query_typed(OURS, &[]).await? {
        let name: String = row.try_get(0)?;
        client.batch_execute(&format!("DEALLOCATE \"{}\"", name.replace('"', "\"\""))).await?;
    }
    Ok(())
}
