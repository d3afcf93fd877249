//! What the attacks share: a cluster, two roles, a few callbacks.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::Database;
use pgflow_tests::failure::in_database;
use pgflow_tests::session::Session;

/// "Soon", on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(30);

fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static FIRST: Mutex<()> = Mutex::new(());
    let _one = FIRST.lock();
    CLUSTER.get_or_init(|| {
        let options = Cluster::options().setting("pgflow.max_workers", "32").setting("pgflow.worker_idle_time", "5s");
        let cluster = options.start().unwrap_or_else(|error| panic!("cannot start a cluster: {error:#}"));
        // The first extension creates the roles, which are the whole cluster's.
        cluster.database("first").unwrap_or_else(|error| panic!("cannot create an extension: {error:#}"));
        cluster
    })
}

/// A database under attack. The roles are `<name>_victim` and `<name>_attacker`, both users of flows.
pub struct Place<'c> {
    pub database: Database<'c>,
    pub admin: Session,
    pub victim: Session,
    pub attacker: Session,
}

/// Runs an attack in a database of its own.
pub fn attack(name: &str, body: impl FnOnce(&mut Place<'_>) -> Result<()>) {
    in_database(shared(), name, |database| {
        let mut admin = database.connect()?;
        admin.run(
            "CREATE SCHEMA t;
             CREATE TABLE t.log (id SERIAL, what TEXT, who NAME DEFAULT current_user);
             GRANT USAGE ON SCHEMA t TO PUBLIC;
             GRANT ALL ON t.log, t.log_id_seq TO PUBLIC;
             CREATE PROCEDURE t.nothing(_args flow.callback_arguments_t) LANGUAGE plpgsql AS 'BEGIN NULL; END';
             CREATE PROCEDURE t.notes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS
               'BEGIN INSERT INTO t.log (what) VALUES (_args.flow || ''.'' || _args.node); END';",
        )?;
        let mut roles = Vec::new();
        for role in ["victim", "attacker"] {
            database.role(&format!("{name}_{role}"))?;
            roles.push(database.connect_as(&format!("{name}_{role}"))?);
        }
        let (Some(attacker), Some(victim)) = (roles.pop(), roles.pop()) else { unreachable!("there are two") };
        body(&mut Place { database: database.clone(), admin, victim, attacker })
    });
}

pub fn configure(session: &mut Session, flow: &str, nodes: &str) -> Result<()> {
    session.run(&format!("SELECT flow.configure_flow('{flow}', '{{\"nodes\": [{nodes}]}}')"))
}

impl Place<'_> {
    /// Waits for the end of a run; its nodes with their status words: "a Finished, b Failed".
    pub fn ended(&mut self, flow_id: i64) -> Result<String> {
        let ended = format!("(SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id = {flow_id})");
        self.database.wait_until(&ended, SOON)?;
        self.admin.text(&format!(
            "SELECT string_agg(node || ' ' || status, ', ' ORDER BY node) FROM flow.v_flow_node_status WHERE flow_id = {flow_id}"
        ))
    }

    pub fn error_of(&mut self, flow_id: i64) -> Result<String> {
        self.admin.text(&format!("SELECT coalesce(first_error, 'no error') FROM flow.flow WHERE flow_id = {flow_id}"))
    }

    pub fn log(&mut self) -> Result<String> {
        self.admin.text("SELECT coalesce(string_agg(what || ' by ' || who, ', ' ORDER BY id), '') FROM t.log")
    }
}

pub fn run(session: &mut Session, flow: &str) -> Result<i64> {
    session.number(&format!("SELECT flow.run_flow('{flow}', '{{}}')"))
}

/// The two must be equal; says what was found if not.
pub fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(found: T, wanted: U) -> Result<()> {
    ensure!(found == wanted, "found  {found:?}\nwanted {wanted:?}");
    Ok(())
}

pub fn contains(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "found  {text:?}\nwanted {part:?} in it");
    Ok(())
}

/// A statement must be refused with an error that has this part in it.
pub fn refused(session: &mut Session, sql: &str, part: &str) -> Result<()> {
    let error = session.error(sql)?;
    ensure!(error.contains(part), "{sql}\nfound  {error}\nwanted {part:?} in it");
    Ok(())
}
