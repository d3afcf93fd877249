//! F23: steps of a node that share a transaction, and nodes whose transactions are not waited for.

use anyhow::{ensure, Result};

use crate::kit::{contains, same, test, Kit};

const STEPS: i64 = 300;

/// A flow whose node pushes steps `{"s": 1}` and on, which do `body` and then leave a mark with their transaction.
fn flow_of_steps(kit: &mut Kit, body: &str, options: &str) -> Result<()> {
    kit.session
        .run("CREATE TABLE t.mark (s INT, xid XID8 DEFAULT pg_current_xact_id()); GRANT ALL ON t.mark TO PUBLIC")?;
    kit.callback(
        "pushes",
        &format!(
            "DECLARE _steps JSONB[] := array(SELECT jsonb_build_object('s', i) FROM generate_series(1, {STEPS}) i);
             BEGIN CALL flow.push_steps(_args.flow_id, _args.node, _steps); END;"
        ),
    )?;
    kit.callback("step", &format!("{body} INSERT INTO t.mark (s) VALUES ((_args.step_arguments->>'s')::INT);"))?;
    kit.flow(&format!(
        r#"{{"node": "a", "node_routine": "t.pushes", "step_routine": "t.step", "steps_per_transaction": 8 {options}}}"#
    ))
}

/// Runs it to its end; returns the run.
fn run(kit: &mut Kit) -> Result<i64> {
    let flow_id = kit.run_to_end()?;
    agrees(kit, flow_id)?;
    Ok(flow_id)
}

/// A step has left its mark once if it is finished, and never if it is not.
fn agrees(kit: &mut Kit, flow_id: i64) -> Result<()> {
    same(
        kit.session.text(&format!(
            "SELECT coalesce(string_agg(v.step_arguments || ' ' || v.status || ' ' || m.marks, ', '), '')
             FROM flow.v_flow_task_status v,
                  LATERAL (SELECT count(*) AS marks FROM t.mark k WHERE k.s = (v.step_arguments::JSONB->>'s')::INT) m
             WHERE v.flow_id = {flow_id} AND v.type = 'Step' AND m.marks <> (v.status = 'Finished')::INT"
        ))?,
        "",
    )
}

fn count(kit: &mut Kit, flow_id: i64, status: &str) -> Result<i64> {
    kit.session.number(&format!(
        "SELECT count(*) FROM flow.v_flow_task_status WHERE flow_id = {flow_id} AND type = 'Step' AND status = '{status}'"
    ))
}

/// The most marks of one transaction.
fn most_together(kit: &mut Kit) -> Result<i64> {
    kit.session.number("SELECT max(n) FROM (SELECT count(*) AS n FROM t.mark GROUP BY xid) c")
}

#[test]
fn f23_steps_share_transactions_as_many_as_the_node_says() {
    test("shared", |kit| {
        flow_of_steps(kit, "", "")?;
        let flow_id = run(kit)?;
        same(kit.nodes(flow_id)?, "a Finished")?;
        same(count(kit, flow_id, "Finished")?, STEPS)?;
        let most = most_together(kit)?;
        ensure!((2..=8).contains(&most), "{most} in one transaction");
        Ok(())
    });
}

#[test]
fn f23_a_step_that_fails_fails_alone() {
    test("shared_fails", |kit| {
        let body = "IF (_args.step_arguments->>'s')::INT % 20 = 0 THEN
                      INSERT INTO t.mark (s) VALUES ((_args.step_arguments->>'s')::INT);
                      RAISE EXCEPTION 'no % today', _args.step_arguments->>'s'; END IF;";
        flow_of_steps(kit, body, r#", "all_steps_must_complete": false"#)?;
        let flow_id = run(kit)?;
        same(kit.nodes(flow_id)?, "a Finished")?;
        same(count(kit, flow_id, "Failed")?, STEPS / 20)?;
        same(count(kit, flow_id, "Finished")?, STEPS - STEPS / 20)?;
        ensure!(most_together(kit)? > 1, "none shared");
        same(
            kit.session.number(&format!(
                "SELECT count(*) FROM async.v_task WHERE flow_id = {flow_id} AND processing_error LIKE 'no % today%'"
            ))?,
            STEPS / 20,
        )
    });
}

#[test]
fn f23_temporary_tables_locks_and_the_time_span_the_transaction() {
    test("shared_spans", |kit| {
        kit.session
            .run("CREATE TABLE t.seen (before INT, locks INT, at TIMESTAMPTZ); GRANT ALL ON t.seen TO PUBLIC")?;
        let body = "CREATE TEMP TABLE IF NOT EXISTS here (s INT) ON COMMIT DROP;
                    INSERT INTO t.seen SELECT (SELECT count(*) FROM here), count(*), now() FROM pg_locks
                    WHERE pid = pg_backend_pid() AND locktype = 'advisory';
                    INSERT INTO here VALUES (1);
                    PERFORM pg_advisory_xact_lock(77, (_args.step_arguments->>'s')::INT);";
        flow_of_steps(kit, body, "")?;
        let flow_id = run(kit)?;
        same(count(kit, flow_id, "Finished")?, STEPS)?;
        let most = most_together(kit)?;
        ensure!(most > 1, "none shared");
        // The last of a transaction sees what those before it have left; the first sees nothing of the transaction before.
        same(kit.session.text("SELECT max(before) || ' ' || max(locks) FROM t.seen")?, format!("{0} {0}", most - 1))?;
        same(
            kit.session.number("SELECT count(*) FROM t.seen WHERE before = 0 AND locks = 0")?,
            kit.session.number("SELECT count(DISTINCT xid) FROM t.mark")?,
        )?;
        same(
            kit.session.number("SELECT count(DISTINCT at) FROM t.seen")?,
            kit.session.number("SELECT count(DISTINCT xid) FROM t.mark")?,
        )
    });
}

#[test]
fn f23_deferred_constraints_are_checked_at_the_end_of_each_step_and_stay_deferred() {
    test("shared_deferred", |kit| {
        kit.session.run(
            "CREATE TABLE t.parent (id INT PRIMARY KEY);
             CREATE TABLE t.child (id INT REFERENCES t.parent DEFERRABLE INITIALLY DEFERRED);
             GRANT ALL ON t.parent, t.child TO PUBLIC",
        )?;
        let body = "INSERT INTO t.child VALUES ((_args.step_arguments->>'s')::INT);
                    IF (_args.step_arguments->>'s')::INT % 20 <> 0 THEN
                      INSERT INTO t.parent VALUES ((_args.step_arguments->>'s')::INT); END IF;";
        flow_of_steps(kit, body, r#", "all_steps_must_complete": false"#)?;
        let flow_id = run(kit)?;
        same(count(kit, flow_id, "Failed")?, STEPS / 20)?;
        same(kit.session.number("SELECT count(*) FROM t.child")?, STEPS - STEPS / 20)?;
        ensure!(most_together(kit)? > 1, "none shared");
        Ok(())
    });
}

#[test]
fn f23_a_procedure_that_commits_is_refused_in_company() {
    test("shared_commits", |kit| {
        flow_of_steps(kit, "IF (_args.step_arguments->>'s')::INT > 150 THEN COMMIT; END IF;", "")?;
        let flow_id = run(kit)?;
        same(kit.nodes(flow_id)?, "a Failed")?;
        contains(&kit.error_of(flow_id, "a")?, "steps_per_transaction")
    });
}

#[test]
fn f23_what_only_company_brings_about_is_tried_again_alone() {
    test("shared_conflict", |kit| {
        kit.session.run("CREATE SEQUENCE t.tries; GRANT ALL ON t.tries TO PUBLIC")?;
        // As a deadlock between two transactions of several steps each.
        let body = "IF (_args.step_arguments->>'s')::INT = 200 AND nextval('t.tries') = 1 THEN
                      RAISE EXCEPTION 'in a knot' USING ERRCODE = 'deadlock_detected'; END IF;";
        flow_of_steps(kit, body, "")?;
        let flow_id = run(kit)?;
        same(count(kit, flow_id, "Finished")?, STEPS)?;
        same(kit.session.number("SELECT last_value FROM t.tries")?, 2)
    });
}

#[test]
fn f23_decisions_hold_for_the_step_that_made_them() {
    test("shared_decides", |kit| {
        kit.session.run("CREATE SEQUENCE t.tries; GRANT ALL ON t.tries TO PUBLIC")?;
        let body = "IF (_args.step_arguments->>'s')::INT = 200 THEN
                      CALL flow.finish(_args, true, 'as it likes');
                    ELSIF (_args.step_arguments->>'s')::INT = 210 AND nextval('t.tries') = 1 THEN
                      CALL flow.defer(_args, '10 ms'); RETURN;
                    END IF;";
        flow_of_steps(kit, body, r#", "all_steps_must_complete": false"#)?;
        let flow_id = kit.run_to_end()?;
        same(count(kit, flow_id, "Finished")?, STEPS - 1)?;
        // flow.finish does not undo what the callback did.
        same(kit.session.number("SELECT count(*) FROM t.mark")?, STEPS)?;
        same(kit.session.number("SELECT last_value FROM t.tries")?, 2)?;
        contains(
            &kit.session
                .text(&format!("SELECT processing_error FROM async.v_task WHERE flow_id = {flow_id} AND failed"))?,
            "as it likes",
        )
    });
}

#[test]
fn f23_of_a_cancelled_transaction_nothing_lasts() {
    test("shared_cancel", |kit| {
        flow_of_steps(kit, "IF (_args.step_arguments->>'s')::INT = 200 THEN PERFORM pg_sleep(60); END IF;", "")?;
        let flow_id = kit.run()?;
        kit.wait_until(
            "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database())",
        )?;
        kit.session.run(&format!("SELECT flow.cancel({flow_id})"))?;
        kit.wait_until(
            "NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database())",
        )?;
        kit.wait_until("(SELECT count(*) = 0 FROM async.running())")?;
        agrees(kit, flow_id)
    });
}

#[test]
fn f23_a_step_that_ends_its_worker_costs_the_others_nothing() {
    test("shared_killed", |kit| {
        kit.session.run("CREATE SEQUENCE t.tries; GRANT ALL ON t.tries TO PUBLIC")?;
        let body = "IF (_args.step_arguments->>'s')::INT = 200 AND nextval('t.tries') = 1 THEN
                      PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END IF;";
        flow_of_steps(kit, body, "")?;
        let flow_id = run(kit)?;
        same(count(kit, flow_id, "Finished")?, STEPS)?;
        same(
            kit.session.text(&format!(
                "SELECT string_agg(task_data->>'s', ',') FROM async.task WHERE flow_id = {flow_id} AND attempt > 1"
            ))?,
            "200",
        )
    });
}

#[test]
fn f23_settings_of_a_step_end_with_it() {
    test("shared_settings", |kit| {
        kit.session.run("CREATE TABLE t.seen (size TEXT, role NAME); GRANT ALL ON t.seen TO PUBLIC")?;
        let body = "INSERT INTO t.seen VALUES (current_setting('work_mem'), current_user);
                    SET work_mem = '77MB'; SET LOCAL maintenance_work_mem = '77MB'; SET LOCAL ROLE flow_user;
                    RESET ROLE;";
        flow_of_steps(kit, body, "")?;
        run(kit)?;
        ensure!(most_together(kit)? > 1, "none shared");
        same(kit.session.number("SELECT count(*) FROM t.seen WHERE size = '77MB'")?, 0)
    });
}

#[test]
fn f24_a_node_may_commit_without_waiting_for_the_disk() {
    test("lazy", |kit| {
        kit.callback(
            "says",
            "INSERT INTO t.log (what) VALUES (_args.node || current_setting('synchronous_commit')); COMMIT;
             INSERT INTO t.log (what) VALUES (_args.node || current_setting('synchronous_commit'));",
        )?;
        kit.flow(
            r#"{"node": "a", "routine": "t.says", "synchronous_commit": "off"},
               {"node": "b", "routine": "t.says", "dependencies": [{"parent": "a"}]},
               {"node": "c", "routine": "t.says", "synchronous_commit": "inherit", "dependencies": [{"parent": "b"}]}"#,
        )?;
        kit.run_to_end()?;
        same(kit.log()?, "aoff aoff bon bon con con")
    });
}
