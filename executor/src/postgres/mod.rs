//! Tasks on a Postgres server elsewhere: a `CALL` of a routine, or any SQL text.
//!
//! `conninfo` and `pairs` read the configuration, `connect` opens connections over `wire`, a few at a time (`doors`),
//! `connection` is one, `pool` keeps them. `attempt` runs a job on one, with `call` and `placeholders` for what is sent, `inbox` for what must not be done
//! twice, `rows` and `values` for what comes back. `errors` says what it all means.
//!
//! Must never send a part of the work before the server knows the attempt's name, nor use a connection again whose session
//! could hold anything of a job.

mod attempt;
mod call;
mod connect;
mod connection;
mod conninfo;
mod doors;
mod errors;
mod inbox;
mod names;
mod pairs;
mod placeholders;
mod pool;
mod rows;
mod values;
mod wire;

mod options;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_postgres::types::Type;

use crate::job::{Ending, Failure, Job, Target};
use crate::kind::{Context, Fault, Kind, Needs, STOP_GRACE};
use crate::results::Keep;
use attempt::{Attempt, Outcome, Work};
use connection::Connection;
use conninfo::Conninfo;
use doors::Doors;
use errors::Refusal;
use options::TargetOptions;
use placeholders::{Text, Values};
use pool::{Key, Pool};

/// A part of the grace, so that the ending is our own.
const STOPPING: Duration = STOP_GRACE.saturating_sub(Duration::from_millis(700));
/// When what does not heed a cancel request is terminated.
const STUBBORN: Duration = Duration::from_secs(2);
/// Between cancel requests: one that comes between two statements is lost.
const REPEAT: Duration = Duration::from_millis(500);
/// How long a session may take to be reset, or a server to answer a probe.
const SHORT: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Postgres {
    pool: Arc<Pool>,
    doors: Doors,
}

/// A job, read and found to be sound.
struct Plan<'a> {
    job: &'a Job,
    info: Conninfo,
    options: TargetOptions,
    work: Work,
    settings: Vec<(String, String)>,
}

#[async_trait]
impl Kind for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn check_target(&self, target: &Target) -> Vec<Fault> {
        let options = TargetOptions::of(&target.options);
        let info = conninfo::of(target);
        let mut faults = Vec::new();
        if let (Ok(options), Ok(info)) = (&options, &info) {
            if options.pooler == Some(true) && info.options.is_some() {
                faults.push(Fault::new(".connection_string", "options cannot be given with pooler: true"));
            }
        }
        faults.extend(options.err().unwrap_or_default());
        faults.extend(info.err().unwrap_or_default());
        faults
    }

    fn check_options(&self, options: &Map<String, Value>) -> Vec<Fault> {
        options::check(options)
    }

    fn needs(&self) -> Needs {
        Needs::QueryOrRoutine
    }

    async fn run(&self, job: &Job, context: &Context) -> Ending {
        let plan = match Plan::of(job) {
            Ok(plan) => plan,
            Err(failure) => return Ending::Failed(failure),
        };
        // A kept connection may turn out to be closed, and is replaced by a new one.
        for fresh in [false, true] {
            let connection = tokio::select! {
                connection = self.connection(&plan, fresh) => connection,
                () = context.stop.cancelled() => return Ending::Stopped,
            };
            let mut connection = match connection {
                Ok(connection) => connection,
                Err(Refusal::Down(failure)) => return Ending::Again { failure, after: None, down: true },
                Err(Refusal::Refused(failure)) => return Ending::Failed(failure),
            };
            match plan.perform(&mut connection, context).await {
                Outcome::Ended(ending) => {
                    self.put_back(&plan, connection, &ending);
                    return ending;
                }
                Outcome::Stale(failure) if fresh => return Ending::Again { failure, after: None, down: true },
                Outcome::Stale(_) => {}
            }
        }
        Ending::Failed(Failure::new("no connection could be used"))
    }

    async fn probe(&self, target: &Target) -> Result<(), Failure> {
        let (Ok(info), Ok(options)) = (conninfo::of(target), TargetOptions::of(&target.options)) else { return Ok(()) };
        let opened = tokio::time::timeout(SHORT, connect::open(target, &info, &options, "pgflow")).await;
        match opened {
            Ok(Ok(connection)) => connection.close(),
            Ok(Err(Refusal::Down(failure))) => return Err(failure),
            // Whoever refuses is there; the task will be told the same, and fail.
            Ok(Err(Refusal::Refused(_))) => {}
            Err(_) => return Err(Failure::new("no answer in time")),
        }
        Ok(())
    }

    async fn tidy(&self) -> bool {
        self.pool.tidy()
    }
}

impl Postgres {
    async fn connection(&self, plan: &Plan<'_>, fresh: bool) -> Result<Connection, Refusal> {
        let kept = if fresh { None } else { self.pool.take(&plan.key()) };
        match kept {
            Some(connection) => Ok(connection),
            None => {
                let open = connect::open(&plan.job.target, &plan.info, &plan.options, &plan.job.role);
                self.doors.through(plan.job.target.fingerprint, open).await
            }
        }
    }

    /// Keeps the connection for the next job, once its session is as new. Nobody waits for that.
    fn put_back(&self, plan: &Plan<'_>, connection: Connection, ending: &Ending) {
        let in_order = matches!(ending, Ending::Finished(_) | Ending::Failed(_));
        if connection.spoilt || connection.is_outdated() || !in_order {
            return;
        }
        let (pool, key, idle_time) = (self.pool.clone(), plan.key(), plan.options.idle_time);
        tokio::spawn(async move {
            if connection.reset(SHORT).await {
                pool.put(key, connection, idle_time);
            }
        });
    }
}

impl<'a> Plan<'a> {
    fn of(job: &'a Job) -> Result<Plan<'a>, Failure> {
        let wrong = |faults: Vec<Fault>| {
            let texts: Vec<String> = faults.into_iter().map(|f| format!("{}: {}", f.path, f.message)).collect();
            Failure::new(format!("the target {} is not configured rightly: {}", job.target.name, texts.join("; ")))
        };
        if matches!(job.keep, Keep::Export { .. }) {
            return Err(Failure::new("a Postgres target cannot write a result to a store itself")
                .hint("Use {\"to\": \"object\"}: the rows come here and are stored from here."));
        }
        let options = &job.work.options;
        let work = match (&job.work.query, &job.work.routine) {
            (Some(query), _) => {
                let parameters = match options.get("parameters") {
                    None | Some(Value::Null) => None,
                    Some(Value::Object(parameters)) => Some(parameters),
                    Some(_) => return Err(Failure::new("`parameters` must be an object: name → value")),
                };
                let values = Values { secrets: &job.work.secrets, parameters, arguments: &job.work.arguments };
                Work::Query(placeholders::bind(query, &values)?)
            }
            (None, Some(routine)) => Work::Call(routine.clone()),
            (None, None) => return Err(Failure::new("there is neither a query nor a routine to run")),
        };
        Ok(Plan {
            job,
            info: conninfo::of(&job.target).map_err(wrong)?,
            options: TargetOptions::of(&job.target.options).map_err(wrong)?,
            work,
            settings: options::settings(options).map_err(wrong)?,
        })
    }

    fn key(&self) -> Key {
        (self.job.target.fingerprint, self.job.role.clone())
    }

    /// Runs the attempt until it ends or is to stop.
    async fn perform(&self, connection: &mut Connection, context: &Context) -> Outcome {
        let canceller = connection.canceller();
        let facts = connection.facts();
        let attempt = Attempt {
            job: self.job,
            context,
            work: &self.work,
            role: self.options.role.as_deref(),
            settings: &self.settings,
        };
        let mut work = pin!(attempt.perform(connection));
        tokio::select! {
            outcome = &mut work => return outcome,
            () = context.stop.cancelled() => {}
        }
        let from = Instant::now();
        let request = async {
            loop {
                // What comes of it shows in the work's ending.
                let _ = canceller.request().await;
                tokio::time::sleep(REPEAT).await;
                if from.elapsed() >= STUBBORN && !facts.pooler {
                    let _ = tokio::time::timeout(STUBBORN, self.terminate(facts.backend)).await;
                }
            }
        };
        let outcome = tokio::select! {
            outcome = &mut work => Some(outcome),
            () = request => None,
            () = tokio::time::sleep_until(from + STOPPING) => None,
        };
        Outcome::Ended(match outcome {
            // It was faster than the stop.
            Some(Outcome::Ended(Ending::Finished(done))) => Ending::Finished(done),
            Some(Outcome::Ended(Ending::Failed(failure))) if failure.code.as_deref() != Some("57014") => {
                Ending::Failed(failure)
            }
            _ => Ending::Stopped,
        })
    }

    /// Ends the process of this attempt there, by another connection: what runs may catch the cancel and go on.
    async fn terminate(&self, backend: i32) -> Result<(), Refusal> {
        const TERMINATE: &str = "
            SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
             WHERE pid OPERATOR(pg_catalog.=) $1::pg_catalog.text::pg_catalog.int4
               AND application_name OPERATOR(pg_catalog.=) $2";
        let other = connect::open(&self.job.target, &self.info, &self.options, &self.job.role).await?;
        let (backend, name) = (Text::new(backend.to_string()), Text::new(inbox::name_of(self.job, self.job.attempt)));
        let asked = other.client.query_typed(TERMINATE, &[(&backend, Type::TEXT), (&name, Type::TEXT)]).await;
        let refused = asked.err().map(|error| errors::refusal(&error, &other.place));
        other.close();
        refused.map_or(Ok(()), Err)
    }
}
