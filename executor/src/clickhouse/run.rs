//! One query from its sending to its end: its result on the way to where it goes, its progress, its stop.
//!
//! Must never leave a query running that nobody waits for: what is stopped, what fails on our side and what is dropped is
//! killed. A dropped future kills in the background, as far as the runtime still runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::body::{Body, Broken};
use super::client::{Client, Refused};
use super::count::Counter;
use super::query::Statement;
use super::rows::Reader;
use super::{export, progress, stop, text};
use crate::job::{Done, Ending, Failure, Job};
use crate::kind::{Context, STOP_GRACE};
use crate::results::{self, Column, Format, Keep, Kept, Stream};

/// How long the names and types of a stored result's columns may take.
const DESCRIBE: Duration = Duration::from_secs(5);
/// Between a kill and the next one, while the answer has not come.
const ROUND: Duration = Duration::from_millis(250);

/// How it ended, and whether ClickHouse may still work on it.
struct Outcome {
    ending: Ending,
    goes_on: bool,
}

impl From<Ending> for Outcome {
    fn from(ending: Ending) -> Outcome {
        Outcome { ending, goes_on: false }
    }
}

/// Runs a statement on the first host that can be reached.
pub async fn run(job: &Job, context: &Context, client: &Arc<Client>, statement: &Statement) -> Ending {
    let mut unreachable = None;
    for host in client.hosts() {
        match on_host(job, context, client, host, statement).await {
            ending @ Ending::Again { down: true, .. } => unreachable = Some(ending),
            ending => return ending,
        }
    }
    unreachable.unwrap_or_else(|| Ending::Failed(Failure::new("the target has no host")))
}

async fn on_host(job: &Job, context: &Context, client: &Arc<Client>, host: usize, statement: &Statement) -> Ending {
    let id = statement.query_id.clone().unwrap_or_default();
    let mut guard = KillWhenDropped { client: client.clone(), host, id: id.clone(), armed: true };
    let work = answer(job, client, host, statement);
    let watch = progress::watch(client, host, &id, context.progress.as_ref());
    tokio::pin!(work, watch);
    let outcome = tokio::select! {
        outcome = &mut work => Some(outcome),
        () = &mut watch => None,
        () = context.stop.cancelled() => None,
    };
    let ending = match outcome {
        Some(Outcome { ending, goes_on }) => {
            if goes_on {
                stop::kill(client, host, &id).await;
            }
            ending
        }
        None => stopped(client, host, &id, work).await,
    };
    guard.armed = false;
    ending
}

/// Kills the query until its answer has ended: a query that has not begun yet cannot be killed.
async fn stopped(
    client: &Client,
    host: usize,
    id: &str,
    mut work: std::pin::Pin<&mut impl std::future::Future<Output = Outcome>>,
) -> Ending {
    let until = Instant::now() + STOP_GRACE.mul_f32(0.9);
    while Instant::now() < until {
        let kill = async {
            stop::kill(client, host, id).await;
            tokio::time::sleep(ROUND).await;
        };
        tokio::select! {
            outcome = &mut work => {
                return match outcome.ending {
                    // It was done before it could be stopped.
                    ending @ Ending::Finished(_) => ending,
                    _ => {
                        stop::gone(client, host, id).await;
                        Ending::Stopped
                    }
                };
            }
            () = kill => {}
        }
    }
    Ending::Stopped
}

/// Kills in the background when whoever ran the query is dropped.
struct KillWhenDropped {
    client: Arc<Client>,
    host: usize,
    id: String,
    armed: bool,
}

impl Drop for KillWhenDropped {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, host, id) = (self.client.clone(), self.host, std::mem::take(&mut self.id));
            runtime.spawn(async move { stop::kill(&client, host, &id).await });
        }
    }
}

async fn answer(job: &Job, client: &Client, host: usize, statement: &Statement) -> Outcome {
    let mut statement = statement.clone();
    let body = loop {
        match client.send(host, &statement).await {
            Ok(body) => break body,
            Err(refused) => {
                // A setting of ours that only helps is left out where ClickHouse does not take it: nothing has run.
                let setting = match &refused {
                    Refused::Exception(exception) => exception.refused_setting(),
                    _ => None,
                };
                if setting.and_then(|name| statement.wished.remove(name)).is_none() {
                    return refused.ending().into();
                }
            }
        }
    };
    match &job.keep {
        Keep::Nothing => drain(body, |_| None).await,
        Keep::Export { .. } => drain(body, |rows| export::kept(job, rows)).await,
        Keep::Inline { .. } | Keep::Worker(_) => rows(job, body).await,
        Keep::Object { format, .. } => match object(job, body, *format).await {
            Ok((stream, rows)) => {
                let columns = columns(client, host, &statement).await;
                finished(stream.close(rows, columns).await)
            }
            Err(outcome) => outcome,
        },
    }
}

fn finished(kept: Result<Kept, Failure>) -> Outcome {
    match kept {
        Ok(kept) => Ending::Finished(Done { kept: Some(kept), ..Done::default() }).into(),
        Err(failure) => of_store(failure).into(),
    }
}

/// A store that cannot be reached now: the query was run, its result is not there, it is run again.
fn of_store(failure: Failure) -> Ending {
    match failure.code.as_deref() == Some(results::UNREACHABLE) {
        true => Ending::Lost(failure),
        false => Ending::Failed(failure),
    }
}

/// How an attempt ends whose answer did.
fn broken(broken: Broken) -> Outcome {
    match broken {
        Broken::Exception(exception) => exception.ending().into(),
        Broken::Cut(text) => {
            Ending::Lost(Failure::new(format!("the connection to ClickHouse was lost in the answer: {text}"))).into()
        }
    }
}

async fn drain(mut body: Body, kept: impl Fn(Option<u64>) -> Option<Kept>) -> Outcome {
    loop {
        match body.next().await {
            Ok(Some(_)) => {}
            Ok(None) => {
                return Ending::Finished(Done { kept: kept(body.written_rows), ..Done::default() }).into();
            }
            Err(error) => return broken(error),
        }
    }
}

async fn rows(job: &Job, mut body: Body) -> Outcome {
    let mut reader = Reader::new(&job.keep);
    loop {
        match body.next().await {
            Ok(Some(chunk)) => {
                if let Err(failure) = reader.take(chunk).await {
                    reader.abort().await;
                    return Outcome { ending: Ending::Failed(failure), goes_on: true };
                }
            }
            Ok(None) => return finished(reader.close().await),
            Err(error) => {
                reader.abort().await;
                return broken(error);
            }
        }
    }
}

/// Streams the answer into the store: what is left to do is to close it.
async fn object(job: &Job, mut body: Body, format: Format) -> Result<(Stream, Option<u64>), Outcome> {
    let goes_on = |failure| Outcome { ending: of_store(failure), goes_on: true };
    let mut stream = Stream::open(&job.keep).await.map_err(goes_on)?;
    let mut counter = Counter::of(format);
    let mut bytes = 0;
    loop {
        match body.next().await {
            Ok(Some(chunk)) => {
                bytes += chunk.len();
                counter.take(&chunk);
                if let Err(failure) = stream.write(chunk).await {
                    stream.abort().await;
                    return Err(goes_on(failure));
                }
            }
            Ok(None) if bytes == 0 && format != Format::Json => {
                stream.abort().await;
                let failure = Failure::new("the query returns no result that could be stored")
                    .hint("Leave \"result\" out for statements such as INSERT.");
                return Err(Ending::Failed(failure).into());
            }
            Ok(None) => return Ok((stream, counter.rows())),
            Err(error) => {
                stream.abort().await;
                return Err(broken(error));
            }
        }
    }
}

/// The columns of a result whose bytes do not tell them all: ClickHouse only analyses the query for it. None if it cannot.
/// It is the user's query, with its settings, parameters and secrets, and goes as that does; besides, DESCRIBE has more
/// columns with every version of ClickHouse, and the rows of the `clickhouse` crate must name all that there are.
async fn columns(client: &Client, host: usize, statement: &Statement) -> Vec<Column> {
    let pieces = text::pieces(&statement.text);
    if !matches!(text::first_word(&statement.text, &pieces).as_str(), "SELECT" | "WITH" | "FROM") {
        return Vec::new();
    }
    let describe = Statement {
        text: format!("DESCRIBE TABLE (\n{}\n)", statement.text),
        query_id: None,
        format: Some("JSONCompactEachRow"),
        ..statement.clone()
    };
    let ask = async {
        let mut body = client.send(host, &describe).await.ok()?;
        let mut answer = Vec::new();
        while let Some(chunk) = body.next().await.ok()? {
            answer.extend_from_slice(&chunk);
        }
        let column = |line: &str| match serde_json::from_str::<Vec<Value>>(line).ok()?.as_slice() {
            [Value::String(name), Value::String(type_name), ..] => {
                Some(super::values::column(name.clone(), type_name.clone()).0)
            }
            _ => None,
        };
        Some(String::from_utf8_lossy(&answer).lines().filter_map(column).collect())
    };
    tokio::time::timeout(DESCRIBE, ask).await.ok().flatten().unwrap_or_default()
}
