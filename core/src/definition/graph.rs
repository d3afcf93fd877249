//! The graph of a flow by numbers: ranks, cycles, ancestors and descendants.
//!
//! Must never recurse, whatever the depth of the graph, nor take more than linear time (finding the shortest cycle to
//! print has a stated bound of its own).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

/// How many edges the search for the shortest cycle of one component may look at before it takes the best it has.
const CYCLE_SEARCH: usize = 1_000_000;

/// The rank of each node, its longest path from a root, or one cycle (parents first) for each knot of them.
///
/// Edges are (parent, child) by number; an edge to a number that is none, or to itself, is left out.
pub fn ranks(nodes: usize, edges: &[(usize, usize)]) -> Result<Vec<usize>, Vec<Vec<usize>>> {
    let mut graph: DiGraph<(), ()> = DiGraph::with_capacity(nodes, edges.len());
    for _ in 0..nodes {
        graph.add_node(());
    }
    for (parent, child) in edges {
        if parent != child && *parent < nodes && *child < nodes {
            graph.add_edge(NodeIndex::new(*parent), NodeIndex::new(*child), ());
        }
    }
    match toposort(&graph, None) {
        Ok(order) => Ok(longest_paths(&graph, &order)),
        Err(_) => Err(cycles(&graph)),
    }
}

fn longest_paths(graph: &DiGraph<(), ()>, order: &[NodeIndex]) -> Vec<usize> {
    let mut ranks = vec![0; graph.node_count()];
    for parent in order {
        for child in graph.neighbors(*parent) {
            ranks[child.index()] = ranks[child.index()].max(ranks[parent.index()] + 1);
        }
    }
    ranks
}

fn cycles(graph: &DiGraph<(), ()>) -> Vec<Vec<usize>> {
    let knots = kosaraju_scc(graph);
    let mut knot_of = vec![0; graph.node_count()];
    for (number, knot) in knots.iter().enumerate() {
        for node in knot {
            knot_of[node.index()] = number;
        }
    }
    let mut cycles: Vec<Vec<usize>> = knots
        .into_iter()
        .filter(|knot| knot.len() > 1)
        .filter_map(|mut knot| {
            knot.sort_unstable();
            shortest_cycle(graph, &knot, &knot_of)
        })
        .collect();
    cycles.sort_unstable();
    cycles
}

/// A shortest cycle of a knot, beginning at its first node; of a huge knot, the shortest that the bound let us find.
fn shortest_cycle(graph: &DiGraph<(), ()>, knot: &[NodeIndex], knot_of: &[usize]) -> Option<Vec<usize>> {
    let mut best: Option<Vec<usize>> = None;
    let mut looked = 0;
    for start in knot {
        let found = cycle_through(graph, *start, knot_of, &mut looked);
        if let Some(cycle) = found.filter(|cycle| best.as_ref().is_none_or(|best| cycle.len() < best.len())) {
            best = Some(cycle);
        }
        let shortest = best.as_ref().is_some_and(|best| best.len() == 2);
        if shortest || looked > CYCLE_SEARCH {
            break;
        }
    }
    best.map(|mut cycle| {
        let least = cycle.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(at, _)| at);
        cycle.rotate_left(least);
        cycle
    })
}

/// The shortest cycle through a node, by breadth.
fn cycle_through(
    graph: &DiGraph<(), ()>,
    start: NodeIndex,
    knot_of: &[usize],
    looked: &mut usize,
) -> Option<Vec<usize>> {
    let mut came_from: HashMap<NodeIndex, NodeIndex> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for child in graph.neighbors(node) {
            *looked += 1;
            if child == start {
                return Some(walk_back(&came_from, start, node));
            }
            if knot_of[child.index()] == knot_of[start.index()] && !came_from.contains_key(&child) {
                came_from.insert(child, node);
                queue.push_back(child);
            }
        }
    }
    None
}

fn walk_back(came_from: &HashMap<NodeIndex, NodeIndex>, start: NodeIndex, last: NodeIndex) -> Vec<usize> {
    let mut cycle = vec![last.index()];
    let mut at = last;
    while at != start {
        match came_from.get(&at) {
            Some(before) => at = *before,
            None => break,
        }
        cycle.push(at.index());
    }
    cycle.reverse();
    cycle
}

/// Names in a selection that are no nodes of the flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownNames {
    /// The names, in the order given, each once.
    pub names: Vec<String>,
}

impl fmt::Display for UnknownNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.names.iter().take(20).map(|name| super::fault::quoted(name)).collect();
        write!(f, "no such node in this flow: {}", shown.join(", "))?;
        match self.names.len().saturating_sub(shown.len()) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl std::error::Error for UnknownNames {}

/// The numbers of the nodes that `only` names, ascending, each once; with all their ancestors, with all their descendants.
///
/// A descendant's other parents are not added, nor are an ancestor's other children. Edges are (parent, child).
pub fn extend_selection<N: AsRef<str>, O: AsRef<str>>(
    nodes: &[N],
    edges: &[(usize, usize)],
    only: &[O],
    add_parents: bool,
    add_children: bool,
) -> Result<Vec<usize>, UnknownNames> {
    let index: HashMap<&str, usize> = nodes.iter().enumerate().map(|(i, name)| (name.as_ref(), i)).collect();
    let mut named = Vec::with_capacity(only.len());
    let mut unknown: Vec<String> = Vec::new();
    let mut told: HashSet<&str> = HashSet::new();
    for name in only.iter().map(AsRef::as_ref) {
        match index.get(name) {
            Some(node) => named.push(*node),
            None if told.insert(name) => unknown.push(name.to_owned()),
            None => {}
        }
    }
    if !unknown.is_empty() {
        return Err(UnknownNames { names: unknown });
    }
    let mut selected = vec![false; nodes.len()];
    for node in &named {
        selected[*node] = true;
    }
    if add_parents {
        reach(&named, edges.iter().map(|(parent, child)| (*child, *parent)), &mut selected);
    }
    if add_children {
        reach(&named, edges.iter().copied(), &mut selected);
    }
    Ok((0..nodes.len()).filter(|node| selected[*node]).collect())
}

/// Selects all that can be reached from the named nodes along the edges.
fn reach(named: &[usize], edges: impl Iterator<Item = (usize, usize)>, selected: &mut [bool]) {
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); selected.len()];
    for (from, to) in edges.filter(|(from, to)| *from < selected.len() && *to < selected.len()) {
        next[from].push(to);
    }
    let mut seen = vec![false; selected.len()];
    let mut open: Vec<usize> = named.to_vec();
    while let Some(node) = open.pop() {
        if !std::mem::replace(&mut seen[node], true) {
            selected[node] = true;
            open.extend(&next[node]);
        }
    }
}
