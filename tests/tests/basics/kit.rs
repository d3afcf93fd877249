//! What the tests of this binary share: the cluster, and short ways to say "this callback, this flow, run it".

use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::Database;
use pgflow_tests::failure::in_database;
use pgflow_tests::session::{literal, Session};

/// "At once", on a machine that is busy with other tests. What is stopped sleeps for a minute.
pub const AT_ONCE: Duration = Duration::from_secs(5);

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock();
    CLUSTER.get_or_init(|| {
        let options = Cluster::options()
            .setting("max_prepared_transactions", "5")
            .setting("pgflow.max_workers", "64")
            .setting("pgflow.workers", "8")
            .setting("pgflow.workers_per_role", "8")
            .setting("pgflow.worker_idle_time", "2s");
        options.start().unwrap_or_else(|error| panic!("cannot start a cluster: {error:#}"))
    })
}

/// Runs a test in a database of its own, named after the rule.
pub fn test(name: &str, body: impl FnOnce(&mut Kit) -> Result<()>) {
    in_database(cluster(), name, |database| {
        let mut kit = Kit { session: database.connect()?, database };
        kit.session.run(
            "CREATE SCHEMA t;
             CREATE TABLE t.log (id SERIAL, what TEXT, at TIMESTAMPTZ DEFAULT clock_timestamp());
             GRANT USAGE ON SCHEMA t TO PUBLIC;
             GRANT ALL ON t.log, t.log_id_seq TO PUBLIC",
        )?;
        kit.callback("nothing", "NULL;")?;
        kit.callback("fails", "RAISE EXCEPTION 'this one fails';")?;
        kit.callback("sleeps", "PERFORM pg_sleep(60);")?;
        kit.callback(
            "notes",
            "INSERT INTO t.log (what) VALUES (_args.node || coalesce(_args.step_arguments->>'s', ''));",
        )?;
        body(&mut kit)
    });
}

pub struct Kit<'d> {
    pub database: &'d Database<'d>,
    pub session: Session,
}

impl Kit<'_> {
    /// Creates the procedure `t.<name>` with a body in PL/pgSQL.
    pub fn callback(&mut self, name: &str, body: &str) -> Result<()> {
        self.session.run(&format!(
            "CREATE PROCEDURE t.{name}(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $callback$
             BEGIN {body} END $callback$"
        ))
    }

    /// Configures the flow `f` with these nodes.
    pub fn flow(&mut self, nodes: &str) -> Result<()> {
        self.named_flow("f", nodes)
    }

    pub fn named_flow(&mut self, name: &str, nodes: &str) -> Result<()> {
        self.session.run(&format!("SELECT flow.configure_flow('{name}', '{{\"nodes\": [{nodes}]}}')"))
    }

    /// Starts a run of `f`.
    pub fn run(&mut self) -> Result<i64> {
        self.session.number("SELECT flow.run_flow('f', '{}')")
    }

    /// Starts a run of `f` and waits for its end.
    pub fn run_to_end(&mut self) -> Result<i64> {
        let flow_id = self.run()?;
        self.wait(flow_id)?;
        Ok(flow_id)
    }

    pub fn wait(&mut self, flow_id: i64) -> Result<()> {
        self.database.wait_run(flow_id)
    }

    pub fn wait_until(&self, condition: &str) -> Result<()> {
        self.database.wait_until(condition, Duration::from_secs(20))
    }

    /// The nodes of a run with their status words: "a Finished, b Failed".
    pub fn nodes(&mut self, flow_id: i64) -> Result<String> {
        self.session.text(&format!(
            "SELECT string_agg(node || ' ' || status, ', ' ORDER BY node)
             FROM flow.v_flow_node_status WHERE flow_id = {flow_id}"
        ))
    }

    /// The steps of a run with their status words: "{"s": 1} Finished".
    pub fn steps(&mut self, flow_id: i64) -> Result<String> {
        self.session.text(&format!(
            "SELECT coalesce(string_agg(step_arguments || ' ' || status, ', ' ORDER BY step_arguments), '')
             FROM flow.v_flow_task_status WHERE flow_id = {flow_id} AND type = 'Step'"
        ))
    }

    pub fn error_of(&mut self, flow_id: i64, node: &str) -> Result<String> {
        let node = literal(node);
        self.session.text(&format!("SELECT error FROM flow.flow_node WHERE flow_id = {flow_id} AND node = {node}"))
    }

    /// What callbacks have written to `t.log`, in order, with blanks between.
    pub fn log(&mut self) -> Result<String> {
        self.session.text("SELECT coalesce(string_agg(what, ' ' ORDER BY id), '') FROM t.log")
    }

    /// Waits until a node of a run shows a status word.
    pub fn wait_for_status(&self, flow_id: i64, node: &str, status: &str) -> Result<()> {
        self.wait_until(&format!(
            "EXISTS (SELECT FROM flow.v_flow_node_status WHERE flow_id = {flow_id} AND node = '{node}' AND status = '{status}')"
        ))
    }
}

/// The two must be equal; says what was found if not.
pub fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(found: T, wanted: U) -> Result<()> {
    ensure!(found == wanted, "found  {found:?}\nwanted {wanted:?}");
    Ok(())
}

/// A text must have this part in it.
pub fn contains(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "found  {text:?}\nwanted {part:?} in it");
    Ok(())
}

/// What follows must end at once.
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn at_once(&self) -> Result<()> {
        ensure!(self.0.elapsed() < AT_ONCE, "took {:.1?}", self.0.elapsed());
        Ok(())
    }
}
