//! Tasks of kind `clickhouse`: a query over HTTP, under a name that is the attempt's (`query_id`), so that it can be looked
//! up, watched and killed by whoever knows the attempt.
//!
//! What is promised: at least once. A lost attempt is looked up by its name first (`lookup`); where ClickHouse keeps a
//! query log, and nothing has to be given back, what has been done is not done again.
//!
//! Behind one address there may be several servers (a load balancer): looks and kills may then reach another one than the
//! query. Kills are repeated until the query's own answer has ended; looks that find nothing decide nothing.
//!
//! Must never take an answer for a result before its end has come, rely on a closed connection to stop a query, or put a
//! secret where ClickHouse shows queries.

mod ask;
mod body;
mod check;
mod client;
mod count;
mod dsn;
mod error;
mod export;
mod json;
mod lookup;
mod parameters;
mod progress;
mod query;
mod rows;
mod run;
mod settings;
mod stop;
mod text;
mod types;
mod values;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::job::{Ending, Failure, Job, Secret, Target};
use crate::kind::{Context, Fault, Kind, Needs};
use client::{Client, Refused};
use dsn::Connection;

/// Clients that are kept; the one that idles longest goes first.
const CLIENTS: usize = 256;
/// A client that was not used for so long is dropped.
const IDLE: Duration = Duration::from_secs(60);
/// How long a probe may take on each host.
const PROBE: Duration = Duration::from_secs(5);
/// The longest message that is kept, in characters.
const MESSAGE: usize = 2000;

#[derive(Default)]
pub struct ClickHouse {
    /// By `Target::fingerprint`.
    clients: Mutex<HashMap<(String, u64), Arc<Client>>>,
}

impl ClickHouse {
    async fn client(&self, target: &Target) -> Result<Arc<Client>, Failure> {
        let key = (target.name.clone(), target.fingerprint);
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&key) {
            client.touch();
            return Ok(client.clone());
        }
        let client = Arc::new(Client::open(Connection::of(target)?).await?);
        if clients.len() >= CLIENTS {
            let oldest = clients.iter().max_by_key(|(_, client)| client.idle()).map(|(key, _)| key.clone());
            oldest.map(|key| clients.remove(&key));
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    async fn attempt(&self, job: &Job, context: &Context) -> Result<Ending, Failure> {
        let client = self.client(&job.target).await?;
        let statement = query::of(job, &client.connection.settings)?;
        if job.unsure && job.attempt > 1 {
            if let Some(ending) = lookup::earlier(job, context, &client).await {
                return Ok(export::sized(job, ending).await);
            }
        }
        if context.stop.is_cancelled() {
            return Ok(Ending::Stopped);
        }
        let ending = run::run(job, context, &client, &statement).await;
        client.touch();
        Ok(export::sized(job, ending).await)
    }
}

#[async_trait]
impl Kind for ClickHouse {
    fn name(&self) -> &'static str {
        "clickhouse"
    }

    fn check_target(&self, target: &Target) -> Vec<Fault> {
        check::target(target)
    }

    fn check_options(&self, options: &Map<String, Value>) -> Vec<Fault> {
        check::options(options)
    }

    fn needs(&self) -> Needs {
        Needs::Query
    }

    async fn run(&self, job: &Job, context: &Context) -> Ending {
        match self.attempt(job, context).await.unwrap_or_else(Ending::Failed) {
            Ending::Failed(failure) => Ending::Failed(masked(job, failure)),
            Ending::Lost(failure) => Ending::Lost(masked(job, failure)),
            Ending::Again { failure, after, down } => Ending::Again { failure: masked(job, failure), after, down },
            ending => ending,
        }
    }

    async fn probe(&self, target: &Target) -> Result<(), Failure> {
        let client = self.client(target).await?;
        let mut failure = Failure::new("the target has no host");
        for host in client.hosts() {
            match client.tell(host, "SELECT 1", |query| query, PROBE).await {
                // It is there; whether it lets us in is the next task's to hear.
                Ok(()) => return Ok(()),
                Err(Refused::Exception(exception)) if exception.code != error::TOO_MANY_SIMULTANEOUS_QUERIES => {
                    return Ok(());
                }
                Err(refused) => failure = refused.failure(),
            }
        }
        Err(failure)
    }

    async fn tidy(&self) -> bool {
        let mut clients = self.clients.lock().await;
        // One that a job holds is in use, however long it runs.
        clients.retain(|_, client| Arc::strong_count(client) > 1 || client.idle() < IDLE);
        !clients.is_empty()
    }
}

/// ClickHouse's messages quote values with escapes, and the query shows secrets as hexadecimal digits: in these forms too
/// none may leave here. The plain ones are everybody's (`Job::masked`).
fn masked(job: &Job, failure: Failure) -> Failure {
    let mut forms: Vec<String> = Vec::new();
    for secret in job.work.secrets.values().map(Secret::expose).filter(|secret| secret.len() >= 4) {
        let quoted = parameters::quoted(secret);
        forms.push(quoted[1..quoted.len() - 1].to_owned());
        forms.extend([hex::encode(secret), hex::encode_upper(secret), secret.replace('\'', "''")]);
    }
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    let mask = |text: String| {
        let text = job.masked(&text);
        forms.iter().fold(text, |text, form| text.replace(form.as_str(), "***"))
    };
    Failure {
        code: failure.code,
        // A cut before could leave half a secret.
        message: error::cut(&mask(failure.message), MESSAGE),
        detail: failure.detail.map(mask),
        hint: failure.hint.map(mask),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_masked_in_every_form_and_then_cut() {
        let mut job = Job::default();
        job.work.secrets.insert("token".into(), Secret::new("it's hunter22"));
        for form in ["it's hunter22", "it\\'s hunter22", "it''s hunter22", &hex::encode("it's hunter22")] {
            let failure = Failure::new(format!("{}{form} {}", "ä".repeat(1995), "x".repeat(5000))).detail(form);
            let masked = masked(&job, failure);
            assert_eq!((masked.message.chars().count(), masked.detail.as_deref()), (2001, Some("***")), "{form}");
            assert!(masked.message.ends_with("*** x…"), "{}", masked.message);
        }
    }
}
