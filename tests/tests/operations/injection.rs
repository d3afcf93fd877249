//! Names and texts with quotes, backslashes and SQL in them are stored and shown, or refused. None is ever executed.

use anyhow::{ensure, Result};
use pgflow_tests::session::{literal, Session};

use crate::kit::*;

const NASTY: [&str; 10] = [
    "'); DROP TABLE t.canary; --",
    "\"); DROP TABLE t.canary; --",
    "$$; DROP TABLE t.canary; $$",
    "\\'; DROP TABLE t.canary; --",
    "%s %I %L %1$s {} {0}",
    "tab\tnewline\nreturn\r",
    "naïve Ünïcode 名前 🚀 \u{202e}",
    "a.b.c\"d'e`f",
    "]]> --> </script> <b> & label=\"x\"]",
    " ",
];

fn json(text: &str) -> String {
    literal(&serde_json::Value::String(text.into()).to_string())
}

/// Stored or refused with an error of the user's kind, but never an internal one or a syntax error.
fn stored_or_refused(session: &mut Session, call: &str) -> Result<bool> {
    match session.run(call) {
        Ok(()) => Ok(true),
        Err(error) => {
            let text = format!("{error:#}");
            for bad in ["ERROR XX000", "ERROR 42601", "PANIC", "FATAL", "ERROR 22P02"] {
                ensure!(!text.contains(bad), "{call}: {text}");
            }
            Ok(false)
        }
    }
}

fn intact(session: &mut Session) -> Result<()> {
    same(session.number("SELECT count(*) FROM t.canary")?, 1)
}

fn canary(session: &mut Session) -> Result<()> {
    session.run("CREATE TABLE t.canary (i INT); INSERT INTO t.canary VALUES (1)")
}

#[test]
fn names_of_flows_and_nodes_are_never_executed() {
    test("nasty_names", |database, session| {
        canary(session)?;
        let mut stored = 0;
        for text in NASTY {
            let (name, node) = (literal(text), json(text));
            let configuration = r#"'{"nodes": [{"node": "a", "routine": "t.notes"}]}'"#;
            if stored_or_refused(session, &format!("SELECT flow.configure_flow({name}, {configuration})"))? {
                stored += 1;
                let flow_id = session.number(&format!("SELECT flow.run_flow({name}, '{{}}')"))?;
                same(ended(database, flow_id)?, "a Finished")?;
                same(session.text(&format!("SELECT flow FROM flow.v_flow_status WHERE flow_id = {flow_id}"))?, text)?;
                for call in [
                    format!("SELECT flow.graphviz({flow_id})"),
                    format!("SELECT flow.graphviz({name})"),
                    format!("SELECT flow.task_list({flow_id})"),
                    format!("SELECT flow.walk_flow({name})"),
                    format!("SELECT flow.configure_flow({name}, flow.configuration({name}))"),
                    format!("SELECT flow.restart_flow({flow_id})"),
                ] {
                    session.run(&call)?;
                }
                database.wait_run(flow_id)?;
                session.run(&format!("SELECT flow.drop_flow({name})"))?;
            }
            // As a node, a target, a routine, a pool routine, a parent, a role, an unknown key.
            for configuration in [
                format!(
                    r#"jsonb_build_object('nodes', jsonb_build_array(jsonb_build_object('node', {node}::JSONB, 'routine', 't.notes')))"#
                ),
                format!(
                    r#"jsonb_build_object('nodes', jsonb_build_array(jsonb_build_object('node', 'a', 'routine', {node}::JSONB)))"#
                ),
                format!(
                    r#"jsonb_build_object('nodes', jsonb_build_array(jsonb_build_object('node', 'a', 'routine', 't.notes', 'target', {node}::JSONB)))"#
                ),
                format!(
                    r#"jsonb_build_object('nodes', jsonb_build_array(jsonb_build_object('node', 'a', 'routine', 't.notes', 'steps_to_flow', {node}::JSONB)))"#
                ),
                format!(
                    r#"jsonb_build_object('nodes', jsonb_build_array(jsonb_build_object('node', 'a', 'routine', 't.notes', 'node_timeout', {node}::JSONB)))"#
                ),
                format!(
                    r#"jsonb_build_object('nodes', jsonb_build_array(jsonb_build_object('node', 'a', 'routine', 't.notes', {name}, 1)))"#
                ),
                format!(
                    r#"jsonb_build_object('nodes', jsonb_build_array(jsonb_build_object('node', 'a', 'routine', 't.notes', 'dependencies', jsonb_build_array(jsonb_build_object('parent', {node}::JSONB)))))"#
                ),
                format!(
                    r#"jsonb_build_object('concurrency_group_routine', {node}::JSONB, 'nodes', jsonb_build_array(jsonb_build_object('node', 'a', 'routine', 't.notes')))"#
                ),
                format!(
                    r#"jsonb_build_object('flow', jsonb_build_object('run_as', {node}::JSONB), 'nodes', jsonb_build_array(jsonb_build_object('node', 'a', 'routine', 't.notes')))"#
                ),
            ] {
                stored_or_refused(session, &format!("SELECT flow.configure_flow('f', {configuration})"))?;
                stored_or_refused(session, &format!("SELECT * FROM flow.validate({configuration})"))?;
                if session.truth("SELECT flow.configuration('f') IS NOT NULL")? {
                    if let Ok(flow_id) = run(session, "f") {
                        database.wait_run(flow_id)?;
                        session.run(&format!("SELECT flow.graphviz({flow_id})"))?;
                    }
                }
            }
            intact(session)?;
        }
        println!("{stored} of {} names were stored", NASTY.len());
        Ok(())
    });
}

#[test]
fn texts_that_functions_take_are_never_executed() {
    test("nasty_texts", |database, session| {
        canary(session)?;
        configure(session, "f", r#"{"node": "a", "node_routine": "t.waits", "step_routine": "t.notes"}"#)?;
        let flow_id = run(session, "f")?;
        wait_running(database, 1)?;
        let task_id = session.number("SELECT task_id FROM async.running()")?;
        for text in NASTY {
            let (text, value) = (literal(text), json(text));
            for call in [
                format!("SELECT flow.run_flow({text}, '{{}}')"),
                format!("SELECT flow.run_flow('f', {value}::JSONB, ARRAY[{text}])"),
                format!("SELECT flow.restart_flow({flow_id}, {text})"),
                format!("CALL flow.push_steps({flow_id}, {text}, ARRAY['{{\"s\": 1}}']::JSONB[])"),
                format!("CALL flow.push_steps({flow_id}, 'a', ARRAY[jsonb_build_object({text}, {text}, 's', {text})])"),
                format!("CALL flow.finish(ROW({flow_id}, {text}, '{{}}', {text}, '{{}}', {task_id})::flow.callback_arguments_t, true, {text})"),
                format!("CALL flow.defer(ROW({flow_id}, {text}, '{{}}', {text}, '{{}}', {task_id})::flow.callback_arguments_t, '1 s')"),
                format!("SELECT flow.progress(ROW({flow_id}, {text}, '{{}}', {text}, '{{}}', {task_id})::flow.callback_arguments_t, 1, 2, {text})"),
                format!("SELECT flow.drop_flow({text})"),
                format!("SELECT flow.configuration({text})"),
                format!("SELECT flow.walk_flow({text})"),
                format!("SELECT flow.node_status_color({text})"),
                format!("SELECT async.setting({text})"),
                format!("SELECT async.log({text}, {text})"),
                format!("SELECT async.log({text})"),
                format!("SELECT async.tail_once(NULL, {text})"),
                format!("SELECT async.get_tasks({text})"),
                format!("SELECT async.drop_target({text})"),
                format!("SELECT async.drop_pool({text})"),
                format!("SELECT async.server({text})"),
                format!("SELECT async.target_name({text})"),
                format!("SELECT async.push_task(async.task('SELECT 1', {text}))"),
                format!("SELECT async.push_task(async.task('SELECT 1', NULL, {value}::JSONB, 0, {text}), 'EXECUTE', {text})"),
                format!("SELECT async.cancel(ARRAY[(SELECT max(task_id) FROM async.task WHERE flow_id IS NULL)], {text})"),
                format!("SELECT async.configure(jsonb_build_object('targets', jsonb_build_array(jsonb_build_object('target', {text}, 'connection_string', {text}))))"),
                format!("SELECT async.configure(jsonb_build_object('targets', jsonb_build_array(jsonb_build_object('target', {text}, 'kind', 'external'))))"),
                format!("SELECT async.configure(jsonb_build_object('concurrency_pools', jsonb_build_array(jsonb_build_object('concurrency_pool', {text}, 'max_workers', 2))))"),
                format!("SELECT async.configure(jsonb_build_object('control', jsonb_build_object('default_timeout', {text})))"),
                format!("SELECT async.configure(jsonb_build_object({text}, {text}))"),
            ] {
                stored_or_refused(session, &call)?;
            }
            intact(session)?;
        }
        for view in [
            "async.v_task",
            "async.v_target",
            "async.v_target_status",
            "async.v_concurrency_pool_info",
            "async.v_task_log",
            "flow.v_flow_task_status",
            "flow.v_flow_node_status",
        ] {
            session.run(&format!("SELECT * FROM {view}"))?;
        }
        open_gate(session)?;
        database.wait_run(flow_id)?;
        // Every step came with the very text that was pushed.
        let came = session.column("SELECT substr(what, 2) FROM t.log WHERE what <> 'a' ORDER BY id")?;
        for text in NASTY {
            ensure!(came.iter().any(|c| c == text), "{text:?} is not among {came:?}");
        }
        database
            .wait_until("NOT EXISTS (SELECT FROM async.task t WHERE processed IS NULL AND t.target = 'local')", SOON)?;
        intact(session)
    });
}

#[test]
fn names_of_roles_databases_and_schemas_are_never_executed() {
    test("nasty_roles", |database, session| {
        canary(session)?;
        let name = "x\"; DROP TABLE t.canary; --'";
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        session.run(&format!("DROP ROLE IF EXISTS {quoted}"))?;
        session.run(&format!("CREATE ROLE {quoted} LOGIN IN ROLE flow_user"))?;
        session.run(&format!("GRANT CREATE ON DATABASE nasty_roles TO {quoted}"))?;
        let mut user = database.connect_as(name)?;
        user.run(&format!(
            "CREATE SCHEMA {quoted};
             CREATE PROCEDURE {quoted}.{quoted}(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $x$ BEGIN INSERT INTO t.log (what) VALUES ('ran'); END $x$;
             CREATE FUNCTION {quoted}.pool(BIGINT, TEXT) RETURNS TEXT LANGUAGE sql AS $x$ SELECT $y${name}$y$ $x$"
        ))?;
        let routine = serde_json::Value::String(format!("{quoted}.{quoted}")).to_string();
        let pool = serde_json::Value::String(format!("{quoted}.pool")).to_string();
        let configuration =
            format!(r#"{{"concurrency_group_routine": {pool}, "nodes": [{{"node": "a", "routine": {routine}}}]}}"#);
        match user.run(&format!("SELECT flow.configure_flow('f', {})", literal(&configuration))) {
            Ok(()) => {
                ends_as(database, &mut user, "f", "a Finished")?;
                same(log(session)?, "ran")?;
                session.run("SELECT async.pause()")?;
                let flow_id = run(&mut user, "f")?;
                session.run(&format!("DROP OWNED BY {quoted} CASCADE; SELECT async.resume()"))?;
                database.wait_run(flow_id)?;
                println!("{}", session.text(&format!("SELECT first_error FROM flow.flow WHERE flow_id = {flow_id}"))?);
            }
            Err(error) => println!("refused: {error:#}"),
        }
        intact(session)
    });
}
