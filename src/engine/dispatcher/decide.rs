//! What follows from what has ended: the cascade and its effects, times that have come, time-outs.

use std::cmp::Reverse;

use pgflow_core::queue::{Range, State};

use super::{Dispatcher, Due, CANDIDATES, RETRY};
use crate::engine::stop_points::{self, Point};
use crate::store::dispatcher::{self as store, Effect};

impl Dispatcher {
    /// Lets the cascade decide about nodes that may have ended.
    pub(super) fn settle(&mut self) {
        if self.candidates.is_empty() {
            return;
        }
        self.db();
        let some: Vec<(i64, i32, Option<i64>)> =
            self.candidates.iter().take(CANDIDATES).map(|(node, failed)| (node.0, node.1, *failed)).collect();
        for (flow_id, node_no, _) in &some {
            self.candidates.remove(&(*flow_id, *node_no));
        }
        stop_points::begin(Point::DispatcherCascade);
        let effects = store::settle(&some);
        stop_points::end();
        stop_points::pass(Point::DispatcherDecided);
        self.apply(effects);
        // What was opened is handed out in this very cycle.
        self.load_ranges();
    }

    pub(super) fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let Effect { kind, flow_id, node_no, low, high, at } = effect;
            match kind {
                b'A' => self.ranges.push(Range { low, high, flow_id, node_no }),
                b'N' => self.drop_flow(flow_id, Some(node_no)),
                b'P' => {
                    self.parents.insert(flow_id);
                    self.remind(crate::store::now() + RETRY, Due::Look);
                }
                b'E' => self.touched.push(low),
                b'R' => {
                    self.locked.insert((flow_id, node_no));
                    self.remind(crate::store::now() + RETRY, Due::Look);
                }
                b'T' => self.watch_node(flow_id, node_no, at),
                b'F' => self.run_changed = true,
                _ => {}
            }
        }
    }

    /// Times that have come.
    pub(super) fn take_due(&mut self) -> bool {
        let now = crate::store::now();
        let mut nodes = Vec::new();
        let mut tasks = Vec::new();
        let mut any = false;
        while let Some(Reverse((at, due))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            if self.reminders.get(&due) != Some(&at) {
                continue;
            }
            self.reminders.remove(&due);
            any = true;
            match due {
                Due::Task(task_id) => tasks.push(task_id),
                Due::Node(flow_id, node_no) => nodes.push((flow_id, node_no)),
                Due::Expiry => self.expire(),
                Due::Look => {
                    self.lose_again();
                    for (flow_id, node_no) in std::mem::take(&mut self.locked) {
                        self.candidate(flow_id, node_no, None);
                    }
                    if !self.parents.is_empty() {
                        self.db();
                        let effects = store::end_parents(std::mem::take(&mut self.parents).into_iter().collect());
                        self.apply(effects);
                    }
                }
            }
        }
        tasks.retain(|id| self.queue.task(*id).is_some_and(|t| t.state == State::Waiting));
        if !tasks.is_empty() {
            self.db();
            self.waited(tasks, now);
        }
        if !nodes.is_empty() {
            self.db();
            let effects = store::time_out_nodes(&nodes);
            self.apply(effects);
        }
        any
    }

    /// Tasks whose time has come: put-off ones are eligible, yielded ones have timed out, leases have expired.
    pub(super) fn waited(&mut self, task_ids: Vec<i64>, now: i64) {
        let mut late = Vec::new();
        let mut leases = Vec::new();
        for task in store::look(task_ids) {
            if task.ended {
                self.touched.push(task.task_id);
            } else if task.yielded && task.times_up.is_some_and(|at| at <= now) {
                if self.pools.is_external(&task.target) {
                    leases.push(task.task_id);
                } else {
                    late.push(task.task_id);
                }
            } else {
                self.touched.push(task.task_id);
            }
        }
        // What a client has locked is looked at again.
        for task_id in late.iter().chain(&leases) {
            self.remind(now + RETRY, Due::Task(*task_id));
        }
        if !late.is_empty() {
            self.touched.extend(store::end_tasks(late, "TIMED_OUT", "time-out: nobody finished it in time"));
        }
        if !leases.is_empty() {
            self.touched.extend(store::expire_leases(leases));
        }
    }

    /// Running tasks whose time is up end at once, whatever their statement does; the statement is cancelled.
    pub(super) fn time_out(&mut self) {
        let late = self.slots.late(crate::store::now());
        if late.is_empty() {
            return;
        }
        self.db();
        let ids: Vec<i64> = late.iter().map(|l| l.1).collect();
        let ended = store::end_tasks(ids, "TIMED_OUT", "time-out: it took too long");
        for (slot, task_id) in late {
            if ended.contains(&task_id) {
                self.slots.cancel(slot, task_id);
            }
        }
        for task in store::look(ended) {
            self.ended_elsewhere(&task);
        }
    }
}
