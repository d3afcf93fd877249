//! A flow as a test sees it: its graph, and what each of its callbacks will do. The generator makes plans, the model
//! foretells their outcome, `play` carries them out for real.

use std::collections::BTreeMap;

use serde_json::{json, Value};

/// A step of a node, known by its number: its arguments are `{"step": number}`.
pub type StepNo = usize;

#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub nodes: Vec<Node>,
    /// `_only_these_nodes`, as indices, with `_add_parents` and `_add_children`.
    pub only: Option<Only>,
    /// The order in which the configuration lists the nodes.
    pub listed: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct Only {
    pub nodes: Vec<usize>,
    pub add_parents: bool,
    pub add_children: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Node {
    pub parents: Vec<Edge>,
    /// No callback of its own.
    pub empty: bool,
    /// False: the node finishes whatever becomes of its steps.
    pub all_steps_must_complete: bool,
    /// What its own callback does; nothing for an empty node.
    pub own: Does,
    /// What each step does, whoever pushes it; also those that nobody does.
    pub steps: BTreeMap<StepNo, Does>,
    /// Steps of the configuration.
    pub static_steps: Vec<StepNo>,
    /// Steps pushed from outside in the transaction that starts the run.
    pub early_steps: Vec<StepNo>,
}

#[derive(Clone, Copy, Debug)]
pub struct Edge {
    pub parent: usize,
    pub continue_on_failure: bool,
}

/// What a callback does: push, then COMMIT, then wait, then fail or not.
#[derive(Clone, Debug, Default)]
pub struct Does {
    pub pushes: Vec<StepNo>,
    pub commits: bool,
    pub pause_ms: usize,
    pub fails: bool,
}

impl Node {
    /// A node with the defaults of a configuration.
    pub fn plain() -> Node {
        Node { all_steps_must_complete: true, ..Node::default() }
    }
}

impl Plan {
    pub fn name(node: usize) -> String {
        format!("n{node}")
    }

    /// The children of each node.
    pub fn children(&self) -> Vec<Vec<usize>> {
        let mut children = vec![Vec::new(); self.nodes.len()];
        for (child, node) in self.nodes.iter().enumerate() {
            for edge in &node.parents {
                children[edge.parent].push(child);
            }
        }
        children
    }

    /// What `flow.configure_flow` is given.
    pub fn configuration(&self) -> Value {
        let order: Vec<usize> =
            if self.listed.is_empty() { (0..self.nodes.len()).collect() } else { self.listed.clone() };
        json!({ "nodes": order.iter().map(|node| self.node_configuration(*node)).collect::<Vec<_>>() })
    }

    fn node_configuration(&self, number: usize) -> Value {
        let node = &self.nodes[number];
        let mut entry = json!({ "node": Plan::name(number), "routine": "play.act" });
        if !node.parents.is_empty() {
            entry["dependencies"] = node
                .parents
                .iter()
                .map(|edge| {
                    let mut entry = json!({ "parent": Plan::name(edge.parent) });
                    if edge.continue_on_failure {
                        entry["continue_on_failure"] = json!(true);
                    }
                    entry
                })
                .collect();
        }
        if node.empty {
            entry["empty"] = json!(true);
        }
        if !node.all_steps_must_complete {
            entry["all_steps_must_complete"] = json!(false);
        }
        if !node.static_steps.is_empty() {
            entry["steps"] = node.static_steps.iter().map(|step| json!({ "step": step })).collect();
        }
        entry
    }

    /// What `flow.run_flow` is given: what every callback is to do, looked up by `play.act`.
    pub fn arguments(&self) -> Value {
        let plan: serde_json::Map<String, Value> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let mut does = json!({ "own": node.own.arguments() });
                for (step, what) in &node.steps {
                    does[step.to_string()] = what.arguments();
                }
                (Plan::name(number), does)
            })
            .collect();
        json!({ "plan": plan })
    }
}

impl Does {
    fn arguments(&self) -> Value {
        let mut value = json!({});
        if !self.pushes.is_empty() {
            value["pushes"] = json!(self.pushes);
        }
        if self.commits {
            value["commits"] = json!(true);
        }
        if self.pause_ms > 0 {
            value["pause_ms"] = json!(self.pause_ms);
        }
        if self.fails {
            value["fails"] = json!(true);
        }
        value
    }
}
