//! What belongs to another role cannot be touched, nor read: by no function, table, view, note or log.

use anyhow::{ensure, Result};
use pgflow_tests::session::Session;

use crate::kit::*;

const SECRET: &str = "s3cret-7392";

fn denied(session: &mut Session, call: &str) -> Result<()> {
    let error = session.error(call)?;
    ensure!(error.starts_with("ERROR 42501"), "{call}: {error}");
    Ok(())
}

#[test]
fn nobody_can_forge_or_read_what_is_anothers() {
    test("forged", |database, session| {
        database.role("forge_victim")?;
        database.role("forger")?;
        session.run(r#"SELECT async.configure('{"targets": [{"target": "later", "asynchronous_finish": true}, {"target": "outside", "kind": "external"}]}')"#)?;
        callback(
            session,
            "progresses",
            &format!(
                "RAISE NOTICE '{SECRET}'; PERFORM flow.progress(_args, 1, 2, '{SECRET}');
             FOR i IN 1..6000 LOOP EXIT WHEN EXISTS (SELECT FROM t.gate); PERFORM pg_sleep(0.01); END LOOP;"
            ),
        )?;
        callback(session, "fails_secretly", &format!("RAISE EXCEPTION '{SECRET}';"))?;
        let mut victim = database.connect_as("forge_victim")?;
        configure(
            &mut victim,
            "f",
            r#"{"node": "a", "routine": "t.progresses"}, {"node": "b", "routine": "t.nothing", "target": "later"},
               {"node": "x", "target": "outside", "routine": "x"}, {"node": "e", "routine": "t.fails_secretly"}"#,
        )?;
        configure_one(&mut victim, "done", "t.nothing")?;
        ends_as(database, &mut victim, "done", "done Finished")?;
        let flow_id = victim.number(&format!(r#"SELECT flow.run_flow('f', '{{"password": "{SECRET}"}}')"#))?;
        database.wait_until(&format!("(SELECT count(*) = 2 FROM flow.v_flow_node_status WHERE flow_id = {flow_id} AND status LIKE 'Running%' AND node IN ('a', 'b'))"), SOON)?;
        database.wait_until("EXISTS (SELECT FROM async.external_queue)", SOON)?;
        victim.run(&format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": \"{SECRET}\"}}']::JSONB[])"))?;
        session.run(&format!(
            "SELECT async.log('NOTICE', '{SECRET}'); INSERT INTO async.concurrency_pool VALUES ('p', 1)"
        ))?;
        let tasks = session.column(&format!("SELECT task_id FROM async.task WHERE flow_id = {flow_id}"))?;

        let mut forger = database.connect_as("forger")?;
        for call in [
            format!("SELECT flow.cancel({flow_id})"),
            format!("SELECT flow.restart_flow({})", flow_id - 1),
            format!("SELECT flow.restart_flow({flow_id})"),
            format!("SELECT flow.retry_failed({flow_id})"),
            format!("SELECT flow.set_priority({flow_id}, 1)"),
            format!("SELECT flow.set_step_priority({flow_id}, {}, 1)", tasks[0]),
            format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": 1}}']::JSONB[])"),
            "SELECT flow.drop_flow('f')".into(),
            r#"SELECT flow.configure_flow('f', '{"nodes": [{"node": "a", "routine": "t.nothing"}]}')"#.into(),
            r#"SELECT flow.configure_flow('f', '{"nodes": [{"node": "z", "routine": "t.nothing"}]}', true)"#.into(),
            r#"SELECT flow.configure_flow('mine', '{"flow": {"run_as": "postgres"}, "nodes": [{"node": "z", "routine": "t.nothing"}]}')"#.into(),
            "SELECT async.configure('{}')".into(),
        ] {
            denied(&mut forger, &call)?;
        }
        for task in &tasks {
            for call in [
                format!("SELECT async.finish(ARRAY[{task}]::BIGINT[], 'FINISHED', NULL, NULL)"),
                format!("SELECT async.cancel(ARRAY[{task}]::BIGINT[])"),
                format!("SELECT async.defer(ARRAY[{task}]::BIGINT[], '1 h')"),
                format!("SELECT async.restart_task({task})"),
                format!("SELECT flow.run_flow('done', '{{}}', _parent_task_id => {task}::BIGINT)"),
            ] {
                denied(&mut forger, &call)?;
            }
            for node in ["a", "b", "x", "e"] {
                let arguments =
                    format!("ROW({flow_id}, 'f', '{{}}', '{node}', '{{}}', {task})::flow.callback_arguments_t");
                denied(&mut forger, &format!("CALL flow.finish({arguments})"))?;
                denied(&mut forger, &format!("CALL flow.defer({arguments}, '1 h')"))?;
                forger.run(&format!("SELECT flow.progress({arguments}, 9, 9, 'forged')"))?;
            }
        }
        // Not in a callback of one's own either.
        callback(
            session,
            "forges",
            &format!(
                "CALL flow.finish(ROW({flow_id}, 'f', '{{}}', 'b', '{{}}', {})::flow.callback_arguments_t);",
                tasks[1]
            ),
        )?;
        configure_one(&mut forger, "forges", "t.forges")?;
        ends_as(database, &mut forger, "forges", "forges Failed")?;
        same(forger.number("SELECT count(*) FROM async.get_tasks('outside', 100)")?, 0)?;
        same(session.text("SELECT progress_note FROM async.running() WHERE progress_note IS NOT NULL")?, SECRET)?;

        reads_nothing(session, &mut forger, flow_id, &tasks)?;
        // A monitor reads all of it, and changes none.
        session.run("DROP ROLE IF EXISTS forge_monitor; CREATE ROLE forge_monitor LOGIN IN ROLE flow_monitor")?;
        let mut monitor = database.connect_as("forge_monitor")?;
        same(monitor.text("SELECT progress_note FROM async.running() WHERE progress_note IS NOT NULL")?, SECRET)?;
        ensure!(monitor.number("SELECT count(*) FROM flow.v_flow_status")? >= 3, "a monitor sees too little");
        for call in [
            format!("SELECT flow.cancel({flow_id})"),
            "SELECT flow.run_flow('done', '{}')".into(),
            "SELECT async.pause()".into(),
        ] {
            denied(&mut monitor, &call)?;
        }
        open_gate(session)?;
        victim.run(&format!("SELECT flow.cancel({flow_id})"))
    });
}

fn reads_nothing(session: &mut Session, forger: &mut Session, flow_id: i64, tasks: &[String]) -> Result<()> {
    let relations = session.column(
        "SELECT oid::REGCLASS FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE)",
    )?;
    ensure!(relations.len() > 25, "{relations:?}");
    for relation in relations {
        match forger.rows(&format!("SELECT x::TEXT FROM {relation} x")) {
            Err(error) => contains(&format!("{error:#}"), "42501")?,
            Ok(rows) => {
                for row in rows {
                    let text = row[0].clone().unwrap_or_default();
                    ensure!(!text.contains(SECRET), "{relation}: {text}");
                    // A flow's author is for all to see, and so is who refused the forger's own task.
                    ensure!(
                        !text.contains("forge_victim")
                            || relation.contains("config")
                            || relation.contains("definition")
                            || relation.contains("worker_info")
                            || text.contains("permission denied for task"),
                        "{relation}: {text}"
                    );
                }
            }
        }
    }
    for call in [
        format!("SELECT flow.args({flow_id})"),
        format!("SELECT flow.graphviz({flow_id})"),
        format!("SELECT flow.graphviz_events({flow_id}, '2000-01-01')"),
        format!("SELECT flow.task_list({flow_id})"),
        format!("SELECT flow.wait({flow_id}, '0')"),
        format!("CALL flow.watch({flow_id})"),
        "SELECT flow.flows()".into(),
        "SELECT async.tail_once()".into(),
        "SELECT async.running()".into(),
        "SELECT async.processes()".into(),
        "SELECT async.worker_info()".into(),
        "SELECT async.last_message()".into(),
        "SELECT query FROM pg_stat_activity".into(),
        "SELECT async.server()".into(),
        format!("SELECT async.callback_data(ARRAY[{}])", tasks.join(", ")),
        format!("SELECT flow.visible_run({flow_id})"),
        format!("SELECT flow.watch_look({flow_id})"),
        format!("SELECT async.lock_tasks(10, ARRAY[{}])", tasks.join(", ")),
    ] {
        let told = match forger.rows(&call) {
            Ok(rows) => rows.into_iter().map(|row| row[0].clone().unwrap_or_default()).collect::<Vec<_>>().join("\n"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(!told.contains(SECRET), "{call}: {told}");
    }
    // A leaky function in a condition does not get to see the rows that row-level security hides.
    forger.run("CREATE SCHEMA forging;
        CREATE FUNCTION forging.leaks(TEXT) RETURNS BOOL COST 0.0001 LANGUAGE plpgsql AS $x$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $x$")?;
    forger.notices();
    for relation in [
        "flow.flow",
        "async.task",
        "flow.flow_node",
        "async.task_log",
        "flow.v_flow_task",
        "async.v_task",
        "async.v_task_log",
    ] {
        forger.run(&format!("SELECT FROM {relation} x WHERE forging.leaks(x::TEXT)"))?;
        let said = forger.notices().join("\n");
        ensure!(
            !said.contains(SECRET) && (!said.contains("forge_victim") || said.contains("permission denied for task")),
            "{relation}: {said}"
        );
    }
    Ok(())
}

#[test]
fn what_is_internal_is_for_nobody() {
    test("internal", |database, session| {
        database.role("outsider")?;
        let open = session.column(
            "SELECT p.oid::REGPROCEDURE || ' for ' || r.rolname FROM pg_proc p, pg_roles r
             WHERE p.pronamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE)
               AND (p.proname ~ '(_as$|^announce_)' OR p.proname IN ('wake_launcher', 'hold_engine', 'decide_own', 'end_tasks',
                 'lose_attempts', 'settle', 'propagate', 'purge', 'store_definition', 'cancel_run', 'end_runs', 'set_paused',
                 'raise_open_low', 'delete_tasks', 'lock_tasks', 'end_tasks_for', 'note_tasks', 'insert_steps', 'adopt_as'))
               AND r.rolname IN ('outsider', 'flow_user', 'flow_monitor', 'flow_admin')
               AND has_function_privilege(r.oid, p.oid, 'EXECUTE')",
        )?;
        ensure!(open.is_empty(), "{open:?}");
        // Nothing at all is for PUBLIC.
        let public = session.column(
            "SELECT p.oid::REGPROCEDURE FROM pg_proc p, LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
             WHERE p.pronamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE) AND a.grantee = 0
             UNION ALL
             SELECT c.oid::REGCLASS::TEXT::REGPROCEDURE FROM pg_class c, LATERAL aclexplode(c.relacl) a
             WHERE c.relnamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE) AND a.grantee = 0 AND false",
        )?;
        ensure!(public.is_empty(), "{public:?}");
        // And nobody but the owner writes to a table.
        let writable = session.column(
            "SELECT c.oid::REGCLASS || ' ' || a.privilege_type || ' ' || a.grantee::REGROLE FROM pg_class c, LATERAL aclexplode(c.relacl) a
             WHERE c.relnamespace IN ('async'::REGNAMESPACE, 'flow'::REGNAMESPACE) AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT'",
        )?;
        ensure!(writable.is_empty(), "{writable:?}");
        Ok(())
    });
}

#[test]
fn a_schema_that_somebody_has_prepared_stops_the_installation() {
    for schema in ["async", "flow"] {
        test_without_extension(&format!("prepared_{schema}"), |database| {
            database.role("prepares")?;
            database.connect_as("prepares")?.run(&format!(
                "CREATE SCHEMA {schema}; CREATE FUNCTION {schema}.trap() RETURNS INT LANGUAGE sql AS 'SELECT 1'"
            ))?;
            refused(&mut database.connect()?, "CREATE EXTENSION pgflow", "already exists")
        });
    }
}

#[test]
fn an_admin_of_flows_cannot_make_himself_superuser() {
    test("ambition", |database, session| {
        session.run("DROP ROLE IF EXISTS ambitious; CREATE ROLE ambitious LOGIN IN ROLE flow_admin; GRANT CREATE ON DATABASE ambition TO ambitious")?;
        session.run(r#"SELECT flow.configure_flow('powerful', '{"flow": {"run_as": "postgres"}, "nodes": [{"node": "a", "routine": "t.nothing"}]}')"#)?;
        let mut admin = database.connect_as("ambitious")?;
        admin.run(
            "CREATE SCHEMA own; CREATE PROCEDURE own.takes_over(_args flow.callback_arguments_t) LANGUAGE plpgsql AS
            $x$ BEGIN ALTER ROLE ambitious SUPERUSER; END $x$; GRANT USAGE ON SCHEMA own TO PUBLIC",
        )?;
        for configuration in [
            r#"'{"flow": {"run_as": "postgres"}, "nodes": [{"node": "a", "routine": "own.takes_over"}]}'"#,
            r#"'{"nodes": [{"node": "a", "routine": "own.takes_over"}]}', true"#,
            r#"'{"nodes": [{"node": "b", "routine": "own.takes_over"}]}', true"#,
            r#"'{"concurrency_group_routine": "own.pool", "nodes": []}', true"#,
        ] {
            if admin.run(&format!("SELECT flow.configure_flow('powerful', {configuration})")).is_ok() {
                let flow_id = run(&mut admin, "powerful")?;
                database.wait_run(flow_id)?;
                let run_as = session.text(&format!("SELECT run_as FROM flow.flow WHERE flow_id = {flow_id}"))?;
                ensure!(run_as == "ambitious", "after configure_flow('powerful', {configuration}) it runs as {run_as}");
            }
        }
        same(session.truth("SELECT rolsuper FROM pg_roles WHERE rolname = 'ambitious'")?, false)
    });
}
