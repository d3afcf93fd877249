//! C6 and C7: which steps a node has, and when they may be pushed.

use crate::kit::{contains, same, test};

#[test]
fn c6_e13_the_same_step_again_is_a_no_op() {
    test("c6", |kit| {
        kit.callback(
            "own",
            r#"CALL flow.push_steps(_args.flow_id, _args.node,
                 ARRAY['{"s": 1}', '{"s": 1}', '{"s": 2, "t": 3}', '{"t": 3,   "s": 2}']::JSONB[]);
               CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{"s": 1}', '{"s": 9}']::JSONB[]);
               COMMIT;
               CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{"s": 9}']::JSONB[]);"#,
        )?;
        kit.flow(
            r#"{"node": "a", "node_routine": "t.own", "step_routine": "t.notes", "steps": [{"s": 1}, {"s": 5}]}"#,
        )?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Finished")?;
        same(kit.session.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")?, "a1 a2 a5 a9")
    });
}

#[test]
fn c6_a_step_without_arguments_is_refused() {
    test("c6_refused", |kit| {
        kit.flow(r#"{"node": "a", "node_routine": "t.sleeps", "step_routine": "t.notes"}"#)?;
        let flow_id = kit.run()?;
        for bad in ["'{}'", "NULL", "'[1]'", "'\"text\"'", "'null'"] {
            let push = format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": 1}}', {bad}]::JSONB[])");
            contains(&kit.session.error(&push)?, "element 2")?;
        }
        same(kit.steps(flow_id)?, "")?;
        contains(
            &kit.session.error(&format!("CALL flow.push_steps({flow_id}, 'b', ARRAY['{{\"s\": 1}}']::JSONB[])"))?,
            "\"b\"",
        )?;
        contains(&kit.session.error("CALL flow.push_steps(999999, 'a', ARRAY['{\"s\": 1}']::JSONB[])")?, "999999")?;
        kit.session.run(&format!("SELECT flow.cancel({flow_id})"))
    });
}

#[test]
fn c6_large_arguments_are_no_problem() {
    test("c6_large", |kit| {
        kit.callback(
            "own",
            "CALL flow.push_steps(_args.flow_id, _args.node, ARRAY[jsonb_build_object('s', 1, 'text', repeat('x', 100000))]);",
        )?;
        kit.flow(r#"{"node": "a", "node_routine": "t.own", "step_routine": "t.notes"}"#)?;
        kit.run_to_end()?;
        same(kit.log()?, "a1")
    });
}

#[test]
fn c7_e1_steps_may_end_before_the_own_task_does() {
    test("e1", |kit| {
        kit.callback(
            "own",
            r#"CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{"s": 1}', '{"s": 2}']::JSONB[]);
               COMMIT;
               FOR i IN 1..1000 LOOP
                 EXIT WHEN (SELECT count(*) FROM t.log) = 2;
                 PERFORM pg_sleep(0.01);
                 COMMIT;
               END LOOP;
               PERFORM pg_sleep(0.2);
               INSERT INTO t.log (what) VALUES ('own');"#,
        )?;
        kit.flow(
            r#"{"node": "a", "node_routine": "t.own", "step_routine": "t.notes"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Finished, b Finished")?;
        same(
            kit.session.text("SELECT string_agg(what, ' ' ORDER BY at) FROM t.log WHERE what NOT LIKE 'a_'")?,
            "own b",
        )?;
        same(kit.session.number("SELECT count(*) FROM t.log WHERE what LIKE 'a_'")?, 2)
    });
}

#[test]
fn c7_e2_steps_pushed_to_a_node_that_waits_are_kept_for_it() {
    test("e2", |kit| {
        kit.callback("waits", "PERFORM pg_advisory_xact_lock(42); INSERT INTO t.log (what) VALUES (_args.node);")?;
        kit.flow(
            r#"{"node": "a", "routine": "t.waits"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]},
               {"node": "c", "empty": true, "step_routine": "t.notes", "dependencies": [{"parent": "b"}]}"#,
        )?;
        kit.session.run("SELECT pg_advisory_lock(42)")?;
        let flow_id = kit.run()?;
        kit.session.run(&format!(r#"CALL flow.push_steps({flow_id}, 'b', ARRAY['{{"s": 1}}']::JSONB[])"#))?;
        kit.session.run(&format!(r#"CALL flow.push_steps({flow_id}, 'c', ARRAY['{{"s": 1}}']::JSONB[])"#))?;
        std::thread::sleep(std::time::Duration::from_millis(100));
        same(kit.log()?, "")?;
        kit.session.run("SELECT pg_advisory_unlock(42)")?;
        kit.wait(flow_id)?;
        same(kit.nodes(flow_id)?, "a Finished, b Finished, c Finished")?;
        same(kit.session.text("SELECT string_agg(what, ' ' ORDER BY at) FROM t.log")?, "a b b1 c1")
    });
}

#[test]
fn c7_any_session_may_push_while_the_node_is_open() {
    test("c7", |kit| {
        kit.callback(
            "step",
            "INSERT INTO t.log (what) VALUES (_args.step_arguments->>'s'); PERFORM pg_advisory_xact_lock(42);",
        )?;
        kit.flow(r#"{"node": "a", "node_routine": "t.nothing", "step_routine": "t.step", "steps": [{"s": 1}]}"#)?;
        kit.session.run("SELECT pg_advisory_lock(42)")?;
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Running Steps")?;
        kit.session.run(&format!("CALL flow.push_steps({flow_id}, 'a', ARRAY[]::JSONB[])"))?;
        // The push is under way when the last step ends: the node must not finish before it.
        kit.session.run(&format!(r#"BEGIN; CALL flow.push_steps({flow_id}, 'a', ARRAY['{{"s": 2}}']::JSONB[])"#))?;
        kit.session.run("SELECT pg_advisory_unlock(42)")?;
        kit.wait_until("EXISTS (SELECT FROM t.log WHERE what = '1')")?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        kit.session.run("COMMIT")?;
        kit.wait(flow_id)?;
        same(kit.steps(flow_id)?, r#"{"s": 1} Finished, {"s": 2} Finished"#)?;
        let push = format!(r#"CALL flow.push_steps({flow_id}, 'a', ARRAY['{{"s": 3}}']::JSONB[])"#);
        contains(&kit.session.error(&push)?, "has ended")
    });
}

#[test]
fn c7_a_push_that_is_rolled_back_lets_the_node_finish() {
    test("c7_rollback", |kit| {
        kit.callback("step", "PERFORM pg_advisory_xact_lock(42);")?;
        kit.flow(r#"{"node": "a", "node_routine": "t.nothing", "step_routine": "t.step", "steps": [{"s": 1}]}"#)?;
        kit.session.run("SELECT pg_advisory_lock(42)")?;
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Running Steps")?;
        kit.session.run(&format!(r#"BEGIN; CALL flow.push_steps({flow_id}, 'a', ARRAY['{{"s": 2}}']::JSONB[])"#))?;
        kit.session.run("SELECT pg_advisory_unlock(42)")?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        kit.session.run("ROLLBACK")?;
        kit.wait(flow_id)?;
        same(kit.steps(flow_id)?, r#"{"s": 1} Finished"#)
    });
}
