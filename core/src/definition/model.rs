//! What a flow is, once its configuration has been read, merged, checked and ranked.
//!
//! Must never be built but by `configure`: whoever holds one may rely on every rule there.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::graph::{extend_selection, UnknownNames};

/// A flow that may be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The options of the whole flow.
    pub flow: FlowOptions,
    /// Its nodes, in the order of appearance, at least one.
    pub nodes: Vec<Node>,
    /// The normalised configuration: what `flow.configuration` gives back and `configure_flow` takes as it is.
    pub configuration: Value,
}

/// The options of a whole flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowOptions {
    /// What the author says of it.
    pub description: Option<String>,
    /// The function that names the pool of each task, as it was written.
    pub concurrency_group_routine: Option<String>,
    /// The same, schema-qualified and quoted.
    pub concurrency_group_routine_resolved: Option<String>,
    /// From -99 to 99; nodes without one of their own have it.
    pub priority: Option<i32>,
    /// The role that runs act as. Whether the author may say so is for the extension to check.
    pub run_as: Option<String>,
}

/// A node of a flow.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name, unique in the flow.
    pub name: String,
    /// Its index in `Definition::nodes`.
    pub node_no: usize,
    /// What the author says of it.
    pub description: Option<String>,
    /// Where its tasks run; without one, on the local database.
    pub target: Option<String>,
    /// What the node's own task calls, as it was written; an empty node has none.
    pub routine: Option<String>,
    /// The same, schema-qualified and quoted, if it was looked up.
    pub routine_resolved: Option<String>,
    /// What its steps call, as it was written; none when they start a flow.
    pub step_routine: Option<String>,
    /// The same, schema-qualified and quoted, if it was looked up. A node without static steps may have none yet.
    pub step_routine_resolved: Option<String>,
    /// What the node's own task runs instead of calling a routine.
    pub query: Option<String>,
    /// What its steps run instead of calling a routine.
    pub step_query: Option<String>,
    /// The function of this database that makes the query of those tasks that have neither a routine nor a query.
    pub query_routine: Option<String>,
    /// The same, schema-qualified and quoted.
    pub query_routine_resolved: Option<String>,
    /// What its tasks say beside: `parameters`, `settings`, `tier`, `request`, `result`, those that were given.
    pub options: Map<String, Value>,
    /// From -99 to 99.
    pub priority: Option<i32>,
    /// Whether a failed step fails the node.
    pub all_steps_must_complete: bool,
    /// Whether the node has no task of its own.
    pub empty: bool,
    /// The flow that each step starts a run of.
    pub steps_to_flow: Option<String>,
    /// Whether its tasks end when the call returns, even on an asynchronous target.
    pub synchronous: bool,
    /// How long the node with its steps may take, as an interval's text.
    pub node_timeout: Option<String>,
    /// How long each step may take, as an interval's text.
    pub step_timeout: Option<String>,
    /// What happens after a crash to a callback that had committed a part.
    pub on_partial: OnPartial,
    /// The nodes it waits for, by number, and whether it runs although that one failed.
    pub parents: Vec<(usize, bool)>,
    /// The longest path from a root; a root has 0.
    pub rank: usize,
    /// The arguments of its static steps, objects that are not empty, each once.
    pub steps: Vec<Value>,
}

/// What a task of a kind of target must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A query; no routine can be called.
    Query,
    /// A query, or a routine to call.
    QueryOrRoutine,
    /// Neither: the options say everything.
    Options,
}

/// What happens after a crash to a callback that had committed a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnPartial {
    /// It runs again.
    #[default]
    Rerun,
    /// The task fails.
    Fail,
}

impl OnPartial {
    /// The word in a configuration and in the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            OnPartial::Rerun => "rerun",
            OnPartial::Fail => "fail",
        }
    }
}

impl FromStr for OnPartial {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "rerun" => Ok(OnPartial::Rerun),
            "fail" => Ok(OnPartial::Fail),
            _ => Err(()),
        }
    }
}

impl Definition {
    /// The dependencies as (parent, child), children in order.
    pub fn edges(&self) -> Vec<(usize, usize)> {
        let of = |node: &Node| node.parents.iter().map(|(parent, _)| (*parent, node.node_no)).collect::<Vec<_>>();
        self.nodes.iter().flat_map(of).collect()
    }

    /// The numbers of the named nodes, with all their ancestors and all their descendants if asked for.
    pub fn extend_selection<O: AsRef<str>>(
        &self,
        only: &[O],
        add_parents: bool,
        add_children: bool,
    ) -> Result<Vec<usize>, UnknownNames> {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        extend_selection(&names, &self.edges(), only, add_parents, add_children)
    }
}
