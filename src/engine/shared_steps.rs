//! Steps of a node that share a transaction (`steps_per_transaction`), each in a subtransaction: one that fails is rolled back
//! alone, and all outcomes are written at the end. Whatever is wrong with the transaction as a whole rolls all of it back,
//! and each step runs in a transaction of its own: so does every later attempt.
//!
//! Nothing of a step is committed or reported before its outcome is.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::CString;
use std::sync::atomic::Ordering::*;

use pgrx::{pg_sys, PgSqlErrorCode};

use super::announce;
use super::callback::{self, Shared};
use super::events::Outcome;
use super::notices;
use super::own_task::{self, Attempt, Decision};
use super::process;
use super::session;
use super::shmem::{ASSIGNED, DONE, PENDING, STARTED};
use super::stop_points::{self, Point};
use super::worker::{Assigned, Local};
use crate::error::raise;
use crate::store::worker::{self as store, Details, What};

/// How a step ended that waits for the commit.
struct Ended {
    attempt: Attempt,
    position: u64,
    started: i64,
    became: Became,
    said: Option<(Vec<String>, Vec<String>)>,
}

enum Became {
    Finished,
    Failed(String),
    Deferred(i64),
}

/// How many of those that come next may share the first one's transaction.
pub(super) fn company(first: &Assigned, rest: &VecDeque<Assigned>) -> usize {
    let shares = |task: &Assigned| task.details().and_then(|d| d.shares);
    match shares(first) {
        Some((_, most)) => rest.iter().take(most - 1).take_while(|task| shares(task) == shares(first)).count(),
        None => 0,
    }
}

impl Local {
    /// Runs steps of one node in one transaction. Returns what comes next, and whether one has failed.
    pub(super) fn run_together(&mut self, group: &[Assigned]) -> (u64, bool) {
        let from = crate::store::now();
        let done = callback::guarded(|| {
            if group.iter().filter_map(Assigned::details).any(|d| d.lazy) {
                session::be_lazy();
            }
            session::start_transaction();
            let ended = self.run_each(group);
            // From here on a cancel finds nothing to cancel: what follows is bookkeeping.
            self.leave_task();
            self.write(&ended);
            stop_points::pass(Point::WorkerWrote);
            session::commit();
            stop_points::pass(Point::WorkerCommitted);
            ended
        });
        self.leave_task();
        session::reset(pg_sys::Oid::from(self.slot.role.load(Acquire)));
        match done {
            Ok(ended) => self.report_all(group, &ended, from),
            Err(error) => {
                pgrx::debug1!("pgflow: steps that shared a transaction run one by one: {error}");
                self.run_one_by_one(group)
            }
        }
    }

    fn leave_task(&self) {
        // SAFETY: the text it may point to is about to be freed.
        unsafe { pg_sys::debug_query_string = std::ptr::null() };
        own_task::clear();
        self.slot.clear_task();
        process::forget_cancel();
        notices::discard();
    }

    /// Runs them in order, up to one that fails: what becomes of the rest is for the dispatcher to decide.
    fn run_each(&mut self, group: &[Assigned]) -> Vec<Ended> {
        let mut ended = Vec::with_capacity(group.len());
        for task in group {
            let (Assigned { position, attempt, .. }, Some(details)) = (task, task.details()) else { continue };
            let state = &self.slot.entry(*position).state;
            if state.compare_exchange(ASSIGNED, STARTED, AcqRel, Acquire).is_err() {
                continue; // taken back
            }
            let started = crate::store::now();
            let (_, label) = self.enter_task(*attempt, details, started);
            let became = self.run_step(details, &label);
            own_task::end_of_callback();
            let failed = matches!(became, Became::Failed(_));
            ended.push(Ended { attempt: *attempt, position: *position, started, became, said: notices::take() });
            state.store(PENDING, Release);
            process::check_interrupts();
            if failed {
                break;
            }
        }
        ended
    }

    fn run_step(&mut self, details: &Details, label: &CString) -> Became {
        // SAFETY: the label outlives the callback; cleared by `leave_task`.
        unsafe { pg_sys::debug_query_string = label.as_ptr() };
        let returned = callback::in_subtransaction(|| match &details.what {
            What::Call { routine, arguments } => self.calls.call(routine, *arguments),
            What::Query(text) => callback::run_query(text),
            _ => unreachable!("{} shares a transaction", details.label),
        });
        // SAFETY: `label` may not outlive this call.
        unsafe { pg_sys::debug_query_string = std::ptr::null() };
        let decision = announce::take_decision();
        match (returned, decision) {
            (Shared::Failed(error), _) => Became::Failed(error),
            (Shared::Returned, None | Some(Decision::Finished)) => Became::Finished,
            (Shared::Returned, Some(Decision::Failed(message))) => {
                Became::Failed(message.unwrap_or_else(|| "failed by flow.finish".to_owned()))
            }
            (Shared::Returned, Some(Decision::Deferred(delay))) => Became::Deferred(delay),
        }
    }

    /// Writes all outcomes in the open transaction. If one of the attempts is not open any more, nothing of any may last.
    fn write(&self, ended: &[Ended]) {
        let open = self.book(|| {
            let finished: Vec<(Attempt, i64)> =
                ended.iter().filter(|e| matches!(e.became, Became::Finished)).map(|e| (e.attempt, e.started)).collect();
            let mut open = finished.is_empty() || store::finish_all(&finished) == finished.len();
            for e in ended {
                open &= match &e.became {
                    Became::Finished => true,
                    Became::Failed(message) => store::fail(e.attempt, e.started, message, false),
                    Became::Deferred(delay) => {
                        store::log_deferral(e.attempt, *delay);
                        store::defer(e.attempt, e.started, *delay)
                    }
                };
                if let Some((levels, messages)) = &e.said {
                    store::log(e.attempt, levels.clone(), messages.clone());
                }
            }
            open
        });
        if !open {
            raise(
                PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                "one of the steps was ended by somebody else while it ran".to_owned(),
                None,
                None,
            );
        }
    }

    fn report_all(&self, group: &[Assigned], ended: &[Ended], from: i64) -> (u64, bool) {
        let each = (crate::store::now() - from) / ended.len().max(1) as i64;
        let failed = ended.iter().any(|e| matches!(e.became, Became::Failed(_)));
        // One that failed was the last that began.
        let last = if failed { ended.last().map(|e| e.position) } else { group.last().map(|task| task.position) };
        let next = last.map_or(0, |position| position + 1);
        // Passed before they are reported, as in `run_alone`.
        for e in ended {
            self.slot.entry(e.position).state.store(DONE, Release);
        }
        self.slot.head.store(next, Release);
        for e in ended {
            let outcome = match e.became {
                Became::Finished => Outcome::Finished,
                Became::Failed(_) => Outcome::Failed,
                Became::Deferred(_) => Outcome::Deferred,
            };
            self.report(e.attempt, outcome, each);
        }
        stop_points::pass(Point::WorkerReported);
        (next, failed)
    }

    /// The transaction has come to nothing: as if none of them had begun.
    fn run_one_by_one(&mut self, group: &[Assigned]) -> (u64, bool) {
        let attempts: Vec<Attempt> = group.iter().map(|task| task.attempt).collect();
        for task in group {
            let state = &self.slot.entry(task.position).state;
            for begun in [STARTED, PENDING] {
                let _ = state.compare_exchange(begun, ASSIGNED, AcqRel, Acquire);
            }
        }
        let from = group.first().map_or(0, |task| task.position);
        let mut last = (from, false);
        for task in self.read(from, attempts) {
            last = self.run_alone(&task);
            if last.1 {
                break;
            }
        }
        last
    }
}
