//! Reading results out of object stores, in the caller's own session: `async.read_stored`, `async.result_url`. Declared in
//! `sql/async/results.sql`.
//!
//! The runtime moves in slices of 100 ms on this thread; between two of them Postgres may cancel. Nothing inside a slice
//! may call Postgres, and no signal may reach a thread that a slice starts.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use pgflow_executor::foreground::Foreground;
use pgflow_executor::job::Failure;
use pgflow_executor::results::{self, RowReader};
use pgrx::iter::SetOfIterator;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::JsonB;
use serde_json::{Map, Value};

use crate::engine::process::without_signals;
use crate::error::raise;
use crate::store::connected;
use crate::store::results::{stored_result, Stored};

/// How long a session may not notice that it is to stop.
const SLICE: Duration = Duration::from_millis(100);

/// The longest that stores sign for.
const VALID_AT_MOST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Drives a future to its end, and lets Postgres cancel in between: that unwinds, which drops the future between two
/// slices.
fn wait_for<T>(foreground: &Foreground, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        let value = without_signals(|| foreground.slice(&mut future, SLICE));
        pgrx::check_for_interrupts!();
        if let Some(value) = value {
            return value;
        }
    }
}

thread_local! {
    /// One for the life of the session, so that connections to stores are used again.
    static FOREGROUND: RefCell<Option<Rc<Foreground>>> = const { RefCell::new(None) };
}

fn foreground() -> Rc<Foreground> {
    if let Some(known) = FOREGROUND.with_borrow(Clone::clone) {
        return known;
    }
    match Foreground::new() {
        Ok(made) => {
            let made = Rc::new(made);
            FOREGROUND.set(Some(made.clone()));
            made
        }
        Err(error) => raise(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
            format!("cannot read results in this session: {error}"),
            None,
            None,
        ),
    }
}

/// A failure of the store, which is masked already, as an ERROR.
fn refuse(failure: Failure) -> ! {
    let message = match failure.code {
        Some(code) => format!("{} ({code})", failure.message),
        None => failure.message,
    };
    raise(PgSqlErrorCode::ERRCODE_IO_ERROR, message, failure.detail, failure.hint.as_deref())
}

/// The rows of an object, from the one at `offset` on, as they are asked for.
struct Reading {
    foreground: Rc<Foreground>,
    rows: RowReader,
    batch: VecDeque<Map<String, Value>>,
    left: u64,
}

impl Iterator for Reading {
    type Item = JsonB;

    fn next(&mut self) -> Option<JsonB> {
        while self.left > 0 {
            match self.batch.pop_front() {
                Some(row) => {
                    self.left -= 1;
                    return Some(JsonB(Value::Object(row)));
                }
                None => match wait_for(&self.foreground, self.rows.next()) {
                    Ok(Some(batch)) => self.batch.extend(batch),
                    Ok(None) => self.left = 0,
                    Err(failure) => refuse(failure),
                },
            }
        }
        None
    }
}

#[pg_extern(sql = false)]
fn read_stored_as(
    caller: pg_sys::Oid,
    task_id: Option<i64>,
    limit: Option<i32>,
    offset: Option<i64>,
) -> SetOfIterator<'static, JsonB> {
    let stored = connected(|| stored_result(caller, task_id));
    let foreground = foreground();
    let offset = offset.map_or(0, |n| n.max(0) as u64);
    let Stored { store, path, format, compression } = &stored;
    let rows = wait_for(&foreground, results::rows(store, path, *format, *compression, offset));
    let rows = rows.unwrap_or_else(|failure| refuse(failure));
    SetOfIterator::new(Reading {
        foreground,
        rows,
        batch: VecDeque::new(),
        left: limit.map_or(u64::MAX, |n| n.max(0) as u64),
    })
}

#[pg_extern(sql = false)]
fn result_url_as(caller: pg_sys::Oid, task_id: Option<i64>, valid: Option<pgrx::datum::Interval>) -> Option<String> {
    let stored = connected(|| stored_result(caller, task_id));
    let micros = valid.map_or(0, |valid| valid.as_micros().clamp(0, VALID_AT_MOST.as_micros() as i128 + 1));
    let valid = Duration::from_micros(micros as u64);
    if valid < Duration::from_secs(1) || valid > VALID_AT_MOST {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "a URL can be valid for a second to 7 days".to_owned(),
            None,
            None,
        );
    }
    wait_for(&foreground(), results::signed_url(&stored.store, &stored.path, valid))
        .unwrap_or_else(|failure| refuse(failure))
}
