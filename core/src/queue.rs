//! The dispatcher's memory of open tasks: which wait in which lane, which are handed out, which wait for something else.
//!
//! It is a cache of the tables: it decides the order of work, never whether something is done. Its size is bounded by
//! the tasks that are loaded (`LOAD` a lane), handed out, or waiting for a time; what else waits is a range of ids.

use std::collections::{HashMap, HashSet, VecDeque};

/// Rows read at once from a range.
pub const LOAD: usize = 1024;
/// A lane below this many loaded tasks reads on.
pub const LOW: usize = 256;

/// What tasks of a lane have in common: who runs them, in which pool, and how urgently (lower first).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    pub role: u32,
    pub pool: usize,
    pub priority: i32,
    pub place: Place,
}

/// Where tasks of a lane run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// In workers of this database.
    Workers,
    /// On the target of this number, through the executor.
    Target(usize),
}

/// Ids that may hold open tasks. Flow 0 and node -1 stand for any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub low: i64,
    pub high: i64,
    pub flow_id: i64,
    pub node_no: i32,
}

/// A node of a run.
pub type Node = (i64, i32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// In its lane's queue.
    Queued,
    /// Handed to the worker in this slot.
    Assigned(usize),
    /// Handed to the executor.
    Sent,
    /// Yielded, leased or put off.
    Waiting,
}

#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub node: Node,
    pub is_step: bool,
    pub lane: usize,
    /// The attempt that comes next or runs.
    pub attempt: i32,
    pub state: State,
}

impl Task {
    /// Whether a worker or the executor has it.
    pub fn is_handed_out(&self) -> bool {
        matches!(self.state, State::Assigned(_) | State::Sent)
    }
}

#[derive(Debug)]
pub struct Lane {
    pub key: Key,
    /// Waiting tasks by run (zero: outside flows).
    queues: HashMap<i64, VecDeque<i64>>,
    /// The runs that have a queue, the one whose turn it is first.
    turns: VecDeque<i64>,
    /// Entries of the queues that still count: forgotten tasks leave theirs behind.
    live: usize,
    /// Counts what was handed out when this lane had its turn last: among equals the lane that has waited longest is first.
    turn: u64,
    /// When it was first seen waiting for its turn, microseconds.
    waits_since: Option<i64>,
    backlog: VecDeque<Range>,
    /// Smoothed duration of a task, microseconds; none has been seen yet while negative.
    mean: f64,
}

impl Lane {
    fn new(key: Key) -> Self {
        Lane {
            key,
            queues: HashMap::new(),
            turns: VecDeque::new(),
            live: 0,
            turn: 0,
            waits_since: None,
            backlog: VecDeque::new(),
            mean: -1.0,
        }
    }

    fn push(&mut self, flow_id: i64, task_id: i64, front: bool) {
        let queue = self.queues.entry(flow_id).or_insert_with(|| {
            if front {
                self.turns.push_front(flow_id);
            } else {
                self.turns.push_back(flow_id);
            }
            VecDeque::new()
        });
        if front {
            queue.push_front(task_id);
        } else {
            queue.push_back(task_id);
        }
        self.live += 1;
    }

    /// The next waiting task of the run whose turn it is.
    fn pop(&mut self) -> Option<i64> {
        let queue = self.queues.get_mut(self.turns.front()?)?;
        queue.pop_front()
    }

    /// It is the next run's turn.
    fn pass_on(&mut self) {
        let Some(flow_id) = self.turns.pop_front() else { return };
        if self.queues.get(&flow_id).is_some_and(|queue| !queue.is_empty()) {
            self.turns.push_back(flow_id);
        } else {
            self.queues.remove(&flow_id);
        }
    }

    fn clear(&mut self) {
        self.queues.clear();
        self.turns.clear();
        self.live = 0;
        self.waits_since = None;
        self.backlog.clear();
    }

    pub fn waiting(&self) -> usize {
        self.live
    }

    /// Whether its tasks are known to take less than this (microseconds).
    pub fn takes_less_than(&self, microseconds: i64) -> bool {
        (0.0..microseconds as f64).contains(&self.mean)
    }

    /// How many tasks a worker should hold at once: enough for about 10 ms, so that short ones never wait for the
    /// dispatcher and long ones never wait behind each other.
    pub fn depth(&self, most: usize) -> usize {
        if self.mean < 0.0 {
            1
        } else {
            ((10_000.0 / self.mean.max(1.0)) as usize).clamp(1, most)
        }
    }
}

/// What is known of a node's tasks.
#[derive(Default, Debug, Clone, Copy)]
struct Open {
    tasks: usize,
    ranges: usize,
}

#[derive(Default, Debug)]
pub struct Queue {
    lanes: Vec<Lane>,
    /// How often something was handed out.
    turns: u64,
    by_key: HashMap<Key, usize>,
    tasks: HashMap<i64, Task>,
    nodes: HashMap<Node, Open>,
}

impl Queue {
    pub fn task(&self, task_id: i64) -> Option<&Task> {
        self.tasks.get(&task_id)
    }

    pub fn knows(&self, task_id: i64) -> bool {
        self.tasks.contains_key(&task_id)
    }

    pub fn lane(&self, lane: usize) -> &Lane {
        &self.lanes[lane]
    }

    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.lanes.iter().all(|l| l.backlog.is_empty())
    }

    /// Tasks in queues, and whether more lie in ranges.
    pub fn waiting(&self) -> (usize, bool) {
        (self.lanes.iter().map(|l| l.live).sum(), self.lanes.iter().any(|l| !l.backlog.is_empty()))
    }

    /// Tasks that wait in queues of a pool.
    pub fn waiting_in(&self, pool: usize) -> usize {
        self.lanes.iter().filter(|l| l.key.pool == pool).map(|l| l.live).sum()
    }

    /// Targets that tasks wait for.
    pub fn wanted_targets(&self) -> HashSet<usize> {
        let wanted = self.lanes.iter().filter(|l| l.live > 0 || !l.backlog.is_empty());
        wanted.filter_map(|l| if let Place::Target(target) = l.key.place { Some(target) } else { None }).collect()
    }

    pub fn lane_of(&mut self, key: Key) -> usize {
        *self.by_key.entry(key).or_insert_with(|| {
            self.lanes.push(Lane::new(key));
            self.lanes.len() - 1
        })
    }

    /// Adds a task that is not known yet. `state` is `Queued` or `Waiting`.
    pub fn add(&mut self, task_id: i64, task: Task) {
        debug_assert!(!self.tasks.contains_key(&task_id));
        if task.state == State::Queued {
            self.lanes[task.lane].push(task.node.0, task_id, false);
        }
        if task.node.0 != 0 {
            self.nodes.entry(task.node).or_default().tasks += 1;
        }
        self.tasks.insert(task_id, task);
    }

    /// A task waits no more for something else, or comes back from a worker: it is queued, at the front where it was.
    pub fn requeue(&mut self, task_id: i64, attempt: i32) {
        if let Some(task) = self.tasks.get_mut(&task_id) {
            task.attempt = attempt;
            if task.state != State::Queued {
                task.state = State::Queued;
                self.lanes[task.lane].push(task.node.0, task_id, true);
            }
        }
    }

    /// The task is neither queued nor running.
    pub fn wait(&mut self, task_id: i64, attempt: i32) {
        if let Some(task) = self.tasks.get_mut(&task_id) {
            if task.state == State::Queued {
                self.lanes[task.lane].live -= 1;
            }
            task.state = State::Waiting;
            task.attempt = attempt;
        }
    }

    /// Forgets a task. Returns what was known of it, and whether its node has no known open task left.
    pub fn forget(&mut self, task_id: i64) -> Option<(Task, bool)> {
        let task = self.tasks.remove(&task_id)?;
        if task.state == State::Queued {
            self.lanes[task.lane].live -= 1;
        }
        Some((task, self.count_down(task.node, |open| open.tasks -= 1)))
    }

    fn count_down(&mut self, node: Node, change: impl FnOnce(&mut Open)) -> bool {
        let Some(open) = self.nodes.get_mut(&node) else { return true };
        change(open);
        let none = open.tasks == 0 && open.ranges == 0;
        if none {
            self.nodes.remove(&node);
        }
        none
    }

    /// Known tasks for which `which` holds.
    pub fn find(&self, which: impl Fn(&Task) -> bool) -> Vec<i64> {
        self.tasks.iter().filter(|(_, t)| which(t)).map(|(id, _)| *id).collect()
    }

    /// Keeps a range for later, behind what the lane has.
    pub fn keep(&mut self, lane: usize, range: Range) {
        self.lanes[lane].backlog.push_back(range);
        if range.flow_id != 0 && range.node_no >= 0 {
            self.nodes.entry((range.flow_id, range.node_no)).or_default().ranges += 1;
        }
    }

    /// Whether a lane runs low while more of it lies in ranges.
    pub fn wants_range(&self) -> bool {
        self.lanes.iter().any(|l| l.live < LOW && !l.backlog.is_empty())
    }

    /// A range to read now, of a lane that runs low.
    pub fn next_range(&mut self) -> Option<Range> {
        let lane = self.lanes.iter_mut().find(|l| l.live < LOW && !l.backlog.is_empty())?;
        lane.backlog.pop_front()
    }

    /// A range has been read (or dropped): its node does not wait for it any more. Returns whether the node has no known
    /// open task left.
    pub fn range_done(&mut self, range: Range) -> bool {
        range.flow_id != 0
            && range.node_no >= 0
            && self.count_down((range.flow_id, range.node_no), |open| open.ranges = open.ranges.saturating_sub(1))
    }

    /// Drops everything known of a run or, with `node_no`, of one of its nodes; what is with a worker stays known. Returns
    /// both: what workers hold, and what was forgotten.
    pub fn drop_flow(&mut self, flow_id: i64, node_no: Option<i32>) -> (Vec<i64>, Vec<i64>) {
        let is_in = |n: Node| n.0 == flow_id && node_no.is_none_or(|no| n.1 == no);
        for lane in &mut self.lanes {
            lane.backlog.retain(|r| r.flow_id != flow_id || node_no.is_some_and(|no| r.node_no != no));
        }
        for (node, open) in &mut self.nodes {
            if is_in(*node) {
                open.ranges = 0;
            }
        }
        let (assigned, others): (Vec<i64>, Vec<i64>) =
            self.find(|t| is_in(t.node)).into_iter().partition(|id| self.tasks[id].is_handed_out());
        for id in &others {
            self.forget(*id);
        }
        self.nodes.retain(|node, open| !is_in(*node) || open.tasks > 0);
        (assigned, others)
    }

    /// Forgets everything that is not with a worker.
    pub fn clear(&mut self) {
        self.tasks.retain(|_, t| t.is_handed_out());
        self.nodes.clear();
        for task in self.tasks.values() {
            if task.node.0 != 0 {
                self.nodes.entry(task.node).or_default().tasks += 1;
            }
        }
        for lane in &mut self.lanes {
            lane.clear();
        }
    }

    /// Lanes with waiting tasks, the most urgent first; among equals the one that had its turn longest ago. With `ageing`
    /// (microseconds) a lane is one priority more urgent for each such time that it has waited for its turn.
    pub fn order(&mut self, now: i64, ageing: Option<i64>) -> Vec<usize> {
        let mut order: Vec<(i64, u64, usize)> = Vec::new();
        for (i, lane) in self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.live > 0) {
            let since = *lane.waits_since.get_or_insert(now);
            let aged = ageing.map_or(0, |time| (now - since).max(0) / time.max(1));
            order.push((i64::from(lane.key.priority) - aged, lane.turn, i));
        }
        order.sort_unstable();
        order.into_iter().map(|(_, _, lane)| lane).collect()
    }

    /// Hands up to `most` waiting tasks of a lane to a slot: (task, attempt).
    pub fn take(&mut self, lane: usize, most: usize, slot: usize) -> Vec<(i64, i32)> {
        self.take_as(lane, most, State::Assigned(slot))
    }

    /// Hands up to `most` waiting tasks of a lane to the executor: (task, attempt).
    pub fn take_to_send(&mut self, lane: usize, most: usize) -> Vec<(i64, i32)> {
        self.take_as(lane, most, State::Sent)
    }

    /// The runs of a lane have turns: what is handed out at once is one run's, and is filled up from the next.
    fn take_as(&mut self, lane: usize, most: usize, state: State) -> Vec<(i64, i32)> {
        let mut taken = Vec::new();
        let of_lane = &mut self.lanes[lane];
        while taken.len() < most && !of_lane.turns.is_empty() {
            let Some(task_id) = of_lane.pop() else {
                of_lane.pass_on();
                continue;
            };
            let Some(task) = self.tasks.get_mut(&task_id) else { continue };
            if task.state == State::Queued && task.lane == lane {
                task.state = state;
                of_lane.live -= 1;
                taken.push((task_id, task.attempt));
            }
        }
        if !taken.is_empty() {
            of_lane.pass_on();
            of_lane.waits_since = None;
            self.turns += 1;
            of_lane.turn = self.turns;
        }
        taken
    }

    /// Hands one waiting task to a slot.
    pub fn take_one(&mut self, task_id: i64, slot: usize) -> bool {
        let Some(task) = self.tasks.get_mut(&task_id).filter(|t| t.state == State::Queued) else { return false };
        task.state = State::Assigned(slot);
        self.lanes[task.lane].live -= 1;
        true
    }

    /// A task that a worker holds since before this dispatcher was there.
    pub fn adopt(&mut self, task_id: i64, task: Task) {
        debug_assert!(matches!(task.state, State::Assigned(_)));
        if !self.knows(task_id) {
            self.add(task_id, task);
        }
    }

    /// Learns how long tasks of a lane take.
    pub fn learn(&mut self, lane: usize, microseconds: u32) {
        let mean = &mut self.lanes[lane].mean;
        let new = f64::from(microseconds);
        *mean = if *mean < 0.0 {
            new
        } else if new < *mean {
            // The first calls of a session are slow: what is quick after them is learnt soon.
            (*mean + new) / 2.0
        } else {
            // One that was held up says little; what waits behind a long one is taken back anyway.
            *mean * 0.9 + new.min(*mean * 10.0) * 0.1
        };
    }

    /// Tasks known per node, for tests.
    pub fn open_nodes(&self) -> HashSet<Node> {
        self.nodes.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(lane: usize, node: Node) -> Task {
        Task { node, is_step: true, lane, attempt: 1, state: State::Queued }
    }

    fn key(priority: i32) -> Key {
        Key { role: 10, pool: 0, priority, place: Place::Workers }
    }

    #[test]
    fn lower_priority_numbers_go_first_and_equals_have_turns() {
        let mut q = Queue::default();
        let (urgent, calm) = (q.lane_of(key(-1)), q.lane_of(key(0)));
        let other = q.lane_of(Key { role: 11, ..key(0) });
        for id in 0..3 {
            q.add(30 + id, task(calm, (1, 0)));
            q.add(20 + id, task(other, (2, 0)));
            q.add(90 + id, task(urgent, (1, 1)));
        }
        assert_eq!(q.order(0, None), [urgent, calm, other]);
        assert_eq!(q.take(urgent, 1, 0).len() + q.take(calm, 1, 0).len(), 2);
        assert_eq!(q.order(0, None), [urgent, other, calm], "however long it has waited, the urgent one is first");
        assert_eq!(q.take(other, 1, 0).len(), 1);
        assert_eq!(q.order(i64::MAX, None), [urgent, calm, other]);
    }

    #[test]
    fn with_ageing_what_has_waited_long_enough_is_as_urgent() {
        let mut q = Queue::default();
        let (urgent, calm) = (q.lane_of(key(-2)), q.lane_of(key(0)));
        for id in 0..9 {
            q.add(id, task(urgent, (1, 0)));
            q.add(100 + id, task(calm, (2, 0)));
        }
        let ageing = Some(1000);
        assert_eq!(q.order(0, ageing), [urgent, calm]);
        let mut turns = Vec::new();
        for now in (0..6000).step_by(1000) {
            let first = q.order(now, ageing)[0];
            q.take(first, 1, 0);
            turns.push(first);
        }
        assert_eq!(turns.iter().filter(|lane| **lane == calm).count(), 2, "{turns:?}");
        assert_eq!(turns[0], urgent);
    }

    #[test]
    fn the_runs_of_a_lane_have_turns() {
        let mut q = Queue::default();
        let lane = q.lane_of(key(0));
        for id in 0..1000 {
            q.add(id, task(lane, (1, 0)));
        }
        assert_eq!(q.take(lane, 4, 0).len(), 4);
        q.add(2000, task(lane, (2, 0)));
        q.add(2001, task(lane, (2, 1)));
        let batches: Vec<Vec<i64>> =
            (0..3).map(|_| q.take(lane, 4, 0).into_iter().map(|(id, _)| id).collect()).collect();
        assert_eq!(batches, [vec![4, 5, 6, 7], vec![2000, 2001, 8, 9], vec![10, 11, 12, 13]]);
        q.requeue(5, 1);
        assert_eq!(q.take(lane, 2, 0), [(5, 1), (14, 1)], "what was taken back is next");
        assert_eq!(q.lane(lane).waiting(), 1000 - 15);
    }

    #[test]
    fn a_node_is_done_when_tasks_and_ranges_are() {
        let mut q = Queue::default();
        let lane = q.lane_of(key(0));
        let range = Range { low: 5, high: 9, flow_id: 7, node_no: 2 };
        q.add(1, task(lane, (7, 2)));
        q.keep(lane, range);
        assert!(!q.forget(1).unwrap().1, "a range is left");
        assert_eq!(q.next_range(), Some(range));
        assert!(q.range_done(range));
        assert!(q.open_nodes().is_empty());
    }

    #[test]
    fn forgotten_and_waiting_tasks_are_not_handed_out() {
        let mut q = Queue::default();
        let lane = q.lane_of(key(0));
        for id in 1..=4 {
            q.add(id, task(lane, (1, 0)));
        }
        q.forget(1);
        q.wait(2, 5);
        assert_eq!(q.take(lane, 10, 3), [(3, 1), (4, 1)]);
        assert_eq!(q.lane(lane).waiting(), 0);
        q.requeue(2, 6);
        assert_eq!(q.take(lane, 10, 3), [(2, 6)]);
        assert!(q.order(0, None).is_empty());
    }

    #[test]
    fn dropping_a_run_leaves_what_workers_hold_and_other_runs() {
        let mut q = Queue::default();
        let lane = q.lane_of(key(0));
        q.add(1, task(lane, (1, 0)));
        q.add(2, task(lane, (1, 1)));
        q.add(3, task(lane, (2, 0)));
        q.keep(lane, Range { low: 10, high: 20, flow_id: 1, node_no: 1 });
        assert_eq!(q.take(lane, 1, 0), [(1, 1)]);
        assert_eq!(q.drop_flow(1, None), (vec![1], vec![2]));
        assert_eq!(q.open_nodes(), HashSet::from([(1, 0), (2, 0)]));
        assert_eq!(q.next_range(), None);
        assert_eq!(q.take(lane, 9, 0), [(3, 1)]);
    }

    #[test]
    fn what_was_sent_elsewhere_is_kept_like_what_a_worker_holds() {
        let mut q = Queue::default();
        let lane = q.lane_of(Key { place: Place::Target(3), ..key(0) });
        assert_ne!(lane, q.lane_of(key(0)), "a target that is down keeps no other lane from running");
        q.add(1, task(lane, (1, 0)));
        q.add(2, task(lane, (1, 0)));
        assert_eq!(q.wanted_targets(), HashSet::from([3]));
        assert_eq!(q.take_to_send(lane, 1), [(1, 1)]);
        assert_eq!(q.drop_flow(1, None), (vec![1], vec![2]));
        q.clear();
        assert_eq!(q.task(1).map(|t| t.state), Some(State::Sent));
    }

    #[test]
    fn depth_follows_the_duration_of_tasks() {
        let mut q = Queue::default();
        let lane = q.lane_of(key(0));
        assert_eq!(q.lane(lane).depth(64), 1, "nothing is known");
        q.learn(lane, 30);
        assert_eq!(q.lane(lane).depth(64), 64);
        q.learn(lane, 1_000_000);
        assert!(q.lane(lane).depth(64) > 30, "one that was held up changes little");
        for _ in 0..10 {
            q.learn(lane, 1_000_000);
        }
        assert_eq!(q.lane(lane).depth(64), 1, "some long ones are enough to be careful");
        for _ in 0..20 {
            q.learn(lane, 30);
        }
        assert_eq!(q.lane(lane).depth(64), 64, "some short ones are enough to be quick again");
    }
}
