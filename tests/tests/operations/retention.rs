//! Finished runs are purged by number and by age, in batches; never those that open runs refer to.

use pgflow_tests::cluster::Cluster;

use crate::kit::*;

#[test]
fn the_newest_runs_are_kept_and_those_that_open_ones_refer_to() {
    let options = Cluster::options().setting("pgflow.purge_interval", "100ms").setting("pgflow.keep_runs", "5");
    test_alone("newest", options, |database, session| {
        configure_one(session, "a", "t.nothing")?;
        callback(
            session,
            "pushes",
            "CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{\"s\": 1}', '{\"s\": 2}']::JSONB[]);",
        )?;
        // An open run whose steps have started three runs: two have ended, one waits.
        configure(session, "child", r#"{"node": "n", "routine": "t.nothing"}"#)?;
        configure(
            session,
            "parent",
            r#"{"node": "starts", "steps_to_flow": "child", "node_routine": "t.pushes"},
               {"node": "waits", "routine": "t.waits"}"#,
        )?;
        let parent = run(session, "parent")?;
        database.wait_until(
            &format!("(SELECT count(*) = 2 FROM flow.flow WHERE parent_flow_id = {parent} AND processed IS NOT NULL)"),
            SOON,
        )?;
        for _ in 0..20 {
            let flow_id = run(session, "a")?;
            database.wait_run(flow_id)?;
        }
        pause(200);
        let last = run(session, "a")?; // the dispatcher looks when it is at work
        database.wait_run(last)?;
        let kept = "SELECT count(*) FROM flow.flow WHERE processed IS NOT NULL AND parent_flow_id IS NULL";
        wait_for("only the newest are there", || {
            pause(120);
            let next = run(session, "a")?;
            database.wait_run(next)?;
            Ok(session.number(kept)? <= 6)
        })?;
        same(session.number(&format!("SELECT count(*) FROM flow.flow WHERE parent_flow_id = {parent}"))?, 2)?;
        // Nothing of the others is left.
        for orphans in [
            "SELECT count(*) FROM flow.flow_node n WHERE NOT EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = n.flow_id)",
            "SELECT count(*) FROM flow.flow_step n WHERE NOT EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = n.flow_id)",
            "SELECT count(*) FROM async.task n WHERE NOT EXISTS (SELECT FROM flow.flow f WHERE f.flow_id = n.flow_id)",
            "SELECT count(*) FROM async.task_log n WHERE NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = n.task_id)",
        ] {
            same(session.number(orphans)?, 0)?;
        }
        open_gate(session)?;
        same(ended(database, parent)?, "starts Finished, waits Finished")
    });
}

#[test]
fn old_runs_and_tasks_go_in_batches_and_open_ones_stay() {
    let options = Cluster::options().setting("pgflow.purge_interval", "1h").setting("pgflow.keep_runs_for", "1d");
    test_alone("oldest", options, |database, session| {
        configure_one(session, "a", "t.nothing")?;
        configure_one(session, "w", "t.waits")?;
        let open = run(session, "w")?;
        wait_running(database, 1)?;
        session.run(
            "SELECT flow.run_flow('a', '{}') FROM generate_series(1, 60);
            SELECT async.push_tasks(array_agg(async.task('SELECT 1', NULL))) FROM generate_series(1, 40)",
        )?;
        database.wait_until("(SELECT count(*) = 1 FROM async.task WHERE processed IS NULL) AND (SELECT count(*) = 1 FROM flow.flow WHERE processed IS NULL)", SOON)?;
        session.run("UPDATE flow.flow SET created = now() - interval '3 days';
            UPDATE flow.flow SET processed = now() - interval '2 days' WHERE processed IS NOT NULL AND flow_id % 2 = 0;
            UPDATE async.task SET processed = now() - interval '2 days' WHERE processed IS NOT NULL AND flow_id IS NULL AND task_id % 2 = 0")?;
        let old = session.number("SELECT count(*) FROM flow.flow WHERE processed < now() - interval '1 day'")?;
        // One call deletes one batch.
        same(session.number("SELECT flow.purge('1 day', NULL, 10)")?, 10)?;
        same(session.number("SELECT async.purge('1 day', NULL, 10)")?, 10)?;
        same(session.number("SELECT count(*) FROM flow.flow WHERE processed < now() - interval '1 day'")?, old - 10)?;
        // The rest is the dispatcher's.
        database.cluster.set(&[("pgflow.purge_interval".into(), "100ms".into())])?;
        database.cluster.reload()?;
        let dispatcher = the(database, pgflow_tests::database::Kind::Dispatcher)?;
        session.run(&format!("SELECT pg_terminate_backend({dispatcher})"))?;
        wait_for("the old ones are gone", || {
            pause(120);
            let next = run(session, "a")?;
            database.wait_run(next)?;
            Ok(session.number("SELECT count(*) FROM flow.flow WHERE processed < now() - interval '1 day'")? == 0
                && session.number("SELECT count(*) FROM async.task WHERE processed < now() - interval '1 day'")? == 0)
        })?;
        same(session.number("SELECT count(*) FROM async.task WHERE flow_id IS NULL")?, 20)?;
        open_gate(session)?;
        same(ended(database, open)?, "w Finished")
    });
}
