//! C2 to C5, C8, C9: how a run goes through its graph.

use crate::kit::{contains, same, test, Clock};

#[test]
fn c2_the_own_task_runs_first_then_the_steps() {
    test("c2", |kit| {
        kit.callback(
            "own",
            r#"CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{"s": 2}']::JSONB[]);
               PERFORM pg_sleep(0.1);
               INSERT INTO t.log (what) VALUES ('own');"#,
        )?;
        kit.callback(
            "step",
            r#"INSERT INTO t.log (what) VALUES (_args.step_arguments->>'s');
               PERFORM pg_advisory_xact_lock(42);"#,
        )?;
        kit.flow(
            r#"{"node": "a", "node_routine": "t.own", "step_routine": "t.step", "steps": [{"s": 1}]},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        kit.session.run("SELECT pg_advisory_lock(42)")?;
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Running Steps")?;
        same(kit.nodes(flow_id)?, "a Running Steps, b Pending")?;
        kit.session.run("SELECT pg_advisory_unlock(42)")?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "a Finished, b Finished")?;
        let log = kit.session.column("SELECT what FROM t.log ORDER BY at")?;
        same((log.first().map(String::as_str), log.last().map(String::as_str)), (Some("own"), Some("b")))?;
        same(log.len(), 4)
    });
}

#[test]
fn c3_what_a_failure_keeps_from_running_is_skipped_and_says_why() {
    test("c3", |kit| {
        kit.flow(
            r#"{"node": "a", "routine": "t.fails"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]},
               {"node": "c", "routine": "t.notes", "dependencies": [{"parent": "b", "continue_on_failure": true}]}"#,
        )?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Failed, b Skipped, c Finished")?;
        same(kit.log()?, "c")?;
        contains(&kit.error_of(flow_id, "a")?, "this one fails")?;
        contains(&kit.error_of(flow_id, "b")?, "a")?;
        let status =
            "SELECT complete || ' ' || count_finished_nodes || ' ' || count_failed_nodes FROM flow.v_flow_status";
        same(kit.session.text(status)?, "Yes 1 2")
    });
}

#[test]
fn c4_a_step_that_fails_stops_the_others_and_fails_its_node() {
    test("c4", |kit| {
        kit.callback(
            "step",
            "IF _args.step_arguments->>'s' = 'bad' THEN PERFORM pg_sleep(0.2); RAISE EXCEPTION 'bad step'; END IF;
             PERFORM pg_sleep(60);",
        )?;
        kit.flow(
            r#"{"node": "a", "node_routine": "t.nothing", "step_routine": "t.step",
                "steps": [{"s": 1}, {"s": 2}, {"s": 3}, {"s": 4}, {"s": 5}, {"s": "bad"}]}"#,
        )?;
        let clock = Clock::start();
        let flow_id = kit.run_to_end()?;
        clock.at_once()?;
        same(kit.nodes(flow_id)?, "a Failed")?;
        contains(&kit.error_of(flow_id, "a")?, r#"{"s": "bad"}"#)?;
        let steps = kit.steps(flow_id)?;
        contains(&steps, r#"{"s": "bad"} Failed"#)?;
        same(steps.matches("Cancelled").count(), 5)
    });
}

#[test]
fn c4_without_all_steps_must_complete_the_node_finishes() {
    test("c4_lenient", |kit| {
        kit.flow(
            r#"{"node": "a", "node_routine": "t.nothing", "step_routine": "t.fails", "steps": [{"s": 1}, {"s": 2}],
                "all_steps_must_complete": false}"#,
        )?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Finished")?;
        same(kit.steps(flow_id)?, r#"{"s": 1} Failed, {"s": 2} Failed"#)
    });
}

#[test]
fn c8_an_empty_node_ends_with_its_parents_or_with_its_steps() {
    test("c8", |kit| {
        kit.flow(
            r#"{"node": "start", "empty": true},
               {"node": "a", "routine": "t.notes", "dependencies": [{"parent": "start"}]},
               {"node": "gate", "empty": true, "dependencies": [{"parent": "a"}]},
               {"node": "stepping", "empty": true, "step_routine": "t.notes", "steps": [{"s": 1}, {"s": 2}],
                "dependencies": [{"parent": "gate"}]},
               {"node": "z", "routine": "t.notes", "dependencies": [{"parent": "stepping"}]}"#,
        )?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Finished, gate Finished, start Finished, stepping Finished, z Finished")?;
        same(kit.session.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")?, "a stepping1 stepping2 z")?;
        same(kit.session.text("SELECT what FROM t.log ORDER BY at DESC LIMIT 1")?, "z")?;
        kit.flow(r#"{"node": "a", "empty": true}, {"node": "b", "empty": true, "dependencies": [{"parent": "a"}]}"#)?;
        let flow_id = kit.run()?;
        // Nothing to do: decided in run_flow's own transaction.
        same(kit.nodes(flow_id)?, "a Finished, b Finished")
    });
}

#[test]
fn c9_only_these_nodes_run() {
    test("c9", |kit| {
        kit.flow(
            r#"{"node": "a", "routine": "t.notes"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]},
               {"node": "c", "routine": "t.notes", "dependencies": [{"parent": "b"}]},
               {"node": "d", "routine": "t.notes", "dependencies": [{"parent": "c"}]}"#,
        )?;
        for (arguments, wanted) in [
            ("ARRAY['c']", "c"),
            ("ARRAY['b', 'd']", "b d"),
            ("ARRAY['c'], true", "a b c"),
            ("ARRAY['c'], false, true", "c d"),
            ("ARRAY['c'], true, true", "a b c d"),
        ] {
            kit.session.run("TRUNCATE t.log")?;
            let flow_id = kit.session.number(&format!("SELECT flow.run_flow('f', '{{}}', {arguments})"))?;
            kit.wait(flow_id)?;
            same(kit.log()?, wanted)?;
            same(kit.nodes(flow_id)?, "a Finished, b Finished, c Finished, d Finished")?;
        }
        contains(&kit.session.error("SELECT flow.run_flow('f', '{}', ARRAY['c', 'cc'])")?, r#""cc""#)
    });
}
