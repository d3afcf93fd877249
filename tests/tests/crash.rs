//! C18: a crash loses nothing and repeats nothing. While runs of 20,000 steps go on, `kill -9` hits local workers, the
//! dispatcher, the launcher and the postmaster, and `pg_terminate_backend` hits workers; each with a step in flight.
//!
//! A killed process loses nothing that it has written, whether that was synced or not: only the first test, which is to be
//! like production, has `fsync` on.
//!
//! `PGFLOW_KILLS`: how many of each kind (2). `PGFLOW_STEPS`: steps of a run (20000).

mod siege;

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::{ensure, Result};
use pgflow_tests::cluster::{Cluster, Options};
use pgflow_tests::database::Database;
use pgflow_tests::failure::in_database;
use siege::{Siege, Victim};

/// These tests take turns: each needs the machine to itself.
fn my_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// No number of crashes makes a task give up.
fn patient() -> Options {
    Cluster::options().setting("pgflow.max_crash_attempts", "1000").setting("max_wal_size", "2GB")
}

fn from_environment(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How long all runs may take to end after the last kill.
const PATIENCE: Duration = Duration::from_secs(300);

/// The steps of these runs write a row each; some are slow, so that a kill finds it at work.
const SETUP: &str = r#"
CREATE SCHEMA siege;
CREATE TABLE siege.row (flow_id BIGINT NOT NULL, part TEXT NOT NULL, i INT NOT NULL);

CREATE PROCEDURE siege.load(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _last  INT := _args.flow_arguments->'steps';
  _steps JSONB[] := array(SELECT jsonb_build_object('i', i) FROM generate_series(1, _last) i);
BEGIN
  CALL flow.push_steps(_args.flow_id, _args.node, _steps);
END
$$;

CREATE PROCEDURE siege.store(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _i INT := _args.step_arguments->'i';
BEGIN
  INSERT INTO siege.row VALUES (_args.flow_id, 'whole', _i);
  IF _i % 200 = 0 THEN
    PERFORM pg_sleep(0.05);
  END IF;
END
$$;

CREATE PROCEDURE siege.store_in_parts(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _i INT := _args.step_arguments->'i';
BEGIN
  INSERT INTO siege.row VALUES (_args.flow_id, 'first', _i);
  COMMIT;
  IF _i % 20 = 0 THEN
    PERFORM pg_sleep(0.05);
  END IF;
  INSERT INTO siege.row VALUES (_args.flow_id, 'last', _i);
END
$$;
"#;

fn set_up(database: &Database, node: &str) -> Result<()> {
    let mut session = database.connect()?;
    session.run(SETUP)?;
    session.run(&format!("SELECT flow.configure_flow('siege', '{{\"nodes\": [{node}]}}')"))
}

#[test]
fn c18_every_step_has_run_exactly_once_whatever_is_killed() -> Result<()> {
    let _turn = my_turn();
    let kills = from_environment("PGFLOW_KILLS", 2);
    let steps = from_environment("PGFLOW_STEPS", 20_000);
    let cluster = patient().durable().start()?;
    in_database(&cluster, "siege", |database| {
        set_up(database, r#"{"node": "load", "node_routine": "siege.load", "step_routine": "siege.store"}"#)?;
        let mut siege = Siege::new(database, steps);
        siege.kill(&Victim::ALL, kills)?;
        siege.wait_for_runs(PATIENCE)?;
        siege.check_runs("every run finished", "count_failed_nodes = 0 AND count_finished_nodes = count_nodes")?;
        let rows = "SELECT i, count(*) AS times FROM siege.row WHERE flow_id = f.flow_id GROUP BY i";
        siege.check_runs(
            "every row is there, once",
            &format!(
                "(SELECT count(*) = {steps} AND min(i) = 1 AND max(i) = {steps} AND max(times) = 1 FROM ({rows}) r)"
            ),
        )?;
        siege.check_attempts()
    });
    Ok(())
}

/// F23 and F24: what the disk has not seen is gone with its outcome, and runs again; no batch is done in part.
#[test]
fn c18_nothing_happens_twice_where_commits_are_not_waited_for_and_steps_share_them() -> Result<()> {
    let _turn = my_turn();
    let kills = from_environment("PGFLOW_KILLS", 2);
    let steps = from_environment("PGFLOW_STEPS", 20_000);
    let cluster = patient().start()?;
    in_database(&cluster, "siege", |database| {
        set_up(
            database,
            r#"{"node": "lazy", "node_routine": "siege.load", "step_routine": "siege.store", "synchronous_commit": "off"},
               {"node": "both", "node_routine": "siege.load", "step_routine": "siege.store", "synchronous_commit": "off",
                "steps_per_transaction": 8}"#,
        )?;
        let mut siege = Siege::new(database, steps);
        siege.kill(&[Victim::Worker, Victim::Dispatcher, Victim::Postmaster], kills)?;
        siege.wait_for_runs(PATIENCE)?;
        siege.check_runs("every run finished", "count_failed_nodes = 0 AND count_finished_nodes = count_nodes")?;
        let rows = "SELECT i, count(*) AS times FROM siege.row WHERE flow_id = f.flow_id GROUP BY i";
        siege.check_runs(
            "every row is there, once for each node",
            &format!("(SELECT count(*) = {steps} AND min(times) = 2 AND max(times) = 2 FROM ({rows}) r)"),
        )
    });
    Ok(())
}

#[test]
fn c18_a_callback_that_committed_a_part_runs_again() -> Result<()> {
    let _turn = my_turn();
    let kills = from_environment("PGFLOW_KILLS", 2);
    let steps = from_environment("PGFLOW_STEPS", 20_000) / 10;
    let cluster = patient().start()?;
    in_database(&cluster, "siege", |database| {
        set_up(database, r#"{"node": "load", "node_routine": "siege.load", "step_routine": "siege.store_in_parts"}"#)?;
        let mut siege = Siege::new(database, steps);
        siege.kill(&[Victim::Worker, Victim::TerminatedWorker, Victim::Postmaster], kills)?;
        siege.wait_for_runs(PATIENCE)?;
        siege.check_runs("every run finished", "count_failed_nodes = 0")?;
        let part = |part| format!("SELECT i FROM siege.row WHERE flow_id = f.flow_id AND part = '{part}'");
        let (first, last) = (part("first"), part("last"));
        siege.check_runs(
            "what follows the COMMIT is there, once",
            &format!("(SELECT count(*) = {steps} AND count(DISTINCT i) = {steps} FROM ({last}) r)"),
        )?;
        siege.check_runs(
            "what came before it is there, at least once",
            &format!("(SELECT count(DISTINCT i) = {steps} FROM ({first}) r)"),
        )?;
        siege.check_attempts()
    });
    Ok(())
}

#[test]
fn c18_a_callback_that_committed_a_part_fails_if_its_node_says_so() -> Result<()> {
    let _turn = my_turn();
    let kills = from_environment("PGFLOW_KILLS", 2);
    let steps = from_environment("PGFLOW_STEPS", 20_000) / 10;
    let cluster = patient().start()?;
    in_database(&cluster, "siege", |database| {
        set_up(
            database,
            r#"{"node": "load", "node_routine": "siege.load", "step_routine": "siege.store_in_parts",
                "on_partial": "fail", "all_steps_must_complete": false}"#,
        )?;
        let mut siege = Siege::new(database, steps);
        siege.kill(&[Victim::Worker, Victim::TerminatedWorker, Victim::Postmaster], kills)?;
        siege.wait_for_runs(PATIENCE)?;
        siege.check_runs("every run finished", "count_failed_nodes = 0")?;
        let parts = "SELECT t.failed, t.processing_error,
                       (SELECT count(*) FROM siege.row r WHERE r.flow_id = t.flow_id AND r.i = (t.task_data->'i')::INT
                        AND r.part = 'first') AS first,
                       (SELECT count(*) FROM siege.row r WHERE r.flow_id = t.flow_id AND r.i = (t.task_data->'i')::INT
                        AND r.part = 'last') AS last
                     FROM async.task t WHERE t.flow_id = f.flow_id AND t.is_step";
        database.connect()?.run("CREATE INDEX ON siege.row (flow_id, i)")?;
        siege.check_runs(
            "a step has both parts, or has failed and has the first; each once",
            &format!("NOT EXISTS (SELECT FROM ({parts}) p WHERE (first, last) <> (1, (NOT failed)::INT))"),
        )?;
        siege.check_runs(
            "a step that failed says why",
            &format!("NOT EXISTS (SELECT FROM ({parts}) p WHERE failed AND processing_error !~ 'committed a part')"),
        )?;
        let failed = database.connect()?.number("SELECT count(*) FROM async.task WHERE failed")?;
        println!("{failed} steps failed");
        ensure!(failed > 0, "no step was lost after its COMMIT");
        Ok(())
    });
    Ok(())
}

/// A callback that kills the server must not do so for ever, and the others go on.
#[test]
fn c18_a_callback_that_kills_the_server_is_given_up() -> Result<()> {
    let _turn = my_turn();
    let cluster = Cluster::options()
        .setting("pgflow.max_crash_attempts", "2")
        .setting("pgflow.suspect_quarantine", "3s")
        .start()?;
    in_database(&cluster, "poison", |database| {
        let mut session = database.connect()?;
        session.run(SETUP)?;
        session.run(
            r#"CREATE PROCEDURE siege.poison(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
               BEGIN
                 PERFORM pg_sleep(0.05);
                 EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || pg_backend_pid());
               END $$;
               SELECT flow.configure_flow('poison', '{"nodes": [
                 {"node": "poison", "routine": "siege.poison"},
                 {"node": "load", "node_routine": "siege.load", "step_routine": "siege.store"}]}')"#,
        )?;
        let flow_id = session.number(r#"SELECT flow.run_flow('poison', '{"steps": 400}')"#)?;
        let mut siege = Siege::new(database, 400);
        siege.adopt(flow_id);
        siege.wait_for_runs(Duration::from_secs(60))?;
        let mut session = database.connect()?;
        let words = session.column("SELECT node || ' ' || status FROM flow.v_flow_node_status ORDER BY 1")?;
        ensure!(words == ["load Finished", "poison Failed"], "{words:?}");
        let error = session.text("SELECT error FROM flow.flow_node WHERE node = 'poison'")?;
        println!("{error}");
        ensure!(error.contains("lost attempts"), "{error}");
        ensure!(session.number("SELECT count(*) FROM siege.row")? == 400, "rows are missing or doubled");
        Ok(())
    });
    Ok(())
}
