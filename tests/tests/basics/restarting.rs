//! C17, E9: running an ended run again.

use anyhow::Result;

use crate::kit::{contains, same, test, Kit};

const CHAIN: &str = r#"{"node": "a", "routine": "t.notes"},
    {"node": "b", "routine": "t.picky", "dependencies": [{"parent": "a"}]},
    {"node": "c", "routine": "t.notes", "dependencies": [{"parent": "b"}]},
    {"node": "d", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#;

/// The node b fails as long as the table `t.broken` is there.
fn chain(kit: &mut Kit) -> Result<i64> {
    kit.callback(
        "picky",
        "IF to_regclass('t.broken') IS NOT NULL THEN RAISE EXCEPTION 'broken'; END IF;
         INSERT INTO t.log (what) VALUES (_args.node);",
    )?;
    kit.flow(CHAIN)?;
    kit.session.run("CREATE TABLE t.broken ()")?;
    let flow_id = kit.run_to_end()?;
    same(kit.nodes(flow_id)?, "a Finished, b Failed, c Skipped, d Finished")?;
    kit.session.run("DROP TABLE t.broken; TRUNCATE t.log")?;
    Ok(flow_id)
}

fn sorted_log(kit: &mut Kit) -> Result<String> {
    kit.session.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")
}

#[test]
fn c17_e9_a_whole_run_again() {
    test("c17", |kit| {
        let flow_id = chain(kit)?;
        kit.session.run(&format!("SELECT flow.restart_flow({flow_id})"))?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "a Finished, b Finished, c Finished, d Finished")?;
        same(sorted_log(kit)?, "a b c d")?;
        let counters =
            "SELECT count_nodes || ' ' || count_finished_nodes || ' ' || count_failed_nodes FROM flow.v_flow_status";
        same(kit.session.text(counters)?, "4 4 0")?;
        same(kit.session.text("SELECT coalesce(first_error, 'none') FROM flow.flow")?, "none")
    });
}

#[test]
fn c17_from_a_node_on() {
    test("c17_node", |kit| {
        let flow_id = chain(kit)?;
        kit.session.run(&format!("SELECT flow.restart_flow({flow_id}, 'b')"))?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "a Finished, b Finished, c Finished, d Finished")?;
        same(sorted_log(kit)?, "b c")?;
        contains(&kit.session.error(&format!("SELECT flow.restart_flow({flow_id}, 'nobody')"))?, "nobody")
    });
}

#[test]
fn c17_what_failed_and_what_depends_on_it() {
    test("c17_retry", |kit| {
        let flow_id = chain(kit)?;
        kit.session.run(&format!("SELECT flow.retry_failed({flow_id})"))?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "a Finished, b Finished, c Finished, d Finished")?;
        same(sorted_log(kit)?, "b c")?;
        // Nothing has failed: nothing happens.
        kit.session.run(&format!("SELECT flow.retry_failed({flow_id})"))?;
        same(sorted_log(kit)?, "b c")
    });
}

#[test]
fn c17_retry_runs_only_the_steps_that_failed() {
    test("c17_steps", |kit| {
        kit.callback(
            "step",
            "IF to_regclass('t.broken') IS NOT NULL AND _args.step_arguments->>'s' = '2' THEN RAISE EXCEPTION 'broken'; END IF;
             INSERT INTO t.log (what) VALUES (_args.step_arguments->>'s');",
        )?;
        kit.session.run(r#"SELECT async.configure('{"targets": [{"target": "one", "max_concurrency": 1}]}')"#)?;
        kit.flow(
            r#"{"node": "a", "node_routine": "t.notes", "step_routine": "t.step", "target": "one",
                "steps": [{"s": 1}, {"s": 2}, {"s": 3}]}"#,
        )?;
        kit.session.run("CREATE TABLE t.broken ()")?;
        let flow_id = kit.run_to_end()?;
        same((kit.nodes(flow_id)?.as_str(), kit.log()?.as_str()), ("a Failed", "a 1"))?;
        kit.session.run("DROP TABLE t.broken")?;
        kit.session.run(&format!("SELECT flow.retry_failed({flow_id})"))?;
        kit.wait(flow_id)?;
        same((kit.nodes(flow_id)?.as_str(), kit.log()?.as_str()), ("a Finished", "a 1 2 3"))
    });
}

#[test]
fn c17_an_open_run_cannot_be_restarted() {
    test("c17_open", |kit| {
        kit.flow(r#"{"node": "a", "routine": "t.sleeps"}"#)?;
        let flow_id = kit.run()?;
        for call in ["restart_flow", "retry_failed"] {
            contains(&kit.session.error(&format!("SELECT flow.{call}({flow_id})"))?, "open")?;
        }
        kit.session.run(&format!("SELECT flow.cancel({flow_id})"))
    });
}

#[test]
fn c17_a_cancelled_run_can_run_again() {
    test("c17_cancelled", |kit| {
        kit.callback(
            "once_slow",
            "IF to_regclass('t.slow') IS NOT NULL THEN PERFORM pg_sleep(60); END IF; INSERT INTO t.log (what) VALUES ('ran');",
        )?;
        kit.flow(r#"{"node": "a", "routine": "t.once_slow"}"#)?;
        kit.session.run("CREATE TABLE t.slow ()")?;
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Running")?;
        kit.session.run(&format!("SELECT flow.cancel({flow_id})"))?;
        kit.session.run("DROP TABLE t.slow")?;
        // At once: the worker may be at the cancelled attempt still.
        kit.session.run(&format!("SELECT flow.restart_flow({flow_id})"))?;
        kit.wait(flow_id)?;
        same((kit.nodes(flow_id)?.as_str(), kit.log()?.as_str()), ("a Finished", "ran"))
    });
}
