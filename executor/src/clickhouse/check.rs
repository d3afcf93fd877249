//! What is wrong with a target or a node of kind `clickhouse` as configured; connects nowhere.

use serde_json::{Map, Value};

use super::dsn::{self, Connection};
use super::{export, settings};
use crate::job::Target;
use crate::kind::Fault;

/// Options that every kind of target has.
const COMMON: &[&str] = &["connect_timeout", "give_up_after", "retry_delay", "retry_delay_max", "max_attempts"];
const OWN: &[&str] = &[
    "database",
    "settings",
    "tiers",
    "quota_key",
    "ca_file",
    "verify",
    "secrets",
    "named_collection",
    export::CREDENTIALS,
];
const OF_NODES: &[&str] = &["parameters", "settings", "tier", "quota_key", "result"];

pub fn target(target: &Target) -> Vec<Fault> {
    let mut faults = Vec::new();
    // Options have paths of their own.
    let connection = Target { options: Map::new(), ..target.clone() };
    if let Err(failure) = Connection::of(&connection) {
        faults.push(Fault::new("", failure.message));
    }
    for (key, value) in &target.options {
        let path = format!(".{key}");
        match key.as_str() {
            "settings" => of_settings(&path, value, &mut faults),
            "tiers" => tiers(&path, value, &mut faults),
            "verify" => {
                if let Err(failure) = dsn::verify(value.as_str().unwrap_or_default()) {
                    faults.push(Fault::new(path, failure.message));
                }
            }
            "secrets" if !matches!(value.as_str(), Some("headers" | "parameters")) => {
                faults.push(Fault::new(path, "must be \"headers\" or \"parameters\""));
            }
            "named_collection" if !value.as_str().is_some_and(export::is_identifier) => {
                faults.push(Fault::new(path, "must be the name of a named collection: letters, digits, _"));
            }
            export::CREDENTIALS if value.as_str() != Some(export::SHARED) => {
                faults.push(Fault::new(path, "must be \"shared\", or absent"));
            }
            "database" | "quota_key" | "ca_file" if !value.is_string() => {
                faults.push(Fault::new(path, "must be a text"));
            }
            "connect_timeout" if value.as_f64().is_none_or(|seconds| seconds <= 0.0) => {
                faults.push(Fault::new(path, "must be a number of seconds"));
            }
            key if !COMMON.contains(&key) && !OWN.contains(&key) => {
                faults.push(unknown(path, key, &[COMMON, OWN].concat()))
            }
            _ => {}
        }
    }
    faults
}

pub fn options(options: &Map<String, Value>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, value) in options {
        let path = format!(".{key}");
        match key.as_str() {
            "settings" => of_settings(&path, value, &mut faults),
            "parameters" if !value.is_object() => faults.push(Fault::new(path, "must be an object")),
            "tier" | "quota_key" if !value.is_string() => faults.push(Fault::new(path, "must be a text")),
            "request" => faults.push(Fault::new(path, "is for targets of kind http")),
            key if !OF_NODES.contains(&key) => faults.push(unknown(path, key, OF_NODES)),
            _ => {}
        }
    }
    faults
}

fn unknown(path: String, key: &str, known: &[&str]) -> Fault {
    Fault::new(path, format!("unknown key {key:?}; known are {}", known.join(", ")))
}

fn of_settings(path: &str, value: &Value, faults: &mut Vec<Fault>) {
    faults.extend(settings::faults(value).into_iter().map(|(below, what)| Fault::new(format!("{path}{below}"), what)));
}

fn tiers(path: &str, value: &Value, faults: &mut Vec<Fault>) {
    let Value::Object(tiers) = value else {
        faults.push(Fault::new(path, "must be an object: tier → {\"settings\": {…}, \"target\": …}"));
        return;
    };
    for (name, tier) in tiers {
        let path = format!("{path}.{name}");
        let Value::Object(tier) = tier else {
            faults.push(Fault::new(path, "must be an object with \"settings\" or \"target\""));
            continue;
        };
        for (key, value) in tier {
            let path = format!("{path}.{key}");
            match key.as_str() {
                "settings" => of_settings(&path, value, faults),
                "target" if value.is_string() => {}
                "target" => faults.push(Fault::new(path, "must be the name of a target")),
                key => faults.push(unknown(path, key, &["settings", "target"])),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::Secret;

    fn paths(faults: Vec<Fault>) -> Vec<String> {
        faults.into_iter().map(|fault| fault.path).collect()
    }

    #[test]
    fn unknown_keys_and_wrong_types_of_a_target_are_named() {
        let good = json!({"database": "d", "settings": {"max_threads": 2}, "quota_key": "q", "verify": "ca",
            "tiers": {"": {"settings": {}}, "big": {"settings": {"max_threads": 8}, "target": "other"}},
            "max_attempts": 3, "secrets": "parameters", "connect_timeout": 2, "export_credentials": "shared"});
        let check = |options: Value| {
            let connection_string = Some(Secret::new("http://u:p@h:8123/d"));
            target(&Target { connection_string, options: options.as_object().cloned().unwrap(), ..Target::default() })
        };
        assert_eq!(check(good), vec![]);
        let bad = json!({"databse": "d", "settings": {"a b": 1}, "verify": "some", "quota_key": 1, "secrets": "shown",
            "export_credentials": "all",
            "tiers": {"big": {"setings": {}}, "small": 1}});
        let expected = [
            ".databse",
            ".settings.a b",
            ".verify",
            ".quota_key",
            ".secrets",
            ".export_credentials",
            ".tiers.big.setings",
            ".tiers.small",
        ];
        assert_eq!(paths(check(bad)), expected);
        assert_eq!(paths(target(&Target::default())), [""]);
    }

    #[test]
    fn unknown_keys_and_wrong_types_of_a_node_are_named() {
        let good = json!({"parameters": {"a": 1}, "settings": {"max_threads": 1}, "tier": "", "result": "none"});
        assert_eq!(options(good.as_object().unwrap()), vec![]);
        let bad = json!({"parameter": {}, "parameters": 1, "settings": {"x": []}, "tier": 1, "request": {}});
        let expected = [".parameter", ".parameters", ".settings.x", ".tier", ".request"];
        assert_eq!(paths(options(bad.as_object().unwrap())), expected);
    }
}
