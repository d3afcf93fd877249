//! In a worker: the task whose callback runs right now, and what the callback has decided about it.
//!
//! A decision (`flow.finish`, `flow.defer` inside the callback) counts when the transaction it was made in commits.
//! Elsewhere there is no own task and everything here answers "no".

use std::cell::RefCell;

/// What a callback decided for its own task.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Finished,
    Failed(Option<String>),
    /// Microseconds to wait.
    Deferred(i64),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Attempt {
    pub task_id: i64,
    pub attempt: i32,
}

#[derive(Default)]
struct Own {
    attempt: Option<Attempt>,
    /// The callback's code runs: a commit now is one of the callback's own.
    in_callback: bool,
    decided: Option<Decision>,
    partially_committed: bool,
}

thread_local! {
    static OWN: RefCell<Own> = const { RefCell::new(Own { attempt: None, in_callback: false, decided: None, partially_committed: false }) };
}

/// The callback of this attempt begins.
pub fn begin(attempt: Attempt) {
    OWN.set(Own { attempt: Some(attempt), in_callback: true, ..Own::default() });
}

/// The callback has returned or failed; what it decided in transactions that committed.
pub fn end_of_callback() {
    OWN.with_borrow_mut(|own| own.in_callback = false);
}

/// The attempt is over: there is no own task any more.
pub fn clear() {
    OWN.set(Own::default());
}

pub fn is(task_id: i64) -> bool {
    OWN.with_borrow(|own| own.attempt.is_some_and(|a| a.task_id == task_id))
}

pub fn decided() -> Option<Decision> {
    OWN.with_borrow(|own| own.decided.clone())
}

pub fn partially_committed() -> bool {
    OWN.with_borrow(|own| own.partially_committed)
}

/// A transaction is about to commit. If it is a callback's own COMMIT the attempt is marked in it, once, and the commit
/// is refused when the attempt is not open any more: nothing of a cancelled callback may last.
pub fn before_commit() {
    let attempt = OWN.with_borrow(|own| own.attempt.filter(|_| own.in_callback));
    if let Some(attempt) = attempt {
        crate::store::worker::mark_partially_committed(attempt);
    }
}

pub fn after_commit(decision: Option<Decision>) {
    OWN.with_borrow_mut(|own| {
        if own.attempt.is_some() {
            if decision.is_some() {
                own.decided = decision;
            }
            if own.in_callback {
                own.partially_committed = true;
            }
        }
    });
}
