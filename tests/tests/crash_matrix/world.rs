//! A cluster with stop points and a database whose work touches everything: pushed and static steps, callbacks that COMMIT,
//! fail, put themselves off and decide about themselves, fan-out and fan-in, child runs, a task on another PostgreSQL, a
//! run that is cancelled, one that runs again.

use std::cell::Cell;
use std::fs;

use anyhow::{Context, Result};
use pgflow_tests::cluster::{Cluster, Options, SUPERUSER};
use pgflow_tests::database::Database;
use pgflow_tests::play;
use pgflow_tests::session::Session;

/// The client for servers where the extension is not installed.
const CLIENT: &str = include_str!("../../../sql/pgflow_client.sql");

const CALLBACKS: &str = r#"
CREATE SCHEMA crash;
-- What callbacks have done. 'done': the effect that must be there once for every task that has finished.
CREATE TABLE crash.mark (task_id BIGINT NOT NULL, flow_id BIGINT NOT NULL, node TEXT NOT NULL, step TEXT, what TEXT NOT NULL);
CREATE INDEX ON crash.mark (task_id);
CREATE INDEX ON crash.mark (flow_id);
-- Runs, noted in the transaction that has started them or made them run again.
CREATE TABLE crash.started (flow_id BIGINT NOT NULL);
CREATE TABLE crash.restarted (flow_id BIGINT NOT NULL);
-- While it is empty, steps of the flow `held` go on.
CREATE TABLE crash.gate (is_open BOOL);

CREATE PROCEDURE crash.acts(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, _args.step_arguments->>'s', 'done');
  PERFORM pg_sleep(0.002);
END $$;

CREATE PROCEDURE crash.acts_slowly(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, _args.step_arguments->>'s', 'done');
  PERFORM pg_sleep(0.03);
END $$;

CREATE PROCEDURE crash.waits(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, _args.step_arguments->>'s', 'done');
  FOR i IN 1..6000 LOOP
    EXIT WHEN EXISTS (SELECT FROM crash.gate);
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;

CREATE PROCEDURE crash.pushes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _steps JSONB[] := ARRAY(SELECT jsonb_build_object('s', i) FROM generate_series(1, 12) i);
BEGIN
  CALL flow.push_steps(_args.flow_id, _args.node, _steps);
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, NULL, 'done');
END $$;

CREATE PROCEDURE crash.pushes_two(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, NULL, 'done');
  CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{"s": 1}', '{"s": 2}']::JSONB[]);
END $$;

CREATE PROCEDURE crash.acts_in_parts(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, _args.step_arguments->>'s', 'first');
  COMMIT;
  PERFORM pg_sleep(0.005);
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, _args.step_arguments->>'s', 'done');
END $$;

CREATE PROCEDURE crash.puts_itself_off(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM crash.mark m WHERE m.task_id = _args.task_id AND m.what = 'put off') THEN
    INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, NULL, 'put off');
    CALL flow.defer(_args, interval '30 ms');
  ELSE
    INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, NULL, 'done');
  END IF;
END $$;

CREATE PROCEDURE crash.decides(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, NULL, 'done');
  CALL flow.finish(_args);
END $$;

CREATE PROCEDURE crash.fails(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id, _args.node, NULL, 'done');
  RAISE EXCEPTION 'planned failure';
END $$;
"#;

const FAR: &str = r#"
CREATE SCHEMA crash;
CREATE TABLE crash.mark (task_id BIGINT NOT NULL, flow_id BIGINT NOT NULL);
CREATE PROCEDURE crash.acts(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO crash.mark VALUES (_args.task_id, _args.flow_id);
  PERFORM pg_sleep(0.02);
END $$;
"#;

const WORK: &str = r#"{"nodes": [
  {"node": "load", "node_routine": "crash.pushes", "step_routine": "crash.acts"},
  {"node": "parts", "empty": true, "routine": "crash.acts_in_parts", "steps": [{"s": 1}, {"s": 2}, {"s": 3}, {"s": 4}, {"s": 5}, {"s": 6}]},
  {"node": "later", "routine": "crash.puts_itself_off"},
  {"node": "decides", "routine": "crash.decides"},
  {"node": "bad", "routine": "crash.fails"},
  {"node": "skipped", "routine": "crash.acts", "dependencies": [{"parent": "bad"}]},
  {"node": "anyway", "routine": "crash.acts", "dependencies": [{"parent": "bad", "continue_on_failure": true}]},
  {"node": "child", "node_routine": "crash.pushes_two", "steps_to_flow": "small", "dependencies": [{"parent": "later"}]},
  {"node": "fan", "empty": true, "routine": "crash.acts", "dependencies": [{"parent": "load"}],
   "steps": [{"s": 1}, {"s": 2}, {"s": 3}, {"s": 4}, {"s": 5}, {"s": 6}, {"s": 7}, {"s": 8}]},
  {"node": "far", "target": "far", "routine": "crash.acts", "dependencies": [{"parent": "decides"}]},
  {"node": "a", "routine": "crash.acts", "dependencies": [{"parent": "fan"}]},
  {"node": "b", "routine": "crash.acts", "dependencies": [{"parent": "fan"}]},
  {"node": "c", "routine": "crash.acts", "dependencies": [{"parent": "fan"}]},
  {"node": "gather", "routine": "crash.acts", "dependencies": [{"parent": "a"}, {"parent": "b"}, {"parent": "c"}, {"parent": "parts"}]},
  {"node": "last", "routine": "crash.acts", "dependencies": [{"parent": "gather"}, {"parent": "child"}, {"parent": "far"},
    {"parent": "anyway"}]}]}"#;

const SMALL: &str = r#"{"nodes": [
  {"node": "x", "routine": "crash.acts"},
  {"node": "y", "routine": "crash.acts", "dependencies": [{"parent": "x"}]}]}"#;

const LONG: &str = r#"{"nodes": [
  {"node": "s", "empty": true, "routine": "crash.acts_slowly", "steps": [{"s": 1}, {"s": 2}, {"s": 3}, {"s": 4}, {"s": 5},
    {"s": 6}, {"s": 7}, {"s": 8}, {"s": 9}, {"s": 10}, {"s": 11}, {"s": 12}, {"s": 13}, {"s": 14}, {"s": 15}, {"s": 16}]},
  {"node": "t", "node_routine": "crash.pushes_two", "steps_to_flow": "small"},
  {"node": "after", "routine": "crash.acts", "dependencies": [{"parent": "s"}, {"parent": "t"}]}]}"#;

/// Work that lasts until the gate is opened.
const HELD: &str =
    r#"{"nodes": [{"node": "w", "empty": true, "routine": "crash.waits", "steps": [{"s": 1}, {"s": 2}]}]}"#;

/// How often each node of a run of `work` has left the mark 'done', as text.
pub const MARKS_OF_WORK: &str =
    "a 1, anyway 1, b 1, c 1, child 1, decides 1, fan 8, gather 1, last 1, later 1, load 13, parts 6";
/// And how its nodes end.
pub const NODES_OF_WORK: &str = "a Finished, anyway Finished, b Finished, bad Failed, c Finished, child Finished, \
    decides Finished, fan Finished, far Finished, gather Finished, last Finished, later Finished, load Finished, \
    parts Finished, skipped Skipped";

/// The settings of a server for the matrix: no number of deaths makes a task give up, and workers come and go.
pub fn options() -> Options {
    Cluster::options()
        .setting("pgflow.debug_stop_points", "on")
        .setting("pgflow.max_crash_attempts", "1000")
        .setting("pgflow.worker_idle_time", "1s")
        .setting("pgflow.purge_interval", "300ms")
        .setting("max_wal_size", "4GB")
        .setting("include_if_exists", "stop.conf")
}

/// The name of the database that its target is.
fn far_of(here: &Database) -> String {
    format!("{}_far", here.name)
}

pub struct World<'c> {
    pub here: Database<'c>,
    pub far: Database<'c>,
    /// Tells one arming from the next.
    token: Cell<u32>,
}

impl<'c> World<'c> {
    pub fn build(here: &Database<'c>) -> Result<World<'c>> {
        let far = here.cluster.plain_database(&far_of(here))?;
        let mut there = far.connect()?;
        there.run("CREATE EXTENSION dblink")?;
        there.run(CLIENT)?;
        there.run(FAR)?;
        let mut session = here.connect()?;
        session.run(CALLBACKS)?;
        play::set_up(&mut session)?;
        let world = World::of(here)?;
        for (flow, configuration) in [("small", SMALL), ("work", WORK), ("long", LONG), ("held", HELD)] {
            session.run(&format!("SELECT flow.configure_flow('{flow}', $c${configuration}$c$)"))?;
        }
        Ok(world)
    }

    /// A database that is one already, perhaps on a server that has taken over from another: the target is where it is now.
    pub fn of(here: &Database<'c>) -> Result<World<'c>> {
        let far = Database::new(here.cluster, &far_of(here));
        let address = format!("host=127.0.0.1 port={} dbname={} user={SUPERUSER}", here.cluster.port(), far.name);
        here.connect()?.run(&format!(
            r#"SELECT async.configure('{{"targets": [{{"target": "far", "connection_string": "{address}",
                 "options": {{"retry_delay": 0.1, "retry_delay_max": 0.3}}}}]}}')"#
        ))?;
        Ok(World { here: here.clone(), far, token: Cell::new(0) })
    }

    pub fn cluster(&self) -> &'c Cluster {
        self.here.cluster
    }

    /// From now on the process that is the n-th to pass a point stands still there; returns when sessions know.
    pub fn arm(&self, point: &str, nth: usize) -> Result<()> {
        self.token.set(self.token.get() + 1);
        let setting = format!("{point} {nth} {}", self.token.get());
        self.write(&format!("pgflow.debug_stop_at = '{setting}'\n"))?;
        self.cluster().reload()?;
        let known = || Ok(self.here.connect()?.text("SHOW pgflow.debug_stop_at")? == setting);
        crate::round::wait_for("the server knows the point", known)
    }

    /// Whatever starts, or reads its configuration, from now on stands nowhere.
    pub fn disarm(&self) -> Result<()> {
        self.write("")
    }

    fn write(&self, text: &str) -> Result<()> {
        let path = self.cluster().data().join("stop.conf");
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).with_context(|| path.display().to_string())
    }

    /// A session, as soon as there can be one.
    pub fn session(&self) -> Result<Session> {
        self.cluster().connect_again(&self.here.name, SUPERUSER)
    }
}
