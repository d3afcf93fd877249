//! What the tests of this binary share: two clusters, a database on each, the client in one of them, tasks to work on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::Database;
use pgflow_tests::failure::with_report;
use pgflow_tests::session::Session;

/// The client for servers where the extension cannot be installed.
pub const CLIENT: &str = include_str!("../../../sql/pgflow_client.sql");
/// What the user of the connection logs in with; asked for by the server.
pub const PASSWORD: &str = "s3cret word";
const SOON: Duration = Duration::from_secs(20);

/// How the remote database becomes a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    File,
    Extension,
}

pub const BOTH: [Client; 2] = [Client::File, Client::Extension];

pub struct Setting {
    pub server: Database<'static>,
    pub remote: Database<'static>,
    pub client: Client,
}

/// The cluster that orchestrates. Its role `robot` needs a password.
fn server_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let start = || -> Result<Cluster> {
            let cluster = Cluster::options().with_passwords().start()?;
            cluster.database("first")?.role("robot")?;
            cluster.connect("postgres", "postgres")?.run(&format!("ALTER ROLE robot PASSWORD '{PASSWORD}'"))?;
            Ok(cluster)
        };
        start().unwrap_or_else(|error| panic!("cannot start the server: {error:#}"))
    })
}

fn remote_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let start = || -> Result<Cluster> {
            let cluster = Cluster::options().not_preloaded().start()?;
            cluster.database("first")?; // the extension's roles are the whole cluster's
            Ok(cluster)
        };
        start().unwrap_or_else(|error| panic!("cannot start the remote: {error:#}"))
    })
}

fn number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

/// A database for a test on the remote cluster, with dblink and nothing else.
pub fn remote_database() -> Result<Database<'static>> {
    database_on(remote_cluster())
}

fn database_on(cluster: &'static Cluster) -> Result<Database<'static>> {
    let remote = cluster.plain_database(&format!("remote_{}", number()))?;
    remote.connect()?.run("CREATE EXTENSION dblink")?;
    Ok(remote)
}

/// Runs a test for a database that has the client, of this kind, and knows its server.
pub fn test(client: Client, body: impl FnOnce(&Setting) -> Result<()>) {
    test_on(remote_cluster(), client, body);
}

/// The same with a remote cluster of the test's own.
pub fn test_on(remote: &'static Cluster, client: Client, body: impl FnOnce(&Setting) -> Result<()>) {
    // The first databases are made one after the other.
    static FIRST: Mutex<()> = Mutex::new(());
    let setting = {
        let _one = FIRST.lock();
        set_up(remote, client).unwrap_or_else(|error| panic!("cannot set up: {error:#}"))
    };
    with_report(&setting.server, |_| body(&setting));
}

fn set_up(remote: &'static Cluster, client: Client) -> Result<Setting> {
    let server = server_cluster().database(&format!("server_{}", number()))?;
    server.role("robot")?;
    let mut at_server = server.connect()?;
    at_server.run(
        "SELECT async.configure('{\"targets\": [{\"target\": \"there\", \"kind\": \"external\"}]}');
         CREATE SCHEMA t; CREATE TABLE t.log (what TEXT); GRANT USAGE ON SCHEMA t TO PUBLIC; GRANT ALL ON t.log TO PUBLIC;
         SET ROLE robot;
         SELECT flow.configure_flow('f', '{\"nodes\": [{\"node\": \"a\", \"target\": \"there\", \"routine\": \"t.a\"}]}')",
    )?;
    let remote = database_on(remote)?;
    let mut here = remote.connect()?;
    match client {
        Client::File => here.run(CLIENT)?,
        Client::Extension => here.run("CREATE EXTENSION pgflow")?,
    }
    here.run("CREATE SCHEMA t; GRANT USAGE, CREATE ON SCHEMA t TO PUBLIC; CREATE TABLE t.log (what TEXT); GRANT ALL ON t.log TO PUBLIC")?;
    let setting = Setting { server, remote, client };
    here.run(&format!("SELECT async.server($${}$$)", setting.address()))?;
    Ok(setting)
}

impl Setting {
    /// Where the server is, with the password.
    pub fn address(&self) -> String {
        format!(
            "host=127.0.0.1 port={} dbname={} user=robot password='{PASSWORD}'",
            self.server.cluster.port(),
            self.server.name
        )
    }

    /// A session on the remote as a role that may use the client and nothing else.
    pub fn user(&self, name: &str) -> Result<Session> {
        let mut here = self.remote.connect()?;
        here.run(&format!(
            "DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        ))?;
        match self.client {
            Client::File => here.run(&format!("SELECT async.grant_client('{name}')"))?,
            Client::Extension => here.run(&format!("GRANT flow_user TO {name}"))?,
        }
        self.remote.connect_as(name)
    }

    /// Starts a run as the connection's user.
    pub fn run(&self, arguments: &str) -> Result<i64> {
        let mut session = self.server.connect()?;
        session.run("SET ROLE robot")?;
        session.number(&format!("SELECT flow.run_flow('f', $${arguments}$$)"))
    }

    /// Waits until a client can take a task of the run, and takes it: its id.
    pub fn take(&self) -> Result<i64> {
        let mut session = self.server.connect()?;
        let until = Instant::now() + SOON;
        loop {
            if let Some(id) = session.column("SELECT task_id FROM async.get_tasks('there', 1)")?.first() {
                return Ok(id.parse()?);
            }
            ensure!(Instant::now() < until, "no task to take");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts a run and takes its only task: the run, and the arguments of its callback in SQL.
    pub fn callback(&self) -> Result<(i64, String)> {
        let flow_id = self.run("{}")?;
        let task_id = self.take()?;
        Ok((flow_id, format!("ROW({flow_id}, 'f', '{{}}', 'a', '{{}}', {task_id})::flow.callback_arguments_t")))
    }

    /// The steps of the server's runs, as an array.
    pub fn steps(&self) -> Result<String> {
        self.server.connect()?.text(
            "SELECT coalesce(string_agg(task_data::TEXT, ' ' ORDER BY task_id), '') FROM async.task WHERE is_step",
        )
    }

    pub fn wait_steps(&self, count: usize) -> Result<()> {
        self.server.wait_until(&format!("(SELECT count(*) = {count} FROM async.task WHERE is_step)"), SOON)
    }

    /// How the node of a run stands.
    pub fn node(&self, flow_id: i64) -> Result<String> {
        self.server.connect()?.text(&format!(
            "SELECT concat_ws(': ', s.status, f.first_error) FROM flow.v_flow_node_status s JOIN flow.flow f USING (flow_id)
             WHERE flow_id = {flow_id}"
        ))
    }

    pub fn ends_as(&self, flow_id: i64, wanted: &str) -> Result<()> {
        self.server.wait_run(flow_id)?;
        same(self.node(flow_id)?, wanted)
    }
}

/// The two must be equal; says what was found if not.
pub fn same<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(found: T, wanted: U) -> Result<()> {
    ensure!(found == wanted, "found  {found:?}\nwanted {wanted:?}");
    Ok(())
}

/// A statement must be refused with an error that has these parts in it.
pub fn refused(session: &mut Session, sql: &str, parts: &[&str]) -> Result<()> {
    let error = session.error(sql)?;
    for part in parts {
        ensure!(error.contains(part), "{sql}\nfound  {error}\nwanted {part:?} in it");
    }
    Ok(())
}
