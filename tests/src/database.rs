//! One database of a scratch cluster: connecting, waiting for conditions and runs, the engine's processes.

use std::time::{Duration, Instant};

use anyhow::{bail, Result};

use crate::cluster::{Cluster, SUPERUSER};
use crate::session::Session;

/// How long a test waits for what must happen soon.
pub const SOON: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Launcher,
    Dispatcher,
    Worker,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Launcher => "launcher",
            Kind::Dispatcher => "dispatcher",
            Kind::Worker => "worker",
        }
    }
}

#[derive(Clone)]
pub struct Database<'c> {
    pub cluster: &'c Cluster,
    pub name: String,
}

impl<'c> Database<'c> {
    pub fn new(cluster: &'c Cluster, name: &str) -> Database<'c> {
        Database { cluster, name: name.into() }
    }

    pub fn connect(&self) -> Result<Session> {
        self.connect_as(SUPERUSER)
    }

    pub fn connect_as(&self, user: &str) -> Result<Session> {
        self.cluster.connect(&self.name, user)
    }

    /// Creates a role that may log in and run flows, unless another test has.
    pub fn role(&self, name: &str) -> Result<()> {
        self.connect()?.run(&format!(
            "DO $$ BEGIN
               CREATE ROLE \"{name}\" LOGIN IN ROLE flow_user;
             EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
             END $$;
             GRANT CREATE ON DATABASE \"{}\" TO \"{name}\"",
            self.name
        ))
    }

    /// Waits until an SQL condition is true.
    pub fn wait_until(&self, condition: &str, timeout: Duration) -> Result<()> {
        let mut session = self.connect()?;
        let query = format!("SELECT ({condition})::BOOL");
        let until = Instant::now() + timeout;
        loop {
            if session.truth(&query)? {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("not true within {timeout:?}: {condition}\n{}", self.report());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until a run has ended.
    pub fn wait_run(&self, flow_id: i64) -> Result<()> {
        let ended = format!("SELECT processed IS NOT NULL FROM flow.flow WHERE flow_id = {flow_id}");
        self.wait_until(&format!("coalesce(({ended}), true)"), SOON)
    }

    /// Pids of the engine's processes of one kind; dispatchers and workers of this database only.
    pub fn pids(&self, kind: Kind) -> Result<Vec<i32>> {
        let mine = match kind {
            Kind::Launcher => "true",
            _ => "datname = current_database()",
        };
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pgflow {}' AND {mine} ORDER BY pid",
            kind.name()
        );
        let pids = self.connect()?.column(&sql)?;
        Ok(pids.iter().filter_map(|pid| pid.parse().ok()).collect())
    }

    /// What is open in this database and what its log says: for the message of a failed test.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for (title, sql) in [
            (
                "open runs",
                "SELECT flow_id, flow, count_finished_nodes || ' of ' || count_nodes || ' nodes ended'
                 FROM flow.flow WHERE processed IS NULL ORDER BY 1 LIMIT 5",
            ),
            (
                "open nodes",
                "SELECT n.flow_id, n.node, n.state, n.parents_open || ' parents open', n.blocked_by
                 FROM flow.flow_node n JOIN flow.flow f USING (flow_id)
                 WHERE n.ended IS NULL AND f.processed IS NULL ORDER BY 1, n.node_no LIMIT 12",
            ),
            (
                "open tasks",
                "SELECT task_id, flow_id, node_no, is_step, attempt, consumed, yielded, eligible_when, task_data
                 FROM async.task WHERE processed IS NULL ORDER BY 1 LIMIT 12",
            ),
            ("running", "SELECT task_id, attempt, pid, started FROM async.running() LIMIT 12"),
            ("pools", "SELECT * FROM async.pool_use() LIMIT 12"),
            ("engine", "SELECT kind, pid, state, task_id, tasks_done, queued, last_error FROM async.processes()
                        WHERE coalesce(database_oid, 0) IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))"),
            (
                "processes",
                "SELECT pid, backend_type, state, wait_event, left(query, 80) FROM pg_stat_activity
                 WHERE backend_type LIKE 'pgflow%' AND coalesce(datname, current_database()) = current_database()",
            ),
        ] {
            text += &format!("-- {title}\n{}", self.listed(sql));
        }
        text + &format!("-- log of {}\n{}\n", self.name, self.cluster.log_tail(25, &format!(" {}: ", self.name)))
    }

    fn listed(&self, sql: &str) -> String {
        match self.connect().and_then(|mut session| session.rows(sql)) {
            Err(error) => format!("   {error}\n"),
            Ok(rows) => rows
                .into_iter()
                .map(|row| {
                    let cells: Vec<String> = row.into_iter().map(|cell| cell.unwrap_or_else(|| "-".into())).collect();
                    format!("   {}\n", cells.join(" | "))
                })
                .collect(),
        }
    }
}
