//! Tasks of kind `http`: a request each, to the hosts that an administrator allows.
//!
//! At least once: an attempt whose fate is unknown is sent again with the same Idempotency-Key. Must never reach an address
//! that the target does not allow (`guard`), nor take credentials to another host (`exchange`).

mod answer;
mod client;
mod exchange;
mod guard;
mod probe;
mod request;
mod rows;
mod settings;
mod template;
mod values;

#[cfg(test)]
mod http2_tests;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::time::Instant;

use self::answer::{masked, Answer};
use self::client::Clients;
use self::request::{Prepared, Request};
use self::settings::Settings;
use crate::job::{Ending, Failure, Job, Target};
use crate::kind::{Context, Fault, Kind, Needs};
use crate::results::Keep;

#[derive(Default)]
pub struct Http {
    clients: Clients,
}

#[async_trait]
impl Kind for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn check_target(&self, target: &Target) -> Vec<Fault> {
        Settings::of(target).err().unwrap_or_default()
    }

    fn check_options(&self, options: &Map<String, Value>) -> Vec<Fault> {
        Request::of(options).err().unwrap_or_default()
    }

    fn needs(&self) -> Needs {
        Needs::Options
    }

    async fn run(&self, job: &Job, context: &Context) -> Ending {
        if context.stop.is_cancelled() {
            return Ending::Stopped;
        }
        match Plan::of(job) {
            Ok(plan) => self.carry_out(plan, job, context).await,
            Err(failure) => Ending::Failed(failure),
        }
    }

    async fn probe(&self, target: &Target) -> Result<(), Failure> {
        let settings = Settings::of(target).map_err(|faults| misconfigured("target", &faults))?;
        probe::connect(&settings).await
    }

    async fn tidy(&self) -> bool {
        self.clients.tidy()
    }
}

impl Http {
    async fn carry_out(&self, plan: Plan, job: &Job, context: &Context) -> Ending {
        let Plan { settings, request, mut prepared } = plan;
        // The deadline is that of the exchange; the client is there at once but for the first job of a target.
        let answered = async {
            let client = self.clients.get(&job.target, &settings).await.map_err(Ending::Failed)?;
            let deadline = Instant::now() + settings.timeout;
            let response = exchange::send(&client, &settings, &request, &mut prepared, deadline).await?;
            Ok((response, deadline))
        };
        let answered = tokio::select! {
            biased;
            _ = context.stop.cancelled() => return Ending::Stopped,
            answered = answered => answered,
        };
        let ending = match answered {
            Err(ending) => ending,
            Ok((response, deadline)) => {
                let answer = Answer {
                    place: exchange::place(&prepared.method, &prepared.url),
                    max_bytes: settings.max_response_bytes,
                    masks: &prepared.masks,
                    response,
                    deadline,
                    context,
                };
                end(answer, &request, job, context).await
            }
        };
        without_secrets(ending, &prepared.masks)
    }
}

/// Reads the answer. Where something is being stored, a stop is answered there, so that nothing is left of it.
async fn end(answer: Answer<'_>, request: &Request, job: &Job, context: &Context) -> Ending {
    let expected = request.expects(answer.response.status());
    if expected && !matches!(job.keep, Keep::Nothing) {
        return answer.keep(&job.keep, request.asynchronous).await;
    }
    let read = async {
        if expected {
            answer.keep(&Keep::Nothing, request.asynchronous).await
        } else {
            answer.refused().await
        }
    };
    tokio::select! {
        biased;
        _ = context.stop.cancelled() => Ending::Stopped,
        ending = read => ending,
    }
}

/// Everything that a request is made from, checked before anything is sent.
struct Plan {
    settings: Settings,
    request: Request,
    prepared: Prepared,
}

impl Plan {
    fn of(job: &Job) -> Result<Plan, Failure> {
        let settings = Settings::of(&job.target).map_err(|faults| misconfigured("target", &faults))?;
        let request = Request::of(&job.work.options).map_err(|faults| misconfigured("request", &faults))?;
        if matches!(job.keep, Keep::Export { .. }) {
            return Err(Failure::new("a target of kind http cannot export its result").hint("Keep it as object."));
        }
        let prepared = Prepared::of(&request, &settings, job)?;
        Ok(Plan { settings, request, prepared })
    }
}

fn misconfigured(what: &str, faults: &[Fault]) -> Failure {
    let list: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect();
    Failure::new(format!("the {what} is not configured as it must be")).detail(list.join("\n"))
}

fn without_secrets(ending: Ending, masks: &[String]) -> Ending {
    let clean = |failure: Failure| Failure {
        code: failure.code,
        message: masked(&failure.message, masks),
        detail: failure.detail.map(|detail| masked(&detail, masks)),
        hint: failure.hint,
    };
    match ending {
        Ending::Failed(failure) => Ending::Failed(clean(failure)),
        Ending::Lost(failure) => Ending::Lost(clean(failure)),
        Ending::Again { failure, after, down } => Ending::Again { failure: clean(failure), after, down },
        other => other,
    }
}
