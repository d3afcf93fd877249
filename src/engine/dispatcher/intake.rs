//! Takes tasks into the dispatcher's memory: what arrived, what clients changed, what workers put off. Each is read from
//! its table row and placed by what it waits for.

use std::collections::HashMap;

use pgflow_core::queue::{Key, Place, Range, State, Task, LOAD};

use super::{Dispatcher, Due};
use crate::store::dispatcher::{self as store, Loaded};

/// Tasks that one statement may read.
const BATCH: i64 = 4 * LOAD as i64;

/// How many of the ranges are read by one statement: small ones together, so that ten thousand runs do not take as many
/// statements, and no more tasks than memory is for.
fn batch_of(ranges: &[Range]) -> usize {
    let mut tasks = 0;
    ranges
        .iter()
        .position(|range| {
            tasks += (range.high - range.low + 1).clamp(1, LOAD as i64);
            tasks > BATCH
        })
        .map_or(ranges.len(), |first_left| first_left.max(1))
}

impl Dispatcher {
    /// Reads tasks anew that clients have changed, or workers have put off.
    pub(super) fn look_at_touched(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        self.db();
        let mut ids = std::mem::take(&mut self.touched);
        ids.sort_unstable();
        ids.dedup();
        let seen = store::look(ids.clone());
        let mut external = Vec::new();
        for task in &seen {
            self.pools.free_yielded(task.task_id);
            let state = self.queue.task(task.task_id).map(|t| t.state);
            if state == Some(State::Sent) {
                if task.ended && !task.decided {
                    self.remote.stop(task.task_id);
                    self.ended_elsewhere(task);
                }
                continue;
            }
            if let Some(State::Assigned(slot)) = state {
                // A worker runs it. If somebody has ended it, it is to stop; its worker will report.
                // One that flow.finish has decided goes on to its end, and the cascade waits for that.
                if task.ended && !task.decided {
                    self.slots.cancel(slot, task.task_id);
                    self.ended_elsewhere(task);
                }
                continue;
            }
            if task.ended {
                external.push(task.task_id);
                self.ended_elsewhere(task);
            } else {
                self.queue.forget(task.task_id);
            }
        }
        let gone: Vec<i64> = ids.iter().copied().filter(|id| !seen.iter().any(|t| t.task_id == *id)).collect();
        for task_id in gone {
            self.queue.forget(task_id);
            self.pools.free_yielded(task_id);
        }
        if !external.is_empty() {
            store::unqueue_external(external);
        }
        self.take_in(seen.into_iter().filter(|t| !t.ended).collect());
    }

    /// Forgets what is known of a run or node; what workers hold is looked at.
    pub(super) fn drop_flow(&mut self, flow_id: i64, node_no: Option<i32>) {
        let (assigned, forgotten) = self.queue.drop_flow(flow_id, node_no);
        for task_id in forgotten {
            self.pools.free_yielded(task_id);
        }
        self.touched.extend(assigned);
    }

    /// Somebody who is not a worker has ended this task.
    pub(super) fn ended_elsewhere(&mut self, task: &Loaded) {
        self.queue.forget(task.task_id);
        if task.flow_id != 0 {
            self.candidate(task.flow_id, task.node_no, (task.failed && task.is_step).then_some(task.task_id));
        }
    }

    pub(super) fn look_at_runs(&mut self) {
        for flow_id in std::mem::take(&mut self.changed_runs) {
            self.db();
            for node in self.locked.iter().copied().filter(|n| n.0 == flow_id).collect::<Vec<_>>() {
                self.look_again_at(node.0, node.1);
            }
            self.drop_flow(flow_id, None);
            for (flow_id, node_no, low, high) in store::open_ranges_of_run(flow_id) {
                self.ranges.push(Range { low, high, flow_id, node_no });
            }
            for (flow_id, node_no, times_up) in store::open_nodes(Some(flow_id)) {
                self.watch_node(flow_id, node_no, times_up);
            }
        }
    }

    pub(super) fn watch_node(&mut self, flow_id: i64, node_no: i32, times_up: Option<i64>) {
        if let Some(at) = times_up {
            self.remind(at, Due::Node(flow_id, node_no));
        }
    }

    /// Reads what has arrived, and ranges of lanes that run low.
    pub(super) fn load_ranges(&mut self) {
        let mut arrived = std::mem::take(&mut self.ranges);
        arrived.sort_unstable_by_key(|range| range.low);
        let mut arrived = arrived.as_slice();
        while let Some(batch) = arrived.split_off(..batch_of(arrived)).filter(|batch| !batch.is_empty()) {
            self.load(batch);
        }
        for _ in 0..8 {
            let Some(range) = self.queue.next_range() else { return };
            self.load(&[range]);
            if self.queue.range_done(range) {
                self.candidate(range.flow_id, range.node_no, None);
            }
        }
    }

    /// Reads the first tasks of each range; what lies behind them is kept for later.
    fn load(&mut self, ranges: &[Range]) {
        self.db();
        for (range, rows) in ranges.iter().zip(store::load(ranges, LOAD)) {
            let rest = rows.last().filter(|_| rows.len() == LOAD).map(|last| {
                let key = self.key(last);
                (self.queue.lane_of(key), Range { low: last.task_id + 1, ..*range })
            });
            self.take_in(rows);
            if let Some((lane, rest)) = rest {
                self.queue.keep(lane, rest);
            }
        }
    }

    pub(super) fn key(&mut self, task: &Loaded) -> Key {
        let pool = self.pools.of(task.pool.as_deref().filter(|p| !p.is_empty()), &task.target);
        // Which pool, which query, what becomes of the rows: a worker of its role knows.
        let in_a_worker = task.starts_here || task.pool.as_deref() == Some("");
        let place = if in_a_worker || !self.pools.is_elsewhere(&task.target) {
            Place::Workers
        } else {
            Place::Target(self.pools.place_of(&task.target))
        };
        Key { role: task.role.to_u32(), pool, priority: task.priority, place }
    }

    /// Takes open tasks into the memory, each by what it waits for.
    pub(super) fn take_in(&mut self, rows: Vec<Loaded>) {
        let now = crate::store::now();
        let mut refused: HashMap<(&'static str, String), Vec<i64>> = HashMap::new();
        let mut external: Vec<Loaded> = Vec::new();
        let mut held: Vec<i64> = Vec::new();
        for row in rows {
            if self.unsettled.contains_key(&row.task_id) {
                continue;
            }
            match self.queue.task(row.task_id) {
                // That attempt is over and its report is to come: somebody has opened the task again meanwhile.
                Some(task) if matches!(task.state, State::Assigned(_)) && task.attempt <= row.attempt => {
                    self.queue.forget(row.task_id);
                }
                Some(_) => continue,
                None => {}
            }
            if row.flow_id != 0 && !matches!(row.node_state, b'O' | b'S') {
                if row.node_state != b'W' {
                    let why = "the node had ended when the step arrived".to_owned();
                    refused.entry(("CANCELED", why)).or_default().push(row.task_id);
                }
                continue;
            }
            if row.held {
                // Pushed while the node was about to open: the opening could not see it.
                held.push(row.task_id);
                continue;
            }
            if let Some(why) = self.pools.refusal(&row) {
                refused.entry(("FAILED", why)).or_default().push(row.task_id);
                continue;
            }
            let lane = {
                let key = self.key(&row);
                self.queue.lane_of(key)
            };
            let waits = if row.yielded { row.times_up } else { row.eligible.filter(|at| *at > now) };
            let is_external = self.pools.is_external(&row.target);
            let state = if waits.is_some() || row.yielded || is_external { State::Waiting } else { State::Queued };
            let task = Task {
                node: (row.flow_id, row.node_no.max(-1)),
                is_step: row.is_step,
                lane,
                attempt: row.attempt + 1,
                state,
            };
            if let Some((known, found)) = &mut self.sweep {
                *found += usize::from(state == State::Queued && !known.contains(&row.task_id));
            }
            self.queue.add(row.task_id, task);
            if let Some(at) = waits {
                self.remind(at, Due::Task(row.task_id));
            }
            if row.yielded && self.pools.tracks_yielded(&row.target) {
                self.pools.hold_yielded(row.task_id, self.queue.lane(lane).key.pool);
            }
            if row.suspect && state == State::Queued {
                self.suspects.push(row.task_id);
            }
            if is_external && !row.yielded && waits.is_none() {
                external.push(row);
            }
        }
        if !external.is_empty() {
            store::queue_external(&external.iter().collect::<Vec<_>>());
        }
        for ((status, why), ids) in refused {
            for task in store::look(store::end_tasks(ids, status, &why)) {
                self.ended_elsewhere(&task);
            }
        }
        if !held.is_empty() {
            self.touched.extend(store::release_held(held));
        }
    }
}
