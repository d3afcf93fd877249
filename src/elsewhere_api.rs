//! SQL functions over what the executor knows of kinds of targets and of stores: which there are, what they need, what is
//! wrong with a configuration. Declared in `sql/async/rust.sql`.
//!
//! Must never connect anywhere, and never repeat in a message a value that may be a secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgflow_core::definition;
use pgflow_executor::job::{is_credential, Job, Secret, Target};
use pgflow_executor::kind::{Fault, Needs};
use pgflow_executor::kinds;
use pgflow_executor::results::{check_store, Store};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use pgrx::JsonB;
use serde_json::{Map, Value};

use crate::json::Json;
use crate::store::{self, catalog};

/// Kinds whose other side can write an object itself (`"result": {"to": "export"}`).
const EXPORTING: &[&str] = &["clickhouse"];

/// Options that every kind has; `async.common_option_faults` checks them, the kinds never see them there.
const COMMON: &[&str] = &["connect_timeout", "give_up_after", "retry_delay", "retry_delay_max", "max_attempts"];

/// Names of options beside those of `is_credential` whose values are not shown.
const HIDDEN: &[&str] = &[
    "api-key",
    "api_key",
    "apikey",
    "access-key",
    "account-key",
    "private_key",
    "private-key",
    "cookie",
    "credential",
    "auth",
];

/// Headers of requests that hold no credential. The values of all others are not shown.
const PLAIN_HEADERS: &[&str] = &["accept", "content-type", "user-agent"];

/// What is known of a kind of the executor; `None`: there is no such kind.
pub fn kind_info(name: &str, tiers: Option<Vec<String>>) -> Option<definition::Elsewhere> {
    let kind = kinds::by_name(name)?;
    let needs = match kind.needs() {
        Needs::Query => definition::Needs::Query,
        Needs::QueryOrRoutine => definition::Needs::QueryOrRoutine,
        Needs::Options => definition::Needs::Options,
    };
    Some(definition::Elsewhere { kind: name.to_owned(), needs, exports: EXPORTING.contains(&name), tiers })
}

/// What a kind says about the options of a task.
pub fn kind_option_faults(kind: &str, options: &Map<String, Value>) -> Vec<(String, String)> {
    let faults = kinds::by_name(kind).map(|kind| kind.check_options(options)).unwrap_or_default();
    faults.into_iter().map(|fault| (relative(fault.path), fault.message)).collect()
}

/// A path as it follows that of what was checked: `.options.verify`, `[2]`, or nothing.
fn relative(path: String) -> String {
    let path = path.strip_prefix('$').map(str::to_owned).unwrap_or(path);
    if path.is_empty() || path.starts_with(['.', '[']) {
        path
    } else {
        format!(".{path}")
    }
}

/// Some kinds give the path of an option without saying that it is one.
fn in_options(path: String, options: &Map<String, Value>) -> String {
    let key = path.trim_start_matches('.').split(['.', '[']).next().unwrap_or_default();
    let of_target = ["options", "server", "connection_string", "kind"].contains(&key);
    if options.contains_key(key) && !of_target {
        format!(".options{path}")
    } else {
        path
    }
}

type FaultRows = TableIterator<'static, (name!(path, String), name!(message, String))>;

fn rows(faults: Vec<(String, String)>) -> FaultRows {
    TableIterator::new(faults)
}

fn object(value: Option<Json>) -> Map<String, Value> {
    match value.map(|v| v.0) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The values of an object as texts.
fn secrets(options: Map<String, Value>) -> BTreeMap<String, Secret> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    options.into_iter().filter(|(_, v)| !v.is_null()).map(|(key, value)| (key, Secret::new(text(value)))).collect()
}

#[pg_extern(sql = false)]
fn executor_kinds() -> Vec<String> {
    kinds::all().iter().map(|kind| kind.name().to_owned()).collect()
}

#[pg_extern(sql = false)]
fn kind_needs(kind: &str) -> Option<&'static str> {
    if kind == "local" {
        return Some("query_or_routine");
    }
    kinds::by_name(kind).map(|kind| match kind.needs() {
        Needs::Query => "query",
        Needs::QueryOrRoutine => "query_or_routine",
        Needs::Options => "options",
    })
}

#[pg_extern(sql = false)]
fn target_faults(
    kind: Option<&str>,
    connection_string: Option<&str>,
    connection_options: Option<Json>,
    password_required: Option<bool>,
    options: Option<Json>,
) -> FaultRows {
    let Some(kind) = kind.and_then(kinds::by_name) else { return rows(Vec::new()) };
    let mut options = object(options);
    options.retain(|key, _| !COMMON.contains(&key.as_str()));
    let target = Target {
        kind: kind.name().to_owned(),
        connection_string: connection_string.map(Secret::new),
        connection_options: secrets(object(connection_options)),
        password_required: password_required.unwrap_or(true),
        options,
        ..Target::default()
    };
    let faults = kind.check_target(&target);
    let job = Job { target: Arc::new(target), ..Job::default() };
    let faults = masked_faults(&job, faults).into_iter();
    rows(faults.map(|(path, message)| (in_options(path, &job.target.options), message)).collect())
}

fn masked_faults(job: &Job, faults: Vec<Fault>) -> Vec<(String, String)> {
    faults.into_iter().map(|fault| (relative(job.masked(&fault.path)), job.masked(&fault.message))).collect()
}

#[pg_extern(sql = false)]
fn options_faults(kind: Option<&str>, options: Option<Json>) -> FaultRows {
    let target = match kind {
        Some("local") | None => definition::TargetInfo::Local,
        Some("external") => definition::TargetInfo::External,
        Some(name) => kind_info(name, None).map_or(definition::TargetInfo::Unknown, definition::TargetInfo::Elsewhere),
    };
    let options = match options.map(|o| o.0) {
        None | Some(Value::Null) => return rows(Vec::new()),
        Some(Value::Object(options)) => options,
        Some(_) => return rows(vec![(String::new(), "must be an object".to_owned())]),
    };
    let faults = store::connected(|| match catalog::Live::current() {
        Some(mut live) => definition::options_faults(&target, &options, &mut live),
        None => Vec::new(),
    });
    rows(faults.into_iter().map(|fault| (fault.path, fault.message)).collect())
}

#[pg_extern(sql = false)]
fn store_faults(url: Option<&str>, options: Option<Json>) -> FaultRows {
    let options = secrets(object(options));
    let store = Store { url: url.unwrap_or_default().to_owned(), options: options.clone(), ..Store::default() };
    let faults = check_store(&store);
    let target = Target { connection_string: url.map(Secret::new), connection_options: options, ..Target::default() };
    rows(masked_faults(&Job { target: Arc::new(target), ..Job::default() }, faults))
}

#[pg_extern(sql = false, immutable)]
fn masked_options(options: Option<Json>) -> Option<JsonB> {
    options.map(|Json(value, _)| JsonB(masked("", value, false)))
}

fn is_hidden(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    is_credential(key) || HIDDEN.iter().any(|word| lower.contains(word))
}

/// A value without credentials. What only names one (`Bearer ${token}`) stays.
fn masked(key: &str, value: Value, in_headers: bool) -> Value {
    let hidden = if in_headers { !PLAIN_HEADERS.contains(&key.to_ascii_lowercase().as_str()) } else { is_hidden(key) };
    match value {
        Value::Null | Value::Bool(_) => value,
        Value::Object(map) => {
            let headers = key.eq_ignore_ascii_case("headers");
            Value::Object(map.into_iter().map(|(k, v)| (k.clone(), masked_below(&k, v, hidden, headers))).collect())
        }
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| masked_below(key, item, hidden, false)).collect())
        }
        Value::String(text) if hidden && !is_reference(&text) => Value::String("***".into()),
        Value::String(text) => Value::String(without_password(&text)),
        Value::Number(_) if hidden => Value::String("***".into()),
        Value::Number(_) => value,
    }
}

fn masked_below(key: &str, value: Value, hidden: bool, in_headers: bool) -> Value {
    match value {
        Value::String(text) if hidden && !is_reference(&text) => Value::String("***".into()),
        Value::Number(_) if hidden => Value::String("***".into()),
        value => masked(key, value, in_headers),
    }
}

/// Whether a text says where a credential comes from: a scheme's word at most, then `${name}`.
fn is_reference(text: &str) -> bool {
    let text = ["Bearer ", "Basic ", "Token "].iter().find_map(|word| text.strip_prefix(word)).unwrap_or(text);
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// A URL without the password in its user info, and without the values of parameters that are credentials.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => format!("{}:***@{host}", user.split(':').next().unwrap_or_default()),
        None => authority.to_owned(),
    };
    let tail = match tail.split_once('?') {
        Some((path, query)) => {
            let shown = query.split('&').map(|pair| match pair.split_once('=') {
                Some((key, _)) if is_hidden(key) => format!("{key}=***"),
                _ => pair.to_owned(),
            });
            format!("{path}?{}", shown.collect::<Vec<_>>().join("&"))
        }
        None => tail.to_owned(),
    };
    format!("{scheme}://{authority}{tail}")
}
