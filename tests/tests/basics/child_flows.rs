//! C10: steps that start runs of another flow.

use crate::kit::{contains, same, test, Clock, Kit};

const PARENT: &str = r#"{"node": "p", "routine": "t.nothing", "steps_to_flow": "child"}"#;

/// Configures `child` and `f`, whose node p starts a run of `child` for each step; pushes two.
fn start(kit: &mut Kit, child: &str) -> anyhow::Result<i64> {
    kit.named_flow("child", child)?;
    kit.flow(PARENT)?;
    kit.session.run("BEGIN")?;
    let flow_id = kit.run()?;
    kit.session.run(&format!(r#"CALL flow.push_steps({flow_id}, 'p', ARRAY['{{"s": 1}}', '{{"s": 2}}']::JSONB[])"#))?;
    kit.session.run("COMMIT")?;
    Ok(flow_id)
}

#[test]
fn c10_each_step_is_a_run_with_its_arguments() {
    test("c10", |kit| {
        kit.callback("child", "INSERT INTO t.log (what) VALUES (_args.flow || (_args.flow_arguments->>'s'));")?;
        let flow_id = start(kit, r#"{"node": "a", "routine": "t.child"}"#)?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "p Finished")?;
        same(kit.session.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")?, "child1 child2")?;
        let children =
            format!("SELECT count(*) FROM flow.flow WHERE parent_flow_id = {flow_id} AND processed IS NOT NULL");
        same(kit.session.number(&children)?, 2)
    });
}

#[test]
fn c10_a_failed_child_fails_its_step() {
    test("c10_failed", |kit| {
        let flow_id = start(kit, r#"{"node": "a", "routine": "t.fails"}"#)?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "p Failed")?;
        contains(&kit.error_of(flow_id, "p")?, "this one fails")
    });
}

#[test]
fn c10_a_cancelled_parent_cancels_its_children() {
    test("c10_cancelled", |kit| {
        let flow_id = start(kit, r#"{"node": "a", "routine": "t.sleeps"}"#)?;
        kit.wait_until("(SELECT count(*) FROM flow.v_flow_node_status WHERE node = 'a' AND status = 'Running') = 2")?;
        let clock = Clock::start();
        kit.session.run(&format!("SELECT flow.cancel({flow_id})"))?;
        kit.wait_until("(SELECT count(*) FROM flow.flow WHERE processed IS NULL) = 0")?;
        kit.wait_until("(SELECT count(*) FROM async.running()) = 0")?;
        clock.at_once()?;
        let words = kit
            .session
            .text("SELECT string_agg(node || ' ' || status, ', ' ORDER BY flow_id) FROM flow.v_flow_node_status")?;
        same(words, "p Cancelled, a Cancelled, a Cancelled")
    });
}

#[test]
fn e3_static_steps_may_start_flows() {
    test("e3", |kit| {
        kit.named_flow("child", r#"{"node": "a", "routine": "t.notes"}"#)?;
        kit.flow(r#"{"node": "p", "routine": "t.nothing", "steps_to_flow": "child"}"#)?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "p Finished")?;
        // "steps" together with "steps_to_flow" is refused in our configuration (B6).
        let error = kit.session.error(
            r#"SELECT flow.configure_flow('g', '{"nodes": [{"node": "p", "routine": "t.nothing", "steps_to_flow": "child",
               "steps": [{"s": 1}]}]}')"#,
        )?;
        contains(&error, "steps_to_flow")
    });
}

#[test]
fn c10_a_flow_that_starts_itself_is_stopped() {
    test("c10_depth", |kit| {
        kit.callback("own", r#"CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{"s": 1}']::JSONB[]);"#)?;
        kit.flow(r#"{"node": "p", "routine": "t.own", "steps_to_flow": "f"}"#)?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "p Failed")?;
        same(kit.session.number("SELECT max(depth) FROM flow.flow")?, 16)?;
        kit.wait_until("NOT EXISTS (SELECT FROM flow.flow WHERE processed IS NULL)")
    });
}

/// The dispatcher must never wait for a client's lock: nothing else would run meanwhile.
#[test]
fn a_client_that_has_a_step_locked_stops_only_that_step() {
    test("c10_locked", |kit| {
        kit.callback("gated", "PERFORM pg_advisory_xact_lock(7);")?;
        kit.session.run("SELECT pg_advisory_lock(7)")?;
        kit.named_flow("child", r#"{"node": "a", "routine": "t.gated"}"#)?;
        kit.named_flow("other", r#"{"node": "o", "routine": "t.nothing"}"#)?;
        kit.flow(PARENT)?;
        kit.session.run("BEGIN")?;
        let flow_id = kit.run()?;
        kit.session.run(&format!(r#"CALL flow.push_steps({flow_id}, 'p', ARRAY['{{"s": 1}}']::JSONB[]); COMMIT"#))?;
        kit.wait_until("EXISTS (SELECT FROM flow.v_flow_node_status WHERE node = 'a' AND status = 'Running')")?;
        let mut client = kit.database.connect()?;
        client.run("BEGIN; SELECT async.cancel(ARRAY[task_id]) FROM async.task WHERE is_step")?;
        kit.session.run("SELECT pg_advisory_unlock(7)")?;
        kit.wait_until("(SELECT count(*) FROM flow.flow WHERE flow = 'child' AND processed IS NOT NULL) = 1")?;
        let clock = Clock::start();
        let other = kit.session.number("SELECT flow.run_flow('other', '{}')")?;
        kit.wait(other)?;
        clock.at_once()?;
        client.run("ROLLBACK")?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "p Finished")
    });
}
