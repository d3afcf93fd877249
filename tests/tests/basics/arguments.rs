//! C20: what a callback is called with.

use crate::kit::{same, test};

#[test]
fn c20_a_callback_gets_what_is_documented() {
    test("c20", |kit| {
        kit.callback("shows", "INSERT INTO t.log (what) VALUES (to_jsonb(_args)::TEXT);")?;
        kit.flow(
            r#"{"node": "a", "routine": "t.shows"},
               {"node": "b", "node_routine": "t.nothing", "step_routine": "t.shows", "steps": [{"n": 1.50, "t": "é\"''"}],
                "dependencies": [{"parent": "a"}]}"#,
        )?;
        let flow_id = kit.session.number(r#"SELECT flow.run_flow('f', '{"x": [1, null, {"y": "z"}]}')"#)?;
        kit.wait(flow_id)?;
        let shown = kit.session.column("SELECT (what::JSONB - 'task_id')::TEXT FROM t.log ORDER BY id")?;
        let of = |node: &str, step: &str| {
            format!(
                r#"{{"flow": "f", "node": "{node}", "flow_id": {flow_id}, "flow_arguments": {{"x": [1, null, {{"y": "z"}}]}}, "step_arguments": {step}}}"#
            )
        };
        same(shown, vec![of("a", "{}"), of("b", r#"{"n": 1.50, "t": "é\"'"}"#)])?;
        let ids = "SELECT count(*) FROM t.log JOIN async.task ON task_id = (what::JSONB->>'task_id')::BIGINT";
        same(kit.session.number(ids)?, 2)?;
        same(kit.session.text(&format!("SELECT flow.args({flow_id})"))?, r#"{"x": [1, null, {"y": "z"}]}"#)
    });
}

#[test]
fn c20_null_arguments_become_an_empty_object() {
    test("c20_null", |kit| {
        kit.callback("shows", "INSERT INTO t.log (what) VALUES (_args.flow_arguments::TEXT);")?;
        kit.flow(r#"{"node": "a", "routine": "t.shows"}"#)?;
        let flow_id = kit.session.number("SELECT flow.run_flow('f', NULL)")?;
        kit.wait(flow_id)?;
        same(kit.log()?, "{}")
    });
}
