//! Everything a state holds: what is committed and what of it a crash may take back, what processes share, what each of
//! them remembers, and the faults that may happen at any moment.

use crate::tables::{own_place, step_places, Claim, Id, Node, NodeState, Run, Tables, Task, NODES, TASKS};
use crate::{Broken, Scenario};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    // The dispatcher.
    Start,
    Recover,
    Rebuild,
    Take,
    Settle,
    Decide,
    Assign,
    CommitCycle,
    TellWorkers,
    LoseAgain,
    // A worker.
    ReadBatch(usize),
    BeginTask(usize),
    CommitPart(usize),
    PushSteps(usize),
    WriteOutcome(usize),
    Raise(usize),
    WriteFailure(usize),
    CommitOutcome(usize),
    /// Only of a broken worker: the outcome, after the effects.
    OutcomeLate(usize),
    Announce(usize),
    Report(usize),
    Pass(usize),
    // A client.
    Enter(usize),
    EndTasks(usize),
    CommitClient(usize),
    RollBack(usize),
    Tell(usize),
    // Faults.
    EndWorker(usize),
    EndDispatcher,
    /// The server dies; so many commits that were not flushed yet are lost.
    Crash {
        lost: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    Finished,
    Failed,
    Stale,
}

/// `engine::events::Event`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    Arrived { ids: Vec<Id>, node: Option<u8> },
    Ended { id: Id, attempt: u8, outcome: Outcome },
    Released { node: u8 },
    Run,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryState {
    Assigned,
    Started,
    Done,
    Revoked,
}

/// An entry of a worker's queue in shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    pub id: Id,
    pub attempt: u8,
    pub state: EntryState,
}

/// What a worker is doing with its first entry.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    Idle,
    /// The callback runs.
    Begun {
        id: Id,
        attempt: u8,
        intention: u8,
        committed: bool,
        pushed: Option<bool>,
    },
    /// The outcome is written and not committed: the task's row is locked.
    Written {
        id: Id,
        attempt: u8,
        intention: u8,
        pushed: Option<bool>,
    },
    /// Broken: the effects are committed, the outcome is not written.
    EffectsOnly {
        id: Id,
        attempt: u8,
    },
    /// The callback's transaction was rolled back.
    Raised {
        id: Id,
        attempt: u8,
    },
    /// `notes`: what the transaction announces and has not announced yet.
    Over {
        id: Id,
        attempt: u8,
        outcome: Outcome,
        notes: Vec<Event>,
    },
    /// Its entry is passed, the report is to come.
    Passed {
        id: Id,
        attempt: u8,
        outcome: Outcome,
    },
    /// Broken: reported, and its entry is to be passed.
    Reported,
}

/// A worker and its slot in shared memory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Worker {
    pub gone: bool,
    pub entries: Vec<Entry>,
    /// Entries before it have been passed.
    pub head: usize,
    /// What was read of the entries from `head` on: the attempt to run, if the task was open.
    pub batch: Vec<Option<u8>>,
    pub phase: Phase,
}

impl Worker {
    fn fresh() -> Self {
        Worker { gone: false, entries: vec![], head: 0, batch: vec![], phase: Phase::Idle }
    }

    /// What `async.running()` shows of it.
    pub fn running(&self) -> Option<(Id, u8)> {
        match self.phase {
            Phase::Begun { id, attempt, .. } | Phase::Written { id, attempt, .. } => Some((id, attempt)),
            Phase::EffectsOnly { id, attempt } => Some((id, attempt)),
            _ => None,
        }
    }

    /// The node that its open transaction has pushed steps to, locked `FOR KEY SHARE`.
    pub fn pushing_to(&self) -> Option<usize> {
        match self.phase {
            Phase::Begun { id, pushed: Some(_), .. } | Phase::Written { id, pushed: Some(_), .. } => Some(id.node()),
            _ => None,
        }
    }

    pub fn locks(&self, id: Id) -> bool {
        matches!(self.phase, Phase::Written { id: mine, .. } if mine == id)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ClientState {
    Idle,
    /// A step is pushed and not committed. `early`: its number is below that of the node's own task.
    Pushing {
        held: bool,
        early: bool,
        age: u8,
    },
    /// The run is locked, its nodes are ended, its tasks not yet.
    CancellingNodes,
    /// The tasks too: (task, it was running).
    CancellingTasks(Vec<(Id, bool)>),
    Telling(Vec<Event>),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Known {
    Queued,
    Assigned,
    Waiting,
}

/// What the dispatcher knows of a task (`core::queue`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Memo {
    pub id: Id,
    pub attempt: u8,
    pub state: Known,
}

/// What a worker was handed (`slots::Handed`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handed {
    pub id: Id,
    pub attempt: u8,
    pub position: usize,
    pub claim: Option<Claim>,
}

/// What settling has found about a candidate before it asks for the lock on its node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    Fails(NodeState),
    /// Its own part is done: are all steps?
    Check,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum At {
    Down,
    Recovering,
    Rebuilding,
    Idle,
    Taken,
    Deciding,
    Settled,
    Assigned,
    Committed,
}

/// The open transaction of a cycle: rows that it has written, locks that it holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Cycle {
    pub nodes: [Option<Node>; NODES],
    pub tasks: [Option<Task>; TASKS],
    pub run: Option<Run>,
    pub new_claims: Vec<Claim>,
    pub old_claims: Vec<Claim>,
    pub run_locked: bool,
    /// Nodes locked `FOR UPDATE`, as bits.
    pub nodes_locked: u8,
    pub durable: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Dispatcher {
    pub at: At,
    /// Ascending.
    pub queue: Vec<Memo>,
    pub handed: Vec<Vec<Handed>>,
    pub candidates: Vec<(u8, Option<Id>)>,
    /// Nodes whose rows a client had locked, as bits.
    pub locked: u8,
    pub ranges: Vec<Id>,
    pub touched: Vec<Id>,
    pub run_changed: bool,
    pub suspects: Vec<Id>,
    pub careful: bool,
    pub finished_claims: Vec<Claim>,
    /// Lost attempts whose rows a client has locked: (task, attempt, charged, suspect).
    pub unsettled: Vec<(Id, u8, bool, bool)>,
    pub cycle: Cycle,
    /// Candidates that are being decided, and nodes that were found to have ended.
    pub todo: Vec<(u8, Verdict)>,
    pub ended: Vec<u8>,
    /// Entries that workers will see when they are told.
    pub handing: Vec<(usize, Entry)>,
}

impl Dispatcher {
    pub fn down(workers: usize) -> Self {
        Dispatcher {
            at: At::Down,
            queue: vec![],
            handed: vec![vec![]; workers],
            candidates: vec![],
            locked: 0,
            ranges: vec![],
            touched: vec![],
            run_changed: false,
            suspects: vec![],
            careful: false,
            finished_claims: vec![],
            unsettled: vec![],
            cycle: Cycle::default(),
            todo: vec![],
            ended: vec![],
            handing: vec![],
        }
    }

    pub fn memo(&self, id: Id) -> Option<&Memo> {
        self.queue.iter().find(|m| m.id == id)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub tables: Tables,
    /// What was visible before each commit since the last flush, the oldest first: what a crash may bring back.
    pub unflushed: Vec<Tables>,
    pub ring: Vec<Event>,
    pub rebuild: bool,
    pub attached: bool,
    pub workers: Vec<Worker>,
    pub dispatcher: Dispatcher,
    /// The first one is who started the run.
    pub clients: Vec<ClientState>,
    /// Faults that may still happen: ends of workers, ends of the dispatcher, crashes.
    pub left: [u8; 3],
    /// An attempt that had been stopped has committed.
    pub stopped_committed: bool,
}

impl State {
    /// `flow.run_flow` has committed and is about to tell.
    pub fn start(scenario: &Scenario) -> Self {
        let run = Run { ended: false, finished: 0, failed: 0, age: 0 };
        let node = Node { state: NodeState::Waiting, parents_open: 0, blocked: false, opened: false };
        let mut tables = Tables { run, nodes: [node; NODES], tasks: [None; TASKS], claims: vec![] };
        for (i, spec) in scenario.nodes.iter().enumerate() {
            tables.nodes[i].parents_open = spec.parent.is_some().into();
        }
        let told = crate::client::start_run(scenario, &mut tables);
        let mut clients = vec![ClientState::Telling(told)];
        clients.resize(1 + scenario.clients.len(), ClientState::Idle);
        let mut dispatcher = Dispatcher::down(scenario.workers);
        dispatcher.at = At::Idle;
        State {
            tables,
            unflushed: vec![],
            ring: vec![],
            rebuild: false,
            attached: true,
            workers: vec![Worker::fresh(); scenario.workers],
            dispatcher,
            clients,
            left: [scenario.worker_ends, scenario.dispatcher_ends, scenario.crashes],
            stopped_committed: false,
        }
    }

    /// `shmem::Database::send`.
    pub fn send(&mut self, scenario: &Scenario, event: Event) {
        if !self.attached {
            return;
        }
        if self.ring.len() < scenario.ring {
            self.ring.push(event);
        } else if !scenario.is(Broken::NoRebuild) {
            self.rebuild = true;
        }
    }

    /// Whether a session holds `FOR KEY SHARE` on a node: it has pushed to it and not committed.
    pub fn is_pushed_to(&self, scenario: &Scenario, node: usize) -> bool {
        let by_client = self.clients.iter().enumerate().any(|(i, c)| {
            matches!(c, ClientState::Pushing { .. })
                && matches!(scenario.clients.get(i.wrapping_sub(1)), Some(crate::Client::Push { node: n, .. }) if usize::from(*n) == node)
        });
        by_client || self.workers.iter().any(|w| w.pushing_to() == Some(node))
    }

    /// Whether a client has the run's row locked.
    pub fn is_run_locked(&self) -> bool {
        self.clients.iter().any(|c| matches!(c, ClientState::CancellingNodes | ClientState::CancellingTasks(_)))
    }

    /// Whether a client has this task's row locked.
    pub fn is_locked_by_client(&self, id: Id) -> bool {
        let has = |c: &ClientState| matches!(c, ClientState::CancellingTasks(tasks) if tasks.iter().any(|t| t.0 == id));
        self.clients.iter().any(has)
    }

    /// Whether the dispatcher's open transaction has this task's row locked.
    pub fn is_locked_by_cycle(&self, id: Id) -> bool {
        self.dispatcher.cycle.tasks[usize::from(id.place)].is_some()
    }

    pub fn is_locked_by_worker(&self, id: Id) -> bool {
        self.workers.iter().any(|w| w.locks(id))
    }

    pub fn is_locked(&self, id: Id) -> bool {
        self.is_locked_by_client(id) || self.is_locked_by_cycle(id) || self.is_locked_by_worker(id)
    }

    /// The attempts of a task that run, as `async.running()` shows them: one that was stopped may go on beside a later one.
    pub fn running(&self, id: Id) -> impl Iterator<Item = u8> + '_ {
        self.workers.iter().filter_map(Worker::running).filter(move |r| r.0 == id).map(|r| r.1)
    }

    /// A durable commit: it flushes whatever was committed before.
    pub fn flush(&mut self) {
        self.unflushed.clear();
    }

    /// Whether the number of a step that is inserted now is below that of its node's own task.
    pub fn is_before_own(&self, node: usize) -> bool {
        let place = own_place(node);
        self.tables.tasks[place].is_none() && self.dispatcher.cycle.tasks[place].is_none()
    }

    pub fn fault_actions(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
        if self.left[0] > 0 {
            for (i, w) in self.workers.iter().enumerate() {
                // A transaction that commits is not interrupted before it has announced.
                let is_announcing = matches!(&w.phase, Phase::Over { notes, .. } if !notes.is_empty());
                let is_busy = w.head < w.entries.len() || w.phase != Phase::Idle;
                if is_busy && !w.gone && !is_announcing {
                    actions.push(Action::EndWorker(i));
                }
            }
        }
        if self.left[1] > 0 && self.dispatcher.at != At::Down {
            actions.push(Action::EndDispatcher);
        }
        if self.left[2] > 0 || self.poisoned(scenario) {
            actions.extend((0..=self.unflushed.len()).map(|lost| Action::Crash { lost }));
        }
    }

    /// Whether a callback runs that takes the server down.
    pub fn poisoned(&self, scenario: &Scenario) -> bool {
        self.workers.iter().any(|w| matches!(w.phase, Phase::Begun { id, .. } if Some(id.place) == scenario.poison))
    }

    pub fn apply(&mut self, scenario: &Scenario, action: Action) {
        use Action::*;
        match action {
            Start | Recover | Rebuild | Take | Settle | Decide | Assign | CommitCycle | TellWorkers | LoseAgain => {
                self.dispatcher_step(scenario, action)
            }
            ReadBatch(w) | BeginTask(w) | CommitPart(w) | PushSteps(w) | WriteOutcome(w) | Raise(w)
            | WriteFailure(w) | CommitOutcome(w) | OutcomeLate(w) | Announce(w) | Report(w) | Pass(w) => {
                self.worker_step(scenario, w, action)
            }
            Enter(c) | EndTasks(c) | CommitClient(c) | RollBack(c) | Tell(c) => self.client_step(scenario, c, action),
            EndWorker(w) => self.end_worker(scenario, w),
            EndDispatcher => {
                self.left[1] -= 1;
                self.attached = false;
                self.dispatcher = Dispatcher::down(scenario.workers);
                self.forget_ids();
            }
            Crash { lost } => self.crash(scenario, lost),
        }
    }

    /// A worker is terminated: its transaction is rolled back, which says that its locks are gone; its slot stays.
    fn end_worker(&mut self, scenario: &Scenario, w: usize) {
        self.left[0] -= 1;
        if let Some(node) = self.workers[w].pushing_to() {
            self.tell_released(scenario, node);
        }
        let worker = &mut self.workers[w];
        worker.gone = true;
        worker.batch.clear();
        worker.phase = Phase::Idle;
    }

    /// After a rollback.
    pub fn tell_released(&mut self, scenario: &Scenario, node: usize) {
        if !scenario.is(Broken::SilentAbort) {
            self.send(scenario, Event::Released { node: node as u8 });
        }
    }

    /// The server dies: shared memory, every process and every open transaction go, and some commits that were not on disk.
    fn crash(&mut self, scenario: &Scenario, lost: usize) {
        if !self.poisoned(scenario) {
            self.left[2] -= 1;
        }
        if lost > 0 {
            self.tables = self.unflushed[self.unflushed.len() - lost].clone();
        }
        self.unflushed.clear();
        self.ring.clear();
        self.rebuild = false;
        self.attached = false;
        self.workers = vec![Worker::fresh(); scenario.workers];
        self.dispatcher = Dispatcher::down(scenario.workers);
        for client in &mut self.clients {
            if *client != ClientState::Idle {
                *client = ClientState::Done;
            }
        }
        self.forget_ids();
    }

    /// The own task of a node that was being opened is inserted anew, with a higher number than any there is.
    fn forget_ids(&mut self) {
        for node in 0..NODES {
            if self.tables.tasks[own_place(node)].is_none() {
                self.tables.tasks[step_places(node)].iter_mut().flatten().for_each(|t| t.early = true);
            }
        }
        for client in &mut self.clients {
            if let ClientState::Pushing { early, held: true, .. } = client {
                *early = true;
            }
        }
    }

    /// Leaves out what cannot matter any more, so that states that behave alike are one.
    pub fn tidy(&mut self, scenario: &Scenario) {
        if self.left[2] == 0 && scenario.poison.is_none() {
            self.unflushed.clear();
        }
        // An asynchronous commit that changed nothing.
        let tables = &self.tables;
        while self.unflushed.last() == Some(tables) {
            self.unflushed.pop();
        }
        for (i, worker) in self.workers.iter_mut().enumerate() {
            if worker.head > 0 && worker.head == worker.entries.len() && self.dispatcher.handed[i].is_empty() {
                worker.entries.clear();
                worker.head = 0;
            }
        }
        let d = &mut self.dispatcher;
        d.queue.sort_unstable();
        d.candidates.sort_unstable();
        for ids in [&mut d.ranges, &mut d.touched, &mut d.suspects] {
            ids.sort_unstable();
            ids.dedup();
        }
        d.finished_claims.sort_unstable();
        d.unsettled.sort_unstable();
    }
}
