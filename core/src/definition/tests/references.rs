//! B2, B6, B7: what refers to something outside the configuration.

use serde_json::json;

use super::*;

fn node(node: Value) -> Value {
    json!({ "nodes": [node] })
}

#[test]
fn the_callback_is_the_special_routine_else_the_routine_else_the_name() {
    let callbacks = |keys: Value| {
        let node = defined(node(keys)).nodes.remove(0);
        (node.routine, node.routine_resolved, node.step_routine, node.step_routine_resolved)
    };
    let some = |s: &str| Some(s.to_owned());
    assert_eq!(
        callbacks(json!({"node": "a", "routine": "r"})),
        (some("r"), some("public.r"), some("r"), some("public.r"))
    );
    assert_eq!(
        callbacks(json!({"node": "a", "routine": "r", "node_routine": "n"})),
        (some("n"), some("public.n"), some("r"), some("public.r"))
    );
    assert_eq!(
        callbacks(json!({"node": "a", "routine": "r", "step_routine": "s"})),
        (some("r"), some("public.r"), some("s"), some("public.s"))
    );
    // Steps that may be pushed are resolved then; static ones now.
    assert_eq!(
        callbacks(json!({"node": "no_a", "node_routine": "n"})),
        (some("n"), some("public.n"), some("no_a"), None)
    );
    assert_eq!(
        callbacks(json!({"node": "a", "node_routine": "n", "steps": [{"x": 1}]})),
        (some("n"), some("public.n"), some("a"), some("public.a"))
    );
    assert_eq!(callbacks(json!({"node": "a", "steps_to_flow": "daily"})), (some("a"), some("public.a"), None, None));
}

#[test]
fn an_empty_node_needs_no_procedure_of_its_name() {
    assert_eq!(faults(node(json!({"node": "no_a", "empty": true}))), []);
    assert_eq!(defined(node(json!({"node": "no_a", "empty": true}))).nodes[0].routine, None);
    assert_eq!(
        faults(node(json!({"node": "no_a", "empty": true, "steps": [{"x": 1}]}))),
        [error("$.nodes[0].node", "procedure \"no_a\" does not exist")]
    );
    assert_eq!(faults(node(json!({"node": "no_a", "empty": true, "steps": [{"x": 1}], "step_routine": "s"}))), []);
    assert_eq!(
        faults(node(json!({"node": "a", "empty": true, "routine": "no_r"}))),
        [error("$.nodes[0].routine", "procedure \"no_r\" does not exist")]
    );
}

#[test]
fn a_routine_must_exist_be_a_procedure_take_the_arguments_and_be_executable() {
    let routine = |key: &str, name: &str| node(json!({"node": "a", key: name}));
    assert_eq!(faults(routine("routine", "no_r")), [error("$.nodes[0].routine", "procedure \"no_r\" does not exist")]);
    assert_eq!(hint(routine("routine", "no_r")), "create procedure no_r(flow.callback_arguments_t)");
    assert_eq!(
        faults(routine("node_routine", "no_r")),
        [error("$.nodes[0].node_routine", "procedure \"no_r\" does not exist")]
    );
    assert_eq!(
        faults(routine("step_routine", "no_r")),
        [error("$.nodes[0].step_routine", "procedure \"no_r\" does not exist")]
    );
    assert_eq!(
        faults(routine("routine", "a_function")),
        [error("$.nodes[0].routine", "\"a_function\" is not a procedure")]
    );
    assert_eq!(
        faults(routine("routine", "a_text_procedure")),
        [error("$.nodes[0].routine", "procedure \"a_text_procedure\" takes (text), not (flow.callback_arguments_t)")]
    );
    assert_eq!(
        faults(routine("routine", "a_secret")),
        [error("$.nodes[0].routine", "procedure \"a_secret\" may not be executed by this role")]
    );
    assert_eq!(
        hint(json!({"nodes": [{"node": "a", "routine": "a_secret"}], "flow": {"run_as": "bo\"b"}})),
        "GRANT EXECUTE ON PROCEDURE a_secret(flow.callback_arguments_t) TO \"bo\"\"b\""
    );
    assert_eq!(
        hint(node(json!({"node": "no_a"}))),
        "create procedure no_a(flow.callback_arguments_t), or name another one as \"routine\""
    );
    assert_eq!(
        faults(routine("routine", " ")),
        [error("$.nodes[0].routine", "\"routine\" must be a string that is not empty, not the string \" \"")]
    );
}

#[test]
fn a_routine_elsewhere_is_not_checked() {
    for target in ["far", "queue"] {
        let flow = defined(node(json!({"node": "no_a", "target": target, "steps": [{"x": 1}]})));
        assert_eq!((flow.nodes[0].routine.as_deref(), &flow.nodes[0].routine_resolved), (Some("no_a"), &None));
    }
}

#[test]
fn a_target_must_be_known() {
    assert_eq!(
        faults(node(json!({"node": "no_a", "target": "mars"}))),
        [error("$.nodes[0].target", "target \"mars\" does not exist")]
    );
    assert!(hint(node(json!({"node": "a", "target": "mars"}))).starts_with("configure it with async.configure"));
}

#[test]
fn a_routine_that_is_never_called_is_a_warning() {
    assert_eq!(
        faults(node(json!({"node": "a", "empty": true, "node_routine": "no_r"}))),
        [warning("$.nodes[0].node_routine", "\"node_routine\" is never called, because the node is empty")]
    );
    assert_eq!(
        faults(node(json!({"node": "a", "steps_to_flow": "daily", "step_routine": "no_r"}))),
        [warning("$.nodes[0].step_routine", "\"step_routine\" is never called, because its steps start a flow")]
    );
}

#[test]
fn steps_cannot_stand_with_steps_to_flow() {
    assert_eq!(
        faults(node(json!({"node": "a", "steps_to_flow": "daily", "steps": [{"x": 1}]}))),
        [error("$.nodes[0].steps", "\"steps\" cannot stand together with \"steps_to_flow\"")]
    );
    assert_eq!(faults(node(json!({"node": "a", "steps_to_flow": "daily", "steps": []}))), []);
}

#[test]
fn a_flow_that_does_not_exist_yet_is_a_warning() {
    assert_eq!(
        faults(node(json!({"node": "a", "steps_to_flow": "weekly"}))),
        [warning("$.nodes[0].steps_to_flow", "flow \"weekly\" does not exist yet")]
    );
    assert_eq!(
        faults(node(json!({"node": "a", "steps_to_flow": "f"}))),
        [warning("$.nodes[0].steps_to_flow", "\"steps_to_flow\" names this flow itself, \"f\"")]
    );
}

#[test]
fn a_timeout_is_an_interval_that_is_positive() {
    let with = |value: Value| faults(node(json!({"node": "a", "node_timeout": value})));
    assert_eq!(with(json!("5 minutes")), []);
    assert_eq!(
        with(json!("soon")),
        [error("$.nodes[0].node_timeout", "\"node_timeout\" is \"soon\": not an interval")]
    );
    assert_eq!(with(json!("-1 s")), [error("$.nodes[0].node_timeout", "\"node_timeout\" is \"-1 s\": not positive")]);
    let wanted =
        "\"node_timeout\" must be an interval: a string such as \"5 minutes\", or a positive number of seconds";
    assert_eq!(with(json!(0)), [error("$.nodes[0].node_timeout", &format!("{wanted}, not the number 0"))]);
    assert_eq!(with(json!(true)), [error("$.nodes[0].node_timeout", &format!("{wanted}, not true"))]);
    let flow = defined(
        serde_json::from_str(r#"{"nodes": [{"node": "a", "node_timeout": 1.5e3, "step_timeout": 90}]}"#).unwrap(),
    );
    assert_eq!(flow.nodes[0].node_timeout.as_deref(), Some("1500 seconds"));
    assert_eq!(flow.nodes[0].step_timeout.as_deref(), Some("90 seconds"));
}

#[test]
fn the_concurrency_routine_is_checked_in_either_place() {
    let at_the_top = |name: &str| json!({"nodes": [{"node": "a"}], "concurrency_group_routine": name});
    let flow = defined(at_the_top("g"));
    assert_eq!(flow.flow.concurrency_group_routine_resolved.as_deref(), Some("public.g"));
    let path = "$.concurrency_group_routine";
    assert_eq!(faults(at_the_top("no_g")), [error(path, "function \"no_g\" does not exist")]);
    assert_eq!(hint(at_the_top("no_g")), "create function no_g(flow_id bigint, node text) returns text");
    assert_eq!(faults(at_the_top("a_function")), [error(path, "\"a_function\" is not a function that returns text")]);
    assert_eq!(
        faults(at_the_top("a_text_procedure")),
        [error(path, "function \"a_text_procedure\" takes (text), not (bigint, text)")]
    );
    assert_eq!(
        hint(at_the_top("a_secret")),
        "GRANT EXECUTE ON FUNCTION a_secret(bigint, text) TO the role that runs the flow"
    );
    assert_eq!(
        faults(json!({"nodes": [{"node": "a"}], "flow": {"concurrency_group_routine": "no_g"}})),
        [error("$.flow.concurrency_group_routine", "function \"no_g\" does not exist")]
    );
    let both = |name: &str| json!({"nodes": [{"node": "a"}], "flow": {"concurrency_group_routine": "g"}, "concurrency_group_routine": name});
    assert_eq!(faults(both("g")), []);
    assert_eq!(faults(both("h")), [error(path, "$.flow.concurrency_group_routine names another one, \"g\"")]);
}

#[test]
fn the_catalog_is_asked_once_per_name() {
    let mut nodes: Vec<Value> = (0..50)
        .map(|i| json!({"node": format!("n{i}"), "target": "local", "routine": "r", "steps": [{"x": 1}], "step_timeout": "1 s"}))
        .collect();
    nodes.push(json!({"node": "x", "steps_to_flow": "daily"}));
    nodes.push(json!({"node": "y", "routine": "x", "steps_to_flow": "daily"}));
    let mut fake = Fake::default();
    let (flow, faults) =
        configure("f", &json!({"nodes": nodes, "concurrency_group_routine": "g"}), None, false, &mut fake);
    assert_eq!((flow.is_some(), faults), (true, vec![]));
    let mut asked: Vec<(String, usize)> = fake.asked.into_iter().collect();
    asked.sort();
    let asked: Vec<(&str, usize)> = asked.iter().map(|(what, times)| (what.as_str(), *times)).collect();
    assert_eq!(
        asked,
        [
            ("flow daily", 1),
            ("interval 1 s", 1),
            ("routine g", 1),
            ("routine r", 1),
            ("routine x", 1),
            ("target local", 1)
        ]
    );
}
