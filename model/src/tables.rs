//! What is committed: the rows of one run. A row is as small as the protocol lets it be.

/// Slots for tasks in a node: its own, and steps.
pub const SLOTS: usize = 3;
pub const NODES: usize = 2;
pub const TASKS: usize = SLOTS * NODES;

/// A task: the number of its place, and how often the node had been reset when it was inserted. A task that was deleted
/// and the one that took its place later are two.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Id {
    pub place: u8,
    pub age: u8,
}

impl Id {
    pub fn node(self) -> usize {
        usize::from(self.place) / SLOTS
    }

    pub fn is_step(self) -> bool {
        !usize::from(self.place).is_multiple_of(SLOTS)
    }
}

pub fn own_place(node: usize) -> usize {
    node * SLOTS
}

pub fn step_places(node: usize) -> std::ops::Range<usize> {
    node * SLOTS + 1..(node + 1) * SLOTS
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ended {
    Finished,
    Failed,
    Cancelled,
}

/// A row of `async.task`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Task {
    pub age: u8,
    /// Attempts that ended or were lost.
    pub attempt: u8,
    /// How often it was opened again.
    pub intention: u8,
    pub ended: Option<Ended>,
    /// Pushed to a node that had not opened.
    pub held: bool,
    /// Its number is below that of its node's own task.
    pub early: bool,
    pub suspect: bool,
    pub crashes: u8,
    /// `consumed` is set: the attempt that ended it had been seen to run.
    pub consumed: bool,
    /// Attempts that have committed a part, as bits.
    pub parts: u8,
    /// How often its effects were committed.
    pub effects: u8,
}

impl Task {
    pub fn new(age: u8) -> Self {
        Task {
            age,
            attempt: 0,
            intention: 0,
            ended: None,
            held: false,
            early: false,
            suspect: false,
            crashes: 0,
            consumed: false,
            parts: 0,
            effects: 0,
        }
    }

    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }
}

/// `flow.flow_node.state`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NodeState {
    Waiting,
    Open,
    Steps,
    Finished,
    Failed,
    Skipped,
    Cancelled,
}

impl NodeState {
    pub fn has_ended(self) -> bool {
        !matches!(self, NodeState::Waiting | NodeState::Open | NodeState::Steps)
    }

    pub fn is_failure(self) -> bool {
        matches!(self, NodeState::Failed | NodeState::Skipped | NodeState::Cancelled)
    }
}

/// A row of `flow.flow_node`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Node {
    pub state: NodeState,
    pub parents_open: u8,
    pub blocked: bool,
    /// It has been opened since it was reset.
    pub opened: bool,
}

/// The row of `flow.flow`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Run {
    pub ended: bool,
    pub finished: u8,
    pub failed: u8,
    /// How often it was reset.
    pub age: u8,
}

/// Part of a row of `async.claim`: one attempt. `again` tells claims of the same attempt apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Claim {
    pub id: Id,
    pub attempt: u8,
    pub again: u8,
    pub alone: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Tables {
    pub run: Run,
    pub nodes: [Node; NODES],
    pub tasks: [Option<Task>; TASKS],
    /// Ascending.
    pub claims: Vec<Claim>,
}

impl Tables {
    /// The row of this very task, if it is there.
    pub fn task(&self, id: Id) -> Option<&Task> {
        self.tasks[usize::from(id.place)].as_ref().filter(|t| t.age == id.age)
    }

    pub fn task_mut(&mut self, id: Id) -> Option<&mut Task> {
        self.tasks[usize::from(id.place)].as_mut().filter(|t| t.age == id.age)
    }

    /// All tasks, in order.
    pub fn ids(&self) -> impl Iterator<Item = (Id, &Task)> {
        let each =
            |(place, task): (usize, &'_ Option<Task>)| task.as_ref().map(|t| Id { place: place as u8, age: t.age });
        self.tasks.iter().enumerate().filter_map(move |(place, task)| {
            let id = each((place, task))?;
            Some((id, task.as_ref()?))
        })
    }

    pub fn steps(&self, node: usize) -> impl Iterator<Item = (Id, &Task)> {
        self.ids().filter(move |(id, _)| id.is_step() && id.node() == node)
    }
}
