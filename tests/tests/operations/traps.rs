//! Traps that others have run into: what runs at commit, what the server's log and statistics see, what blocks pg_upgrade.

use anyhow::ensure;
use pgflow_tests::database::Kind;

use crate::kit::*;

/// Deferred triggers (which defer more), cursors WITH HOLD and their functions run at the callback's own COMMIT and at its
/// end: always as the callback's role.
#[test]
fn what_runs_at_commit_runs_with_the_callbacks_rights() {
    test("at_commit", |database, session| {
        database.role("commits")?;
        let mut user = database.connect_as("commits")?;
        user.run(
            "CREATE SCHEMA c;
             CREATE TABLE c.seen (what TEXT, who TEXT);
             CREATE TABLE c.data (i INT);
             CREATE FUNCTION c.note(_what TEXT) RETURNS INT LANGUAGE plpgsql AS $x$ BEGIN
               INSERT INTO c.seen VALUES (_what, concat_ws(' ', current_user, session_user, current_setting('is_superuser')));
               RETURN 1; END $x$;
             CREATE FUNCTION c.fires() RETURNS TRIGGER LANGUAGE plpgsql AS $x$ BEGIN
               PERFORM c.note('trigger');
               IF NEW.i > 0 THEN
                 INSERT INTO c.data VALUES (NEW.i - 1);
                 EXECUTE format('DECLARE in_trigger_%s CURSOR WITH HOLD FOR SELECT c.note(''cursor of a trigger'')', md5(random()::TEXT));
               END IF;
               RETURN NULL; END $x$;
             CREATE CONSTRAINT TRIGGER later AFTER INSERT ON c.data DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION c.fires();
             CREATE PROCEDURE c.works(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $x$ BEGIN
               EXECUTE 'PREPARE kept AS SELECT c.note(''prepared'')';
               EXECUTE 'EXECUTE kept';
               INSERT INTO c.data VALUES (2);
               COMMIT;
               INSERT INTO c.data VALUES (2);
               EXECUTE 'DECLARE held CURSOR WITH HOLD FOR SELECT c.note(''cursor'')';
               EXECUTE 'CREATE TEMP TABLE goes (i INT) ON COMMIT DROP';
               EXECUTE 'EXECUTE kept';
             END $x$",
        )?;
        configure_one(&mut user, "works", "c.works")?;
        ends_as(database, &mut user, "works", "works Finished")?;
        let who = session.text("SELECT string_agg(DISTINCT who, ', ') FROM c.seen")?;
        println!(
            "{}",
            session.text(
                "SELECT string_agg(what || ' ' || n, ', ') FROM (SELECT what, count(*) AS n FROM c.seen GROUP BY 1) x"
            )?
        );
        same(who, "commits commits off")?;
        same(session.number("SELECT count(*) FROM c.seen WHERE what = 'trigger'")?, 6)
    });
}

#[test]
fn what_a_callback_says_is_kept_and_stays_out_of_the_servers_log() {
    test("quiet_log", |database, session| {
        callback(
            session,
            "speaks",
            "RAISE NOTICE 'a-notice-7391'; RAISE INFO 'an-info-7391'; RAISE LOG 'a-log-7391'; RAISE WARNING 'a-warning-7391';
             RAISE DEBUG 'a-debug-7391';",
        )?;
        configure_one(session, "speaks", "t.speaks")?;
        ends_as(database, session, "speaks", "speaks Finished")?;
        let log = database.cluster.log_tail(50, "7391");
        ensure!(!log.contains("a-notice") && !log.contains("an-info") && !log.contains("a-debug"), "{log}");
        ensure!(
            log.contains("a-warning") && log.contains("a-log"),
            "what the server would have logged is not there: {log:?}"
        );
        let kept = session.text("SELECT string_agg(level || ' ' || message, ', ' ORDER BY seq) FROM async.task_log WHERE message LIKE '%7391'")?;
        same(kept, "NOTICE a-notice-7391, INFO an-info-7391, LOG a-log-7391, WARNING a-warning-7391")
    });
}

/// Or autovacuum would not see what callbacks write.
#[test]
fn statistics_move_while_a_run_goes_on() {
    test("statistics", |database, session| {
        session.run("CREATE TABLE t.sink (i INT)")?;
        pushing(session, 400)?;
        callback(session, "writes", "INSERT INTO t.sink VALUES (1); PERFORM pg_sleep(0.03);")?;
        configure(session, "f", r#"{"node": "a", "node_routine": "t.pushes", "step_routine": "t.writes"}"#)?;
        session.run(r#"SELECT async.configure('{"control": {"workers": 1}}')"#)?;
        let flow_id = run(session, "f")?;
        let mut last = 0;
        let mut steps = Vec::new();
        while session.truth(&format!("SELECT processed IS NULL FROM flow.flow WHERE flow_id = {flow_id}"))? {
            let now = session.number("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'sink'")?;
            if now > last {
                steps.push(now);
                last = now;
            }
            if steps.len() > 3 {
                break;
            }
            pause(100);
        }
        println!("n_tup_ins: {steps:?}");
        ensure!(steps.iter().filter(|n| **n < 400).count() >= 2, "n_tup_ins moved only to {steps:?}");
        let mut own = database.connect()?;
        wait_for("our own tables' statistics move", || {
            own.truth(
                "SELECT n_tup_ins > 0 AND n_tup_upd > 0 FROM pg_stat_all_tables WHERE relid = 'async.task'::REGCLASS",
            )
        })?;
        session.run(&format!("SELECT flow.cancel({flow_id})"))
    });
}

#[test]
fn pg_stat_activity_says_what_runs() {
    test("activity", |database, session| {
        configure(session, "the_flow", r#"{"node": "the_node", "routine": "t.waits"}"#)?;
        let flow_id = run(session, "the_flow")?;
        wait_running(database, 1)?;
        let task = session.text("SELECT task_id FROM async.running()")?;
        let shown = session.text("SELECT state || ' ' || query FROM pg_stat_activity WHERE backend_type = 'pgflow worker' AND datname = 'activity'")?;
        for part in ["active", "the_flow", "the_node", &task] {
            contains(&shown, part)?;
        }
        same(session.number("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgflow dispatcher' AND datname = 'activity' AND state = 'idle'")?, 1)?;
        open_gate(session)?;
        same(ended(database, flow_id)?, "the_node Finished")?;
        wait_for("the worker shows idle", || {
            session.truth("SELECT state = 'idle' AND query NOT LIKE '%task 1%' FROM pg_stat_activity WHERE backend_type = 'pgflow worker' AND datname = 'activity'
                UNION ALL SELECT true LIMIT 1")
        })
    });
}

#[test]
fn pg_terminate_backend_of_a_worker_starts_its_task_again() {
    test("terminated_worker", |database, session| {
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        for _ in 0..2 {
            wait_running(database, 1)?;
            let worker = the(database, Kind::Worker)?;
            session.run(&format!("SELECT pg_terminate_backend({worker})"))?;
            wait_for("another worker runs it", || {
                Ok(session
                    .column("SELECT pid FROM async.running()")?
                    .first()
                    .is_some_and(|pid| *pid != worker.to_string()))
            })?;
        }
        open_gate(session)?;
        same(ended(database, flow_id)?, "a Finished")?;
        same(log(session)?, "a")?;
        same(session.number("SELECT attempt FROM async.task")?, 3)
    });
}

#[test]
fn pg_cancel_backend_of_a_worker_fails_the_task_that_runs() {
    test("cancelled_worker", |database, session| {
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        wait_running(database, 1)?;
        session.run("SELECT pg_cancel_backend(pid) FROM async.running()")?;
        same(ended(database, flow_id)?, "a Failed")?;
        contains(&session.text("SELECT first_error FROM flow.flow")?, "cancel")
    });
}

#[test]
fn no_column_keeps_pg_upgrade_away() {
    test("upgrade", |_, session| {
        let columns = session.column(
            "SELECT a.attrelid::REGCLASS || '.' || a.attname || ' ' || a.atttypid::REGTYPE
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE c.relnamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE) AND NOT a.attisdropped AND a.attnum > 0
               AND c.relkind IN ('r', 'm', 'i', 'c') AND a.atttypid::REGTYPE::TEXT ~ '^reg'",
        )?;
        ensure!(columns.is_empty(), "{columns:?}");
        Ok(())
    });
}

/// Those that COMMIT cannot: they qualify every name. Bodies in the SQL standard's form are bound when they are created.
#[test]
fn every_function_pins_search_path() {
    test("pinned", |_, session| {
        let loose = session.column(
            "SELECT p.oid::REGPROCEDURE FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
             WHERE p.pronamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE) AND l.lanname <> 'c' AND p.prosqlbody IS NULL
               AND NOT coalesce(array_to_string(p.proconfig, ' ') ~ 'search_path=pg_catalog, pg_temp', false)
               AND p.oid NOT IN ('flow.watch(bigint, interval)'::REGPROCEDURE, 'async.tail(text, int)'::REGPROCEDURE,
                 'async.main(bool, bool)'::REGPROCEDURE, -- and those that a client's COMMIT is in: every name qualified
                 'flow.push_steps(bigint, text, jsonb[], bool)'::REGPROCEDURE,
                 'flow.finish(flow.callback_arguments_t, bool, text, bool)'::REGPROCEDURE)",
        )?;
        // The cascade runs under the path of the function that calls it, which pins it; nobody else may call it.
        const CASCADE: [&str; 11] = [
            "settle",
            "propagate",
            "open_nodes",
            "start_nodes",
            "insert_node_tasks",
            "release_steps",
            "release_held",
            "end_parents",
            "stop_tasks",
            "time_out_nodes",
            "task_form",
        ];
        let is_cascade = |name: &&String| CASCADE.iter().any(|part| name.starts_with(&format!("flow.{part}(")));
        let others: Vec<_> = loose.iter().filter(|name| !is_cascade(name)).collect();
        ensure!(others.is_empty(), "{others:?}");
        for name in loose.iter().filter(is_cascade) {
            same(
                session.text(&format!("SELECT has_function_privilege('public', '{name}', 'EXECUTE')::TEXT"))?,
                "false",
            )?;
        }
        // Nor does any run with its owner's rights without knowing its caller.
        let definers = session.column(
            "SELECT p.oid::REGPROCEDURE FROM pg_proc p
             WHERE p.pronamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE) AND p.prosecdef",
        )?;
        ensure!(definers.is_empty(), "SECURITY DEFINER: {definers:?}");
        Ok(())
    });
}

#[test]
fn a_step_argument_of_a_megabyte_arrives_whole() {
    test("megabyte", |database, session| {
        callback(session, "measures", "INSERT INTO t.log (what) VALUES (length(_args.step_arguments->>'big'));")?;
        configure(session, "f", r#"{"node": "a", "node_routine": "t.waits", "step_routine": "t.measures"}"#)?;
        let flow_id = run(session, "f")?;
        for _ in 0..2 {
            session.run(&format!(
                "CALL flow.push_steps({flow_id}, 'a', ARRAY[jsonb_build_object('big', repeat('é', 1000000))])"
            ))?;
        }
        open_gate(session)?;
        same(ended(database, flow_id)?, "a Finished")?;
        same(session.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")?, "1000000 a")?;
        for call in ["flow.graphviz", "flow.task_list"] {
            session.run(&format!("SELECT {call}({flow_id})"))?;
        }
        Ok(())
    });
}
