//! Without shared_preload_libraries: everything but running.

use pgflow_tests::cluster::{Cluster, Stop};

use crate::kit::*;

#[test]
fn without_the_library_preloaded_flows_are_configured_and_drawn_but_not_run() {
    test_alone("unloaded", Cluster::options().not_preloaded(), |_, session| {
        configure(
            session,
            "f",
            r#"{"node": "a", "routine": "t.notes"}, {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        contains(&session.text("SELECT flow.graphviz('f')")?, "digraph")?;
        contains(
            &session.text(r#"SELECT string_agg(path || ' ' || message, E'\n') FROM flow.validate('{"nodes": [{"node": "a", "routine": "nowhere"}]}')"#)?,
            "nowhere",
        )?;
        refused(
            session,
            r#"SELECT flow.configure_flow('g', '{"nodes": [{"node": "a", "rutine": "t.notes"}]}')"#,
            "rutine",
        )?;
        session.run(r#"SELECT async.configure('{"targets": [{"target": "x", "kind": "external"}]}')"#)?;
        for call in [
            "SELECT flow.run_flow('f', '{}')",
            "SELECT flow.create_flow('f', '{}')",
            "SELECT async.push_task(async.task('SELECT 1', NULL))",
        ] {
            let error = session.error(call)?;
            contains(&error, "shared_preload_libraries = 'pgflow'")?;
            contains(&error, "postgresql.conf")?;
        }
        for view in [
            "async.v_server_info",
            "async.v_worker_info",
            "async.v_target_status",
            "async.v_concurrency_pool_info",
            "flow.v_flow_status",
            "flow.v_flow_node_status",
            "async.v_task",
            "flow.v_flow_configuration",
        ] {
            session.run(&format!("SELECT * FROM {view}"))?;
        }
        contains(&session.text("SELECT server_status FROM async.v_server_info")?, "shared_preload_libraries")?;
        session.run(
            "SELECT async.pause(); SELECT async.resume(); SELECT async.drain('1 s'); SELECT flow.drop_flow('f')",
        )?;
        for statement in [
            "CREATE DATABASE unloaded_too",
            "ALTER DATABASE unloaded_too RENAME TO unloaded_now",
            "DROP DATABASE unloaded_now",
        ] {
            session.run(statement)?;
        }
        session.run("DROP EXTENSION pgflow CASCADE")
    });
}

#[test]
fn runs_that_are_open_when_the_library_is_taken_away_go_on_when_it_is_back() {
    test_alone("taken_away", Cluster::options(), |database, session| {
        configure_one(session, "a", "t.waits")?;
        let flow_id = run(session, "a")?;
        wait_running(database, 1)?;
        let cluster = database.cluster;
        cluster.set(&[("shared_preload_libraries".into(), String::new())])?;
        cluster.restart(Stop::Fast)?;
        let mut session = database.connect()?;
        same(nodes(&mut session, flow_id)?, "a Pending")?;
        open_gate(&mut session)?;
        cluster.set(&[("shared_preload_libraries".into(), "pgflow".into())])?;
        cluster.restart(Stop::Fast)?;
        same(ended(database, flow_id)?, "a Finished")?;
        same(log(&mut database.connect()?)?, "a")
    });
}
