//! B1, F9: queries, and what nodes say beside them; targets elsewhere.

use serde_json::json;

use super::*;

fn node(node: Value) -> Value {
    json!({ "nodes": [node] })
}

fn one(mut keys: Value) -> Node {
    keys["node"] = json!("a");
    defined(node(keys)).nodes.remove(0)
}

fn messages(mut keys: Value) -> Vec<(String, String)> {
    keys["node"] = json!("a");
    faults(node(keys)).into_iter().map(|(_, path, message)| (path.replace("$.nodes[0]", ""), message)).collect()
}

/// The only fault.
fn fault(keys: Value) -> (String, String) {
    let mut all = messages(keys);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// What a node's tasks do: (routine, query, step_routine, step_query, query_routine).
fn does(keys: Value) -> [Option<String>; 5] {
    let n = one(keys);
    [n.routine, n.query, n.step_routine, n.step_query, n.query_routine]
}

fn expected(texts: [&str; 5]) -> [Option<String>; 5] {
    texts.map(|text| (!text.is_empty()).then(|| text.to_owned()))
}

#[test]
fn a_task_runs_the_special_query_else_the_query_else_what_the_routine_makes() {
    assert_eq!(does(json!({"query": "q"})), expected(["", "q", "", "q", ""]));
    assert_eq!(does(json!({"query": "q", "step_query": "s"})), expected(["", "q", "", "s", ""]));
    assert_eq!(does(json!({"node_query": "n", "query": "q"})), expected(["", "n", "", "q", ""]));
    assert_eq!(does(json!({"node_query": "n"})), expected(["", "n", "a", "", ""]));
    assert_eq!(does(json!({"query": "q", "step_routine": "r"})), expected(["", "q", "r", "", ""]));
    assert_eq!(does(json!({"query": "q", "node_routine": "r"})), expected(["r", "", "", "q", ""]));
    assert_eq!(does(json!({"query_routine": "a_function"})), expected(["", "", "", "", "a_function"]));
    assert_eq!(
        does(json!({"query_routine": "a_function", "node_query": "n"})),
        expected(["", "n", "", "", "a_function"])
    );
    assert_eq!(does(json!({"query": "q", "empty": true})), expected(["", "", "", "q", ""]));
    assert_eq!(does(json!({"query": "q", "steps_to_flow": "daily"})), expected(["", "q", "", "", ""]));
}

#[test]
fn a_local_query_needs_no_procedure_of_the_nodes_name() {
    let configuration =
        json!({"nodes": [{"node": "no_a", "query": "SELECT 1", "steps": [{"x": 1}], "result": "inline"}]});
    assert_eq!(faults(configuration), []);
}

#[test]
fn a_task_does_one_thing() {
    let message = |a: &str, b: &str| format!("\"{a}\" cannot stand together with \"{b}\": a task does one thing");
    for (a, b) in [("query", "routine"), ("node_query", "node_routine"), ("step_query", "step_routine")] {
        assert_eq!(fault(json!({a: "q", b: "r"})), (format!(".{a}"), message(a, b)));
    }
    assert_eq!(
        fault(json!({"query": "q", "query_routine": "a_function"})),
        (".query_routine".into(), message("query_routine", "query"))
    );
}

#[test]
fn a_kind_that_needs_a_query_has_one_and_calls_no_routine() {
    let (path, message) = fault(json!({"target": "house"}));
    assert_eq!((path.as_str(), message.as_str()), ("", "it has no query, and its target is of kind \"clickhouse\""));
    let (path, message) = fault(json!({"target": "house", "routine": "r"}));
    assert_eq!(path, ".routine");
    assert!(message.ends_with("a target of kind \"clickhouse\" calls none: give a \"query\""), "{message}");
    let (path, message) = fault(json!({"target": "house", "node_query": "q", "steps": [{"x": 1}]}));
    assert_eq!((path.as_str(), message.contains("its steps have no query")), (".steps", true));
    assert_eq!(messages(json!({"target": "house", "node_query": "q"})), []);
    assert_eq!(messages(json!({"target": "house", "empty": true})), []);
    assert_eq!(does(json!({"target": "house", "node_query": "n"})), expected(["", "n", "", "", ""]));
}

#[test]
fn a_kind_that_needs_neither_takes_neither() {
    assert_eq!(does(json!({"target": "web", "request": {"path": "/x"}})), expected(["", "", "", "", ""]));
    for key in ["query", "routine", "query_routine", "step_query"] {
        let (path, message) = fault(json!({"target": "web", key: "x"}));
        assert_eq!(path, format!(".{key}"));
        assert!(message.ends_with("\"request\" says what is to be done"), "{message}");
    }
}

#[test]
fn an_external_target_runs_no_query() {
    assert_eq!(fault(json!({"target": "queue", "query": "q"})).0, ".query");
    assert_eq!(fault(json!({"target": "queue", "result": "inline"})).0, ".result");
    assert_eq!(messages(json!({"target": "queue", "routine": "anything"})), []);
}

#[test]
fn a_routine_on_another_postgres_is_not_looked_up_but_a_query_routine_is() {
    assert_eq!(messages(json!({"target": "far", "routine": "no_r"})), []);
    let found = one(json!({"target": "far", "query_routine": "a_function"}));
    assert_eq!(found.query_routine_resolved.as_deref(), Some("public.a_function"));
    for (name, message) in [
        ("no_function", "function \"no_function\" does not exist"),
        ("a_procedure", "\"a_procedure\" is not a function that returns text"),
        ("a_text_function", "function \"a_text_function\" takes (text), not (flow.callback_arguments_t)"),
        ("a_secret", "function \"a_secret\" may not be executed by this role"),
    ] {
        assert_eq!(fault(json!({"target": "house", "query_routine": name})), (".query_routine".into(), message.into()));
    }
    let why = hint(node(json!({"node": "a", "query_routine": "no_function"})));
    assert_eq!(why, "create function no_function(flow.callback_arguments_t) returns text");
}

#[test]
fn options_that_a_target_has_no_use_for_are_refused() {
    for key in ["parameters", "settings", "request"] {
        let (path, message) = fault(json!({"query": "q", key: {"x": 1}}));
        assert_eq!((path, message.contains("no meaning on the local database")), (format!(".{key}"), true));
    }
    assert_eq!(fault(json!({"query": "q", "tier": "fast"})).0, ".tier");
    let (path, message) = fault(json!({"target": "house", "query": "q", "request": {}}));
    assert_eq!(
        (path.as_str(), message.as_str()),
        (".request", "\"request\" has no meaning on a target of kind \"clickhouse\"")
    );
}

#[test]
fn a_tier_must_be_the_targets() {
    assert_eq!(messages(json!({"target": "house", "query": "q", "tier": "fast"})), []);
    assert_eq!(
        fault(json!({"target": "house", "query": "q", "tier": "slow"})),
        (".tier".into(), "the target has no tier \"slow\"".into())
    );
}

#[test]
fn the_kind_judges_what_only_it_knows() {
    assert_eq!(
        fault(json!({"target": "house", "query": "q", "settings": {"wrong": 1}})),
        (".settings.wrong".into(), "not on clickhouse".into())
    );
}

#[test]
fn a_result_is_a_word_or_says_where_to() {
    let with = |result: Value| messages(json!({"target": "house", "query": "q", "result": result}));
    for right in [
        json!("none"),
        json!("inline"),
        json!({"to": "none"}),
        json!({"to": "inline", "max_rows": 10, "max_bytes": 1000, "keep_for": "1 day"}),
        json!({"to": "table", "table": "s.t", "create": true, "truncate": false}),
        json!({"to": "object", "store": "results", "format": "parquet", "path": "r/{flow}/{task_id}-{attempt}"}),
        json!({"to": "export", "store": "results", "format": "csv", "compression": "gzip"}),
    ] {
        assert_eq!(with(right.clone()), [], "{right}");
    }
    for (wrong, path) in [
        (json!("table"), ".result"),
        (json!({}), ".result.to"),
        (json!({"to": "moon"}), ".result.to"),
        (json!({"to": "inline", "max_rows": 0}), ".result.max_rows"),
        (json!({"to": "inline", "max_bytes": 1e12}), ".result.max_bytes"),
        (json!({"to": "inline", "store": "results"}), ".result.store"),
        (json!({"to": "inline", "keep_for": "soon"}), ".result.keep_for"),
        (json!({"to": "table"}), ".result"),
        (json!({"to": "table", "table": "t", "create": "yes"}), ".result.create"),
        (json!({"to": "object", "store": "results"}), ".result"),
        (json!({"to": "object", "store": "attic", "format": "csv"}), ".result.store"),
        (json!({"to": "object", "store": "results", "format": "xls"}), ".result.format"),
        (json!({"to": "object", "store": "results", "format": "csv", "path": "/x"}), ".result.path"),
        (json!({"to": "object", "store": "results", "format": "csv", "path": "../x"}), ".result.path"),
        (json!({"to": "object", "store": "results", "format": "csv", "path": "a/{x"}), ".result.path"),
        (json!({"to": "object", "store": "results", "format": "csv", "path": "a/{}"}), ".result.path"),
        (json!({"to": "object", "store": "results", "format": "csv", "path": "a}b"}), ".result.path"),
    ] {
        let found = with(wrong.clone());
        assert_eq!(found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), [path], "{wrong}: {found:?}");
    }
    assert_eq!(messages(json!({"target": "house", "query": "q", "result": 7}))[0].0, ".result");
    let far = json!({"target": "far", "query": "q", "result": {"to": "export", "store": "results", "format": "csv"}});
    assert_eq!(fault(far), (".result.to".into(), "this target cannot write an object itself".into()));
}

#[test]
fn a_routine_has_no_result() {
    assert_eq!(fault(json!({"result": "inline"})).0, ".result");
    assert_eq!(fault(json!({"target": "far", "routine": "r", "result": "inline"})).0, ".result");
    assert_eq!(messages(json!({"result": "none"})), []);
    assert_eq!(messages(json!({"target": "far", "routine": "r", "step_query": "q", "result": "inline"})), []);
    assert_eq!(messages(json!({"target": "web", "result": "inline"})), []);
}

#[test]
fn what_was_configured_comes_back_and_the_options_are_kept_in_order() {
    let configuration = json!({"nodes": [{"node": "a", "target": "house", "query": "SELECT {x:Int32}",
        "result": {"to": "inline", "max_rows": 5}, "tier": "fast", "settings": {"max_threads": 2}, "parameters": {"x": "$y"}}]});
    let flow = defined(configuration.clone());
    assert_eq!(flow.configuration, configuration);
    assert_eq!(flow.nodes[0].options.keys().collect::<Vec<_>>(), ["parameters", "settings", "tier", "result"]);
    assert_eq!(flow.nodes[0].options["parameters"], json!({"x": "$y"}));
    // Added to: a key given replaces the whole of it.
    let more = json!({"nodes": [{"node": "a", "settings": {"max_memory_usage": 1}}]});
    let (merged, faults) = configure("f", &more, Some(&configuration), false, &mut Fake::default());
    assert_eq!(faults, []);
    let node = merged.unwrap().nodes.remove(0);
    assert_eq!(
        (&node.options["settings"], node.query.as_deref()),
        (&json!({"max_memory_usage": 1}), Some("SELECT {x:Int32}"))
    );
}

#[test]
fn options_of_a_task_outside_flows_are_checked_alike() {
    let house = Fake::default().target("house");
    let check = |options: Value| -> Vec<String> {
        let faults = options_faults(&house, options.as_object().unwrap(), &mut Fake::default());
        faults.into_iter().map(|fault| fault.path).collect()
    };
    assert_eq!(check(json!({"parameters": {"a": 1}, "result": "inline", "tier": null})), Vec::<String>::new());
    assert_eq!(
        check(json!({"parameter": {}, "settings": [], "result": {"to": "object"}})),
        [".parameter", ".settings", ".result", ".result"]
    );
    assert_eq!(check(json!({"settings": {"wrong": 1}})), [".settings.wrong"]);
}

#[test]
fn how_a_worker_of_this_database_commits_is_for_local_nodes() {
    let options = one(json!({"synchronous_commit": "off", "steps_per_transaction": 64})).options;
    assert_eq!(Value::Object(options), json!({"synchronous_commit": "off", "steps_per_transaction": 64}));
    assert_eq!(messages(json!({"synchronous_commit": "inherit", "steps_per_transaction": 1})), []);
    for (key, value) in [
        ("synchronous_commit", json!("on")),
        ("synchronous_commit", json!(false)),
        ("steps_per_transaction", json!(0)),
        ("steps_per_transaction", json!(65)),
        ("steps_per_transaction", json!("8")),
    ] {
        assert_eq!(fault(json!({key: value})).0, format!(".{key}"));
    }
    for target in ["far", "house", "web", "queue"] {
        for (key, value) in [("synchronous_commit", json!("off")), ("steps_per_transaction", json!(8))] {
            let found = messages(json!({"target": target, "node_query": "q", "steps": [], key: value}));
            let path = format!(".{key}");
            assert!(
                found.iter().any(|(at, what)| *at == path && what.contains("has no meaning")),
                "{target}: {found:?}"
            );
        }
    }
    assert_eq!(fault(json!({"steps_to_flow": "daily", "steps_per_transaction": 8})).0, ".steps_per_transaction");
    let outside = |options: Value| {
        let options = options.as_object().cloned().unwrap_or_default();
        options_faults(&TargetInfo::Local, &options, &mut Fake::default()).len()
    };
    assert_eq!(outside(json!({"synchronous_commit": "off"})), 0);
    assert_eq!(outside(json!({"steps_per_transaction": 8})), 1);
}
