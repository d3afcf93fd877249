//! From rows of tables to jobs of the executor: where a target leads for a role, what a task is to do, its secrets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgflow_executor::job::{Arguments, Job, Secret, Target, Work};
use pgflow_executor::results::ResultSpec;
use serde_json::{Map, Value};

use super::results;
use crate::store::remote::{self as store, Outgoing};

fn object(value: Option<pgrx::JsonB>) -> Map<String, Value> {
    match value.map(|v| v.0) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Text values of an object, as secrets.
pub fn secrets(value: Option<pgrx::JsonB>) -> BTreeMap<String, Secret> {
    object(value)
        .into_iter()
        .map(|(key, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (key, Secret::new(text))
        })
        .collect()
}

pub fn read_target(name: &str, role: &str) -> Result<Arc<Target>, String> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let connection = store::connection(name, role)?;
    let mut hasher = DefaultHasher::new();
    let options = object(connection.options);
    let connection_options = secrets(connection.connection_options);
    (&connection.kind, &connection.string, connection.password_required).hash(&mut hasher);
    serde_json::to_string(&options).unwrap_or_default().hash(&mut hasher);
    for (key, value) in &connection_options {
        (key, value.expose()).hash(&mut hasher);
    }
    Ok(Arc::new(Target {
        name: name.to_owned(),
        role: role.to_owned(),
        kind: connection.kind,
        connection_string: connection.string.map(Secret::new),
        connection_options,
        password_required: connection.password_required,
        options,
        fingerprint: hasher.finish(),
    }))
}

pub fn job(engine: &str, target: Arc<Target>, outgoing: &Outgoing) -> Result<(Job, ResultSpec), String> {
    let json = |value: &Option<pgrx::JsonB>| value.as_ref().map_or(Value::Null, |v| v.0.clone());
    let options = match json(&outgoing.options) {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    let mut job = Job {
        task_id: outgoing.task_id,
        attempt: outgoing.attempt,
        engine: engine.to_owned(),
        unsure: outgoing.unsure_since.is_some(),
        unsure_since: outgoing.unsure_since,
        intention: outgoing.intention,
        role: outgoing.role.clone(),
        target,
        work: Work {
            query: outgoing.query.clone(),
            routine: outgoing.routine.clone(),
            arguments: Arguments {
                flow_id: outgoing.flow_id,
                flow: outgoing.flow.clone(),
                flow_arguments: json(&outgoing.flow_arguments),
                node: outgoing.node.clone(),
                step_arguments: json(&outgoing.step_arguments),
            },
            options,
            secrets: secrets(outgoing.secrets.as_ref().map(|s| pgrx::JsonB(s.0.clone()))),
        },
        keep: Default::default(),
        time_limit: outgoing.time_left.map(|us| Duration::from_micros(us.max(1) as u64)),
    };
    if job.work.options.get("request").is_some_and(|r| r.get("asynchronous") == Some(&Value::Bool(true))) {
        let token = store::callback_token(job.task_id, job.attempt);
        job.work.secrets.extend(token.map(|token| ("callback_token".to_owned(), Secret::new(token))));
    }
    let spec = results::spec(&job)?;
    job.keep = results::keep(&job, &spec)?;
    Ok((job, spec))
}
