//! What became of the attempts before this one, when nobody knows: they may still run, have ended well, or never have begun.
//!
//! Nothing of it is certain without `system.query_log`; then the work is done again (at least once).

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Client, Refused};
use super::error::{self, Exception};
use super::parameters::quoted;
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
    let query = format!(
        "SELECT query_id, query FROM system.processes WHERE startsWith(query_id, {}) LIMIT 100 FORMAT JSONCompactEachRow",
        quoted(&ids)
    );
    let answer = client.ask(host, query, ONE).await?;
    let row = |line: &str| match serde_json::from_str::<Vec<Value>>(line).ok()?.as_slice() {
        [Value::String(id), Value::String(query)] => {
            let attempt: i32 = id.strip_prefix(&ids)?.parse().ok()?;
            (attempt < job.attempt).then(|| (id.clone(), query.clone()))
        }
        _ => None,
    };
    Ok(answer.lines().filter_map(row).collect())
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
    let query = format!(
        "SELECT toString(type), toUInt32(exception_code), exception, toUInt64(written_rows), query FROM system.query_log \
         WHERE query_id IN ({}) AND event_date >= today() - 60 AND type != 'QueryStart' \
         ORDER BY type = 'QueryFinish' DESC, event_time_microseconds DESC LIMIT 1 FORMAT JSONCompactEachRow",
        ids.iter().map(|id| quoted(id)).collect::<Vec<_>>().join(", ")
    );
    let from = Instant::now();
    loop {
        let patience = match client.ask(host, "SYSTEM FLUSH LOGS query_log".into(), ONE).await {
            Ok(_) => patience,
            // Not everybody may; then the log is written by and by.
            Err(Refused::Exception(_)) => LOG,
            Err(refused) => return Err(refused),
        };
        let late = from.elapsed() >= patience;
        match client.ask(host, query.clone(), ONE).await {
            Ok(answer) if !answer.trim().is_empty() => {
                let row = serde_json::from_str::<Vec<Value>>(answer.trim());
                return Ok(row.ok().and_then(|row| read(job, &row)));
            }
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

fn read(job: &Job, row: &[Value]) -> Option<Ending> {
    let [Value::String(kind), code, Value::String(exception), written, Value::String(query)] = row else { return None };
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default();
    if kind == "QueryFinish" {
        return match &job.keep {
            Keep::Export { .. } if !export::writes(job, query) => None,
            _ => {
                let kept = export::kept(job, Some(number(written)));
                Some(Ending::Finished(Done { kept, ..Done::default() }))
            }
        };
    }
    let code = u32::try_from(number(code)).unwrap_or_default();
    // It was killed, by a stop of ours whose end nobody heard of, or by the connection's loss: that decides nothing.
    if [error::QUERY_WAS_CANCELLED, error::TOO_MANY_SIMULTANEOUS_QUERIES, 24, 32, 209, 210, 236].contains(&code) {
        return None;
    }
    let exception = Exception::read(exception).unwrap_or_else(|| Exception::of_code(code, exception));
    Some(Ending::Failed(exception.failure()))
}
