//! B4: adding to what is stored.

use serde_json::json;

use super::*;

fn append(stored: Value, new: Value) -> (Option<Definition>, Vec<(Severity, String, String)>) {
    let (definition, faults) = configure("f", &new, Some(&stored), false, &mut Fake::default());
    (definition, faults.into_iter().map(|fault| (fault.severity, fault.path, fault.message)).collect())
}

fn appended(stored: Value, new: Value) -> Value {
    let (definition, faults) = append(stored, new);
    assert_eq!(faults, []);
    definition.unwrap().configuration
}

#[test]
fn a_key_given_replaces_and_a_key_not_given_stays() {
    let stored =
        json!({"description": "old", "nodes": [{"node": "a", "routine": "r", "priority": 5, "step_timeout": "1 s"}]});
    let new = json!({"nodes": [{"node": "a", "priority": 7, "step_timeout": null}], "description": "new"});
    assert_eq!(
        appended(stored, new),
        json!({"description": "new", "nodes": [{"node": "a", "routine": "r", "priority": 7, "step_timeout": "1 s"}]})
    );
}

#[test]
fn new_nodes_come_last_and_nothing_is_removed() {
    let stored = json!({"nodes": [{"node": "b"}, {"node": "a"}]});
    let new = json!({"nodes": [{"node": "c"}, {"node": "a", "empty": true}, {"node": "d", "dependencies": [{"parent": "b"}]}]});
    let (flow, faults) = append(stored, new);
    assert_eq!(faults, []);
    let flow = flow.unwrap();
    let names: Vec<(&str, usize)> = flow.nodes.iter().map(|node| (node.name.as_str(), node.node_no)).collect();
    assert_eq!(names, [("b", 0), ("a", 1), ("c", 2), ("d", 3)]);
    assert_eq!(flow.nodes[3].parents, [(0, false)]);
}

#[test]
fn dependencies_are_updated_by_parent() {
    let stored = json!({"nodes": [
        {"node": "a"}, {"node": "b"},
        {"node": "c", "dependencies": [{"parent": "a", "continue_on_failure": true}, {"parent": "b"}]}
    ]});
    let new = json!({"nodes": [
        {"node": "d"},
        {"node": "c", "dependencies": [{"parent": "d"}, {"parent": "b", "continue_on_failure": true}, {"parent": "a"}]}
    ]});
    assert_eq!(
        appended(stored, new)["nodes"][2]["dependencies"],
        json!([
            {"parent": "a", "continue_on_failure": true}, {"parent": "b", "continue_on_failure": true}, {"parent": "d"}
        ])
    );
}

#[test]
fn steps_are_a_union() {
    let stored = json!({"nodes": [{"node": "a", "steps": [{"x": 1}, {"y": 2, "z": 3}]}]});
    let new = json!({"nodes": [{"node": "a", "steps": [{"z": 3.0, "y": 2}, {"x": 4}]}]});
    assert_eq!(appended(stored.clone(), new)["nodes"][0]["steps"], json!([{"x": 1}, {"y": 2, "z": 3}, {"x": 4}]));
    let new = json!({"nodes": [{"node": "a", "steps": []}]});
    assert_eq!(appended(stored.clone(), new), stored);
}

#[test]
fn options_alone_may_be_added() {
    let stored = json!({"nodes": [{"node": "a"}]});
    assert_eq!(
        appended(stored, json!({"flow": {"priority": 3}})),
        json!({"nodes": [{"node": "a"}], "flow": {"priority": 3}})
    );
}

#[test]
fn top_level_keys_replace_whole() {
    let stored = json!({"nodes": [{"node": "a"}], "flow": {"priority": 3, "run_as": "bob"}});
    assert_eq!(
        appended(stored, json!({"flow": {"priority": 4}})),
        json!({"nodes": [{"node": "a"}], "flow": {"priority": 4}})
    );
}

#[test]
fn the_concurrency_routine_replaces_the_one_in_the_other_place() {
    let stored = json!({"nodes": [{"node": "a"}], "concurrency_group_routine": "g"});
    let moved = appended(stored, json!({"flow": {"concurrency_group_routine": "h"}}));
    assert_eq!(moved, json!({"nodes": [{"node": "a"}], "flow": {"concurrency_group_routine": "h"}}));
    assert_eq!(
        appended(moved, json!({"concurrency_group_routine": "i"})),
        json!({"nodes": [{"node": "a"}], "flow": {}, "concurrency_group_routine": "i"})
    );
}

#[test]
fn a_fault_of_the_new_document_has_its_path_there() {
    let stored = json!({"nodes": [{"node": "a"}, {"node": "b"}]});
    let new = json!({"nodes": [{"node": "b", "routine": "no_r", "dependencies": [{"parent": "x"}]}]});
    assert_eq!(
        append(stored, new),
        (
            None,
            vec![
                error("$.nodes[0].dependencies[0].parent", "parent \"x\" is not a node of this flow"),
                error("$.nodes[0].routine", "procedure \"no_r\" does not exist"),
            ]
        )
    );
}

#[test]
fn a_fault_of_the_stored_document_names_the_node() {
    let stored = json!({"nodes": [{"node": "a", "routine": "no_r"}, {"node": "b", "target": "mars", "dependencies": [{"parent": "x"}]}]});
    let new = json!({"nodes": [{"node": "a", "priority": 3}]});
    assert_eq!(
        append(stored, new),
        (
            None,
            vec![
                error("$.nodes[?node==\"b\"].dependencies[0].parent", "parent \"x\" is not a node of this flow"),
                error("$.nodes[?node==\"a\"].routine", "procedure \"no_r\" does not exist"),
                error("$.nodes[?node==\"b\"].target", "target \"mars\" does not exist"),
            ]
        )
    );
}

#[test]
fn steps_added_to_a_node_that_starts_a_flow_are_refused_where_they_are_given() {
    let stored = json!({"nodes": [{"node": "a", "steps_to_flow": "daily"}]});
    let message = "\"steps\" cannot stand together with \"steps_to_flow\"";
    assert_eq!(
        append(stored, json!({"nodes": [{"node": "a", "steps": [{"x": 1}]}]})).1,
        [error("$.nodes[0].steps", message)]
    );
    let stored = json!({"nodes": [{"node": "a", "steps": [{"x": 1}]}]});
    assert_eq!(
        append(stored, json!({"nodes": [{"node": "a", "steps_to_flow": "daily"}]})).1,
        [error("$.nodes[?node==\"a\"].steps", message)]
    );
}

#[test]
fn a_cycle_closed_by_the_new_document_is_refused_at_its_new_dependency() {
    let stored = json!({"nodes": [{"node": "a"}, {"node": "b", "dependencies": [{"parent": "a"}]}]});
    let new = json!({"nodes": [{"node": "a", "dependencies": [{"parent": "b"}]}]});
    assert_eq!(
        append(stored, new).1,
        [error("$.nodes[0].dependencies[0].parent", "the dependencies form a cycle: a → b → a")]
    );
    let stored = json!({"nodes": [{"node": "a", "dependencies": [{"parent": "b"}]}, {"node": "b"}]});
    let new = json!({"nodes": [{"node": "b", "dependencies": [{"parent": "a"}]}]});
    assert_eq!(
        append(stored, new).1,
        [error("$.nodes[0].dependencies[0].parent", "the dependencies form a cycle: a → b → a")]
    );
}

#[test]
fn stored_unknown_keys_are_kept_and_not_told_again() {
    let stored = json!({"nodes": [{"node": "a", "owner": "me"}], "version": 1});
    let (flow, faults) = configure("f", &json!({"version": 2}), Some(&stored), true, &mut Fake::default());
    assert_eq!(flow, None);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].path, "$.version");
    assert_eq!(appended(stored.clone(), json!({"description": "x"}))["nodes"], stored["nodes"]);
}

#[test]
fn a_stored_configuration_that_is_broken_gives_faults_and_no_panic() {
    for stored in [json!(1), json!({"nodes": 1}), json!({"nodes": [1]}), json!({"nodes": [{}]}), json!({})] {
        let (flow, faults) = append(stored.clone(), json!({"flow": {}}));
        assert_eq!(flow, None, "{stored}");
        assert_ne!(faults, [], "{stored}");
    }
}

#[test]
fn the_limit_of_nodes_holds_for_the_sum() {
    let nodes: Vec<Value> = (0..MAX_NODES).map(|i| json!({"node": format!("n{i}"), "empty": true})).collect();
    let stored = json!({ "nodes": nodes });
    assert_eq!(append(stored.clone(), json!({"nodes": [{"node": "n7"}]})).1, []);
    assert_eq!(
        append(stored, json!({"nodes": [{"node": "one_more"}]})).1,
        [error("$.nodes", "a flow has at most 100000 nodes, not 100001")]
    );
}
