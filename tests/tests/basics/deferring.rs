//! C13 and what C12 says of deferred tasks.

use anyhow::ensure;

use crate::kit::{same, test, Clock};

#[test]
fn c13_a_deferred_task_runs_again_with_its_arguments() {
    test("c13", |kit| {
        kit.callback(
            "again",
            "INSERT INTO t.log (what) VALUES (_args.node || coalesce(_args.step_arguments->>'s', ''));
             IF (SELECT count(*) FROM t.log WHERE what = 'a1') < 3 THEN CALL flow.defer(_args, '300 ms'); END IF;",
        )?;
        kit.flow(r#"{"node": "a", "node_routine": "t.nothing", "step_routine": "t.again", "steps": [{"s": 1}]}"#)?;
        let flow_id = kit.run()?;
        kit.wait_until(&format!(
            "EXISTS (SELECT FROM flow.v_flow_task_status WHERE flow_id = {flow_id} AND status = 'Deferred')"
        ))?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "a Finished")?;
        same(kit.log()?, "a1 a1 a1")?;
        let waits =
            "SELECT bool_and(gap >= '300 ms') FROM (SELECT at - lag(at) OVER (ORDER BY id) AS gap FROM t.log) g";
        ensure!(kit.session.truth(waits)?, "it ran too early");
        same(kit.session.number("SELECT attempt FROM async.task WHERE is_step")?, 3)
    });
}

#[test]
fn c13_a_deferred_node_shows_deferred_and_holds_its_children_back() {
    test("c13_node", |kit| {
        kit.callback(
            "again",
            "IF NOT EXISTS (SELECT FROM t.log) THEN
               INSERT INTO t.log (what) VALUES ('first'); CALL flow.defer(_args, '500 ms');
             ELSE INSERT INTO t.log (what) VALUES ('second'); END IF;",
        )?;
        kit.flow(
            r#"{"node": "a", "routine": "t.again"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Deferred")?;
        kit.wait(flow_id)?;
        same(kit.log()?, "first second b")
    });
}

#[test]
fn c13_a_callback_that_defers_and_raises_fails() {
    test("c13_raises", |kit| {
        kit.callback("both", "CALL flow.defer(_args, '100 ms'); RAISE EXCEPTION 'after all';")?;
        kit.flow(r#"{"node": "a", "routine": "t.both"}"#)?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Failed")
    });
}

#[test]
fn c12_the_clock_of_a_deferred_task_goes_on() {
    test("c12_defer", |kit| {
        kit.callback("ever", "CALL flow.defer(_args, '50 ms');")?;
        kit.flow(r#"{"node": "a", "routine": "t.ever", "node_timeout": "600 ms"}"#)?;
        let clock = Clock::start();
        let flow_id = kit.run_to_end()?;
        clock.at_once()?;
        same(kit.nodes(flow_id)?, "a Timed Out")
    });
}
