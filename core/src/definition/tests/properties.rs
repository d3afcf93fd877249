//! What holds for every configuration: round trip, merge, ranks, cycles.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const SIZE: usize = 12;

/// The edges of a graph without cycles: from a place in a shuffled order to a later one.
fn dag() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let order = Just((0..SIZE).collect::<Vec<_>>()).prop_shuffle();
    (order, proptest::collection::btree_set((0..SIZE, 0..SIZE), 0..40)).prop_map(|(order, pairs)| {
        pairs.into_iter().filter(|(a, b)| a < b).map(|(a, b)| (order[a], order[b])).collect()
    })
}

/// Arguments, flags, nulls and unknown keys of one node.
fn node_keys() -> impl Strategy<Value = Value> {
    let step = prop_oneof![
        (0..4i32).prop_map(|x| json!({ "x": x })),
        (0..4i32).prop_map(|x| json!({"x": f64::from(x), "y": [null]})),
    ];
    let optional = |value: Value| prop_oneof![Just(None), Just(Some(Value::Null)), Just(Some(value))];
    (
        proptest::option::of(proptest::collection::vec(step, 0..5)),
        optional(json!("r")),
        optional(json!("far")),
        optional(json!(true)),
        proptest::option::of(-99..=99i32),
        optional(json!(2.50)),
        optional(json!({"kept": null})),
    )
        .prop_map(|(steps, routine, target, empty, priority, timeout, owner)| {
            let mut keys = serde_json::Map::new();
            keys.extend(owner.map(|v| ("owner".to_owned(), v)));
            keys.extend(steps.map(|v| ("steps".to_owned(), Value::Array(v))));
            keys.extend(routine.map(|v| ("routine".to_owned(), v)));
            keys.extend(target.map(|v| ("target".to_owned(), v)));
            keys.extend(empty.map(|v| ("empty".to_owned(), v)));
            keys.extend(priority.map(|v| ("priority".to_owned(), json!(v))));
            keys.extend(timeout.map(|v| ("step_timeout".to_owned(), v)));
            Value::Object(keys)
        })
}

fn configuration() -> impl Strategy<Value = Value> {
    (dag(), proptest::collection::vec(node_keys(), SIZE), any::<u64>()).prop_map(|(edges, keys, flags)| {
        let node = |(i, mut keys): (usize, Value)| {
            keys["node"] = json!(format!("n{i}"));
            let parents = edges.iter().filter(|(_, child)| *child == i);
            let dependency = |(parent, _): &(usize, usize)| {
                json!({"parent": format!("n{parent}"), "continue_on_failure": (flags >> (parent + i)) & 1 == 1})
            };
            keys["dependencies"] = parents.map(dependency).collect();
            keys
        };
        json!({"flow": {"priority": 1, "run_as": null}, "nodes": keys.into_iter().enumerate().map(node).collect::<Vec<_>>()})
    })
}

fn configured(new: &Value, stored: Option<&Value>) -> Definition {
    let (definition, faults) = configure("f", new, stored, false, &mut Fake::default());
    definition.unwrap_or_else(|| panic!("{faults:?}"))
}

proptest! {
    #[test]
    fn what_is_stored_is_configured_to_the_same(configuration in configuration()) {
        let first = configured(&configuration, None);
        let again = configured(&first.configuration, None);
        prop_assert_eq!(&again, &first);
        prop_assert_eq!(again.configuration.to_string(), first.configuration.to_string());
    }

    #[test]
    fn adding_the_same_again_changes_nothing(configuration in configuration()) {
        let first = configured(&configuration, None);
        prop_assert_eq!(configured(&configuration, Some(&first.configuration)), first);
    }

    #[test]
    fn adding_keeps_every_node_dependency_and_step(a in configuration(), keys in node_keys(), parent in 0..SIZE) {
        let stored = configured(&a, None);
        let mut node = keys;
        node["node"] = json!("added");
        node["dependencies"] = json!([{"parent": format!("n{parent}")}]);
        let merged = configured(&json!({ "nodes": [node] }), Some(&stored.configuration));
        prop_assert_eq!(&merged.nodes[..SIZE], &stored.nodes[..]);
        prop_assert_eq!(merged.nodes.len(), SIZE + 1);
        prop_assert_eq!(&merged.nodes[SIZE].parents, &vec![(parent, false)]);
    }

    #[test]
    fn a_rank_is_one_more_than_the_highest_of_the_parents(edges in dag()) {
        let ranks = ranks(SIZE, &edges).unwrap();
        for node in 0..SIZE {
            let highest = edges.iter().filter(|(_, child)| *child == node).map(|(parent, _)| ranks[*parent] + 1).max();
            prop_assert_eq!(ranks[node], highest.unwrap_or(0));
        }
    }

    #[test]
    fn a_cycle_that_is_told_is_one(edges in dag(), back in 0..40usize) {
        prop_assume!(!edges.is_empty());
        let (parent, child) = edges[back % edges.len()];
        let mut edges = edges;
        edges.push((child, parent));
        let cycles = ranks(SIZE, &edges).unwrap_err();
        prop_assert_eq!(cycles.len(), 1);
        let cycle = &cycles[0];
        prop_assert_eq!(cycle.len(), 2);
        for (i, node) in cycle.iter().enumerate() {
            prop_assert!(edges.contains(&(*node, cycle[(i + 1) % cycle.len()])));
        }
    }

    #[test]
    fn cycles_and_ranks_exclude_each_other(edges in proptest::collection::vec((0..SIZE, 0..SIZE), 0..40)) {
        match ranks(SIZE, &edges) {
            Ok(ranks) => for (parent, child) in edges.iter().filter(|(a, b)| a != b) {
                prop_assert!(ranks[*parent] < ranks[*child]);
            },
            Err(cycles) => for cycle in cycles {
                prop_assert!(cycle.len() > 1);
                prop_assert_eq!(cycle.iter().min(), cycle.first());
                for (i, node) in cycle.iter().enumerate() {
                    prop_assert!(edges.contains(&(*node, cycle[(i + 1) % cycle.len()])));
                }
            },
        }
    }

    #[test]
    fn a_selection_with_both_is_closed_upwards_and_downwards(edges in dag(), node in 0..SIZE) {
        let names: Vec<String> = (0..SIZE).map(|i| format!("n{i}")).collect();
        let up = extend_selection(&names, &edges, &[&names[node]], true, false).unwrap();
        let down = extend_selection(&names, &edges, &[&names[node]], false, true).unwrap();
        for (parent, child) in &edges {
            prop_assert!(!up.contains(child) || up.contains(parent));
            prop_assert!(!down.contains(parent) || down.contains(child));
        }
        let mut both: Vec<usize> = up.iter().chain(&down).copied().collect();
        both.sort_unstable();
        both.dedup();
        prop_assert_eq!(extend_selection(&names, &edges, &[&names[node]], true, true).unwrap(), both);
    }

    #[test]
    fn any_json_at_all_gives_a_definition_or_an_error(text in "\\PC{0,40}", depth in 0..4usize, n in any::<i64>()) {
        let mut value = json!({"node": text, "priority": n, "steps": [text], "dependencies": [{"parent": text}], text.clone(): n});
        for _ in 0..depth {
            value = json!({"nodes": [value], "flow": {text.clone(): null}});
        }
        let (definition, faults) = configure(&text, &value, Some(&value), true, &mut Fake::default());
        prop_assert_eq!(definition.is_none(), faults.iter().any(|fault| fault.severity == Severity::Error));
    }
}
