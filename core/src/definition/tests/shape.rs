//! B1, B3, B6: keys, types, names, duplicates.

use serde_json::json;

use super::*;

#[test]
fn a_configuration_is_an_object_with_nodes() {
    assert_eq!(faults(json!([])), [error("$", "a configuration must be an object, not an array")]);
    assert_eq!(faults(json!({})), [error("$", "\"nodes\" is missing")]);
    assert_eq!(faults(json!({"nodes": null})), [error("$", "\"nodes\" is missing")]);
    assert_eq!(faults(json!({"nodes": []})), [error("$.nodes", "a flow needs at least one node")]);
    assert_eq!(faults(json!({"nodes": {}})), [error("$.nodes", "\"nodes\" must be an array, not an object")]);
    assert_eq!(
        faults(json!({"nodes": ["a"]})),
        [error("$.nodes[0]", "a node must be an object, not the string \"a\"")]
    );
    assert_eq!(faults(json!({"nodes": [null]})), [error("$.nodes[0]", "a node must be an object, not null")]);
}

#[test]
fn everything_has_its_default() {
    let flow = defined(json!({"nodes": [{"node": "a"}]}));
    assert_eq!(flow.flow, FlowOptions::default());
    assert_eq!(
        flow.nodes,
        [Node {
            name: "a".into(),
            node_no: 0,
            description: None,
            target: None,
            routine: Some("a".into()),
            routine_resolved: Some("public.a".into()),
            step_routine: Some("a".into()),
            step_routine_resolved: Some("public.a".into()),
            query: None,
            step_query: None,
            query_routine: None,
            query_routine_resolved: None,
            options: Map::new(),
            priority: None,
            all_steps_must_complete: true,
            empty: false,
            steps_to_flow: None,
            synchronous: false,
            node_timeout: None,
            step_timeout: None,
            on_partial: OnPartial::Rerun,
            parents: vec![],
            rank: 0,
            steps: vec![],
        }]
    );
}

#[test]
fn every_known_key_is_taken() {
    let configuration = json!({
        "description": "top",
        "flow": {"concurrency_group_routine": "s.groups", "priority": -3, "run_as": "bob", "description": "mine"},
        "nodes": [
            {"node": "a"},
            {"node": "b.c_2", "description": "second", "target": "local", "routine": "r", "node_routine": "n", "step_routine": "s",
             "priority": 99, "all_steps_must_complete": false, "synchronous": true, "node_timeout": "1 hour", "step_timeout": 1.5,
             "on_partial": "fail", "dependencies": [{"parent": "a", "continue_on_failure": true}], "steps": [{"x": 1}]},
            {"node": "c", "empty": true, "steps_to_flow": "daily"}
        ]
    });
    let flow = defined(configuration.clone());
    assert_eq!(flow.configuration, configuration);
    assert_eq!(
        flow.flow,
        FlowOptions {
            description: Some("mine".into()),
            concurrency_group_routine: Some("s.groups".into()),
            concurrency_group_routine_resolved: Some("public.s.groups".into()),
            priority: Some(-3),
            run_as: Some("bob".into()),
        }
    );
    let node = &flow.nodes[1];
    assert_eq!((node.name.as_str(), node.node_no, node.rank), ("b.c_2", 1, 1));
    assert_eq!((node.routine.as_deref(), node.step_routine.as_deref()), (Some("n"), Some("s")));
    assert_eq!((node.target.as_deref(), node.description.as_deref()), (Some("local"), Some("second")));
    assert_eq!((node.priority, node.all_steps_must_complete, node.synchronous), (Some(99), false, true));
    assert_eq!((node.node_timeout.as_deref(), node.step_timeout.as_deref()), (Some("1 hour"), Some("1.5 seconds")));
    assert_eq!(
        (node.on_partial, &node.parents, &node.steps),
        (OnPartial::Fail, &vec![(0, true)], &vec![json!({"x": 1})])
    );
    let node = &flow.nodes[2];
    assert_eq!((&node.routine, &node.step_routine, node.steps_to_flow.as_deref()), (&None, &None, Some("daily")));
}

#[test]
fn null_is_the_same_as_absent() {
    let flow = defined(json!({
        "flow": null, "concurrency_group_routine": null, "description": null,
        "nodes": [
            {"node": "a", "target": null, "empty": null, "dependencies": null, "steps": null, "priority": null},
            {"node": "b", "dependencies": [{"parent": "a", "continue_on_failure": null}], "steps": [{"kept": null}]}
        ]
    }));
    assert_eq!(
        flow.configuration,
        json!({"nodes": [{"node": "a"}, {"node": "b", "dependencies": [{"parent": "a"}], "steps": [{"kept": null}]}]})
    );
}

#[test]
fn the_order_of_keys_is_kept() {
    let text = r#"{"nodes":[{"steps":[{"z":1,"a":2}],"node":"a","note":"x"}],"owner":"me","flow":{"run_as":"r","priority":1}}"#;
    let (flow, _) = configure("f", &serde_json::from_str(text).unwrap(), None, false, &mut Fake::default());
    assert_eq!(flow.unwrap().configuration.to_string(), text);
}

#[test]
fn all_faults_are_told_at_once() {
    let configuration = json!({
        "nodes": [
            {"node": "a", "depends": [], "priority": 100},
            {"node": "a", "rutine": "x"},
            {"node": "b", "dependencies": [{"parent": "c"}], "target": "nowhere"},
            {"node": "no_d", "steps": [1]}
        ],
        "owner": "me"
    });
    assert_eq!(
        faults(configuration),
        [
            warning("$.owner", "unknown key \"owner\""),
            error("$.nodes[0].depends", "unknown key \"depends\""),
            error("$.nodes[0].priority", "\"priority\" must be a whole number from -99 to 99, not the number 100"),
            error("$.nodes[1].rutine", "unknown key \"rutine\""),
            error("$.nodes[1].node", "node \"a\" is given twice; first at $.nodes[0]"),
            error("$.nodes[3].steps[0]", "a step must be an object, not the number 1"),
            error("$.nodes[2].dependencies[0].parent", "parent \"c\" is not a node of this flow"),
            error("$.nodes[2].target", "target \"nowhere\" does not exist"),
            error("$.nodes[3].node", "procedure \"no_d\" does not exist"),
        ]
    );
}

#[test]
fn an_unknown_key_that_resembles_a_known_one_is_an_error() {
    let node = |key: &str| json!({"nodes": [{"node": "a", key: "x"}]});
    assert_eq!(faults(node("depends")), [error("$.nodes[0].depends", "unknown key \"depends\"")]);
    assert_eq!(hint(node("depends")), "did you mean \"dependencies\"?");
    assert_eq!(hint(node("timeout")), "did you mean \"node_timeout\"?");
    assert_eq!(hint(node("run_as")), "it belongs in \"flow\"");
    assert_eq!(hint(json!({"nodes": [{"node": "a"}], "target": "x"})), "it belongs in a node");
    let configuration = json!({"nodes": [{"node": "a"}], "flow": {"prio": 1}});
    assert_eq!(faults(configuration), [error("$.flow.prio", "unknown key \"prio\"")]);
    let configuration =
        json!({"nodes": [{"node": "a"}, {"node": "b", "dependencies": [{"parent": "a", "on_failure": true}]}]});
    assert_eq!(faults(configuration), [error("$.nodes[1].dependencies[0].on_failure", "unknown key \"on_failure\"")]);
}

#[test]
fn an_unknown_key_that_resembles_none_is_a_warning_and_is_kept() {
    let configuration = json!({"nodes": [{"node": "a", "cost centre": {"x": null}}], "owner": "me"});
    assert_eq!(
        faults(configuration.clone()),
        [
            warning("$.owner", "unknown key \"owner\""),
            warning("$.nodes[0][\"cost centre\"]", "unknown key \"cost centre\""),
        ]
    );
    let (flow, _) = configure("f", &configuration, None, false, &mut Fake::default());
    assert_eq!(flow.unwrap().configuration, configuration);
}

#[test]
fn an_unknown_key_is_an_error_when_strict() {
    let configuration = json!({"nodes": [{"node": "a"}], "owner": "me"});
    let (flow, faults) = configure("f", &configuration, None, true, &mut Fake::default());
    assert_eq!(flow, None);
    assert_eq!(
        faults,
        [Fault {
            path: "$.owner".into(),
            severity: Severity::Error,
            message: "unknown key \"owner\"".into(),
            hint: Some("a configuration has nodes, flow, concurrency_group_routine, description".into()),
        }]
    );
}

#[test]
fn a_node_needs_a_name_that_can_be_one() {
    let name = |name: &str| faults(json!({"nodes": [{"node": name}]}));
    for good in ["a", "a_1", "schema.load", "a.b_", &"x".repeat(127)] {
        assert_eq!(name(good), [], "{good}");
    }
    for bad in ["A", "1a", "_a", "a.", ".a", "a.b.c", "a.1", "a b", "a-b", "é", "a\n", "a\""] {
        let shown = fault::quoted(bad);
        assert_eq!(name(bad), [error("$.nodes[0].node", &format!("{shown} cannot be the name of a node"))]);
    }
    assert_eq!(name(&"x".repeat(128)), [error("$.nodes[0].node", "a node's name is at most 127 bytes long, not 128")]);
    assert_eq!(
        name(""),
        [error("$.nodes[0].node", "\"node\" must be a string that is not empty, not the string \"\"")]
    );
    assert_eq!(faults(json!({"nodes": [{}]})), [error("$.nodes[0]", "the node's name is missing")]);
    assert_eq!(
        faults(json!({"nodes": [{"node": 7}]})),
        [error("$.nodes[0].node", "\"node\" must be a string that is not empty, not the number 7")]
    );
}

#[test]
fn a_flow_name_may_be_odd_but_not_broken() {
    let named = |name: &str| {
        let (_, faults) = configure(name, &json!({"nodes": [{"node": "a"}]}), None, false, &mut Fake::default());
        faults.into_iter().map(|fault| (fault.path, fault.message)).collect::<Vec<_>>()
    };
    for good in ["f", "Täglich \"laden\"; --", "日本", &"x".repeat(255)] {
        assert_eq!(named(good), [], "{good}");
    }
    let wrong = |message: &str| [("$".to_owned(), message.to_owned())];
    assert_eq!(named(""), wrong("the flow's name must not be empty"));
    assert_eq!(named(" "), wrong("the flow's name must not be empty"));
    assert_eq!(named(&"é".repeat(128)), wrong("the flow's name is 256 bytes long; at most 255 are allowed"));
    assert_eq!(named("a\0b"), wrong("the flow's name \"a\\u{0}b\" contains a control character"));
}

#[test]
fn a_step_is_an_object_that_says_something() {
    let configuration = json!({"nodes": [{"node": "a", "steps": [{"x": 1}, {}, null, [], "s"]}]});
    assert_eq!(
        faults(configuration),
        [
            error("$.nodes[0].steps[1]", "a step must not be {}"),
            error("$.nodes[0].steps[2]", "a step must be an object, not null"),
            error("$.nodes[0].steps[3]", "a step must be an object, not an array"),
            error("$.nodes[0].steps[4]", "a step must be an object, not the string \"s\""),
        ]
    );
}

#[test]
fn the_same_step_again_is_a_warning_and_left_out() {
    let configuration = json!({"nodes": [{"node": "a", "steps": [{"x": 1, "y": 2}, {"x": 2}, {"y": 2.0, "x": 1}]}]});
    assert_eq!(faults(configuration.clone()), [warning("$.nodes[0].steps[2]", "the same step as steps[0]")]);
    let (flow, _) = configure("f", &configuration, None, false, &mut Fake::default());
    let flow = flow.unwrap();
    assert_eq!(flow.nodes[0].steps, [json!({"x": 1, "y": 2}), json!({"x": 2})]);
    assert_eq!(flow.configuration, json!({"nodes": [{"node": "a", "steps": [{"x": 1, "y": 2}, {"x": 2}]}]}));
}

#[test]
fn a_number_in_a_step_keeps_all_its_digits() {
    let text = r#"{"nodes":[{"node":"a","steps":[{"x":123456789012345678901234567890.10}]}]}"#;
    let flow = defined(serde_json::from_str(text).unwrap());
    assert_eq!(flow.configuration.to_string(), text);
}

#[test]
fn a_dependency_names_a_parent_once_and_not_itself() {
    let configuration = json!({"nodes": [
        {"node": "a"},
        {"node": "b", "dependencies": [{"parent": "a"}, {"parent": "a"}, {"parent": "b"}, {}, "a", {"parent": 3}]}
    ]});
    assert_eq!(
        faults(configuration),
        [
            error("$.nodes[1].dependencies[1].parent", "node \"b\" depends on \"a\" twice"),
            error("$.nodes[1].dependencies[2].parent", "node \"b\" depends on itself"),
            error("$.nodes[1].dependencies[3]", "\"parent\" is missing"),
            error("$.nodes[1].dependencies[4]", "a dependency must be an object, not the string \"a\""),
            error(
                "$.nodes[1].dependencies[5].parent",
                "\"parent\" must be a string that is not empty, not the number 3"
            ),
        ]
    );
}

#[test]
fn a_flow_has_a_limit_of_nodes() {
    let nodes: Vec<Value> = (0..=MAX_NODES).map(|i| json!({"node": format!("n{i}")})).collect();
    assert_eq!(faults(json!({ "nodes": nodes })), [error("$.nodes", "a flow has at most 100000 nodes, not 100001")]);
}
