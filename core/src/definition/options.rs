//! What a task says beside its query or routine: for targets elsewhere `parameters`, `settings`, `tier`, `request`; for this
//! database `synchronous_commit`, `steps_per_transaction`; for both `result`.
//!
//! Must never know a kind of target by its name: what differs between them is in `TargetInfo`, and what only a kind can judge
//! is asked of the catalog.

use serde_json::{Map, Value};

use super::catalog::{Asked, TargetInfo};
use super::fault::{described, key_path, quoted, Faults};
use super::model::Needs;

/// The options, in the order in which they are stored.
pub(super) const OPTIONS: &[&str] =
    &["parameters", "settings", "tier", "request", "result", "synchronous_commit", "steps_per_transaction"];

/// How a worker of this database runs the tasks.
const LOCAL: &[&str] = &["synchronous_commit", "steps_per_transaction"];

/// The most rows and bytes of a result that is kept inline: it passes through the memory of the dispatcher.
const INLINE_ROWS: i64 = 100_000;
const INLINE_BYTES: i64 = 64 * 1024 * 1024;

const FORMATS: &[&str] = &["parquet", "csv", "json", "arrow"];
const COMPRESSIONS: &[&str] = &["none", "gzip", "zstd"];

/// Checks the options of one task or node. `whole` is the path of what has them, `path_of` gives that of an option.
pub(super) fn check(
    options: &Map<String, Value>,
    target: &TargetInfo,
    whole: &str,
    path_of: &dyn Fn(&str) -> String,
    catalog: &mut Asked<'_>,
    faults: &mut Faults,
) {
    let mut for_the_kind = Map::new();
    for (key, value) in options {
        if let Some(misplaced) = misplaced(key, target) {
            faults.error(path_of(key), misplaced);
            continue;
        }
        match key.as_str() {
            key if LOCAL.contains(&key) => {}
            "result" => check_result(value, target, &path_of(key), catalog, faults),
            "tier" if !known_tier(value, target, &path_of(key), faults) => {}
            _ => {
                for_the_kind.insert(key.clone(), value.clone());
            }
        }
    }
    if let TargetInfo::Elsewhere(elsewhere) = target {
        for (path, message) in catalog.options_faults(&elsewhere.kind, &for_the_kind) {
            let trimmed = path.strip_prefix('.').unwrap_or(&path);
            let (key, rest) = trimmed.split_at(trimmed.find(['.', '[']).unwrap_or(trimmed.len()));
            // What is wrong with no option in particular is wrong with all that has them.
            let place =
                if OPTIONS.contains(&key) { format!("{}{rest}", path_of(key)) } else { format!("{whole}{path}") };
            faults.error(place, message);
        }
    }
}

/// Why an option has no meaning on a target.
fn misplaced(key: &str, target: &TargetInfo) -> Option<String> {
    match target {
        TargetInfo::External => Some(format!("\"{key}\" has no meaning on an external target: clients take its tasks")),
        TargetInfo::Elsewhere(_) if LOCAL.contains(&key) => {
            Some(format!("\"{key}\" has no meaning on a target elsewhere: it is for the local database"))
        }
        TargetInfo::Local if key != "result" && !LOCAL.contains(&key) => {
            Some(format!("\"{key}\" has no meaning on the local database: it is for targets elsewhere"))
        }
        TargetInfo::Elsewhere(at) if key == "request" && at.needs != Needs::Options => {
            Some(format!("\"request\" has no meaning on a target of kind \"{}\"", at.kind))
        }
        _ => None,
    }
}

/// Whether the target has the tier. A tier that is no text is for the kind to refuse.
fn known_tier(value: &Value, target: &TargetInfo, path: &str, faults: &mut Faults) -> bool {
    let (Some(tier), TargetInfo::Elsewhere(at)) = (value.as_str(), target) else { return true };
    let Some(tiers) = &at.tiers else { return true };
    if tiers.iter().any(|known| known == tier) {
        return true;
    }
    let hint = match tiers.as_slice() {
        [] => "tiers are among the \"options\" of a target: see async.configure".to_owned(),
        some => format!("it has {}", some.iter().take(10).map(|t| quoted(t)).collect::<Vec<_>>().join(", ")),
    };
    faults.error_hint(path, format!("the target has no tier {}", quoted(tier)), hint);
    false
}

/// Whether a result is asked for.
pub(super) fn wants_result(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(word)) => word != "none",
        Some(Value::Object(result)) => result.get("to").and_then(Value::as_str) != Some("none"),
        Some(_) => true,
    }
}

fn check_result(value: &Value, target: &TargetInfo, path: &str, catalog: &mut Asked<'_>, faults: &mut Faults) {
    let result = match value {
        Value::String(word) if word == "none" || word == "inline" => return,
        Value::Object(result) => result,
        other => {
            let wanted = "\"none\", \"inline\", or an object such as {\"to\": \"inline\", \"max_rows\": 1000}";
            faults.error(path, format!("\"result\" must be {wanted}, not {}", described(other)));
            return;
        }
    };
    let to = result.get("to").and_then(Value::as_str).unwrap_or_default();
    let known: &[&str] = match to {
        "none" => &["to"],
        "inline" => &["to", "max_rows", "max_bytes", "keep_for"],
        "table" => &["to", "table", "create", "truncate", "keep_for"],
        "object" | "export" => &["to", "store", "path", "format", "compression", "keep_for"],
        _ => {
            let wanted = "\"none\", \"inline\", \"table\", \"object\" or \"export\"";
            faults.error(key_path(path, "to"), format!("\"to\" must be {wanted}"));
            return;
        }
    };
    if to == "export" && !matches!(target, TargetInfo::Elsewhere(at) if at.exports) {
        let hint = "\"to\": \"object\" stores what comes back from it";
        faults.error_hint(key_path(path, "to"), "this target cannot write an object itself", hint);
    }
    for (key, required) in
        [("table", to == "table"), ("store", known.contains(&"store")), ("format", known.contains(&"format"))]
    {
        if required && result.get(key).is_none_or(Value::is_null) {
            faults.error(path, format!("\"{key}\" is missing"));
        }
    }
    for (key, value) in result.iter().filter(|(_, value)| !value.is_null()) {
        let path = key_path(path, key);
        if !known.contains(&key.as_str()) {
            let hint = format!("\"to\": \"{to}\" has {}", known.join(", "));
            faults.error_hint(path, format!("unknown key {}", quoted(key)), hint);
        } else if let Err(wrong) = check_result_key(key, value, catalog) {
            faults.error(path, wrong);
        }
    }
}

fn check_result_key(key: &str, value: &Value, catalog: &mut Asked<'_>) -> Result<(), String> {
    let wanted = |right: bool, what: &str| match right {
        true => Ok(()),
        false => Err(format!("\"{key}\" must be {what}, not {}", described(value))),
    };
    let word = |words: &[&str]| wanted(value.as_str().is_some_and(|w| words.contains(&w)), &words.join(" or "));
    let count = |most: i64| {
        wanted(value.as_i64().is_some_and(|n| (1..=most).contains(&n)), &format!("a whole number from 1 to {most}"))
    };
    match key {
        "max_rows" => count(INLINE_ROWS),
        "max_bytes" => count(INLINE_BYTES),
        "create" | "truncate" => wanted(value.is_boolean(), "true or false"),
        "format" => word(FORMATS),
        "compression" => word(COMPRESSIONS),
        "table" => wanted(value.as_str().is_some_and(|t| !t.trim().is_empty()), "the name of a table"),
        "path" => match value.as_str() {
            Some(path) => check_object_path(path),
            None => wanted(false, "a text"),
        },
        "store" => match value.as_str() {
            Some(store) if catalog.store_exists(store) => Ok(()),
            Some(store) => Err(format!("store {} does not exist: async.configure defines stores", quoted(store))),
            None => wanted(false, "the name of a store"),
        },
        "keep_for" => match value.as_str() {
            Some(text) => catalog.interval(text).map_err(|wrong| format!("\"keep_for\" is {}: {wrong}", quoted(text))),
            None => wanted(false, "an interval such as \"90 days\""),
        },
        _ => Ok(()),
    }
}

/// A path below the prefix of a store, with `{names}` that are filled in for each task.
fn check_object_path(path: &str) -> Result<(), String> {
    let shown = quoted(path);
    if path.is_empty() || path.len() > 900 || path.starts_with('/') || path.ends_with('/') || path.contains("//") {
        return Err(format!("\"path\" must be a relative path to an object, not {shown}"));
    }
    if path.split('/').any(|part| part == "." || part == "..")
        || path.contains(['\\', '?', '#'])
        || path.chars().any(char::is_control)
    {
        return Err(format!("\"path\" {shown} has a part that is no plain name"));
    }
    let mut rest = path;
    while let Some(at) = rest.find(['{', '}']) {
        let inside = rest[at..].strip_prefix('{').and_then(|from| from.split_once('}'));
        match inside {
            Some((name, after)) if is_name(name) => rest = after,
            _ => return Err(format!("\"path\" {shown} has a brace that does not enclose a name, such as {{task_id}}")),
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
