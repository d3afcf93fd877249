//! A siege: keeps a run of many steps going and kills processes of the server while a step is in flight, until each
//! kind has been hit often enough.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use pgflow_tests::cluster::SUPERUSER;
use pgflow_tests::database::{Database, Kind};
use pgflow_tests::postmaster::signal;
use pgflow_tests::session::Session;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    Worker,
    Dispatcher,
    Launcher,
    Postmaster,
    /// By `pg_terminate_backend`: the server goes on.
    TerminatedWorker,
}

impl Victim {
    pub const ALL: [Victim; 5] =
        [Victim::Worker, Victim::Dispatcher, Victim::TerminatedWorker, Victim::Launcher, Victim::Postmaster];
}

/// A step that a worker was running when we looked.
#[derive(Debug)]
struct InFlight {
    task_id: i64,
    worker: i32,
}

pub struct Siege<'d> {
    database: &'d Database<'d>,
    steps: usize,
    runs: Vec<i64>,
    /// Tasks that must have ended before the next kill, so that each kill hits other tasks.
    ended: i64,
    session: Option<Session>,
}

/// So many more tasks end between two kills.
const PROGRESS: i64 = 100;

impl<'d> Siege<'d> {
    pub fn new(database: &'d Database<'d>, steps: usize) -> Siege<'d> {
        Siege { database, steps, runs: Vec::new(), ended: PROGRESS, session: None }
    }

    /// Counts a run in that somebody else has started.
    pub fn adopt(&mut self, flow_id: i64) {
        self.runs.push(flow_id);
    }

    /// Kills so many of each kind, in turn; starts runs as needed.
    pub fn kill(&mut self, victims: &[Victim], times: usize) -> Result<()> {
        let begun = Instant::now();
        let mut killed: BTreeMap<Victim, usize> = BTreeMap::new();
        for round in 1..=times {
            for victim in victims {
                let step = self.wait_for_step_in_flight()?;
                let pid = self.strike(*victim, &step)?;
                println!(
                    "{:>6.1} s  kill {round} of {times}: {victim:?} {pid}, while task {} ran in worker {}",
                    begun.elapsed().as_secs_f32(),
                    step.task_id,
                    step.worker
                );
                *killed.entry(*victim).or_default() += 1;
            }
        }
        println!("{killed:?} in {:.1?}, {} runs of {} steps", begun.elapsed(), self.runs.len(), self.steps);
        Ok(())
    }

    fn strike(&mut self, victim: Victim, step: &InFlight) -> Result<i32> {
        let pid = match victim {
            Victim::Worker | Victim::TerminatedWorker => step.worker,
            Victim::Dispatcher => self.only(Kind::Dispatcher)?,
            Victim::Launcher => self.only(Kind::Launcher)?,
            Victim::Postmaster => self.database.cluster.postmaster()?,
        };
        match victim {
            Victim::TerminatedWorker => {
                ensure!(self.session()?.truth(&format!("SELECT pg_terminate_backend({pid})"))?, "{pid} was gone");
            }
            Victim::Postmaster => {
                self.database.cluster.kill_postmaster()?;
                self.session = None;
                self.database.cluster.start()?;
            }
            _ => {
                signal(pid, "KILL")?;
                self.session = None;
            }
        }
        Ok(pid)
    }

    fn only(&self, kind: Kind) -> Result<i32> {
        let pids = self.database.pids(kind)?;
        pids.first().copied().with_context(|| format!("there is no {}", kind.name()))
    }

    /// Waits until a worker is in the middle of a step. Starts a run when none is open.
    fn wait_for_step_in_flight(&mut self) -> Result<InFlight> {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            // Errors are of the crash that we have caused.
            if let Ok(Some(step)) = self.step_in_flight() {
                return Ok(step);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("no step was in flight for 60 seconds: the run is stuck\n{}", self.database.report())
    }

    fn step_in_flight(&mut self) -> Result<Option<InFlight>> {
        let (steps, ended) = (self.steps, self.ended);
        let session = self.session()?;
        let found = session.query_opt(
            "SELECT r.task_id, r.pid, n.ended
             FROM (SELECT count(*) AS ended FROM async.task WHERE processed IS NOT NULL) n, async.running() r
             JOIN async.task t ON t.task_id = r.task_id AND t.is_step
             JOIN pg_stat_activity a ON a.pid = r.pid AND a.wait_event = 'PgSleep'
             WHERE n.ended >= $1
             ORDER BY random() LIMIT 1",
            &[&ended],
        );
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.session = None;
                return Err(error.into());
            }
        };
        if let Some(row) = found {
            self.ended = row.get::<_, i64>(2) + PROGRESS;
            return Ok(Some(InFlight { task_id: row.get(0), worker: row.get(1) }));
        }
        if !session.truth("SELECT EXISTS (SELECT FROM flow.flow WHERE processed IS NULL)")? {
            let flow_id = session.number(&format!(r#"SELECT flow.run_flow('siege', '{{"steps": {steps}}}')"#))?;
            self.runs.push(flow_id);
        }
        Ok(None)
    }

    fn session(&mut self) -> Result<&mut Session> {
        if self.session.as_ref().is_none_or(|session| session.is_closed()) {
            self.session = Some(self.database.cluster.connect_again(&self.database.name, SUPERUSER)?);
        }
        self.session.as_mut().context("no session")
    }

    /// Waits until every run has ended.
    pub fn wait_for_runs(&mut self, timeout: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < timeout {
            let open = self.session().and_then(|s| s.number("SELECT count(*) FROM flow.flow WHERE processed IS NULL"));
            match open {
                Ok(0) => {
                    println!("all runs ended {:.1?} after the last kill", begun.elapsed());
                    return Ok(());
                }
                Ok(_) => {}
                Err(_) => self.session = None,
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("runs are open {timeout:?} after the last kill")
    }

    /// Checks that a condition on `flow.flow f` holds for every run.
    pub fn check_runs(&mut self, what: &str, condition: &str) -> Result<()> {
        let wrong = format!("SELECT flow_id FROM flow.flow f WHERE ({condition}) IS NOT TRUE ORDER BY 1");
        let wrong = self.session()?.column(&wrong)?;
        ensure!(wrong.is_empty(), "not so for runs {wrong:?}: {what}");
        println!("{what}: yes, for {} runs", self.runs.len());
        Ok(())
    }

    /// Checks that steps have been attempted again, and none more often than there were kills.
    pub fn check_attempts(&mut self) -> Result<()> {
        let attempts = self.session()?.column(
            "SELECT attempt || ' attempts: ' || count(*) || ' tasks' FROM async.task GROUP BY attempt ORDER BY attempt",
        )?;
        println!("{}", attempts.join("; "));
        ensure!(attempts.len() > 1, "no task was attempted more than once: no kill has hit one");
        Ok(())
    }
}
