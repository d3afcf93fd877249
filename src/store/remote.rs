//! What the dispatcher reads and writes about tasks that run somewhere else. Nothing here may call a user's code.
#![allow(unsafe_code)]

use pgflow_executor::bridge::{Broken, BrokenKind};
use pgflow_executor::results::{Kept, ResultSpec, ResultTo};
use pgrx::{pg_sys, JsonB};

use super::{arg, run, Arg};
use crate::engine::own_task::Attempt;
use crate::engine::pauses;

/// A task that is to be sent.
pub struct Outgoing {
    pub task_id: i64,
    /// The attempt that is to run.
    pub attempt: i32,
    pub target: String,
    pub role: String,
    /// The first attempt whose fate elsewhere is unknown.
    pub unsure_since: Option<i32>,
    pub intention: i32,
    pub query: Option<String>,
    pub routine: Option<String>,
    pub flow_id: Option<i64>,
    pub flow: Option<String>,
    pub flow_arguments: Option<JsonB>,
    pub node: Option<String>,
    pub step_arguments: Option<JsonB>,
    pub options: Option<JsonB>,
    pub secrets: Option<JsonB>,
    /// Microseconds it may still take.
    pub time_left: Option<i64>,
    /// Microseconds it may take from its first start: of a task that goes on elsewhere, until somebody must have ended it.
    pub time_limit: Option<i64>,
    /// Attempts so far that were lost or not taken.
    pub tries: i32,
}

/// The open ones among these tasks, with everything that is needed to run them.
pub fn outgoing(task_ids: Vec<i64>) -> Vec<Outgoing> {
    let rows = run(
        c"SELECT t.task_id, t.attempt + 1, t.target, t.run_as::text, t.unsure_since, t.intention,
                 CASE WHEN t.flow_id IS NULL OR t.query IS NOT NULL THEN t.query
                      WHEN t.is_step THEN n.step_query ELSE n.query END,
                 CASE WHEN t.is_step THEN n.step_routine ELSE n.routine END,
                 f.flow_id, f.flow, f.arguments, n.node,
                 CASE WHEN t.flow_id IS NULL OR t.is_step THEN t.task_data ELSE '{}' END,
                 CASE WHEN t.flow_id IS NULL THEN t.options
                      WHEN n.options ? 'tier' THEN async.resolved_options(n.target, n.options) ELSE n.options END, s.secrets,
                 -- greatest() leaves nulls out: no limit must not become the least one.
                 CASE WHEN l.micros IS NOT NULL THEN greatest(1, l.micros
                   - coalesce((extract(epoch FROM clock_timestamp() - t.first_consumed) * 1000000)::bigint, 0)) END,
                 l.micros, t.crashes
          FROM unnest($1) WITH ORDINALITY AS u (task_id, place)
          CROSS JOIN LATERAL (SELECT * FROM async.task x WHERE x.task_id = u.task_id AND x.processed IS NULL OFFSET 0) t
          CROSS JOIN async.control c
          LEFT JOIN LATERAL (SELECT * FROM flow.flow x WHERE x.flow_id = t.flow_id OFFSET 0) f ON true
          LEFT JOIN LATERAL (SELECT * FROM flow.definition_node x
                             WHERE x.definition_id = f.definition_id AND x.node_no = t.node_no OFFSET 0) n ON true
          LEFT JOIN LATERAL (SELECT * FROM async.target x WHERE x.target = t.target OFFSET 0) g ON true
          LEFT JOIN LATERAL (SELECT x.secrets FROM async.task_secret x WHERE x.task_id = t.task_id OFFSET 0) s ON true
          CROSS JOIN LATERAL (SELECT (extract(epoch FROM least(coalesce(t.manual_timeout, g.default_timeout, c.default_timeout,
                    async.setting('pgflow.default_timeout') * interval '1 ms'), interval '100 years')) * 1000000)::bigint
                    AS micros) l
          ORDER BY u.place",
        &[arg(task_ids)],
    );
    (0..rows.len)
        .filter_map(|r| {
            Some(Outgoing {
                task_id: rows.get(r, 1)?,
                attempt: rows.get(r, 2)?,
                target: rows.get(r, 3)?,
                role: rows.get(r, 4)?,
                unsure_since: rows.get(r, 5),
                intention: rows.get(r, 6)?,
                query: rows.get(r, 7),
                routine: rows.get(r, 8),
                flow_id: rows.get(r, 9),
                flow: rows.get(r, 10),
                flow_arguments: rows.get(r, 11),
                node: rows.get(r, 12),
                step_arguments: rows.get(r, 13),
                options: rows.get(r, 14),
                secrets: rows.get(r, 15),
                time_left: rows.get(r, 16),
                time_limit: rows.get(r, 17),
                tries: rows.get(r, 18)?,
            })
        })
        .collect()
}

/// Where a target leads for a role.
pub struct Connection {
    pub kind: String,
    pub string: Option<String>,
    pub connection_options: Option<JsonB>,
    pub password_required: bool,
    pub options: Option<JsonB>,
}

/// Err: why it leads nowhere, in the user's words.
pub fn connection(target: &str, role: &str) -> Result<Connection, String> {
    if let Some(fault) = run(c"SELECT async.connection_fault($1, $2::name)", &[arg(target), arg(role)]).one::<String>()
    {
        return Err(fault);
    }
    let rows = run(
        c"SELECT kind, connection_string, connection_options, password_required, options FROM async.connection_of($1, $2::name)",
        &[arg(target), arg(role)],
    );
    Ok(Connection {
        kind: rows.get(0, 1).ok_or_else(|| format!("target {target} does not exist any more"))?,
        string: rows.get(0, 2),
        connection_options: rows.get(0, 3),
        password_required: rows.get(0, 4).unwrap_or(true),
        options: rows.get(0, 5),
    })
}

/// A token by which the other side may end this attempt.
pub fn callback_token(task_id: i64, attempt: i32) -> Option<String> {
    run(c"SELECT async.make_callback_token($1, $2)", &[arg(task_id), arg(attempt)]).one()
}

/// Changes when a target does.
pub fn targets_digest() -> Option<String> {
    run(c"SELECT md5(string_agg(t::text, ' ' ORDER BY t.target)) FROM async.target t", &[]).one()
}

/// An object store: its URL and options. None: there is no such store.
pub fn object_store(store: &str) -> Option<(String, Option<JsonB>)> {
    let rows = run(c"SELECT url, options FROM async.store_of($1)", &[arg(store)]);
    Some((rows.get(0, 1)?, rows.get(0, 2)))
}

/// Why a role may not write an object; None: it may.
pub fn path_fault(store: &str, path: &str, role: &str) -> Option<String> {
    run(c"SELECT async.path_fault($1, $2, $3::name)", &[arg(store), arg(path), arg(role)]).one()
}

/// How this engine names itself elsewhere.
pub fn engine_id() -> String {
    run(c"SELECT engine_id::text FROM async.engine_state", &[]).one().unwrap_or_default()
}

/// An attempt that has ended elsewhere.
pub struct End {
    pub task_id: i64,
    pub attempt: i32,
    pub started: i64,
    /// See `async.end_attempts_elsewhere`.
    pub word: &'static str,
    pub error: Option<String>,
    /// Microseconds: until it is tried again; of a yielded one the time limit from its first start.
    pub delay: Option<i64>,
    pub max_attempts: i32,
}

/// Writes how attempts ended; what became of each task.
pub fn end_attempts(ends: &[End]) -> Vec<(i64, String)> {
    let started: Vec<_> =
        ends.iter().map(|e| pgrx::datum::TimestampWithTimeZone::try_from(e.started).ok()).collect::<Vec<_>>();
    let rows = run(
        c"SELECT * FROM async.end_attempts_elsewhere($1, $2, $3, $4, $5,
                          array(SELECT d * interval '1 us' FROM unnest($6) WITH ORDINALITY AS x (d, n) ORDER BY n), $7)",
        &[
            arg(ends.iter().map(|e| e.task_id).collect::<Vec<_>>()),
            arg(ends.iter().map(|e| e.attempt).collect::<Vec<_>>()),
            arg(started),
            arg(ends.iter().map(|e| e.word.to_owned()).collect::<Vec<_>>()),
            arg(ends.iter().map(|e| e.error.clone()).collect::<Vec<_>>()),
            arg(ends.iter().map(|e| e.delay).collect::<Vec<_>>()),
            arg(ends.iter().map(|e| e.max_attempts).collect::<Vec<_>>()),
        ],
    );
    (0..rows.len).filter_map(|r| Some((rows.get(r, 1)?, rows.get(r, 2)?))).collect()
}

/// An attempt of a worker that needed something elsewhere and did not get it.
pub fn tried(a: Attempt, started: i64, broken: &Broken, error: String) -> Option<String> {
    let rows = run(c"SELECT crashes FROM async.task WHERE task_id = $1", &[arg(a.task_id)]);
    let tries = rows.one::<i32>().unwrap_or(0);
    let pause = broken.after.map_or_else(|| pauses::of_task(tries), |us| us.min(3_600_000_000) as i64);
    let word = match broken.kind {
        // Whoever had it stopped has ended the task; else nobody knows what became of it.
        BrokenKind::Lost | BrokenKind::Stopped => "lost",
        BrokenKind::Down => "down",
        _ => "again",
    };
    let end = End {
        task_id: a.task_id,
        attempt: a.attempt,
        started,
        word,
        error: Some(error),
        delay: Some(pause),
        max_attempts: 5,
    };
    end_attempts(&[end]).pop().map(|(_, word)| word)
}

/// Notes what an attempt left behind.
pub fn record_result(a: Attempt, kept: &Kept, spec: &ResultSpec) {
    if let Some(said) = said(kept, spec) {
        run(c"SELECT async.record_result($1, $2, $3)", &[arg(a.task_id), arg(a.attempt), arg(said)]);
    }
}

/// An attempt that does not count has left something behind.
pub fn discard_result(a: Attempt, kept: &Kept, spec: &ResultSpec) {
    if let Some(said) = said(kept, spec) {
        run(c"SELECT async.discard_result($1, $2, $3)", &[arg(a.task_id), arg(a.attempt), arg(said)]);
    }
}

fn said(kept: &Kept, spec: &ResultSpec) -> Option<JsonB> {
    let (kept_as, store) = match &spec.to {
        ResultTo::Nothing => return None,
        ResultTo::Inline { .. } => ("inline", None),
        ResultTo::Table { .. } => ("table", None),
        ResultTo::Object(object) => ("object", Some(&object.store)),
        ResultTo::Export(object) => ("export", Some(&object.store)),
    };
    Some(JsonB(serde_json::json!({
        "kept_as": kept_as, "store": store, "path": kept.path, "location": kept.location, "format": kept.format,
        "compression": kept.compression, "rows": kept.rows, "bytes": kept.bytes, "meta": kept.columns,
        "content": kept.content, "keep_for": spec.keep_for,
    })))
}

fn time(microseconds: i64) -> Arg {
    Arg(pg_sys::TIMESTAMPTZOID, Some(pg_sys::Datum::from(microseconds)))
}

/// Shows that a target cannot be reached.
pub fn target_down(target: &str, since: i64, next_try: i64, tries: i32, error: &str) {
    run(
        c"INSERT INTO async.target_down (target, since, next_try, tries, error) VALUES ($1, $2, $3, $4, $5)
          ON CONFLICT (target) DO UPDATE SET since = excluded.since, next_try = excluded.next_try, tries = excluded.tries,
                                             error = excluded.error",
        &[arg(target), time(since), time(next_try), arg(tries), arg(error)],
    );
}

/// A target can be reached again; None: whatever is noted of any.
pub fn target_up(target: Option<&str>) {
    run(c"DELETE FROM async.target_down WHERE $1 IS NULL OR target = $1", &[arg(target)]);
}

/// An interval in microseconds; it was checked when it was configured.
pub fn microseconds(interval: &str) -> Option<i64> {
    run(c"SELECT (extract(epoch FROM $1::interval) * 1000000)::bigint", &[arg(interval)]).one()
}

/// At most `limit` results that are over; returns objects that are to be deleted: (task, store, path).
pub fn expire_results(limit: i32) -> Vec<(i64, String, String)> {
    let rows = run(c"SELECT task_id, store, path FROM async.expire_results($1)", &[arg(limit)]);
    (0..rows.len).filter_map(|r| Some((rows.get(r, 1)?, rows.get(r, 2)?, rows.get(r, 3)?))).collect()
}

/// Forgets at most `limit` executions that are over; returns how many.
pub fn expire_executions(limit: i32) -> i32 {
    run(c"SELECT async.expire_executions($1)", &[arg(limit)]).one().unwrap_or(0)
}

/// When the next result or execution is over.
pub fn next_expiry() -> Option<i64> {
    let rows = run(c"SELECT async.next_expiry()", &[]);
    rows.datum(0, 1).map(|d| d.value() as i64)
}

pub fn results_deleted(task_ids: Vec<i64>) {
    run(c"SELECT async.results_deleted($1)", &[arg(task_ids)]);
}

pub fn results_not_deleted(kept: Vec<(i64, String)>) {
    let (task_ids, reasons): (Vec<i64>, Vec<String>) = kept.into_iter().unzip();
    run(c"SELECT async.results_not_deleted($1, $2)", &[arg(task_ids), arg(reasons)]);
}

/// What a dispatcher before this one was deleting is due at once.
pub fn resume_deletions() {
    run(c"SELECT async.resume_deletions()", &[]);
}
