//! C15, F25: the lower number runs first, equals have turns; a run's tasks can be given another one while they wait.

use anyhow::Result;

use crate::kit::{same, test, Kit};

/// A target that runs one task at a time, kept busy by the run of `blocker` until `release`.
fn block(kit: &mut Kit) -> Result<i64> {
    kit.session.run(r#"SELECT async.configure('{"targets": [{"target": "one", "max_concurrency": 1}]}')"#)?;
    kit.callback("blocks", "PERFORM pg_advisory_xact_lock(42);")?;
    kit.named_flow("blocker", r#"{"node": "blocker", "routine": "t.blocks", "target": "one"}"#)?;
    kit.session.run("SELECT pg_advisory_lock(42)")?;
    let flow_id = kit.session.number("SELECT flow.run_flow('blocker', '{}')")?;
    kit.wait_for_status(flow_id, "blocker", "Running")?;
    Ok(flow_id)
}

fn release(kit: &mut Kit, runs: &[i64]) -> Result<()> {
    kit.session.run("SELECT pg_advisory_unlock(42)")?;
    runs.iter().try_for_each(|flow_id| kit.wait(*flow_id))
}

#[test]
fn c15_the_lower_number_runs_first() {
    test("c15", |kit| {
        block(kit)?;
        kit.flow(
            r#"{"node": "a", "routine": "t.notes", "target": "one", "priority": 5},
               {"node": "b", "routine": "t.notes", "target": "one", "priority": -5},
               {"node": "c", "routine": "t.notes", "target": "one"},
               {"node": "d", "routine": "t.notes", "target": "one", "priority": 99},
               {"node": "e", "routine": "t.notes", "target": "one", "priority": -99}"#,
        )?;
        let flow_id = kit.run()?;
        release(kit, &[flow_id])?;
        same(kit.log()?, "e b c a d")
    });
}

#[test]
fn c15_a_runs_priority_overrides_its_nodes() {
    test("c15_force", |kit| {
        block(kit)?;
        for name in ["x", "y", "z"] {
            kit.named_flow(
                name,
                &format!(r#"{{"node": "{name}", "routine": "t.notes", "target": "one", "priority": 3}}"#),
            )?;
        }
        let x = kit.session.number("SELECT flow.run_flow('x', '{}')")?;
        let y = kit.session.number("SELECT flow.run_flow('y', '{}', _force_priority => -1)")?;
        let z = kit.session.number("SELECT flow.run_flow('z', '{}')")?;
        // Waiting ones at once.
        kit.session.run(&format!("SELECT flow.set_priority({z}, -2)"))?;
        release(kit, &[x, y, z])?;
        same(kit.log()?, "z y x")
    });
}

#[test]
fn c15_a_step_can_be_moved_up() {
    test("c15_step", |kit| {
        block(kit)?;
        kit.flow(
            r#"{"node": "a", "empty": true, "step_routine": "t.notes", "target": "one",
                "steps": [{"s": 1}, {"s": 2}, {"s": 3}]}"#,
        )?;
        let flow_id = kit.run()?;
        let task_id = kit.session.number("SELECT task_id FROM async.task WHERE task_data = '{\"s\": 3}'")?;
        kit.session.run(&format!("SELECT flow.set_step_priority({flow_id}, {task_id}, -1)"))?;
        release(kit, &[flow_id])?;
        same(kit.log()?, "a3 a1 a2")
    });
}

/// Workers that are kept full with short tasks must not keep an urgent one from ever getting one of them.
#[test]
fn c15_an_urgent_task_does_not_wait_for_a_long_queue() {
    test("c15_queue", |kit| {
        kit.callback(
            "many",
            "IF _args.step_arguments = '{}' THEN
               DECLARE _steps JSONB[] := ARRAY(SELECT jsonb_build_object('s', i) FROM generate_series(1, 8000) i);
               BEGIN CALL flow.push_steps(_args.flow_id, _args.node, _steps); END;
             ELSE PERFORM pg_sleep(0.001); END IF;",
        )?;
        kit.named_flow("long", r#"{"node": "many", "routine": "t.many", "priority": 5}"#)?;
        kit.flow(r#"{"node": "urgent", "routine": "t.nothing", "priority": -99}"#)?;
        let long = kit.session.number("SELECT flow.run_flow('long', '{}')")?;
        kit.wait_until("(SELECT count(*) FROM async.task WHERE is_step AND processed IS NOT NULL) > 500")?;
        kit.run_to_end()?;
        let open = kit.session.number("SELECT count(*) FROM async.task WHERE is_step AND processed IS NULL")?;
        anyhow::ensure!(open > 0, "the urgent task ran after all others");
        kit.wait(long)
    });
}

/// A flow whose one node has so many steps of a few milliseconds, at a priority; its run, under way.
fn long_run(kit: &mut Kit, steps: usize, priority: i32) -> Result<i64> {
    kit.callback(
        "slow_step",
        &format!(
            "IF _args.step_arguments = '{{}}' THEN
               DECLARE _steps JSONB[] := ARRAY(SELECT jsonb_build_object('s', i) FROM generate_series(1, {steps}) i);
               BEGIN CALL flow.push_steps(_args.flow_id, _args.node, _steps); END;
             ELSE PERFORM pg_sleep(0.004); END IF;"
        ),
    )?;
    kit.named_flow("long", &format!(r#"{{"node": "a", "routine": "t.slow_step", "priority": {priority}}}"#))?;
    let long = kit.session.number("SELECT flow.run_flow('long', '{}')")?;
    kit.wait_until(&format!("({ENDED}) > 200"))?;
    Ok(long)
}

const ENDED: &str = "SELECT count(*) FROM async.task WHERE is_step AND processed IS NOT NULL";

#[test]
fn f25_a_run_with_many_steps_does_not_delay_another() {
    test("f25", |kit| {
        kit.flow(r#"{"node": "small", "routine": "t.nothing"}"#)?;
        let long = long_run(kit, 20_000, 0)?;
        let mut waited = Vec::new();
        for _ in 0..5 {
            let before = kit.session.number(ENDED)?;
            kit.run_to_end()?;
            waited.push(kit.session.number(ENDED)? - before);
        }
        waited.sort_unstable();
        // Eight workers, the run's own round trips, and this test's.
        anyhow::ensure!(waited[2] < 400, "steps of the long run that went before: {waited:?}");
        kit.session.run(&format!("SELECT flow.cancel({long})"))
    });
}

#[test]
fn f25_a_role_without_a_worker_gets_one() {
    test("f25_roles", |kit| {
        kit.session.run(
            "CREATE ROLE f25_other LOGIN IN ROLE flow_user; GRANT USAGE ON SCHEMA t TO f25_other;
             GRANT EXECUTE ON ALL ROUTINES IN SCHEMA t TO f25_other",
        )?;
        let long = long_run(kit, 20_000, 0)?;
        let mut other = kit.database.connect_as("f25_other")?;
        other
            .run(r#"SELECT flow.configure_flow('theirs', '{"nodes": [{"node": "small", "routine": "t.nothing"}]}')"#)?;
        let before = kit.session.number(ENDED)?;
        let theirs = other.number("SELECT flow.run_flow('theirs', '{}')")?;
        kit.wait(theirs)?;
        let open = kit.session.number("SELECT count(*) FROM async.task WHERE is_step AND processed IS NULL")?;
        anyhow::ensure!(open > 10_000, "the other role waited until {before} + {} had run", 20_000 - open - before);
        kit.session.run(&format!("SELECT flow.cancel({long})"))
    });
}
