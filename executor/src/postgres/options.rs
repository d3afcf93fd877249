//! What is configured beside the connection: options of the target, and those of a node or task.

use std::time::Duration;

use serde_json::{Map, Value};

use super::names::unknown_key;
use crate::kind::Fault;

/// `options` of a target of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetOptions {
    pub connect_timeout: Duration,
    /// Whether the inbox is used where it is.
    pub inbox: bool,
    /// The role to become there.
    pub role: Option<String>,
    /// How long a connection is kept that nobody uses.
    pub idle_time: Duration,
    /// Whether a pooler stands between; None: found out.
    pub pooler: Option<bool>,
}

/// Those that are read here, and those that whoever hands jobs out reads.
const OF_TARGETS: [&str; 9] = [
    "inbox",
    "role",
    "idle_time",
    "pooler",
    "connect_timeout",
    "give_up_after",
    "retry_delay",
    "retry_delay_max",
    "max_attempts",
];

const OF_NODES: [&str; 3] = ["parameters", "settings", "result"];

/// Settings that are ours, or that would make the session another one than we think.
const NOT_TO_BE_SET: [&str; 4] = ["application_name", "client_encoding", "role", "session_authorization"];

impl TargetOptions {
    pub fn of(options: &Map<String, Value>) -> Result<TargetOptions, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut wrong = |key: &str, what: &str| faults.push(Fault::new(format!(".options.{key}"), what));
        for key in options.keys().filter(|key| !OF_TARGETS.contains(&key.as_str())) {
            wrong(key, &unknown_key("option", key, &OF_TARGETS));
        }
        let seconds = |key: &str, otherwise: u64| match options.get(key) {
            None | Some(Value::Null) => Some(Duration::from_secs(otherwise)),
            Some(value) => value.as_f64().filter(|s| (0.0..=86_400.0 * 365.0).contains(s)).map(Duration::from_secs_f64),
        };
        let connect_timeout = seconds("connect_timeout", 10).filter(|t| !t.is_zero());
        if connect_timeout.is_none() {
            wrong("connect_timeout", "must be a number of seconds, more than zero");
        }
        let idle_time = seconds("idle_time", 60);
        if idle_time.is_none() {
            wrong("idle_time", "must be a number of seconds");
        }
        let inbox = match options.get("inbox").map(|v| v.as_str()) {
            None | Some(Some("auto")) => true,
            Some(Some("off")) => false,
            _ => {
                wrong("inbox", "must be \"auto\" or \"off\"");
                true
            }
        };
        let pooler = options.get("pooler").and_then(Value::as_bool);
        if pooler.is_none() && options.get("pooler").is_some_and(|v| !v.is_null()) {
            wrong("pooler", "must be true or false");
        }
        let role = options.get("role").and_then(Value::as_str).map(str::to_owned);
        if role.as_deref().map_or(options.get("role").is_some_and(|v| !v.is_null()), |r| r.is_empty() || r == "none") {
            wrong("role", "must be the name of a role");
        }
        if let (true, Some(connect_timeout), Some(idle_time)) = (faults.is_empty(), connect_timeout, idle_time) {
            return Ok(TargetOptions { connect_timeout, inbox, role, idle_time, pooler });
        }
        Err(faults)
    }
}

/// What is wrong with what a node or task says beside its query.
pub fn check(options: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, value) in options {
        let path = format!(".{key}");
        match key.as_str() {
            "parameters" if !value.is_object() => faults.push(Fault::new(path, "must be an object: name → value")),
            "parameters" | "result" => {}
            "settings" => {
                if let Err(wrong) = settings(options) {
                    faults.extend(wrong);
                }
            }
            "tier" => faults.push(Fault::new(path, "a Postgres target has no tiers")),
            "request" => {
                faults.push(Fault::new(path, "a Postgres target takes no requests: it needs a query or a routine"))
            }
            other => faults.push(Fault::new(path, unknown_key("key", other, &OF_NODES))),
        }
    }
    faults
}

/// The settings of a node: names and texts.
pub fn settings(options: &Map<String, Value>) -> Result<Vec<(String, String)>, Vec<Fault>> {
    let settings = match options.get("settings") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(settings)) => settings,
        Some(_) => return Err(vec![Fault::new(".settings", "must be an object: name → value")]),
    };
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for (name, value) in settings {
        let text = match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(yes) => Some(if *yes { "on" } else { "off" }.to_owned()),
            _ => None,
        };
        let path = format!(".settings.{name}");
        match text {
            _ if NOT_TO_BE_SET.contains(&name.to_ascii_lowercase().as_str()) => {
                faults.push(Fault::new(path, "cannot be set here"));
            }
            Some(text) => found.push((name.clone(), text)),
            None => faults.push(Fault::new(path, "must be a text, a number, true or false")),
        }
    }
    if faults.is_empty() {
        Ok(found)
    } else {
        Err(faults)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> Result<TargetOptions, Vec<Fault>> {
        TargetOptions::of(value.as_object().unwrap())
    }

    #[test]
    fn options_of_targets_have_types() {
        let options =
            of(json!({"inbox": "off", "role": "etl", "idle_time": 1.5, "pooler": true, "retry_delay": 1})).unwrap();
        assert!(!options.inbox && options.pooler == Some(true) && options.role.as_deref() == Some("etl"));
        assert_eq!(options.idle_time, Duration::from_millis(1500));
        let faults =
            of(json!({"inbox": "on", "pooler": "yes", "role": 1, "idle_time": -1, "poler": true})).unwrap_err();
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert!(faults.iter().any(|f| f.path == ".options.poler" && f.message.contains("is pooler meant?")));
    }

    #[test]
    fn options_of_nodes_have_types() {
        let wrong = json!({"parameters": [], "settings": {"work_mem": [], "ROLE": "x"}, "tier": "x", "paramters": {}});
        let faults = check(wrong.as_object().unwrap());
        assert_eq!(faults.len(), 5, "{faults:?}");
        let fine = json!({"parameters": {"a": 1}, "settings": {"work_mem": "8MB", "enable_seqscan": false}});
        assert!(check(fine.as_object().unwrap()).is_empty());
        assert_eq!(settings(fine.as_object().unwrap()).unwrap()[1], ("enable_seqscan".into(), "off".into()));
    }
}
