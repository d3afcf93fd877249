//! B6, C9, E6, E14: cycles, ranks, selections.

use serde_json::json;

use super::*;

/// A flow from (name, parents).
fn flow(nodes: &[(&str, &[&str])]) -> Value {
    let node = |(name, parents): &(&str, &[&str])| {
        let dependencies: Vec<Value> = parents.iter().map(|parent| json!({"parent": parent})).collect();
        json!({"node": name, "dependencies": dependencies})
    };
    json!({"nodes": nodes.iter().map(node).collect::<Vec<_>>()})
}

#[test]
fn a_rank_is_the_longest_path_from_a_root() {
    let flow =
        defined(flow(&[("e", &["d", "a"]), ("d", &["b", "c"]), ("c", &["b"]), ("b", &["a"]), ("a", &[]), ("x", &[])]));
    let ranks: Vec<(&str, usize)> = flow.nodes.iter().map(|node| (node.name.as_str(), node.rank)).collect();
    assert_eq!(ranks, [("e", 4), ("d", 3), ("c", 2), ("b", 1), ("a", 0), ("x", 0)]);
    assert_eq!(flow.edges(), [(1, 0), (4, 0), (3, 1), (2, 1), (3, 2), (4, 3)]);
}

#[test]
fn a_parent_outside_the_flow_names_the_nearest() {
    let configuration = flow(&[("load_orders", &[]), ("report", &["load_order"])]);
    assert_eq!(
        faults(configuration.clone()),
        [error("$.nodes[1].dependencies[0].parent", "parent \"load_order\" is not a node of this flow")]
    );
    assert_eq!(hint(configuration), "did you mean \"load_orders\"?");
    assert_eq!(hint(flow(&[("load", &[]), ("report", &["LOAD"])])), "did you mean \"load\"?");
    assert_eq!(
        hint(flow(&[("load", &[]), ("report", &["xyzzy"])])),
        "every parent is a node of the same configuration"
    );
}

#[test]
fn a_cycle_is_printed_once_per_knot_and_shortest() {
    let configuration = flow(&[
        ("a", &["d"]),
        ("b", &["a", "c"]),
        ("c", &["b"]),
        ("d", &["c"]),
        ("x", &["z"]),
        ("y", &["x"]),
        ("z", &["y"]),
    ]);
    assert_eq!(
        faults(configuration),
        [
            error("$.nodes[1].dependencies[1].parent", "the dependencies form a cycle: b → c → b"),
            error("$.nodes[4].dependencies[0].parent", "the dependencies form a cycle: x → y → z → x"),
        ]
    );
}

#[test]
fn a_long_cycle_is_printed_shortened() {
    let names: Vec<String> = (0..50_000).map(|i| format!("n{i}")).collect();
    let nodes: Vec<Value> = (0..50_000)
        .map(|i| json!({"node": names[i], "dependencies": [{"parent": names[(i + 49_999) % 50_000]}]}))
        .collect();
    let faults = faults(json!({ "nodes": nodes }));
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].1, "$.nodes[0].dependencies[0].parent");
    assert!(faults[0].2.starts_with("the dependencies form a cycle: n0 → n1 → "), "{}", faults[0].2);
    assert!(faults[0].2.ends_with("→ n19 → (49980 more) → n0"), "{}", faults[0].2);
}

#[test]
fn a_chain_of_the_most_nodes_does_not_overflow_the_stack() {
    let nodes: Vec<Value> = (0..MAX_NODES)
        .rev()
        .map(|i| match i {
            0 => json!({"node": "n0", "empty": true}),
            _ => json!({"node": format!("n{i}"), "empty": true, "dependencies": [{"parent": format!("n{}", i - 1)}]}),
        })
        .collect();
    let flow = defined(json!({ "nodes": nodes }));
    assert_eq!((flow.nodes[0].rank, flow.nodes[MAX_NODES - 1].rank), (MAX_NODES - 1, 0));
    assert_eq!(flow.extend_selection(&["n0"], false, true).unwrap().len(), MAX_NODES);
}

#[test]
fn layers_fully_connected_take_no_more_than_their_edges() {
    // 2^60 paths: anything that walks them never ends.
    let nodes: Vec<Value> = (0..120)
        .map(|i| {
            let parents: Vec<Value> = if i < 2 {
                vec![]
            } else {
                (0..2).map(|p| json!({"parent": format!("n{}", i / 2 * 2 - 2 + p)})).collect()
            };
            json!({"node": format!("n{i}"), "dependencies": parents})
        })
        .collect();
    let flow = defined(json!({ "nodes": nodes }));
    assert!(flow.nodes.iter().all(|node| node.rank == node.node_no / 2));
    assert_eq!(flow.extend_selection(&["n60"], true, true).unwrap().len(), 60 + 1 + 58);
}

#[test]
fn a_knot_of_many_nodes_is_searched_within_its_bound() {
    let edges: Vec<(usize, usize)> =
        (0..MAX_NODES).flat_map(|i| [(i, (i + 1) % MAX_NODES), (i, (i + 7) % MAX_NODES)]).collect();
    let cycles = ranks(MAX_NODES, &edges).unwrap_err();
    assert_eq!(cycles.len(), 1);
    assert!(cycles[0].len() >= MAX_NODES / 7);
}

#[test]
fn an_edge_to_nowhere_or_to_itself_is_left_out() {
    assert_eq!(ranks(2, &[(0, 1), (1, 1), (0, 9), (9, 0)]), Ok(vec![0, 1]));
    assert_eq!(ranks(0, &[]), Ok(vec![]));
    assert_eq!(extend_selection(&["a", "b"], &[(0, 1), (1, 7), (7, 0)], &["b"], true, true), Ok(vec![0, 1]));
}

#[test]
fn a_selection_is_extended_by_ancestors_and_descendants() {
    // a → b → d, a → c → d, e → d
    let names = ["a", "b", "c", "d", "e"];
    let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (4, 3)];
    let select = |only: &[&str], parents, children| extend_selection(&names, &edges, only, parents, children);
    assert_eq!(select(&["b"], false, false), Ok(vec![1]));
    assert_eq!(select(&["b"], true, false), Ok(vec![0, 1]));
    assert_eq!(select(&["b"], false, true), Ok(vec![1, 3]));
    assert_eq!(select(&["b"], true, true), Ok(vec![0, 1, 3]));
    assert_eq!(select(&["d", "d", "a"], false, false), Ok(vec![0, 3]));
    assert_eq!(select(&["d"], true, false), Ok(vec![0, 1, 2, 3, 4]));
    assert_eq!(select(&[], true, true), Ok(vec![]));
}

#[test]
fn an_unknown_name_in_a_selection_is_an_error() {
    let unknown = extend_selection(&["a"], &[], &["x", "a", "y\n", "x"], true, true).unwrap_err();
    assert_eq!(unknown.names, ["x", "y\n"]);
    assert_eq!(unknown.to_string(), "no such node in this flow: \"x\", \"y\\u{a}\"");
}
