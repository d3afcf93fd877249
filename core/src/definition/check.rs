//! Document → nodes: what refers to something else is looked up, defaults are filled in, the graph is ranked.
//!
//! Must never stop at a fault, and must do no more than a bounded amount of work for the hint of one.

use std::collections::HashMap;
use std::str::FromStr;

use serde_json::{Map, Value};
use strsim::damerau_levenshtein;

use super::catalog::{Asked, TargetInfo};
use super::document::{Document, NodeDoc, Origin};
use super::fault::{plain, quoted, Faults};
use super::graph::ranks;
use super::model::{FlowOptions, Needs, Node, OnPartial};
use super::options::{self, OPTIONS};
use super::parse::MAX_NODES;
use super::routines::{self, Routines};

/// For how many unknown parents of one configuration the nearest name is sought.
const NEAREST_NAMES: usize = 20;
/// How much is compared for that, in pairs of letters: a flow may have 100,000 nodes with long names.
const NEAREST_WORK: usize = 20_000_000;
/// How many names of a cycle are printed.
const CYCLE_NAMES: usize = 20;

/// Checks a document. What it returns is only of use when no error was found.
pub(super) fn check(
    flow_name: &str,
    document: &Document,
    catalog: &mut Asked<'_>,
    faults: &mut Faults,
) -> (FlowOptions, Vec<Node>) {
    let flow = flow_options(document, catalog, faults);
    if document.nodes.len() > MAX_NODES {
        faults.error("$.nodes", format!("a flow has at most {MAX_NODES} nodes, not {}", document.nodes.len()));
        return (flow, Vec::new());
    }
    let parents = all_parents(&document.nodes, faults);
    let ranks = all_ranks(&document.nodes, &parents, faults);
    let mut nodes = Vec::with_capacity(document.nodes.len());
    for ((node_no, parents), rank) in parents.into_iter().enumerate().zip(ranks) {
        let node = &document.nodes[node_no];
        let mut built = check_node(flow_name, node, flow.run_as.as_deref(), catalog, faults);
        built.node_no = node_no;
        built.parents = parents;
        built.rank = rank;
        nodes.push(built);
    }
    (flow, nodes)
}

fn flow_options(document: &Document, catalog: &mut Asked<'_>, faults: &mut Faults) -> FlowOptions {
    let options = document.keys.get("flow");
    let option = |key: &str| options.and_then(|options| options.get(key));
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let inside = text(option("concurrency_group_routine"));
    let above = text(document.keys.get("concurrency_group_routine"));
    if let (Some(inside), Some(above)) = (&inside, &above) {
        if inside != above {
            faults.error_hint(
                "$.concurrency_group_routine",
                format!("$.flow.concurrency_group_routine names another one, {}", quoted(inside)),
                "give it once",
            );
        }
    }
    let path = if inside.is_some() { "$.flow.concurrency_group_routine" } else { "$.concurrency_group_routine" };
    let routine = inside.or(above);
    let run_as = text(option("run_as"));
    FlowOptions {
        description: text(option("description")).or_else(|| text(document.keys.get("description"))),
        concurrency_group_routine_resolved: routine
            .as_deref()
            .and_then(|name| routines::concurrency(name, path, run_as.as_deref(), catalog, faults)),
        concurrency_group_routine: routine,
        priority: priority(option("priority")),
        run_as,
    }
}

fn priority(value: Option<&Value>) -> Option<i32> {
    value.and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok())
}

fn check_node(
    flow_name: &str,
    node: &NodeDoc,
    run_as: Option<&str>,
    catalog: &mut Asked<'_>,
    faults: &mut Faults,
) -> Node {
    let target = node.text("target").map_or(TargetInfo::Local, |name| catalog.target(name));
    if target == TargetInfo::Unknown {
        let name = node.text("target").unwrap_or_default();
        faults.error_hint(
            node.path_of("target"),
            format!("target {} does not exist", quoted(name)),
            "configure it with async.configure, or leave \"target\" out to run on the local database",
        );
    }
    let routines = routines::of_node(node, &target, run_as, catalog, faults);
    let options = node_options(node);
    options::check(&options, &target, &node.path(), &|key| node.path_of(key), catalog, faults);
    check_has_rows(node, &routines, &target, faults);
    check_steps_to_flow(flow_name, node, catalog, faults);
    let text = |key: &str| node.text(key).map(str::to_owned);
    Node {
        name: node.name.clone(),
        node_no: 0,
        description: text("description"),
        target: text("target"),
        routine: routines.node,
        routine_resolved: routines.node_resolved,
        step_routine: routines.step,
        step_routine_resolved: routines.step_resolved,
        query: routines.query,
        step_query: routines.step_query,
        query_routine: routines.query_routine,
        query_routine_resolved: routines.query_routine_resolved,
        options,
        priority: priority(node.keys.get("priority")),
        all_steps_must_complete: node.flag("all_steps_must_complete", true),
        empty: node.flag("empty", false),
        steps_to_flow: text("steps_to_flow"),
        synchronous: node.flag("synchronous", false),
        node_timeout: timeout(node, "node_timeout", catalog, faults),
        step_timeout: timeout(node, "step_timeout", catalog, faults),
        on_partial: node.text("on_partial").and_then(|word| OnPartial::from_str(word).ok()).unwrap_or_default(),
        parents: Vec::new(),
        rank: 0,
        steps: node.steps.iter().map(|step| step.arguments.clone()).collect(),
    }
}

/// What the node's tasks say beside their query or routine.
fn node_options(node: &NodeDoc) -> Map<String, Value> {
    let given = |key: &&str| node.keys.get(*key).map(|value| ((*key).to_owned(), value.clone()));
    OPTIONS.iter().filter_map(given).collect()
}

/// A result comes from a query: what is called returns no rows.
fn check_has_rows(node: &NodeDoc, routines: &Routines, target: &TargetInfo, faults: &mut Faults) {
    let may_call = match target {
        TargetInfo::Local => true,
        TargetInfo::Elsewhere(at) => at.needs == Needs::QueryOrRoutine,
        TargetInfo::Unknown | TargetInfo::External => false,
    };
    let asks = routines.query.is_some() || routines.step_query.is_some() || routines.query_routine.is_some();
    if may_call && !asks && options::wants_result(node.keys.get("result")) {
        let message = "\"result\" needs a query: a routine that is called returns no rows";
        faults.error_hint(node.path_of("result"), message, "give \"query\", \"step_query\" or \"query_routine\"");
    }
}

fn check_steps_to_flow(flow_name: &str, node: &NodeDoc, catalog: &mut Asked<'_>, faults: &mut Faults) {
    let Some(other) = node.text("steps_to_flow") else {
        return;
    };
    let path = node.path_of("steps_to_flow");
    if !node.steps.is_empty() {
        faults.error_hint(
            node.path_of("steps"),
            "\"steps\" cannot stand together with \"steps_to_flow\"",
            "push the steps from the node's routine with flow.push_steps",
        );
    }
    if node.keys.contains_key("steps_per_transaction") {
        let message = "\"steps_per_transaction\" has no meaning together with \"steps_to_flow\"";
        faults.error(node.path_of("steps_per_transaction"), message);
    }
    if other == flow_name {
        let hint = "its runs start runs of itself until a node pushes no more steps, or the nesting limit is reached";
        faults.warn_hint(path, format!("\"steps_to_flow\" names this flow itself, {}", quoted(other)), hint);
    } else if !catalog.flow_exists(other) {
        let hint = "configure it before this flow runs";
        faults.warn_hint(path, format!("flow {} does not exist yet", quoted(other)), hint);
    }
}

fn timeout(node: &NodeDoc, key: &str, catalog: &mut Asked<'_>, faults: &mut Faults) -> Option<String> {
    let text = match node.keys.get(key)? {
        Value::String(text) => text.clone(),
        number => format!("{} seconds", seconds(number)),
    };
    if let Err(wrong) = catalog.interval(&text) {
        let message = format!("\"{key}\" is {}: {wrong}", quoted(&text));
        faults.error_hint(node.path_of(key), message, "give a positive interval, such as \"5 minutes\"");
    }
    Some(text)
}

/// A number without an exponent, which not every interval may have.
fn seconds(number: &Value) -> String {
    let text = number.to_string();
    match number.as_f64() {
        Some(n) if text.contains(['e', 'E']) => n.to_string(),
        _ => text,
    }
}

/// The parents of each node by number. A parent that is no node of the flow is a fault, and left out.
fn all_parents(nodes: &[NodeDoc], faults: &mut Faults) -> Vec<Vec<(usize, bool)>> {
    let named = nodes.iter().enumerate().filter(|(_, node)| !node.name.is_empty());
    let index: HashMap<&str, usize> = named.map(|(i, node)| (node.name.as_str(), i)).collect();
    let (mut unknown, mut work) = (0, NEAREST_WORK);
    let mut parents = Vec::with_capacity(nodes.len());
    for node in nodes {
        let mut of_node = Vec::with_capacity(node.dependencies.len());
        for dependency in &node.dependencies {
            match index.get(dependency.parent()) {
                Some(parent) => of_node.push((*parent, dependency.continue_on_failure())),
                None => {
                    unknown += 1;
                    let nearest = if unknown <= NEAREST_NAMES {
                        nearest(dependency.parent(), node, nodes, &mut work)
                    } else {
                        None
                    };
                    let message = format!("parent {} is not a node of this flow", quoted(dependency.parent()));
                    let hint = match nearest {
                        Some(name) => format!("did you mean {}?", quoted(name)),
                        None => "every parent is a node of the same configuration".into(),
                    };
                    faults.error_hint(node.parent_path(dependency), message, hint);
                }
            }
        }
        parents.push(of_node);
    }
    parents
}

/// The name that an unknown parent of a node was probably meant to be.
fn nearest<'a>(unknown: &str, child: &NodeDoc, nodes: &'a [NodeDoc], work: &mut usize) -> Option<&'a str> {
    let limit = (unknown.chars().count() / 3).clamp(1, 4);
    let lower = unknown.to_lowercase();
    let within = |name: &str| name.len().abs_diff(unknown.len()) <= limit;
    let near = nodes
        .iter()
        .map(|node| node.name.as_str())
        .filter(|name| !name.is_empty() && *name != child.name && within(name))
        .take_while(|name| {
            let left = work.checked_sub(name.len() * lower.len());
            *work = left.unwrap_or(0);
            left.is_some()
        })
        .map(|name| (damerau_levenshtein(&lower, name), name))
        .min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, _)| *distance <= limit).map(|(_, name)| name)
}

/// The rank of each node. Cycles are faults, and then every rank is 0.
fn all_ranks(nodes: &[NodeDoc], parents: &[Vec<(usize, bool)>], faults: &mut Faults) -> Vec<usize> {
    let mut edges = Vec::new();
    for (child, parents) in parents.iter().enumerate() {
        edges.extend(parents.iter().map(|(parent, _)| (*parent, child)));
    }
    ranks(nodes.len(), &edges).unwrap_or_else(|cycles| {
        for cycle in cycles {
            faults.error_hint(
                cycle_path(nodes, &cycle),
                format!("the dependencies form a cycle: {}", printed(nodes, &cycle)),
                "leave out one of these dependencies",
            );
        }
        vec![0; nodes.len()]
    })
}

fn printed(nodes: &[NodeDoc], cycle: &[usize]) -> String {
    let name = |node: &usize| plain(&nodes[*node].name);
    let mut names: Vec<String> = cycle.iter().take(CYCLE_NAMES).map(name).collect();
    let more = cycle.len() - names.len();
    if more > 0 {
        names.push(format!("({more} more)"));
    }
    names.extend(cycle.first().map(name));
    names.join(" → ")
}

/// The dependency that closes the cycle, or another of its dependencies that is new.
fn cycle_path(nodes: &[NodeDoc], cycle: &[usize]) -> String {
    let parents = cycle.iter().rev();
    let children = cycle.iter().take(1).chain(cycle.iter().skip(1).rev());
    let mut closing = None;
    for (parent, child) in parents.zip(children) {
        let child = &nodes[*child];
        let name = nodes[*parent].name.as_str();
        if let Some(dependency) = child.dependencies.iter().find(|dependency| dependency.parent() == name) {
            if matches!(dependency.origin, Origin::New(_)) {
                return child.parent_path(dependency);
            }
            closing.get_or_insert_with(|| child.parent_path(dependency));
        }
    }
    closing.unwrap_or_else(|| "$.nodes".into())
}
