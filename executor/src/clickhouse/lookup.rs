//! What became of the attempts before this one, when nobody knows: they may still run, have ended well, or never have begun.
//!
//! Nothing of it is certain without `system.query_log`; then the work is done again (at least once).

use std::time::{Duration, Instant};

use ::clickhouse::Row;
use serde::Deserialize;

use super::client::{Client, Refused};
use super::error::{self, Exception};
use super::{export, progress, stop};
use crate::job::{Done, Ending, Failure, Job};
use crate::kind::Context;
use crate::results::Keep;

/// How long one question may take.
const ONE: Duration = Duration::from_secs(5);
/// Between two looks at a query that runs.
const BETWEEN: Duration = Duration::from_millis(300);
/// ClickHouse writes its log every 7.5 s, if nobody may have it written now.
const LOG: Duration = Duration::from_secs(10);
/// Looks in a row that do not find it: it has ended.
const GONE: u32 = 2;

// Texts of others come first: the crate takes an answer that ends like an exception for one. They are made UTF-8, as
// ClickHouse may have cut them within a character.

#[derive(Row, Deserialize)]
struct Running {
    text: String,
    query_id: String,
}

#[derive(Row, Deserialize)]
struct Logged {
    kind: String,
    message: String,
    text: String,
    code: u32,
    written: u64,
}

/// The ending of this attempt if an earlier one has decided it; None: the query is to be run.
pub async fn earlier(job: &Job, context: &Context, client: &Client) -> Option<Ending> {
    let gives_back = !matches!(job.keep, Keep::Nothing | Keep::Export { .. });
    let unsure: Vec<String> = job.unsure_attempts().map(|attempt| job.attempt_key(attempt)).collect();
    let mut refused: Option<Refused> = None;
    let mut answered = false;
    for host in client.hosts() {
        let running = match running(job, client, host).await {
            Ok(running) => running,
            Err(error) => {
                refused = Some(error);
                continue;
            }
        };
        answered = true;
        for (id, query) in running {
            let same_object = matches!(job.keep, Keep::Nothing) || export::writes(job, &query);
            if unsure.contains(&id) && !gives_back && same_object {
                return match wait(context, client, host, &id).await {
                    Some(ending) => Some(ending),
                    None => {
                        outcome(job, client, host, &unsure, LOG).await.unwrap_or_else(|refused| Some(unknown(&refused)))
                    }
                };
            }
            if !stop::kill(client, host, &id).await {
                let failure = Failure::new("the query of an earlier attempt still runs and cannot be killed")
                    .detail(format!("Its query_id is {id}."));
                return Some(Ending::Again { failure, after: None, down: false });
            }
        }
        if !gives_back {
            match outcome(job, client, host, &unsure, Duration::ZERO).await {
                Ok(None) => {}
                Ok(decided) => return decided,
                Err(refused) => return Some(unknown(&refused)),
            }
        }
    }
    match refused {
        Some(error) if !answered => Some(unknown(&error)),
        _ => None,
    }
}

/// Nothing of this attempt has been done, and what became of the one before is as unknown as it was.
fn unknown(refused: &Refused) -> Ending {
    match refused.ending() {
        Ending::Lost(failure) => Ending::Again { failure, after: None, down: true },
        ending => ending,
    }
}

/// Queries of earlier attempts that run: (id, as ClickHouse shows it).
async fn running(job: &Job, client: &Client, host: usize) -> Result<Vec<(String, String)>, Refused> {
    let mut ids = job.attempt_key(0);
    ids.pop();
    let query = "SELECT toValidUTF8(query) AS text, query_id FROM system.processes \
                 WHERE startsWith(query_id, ?) AND isValidUTF8(query_id) LIMIT 100";
    let running: Vec<Running> = client.rows(host, query, |query| query.bind(&ids), ONE).await?;
    let earlier = |one: Running| {
        let attempt: i32 = one.query_id.strip_prefix(&ids)?.parse().ok()?;
        (attempt < job.attempt).then_some((one.query_id, one.text))
    };
    Ok(running.into_iter().filter_map(earlier).collect())
}

/// Waits until a query has ended, telling how far it is. An ending only if it is to stop.
async fn wait(context: &Context, client: &Client, host: usize, id: &str) -> Option<Ending> {
    let mut missing = 0;
    while missing < GONE {
        match progress::look(client, host, id).await {
            Some(Some(progress)) => {
                missing = 0;
                (context.progress)(progress);
            }
            Some(None) => missing += 1,
            None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(BETWEEN) => {}
            () = context.stop.cancelled() => {
                stop::kill(client, host, id).await;
                return Some(Ending::Stopped);
            }
        }
    }
    None
}

/// What the log says of queries that do not run any more, above all that one was done; waits for the log, if it is to. None: it says nothing. An error:
/// it could not be asked.
async fn outcome(
    job: &Job,
    client: &Client,
    host: usize,
    ids: &[String],
    patience: Duration,
) -> Result<Option<Ending>, Refused> {
    let query = "SELECT toString(type) AS kind, toValidUTF8(exception) AS message, toValidUTF8(query) AS text, \
                 toUInt32(exception_code) AS code, toUInt64(written_rows) AS written FROM system.query_log \
                 WHERE has(?, query_id) AND event_date >= today() - 60 AND type != 'QueryStart' \
                 ORDER BY type = 'QueryFinish' DESC, event_time_microseconds DESC LIMIT 1";
    let from = Instant::now();
    loop {
        let patience = match client.tell(host, "SYSTEM FLUSH LOGS query_log", |query| query, ONE).await {
            Ok(()) => patience,
            // Not everybody may; then the log is written by and by.
            Err(Refused::Exception(_)) => LOG,
            Err(refused) => return Err(refused),
        };
        let late = from.elapsed() >= patience;
        match client.rows::<Logged>(host, query, |query| query.bind(ids), ONE).await.map(|rows| rows.into_iter().next())
        {
            Ok(Some(logged)) => return Ok(read(job, &logged)),
            // No such table, or none that we may read.
            Err(Refused::Exception(exception)) if exception.code != error::TOO_MANY_SIMULTANEOUS_QUERIES => {
                return Ok(None);
            }
            Ok(_) if late => return Ok(None),
            Err(refused) if late => return Err(refused),
            _ => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

fn read(job: &Job, logged: &Logged) -> Option<Ending> {
    if logged.kind == "QueryFinish" {
        return match &job.keep {
            Keep::Export { .. } if !export::writes(job, &logged.text) => None,
            _ => {
                let kept = export::kept(job, Some(logged.written));
                Some(Ending::Finished(Done { kept, ..Done::default() }))
            }
        };
    }
    // It was killed, by a stop of ours whose end nobody heard of, or by the connection's loss: that decides nothing.
    if [error::QUERY_WAS_CANCELLED, error::TOO_MANY_SIMULTANEOUS_QUERIES, 24, 32, 209, 210, 236].contains(&logged.code)
    {
        return None;
    }
    let exception =
        Exception::read(&logged.message).unwrap_or_else(|| Exception::of_code(logged.code, &logged.message));
    Some(Ending::Failed(exception.failure()))
}
