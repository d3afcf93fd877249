//! The events a dispatcher gets, and how they are packed into words.

use pgflow_core::ring::Event as Words;

/// How an attempt ended, as a worker reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Finished,
    Failed,
    /// The call returned; `flow.finish` ends the task later.
    Yielded,
    /// The task waits for its time again.
    Deferred,
    /// The outcome matched no open attempt: the transaction was rolled back, somebody else had ended the task.
    Stale,
    /// The concurrency routine has named the pool; the task is to be queued again.
    Classified,
    /// The routine has named the query; the task is to be queued again, to be sent.
    Prepared,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Tasks low..=high may have arrived; `flow_id` 0 and `node_no` -1 stand for any.
    Arrived {
        low: i64,
        high: i64,
        flow_id: i64,
        node_no: i32,
    },
    /// A worker has ended an attempt.
    Ended {
        task_id: i64,
        attempt: i32,
        outcome: Outcome,
        microseconds: u32,
    },
    /// A client has changed this task: read it anew.
    Touched {
        task_id: i64,
    },
    /// A lock on this node is gone.
    Released {
        flow_id: i64,
        node_no: i32,
    },
    /// A run was changed as a whole.
    Run {
        flow_id: i64,
    },
    Settings,
    /// More has changed than events can say: read the tables anew.
    Rebuild,
}

impl Event {
    pub fn pack(self) -> Words {
        match self {
            Event::Arrived { low, high, flow_id, node_no } => {
                [1, low as u64, high as u64, flow_id as u64, node_no as u32 as u64, 0]
            }
            Event::Ended { task_id, attempt, outcome, microseconds } => {
                [2, task_id as u64, attempt as u32 as u64, outcome as u64, microseconds as u64, 0]
            }
            Event::Touched { task_id } => [3, task_id as u64, 0, 0, 0, 0],
            Event::Released { flow_id, node_no } => [4, flow_id as u64, node_no as u32 as u64, 0, 0, 0],
            Event::Run { flow_id } => [5, flow_id as u64, 0, 0, 0, 0],
            Event::Settings => [6, 0, 0, 0, 0, 0],
            Event::Rebuild => [7, 0, 0, 0, 0, 0],
        }
    }

    pub fn unpack(words: Words) -> Option<Self> {
        let [kind, a, b, c, d, _] = words;
        Some(match kind {
            1 => Event::Arrived { low: a as i64, high: b as i64, flow_id: c as i64, node_no: d as u32 as i32 },
            2 => Event::Ended {
                task_id: a as i64,
                attempt: b as u32 as i32,
                outcome: match c {
                    0 => Outcome::Finished,
                    1 => Outcome::Failed,
                    2 => Outcome::Yielded,
                    3 => Outcome::Deferred,
                    4 => Outcome::Stale,
                    6 => Outcome::Prepared,
                    _ => Outcome::Classified,
                },
                microseconds: d as u32,
            },
            3 => Event::Touched { task_id: a as i64 },
            4 => Event::Released { flow_id: a as i64, node_no: b as u32 as i32 },
            5 => Event::Run { flow_id: a as i64 },
            6 => Event::Settings,
            7 => Event::Rebuild,
            _ => return None,
        })
    }
}
