//! What ALTER ROLE … SET (or a callback) sets must not decide whether the engine can write down what happened.

use anyhow::{ensure, Result};
use pgflow_tests::database::Database;
use pgflow_tests::session::Session;

use crate::kit::*;

/// A flow with everything that has to be written down: steps, a failure, messages, a COMMIT, a deferral, a child's end.
const NODES: &str = r#"
    {"node": "steps", "routine": "s.silent", "steps": [{"i": 1}, {"i": 2}, {"i": 3}, {"i": 4}, {"i": 5}, {"i": 6}]},
    {"node": "fails", "routine": "s.fails"},
    {"node": "speaks", "routine": "s.speaks"},
    {"node": "commits", "routine": "s.commits"},
    {"node": "defers", "routine": "s.defers"},
    {"node": "finishes", "routine": "s.finishes"},
    {"node": "after", "routine": "s.silent", "dependencies": [{"parent": "steps"}, {"parent": "fails", "continue_on_failure": true}]}"#;
const ENDS: &str =
    "after Finished, commits Finished, defers Finished, fails Failed, finishes Failed, speaks Finished, steps Finished";

/// The callbacks write nothing themselves: they would be refused where the role is read-only.
const CALLBACKS: &str = "
    CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO PUBLIC;
    CREATE PROCEDURE s.silent(_args flow.callback_arguments_t) LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); END';
    CREATE PROCEDURE s.fails(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fails'; END $$;
    CREATE PROCEDURE s.speaks(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'said'; END $$;
    CREATE PROCEDURE s.commits(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
      BEGIN PERFORM 1; COMMIT; PERFORM pg_sleep(0.01); COMMIT; PERFORM 2; END $$;
    CREATE PROCEDURE s.defers(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
      BEGIN IF (SELECT attempt = 0 FROM async.task WHERE task_id = _args.task_id) THEN CALL flow.defer(_args, '10 ms'); END IF; END $$;
    CREATE PROCEDURE s.finishes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
      BEGIN CALL flow.finish(_args, true, 'said so'); END $$;";

fn role_with(database: &Database, session: &mut Session, role: &str, settings: &[&str]) -> Result<()> {
    session.run(CALLBACKS)?;
    session.run(&format!("DROP ROLE IF EXISTS {role}"))?;
    database.role(role)?;
    configure(session, "f", NODES)?;
    for setting in settings {
        session.run(&format!("ALTER ROLE {role} SET {setting}"))?;
    }
    Ok(())
}

/// A run of the role's ends as any other does.
fn harmless(role: &str, settings: &[&str]) {
    test(role, |database, session| {
        role_with(database, session, role, settings)?;
        for _ in 0..3 {
            // Started as the role, without its settings.
            let flow_id = session.number(&format!("SET ROLE {role}; SELECT flow.run_flow('f', '{{}}')"))?;
            session.run("RESET ROLE")?;
            same(ended(database, flow_id)?, ENDS)?;
        }
        same(session.number("SELECT count(*) FROM async.task_log WHERE level = 'NOTICE' AND message = 'said'")?, 3)?;
        same(session.number("SELECT sum(crashes) FROM async.task")?, 0)?;
        // Two nodes fail at the same time: either may be the first.
        same(
            session
                .number("SELECT count(*) FROM flow.flow WHERE first_error IN ('fails: fails', 'finishes: said so')")?,
            3,
        )
    });
}

#[test]
fn default_transaction_read_only_is_harmless() {
    harmless("set_read_only", &["default_transaction_read_only = on"]);
}

#[test]
fn short_time_outs_are_harmless() {
    harmless(
        "set_time_outs",
        &[
            "statement_timeout = '2ms'",
            "idle_in_transaction_session_timeout = '1ms'",
            "lock_timeout = '5ms'",
            "idle_session_timeout = '1ms'",
        ],
    );
}

#[test]
fn a_search_path_without_pg_catalog_first_is_harmless() {
    harmless("set_search_path", &["search_path = s, public, pg_catalog"]);
}

#[test]
fn serializable_is_harmless() {
    harmless("set_serializable", &["default_transaction_isolation = 'serializable'"]);
}

#[test]
fn repeatable_read_and_deferrable_are_harmless() {
    harmless(
        "set_repeatable_read",
        &["default_transaction_isolation = 'repeatable read'", "default_transaction_deferrable = on"],
    );
}

#[test]
fn settings_that_change_what_values_look_like_are_harmless() {
    harmless(
        "set_looks",
        &[
            "datestyle = 'German'",
            "intervalstyle = 'iso_8601'",
            "timezone = 'Asia/Kolkata'",
            "bytea_output = 'escape'",
            "extra_float_digits = -3",
            "lc_messages = 'C'",
            "client_encoding = 'LATIN1'",
            "standard_conforming_strings = off",
            "array_nulls = off",
            "quote_all_identifiers = on",
            "transform_null_equals = on",
            "backslash_quote = off",
            "check_function_bodies = off",
            "client_min_messages = 'error'",
            "default_table_access_method = 'heap'",
        ],
    );
}

#[test]
fn planner_and_memory_settings_are_harmless() {
    harmless(
        "set_planner",
        &[
            "enable_indexscan = off",
            "enable_nestloop = off",
            "work_mem = '64kB'",
            "jit = on",
            "jit_above_cost = 0",
            "plan_cache_mode = 'force_custom_plan'",
            "max_parallel_workers_per_gather = 4",
            "parallel_setup_cost = 0",
            "from_collapse_limit = 1",
        ],
    );
}

#[test]
fn a_database_that_is_read_only_by_default_is_harmless() {
    test("set_database", |database, session| {
        role_with(database, session, "set_in_database", &[])?;
        session.run(
            "ALTER DATABASE set_database SET default_transaction_read_only = on;
            ALTER DATABASE set_database SET default_transaction_isolation = 'serializable';
            ALTER DATABASE set_database SET statement_timeout = '100ms';
            ALTER DATABASE set_database SET search_path = 'nowhere'",
        )?;
        // The dispatcher starts anew with them as well.
        let dispatcher = the(database, pgflow_tests::database::Kind::Dispatcher)?;
        session.run(&format!("SELECT pg_terminate_backend({dispatcher})"))?;
        let flow_id = session.number("SET ROLE set_in_database; SELECT flow.run_flow('f', '{}')")?;
        session.run("RESET ROLE")?;
        same(ended(database, flow_id)?, ENDS)
    });
}

/// Two hundred steps of two roles' worth of workers at the same time.
#[test]
fn serializable_callbacks_that_write_do_not_fail_each_other_through_our_tables() {
    test("set_ssi", |database, session| {
        role_with(database, session, "set_ssi", &["default_transaction_isolation = 'serializable'"])?;
        pushing(session, 200)?;
        callback(session, "writes", "INSERT INTO t.log (what) VALUES (_args.step_arguments->>'s');")?;
        configure(
            session,
            "g",
            r#"{"node": "a", "node_routine": "t.pushes", "step_routine": "t.writes", "all_steps_must_complete": false}"#,
        )?;
        let flow_id = run(&mut database.connect_as("set_ssi")?, "g")?;
        database.wait_run(flow_id)?;
        let errors = session.column("SELECT processing_error FROM async.task WHERE failed")?;
        ensure!(errors.is_empty(), "{} of 200 steps failed: {:?}", errors.len(), errors.first());
        same(session.number("SELECT count(DISTINCT what) FROM t.log")?, 200)
    });
}

/// The task's row changes under a callback whose snapshot is older: that is not the callback's fault.
#[test]
fn a_priority_set_while_a_serializable_callback_runs_does_not_fail_it() {
    test("set_priority", |database, session| {
        role_with(database, session, "set_with_priority", &["default_transaction_isolation = 'repeatable read'"])?;
        callback(
            session,
            "works",
            "PERFORM count(*) FROM t.log; PERFORM pg_sleep(0.6); INSERT INTO t.log (what) VALUES ('w');",
        )?;
        configure_one(session, "w", "t.works")?;
        let flow_id = run(&mut database.connect_as("set_with_priority")?, "w")?;
        wait_running(database, 1)?;
        pause(100);
        session.run(&format!("SELECT flow.set_priority({flow_id}, 7)"))?;
        let found = ended(database, flow_id)?;
        ensure!(found == "w Finished", "{found}: {}", session.text("SELECT first_error FROM flow.flow")?);
        Ok(())
    });
}

/// A client holds the task's row for a while: the worker waits for it, whatever the role says of locks.
#[test]
fn a_lock_timeout_of_the_role_does_not_fail_its_task() {
    test("set_lock", |database, session| {
        role_with(database, session, "set_lock_timeout", &["lock_timeout = '20ms'", "deadlock_timeout = '10s'"])?;
        callback(session, "works", "PERFORM pg_sleep(0.3); INSERT INTO t.log (what) VALUES ('w');")?;
        configure_one(session, "w", "t.works")?;
        let flow_id = run(&mut database.connect_as("set_lock_timeout")?, "w")?;
        wait_running(database, 1)?;
        session
            .run("BEGIN; SELECT FROM async.task WHERE processed IS NULL FOR UPDATE; SELECT pg_sleep(0.8); ROLLBACK")?;
        let found = ended(database, flow_id)?;
        ensure!(found == "w Finished", "{found}: {}", session.text("SELECT first_error FROM flow.flow")?);
        same(session.number("SELECT max(attempt) FROM async.task")?, 1)
    });
}

#[test]
fn a_callback_that_makes_its_transaction_read_only_is_recorded() {
    test("set_transaction", |database, session| {
        session.run(CALLBACKS)?;
        for (name, body, wanted) in [
            ("read_only", "SET TRANSACTION READ ONLY; RAISE NOTICE 'said';", "Finished"),
            ("read_only_fails", "SET TRANSACTION READ ONLY; RAISE EXCEPTION 'fails';", "Failed"),
            ("writes_all_the_same", "SET TRANSACTION READ ONLY; INSERT INTO t.log (what) VALUES ('never');", "Failed"),
            ("read_only_after_commit", "COMMIT; SET TRANSACTION READ ONLY; PERFORM 1; COMMIT; PERFORM 1;", "Finished"),
            ("serializable_read_only", "COMMIT; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY; PERFORM count(*) FROM t.log;", "Finished"),
            ("deferrable", "COMMIT; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE; PERFORM count(*) FROM t.log;", "Finished"),
            ("session_default", "SET default_transaction_read_only = on; SET statement_timeout = '1ms'; SET lock_timeout = '1ms';", "Finished"),
            ("session_characteristics", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; COMMIT;", "Finished"),
        ] {
            callback(session, name, body)?;
            configure_one(session, name, &format!("t.{name}"))?;
            ends_as(database, session, name, &format!("{name} {wanted}"))?;
            // The next task on that worker may write.
            configure_one(session, "next", "t.notes")?;
            ends_as(database, session, "next", "next Finished")?;
        }
        same(session.number("SELECT count(*) FROM t.log WHERE what = 'never'")?, 0)
    });
}
