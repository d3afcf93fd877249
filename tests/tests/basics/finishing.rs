//! C11: asynchronous targets and `flow.finish`.

use anyhow::Result;

use crate::kit::{contains, same, test, Kit};

/// The arguments of a run's task, as `flow.finish` takes them.
fn arguments(kit: &mut Kit, flow_id: i64) -> Result<String> {
    kit.session.text(&format!(
        "SELECT format('ROW(%s, ''f'', ''{{}}'', %L, %L, %s)::flow.callback_arguments_t', flow_id, node, step_arguments, task_id)
         FROM flow.v_flow_task WHERE flow_id = {flow_id} ORDER BY task_id DESC LIMIT 1"
    ))
}

fn asynchronous(kit: &mut Kit) -> Result<()> {
    kit.session.run(r#"SELECT async.configure('{"targets": [{"target": "later", "asynchronous_finish": true}]}')"#)
}

#[test]
fn c11_an_asynchronous_task_waits_for_finish() {
    test("c11", |kit| {
        asynchronous(kit)?;
        kit.flow(
            r#"{"node": "a", "routine": "t.notes", "target": "later"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Running Async")?;
        same(kit.log()?, "a")?;
        let arguments = arguments(kit, flow_id)?;
        kit.session.run(&format!("CALL flow.finish({arguments})"))?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "a Finished, b Finished")?;
        kit.session.notices();
        kit.session.run(&format!("CALL flow.finish({arguments}, true, 'too late')"))?;
        contains(&kit.session.notices().join("\n"), "WARNING")?;
        same(kit.nodes(flow_id)?, "a Finished, b Finished")
    });
}

#[test]
fn c11_finish_may_say_failed() {
    test("c11_failed", |kit| {
        asynchronous(kit)?;
        kit.flow(r#"{"node": "a", "node_routine": "t.nothing", "step_routine": "t.notes", "target": "later"}"#)?;
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Running Async")?;
        let arguments = arguments(kit, flow_id)?;
        kit.session.run(&format!("CALL flow.finish({arguments}, true, 'it went wrong elsewhere')"))?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "a Failed")?;
        contains(&kit.error_of(flow_id, "a")?, "it went wrong elsewhere")
    });
}

#[test]
fn c11_e13_a_yielded_step_keeps_its_node_open() {
    test("c11_step", |kit| {
        asynchronous(kit)?;
        kit.callback(
            "own",
            r#"CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{"s": 1}']::JSONB[]); CALL flow.finish(_args);"#,
        )?;
        kit.flow(r#"{"node": "a", "node_routine": "t.own", "step_routine": "t.notes", "target": "later"}"#)?;
        let flow_id = kit.run()?;
        kit.wait_until("(SELECT count(*) FROM async.task WHERE is_step AND yielded IS NOT NULL) = 1")?;
        same(kit.nodes(flow_id)?, "a Running Steps")?;
        let arguments = arguments(kit, flow_id)?;
        kit.session.run(&format!("CALL flow.finish({arguments})"))?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "a Finished")
    });
}

#[test]
fn c11_a_synchronous_node_of_an_asynchronous_target_ends_with_its_call() {
    test("c11_synchronous", |kit| {
        asynchronous(kit)?;
        kit.flow(r#"{"node": "a", "routine": "t.notes", "target": "later", "synchronous": true}"#)?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Finished")
    });
}

#[test]
fn c11_a_callback_may_finish_itself() {
    test("c11_itself", |kit| {
        asynchronous(kit)?;
        kit.callback("finishes", "CALL flow.finish(_args); INSERT INTO t.log (what) VALUES (_args.node);")?;
        kit.callback(
            "fails_itself",
            "CALL flow.finish(_args, true, 'by itself'); INSERT INTO t.log (what) VALUES (_args.node);",
        )?;
        kit.callback("finishes_and_raises", "CALL flow.finish(_args); RAISE EXCEPTION 'after all';")?;
        kit.callback(
            "finishes_in_a_savepoint",
            "BEGIN CALL flow.finish(_args, true, 'undone'); RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception THEN NULL; END;",
        )?;
        kit.flow(
            r#"{"node": "a", "routine": "t.finishes"},
               {"node": "b", "routine": "t.fails_itself"},
               {"node": "c", "routine": "t.finishes_and_raises"},
               {"node": "d", "routine": "t.finishes", "target": "later"},
               {"node": "e", "routine": "t.fails_itself", "target": "later"},
               {"node": "f", "routine": "t.finishes_in_a_savepoint"}"#,
        )?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Finished, b Failed, c Failed, d Finished, e Failed, f Finished")?;
        contains(&kit.error_of(flow_id, "b")?, "by itself")?;
        contains(&kit.error_of(flow_id, "c")?, "after all")?;
        same(kit.session.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")?, "a b d e")
    });
}

#[test]
fn c11_the_cascade_waits_until_the_callback_has_returned() {
    test("c11_cascade", |kit| {
        kit.callback(
            "finishes_early",
            "CALL flow.finish(_args); COMMIT; PERFORM pg_sleep(0.3); INSERT INTO t.log (what) VALUES ('a');",
        )?;
        kit.flow(
            r#"{"node": "a", "routine": "t.finishes_early"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        kit.run_to_end()?;
        same(kit.session.text("SELECT string_agg(what, ' ' ORDER BY at) FROM t.log")?, "a b")
    });
}
