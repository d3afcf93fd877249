//! The ways to die.

use anyhow::Result;
use pgflow_tests::cluster::{Cluster, Stop, SUPERUSER};
use pgflow_tests::postmaster::signal;

use crate::round::wait_for;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// SIGKILL of the process: the server ends all its sessions and recovers.
    Kill,
    /// SIGTERM of the process; the server goes on.
    Term,
    /// The same, asked for in SQL: `pg_terminate_backend`.
    Terminate,
    /// `pg_ctl stop -m immediate`, and started again.
    Immediate,
    /// `pg_ctl stop -m fast`, and started again.
    Fast,
    /// SIGKILL of the postmaster, and started again.
    Postmaster,
    /// `pg_cancel_backend`: only what runs is ended.
    Cancel,
}

impl Death {
    pub const ALL: [Death; 7] =
        [Death::Kill, Death::Term, Death::Terminate, Death::Immediate, Death::Fast, Death::Postmaster, Death::Cancel];

    /// Carries it out on a process. `disarm` makes sure that whatever starts from then on stands nowhere; the process
    /// itself must not go on before it has been hit.
    pub fn strike(self, cluster: &Cluster, pid: i32, disarm: impl Fn() -> Result<()>) -> Result<()> {
        let by_sql = |function: &str| {
            let mut session = cluster.connect("postgres", SUPERUSER)?;
            session.run(&format!("SELECT {function}({pid})"))
        };
        match self {
            Death::Kill => {
                let mut witness = cluster.connect("postgres", SUPERUSER)?;
                signal(pid, "KILL")?;
                disarm()?;
                cluster.reload()?;
                wait_for("the server has noticed", || Ok(witness.text("SELECT 1").is_err()))
            }
            Death::Term | Death::Terminate | Death::Cancel => {
                match self {
                    Death::Term => signal(pid, "TERM")?,
                    Death::Terminate => by_sql("pg_terminate_backend")?,
                    _ => by_sql("pg_cancel_backend")?,
                }
                disarm()?;
                cluster.reload()
            }
            Death::Immediate => {
                disarm()?;
                cluster.restart(Stop::Immediate)
            }
            Death::Fast => {
                disarm()?;
                cluster.restart(Stop::Fast)
            }
            Death::Postmaster => {
                disarm()?;
                cluster.kill_postmaster()?;
                cluster.start()
            }
        }
    }
}
