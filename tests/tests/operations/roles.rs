//! Roles that go away, or may not do what a worker needs.

use anyhow::{ensure, Result};
use pgflow_tests::database::Database;
use pgflow_tests::session::Session;

use crate::kit::*;

/// A run of a role that waits because the engine is paused; then something happens to the role.
fn waiting(database: &Database, session: &mut Session, role: &str, what: &str) -> Result<i64> {
    session.run(&format!(
        "DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN IN ROLE flow_user; SELECT async.pause()"
    ))?;
    configure(
        session,
        "f",
        r#"{"node": "a", "routine": "t.notes"}, {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
    )?;
    let flow_id = run(&mut database.connect_as(role)?, "f")?;
    session.run(what)?;
    session.run("SELECT async.resume()")?;
    Ok(flow_id)
}

fn views_work(session: &mut Session) -> Result<()> {
    for view in [
        "async.v_task",
        "async.v_server_info",
        "async.v_worker_info",
        "flow.v_flow_status",
        "flow.v_flow_task",
        "flow.v_flow_task_status",
        "flow.v_flow_node_status",
        "async.v_task_log",
    ] {
        session.run(&format!("SELECT * FROM {view}"))?;
    }
    Ok(())
}

#[test]
fn a_dropped_role_fails_its_runs_and_keeps_nobody_else_waiting() {
    test("role_gone", |database, session| {
        let flow_id = waiting(database, session, "goes_away", "DROP ROLE goes_away")?;
        same(ended(database, flow_id)?, "a Failed, b Skipped")?;
        contains(&session.text("SELECT first_error FROM flow.flow")?, "goes_away")?;
        ends_as(database, session, "f", "a Finished, b Finished")?;
        views_work(session)?;
        session.run(&format!("SELECT flow.graphviz({flow_id})"))?;
        // An administrator can clean up.
        refused(session, &format!("SELECT flow.restart_flow({flow_id})"), "goes_away")
    });
}

#[test]
fn a_role_dropped_while_its_task_runs_harms_nobody() {
    test("role_gone_busy", |database, session| {
        session.run("DROP ROLE IF EXISTS goes_away_busy; CREATE ROLE goes_away_busy LOGIN IN ROLE flow_user")?;
        configure(
            session,
            "f",
            r#"{"node": "a", "routine": "t.waits"}, {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        let flow_id = run(&mut database.connect_as("goes_away_busy")?, "f")?;
        wait_running(database, 1)?;
        session.run("DROP ROLE goes_away_busy")?;
        views_work(session)?;
        open_gate(session)?;
        let found = ended(database, flow_id)?;
        ensure!(found == "a Finished, b Failed" || found == "a Failed, b Skipped", "{found}");
        ends_as(database, session, "f", "a Finished, b Finished").map(drop)
    });
}

#[test]
fn a_role_that_may_no_longer_log_in_fails_its_runs_and_says_why() {
    test("role_no_login", |database, session| {
        let flow_id = waiting(database, session, "locked_out", "ALTER ROLE locked_out NOLOGIN")?;
        same(ended(database, flow_id)?, "a Failed, b Skipped")?;
        contains(&session.text("SELECT first_error FROM flow.flow")?, "log in")?;
        session.run("ALTER ROLE locked_out LOGIN")?;
        session.run(&format!("SELECT flow.retry_failed({flow_id})"))?;
        same(ended(database, flow_id)?, "a Finished, b Finished")
    });
}

#[test]
fn a_renamed_role_never_makes_a_query_fail_nor_a_run_hang() {
    test("role_renamed", |database, session| {
        session.run("DROP ROLE IF EXISTS had_another_name")?;
        let flow_id = waiting(database, session, "has_a_name", "ALTER ROLE has_a_name RENAME TO had_another_name")?;
        let found = ended(database, flow_id)?;
        println!("{found}: {}", session.text("SELECT coalesce(first_error, '') FROM flow.flow")?);
        views_work(session)
    });
}

#[test]
fn a_role_without_connect_waits_visibly_and_runs_when_it_may() {
    test("role_no_connect", |database, session| {
        session.run("REVOKE CONNECT ON DATABASE role_no_connect FROM PUBLIC")?;
        session.run("DROP ROLE IF EXISTS kept_out; CREATE ROLE kept_out LOGIN IN ROLE flow_user")?;
        configure_one(session, "a", "t.notes")?;
        let flow_id = session.number("SET ROLE kept_out; SELECT flow.run_flow('a', '{}')")?;
        session.run("RESET ROLE")?;
        // Either it fails and says why, or it waits and the views say why.
        database.wait_until(
            "EXISTS (SELECT FROM flow.flow WHERE processed IS NOT NULL)
            OR (SELECT starvation LIKE '%connect%' FROM async.v_server_info)",
            SOON,
        )?;
        println!(
            "{}",
            session
                .text("SELECT coalesce(first_error, (SELECT starvation FROM async.v_server_info)) FROM flow.flow")?
        );
        ends_as(database, session, "a", "a Finished")?; // others go on
        if session.truth(&format!("SELECT processed IS NULL FROM flow.flow WHERE flow_id = {flow_id}"))? {
            session.run("GRANT CONNECT ON DATABASE role_no_connect TO kept_out")?;
            same(ended(database, flow_id)?, "a Finished")?;
        }
        Ok(())
    });
}

#[test]
fn an_extension_made_by_another_superuser_works_the_same() {
    test_without_extension("role_boss", |database| {
        database.connect()?.run("DROP ROLE IF EXISTS boss; CREATE ROLE boss LOGIN SUPERUSER")?;
        database.connect_as("boss")?.run("CREATE EXTENSION pgflow")?;
        let mut session = set_up(database)?;
        database.role("bosses_user")?;
        configure(&mut session, "f", r#"{"node": "a", "routine": "t.notes", "steps": [{"s": 1}, {"s": 2}]}"#)?;
        for role in ["postgres", "boss", "bosses_user"] {
            let mut session = database.connect_as(role)?;
            ends_as(database, &mut session, "f", "a Finished")?;
        }
        same(session.text("SELECT string_agg(DISTINCT who, ' ' ORDER BY who) FROM t.log")?, "boss bosses_user postgres")
    });
}
