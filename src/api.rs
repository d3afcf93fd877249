//! SQL functions that are in Rust. Their declarations and documentation are in `sql/async/rust.sql` and
//! `sql/flow/rust.sql`; who may call them is in `sql/grants.sql`.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering::*;

use pgrx::iter::TableIterator;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::engine::announce::{note, Note};
use crate::engine::events::Event;
use crate::engine::own_task::{self, Decision};
use crate::engine::shmem::{my_database, try_shared, DatabaseState, WorkerState};
use crate::error::raise;
use crate::settings;
use crate::store::{self, client};

#[pg_extern(sql = false)]
fn announce_tasks(low: Option<i64>, high: Option<i64>, flow_id: Option<i64>, node_no: Option<i32>) {
    if let (Some(low), Some(high)) = (low, high) {
        store::connected(client::make_own);
        let (flow_id, node_no) = (flow_id.unwrap_or(0), node_no.unwrap_or(-1));
        note(Note::Tell(Event::Arrived { low, high, flow_id, node_no }));
    }
}

/// Above this many tasks the dispatcher reads all tables anew rather than each task.
const TOUCHED_AT_MOST: usize = 1000;

#[pg_extern(sql = false)]
fn announce_ended(task_ids: Vec<Option<i64>>) {
    if task_ids.len() > TOUCHED_AT_MOST {
        note(Note::Tell(Event::Rebuild));
        return;
    }
    for task_id in task_ids.into_iter().flatten() {
        note(Note::Tell(Event::Touched { task_id }));
    }
}

#[pg_extern(sql = false)]
fn announce_node(flow_id: i64, node_no: i32) {
    note(Note::Tell(Event::Released { flow_id, node_no }));
}

#[pg_extern(sql = false)]
fn announce_run(flow_id: i64) {
    note(Note::Tell(Event::Run { flow_id }));
}

#[pg_extern(sql = false)]
fn announce_settings() {
    note(Note::Tell(Event::Settings));
}

/// Until the transaction ends no further task starts; then what async.control says counts.
#[pg_extern(sql = false)]
fn hold_engine() {
    if let Some(database) = my_database() {
        note(Note::Resume);
        database.held.store(true, Release);
        database.dispatcher.wake();
    }
}

#[pg_extern(sql = false)]
fn wake_launcher() {
    note(Note::WakeLauncher { here: true });
}

#[pg_extern(sql = false)]
fn require_engine() {
    if try_shared().is_none() {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "pgflow cannot run anything: its library is not preloaded".to_owned(),
            Some("Flows can be configured and validated, but the engine starts with the server.".to_owned()),
            Some("Add shared_preload_libraries = 'pgflow' to postgresql.conf and restart the server."),
        );
    }
    crate::version::require_same();
}

#[pg_extern(sql = false)]
fn setting(name: Option<&str>) -> Option<i64> {
    name.and_then(settings::by_name)
}

#[pg_extern(sql = false)]
fn decide_own(task_id: i64, status: &str, message: Option<&str>, delay: Option<pgrx::datum::Interval>) -> bool {
    if !own_task::is(task_id) {
        return false;
    }
    let decision = match status {
        "FAILED" => Decision::Failed(message.map(str::to_owned)),
        "DEFERRED" => Decision::Deferred(delay.map_or(0, |d| d.as_micros().clamp(0, i64::MAX as i128) as i64)),
        _ => Decision::Finished,
    };
    note(Note::Decide(decision));
    true
}

#[pg_extern(sql = false)]
fn is_own_task(task_id: Option<i64>) -> bool {
    task_id.is_some_and(own_task::is)
}

#[pg_extern(sql = false)]
fn note_progress(task_id: Option<i64>, done: Option<f64>, total: Option<f64>, text: Option<&str>) -> bool {
    if !task_id.is_some_and(own_task::is) {
        return false;
    }
    if let Some(worker) = crate::engine::worker::my_slot() {
        worker.done.store(done.unwrap_or(f64::NAN).to_bits(), Release);
        worker.total.store(total.unwrap_or(f64::NAN).to_bits(), Release);
        worker.note.set(text.unwrap_or(""));
    }
    true
}

#[pg_extern(sql = false)]
fn wait_for_change(milliseconds: Option<i32>) {
    crate::engine::process::wait_for_change(milliseconds.unwrap_or(0));
}

fn oid(value: u32) -> pg_sys::Oid {
    pg_sys::Oid::from(value)
}

fn time(microseconds: i64) -> Option<TimestampWithTimeZone> {
    (microseconds != 0).then(|| TimestampWithTimeZone::try_from(microseconds).ok()).flatten()
}

/// A number that NaN stands for "not said" in.
fn number(bits: u64) -> Option<f64> {
    Some(f64::from_bits(bits)).filter(|n| !n.is_nan())
}

/// Whether the current user may read what a role's callbacks say.
fn may_read(role: pg_sys::Oid) -> bool {
    // SAFETY: catalogue look-ups inside a transaction.
    unsafe {
        let user = pg_sys::GetUserId();
        pg_sys::has_privs_of_role(user, role)
            || [c"flow_monitor", c"flow_admin"].iter().any(|name| {
                let oid = pg_sys::get_role_oid(name.as_ptr(), true);
                oid != pg_sys::Oid::INVALID && pg_sys::has_privs_of_role(user, oid)
            })
    }
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn running() -> TableIterator<
    'static,
    (
        name!(task_id, i64),
        name!(attempt, i32),
        name!(pid, i32),
        name!(role_oid, pg_sys::Oid),
        name!(started, Option<TimestampWithTimeZone>),
        name!(progress_done, Option<f64>),
        name!(progress_total, Option<f64>),
        name!(progress_note, Option<String>),
        name!(rows, Option<i64>),
        name!(bytes, Option<i64>),
        name!(total_rows, Option<i64>),
    ),
> {
    // SAFETY: reading a process-global OID.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let mut rows: Vec<_> = try_shared()
        .map(|shared| shared.workers())
        .unwrap_or_default()
        .iter()
        .filter(|w| !matches!(w.state(), WorkerState::Free | WorkerState::Gone) && w.database.load(Acquire) == database)
        .filter_map(|w| {
            let task_id = w.task_id.load(Acquire);
            (task_id != 0).then(|| {
                (
                    task_id,
                    w.attempt.load(Acquire),
                    w.process.pid(),
                    oid(w.role.load(Acquire)),
                    time(w.started.load(Acquire)),
                    number(w.done.load(Acquire)),
                    number(w.total.load(Acquire)),
                    w.note.get().filter(|_| may_read(oid(w.role.load(Acquire)))),
                    None,
                    None,
                    None,
                )
            })
        })
        .collect();
    let dispatcher = my_database().map_or(0, |d| d.dispatcher.pid());
    let elsewhere = try_shared().map(|shared| shared.remotes()).unwrap_or_default().iter();
    rows.extend(elsewhere.filter(|r| r.database.load(Acquire) == database).filter_map(|r| {
        let task_id = r.task_id.load(Acquire);
        let counts = [&r.rows, &r.bytes, &r.total_rows].map(|n| n.load(Acquire) as i64);
        let share = |n: i64| (counts[2] > 0).then_some(n as f64);
        (task_id != 0).then(|| {
            (
                task_id,
                r.attempt.load(Acquire),
                dispatcher,
                oid(r.role.load(Acquire)),
                time(r.started.load(Acquire)),
                share(counts[0]),
                share(counts[2]),
                None,
                Some(counts[0]),
                Some(counts[1]),
                share(counts[2]).map(|n| n as i64),
            )
        })
    }));
    TableIterator::new(rows)
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn processes() -> TableIterator<
    'static,
    (
        name!(kind, String),
        name!(pid, Option<i32>),
        name!(database_oid, Option<pg_sys::Oid>),
        name!(role_oid, Option<pg_sys::Oid>),
        name!(state, String),
        name!(task_id, Option<i64>),
        name!(started, Option<TimestampWithTimeZone>),
        name!(tasks_done, Option<i64>),
        name!(queued, Option<i32>),
        name!(last_error, Option<String>),
    ),
> {
    let mut rows = Vec::new();
    if let Some(shared) = try_shared() {
        let pid = |p: i32| (p != 0).then_some(p);
        let launcher = shared.launcher.pid();
        let state = if launcher != 0 { "running" } else { "not running" };
        let error = shared.launcher_error.get();
        rows.push(("launcher".into(), pid(launcher), None, None, state.to_owned(), None, None, None, None, error));
        for d in shared.databases().iter().filter(|d| d.oid.load(Acquire) != 0) {
            rows.push((
                "dispatcher".into(),
                pid(d.dispatcher.pid()),
                Some(oid(d.oid.load(Acquire))),
                None,
                match d.state() {
                    DatabaseState::Mismatched => "of another version than the library".to_owned(),
                    state => format!("{state:?}").to_lowercase(),
                },
                None,
                None,
                Some(d.tasks_done.load(Acquire) as i64),
                Some(d.queued.load(Acquire) as i32),
                d.last_error.get(),
            ));
        }
        for w in shared.workers().iter().filter(|w| w.state() != WorkerState::Free) {
            let task_id = w.task_id.load(Acquire);
            let state = match w.state() {
                WorkerState::Ready if task_id == 0 => "idle".to_owned(),
                WorkerState::Ready => "running".to_owned(),
                other => format!("{other:?}").to_lowercase(),
            };
            rows.push((
                "worker".into(),
                pid(w.process.pid()),
                Some(oid(w.database.load(Acquire))),
                Some(oid(w.role.load(Acquire))),
                state,
                (task_id != 0).then_some(task_id),
                time(w.started.load(Acquire)).filter(|_| task_id != 0),
                Some(w.tasks_done.load(Acquire) as i64),
                Some(w.pending() as i32),
                None,
            ));
        }
    }
    TableIterator::new(rows)
}

#[pg_extern(sql = false)]
fn pool_use() -> TableIterator<
    'static,
    (name!(concurrency_pool, String), name!(max_workers, i32), name!(running, i32), name!(waiting, i64)),
> {
    let rows: Vec<_> = my_database()
        .map(|d| d.pools.as_slice())
        .unwrap_or_default()
        .iter()
        .filter_map(|p| {
            let name = p.name.get()?;
            Some((name, p.max.load(Acquire) as i32, p.running.load(Acquire) as i32, p.waiting.load(Acquire) as i64))
        })
        .collect();
    TableIterator::new(rows)
}
