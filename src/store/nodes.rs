//! What the definition says of a node's tasks. Definitions are never changed, so a worker reads each node once and keeps it:
//! what is read for every task is its own row and its run's.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use pgflow_executor::results::ResultSpec;

use super::worker::spec_of;
use super::{arg, run};

/// A node of a version: definition_id and node_no.
pub type Key = (i64, i32);

/// Bytes of texts that are kept; beyond them all is read anew.
const KEPT: usize = 4 << 20;

/// What a task runs or calls.
#[derive(Default)]
pub struct Work {
    pub query: Option<String>,
    pub routine: Option<String>,
}

#[derive(Default)]
pub struct Node {
    pub name: String,
    /// Of the node's own task, and of its steps.
    pub own: Work,
    pub steps: Work,
    /// The function that makes queries for tasks that have nothing of their own.
    pub query_routine: Option<String>,
    pub steps_to_flow: Option<String>,
    /// The flow's routine that says which pool a node's tasks belong to.
    pub classify: Option<String>,
    pub spec: Option<Box<ResultSpec>>,
    /// `synchronous_commit: off`.
    pub lazy: bool,
    pub steps_per_transaction: Option<usize>,
}

#[derive(Default)]
struct Kept {
    nodes: HashMap<Key, Rc<Node>>,
    bytes: usize,
}

thread_local! {
    static NODES: RefCell<Kept> = RefCell::default();
}

impl Node {
    fn bytes(&self) -> usize {
        let texts = [&self.own.query, &self.own.routine, &self.steps.query, &self.steps.routine, &self.query_routine];
        size_of::<Self>() + self.name.len() + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

/// These nodes, read where they are not known yet. One that does not exist is not among them.
pub fn of(keys: HashSet<Key>) -> HashMap<Key, Rc<Node>> {
    let unknown: Vec<Key> =
        NODES.with_borrow(|kept| keys.iter().filter(|k| !kept.nodes.contains_key(k)).copied().collect());
    if !unknown.is_empty() {
        // Read before it is kept: what raises here must leave the list as it was.
        let found = read(&unknown);
        NODES.with_borrow_mut(|kept| {
            if kept.bytes > KEPT {
                kept.nodes.retain(|key, _| keys.contains(key));
                kept.bytes = kept.nodes.values().map(|node| node.bytes()).sum();
            }
            kept.bytes += found.iter().map(|(_, node)| node.bytes()).sum::<usize>();
            kept.nodes.extend(found);
        });
    }
    NODES.with_borrow(|kept| keys.into_iter().filter_map(|key| Some((key, kept.nodes.get(&key)?.clone()))).collect())
}

fn read(keys: &[Key]) -> Vec<(Key, Rc<Node>)> {
    let rows = run(
        c"SELECT u.definition_id, u.node_no, n.node, n.query, coalesce(n.routine_resolved, n.routine),
                 n.step_query, coalesce(n.step_routine_resolved, n.step_routine),
                 coalesce(n.query_routine_resolved, n.query_routine), n.steps_to_flow, d.concurrency_group_routine,
                 n.options->'result', coalesce(n.options->>'synchronous_commit' = 'off', false),
                 (n.options->>'steps_per_transaction')::int
          FROM unnest($1, $2) AS u (definition_id, node_no)
          CROSS JOIN LATERAL (SELECT x.concurrency_group_routine FROM flow.definition x
                              WHERE x.definition_id = u.definition_id OFFSET 0) d
          CROSS JOIN LATERAL (SELECT * FROM flow.definition_node x
                              WHERE x.definition_id = u.definition_id AND x.node_no = u.node_no OFFSET 0) n",
        &[arg(keys.iter().map(|k| k.0).collect::<Vec<_>>()), arg(keys.iter().map(|k| k.1).collect::<Vec<_>>())],
    );
    let node = |row| {
        let key = (rows.get(row, 1)?, rows.get(row, 2)?);
        let node = Node {
            name: rows.get(row, 3)?,
            own: Work { query: rows.get(row, 4), routine: rows.get(row, 5) },
            steps: Work { query: rows.get(row, 6), routine: rows.get(row, 7) },
            query_routine: rows.get(row, 8),
            steps_to_flow: rows.get(row, 9),
            classify: rows.get(row, 10),
            spec: rows.get::<pgrx::JsonB>(row, 11).and_then(|result| spec_of(&result.0)),
            lazy: rows.get(row, 12)?,
            steps_per_transaction: rows.get::<i32>(row, 13).map(|most| most.max(1) as usize),
        };
        Some((key, Rc::new(node)))
    };
    (0..rows.len).filter_map(node).collect()
}
