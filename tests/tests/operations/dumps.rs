//! pg_dump and pg_restore of a database with configured flows, finished and open runs.

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::{Database, Kind};
use pgflow_tests::postmaster::run as run_program;
use pgflow_tests::session::Session;

use crate::kit::*;

/// What the copy must show as the original does.
const SHOWN: [&str; 10] = [
    "SELECT jsonb_agg(to_jsonb(v) - 'run_time' ORDER BY flow_id) FROM flow.v_flow_status v",
    "SELECT jsonb_agg(to_jsonb(v) - 'run_time' - 'in_progress' - 'changed' ORDER BY flow_id, node) FROM flow.v_flow_node_status v
     WHERE node <> 'w'",
    "SELECT jsonb_agg(to_jsonb(v) - 'run_time' ORDER BY task_id) FROM flow.v_flow_task_status v WHERE node <> 'w'",
    "SELECT format('%s %s %s', count(*), min(task_id), max(task_id)) FROM async.v_task",
    "SELECT flow.configuration()",
    "SELECT jsonb_agg(to_jsonb(t) ORDER BY target) FROM async.target t",
    "SELECT jsonb_agg(to_jsonb(t) ORDER BY 1) FROM async.concurrency_pool t",
    "SELECT jsonb_agg(jsonb_build_array(task_id, level, message) ORDER BY task_id, attempt, seq) FROM async.task_log",
    "SELECT jsonb_agg(to_jsonb(p) ORDER BY schemaname, tablename, policyname) FROM pg_policies p",
    "SELECT jsonb_agg(jsonb_build_array(p.oid::REGPROCEDURE::TEXT, pg_get_userbyid(p.proowner), p.proacl::TEXT) ORDER BY p.oid::REGPROCEDURE::TEXT)
     FROM pg_proc p WHERE p.pronamespace IN ('async'::regnamespace, 'flow'::regnamespace)",
];

/// One run of the superuser's that has ended and one that waits; one of a role's; a task that runs now.
fn fill(database: &Database, session: &mut Session) -> Result<i64> {
    database.role("dump_owner")?;
    session.run(
        r#"SELECT async.configure('{"targets": [{"target": "later", "asynchronous_finish": true, "max_concurrency": 7}],
        "concurrency_pools": [{"concurrency_pool": "some", "max_workers": 3}]}')"#,
    )?;
    callback(session, "speaks", "RAISE NOTICE 'said'; INSERT INTO t.log (what) VALUES ('spoke');")?;
    configure(
        session,
        "open",
        r#"{"node": "a", "routine": "t.speaks"},
           {"node": "b", "routine": "t.nothing", "target": "later", "dependencies": [{"parent": "a"}]},
           {"node": "c", "routine": "t.notes", "dependencies": [{"parent": "b"}], "steps": [{"s": 1}, {"s": 2}]},
           {"node": "w", "routine": "t.waits"}"#,
    )?;
    let open = run(session, "open")?;
    database.wait_until(&format!("(SELECT count(*) = 1 FROM flow.v_flow_node_status WHERE flow_id = {open} AND node = 'b' AND status = 'Running Async')"), SOON)?;
    wait_running(database, 1)?;
    // Enough that the restore of async.task takes a while.
    session.run("SELECT count(*) FROM async.push_tasks(ARRAY(SELECT async.task(NULL, NULL, '{\"some\": \"data\"}') FROM generate_series(1, 40000)), 'EMPTY')")?;
    configure(session, "closed", r#"{"node": "a", "routine": "t.speaks"}, {"node": "b", "routine": "t.fails"}"#)?;
    let mut owner = database.connect_as("dump_owner")?;
    for session in [session, &mut owner] {
        for _ in 0..3 {
            let flow_id = run(session, "closed")?;
            database.wait_run(flow_id)?;
            pause(150); // the dispatcher's housekeeping has its turn in between
        }
    }
    Ok(open)
}

fn dumped_and_restored(original: &Database, name: &str, jobs: &str) -> Result<()> {
    let cluster = original.cluster;
    let folder = std::env::temp_dir().join(format!("pgflow-dump-{}-{name}", std::process::id()));
    run_program(cluster.client_program("pg_dump").args(["-Fd", "-f"]).arg(&folder).arg(&original.name))?;
    cluster.plain_database(name)?;
    let result = run_program(
        cluster.client_program("pg_restore").args(["--exit-on-error", "-j", jobs, "-d", name]).arg(&folder),
    );
    std::fs::remove_dir_all(&folder)?;
    result.map(drop)
}

fn restored_goes_on(name: &str, jobs: &str) {
    let options = Cluster::options().setting("pgflow.purge_interval", "100ms").setting("pgflow.worker_idle_time", "1s");
    test_alone("dumped", options, |original, session| {
        let open = fill(original, session)?;
        dumped_and_restored(original, name, jobs)?;
        let copy = Database::new(original.cluster, name);
        let mut there = copy.connect()?;
        let marks = "SELECT format('open_low %s next_low %s', open_low, next_low) FROM async.engine_state";
        println!("original {}; restored {}", session.text(marks)?, there.text(marks)?);
        let log_before = log(&mut there)?;
        open_gate(&mut there)?;

        for query in SHOWN {
            let (wanted, found) = (session.text(query)?, there.text(query)?);
            ensure!(found == wanted, "{query}\nrestored {found}\noriginal {wanted}");
        }
        let mut owner = copy.connect_as("dump_owner")?;
        same(owner.text("SELECT string_agg(DISTINCT run_as, ', ') FROM flow.flow")?, "dump_owner")?;
        same(owner.number("SELECT count(*) FROM flow.v_flow_status")?, 3)?;

        pause(1000);
        contains(&there.text("SELECT server_status FROM async.v_server_info")?, "adopt")?;
        same(copy.pids(Kind::Worker)?.len(), 0)?;
        same(log(&mut there)?, log_before.as_str())?;

        there.run("SELECT async.adopt()")?;
        copy.wait_until(
            &format!("(SELECT status = 'Finished' FROM flow.v_flow_node_status WHERE flow_id = {open} AND node = 'w')"),
            SOON,
        )?;
        there.run(&format!(
            "DO $$ DECLARE _args flow.callback_arguments_t; BEGIN
               SELECT f.flow_id, f.flow, f.arguments, n.node, '{{}}', n.task_id INTO _args
                 FROM flow.flow f JOIN flow.flow_node n USING (flow_id) WHERE f.flow_id = {open} AND n.node = 'b';
               CALL flow.finish(_args); END $$"
        ))?;
        same(ended(&copy, open)?, "a Finished, b Finished, c Finished, w Finished")?;
        same(log(&mut there)?.replace(&log_before, "").trim(), "w c c1 c2")?;
        // New work gets numbers that nothing had.
        ends_as(&copy, &mut owner, "closed", "a Finished, b Failed")?;
        // The original has not noticed.
        same(session.number("SELECT count(*) FROM async.running()")?, 1)?;
        open_gate(session)
    });
}

#[test]
fn a_restored_dump_shows_everything_and_goes_on_when_it_is_adopted() {
    restored_goes_on("restored", "1");
}

#[test]
fn so_does_one_that_was_restored_in_parallel() {
    restored_goes_on("restored_in_parallel", "3");
}

/// Whatever is loaded first: tasks without the row that says where they ran are no work of this database yet.
#[test]
fn nothing_is_concluded_from_tables_that_are_half_loaded() {
    test_alone("halves", Cluster::options(), |original, session| {
        fill(original, session)?;
        let cluster = original.cluster;
        let file = cluster.directory().join("halves.dump");
        run_program(cluster.client_program("pg_dump").args(["-Fc", "-f"]).arg(&file).arg(&original.name))?;
        let contents =
            String::from_utf8(run_program(cluster.client_program("pg_restore").arg("-l").arg(&file))?.stdout)?;
        let is_late = |line: &&str| {
            ["control", "engine_state", "target"].iter().any(|t| line.contains(&format!("TABLE DATA async {t} ")))
        };
        let (late, early): (Vec<&str>, Vec<&str>) = contents.lines().partition(is_late);
        ensure!(late.len() == 3, "{contents}");
        cluster.plain_database("halves_restored")?;
        let copy = Database::new(cluster, "halves_restored");
        let load = |lines: Vec<&str>| -> Result<()> {
            let list = cluster.directory().join("halves.list");
            std::fs::write(&list, lines.join("\n"))?;
            let mut command = cluster.client_program("pg_restore");
            run_program(command.args(["--exit-on-error", "-d", &copy.name, "-L"]).arg(&list).arg(&file)).map(drop)
        };
        load(early)?;
        let mut there = copy.connect()?;
        let log_before = log(&mut there)?;
        let tasks = "SELECT jsonb_agg(to_jsonb(t) ORDER BY task_id)::text FROM async.task t";
        let nodes = "SELECT jsonb_agg(to_jsonb(n) ORDER BY flow_id, node_no)::text FROM flow.flow_node n";
        let (tasks_before, nodes_before) = (there.text(tasks)?, there.text(nodes)?);
        for wakes_the_dispatcher in [true, false] {
            pause(500);
            ensure!(there.text(tasks)? == tasks_before && there.text(nodes)? == nodes_before, "something was done");
            same(log(&mut there)?, log_before.as_str())?;
            if wakes_the_dispatcher {
                there.run("SELECT async.pause(), async.resume()")?;
            }
        }
        load(late)?;
        pause(300);
        contains(&there.text("SELECT server_status FROM async.v_server_info")?, "adopt")?;
        ensure!(there.text(tasks)? == tasks_before, "something was done");
        Ok(())
    });
}

#[test]
fn the_first_work_makes_a_new_database_its_own() {
    test("new", |database, session| {
        let identity = "SELECT (system_identifier IS NOT NULL)::TEXT FROM async.engine_state";
        let ended = "(SELECT count(*) = 1 FROM async.v_task WHERE processed IS NOT NULL)";
        let mut first = database.connect()?;
        first.run("BEGIN; SELECT async.push_tasks(ARRAY[async.task('SELECT 1')], NULL)")?;
        same(first.text(identity)?, "true")?;
        // Another's first work does not wait for it.
        same(session.text(identity)?, "false")?;
        session.run("SELECT async.push_tasks(ARRAY[async.task('SELECT 2')], NULL)")?;
        database.wait_until(ended, SOON)?;
        first.run("ROLLBACK")?;
        session.run("SELECT async.push_tasks(ARRAY[async.task('SELECT 3')], NULL)")?;
        same(session.text(identity)?, "true")
    });
}

/// What a copy has kept is not for its dispatcher to delete before somebody has adopted it.
#[test]
fn nothing_is_purged_from_a_copy_before_it_is_adopted() {
    let options = Cluster::options().setting("pgflow.purge_interval", "100ms").setting("pgflow.keep_runs_for", "1d");
    test_alone("kept", options, |original, session| {
        session.run("SELECT async.pause()")?;
        configure_one(session, "a", "t.nothing")?;
        run(session, "a")?;
        dumped_and_restored(original, "archive", "1")?;
        let copy = Database::new(original.cluster, "archive");
        let mut there = copy.connect()?;
        // Only now, so that the original has nothing to purge.
        there.run(
            "UPDATE flow.flow SET created = now() - interval '9 days', processed = now() - interval '8 days',
            count_finished_nodes = 1; UPDATE flow.flow_node SET state = 'F', ended = now() - interval '8 days';
            UPDATE async.task SET processed = now() - interval '8 days', finish_status = 'FINISHED', failed = false",
        )?;
        there.run("SELECT async.pause()")?; // wakes the dispatcher
        pause(500);
        same(there.number("SELECT count(*) FROM flow.flow")?, 1)?;
        there.run("SELECT async.adopt(), async.resume()")?;
        copy.wait_until("NOT EXISTS (SELECT FROM flow.flow)", SOON)
    });
}
