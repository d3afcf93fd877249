//! C12, C5, E5: time-outs end a running statement at once and nobody else waits for them.

use crate::kit::{contains, same, test, Clock};

#[test]
fn c12_e5_a_node_time_out_ends_a_running_statement() {
    test("c12", |kit| {
        kit.flow(
            r#"{"node": "a", "routine": "t.sleeps", "node_timeout": "300 ms"},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a", "continue_on_failure": true}]}"#,
        )?;
        kit.named_flow("other", r#"{"node": "o", "routine": "t.notes"}"#)?;
        let clock = Clock::start();
        let flow_id = kit.run()?;
        kit.wait_for_status(flow_id, "a", "Running")?;
        let other = kit.session.number("SELECT flow.run_flow('other', '{}')")?;
        kit.wait(other)?;
        kit.wait(flow_id)?;
        clock.at_once()?;
        same(kit.nodes(flow_id)?, "a Timed Out, b Finished")?;
        same(kit.session.text("SELECT finish_status FROM async.task ORDER BY task_id LIMIT 1")?, "TIMED_OUT")?;
        kit.wait_until("(SELECT count(*) FROM async.running()) = 0")?;
        clock.at_once()
    });
}

#[test]
fn c12_a_step_time_out_is_for_each_step() {
    test("c12_step", |kit| {
        kit.callback("step", "PERFORM pg_sleep((_args.step_arguments->>'s')::FLOAT);")?;
        kit.flow(
            r#"{"node": "a", "node_routine": "t.nothing", "step_routine": "t.step", "step_timeout": "500 ms",
                "all_steps_must_complete": false, "steps": [{"s": 0.01}, {"s": 0.02}, {"s": 60}]}"#,
        )?;
        let clock = Clock::start();
        let flow_id = kit.run_to_end()?;
        clock.at_once()?;
        same(kit.nodes(flow_id)?, "a Finished")?;
        same(kit.steps(flow_id)?, r#"{"s": 0.01} Finished, {"s": 0.02} Finished, {"s": 60} Timed Out"#)
    });
}

#[test]
fn c12_c5_a_node_time_out_covers_its_steps() {
    test("c12_steps", |kit| {
        kit.flow(
            r#"{"node": "a", "node_routine": "t.nothing", "step_routine": "t.sleeps", "node_timeout": "500 ms",
                "steps": [{"s": 1}, {"s": 2}]}"#,
        )?;
        let clock = Clock::start();
        let flow_id = kit.run_to_end()?;
        kit.wait_until("(SELECT count(*) FROM async.running()) = 0")?;
        clock.at_once()?;
        same(kit.nodes(flow_id)?, "a Timed Out")?;
        same(kit.session.number("SELECT count(*) FROM async.task WHERE processed IS NULL")?, 0)
    });
}

#[test]
fn c12_then_the_targets_default_then_the_controls() {
    test("c12_defaults", |kit| {
        kit.session.run(
            r#"SELECT async.configure('{"control": {"default_timeout": "400 ms"},
                 "targets": [{"target": "patient", "default_timeout": "1 hour"}]}')"#,
        )?;
        kit.callback("short", "PERFORM pg_sleep(1); INSERT INTO t.log (what) VALUES (_args.node);")?;
        kit.flow(
            r#"{"node": "a", "routine": "t.short"},
               {"node": "b", "routine": "t.short", "target": "patient"},
               {"node": "c", "routine": "t.short", "node_timeout": "1 hour"}"#,
        )?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Timed Out, b Finished, c Finished")
    });
}

#[test]
fn c12_a_callback_that_traps_the_cancel_leaves_nothing() {
    test("c12_trap", |kit| {
        kit.callback(
            "traps",
            "BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
             INSERT INTO t.log (what) VALUES ('trapped');",
        )?;
        kit.callback(
            "traps_and_commits",
            "BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END;
             INSERT INTO t.log (what) VALUES ('trapped');
             COMMIT;",
        )?;
        kit.flow(
            r#"{"node": "a", "routine": "t.traps", "node_timeout": "300 ms"},
               {"node": "b", "routine": "t.traps_and_commits", "node_timeout": "300 ms"}"#,
        )?;
        let flow_id = kit.run_to_end()?;
        kit.wait_until("(SELECT count(*) FROM async.running()) = 0")?;
        same(kit.nodes(flow_id)?, "a Timed Out, b Timed Out")?;
        same(kit.log()?, "")
    });
}

#[test]
fn c12_a_waiting_asynchronous_task_times_out() {
    test("c12_async", |kit| {
        kit.session
            .run(r#"SELECT async.configure('{"targets": [{"target": "later", "asynchronous_finish": true}]}')"#)?;
        kit.flow(r#"{"node": "a", "routine": "t.nothing", "target": "later", "node_timeout": "400 ms"}"#)?;
        let clock = Clock::start();
        let flow_id = kit.run_to_end()?;
        clock.at_once()?;
        same(kit.nodes(flow_id)?, "a Timed Out")?;
        contains(&kit.session.text("SELECT finish_status FROM async.task")?, "TIMED_OUT")
    });
}
