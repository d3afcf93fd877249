//! Configurations that are made to cost much: each is answered, whatever is in it. Without the bounds these
//! take from minutes to for ever.

use std::time::{Duration, Instant};

use pgflow_core::definition::{configure, Catalog, Fault, RoutineInfo, Severity, TargetInfo};
use pgflow_core::diagram::{graphviz, Diagram, DiagramNode};
use serde_json::{json, Map, Value};

/// Far more than they take on a busy machine in an unoptimised build: only what has no bound takes this.
const LONGEST: Duration = Duration::from_secs(120);

/// Everything is there.
struct All;

impl Catalog for All {
    fn target(&mut self, _: &str) -> TargetInfo {
        TargetInfo::Local
    }
    fn routine(&mut self, name: &str) -> RoutineInfo {
        RoutineInfo::Ok { resolved: name.into() }
    }
    fn concurrency_routine(&mut self, name: &str) -> RoutineInfo {
        self.routine(name)
    }
    fn query_routine(&mut self, name: &str) -> RoutineInfo {
        self.routine(name)
    }
    fn options_faults(&mut self, _: &str, _: &Map<String, Value>) -> Vec<(String, String)> {
        Vec::new()
    }
    fn store_exists(&mut self, _: &str) -> bool {
        true
    }
    fn flow_exists(&mut self, _: &str) -> bool {
        true
    }
    fn interval(&mut self, _: &str) -> Result<(), String> {
        Ok(())
    }
}

fn judged(configuration: &Value) -> (bool, Vec<Fault>) {
    let begun = Instant::now();
    let (definition, faults) = configure("f", configuration, None, false, &mut All);
    assert!(begun.elapsed() < LONGEST, "took {:.1?}", begun.elapsed());
    (definition.is_some(), faults)
}

#[test]
fn ever_new_unknown_keys_are_one_fault_more() {
    let mut node: Map<String, Value> = (0..200_000).map(|i| (format!("some_unknown_key_{i}"), Value::Null)).collect();
    node.insert("node".into(), json!("a"));
    let (accepted, faults) = judged(&json!({ "nodes": [node] }));
    assert!(!accepted && faults.len() < 1100, "{} faults", faults.len());
    let last = faults.iter().find(|fault| fault.severity == Severity::Error).unwrap();
    assert_eq!(last.message, "there are more than 1000 different unknown keys");
}

#[test]
fn the_same_unknown_key_in_every_node_is_a_warning_each_up_to_a_bound() {
    let nodes: Vec<Value> = (0..20_000).map(|i| json!({"node": format!("n{i}"), "owner": "me"})).collect();
    let (accepted, faults) = judged(&json!({ "nodes": nodes }));
    assert!(accepted);
    assert_eq!(faults.len(), 10_001);
    assert_eq!(faults[10_000].message, "and 10000 more faults, which are left out");
}

#[test]
fn an_error_behind_ten_thousand_warnings_is_told() {
    let mut nodes: Vec<Value> = (0..11_000).map(|i| json!({"node": format!("n{i}"), "owner": "me"})).collect();
    nodes.push(json!({"node": "NO"}));
    let (accepted, faults) = judged(&json!({ "nodes": nodes }));
    assert!(!accepted);
    assert!(faults.iter().any(|fault| fault.message.contains("\"NO\" cannot be the name")), "{:?}", faults.last());
}

#[test]
fn long_names_that_nearly_match_are_compared_up_to_a_bound() {
    let name = |i: usize| format!("{}{i:06}", "n".repeat(120));
    let nodes: Vec<Value> = (0..30_000)
        .map(|i| json!({"node": name(i), "routine": "r", "dependencies": [{"parent": format!("x{}", name(i))}]}))
        .collect();
    let (accepted, faults) = judged(&json!({ "nodes": nodes }));
    assert!(!accepted && faults.len() == 10_001);
}

#[test]
fn a_hundred_thousand_nodes_in_a_chain_are_ranked_and_one_more_is_refused() {
    let node = |i: usize| match i {
        0 => json!({"node": "n0"}),
        i => json!({"node": format!("n{i}"), "dependencies": [{"parent": format!("n{}", i - 1)}]}),
    };
    let mut nodes: Vec<Value> = (0..100_000).map(node).collect();
    let (accepted, faults) = judged(&json!({ "nodes": nodes }));
    assert!(accepted && faults.is_empty(), "{:?}", faults.first());
    nodes.push(node(100_000));
    let (accepted, faults) = judged(&json!({ "nodes": nodes }));
    assert!(!accepted);
    assert_eq!(faults[0].message, "a flow has at most 100000 nodes, not 100001");
}

#[test]
fn a_diagram_of_many_equal_names_is_drawn() {
    for name in ["same".to_owned(), "x".repeat(400)] {
        let nodes = vec![DiagramNode { name, ..DiagramNode::default() }; 10_000];
        let begun = Instant::now();
        let drawn = graphviz(&Diagram { nodes, ..Diagram::default() });
        assert!(begun.elapsed() < LONGEST, "took {:.1?}", begun.elapsed());
        assert_eq!(drawn.matches("tooltip=").count(), 10_000);
    }
}
