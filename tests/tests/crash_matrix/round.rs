//! One round: work is under way, a process stands at a point, something dies, and everything must come right again.

use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use pgflow_tests::database::Kind;
use pgflow_tests::postmaster::signal;
use pgflow_tests::session::Session;

use crate::death::Death;
use crate::invariants;
use crate::point::{Point, Prelude};
use crate::world::World;

/// How long a point may take to be reached.
const REACHED: Duration = Duration::from_secs(10);
/// How often it is tried.
const TRIES: usize = 3;
/// How long all runs may take to end after the last death.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What a client is told when it, or its server, dies, or when its statement is cancelled.
const DEATHS: [&str; 4] = ["57P01", "57P02", "57014", "error communicating with the server"];

pub struct Round {
    pub point: Point,
    /// The how-manieth pass of it.
    pub nth: usize,
    pub death: Death,
}

impl Round {
    /// Whoever is about to stand may be told to go on at once: its task is of the run that is being cancelled. Then there is
    /// another try.
    pub fn run(&self, world: &World) -> Result<()> {
        for _ in 0..TRIES {
            let before = Before::of(world, self.may_fail())?;
            let reached = self.play(world, &before, REACHED, || Ok(()))?;
            finish(world, &before)?;
            if reached {
                return Ok(());
            }
        }
        bail!("nobody has come to {} {} times, in {TRIES} tries", self.point.name, self.nth)
    }

    /// A task whose statement an administrator cancels has failed.
    pub fn may_fail(&self) -> bool {
        self.death == Death::Cancel && self.point.who == Some(Kind::Worker)
    }

    /// Up to the death and the server's return. False: the point was not reached, and nothing has died there. `meanwhile`
    /// may add work of its own before somebody is expected at the point.
    pub fn play(
        &self,
        world: &World,
        before: &Before,
        patience: Duration,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        // A prelude needs work that lasts; then the point is armed when that is under way.
        if self.point.prelude == Prelude::None {
            world.arm(self.point.name, self.nth)?;
        }
        let mut session = world.session()?;
        session.run("TRUNCATE crash.gate")?;
        if self.point.prelude != Prelude::None {
            session.run("SELECT flow.run_flow('held', '{}')")?;
        }
        let work = Operator::sets_to_work(world, before, self.point.who.is_none())?;
        meanwhile()?;
        if self.point.prelude != Prelude::None {
            let under_way = "SELECT EXISTS (SELECT FROM async.running() r JOIN async.task t USING (task_id)
                             JOIN flow.flow f USING (flow_id) WHERE f.flow = 'held')";
            wait_for("a task runs", || world.session()?.truth(under_way))?;
            world.arm(self.point.name, self.nth)?;
            prelude(world, self.point.prelude)?;
        }
        let stands = wait_for_stand(world, self.point.name, patience)?;
        if let Some(pid) = stands {
            self.death.strike(world.cluster(), pid, || world.disarm())?;
        } else {
            world.disarm()?;
            world.cluster().reload()?;
        }
        work.join()?;
        Ok(stands.is_some())
    }
}

fn prelude(world: &World, prelude: Prelude) -> Result<()> {
    let (kind, how) = match prelude {
        Prelude::None => return Ok(()),
        Prelude::Crash => (Kind::Worker, "KILL"),
        Prelude::DispatcherEnds => (Kind::Dispatcher, "TERM"),
    };
    let pid = *world.here.pids(kind)?.first().with_context(|| format!("there is no {}", kind.name()))?;
    signal(pid, how)
}

/// The process that stands at a point, when there is one.
fn wait_for_stand(world: &World, point: &str, patience: Duration) -> Result<Option<i32>> {
    let until = Instant::now() + patience;
    // While the server recovers, nobody is seen.
    while Instant::now() < until {
        if let Ok(Some(pid)) = stands_there(world, point) {
            return Ok(Some(pid));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(None)
}

/// The process that stands at a point now.
pub fn stands_there(world: &World, point: &str) -> Result<Option<i32>> {
    let sql = format!("SELECT pid FROM pg_stat_activity WHERE query = 'pgflow stands at {point}'");
    let pids = world.session()?.column(&sql)?;
    pids.first().map(|pid| pid.parse().context("a pid")).transpose()
}

/// What there was before a round.
pub struct Before {
    /// Runs with higher numbers are this round's.
    pub flow_id: i64,
    /// An ended run that is made to run again.
    pub again: i64,
    /// Tasks may fail that were not to.
    pub may_fail: bool,
    /// How much of the log there was.
    pub log: u64,
}

impl Before {
    pub fn of(world: &World, may_fail: bool) -> Result<Before> {
        let mut session = world.session()?;
        // Not one that is so old that it may be purged during the round.
        let again = "SELECT coalesce(max(f.flow_id), 0) FROM flow.flow f
                     WHERE f.flow = 'small' AND f.parent_flow_id IS NULL
                       AND f.flow_id > (SELECT max(flow_id) - 100 FROM flow.flow)";
        if session.number(again)? == 0 {
            session.run("SELECT flow.run_flow('small', '{}')")?;
        }
        let again = session.number(again)?;
        world.here.wait_run(again)?;
        let flow_id = session.number("SELECT max(flow_id) FROM flow.flow")?;
        Ok(Before { flow_id, again, may_fail, log: invariants::log_length(world.cluster()) })
    }
}

/// A client that starts a run, one to be cancelled, cancels it, and makes an old one run again; until it dies of it.
pub struct Operator(std::thread::JoinHandle<Result<()>>);

impl Operator {
    pub fn sets_to_work(world: &World, before: &Before, is_victim: bool) -> Result<Operator> {
        let mut session = world.here.connect()?;
        if is_victim {
            session.run("SET application_name = 'pgflow victim'")?;
        }
        let again = before.again;
        Ok(Operator(std::thread::spawn(move || {
            let ended = operate(&mut session, again);
            match ended {
                // It was what died, or the whole server was; or what it was about to do was cancelled.
                Err(_) if session.is_closed() => Ok(()),
                Err(error) if DEATHS.iter().any(|words| format!("{error:#}").contains(words)) => Ok(()),
                ended => ended,
            }
        })))
    }

    pub fn join(self) -> Result<()> {
        match self.0.join() {
            Ok(ended) => ended.context("the client that set the work going"),
            Err(_) => bail!("the client that set the work going has panicked"),
        }
    }
}

fn operate(session: &mut Session, again: i64) -> Result<()> {
    let start = |flow: &str| {
        format!(
            "WITH r AS (SELECT flow_id FROM flow.run_flow('{flow}', '{{}}'))
             INSERT INTO crash.started SELECT flow_id FROM r RETURNING flow_id"
        )
    };
    let long = session.number(&start("long"))?;
    session.run(&start("work"))?;
    std::thread::sleep(Duration::from_millis(60));
    session.run(&format!("SELECT flow.cancel({long})"))?;
    session
        .run(&format!("BEGIN; SELECT flow.restart_flow({again}); INSERT INTO crash.restarted VALUES ({again}); COMMIT"))
}

/// What the operator may not have come to is done; then every run ends, and the invariants hold.
pub fn finish(world: &World, before: &Before) -> Result<()> {
    let mut session = world.session()?;
    session.run("INSERT INTO crash.gate VALUES (true)")?;
    if session
        .number(&format!("SELECT count(*) FROM flow.flow WHERE flow = 'work' AND flow_id > {}", before.flow_id))?
        == 0
    {
        operate(&mut session, before.again)?;
    }
    invariants::wait_for_runs(world, PATIENCE)?;
    invariants::check(world, before)
}

/// Waits until a condition of Rust is true; errors are of the deaths that we have caused.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match condition() {
            Ok(true) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error.context(what.to_owned())),
            Ok(false) if Instant::now() > until => bail!("not so within 30 seconds: {what}"),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
