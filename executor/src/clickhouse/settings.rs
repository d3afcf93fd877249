//! ClickHouse settings that go with a query: of the connection string, the target, the tier, the node; the last one holds.
//!
//! Must never let a setting stand for something that is not one: names that the HTTP interface takes for itself are refused.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::job::{Failure, Job};

/// Names that the HTTP interface reads as something else.
const RESERVED: &[&str] = &[
    "query",
    "query_id",
    "user",
    "password",
    "database",
    "default_format",
    "quota_key",
    "session_id",
    "session_check",
    "session_timeout",
    "role",
    "compress",
    "decompress",
    "stacktrace",
    "buffer_size",
    "wait_end_of_query",
    "client_protocol_version",
    "close_session",
    "http_make_head_request",
];

pub type Settings = BTreeMap<String, String>;

/// Whether a word can be the name of a setting.
pub fn is_name(word: &str) -> bool {
    let mut chars = word.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        && !word.starts_with("param_")
        && !RESERVED.contains(&word)
}

/// A setting's value as ClickHouse reads it.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(b) => Some(if *b { "1" } else { "0" }.to_owned()),
        Value::Number(n) => Some(n.to_string()),
        Value::String(s) => Some(s.clone()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What is wrong with an object of settings: (path below it, what).
pub fn faults(settings: &Value) -> Vec<(String, String)> {
    let Value::Object(settings) = settings else {
        return vec![(String::new(), "must be an object of ClickHouse settings".into())];
    };
    let mut found = Vec::new();
    for (name, value) in settings {
        if !is_name(name) {
            found.push((format!(".{name}"), format!("{name:?} is not the name of a ClickHouse setting")));
        } else if text(value).is_none() {
            found.push((format!(".{name}"), "must be a text, a number, true or false".into()));
        }
    }
    found
}

/// All settings of a job, by the place that wins: the node's, the tier's, the target's, the connection string's.
pub fn of(job: &Job, of_string: &Settings) -> Result<Settings, Failure> {
    let mut all = of_string.clone();
    merge(&mut all, job.target.options.get("settings"), "the target's settings")?;
    if let Some(tier) = tier(job)? {
        merge(&mut all, tier.get("settings"), "the tier's settings")?;
    }
    merge(&mut all, job.work.options.get("settings"), "settings")?;
    Ok(all)
}

fn merge(all: &mut Settings, settings: Option<&Value>, place: &str) -> Result<(), Failure> {
    let Some(settings) = settings.filter(|s| !s.is_null()) else { return Ok(()) };
    if let Some((path, what)) = faults(settings).into_iter().next() {
        return Err(Failure::new(format!("{place}{path}: {what}")));
    }
    for (name, value) in settings.as_object().into_iter().flatten() {
        all.extend(text(value).map(|text| (name.clone(), text)));
    }
    Ok(())
}

/// The tier that the job asks for; the default one need not be configured.
fn tier(job: &Job) -> Result<Option<&Map<String, Value>>, Failure> {
    let name = match job.work.options.get("tier") {
        None | Some(Value::Null) => "",
        Some(Value::String(name)) => name,
        Some(_) => return Err(Failure::new("tier must be a text")),
    };
    let tiers = job.target.options.get("tiers").and_then(Value::as_object);
    match tiers.and_then(|tiers| tiers.get(name)) {
        Some(tier) => Ok(tier.as_object()),
        None if name.is_empty() => Ok(None),
        None => Err(Failure::new(format!("target {} has no tier {name:?}", job.target.name))
            .hint("Tiers are named under options.tiers of the target (async.configure).")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::job::{Target, Work};

    fn job(target: Value, work: Value) -> Job {
        let target = Target { options: target.as_object().cloned().unwrap(), name: "ch".into(), ..Target::default() };
        let work = Work { options: work.as_object().cloned().unwrap(), ..Work::default() };
        Job { target: Arc::new(target), work, ..Job::default() }
    }

    #[test]
    fn the_node_wins_over_the_tier_over_the_target_over_the_string() {
        let target = json!({"settings": {"a": 1, "b": 1, "c": 1}, "tiers": {"big": {"settings": {"b": 2, "c": 2}}}});
        let string = Settings::from([("a".into(), "0".into()), ("z".into(), "0".into())]);
        let all = of(&job(target.clone(), json!({"tier": "big", "settings": {"c": true}})), &string).unwrap();
        let expected: Settings =
            [("a", "1"), ("b", "2"), ("c", "1"), ("z", "0")].map(|(k, v)| (k.into(), v.into())).into();
        assert_eq!(all, expected);
        assert!(of(&job(target.clone(), json!({"tier": ""})), &string).is_ok());
        let failure = of(&job(target, json!({"tier": "huge"})), &string).unwrap_err();
        assert!(failure.message.contains("huge"), "{failure}");
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        for name in ["query_id", "param_x", "a-b", "", "1a", "user", "a b"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("max_threads") && is_name("SQL_x") && is_name("merge_tree.x"));
        assert_eq!(faults(&json!({"query": "x", "max_threads": [1], "ok": 1})).len(), 2);
    }
}
