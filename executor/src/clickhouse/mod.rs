//! Tasks of kind `clickhouse`: a query over HTTP, under a name that is the attempt's (`query_id`), so that it can be looked
//! up, watched and killed by whoever knows the attempt.
//!
//! What is promised: at least once. A lost attempt is looked up by its name first (`lookup`); where ClickHouse keeps a
//! query log, and nothing has to be given back, what has been done is not done again.
//!
//! Must never take an answer for a result before its end has come, rely on a closed connection to stop a query, or put a
//! secret where ClickHouse shows queries.

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

use crate::job::{Ending, Failure, Job, Target};
use crate::kind::{Context, Fault, Kind, Needs};
use client::{Client, Refused};
use dsn::Connection;

/// Clients that are kept; the one that idles longest goes first.
const CLIENTS: usize = 256;
/// A client that was not used for so long is dropped.
const IDLE: Duration = Duration::from_secs(60);
/// How long a probe may take on each host.
const PROBE: Duration = Duration::from_secs(5);

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
                return Ok(ending);
            }
        }
        if context.stop.is_cancelled() {
            return Ok(Ending::Stopped);
        }
        let ending = run::run(job, context, &client, &statement).await;
        client.touch();
        Ok(ending)
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
        self.attempt(job, context).await.unwrap_or_else(Ending::Failed)
    }

    async fn probe(&self, target: &Target) -> Result<(), Failure> {
        let client = self.client(target).await?;
        let mut failure = Failure::new("the target has no host");
        for host in client.hosts() {
            match client.ask(host, "SELECT 1".into(), PROBE).await {
                // It is there; whether it lets us in is the next task's to hear.
                Ok(_) => return Ok(()),
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
