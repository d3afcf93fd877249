//! stored + new → one document: a key given replaces, a key not given stays, and nothing is ever removed.
//!
//! Must never judge: two faulty documents merge as well as two good ones.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::canonical::canonical;
use super::document::{DependencyDoc, Document, NodeDoc, StepDoc};

/// Where the concurrency routine may be named: at the top, or among the flow's options.
const CONCURRENCY: &str = "concurrency_group_routine";

/// Adds a new document to a stored one.
pub(super) fn merge(mut stored: Document, new: Document) -> Document {
    drop_superseded(&mut stored.keys, &new.keys);
    stored.keys.extend(new.keys);
    let mut index: HashMap<String, usize> =
        stored.nodes.iter().enumerate().map(|(i, node)| (node.name.clone(), i)).collect();
    for node in new.nodes {
        let known = index.get(&node.name).copied().filter(|_| !node.name.is_empty());
        match known.and_then(|i| stored.nodes.get_mut(i)) {
            Some(before) => merge_node(before, node),
            None => {
                index.insert(node.name.clone(), stored.nodes.len());
                stored.nodes.push(node);
            }
        }
    }
    stored
}

/// The concurrency routine has two places: naming it in one replaces what was stored in the other.
fn drop_superseded(stored: &mut Map<String, Value>, new: &Map<String, Value>) {
    if new.get("flow").is_some_and(|flow| flow.get(CONCURRENCY).is_some()) {
        stored.shift_remove(CONCURRENCY);
    }
    if new.contains_key(CONCURRENCY) {
        if let Some(Value::Object(flow)) = stored.get_mut("flow") {
            flow.shift_remove(CONCURRENCY);
        }
    }
}

fn merge_node(before: &mut NodeDoc, new: NodeDoc) {
    before.given = Some(new.keys.keys().cloned().collect());
    before.origin = new.origin;
    before.keys.extend(new.keys);
    merge_dependencies(&mut before.dependencies, new.dependencies);
    merge_steps(&mut before.steps, new.steps);
}

fn merge_dependencies(before: &mut Vec<DependencyDoc>, new: Vec<DependencyDoc>) {
    let index: HashMap<String, usize> =
        before.iter().enumerate().map(|(i, dependency)| (dependency.parent().to_owned(), i)).collect();
    for dependency in new {
        match index.get(dependency.parent()).and_then(|i| before.get_mut(*i)) {
            Some(known) => {
                known.keys.extend(dependency.keys);
                known.origin = dependency.origin;
            }
            None => before.push(dependency),
        }
    }
}

fn merge_steps(before: &mut Vec<StepDoc>, new: Vec<StepDoc>) {
    if before.is_empty() || new.is_empty() {
        before.extend(new);
        return;
    }
    let mut known: HashSet<String> = before.iter().map(|step| canonical(&step.arguments)).collect();
    before.extend(new.into_iter().filter(|step| known.insert(canonical(&step.arguments))));
}
