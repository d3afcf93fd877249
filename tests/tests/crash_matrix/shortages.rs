//! What is no death but a shortage: no room on a disk, no place for a process, no connection, no memory. While it lasts, work
//! fails or waits; when it is over, everything goes on, and each effect is there as often as its task has finished.

use std::fs;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use pgflow_tests::cluster::{Cluster, Options, Stop, SUPERUSER};
use pgflow_tests::database::Kind;
use pgflow_tests::failure::in_database;
use pgflow_tests::postmaster::{run, signal};
use pgflow_tests::session::Session;
use pgflow_tests::small_disk::SmallDisk;

use crate::invariants::{check_any, wait_for_runs};
use crate::round::{finish, wait_for, Before, Operator, PATIENCE};
use crate::world::{options, World};

/// A flow of steps that each write half a megabyte; what becomes of one is not the others' business.
const WRITERS: usize = 60;
const WRITES: &str = r#"
CREATE TABLE crash.big (step TEXT NOT NULL, content TEXT NOT NULL);
ALTER TABLE crash.big ALTER content SET STORAGE EXTERNAL;
CREATE PROCEDURE crash.writes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, _args.step_arguments->>'s', 'done');
  INSERT INTO crash.big SELECT _args.step_arguments->>'s', repeat('x', 500000);
  PERFORM pg_sleep(0.01);
END $$;
CREATE PROCEDURE crash.pushes_writers(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _steps JSONB[] := ARRAY(SELECT jsonb_build_object('s', i) FROM generate_series(1, 60) i);
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, NULL, 'done');
  CALL flow.push_steps(_args.flow_id, _args.node, _steps);
END $$;
SELECT flow.configure_flow('writing', '{"nodes": [
  {"node": "fill", "node_routine": "crash.pushes_writers", "step_routine": "crash.writes", "all_steps_must_complete": false},
  {"node": "then", "routine": "crash.acts", "dependencies": [{"parent": "fill"}]}]}');
"#;

/// Runs what failed for want of room again until nothing has, and checks that everything is there once.
fn everything_in_the_end(world: &World, flow_id: i64) -> Result<()> {
    let mut session = world.session()?;
    let failed = format!("SELECT count(*) FROM async.task WHERE flow_id = {flow_id} AND failed");
    while session.number(&failed)? > 0 {
        session.run(&format!("SELECT flow.restart_flow({flow_id})"))?;
        session.run("DELETE FROM crash.big; DELETE FROM crash.mark")?;
        wait_for_runs(world, PATIENCE)?;
    }
    let found = session.text(
        "SELECT (SELECT count(*) || ' ' || count(DISTINCT step) FROM crash.big) || ', ' || (SELECT count(*) FROM crash.mark)",
    )?;
    let wanted = format!("{WRITERS} {WRITERS}, {}", WRITERS + 2);
    ensure!(found == wanted, "found {found}, wanted {wanted}");
    Ok(())
}

#[test]
fn a_full_disk_fails_what_needs_room_and_nothing_else() -> Result<()> {
    let cluster = options().start()?;
    in_database(&cluster, "full", |database| {
        let world = World::build(database)?;
        let disk = SmallDisk::make(&cluster, "small", 64)?;
        let mut postgres = cluster.connect("postgres", SUPERUSER)?;
        postgres.run(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.place().display()))?;
        // Everything of the database: the engine's tables as well as the user's.
        postgres.run("ALTER DATABASE \"full\" SET TABLESPACE small")?;
        let mut session = world.session()?;
        session.run(WRITES)?;
        let before = Before::of(&world, true)?;
        // Within a moment there is no room for anything, not for a claim either.
        disk.fill(&cluster, 6 << 20)?;
        let flow_id = session.number("SELECT flow.run_flow('writing', '{}')")?;
        let short = if disk.is_mounted() { "No space left on device" } else { "File too large" };
        let trouble = format!(
            "SELECT EXISTS (SELECT FROM async.task WHERE flow_id = {flow_id} AND processing_error LIKE '%{short}%')"
        );
        wait_for("somebody has run out of room", || {
            Ok(session.truth(&trouble)? || cluster.log_tail(1, short).contains("pgflow"))
        })?;
        std::thread::sleep(Duration::from_millis(1500));
        println!("while it was full: {}", engine(&mut session)?);
        disk.free(&cluster)?;
        wait_for_runs(&world, PATIENCE)?;
        let ends = session.column(
            "SELECT finish_status || ' ' || count(*) || coalesce(': ' || min(processing_error), '')
             FROM async.task WHERE is_step AND flow_id > 1 GROUP BY finish_status",
        )?;
        println!("{ends:?}");
        ensure!(ends.iter().all(|end| end.starts_with("FINISHED") || end.contains(short)), "{ends:?}");
        check_any(&world, &before)?;
        everything_in_the_end(&world, flow_id)
    });
    Ok(())
}

/// What the engine's processes say of themselves.
fn engine(session: &mut Session) -> Result<String> {
    session.text(
        "SELECT string_agg(kind || ' ' || state || coalesce(' (' || left(last_error, 100) || ')', ''), ', ')
         FROM async.processes() WHERE kind <> 'worker'",
    )
}

#[test]
fn no_room_for_the_log_of_transactions_is_a_crash_like_any_other() -> Result<()> {
    let cluster = options().setting("max_wal_size", "80MB").setting("min_wal_size", "32MB").start()?;
    in_database(&cluster, "wal", |database| {
        let world = World::build(database)?;
        world.session()?.run(WRITES)?;
        let before = Before::of(&world, false)?;
        // pg_wal on a disk of its own.
        let disk = SmallDisk::make(&cluster, "small", 160)?;
        cluster.stop(Stop::Fast)?;
        let (here, there) = (cluster.data().join("pg_wal"), disk.place().join("pg_wal"));
        run(std::process::Command::new("cp").arg("-a").args([&here, &there]))?;
        fs::remove_dir_all(&here)?;
        std::os::unix::fs::symlink(&there, &here)?;
        cluster.start()?;
        let work = Operator::sets_to_work(&world, &before, false)?;
        let flow_id = world.session()?.number("SELECT flow.run_flow('writing', '{}')")?;
        if disk.is_mounted() {
            disk.fill(&cluster, 0)?;
            wait_for("the server has panicked", || {
                // Whatever fills what is left of the log of transactions.
                let wrote = world.here.connect().and_then(|mut session| {
                    session.run("CREATE TABLE IF NOT EXISTS crash.noise (t TEXT); INSERT INTO crash.noise SELECT repeat(md5(random()::TEXT), 100) FROM generate_series(1, 5000)")
                });
                Ok(wrote.is_err() && cluster.log_tail(1, "PANIC").contains("No space left"))
            })?;
            disk.free(&cluster)?;
            // It may have given up, or not yet.
            if world.here.connect().is_err() {
                let _ = cluster.stop(Stop::Immediate);
                cluster.start()?;
            }
        } else {
            println!("without a mount the log of transactions cannot be without room: it is killed instead");
            cluster.restart(Stop::Immediate)?;
        }
        work.join()?;
        let before = Before { log: u64::MAX, ..before };
        if world.session()?.number(&format!("SELECT count(*) FROM flow.flow WHERE flow_id = {flow_id}"))? == 0 {
            anyhow::bail!("a run is gone whose start was committed");
        }
        wait_for_runs(&world, PATIENCE)?;
        let found = world.session()?.text("SELECT count(*) || ' ' || count(DISTINCT step) FROM crash.big")?;
        ensure!(found == format!("{WRITERS} {WRITERS}"), "rows, steps: {found}");
        finish(&world, &before)
    });
    Ok(())
}

#[test]
fn no_place_for_a_worker_is_a_wait_even_through_a_crash() -> Result<()> {
    // The launcher, two dispatchers, and no place more.
    let cluster =
        options().setting("max_worker_processes", "3").setting("max_logical_replication_workers", "0").start()?;
    let other = cluster.database("other")?;
    in_database(&cluster, "places", |database| {
        let world = World::build(database)?;
        wait_for("both databases are served", || Ok(other.pids(Kind::Dispatcher)?.len() == 1))?;
        let mut session = world.session()?;
        let run = session.number("SELECT flow.run_flow('work', '{}')")?;
        session.run(&format!("INSERT INTO crash.started VALUES ({run})"))?;
        database.wait_until(
            "(SELECT coalesce(starvation, '') LIKE '%max_worker_processes%' FROM async.v_server_info)",
            Duration::from_secs(20),
        )?;
        let dispatcher = *database.pids(Kind::Dispatcher)?.first().context("there is no dispatcher")?;
        signal(dispatcher, "KILL")?;
        wait_for("the server has noticed", || Ok(session.text("SELECT 1").is_err()))?;
        let mut session = world.session()?;
        std::thread::sleep(Duration::from_millis(500));
        ensure!(session.number("SELECT count(*) FROM crash.mark")? == 0, "something ran without a place");
        // The other database makes room.
        cluster.connect_again("postgres", SUPERUSER)?.run("DROP DATABASE other")?;
        wait_for_runs(&world, PATIENCE)?;
        check_any(&world, &Before { flow_id: 0, again: 0, may_fail: false, log: u64::MAX })
    });
    Ok(())
}

#[test]
fn no_connection_is_left_and_the_engine_needs_none() -> Result<()> {
    let cluster = options().max_connections(12).start()?;
    in_database(&cluster, "connections", |database| {
        let world = World::build(database)?;
        let before = Before::of(&world, false)?;
        let mut session = world.session()?;
        let mut held = Vec::new();
        while let Ok(session) = database.connect() {
            held.push(session);
        }
        ensure!(database.connect().is_err_and(|error| error.to_string().contains("53300")), "there is one left");
        let run = session.number("SELECT flow.run_flow('work', '{}')")?;
        session.run(&format!("INSERT INTO crash.started VALUES ({run})"))?;
        // What runs here goes on; what runs elsewhere, which is this very server, waits for a connection.
        let nodes = format!(
            "SELECT string_agg(node || ' ' || state::TEXT, ', ' ORDER BY node) FROM flow.flow_node
             WHERE flow_id = {run} AND state::TEXT NOT IN ('F', 'E', 'K')"
        );
        wait_for("all has ended but what needs a connection", || Ok(session.text(&nodes)? == "far O, last W"))?;
        std::thread::sleep(Duration::from_millis(500));
        ensure!(session.text(&nodes)? == "far O, last W", "{}", session.text(&nodes)?);
        println!(
            "{}",
            session.text("SELECT coalesce(string_agg(left(t::TEXT, 200), '; '), '') FROM async.target_down t")?
        );
        drop(held);
        finish(&world, &before)
    });
    Ok(())
}

#[test]
fn a_callback_without_memory_fails_alone() -> Result<()> {
    let cluster = start_for_memory()?;
    in_database(&cluster, "memory", |database| {
        let world = World::build(database)?;
        let mut session = world.session()?;
        session.run(
            r#"CREATE PROCEDURE crash.eats(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
               BEGIN
                 INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, _args.step_arguments->>'s', 'done');
                 IF _args.step_arguments->>'s' = '3' THEN
                   -- From here on this process may have 100 MB more.
                   EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', format(
                     'cat >/dev/null && prlimit --pid %s --as=$(awk ''/VmSize/ { print $2 * 1024 + 100000000 }'' /proc/%s/status):unlimited',
                     pg_backend_pid(), pg_backend_pid()));
                   PERFORM length(repeat('x', 400000000));
                 END IF;
               END $$;
               SELECT flow.configure_flow('hungry', '{"nodes": [
                 {"node": "eats", "empty": true, "all_steps_must_complete": false, "routine": "crash.eats",
                  "steps": [{"s": 1}, {"s": 2}, {"s": 3}, {"s": 4}, {"s": 5}, {"s": 6}, {"s": 7}, {"s": 8}]}]}')"#,
        )?;
        let before = Before::of(&world, true)?;
        let begun = session.text("SELECT pg_postmaster_start_time()")?;
        for _ in 0..3 {
            let run = session.number("SELECT flow.run_flow('hungry', '{}')")?;
            wait_for_runs(&world, PATIENCE)?;
            let failed = session.column(&format!(
                "SELECT (task_data->>'s') || ' ' || processing_error FROM async.task WHERE flow_id = {run} AND failed"
            ))?;
            ensure!(failed.len() == 1 && failed[0].starts_with("3 out of memory"), "{failed:?}");
        }
        ensure!(session.number("SELECT sum(attempt) FROM async.task WHERE is_step")? == 24, "a step ran again");
        ensure!(session.text("SELECT pg_postmaster_start_time()")? == begun, "the server has started anew");
        let workers = database.pids(Kind::Worker)?;
        ensure!(!workers.is_empty(), "the workers are gone");
        check_any(&world, &before)
    });
    Ok(())
}

/// One worker, so that what follows the failure runs in the process that had no memory.
fn start_for_memory() -> Result<Cluster> {
    let options: Options = options().setting("pgflow.workers", "1").setting("pgflow.worker_idle_time", "1min");
    options.start()
}
