//! A callback runs as the role that started its flow, and cannot become another one, whatever it tries.

use anyhow::{ensure, Result};

use crate::kit::{contains, same, test, Kit};

/// Creates two ordinary roles and, as the first, a callback that tries something and notes who it is.
fn tries(kit: &mut Kit, role: &str, body: &str) -> Result<i64> {
    kit.database.role(role)?;
    let mut session = kit.database.connect_as(role)?;
    session.run(&format!(
        "CREATE SCHEMA {role};
         CREATE TABLE {role}.seen (who TEXT);
         CREATE FUNCTION {role}.me() RETURNS TEXT LANGUAGE sql AS
           'SELECT pg_catalog.concat_ws('' '', current_user, session_user, pg_catalog.current_setting(''is_superuser''))';
         CREATE PROCEDURE {role}.tries(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $callback$
           BEGIN {body} INSERT INTO {role}.seen VALUES ({role}.me()); END $callback$;
         SELECT flow.configure_flow('{role}', '{{\"nodes\": [{{\"node\": \"a\", \"routine\": \"{role}.tries\"}}]}}')"
    ))?;
    let flow_id = session.number(&format!("SELECT flow.run_flow('{role}', '{{}}')"))?;
    kit.wait(flow_id)?;
    Ok(flow_id)
}

/// The callback tried; whoever it was at any time was its own role.
fn stays(name: &str, body: &str) {
    let role = format!("role_{name}");
    test(&role.clone(), |kit| {
        let flow_id = tries(kit, &role, body)?;
        let me = format!("{role} {role} off");
        let others = format!("SELECT coalesce(string_agg(who, ', '), 'none') FROM {role}.seen WHERE who <> '{me}'");
        same(kit.session.text(&others)?, "none")?;
        if kit.nodes(flow_id)? != "a Finished" {
            let error = kit.error_of(flow_id, "a")?;
            println!("{name}: {error}");
            return Ok(());
        }
        ensure!(kit.session.number(&format!("SELECT count(*) FROM {role}.seen"))? > 0, "nobody was seen");
        // Its next task is itself as well.
        let mut session = kit.database.connect_as(&role)?;
        let again = session.number(&format!("SELECT flow.run_flow('{role}', '{{}}')"))?;
        kit.wait(again)?;
        same(kit.session.text(&others)?, "none")
    });
}

#[test]
fn a_callback_is_the_role_that_started_its_flow() {
    stays("plain", "");
}

#[test]
fn reset_role_leads_nowhere() {
    stays("reset", "EXECUTE 'RESET ROLE';");
}

#[test]
fn set_session_authorization_leads_nowhere() {
    stays(
        "authorization",
        "BEGIN EXECUTE 'SET SESSION AUTHORIZATION postgres'; EXCEPTION WHEN OTHERS THEN NULL; END;
         BEGIN EXECUTE 'SET ROLE postgres'; EXCEPTION WHEN OTHERS THEN NULL; END;
         EXECUTE 'RESET SESSION AUTHORIZATION';",
    );
}

#[test]
fn rollback_first_leads_nowhere() {
    stays("rollback", "ROLLBACK; EXECUTE 'RESET ROLE';");
}

#[test]
fn commit_first_leads_nowhere() {
    stays("commit", "COMMIT; EXECUTE 'RESET SESSION AUTHORIZATION'; COMMIT;");
}

#[test]
fn shadowing_what_the_engine_calls_leads_nowhere() {
    stays(
        "shadow",
        "CREATE FUNCTION role_shadow.clock_timestamp() RETURNS TIMESTAMPTZ LANGUAGE plpgsql AS
           $x$ BEGIN INSERT INTO role_shadow.seen VALUES (role_shadow.me()); RETURN pg_catalog.now(); END $x$;
         CREATE FUNCTION role_shadow.int8_is(BIGINT, BIGINT) RETURNS BOOL LANGUAGE plpgsql AS
           $x$ BEGIN INSERT INTO role_shadow.seen VALUES (role_shadow.me()); RETURN true; END $x$;
         CREATE OPERATOR role_shadow.= (LEFTARG = BIGINT, RIGHTARG = BIGINT, FUNCTION = role_shadow.int8_is);
         CREATE TEMP TABLE task (task_id BIGINT, attempt INT, processed TIMESTAMPTZ);
         EXECUTE 'SET search_path = pg_temp, role_shadow, pg_catalog';",
    );
}

#[test]
fn a_deferred_trigger_runs_as_the_role() {
    stays(
        "deferred",
        "CREATE TABLE role_deferred.data (i INT);
         CREATE FUNCTION role_deferred.fires() RETURNS TRIGGER LANGUAGE plpgsql AS
           $x$ BEGIN INSERT INTO role_deferred.seen VALUES (role_deferred.me()); RETURN NULL; END $x$;
         CREATE CONSTRAINT TRIGGER later AFTER INSERT ON role_deferred.data DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION role_deferred.fires();
         INSERT INTO role_deferred.data VALUES (1);",
    );
}

#[test]
fn a_cursor_with_hold_runs_as_the_role() {
    stays(
        "hold",
        "CREATE FUNCTION role_hold.notes() RETURNS INT LANGUAGE plpgsql AS
           $x$ BEGIN INSERT INTO role_hold.seen VALUES (role_hold.me()); RETURN 1; END $x$;
         EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT role_hold.notes()';",
    );
}

#[test]
fn a_replaced_cast_runs_as_the_role() {
    stays(
        "cast",
        "CREATE TYPE role_cast.odd AS (i INT);
         CREATE FUNCTION role_cast.as_text(role_cast.odd) RETURNS TEXT LANGUAGE plpgsql AS
           $x$ BEGIN INSERT INTO role_cast.seen VALUES (role_cast.me()); RETURN 'x'; END $x$;
         CREATE CAST (role_cast.odd AS TEXT) WITH FUNCTION role_cast.as_text(role_cast.odd) AS IMPLICIT;
         PERFORM flow.progress(_args, 1, 2, ROW(1)::role_cast.odd::TEXT);",
    );
}

#[test]
fn a_group_routine_runs_as_the_role() {
    test("role_group", |kit| {
        kit.database.role("role_grouped")?;
        let mut session = kit.database.connect_as("role_grouped")?;
        session.run(
            r#"CREATE FUNCTION pg_temp.unused() RETURNS INT LANGUAGE sql AS 'SELECT 1';
               CREATE SCHEMA role_grouped;
               CREATE FUNCTION role_grouped.pool(_flow_id BIGINT, _node TEXT) RETURNS TEXT LANGUAGE plpgsql AS
                 $x$ BEGIN INSERT INTO t.log (what) VALUES (current_user || ' ' || session_user); RETURN 'p'; END $x$;
               SELECT flow.configure_flow('grouped', '{"concurrency_group_routine": "role_grouped.pool",
                 "nodes": [{"node": "a", "routine": "t.notes"}]}')"#,
        )?;
        let flow_id = session.number("SELECT flow.run_flow('grouped', '{}')")?;
        kit.wait(flow_id)?;
        same(kit.log()?, "role_grouped role_grouped a")
    });
}

#[test]
fn a_role_that_cannot_log_in_is_told_so_or_runs() {
    test("role_nologin", |kit| {
        kit.session.run(
            "DO $$ BEGIN CREATE ROLE nobody_logs_in NOLOGIN IN ROLE flow_user; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        )?;
        kit.flow(r#"{"node": "a", "routine": "t.nothing"}"#)?;
        let call = "SELECT flow.run_flow('f', '{}')";
        kit.session.run("SET ROLE nobody_logs_in")?;
        if kit.session.number("SHOW server_version_num")? < 170_000 {
            let error = kit.session.error(call)?;
            contains(&error, "may not log in")?;
            contains(&error, "ALTER ROLE nobody_logs_in LOGIN")
        } else {
            // Since 17 a worker may be connected as such a role.
            let flow_id = kit.session.number(call)?;
            kit.database.wait_run(flow_id)?;
            let status = format!("SELECT status FROM flow.v_flow_node_status WHERE flow_id = {flow_id}");
            contains(&kit.session.text(&status)?, "Finished")
        }
    });
}

#[test]
fn others_runs_are_not_ones_own() {
    test("role_others", |kit| {
        kit.database.role("role_mine")?;
        kit.database.role("role_yours")?;
        kit.flow(r#"{"node": "a", "routine": "t.sleeps"}"#)?;
        let mut mine = kit.database.connect_as("role_mine")?;
        let mut yours = kit.database.connect_as("role_yours")?;
        let flow_id = mine.number("SELECT flow.run_flow('f', '{}')")?;
        for call in [
            format!("SELECT flow.cancel({flow_id})"),
            format!("SELECT flow.set_priority({flow_id}, 1)"),
            format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": 1}}']::JSONB[])"),
            format!(
                "SELECT flow.run_flow('f', '{{}}', _parent_task_id => task_id) FROM (SELECT {flow_id} AS task_id) x"
            ),
        ] {
            let error = yours.error(&call)?;
            ensure!(error.contains("permission denied") || error.contains("does not exist"), "{call}: {error}");
        }
        for relation in ["flow.flow", "flow.flow_node", "async.task", "flow.v_flow_status", "flow.v_flow_node_status"] {
            same(yours.number(&format!("SELECT count(*) FROM {relation}"))?, 0)?;
            ensure!(mine.number(&format!("SELECT count(*) FROM {relation}"))? > 0, "{relation} is empty");
        }
        mine.run(&format!("SELECT flow.cancel({flow_id})"))
    });
}
