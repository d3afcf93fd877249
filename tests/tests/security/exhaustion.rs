//! One role must not take what is for all: what an administrator can limit, and what nobody can hold up from outside.

use std::time::Instant;

use anyhow::{ensure, Result};

use crate::kit::*;

#[test]
fn limits_of_a_role_hold_and_name_themselves() {
    attack("limited", |place| {
        configure(&mut place.victim, "f", r#"{"node": "a", "routine": "t.nothing"}"#)?;
        place.admin.run("SELECT async.pause(); SELECT async.limit_role('limited_attacker',
            '{\"max_open_runs\": 3, \"max_tasks_per_push\": 5, \"max_argument_bytes\": 200, \"max_definition_bytes\": 300}')")?;
        let mut flow_id = 0;
        for _ in 0..3 {
            flow_id = run(&mut place.attacker, "f")?;
        }
        refused(&mut place.attacker, "SELECT flow.run_flow('f', '{}')", "may have 3 open runs")?;
        refused(&mut place.attacker, "SELECT flow.create_flow('f', '{}')", "ERROR 53400")?;
        let push = |count: usize, bytes: usize| {
            format!("SELECT flow.push_steps_now({flow_id}, 'a', ARRAY(SELECT jsonb_build_object('i', i, 'x', repeat('x', {bytes})) FROM generate_series(1, {count}) i))")
        };
        place.attacker.run(&push(5, 1))?;
        refused(&mut place.attacker, &push(6, 1), "5 tasks of one push, not 6")?;
        refused(&mut place.attacker, &push(2, 300), "200 bytes of arguments")?;
        let tasks = |count: usize, query: &str| {
            format!("SELECT async.push_tasks(ARRAY(SELECT async.task({query}) FROM generate_series(1, {count})))")
        };
        place.attacker.run(&tasks(5, "'SELECT 1'"))?;
        refused(&mut place.attacker, &tasks(6, "'SELECT 1'"), "ERROR 53400")?;
        refused(&mut place.attacker, &tasks(1, "'SELECT ' || repeat('1', 300)"), "200 bytes of arguments")?;
        refused(&mut place.attacker, "SELECT async.push_query('local', 'SELECT ' || repeat('1', 300))", "ERROR 53400")?;
        let large = "SELECT flow.configure_flow('g', jsonb_build_object('description', repeat('x', 400), 'nodes', '[{\"node\": \"a\", \"routine\": \"t.nothing\"}]'::JSONB))";
        refused(&mut place.attacker, large, "300 bytes of one configuration")?;
        refused(&mut place.attacker, &large.replace("configure_flow('g', ", "validate("), "ERROR 53400")?;
        // Nobody else is limited, and whoever is cannot lift it.
        for _ in 0..5 {
            run(&mut place.victim, "f")?;
        }
        refused(&mut place.attacker, "SELECT async.limit_role('limited_attacker', NULL)", "ERROR 42501")?;
        refused(&mut place.attacker, "SELECT * FROM async.role_limit", "ERROR 42501")?;
        // A run that ends makes room; "public" is for those without limits of their own, but not for admins.
        place.attacker.run(&format!("SELECT flow.cancel({flow_id})"))?;
        run(&mut place.attacker, "f")?;
        place.admin.run("SELECT async.limit_role('public', '{\"max_open_runs\": 1}')")?;
        refused(&mut place.victim, "SELECT flow.run_flow('f', '{}')", "may have 1 open runs")?;
        run(&mut place.admin, "f")?;
        place.admin.run("SELECT async.limit_role('public', NULL), async.limit_role('limited_attacker', '{}')")?;
        same(place.admin.number("SELECT count(*) FROM async.role_limit")?, 0)?;
        run(&mut place.attacker, "f")?;
        refused(&mut place.admin, "SELECT async.limit_role('nobody_at_all', '{}')", "does not exist")?;
        refused(
            &mut place.admin,
            "SELECT async.limit_role('public', '{\"max_runs\": 1}')",
            "\"max_runs\" is no limit",
        )?;
        refused(&mut place.admin, "SELECT async.limit_role('public', '{\"max_open_runs\": -1}')", "max_open_runs")?;
        place.admin.run("SELECT async.resume()")
    });
}

/// Two sessions that start runs at once do not count past each other; no other role waits for them.
#[test]
fn several_sessions_do_not_pass_a_limit_together() {
    attack("together", |place| {
        configure(&mut place.victim, "f", r#"{"node": "a", "routine": "t.nothing"}"#)?;
        place
            .admin
            .run("SELECT async.pause(); SELECT async.limit_role('together_attacker', '{\"max_open_runs\": 1}')")?;
        place.attacker.run("BEGIN")?;
        run(&mut place.attacker, "f")?;
        let mut second = place.database.connect_as("together_attacker")?;
        second.run("SET lock_timeout = '500ms'")?;
        refused(&mut second, "SELECT flow.run_flow('f', '{}')", "ERROR 55P03")?;
        run(&mut place.victim, "f")?;
        place.attacker.run("COMMIT")?;
        refused(&mut second, "SELECT flow.run_flow('f', '{}')", "ERROR 53400")?;
        place.admin.run("SELECT async.resume()")
    });
}

/// The count reads no more rows than the limit, whoever has how many.
#[test]
fn counting_the_open_runs_of_a_role_reads_only_its_own() {
    attack("counting", |place| {
        configure(&mut place.victim, "f", r#"{"node": "a", "routine": "t.nothing"}"#)?;
        place.admin.run("SELECT async.pause(); SET ROLE counting_victim")?;
        place.admin.run("SELECT flow.run_flow('f', '{}') FROM generate_series(1, 3000)")?;
        place.admin.run("RESET ROLE; ANALYZE flow.flow")?;
        // As async.require_another_run writes it.
        let open = "CASE WHEN f.processed IS NULL THEN true END";
        contains(&place.admin.text("SELECT prosrc FROM pg_proc WHERE proname = 'require_another_run'")?, open)?;
        let counted = format!("SELECT FROM flow.flow f WHERE f.run_as = 'counting_attacker' AND {open} LIMIT 10");
        let plan = place.admin.column(&format!("EXPLAIN (COSTS OFF) {counted}"))?.join("\n");
        contains(&plan, "flow_open_of_role")?;
        place.admin.run("SELECT async.limit_role('counting_attacker', '{\"max_open_runs\": 100}')")?;
        place.attacker.run("SELECT flow.run_flow('f', '{}') FROM generate_series(1, 50)")?;
        for (what, session) in [("limited", &mut place.attacker), ("unlimited", &mut place.victim)] {
            let begun = Instant::now();
            session.run("BEGIN; SELECT flow.run_flow('f', '{}') FROM generate_series(1, 40); ROLLBACK")?;
            println!("{what}: {:.1?} for 40 runs", begun.elapsed());
        }
        place.admin.run("SELECT async.resume()")
    });
}

/// Locks of pg_advisory_lock are everybody's: none of them is in the way of ours.
#[test]
fn advisory_locks_of_others_hold_nobody_up() {
    attack("advisory", |place| -> Result<()> {
        place.attacker.run(
            "SELECT pg_advisory_lock(hashtext('flow.configured'), hashtext('new_flow'));
             SELECT pg_advisory_lock(hashtextextended('pgflow result own.rows', 0));
             SELECT pg_advisory_lock(hashtext('async.role_limit'), r.oid::INT) FROM pg_roles r WHERE rolname = 'advisory_victim'",
        )?;
        place.victim.run("SET lock_timeout = '5s'; CREATE SCHEMA own")?;
        configure(
            &mut place.victim,
            "new_flow",
            r#"{"node": "a", "query": "SELECT 1 AS i", "result": {"to": "table", "table": "own.rows", "create": true}}"#,
        )?;
        let flow_id = run(&mut place.victim, "new_flow")?;
        let found = place.ended(flow_id)?;
        ensure!(found == "a Finished", "{found}: {}", place.error_of(flow_id)?);
        Ok(())
    });
}
