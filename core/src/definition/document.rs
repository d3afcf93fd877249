//! A configuration as it was written, with the place that each part of it came from.
//!
//! Must never decide what a configuration means: it only keeps the parts apart, so that they can be merged and checked.

use serde_json::{Map, Value};

use super::fault::{key_path, quoted};

/// Which document something came from, and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The configuration that was given now.
    New(usize),
    /// The one that was stored before, when the new one is added to it.
    Stored(usize),
}

/// A configuration. Keys that are absent or null are not in the maps; `nodes`, `dependencies` and `steps` keep their place
/// in the order of the keys with a null, until `into_value` puts them back.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub keys: Map<String, Value>,
    pub nodes: Vec<NodeDoc>,
}

/// A node of a configuration.
#[derive(Debug)]
pub(super) struct NodeDoc {
    /// Empty when it has none that can be used; a fault says so.
    pub name: String,
    pub keys: Map<String, Value>,
    pub dependencies: Vec<DependencyDoc>,
    pub steps: Vec<StepDoc>,
    pub origin: Origin,
    /// For a node of both documents, the keys that the new one gave.
    pub given: Option<Vec<String>>,
}

/// A dependency of a node. Its parent is among the keys.
#[derive(Debug)]
pub(super) struct DependencyDoc {
    pub keys: Map<String, Value>,
    pub origin: Origin,
}

/// A static step of a node.
#[derive(Debug)]
pub(super) struct StepDoc {
    pub arguments: Value,
}

impl NodeDoc {
    /// The string at a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.keys.get(key).and_then(Value::as_str)
    }

    /// The boolean at a key, or its default.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.keys.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// Where the node is.
    pub fn path(&self) -> String {
        node_path(self.origin, &self.name)
    }

    /// Where a key of the node is, or would be.
    pub fn path_of(&self, key: &str) -> String {
        let given = self.given.as_ref().is_none_or(|given| given.iter().any(|g| g == key));
        if given || !self.keys.contains_key(key) {
            key_path(&self.path(), key)
        } else {
            key_path(&stored_path(&self.name), key)
        }
    }

    /// Where a dependency's parent is.
    pub fn parent_path(&self, dependency: &DependencyDoc) -> String {
        format!("{}.parent", dependency_path(self.origin, &self.name, dependency.origin))
    }
}

impl DependencyDoc {
    /// The parent's name.
    pub fn parent(&self) -> &str {
        self.keys.get("parent").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the child runs although the parent failed.
    pub fn continue_on_failure(&self) -> bool {
        self.keys.get("continue_on_failure").and_then(Value::as_bool).unwrap_or(false)
    }
}

impl Document {
    /// The normalised configuration.
    pub fn into_value(mut self) -> Value {
        let nodes = self.nodes.into_iter().map(node_value).collect();
        self.keys.insert("nodes".into(), Value::Array(nodes));
        Value::Object(self.keys)
    }
}

fn node_value(node: NodeDoc) -> Value {
    let mut keys = node.keys;
    let dependencies = node.dependencies.into_iter().map(|d| Value::Object(d.keys)).collect();
    fill(&mut keys, "dependencies", dependencies);
    fill(&mut keys, "steps", node.steps.into_iter().map(|s| s.arguments).collect());
    Value::Object(keys)
}

fn fill(keys: &mut Map<String, Value>, key: &str, items: Vec<Value>) {
    if let Some(place) = keys.get_mut(key) {
        *place = Value::Array(items);
    }
}

/// The path of a node: by its index in the new document, by its name in the stored one.
pub(super) fn node_path(origin: Origin, name: &str) -> String {
    match origin {
        Origin::New(i) => format!("$.nodes[{i}]"),
        Origin::Stored(_) => stored_path(name),
    }
}

/// The path of a dependency of a node.
pub(super) fn dependency_path(node: Origin, name: &str, dependency: Origin) -> String {
    match (node, dependency) {
        (Origin::New(i), Origin::New(j)) => format!("$.nodes[{i}].dependencies[{j}]"),
        (_, Origin::New(j) | Origin::Stored(j)) => format!("{}.dependencies[{j}]", stored_path(name)),
    }
}

fn stored_path(name: &str) -> String {
    format!("$.nodes[?node=={}]", quoted(name))
}
