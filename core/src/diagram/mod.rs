//! What a flow looks like: graph + statuses → Graphviz.
//!
//! Must never read anything by itself, and never let a name, whatever is in it, break the diagram.

mod color;
mod escape;
mod legend;
mod node;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

pub use color::status_color;

use escape::{html, quoted};

/// A flow and how far it has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagram {
    /// What is written above it.
    pub title: String,
    /// Its nodes.
    pub nodes: Vec<DiagramNode>,
    /// Its dependencies.
    pub edges: Vec<DiagramEdge>,
    /// Whether colours and arrows are explained.
    pub legend: bool,
}

/// One box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiagramNode {
    /// Its name.
    pub name: String,
    /// Where it runs.
    pub target: Option<String>,
    /// What it calls.
    pub routine: Option<String>,
    /// The status word; none for a configured flow that has never run.
    pub status: Option<String>,
    /// How many steps it has, and how far they are.
    pub steps: Option<StepCounts>,
    /// How long it has run.
    pub run_time: Option<String>,
    /// The first error, or the cause of a skip. It is shortened here.
    pub note: Option<String>,
    /// Whether it has no task of its own.
    pub empty: bool,
    /// The flow that its steps start.
    pub steps_to_flow: Option<String>,
}

/// How many steps a node has, and how far they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepCounts {
    /// All of them.
    pub total: u64,
    /// Not started.
    pub pending: u64,
    /// Started, not ended.
    pub running: u64,
    /// Ended well.
    pub finished: u64,
    /// Ended otherwise.
    pub failed: u64,
}

/// One arrow, between indexes of `Diagram::nodes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiagramEdge {
    /// The node that is waited for.
    pub parent: usize,
    /// The node that waits.
    pub child: usize,
    /// Whether the child runs although the parent failed.
    pub continue_on_failure: bool,
}

/// The ink of arrows, frames and small print.
const INK: &str = "#455a64";
/// What holds for the whole diagram.
const HEAD: &str = r##"  graph [rankdir=LR, ranksep="0.55", nodesep="0.28", pad="0.25", bgcolor="white", fontname="Helvetica", fontsize=18, fontcolor="#263238", labelloc=t, labeljust=l];
  node [shape=plain, fontname="Helvetica", fontsize=11, fontcolor="#263238"];
  edge [color="#455a64", arrowsize="0.8", penwidth="1.1"];
"##;

/// The diagram in the language of `dot`.
pub fn graphviz(diagram: &Diagram) -> String {
    let mut names = Names::default();
    let ids: Vec<String> = diagram.nodes.iter().map(|node| names.unique(&node.name)).collect();
    let (start, end) = (names.unique("start"), names.unique("end"));
    let mut out = String::from("digraph flow {\n");
    out.push_str(HEAD);
    if !diagram.title.is_empty() {
        line(&mut out, format_args!("  label=<<B>{}</B>>;", html(&diagram.title, 120)));
    }
    for (id, shape, fill) in [(&start, "circle", "#e8f5e9"), (&end, "doublecircle", "#eceff1")] {
        let label = if id == &start { "start" } else { "end" };
        line(
            &mut out,
            format_args!(
                "  {id} [label=\"{label}\", shape={shape}, style=filled, fillcolor=\"{fill}\", color=\"{INK}\", fontsize=10, \
                 fixedsize=true, width=\"0.55\"];"
            ),
        );
    }
    for (id, node) in ids.iter().zip(&diagram.nodes) {
        line(&mut out, format_args!("  {id} [label=<{}>, tooltip={}];", node::label(node), quoted(&node.name)));
    }
    edges(&mut out, diagram, &ids, &start, &end);
    if diagram.legend {
        legend::legend(&mut out, &names.unique("legend"), diagram);
    }
    out.push_str("}\n");
    out
}

fn edges(out: &mut String, diagram: &Diagram, ids: &[String], start: &str, end: &str) {
    let mut has_parent = vec![false; ids.len()];
    let mut has_child = vec![false; ids.len()];
    for edge in &diagram.edges {
        // An edge to a box that is not there is left out.
        let (Some(parent), Some(child)) = (ids.get(edge.parent), ids.get(edge.child)) else {
            continue;
        };
        has_child[edge.parent] = true;
        has_parent[edge.child] = true;
        let arrow = if edge.continue_on_failure { " [arrowhead=empty]" } else { "" };
        line(out, format_args!("  {parent} -> {child}{arrow};"));
    }
    for (id, _) in ids.iter().zip(&has_parent).filter(|(_, has)| !**has) {
        line(out, format_args!("  {start} -> {id};"));
    }
    for (id, _) in ids.iter().zip(&has_child).filter(|(_, has)| !**has) {
        line(out, format_args!("  {id} -> {end};"));
    }
    if ids.is_empty() {
        line(out, format_args!("  {start} -> {end};"));
    }
}

/// Writing into a String cannot fail.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
    out.push('\n');
}

/// In bytes; every name that a node may have is shorter.
const LONG: usize = 200;

/// Quoted ids, each once, whatever the names are.
#[derive(Default)]
struct Names {
    taken: HashSet<String>,
    /// How often a name has come, so that a thousand of the same are not tried a million times.
    times: HashMap<String, usize>,
}

impl Names {
    fn unique(&mut self, name: &str) -> String {
        let mut candidate = quoted(name);
        let number = self.times.entry(candidate.clone()).or_insert(1);
        while !self.taken.insert(candidate.clone()) {
            *number += 1;
            // The end of a long name is cut off, and the number with it.
            let long = name.len() > LONG;
            candidate = quoted(&if long { format!("({number}) {name}") } else { format!("{name} ({number})") });
        }
        candidate
    }
}
