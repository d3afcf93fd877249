//! JSON → document: the shape of a configuration. Known keys, types, names, nothing given twice.
//!
//! Must never look beyond the document itself, nor stop at a fault: what is wrong is reported and left out, the rest goes on.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::canonical::canonical;
use super::document::{dependency_path, node_path, DependencyDoc, Document, NodeDoc, Origin, StepDoc};
use super::fault::{described, key_path, quoted, Faults, Severity};
use super::keys::{Kind, Level};

/// The most nodes that a flow may have.
pub const MAX_NODES: usize = 100_000;
/// The longest name of a node, in bytes.
pub const MAX_NODE_NAME: usize = 127;
/// The longest name of a flow, in bytes.
pub const MAX_FLOW_NAME: usize = 255;

/// How a document is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// The document is what was stored before: its unknown keys have been reported already.
    pub stored: bool,
    /// An unknown key that resembles none is an error too.
    pub strict: bool,
    /// The document is added to a stored one, so that it need not have nodes.
    pub appended: bool,
}

impl Reading {
    fn origin(self, index: usize) -> Origin {
        if self.stored {
            Origin::Stored(index)
        } else {
            Origin::New(index)
        }
    }
}

/// Reads a configuration, as far as it can be read.
pub(super) fn parse(value: &Value, reading: Reading, faults: &mut Faults) -> Document {
    let Some(top) = value.as_object() else {
        faults.error_hint(
            "$",
            format!("a configuration must be an object, not {}", described(value)),
            "{\"nodes\": [{\"node\": \"my_procedure\"}]}",
        );
        return Document::default();
    };
    let mut keys = read_keys(top, Level::Top, "$", reading, faults);
    if let Some(flow) = keys.get_mut("flow") {
        if let Some(options) = top.get("flow").and_then(Value::as_object) {
            *flow = Value::Object(read_keys(options, Level::Flow, "$.flow", reading, faults));
        }
    }
    let nodes = match top.get("nodes") {
        Some(Value::Array(nodes)) => nodes.as_slice(),
        None | Some(Value::Null) if !reading.appended && !reading.stored => {
            faults.error_hint("$", "\"nodes\" is missing", "a configuration has \"nodes\": an array of nodes");
            &[]
        }
        _ => &[],
    };
    if nodes.is_empty() && keys.contains_key("nodes") && !reading.appended && !reading.stored {
        faults.error("$.nodes", "a flow needs at least one node");
    }
    if nodes.len() > MAX_NODES {
        faults.error("$.nodes", format!("a flow has at most {MAX_NODES} nodes, not {}", nodes.len()));
        return Document { keys, nodes: Vec::new() };
    }
    Document { keys, nodes: read_nodes(nodes, reading, faults) }
}

/// What is wrong with the name of a flow.
pub(super) fn check_flow_name(name: &str, faults: &mut Faults) {
    if name.trim().is_empty() {
        faults.error("$", "the flow's name must not be empty");
    } else if name.len() > MAX_FLOW_NAME {
        faults.error("$", format!("the flow's name is {} bytes long; at most {MAX_FLOW_NAME} are allowed", name.len()));
    } else if name.chars().any(char::is_control) {
        faults.error("$", format!("the flow's name {} contains a control character", quoted(name)));
    }
}

/// The keys of an object that are known, of the right type and not null, and the unknown ones that may stay.
fn read_keys(
    object: &Map<String, Value>,
    level: Level,
    path: &str,
    reading: Reading,
    faults: &mut Faults,
) -> Map<String, Value> {
    let mut kept = Map::new();
    for (key, value) in object {
        match level.kind(key) {
            None => {
                if !reading.stored {
                    unknown_key(object, key, level, path, reading.strict, faults);
                }
                if !value.is_null() {
                    kept.insert(key.clone(), value.clone());
                }
            }
            Some(_) if value.is_null() => {}
            Some(kind) => match kind.check(value) {
                Err(wrong) => faults.error(key_path(path, key), format!("\"{key}\" {wrong}")),
                Ok(()) => {
                    // The contents of these are read by themselves.
                    let whole = !matches!(kind, Kind::Array | Kind::Object);
                    kept.insert(key.clone(), if whole { value.clone() } else { Value::Null });
                }
            },
        }
    }
    kept
}

fn unknown_key(object: &Map<String, Value>, key: &str, level: Level, path: &str, strict: bool, faults: &mut Faults) {
    let given = |name: &str| object.get(name).is_some_and(|value| !value.is_null());
    let message = format!("unknown key {}", quoted(key));
    let path = key_path(path, key);
    if !faults.takes_unknown_key(key, &path) {
        return;
    }
    if let Some(there) = level.belongs(key) {
        faults.error_hint(path, message, format!("it belongs in {}", there.noun()));
    } else if let Some(nearest) = level.nearest(key, given) {
        faults.error_hint(path, message, format!("did you mean \"{nearest}\"?"));
    } else {
        let severity = if strict { Severity::Error } else { Severity::Warning };
        faults.add(severity, path, message, Some(level.listed()));
    }
}

fn read_nodes(nodes: &[Value], reading: Reading, faults: &mut Faults) -> Vec<NodeDoc> {
    let mut first: HashMap<&str, usize> = HashMap::with_capacity(nodes.len());
    let mut read = Vec::with_capacity(nodes.len());
    for (i, value) in nodes.iter().enumerate() {
        let name = value.get("node").and_then(Value::as_str).unwrap_or_default();
        let origin = reading.origin(i);
        let path = node_path(origin, name);
        let Some(object) = value.as_object() else {
            faults.error_hint(
                path,
                format!("a node must be an object, not {}", described(value)),
                "{\"node\": \"my_procedure\"}",
            );
            continue;
        };
        let node = read_node(object, name, origin, &path, reading, faults);
        if node.name.is_empty() {
            read.push(node);
            continue;
        }
        match first.get(name) {
            Some(before) => {
                let there = node_path(reading.origin(*before), name);
                faults.error(format!("{path}.node"), format!("node {} is given twice; first at {there}", quoted(name)));
            }
            None => {
                first.insert(name, i);
                read.push(node);
            }
        }
    }
    read
}

fn read_node(
    object: &Map<String, Value>,
    name: &str,
    origin: Origin,
    path: &str,
    reading: Reading,
    faults: &mut Faults,
) -> NodeDoc {
    let keys = read_keys(object, Level::Node, path, reading, faults);
    if matches!(object.get("node"), None | Some(Value::Null)) {
        faults.error_hint(path, "the node's name is missing", "give it as \"node\"");
    } else if keys.contains_key("node") {
        check_node_name(name, path, faults);
    }
    let items = |key: &str| object.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    NodeDoc {
        name: if keys.contains_key("node") { name.to_owned() } else { String::new() },
        dependencies: read_dependencies(items("dependencies"), name, origin, reading, faults),
        steps: read_steps(items("steps"), path, faults),
        keys,
        origin,
        given: None,
    }
}

/// What is wrong with the name of a node.
fn check_node_name(name: &str, path: &str, faults: &mut Faults) {
    let path = || format!("{path}.node");
    if name.len() > MAX_NODE_NAME {
        faults.error(path(), format!("a node's name is at most {MAX_NODE_NAME} bytes long, not {}", name.len()));
    } else if !is_node_name(name) {
        faults.error_hint(
            path(),
            format!("{} cannot be the name of a node", quoted(name)),
            "a node's name is lower-case letters, digits and underscores, begins with a letter, and has at most one dot; \
             name its procedure with \"routine\"",
        );
    }
}

/// Whether a node may be called so: `[a-z][a-z_0-9]*`, with at most one dot between two of these.
pub(super) fn is_node_name(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    match name.split_once('.') {
        Some((schema, rest)) => part(schema) && part(rest),
        None => part(name),
    }
}

fn read_dependencies(
    items: &[Value],
    name: &str,
    node: Origin,
    reading: Reading,
    faults: &mut Faults,
) -> Vec<DependencyDoc> {
    let mut parents: HashSet<&str> = HashSet::new();
    let mut read = Vec::with_capacity(items.len());
    for (j, value) in items.iter().enumerate() {
        let origin = reading.origin(j);
        let path = dependency_path(node, name, origin);
        let Some(object) = value.as_object() else {
            faults.error_hint(
                path,
                format!("a dependency must be an object, not {}", described(value)),
                "{\"parent\": \"name of the node before\"}",
            );
            continue;
        };
        let keys = read_keys(object, Level::Dependency, &path, reading, faults);
        match object.get("parent") {
            None | Some(Value::Null) => faults.error(path, "\"parent\" is missing"),
            Some(Value::String(parent)) if keys.contains_key("parent") => {
                let path = format!("{path}.parent");
                if parent == name {
                    faults.error(path, format!("node {} depends on itself", quoted(name)));
                } else if parents.insert(parent) {
                    read.push(DependencyDoc { keys, origin });
                } else {
                    faults.error(path, format!("node {} depends on {} twice", quoted(name), quoted(parent)));
                }
            }
            Some(_) => {}
        }
    }
    read
}

fn read_steps(items: &[Value], path: &str, faults: &mut Faults) -> Vec<StepDoc> {
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut read = Vec::with_capacity(items.len());
    for (j, value) in items.iter().enumerate() {
        let path = format!("{path}.steps[{j}]");
        match value.as_object() {
            None => faults.error(path, format!("a step must be an object, not {}", described(value))),
            Some(object) if object.is_empty() => {
                faults.error_hint(
                    path,
                    "a step must not be {}",
                    "a step is identified by its arguments; {} is the node's own task",
                );
            }
            Some(_) => {
                let key = canonical(value);
                if let Some(before) = first.get(&key) {
                    let hint = "a step is identified by its arguments; it runs once";
                    faults.warn_hint(path, format!("the same step as steps[{before}]"), hint);
                } else {
                    first.insert(key, j);
                    read.push(StepDoc { arguments: value.clone() });
                }
            }
        }
    }
    read
}
