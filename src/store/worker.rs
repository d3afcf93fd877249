//! What a local worker reads and writes about its tasks. Runs with the rights of the extension's owner; the caller
//! switches to them and back.
#![allow(unsafe_code)]

use pgflow_executor::results::{ResultSpec, ResultTo};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::{arg, connected, run, run_qualified, Arg};
use crate::engine::own_task::Attempt;

extern "C-unwind" {
    fn datumCopy(value: pg_sys::Datum, by_value: bool, length: i32) -> pg_sys::Datum;
}

/// Everything a worker must know to run a task.
pub struct Details {
    pub task_id: i64,
    pub attempt: i32,
    pub what: What,
    /// Microseconds since 2000 of the first start, if this is not the first attempt.
    pub first_started: Option<i64>,
    /// Microseconds the task may take from its first start.
    pub timeout: Option<i64>,
    pub asynchronous: bool,
    /// What is to be kept of what a query returns.
    pub spec: Option<Box<ResultSpec>>,
    /// The task's target is somewhere else: it may have secrets.
    pub elsewhere: bool,
    /// Its transactions need not be on disk when they commit (`synchronous_commit: off`).
    pub lazy: bool,
    /// With others of this node it may share a transaction: (flow, node), how many at most.
    pub shares: Option<((i64, i32), usize)>,
    /// For `pg_stat_activity`.
    pub label: String,
}

pub enum What {
    /// Any SQL text.
    Query(String),
    /// One statement whose rows are kept.
    Keeping { query: String, spec: Box<ResultSpec> },
    /// Rows come from the task's own target elsewhere, into a table here.
    Fetch { spec: Box<ResultSpec> },
    /// Ask the node's routine for the query; run it here, or leave it to be sent elsewhere.
    AskQuery { routine: String, arguments: pg_sys::Datum, here: bool },
    /// `CALL routine(arguments)`; the datum is a `flow.callback_arguments_t` in the caller's memory context.
    Call { routine: String, arguments: pg_sys::Datum },
    /// A run of another flow with these arguments, a jsonb in the caller's memory context: it may be nested deeper than can
    /// be read here.
    Flow { flow: String, arguments: pg_sys::Datum },
    /// Ask the flow's routine which pool the node's tasks belong to.
    Classify { routine: String, flow_id: i64, node_no: i32, node: String },
}

fn time(microseconds: i64) -> Arg {
    Arg(pg_sys::TIMESTAMPTZOID, Some(pg_sys::Datum::from(microseconds)))
}

/// Reads the open ones among `task_ids`, in that order. Composite arguments are copied into `context`.
pub fn details(task_ids: Vec<i64>, context: pg_sys::MemoryContext) -> Vec<Details> {
    let rows = run(
        c"SELECT t.task_id, t.attempt,
                 CASE WHEN t.flow_id IS NULL OR t.query IS NOT NULL THEN t.query
                      WHEN t.is_step THEN n.step_query ELSE n.query END,
                 CASE WHEN t.is_step THEN coalesce(n.step_routine_resolved, n.step_routine)
                      ELSE coalesce(n.routine_resolved, n.routine) END,
                 ROW(f.flow_id, f.flow, f.arguments, n.node,
                     CASE WHEN t.is_step THEN t.task_data ELSE '{}' END, t.task_id)::flow.callback_arguments_t,
                 CASE WHEN t.is_step THEN n.steps_to_flow END, t.task_data,
                 CASE WHEN t.concurrency_pool = '' THEN d.concurrency_group_routine END,
                 t.flow_id, t.node_no, n.node, t.first_consumed,
                 (extract(epoch FROM least(coalesce(t.manual_timeout, g.default_timeout, c.default_timeout,
                    async.setting('pgflow.default_timeout') * interval '1 ms'), interval '100 years')) * 1000000)::bigint,
                 t.asynchronous_finish, f.flow,
                 -- What a task runs or calls of its own goes before the function that makes queries for the others.
                 CASE WHEN t.query IS NULL AND CASE WHEN t.is_step THEN coalesce(n.step_query, n.step_routine)
                                                    ELSE coalesce(n.query, n.routine) END IS NULL
                      THEN coalesce(n.query_routine_resolved, n.query_routine) END,
                 CASE WHEN t.flow_id IS NULL THEN t.options ELSE n.options END->'result', coalesce(g.kind, 'local') = 'local',
                 CASE WHEN t.flow_id IS NULL THEN t.options ELSE n.options END->>'synchronous_commit' = 'off',
                 -- What has been tried before runs alone: the last attempt may have failed for the company it was in.
                 CASE WHEN t.is_step AND t.attempt = 0 AND NOT t.asynchronous_finish
                      THEN (n.options->>'steps_per_transaction')::int END
          FROM unnest($1) WITH ORDINALITY AS u (task_id, place)
          JOIN async.task t ON t.task_id = u.task_id AND t.processed IS NULL
          CROSS JOIN async.control c
          LEFT JOIN async.target g ON g.target = t.target
          LEFT JOIN flow.flow f ON f.flow_id = t.flow_id
          LEFT JOIN flow.definition d ON d.definition_id = f.definition_id
          LEFT JOIN LATERAL (SELECT * FROM flow.definition_node x
                             WHERE x.definition_id = f.definition_id AND x.node_no = t.node_no OFFSET 0) n ON true
          ORDER BY u.place",
        &[arg(task_ids)],
    );
    (0..rows.len)
        .filter_map(|row| {
            let task_id = rows.get(row, 1)?;
            let node: Option<String> = rows.get(row, 11);
            let flow: Option<String> = rows.get(row, 15);
            let is_here = rows.get(row, 18).unwrap_or(true);
            let spec = rows.get::<pgrx::JsonB>(row, 17).and_then(|result| spec_of(&result.0)).map(Box::new);
            let kept = |column| {
                let datum = rows.datum(row, column)?;
                // SAFETY: the datum is a varlena in SPI's memory; it is copied into the caller's context.
                unsafe {
                    let old = pg_sys::MemoryContextSwitchTo(context);
                    let copy = datumCopy(datum, false, -1);
                    pg_sys::MemoryContextSwitchTo(old);
                    Some(copy)
                }
            };
            let arguments = || kept(5);
            let what = if let Some(routine) = rows.get::<String>(row, 8) {
                What::Classify {
                    routine,
                    flow_id: rows.get(row, 9)?,
                    node_no: rows.get(row, 10)?,
                    node: node.clone().unwrap_or_default(),
                }
            } else if let Some(flow) = rows.get::<String>(row, 6) {
                What::Flow { flow, arguments: kept(7)? }
            } else if let Some(routine) = rows.get::<String>(row, 16) {
                What::AskQuery { routine, arguments: arguments()?, here: is_here }
            } else if let (false, Some(spec)) = (is_here, &spec) {
                What::Fetch { spec: spec.clone() }
            } else if let Some(query) = rows.get::<String>(row, 3) {
                match &spec {
                    Some(spec) => What::Keeping { query, spec: spec.clone() },
                    None => What::Query(query),
                }
            } else {
                What::Call { routine: rows.get(row, 4).unwrap_or_default(), arguments: arguments()? }
            };
            let shares = match (&what, rows.get::<i32>(row, 20)) {
                (What::Call { .. } | What::Query(_), Some(most)) if is_here && most > 1 => {
                    Some(((rows.get(row, 9)?, rows.get(row, 10)?), most as usize))
                }
                _ => None,
            };
            Some(Details {
                task_id,
                attempt: rows.get::<i32>(row, 2)? + 1,
                what,
                first_started: rows.datum(row, 12).map(|d| d.value() as i64),
                timeout: rows.get(row, 13),
                asynchronous: rows.get(row, 14).unwrap_or(false),
                spec,
                elsewhere: !is_here,
                lazy: rows.get(row, 19).unwrap_or(false),
                shares,
                label: match (flow, node) {
                    (Some(flow), Some(node)) => format!("pgflow: flow {flow} node {node} task {task_id}"),
                    _ => format!("pgflow: task {task_id}"),
                },
            })
        })
        .collect()
}

/// What is to be kept; none: nothing is. It was checked when it was configured.
fn spec_of(result: &serde_json::Value) -> Option<ResultSpec> {
    pgflow_executor::results::parse_result(result).ok().filter(|spec| spec.to != ResultTo::Nothing)
}

/// The query of a task is known: it may be sent.
pub fn prepared(a: Attempt, query: &str) -> bool {
    run(
        c"UPDATE async.task SET query = $3 WHERE task_id = $1 AND attempt = $2 - 1 AND processed IS NULL",
        &[arg(a.task_id), arg(a.attempt), arg(query)],
    )
    .len == 1
}

/// Each outcome returns whether the attempt was still open.
pub fn finish(a: Attempt, started: i64) -> bool {
    run_qualified(
        c"UPDATE async.task SET consumed = $3, first_consumed = coalesce(first_consumed, $3),
                 processed = pg_catalog.clock_timestamp(), finish_status = 'FINISHED', failed = false, attempt = $2,
                 suspect = false
          WHERE task_id OPERATOR(pg_catalog.=) $1 AND attempt OPERATOR(pg_catalog.=) $4 AND processed IS NULL",
        &[arg(a.task_id), arg(a.attempt), time(started), arg(a.attempt - 1)],
    )
    .len == 1
}

/// `finish` for several, with their starts; returns how many of the attempts were still open.
pub fn finish_all(attempts: &[(Attempt, i64)]) -> usize {
    let ids: Vec<i64> = attempts.iter().map(|(a, _)| a.task_id).collect();
    let numbers: Vec<i32> = attempts.iter().map(|(a, _)| a.attempt).collect();
    let starts: Vec<Option<TimestampWithTimeZone>> =
        attempts.iter().map(|(_, started)| TimestampWithTimeZone::try_from(*started).ok()).collect();
    run(
        c"UPDATE async.task t SET consumed = u.started, first_consumed = coalesce(t.first_consumed, u.started),
                 processed = clock_timestamp(), finish_status = 'FINISHED', failed = false, attempt = u.attempt,
                 suspect = false
          FROM unnest($1, $2, $3) AS u (task_id, attempt, started)
          WHERE t.task_id = u.task_id AND t.attempt = u.attempt - 1 AND t.processed IS NULL",
        &[arg(ids), arg(numbers), arg(starts)],
    )
    .len
}

pub fn fail(a: Attempt, started: i64, error: &str, partially_committed: bool) -> bool {
    run(
        c"UPDATE async.task SET consumed = $3, first_consumed = coalesce(first_consumed, $3),
                 processed = clock_timestamp(), finish_status = 'FAILED', failed = true, attempt = $2,
                 suspect = false, processing_error = $4, partially_committed = partially_committed OR $5
          WHERE task_id = $1 AND attempt = $2 - 1 AND processed IS NULL",
        &[arg(a.task_id), arg(a.attempt), time(started), arg(error), arg(partially_committed)],
    )
    .len == 1
}

/// What a task of a target elsewhere was given for its time only. `ended`: the task is over, not just this attempt.
pub fn forget_secrets(a: Attempt, ended: bool) {
    run(
        c"WITH forgotten AS (DELETE FROM async.task_secret s WHERE s.task_id = $1 AND $2)
          DELETE FROM async.callback_token k WHERE k.task_id = $1",
        &[arg(a.task_id), arg(ended)],
    );
}

pub fn yielded(a: Attempt, started: i64, deadline: i64) -> bool {
    run(
        c"UPDATE async.task SET consumed = $3, first_consumed = coalesce(first_consumed, $3),
                 yielded = clock_timestamp(), finish_status = 'YIELDED', attempt = $2, suspect = false,
                 times_up = CASE WHEN $4 <> 0 THEN timestamptz '2000-01-01 00:00+00' + $4 * interval '1 us' END
          WHERE task_id = $1 AND attempt = $2 - 1 AND processed IS NULL",
        &[arg(a.task_id), arg(a.attempt), time(started), arg(deadline)],
    )
    .len == 1
}

pub fn defer(a: Attempt, started: i64, delay: i64) -> bool {
    run(
        c"UPDATE async.task SET consumed = NULL, first_consumed = coalesce(first_consumed, $3),
                 finish_status = 'DEFERRED', attempt = $2, suspect = false, partially_committed = false,
                 eligible_when = clock_timestamp() + $4 * interval '1 us'
          WHERE task_id = $1 AND attempt = $2 - 1 AND processed IS NULL",
        &[arg(a.task_id), arg(a.attempt), time(started), arg(delay)],
    )
    .len == 1
}

/// Whether this very attempt was ended by `flow.finish` from elsewhere, or by the callback's own transaction (it cancelled
/// its run); and whether as failed. Then the callback's effects stand.
pub fn decided(a: Attempt) -> Option<bool> {
    let rows = run(
        c"SELECT failed, attempt = $2 AND finish_status IN ('FINISHED', 'FAILED'), xmin::text::bigint::oid
          FROM async.task WHERE task_id = $1 AND processed IS NOT NULL",
        &[arg(a.task_id), arg(a.attempt)],
    );
    let finished = rows.get(0, 2).unwrap_or(false);
    let writer: pg_sys::Oid = rows.get(0, 3).unwrap_or(pg_sys::Oid::INVALID);
    // SAFETY: a look at the current transaction's own ids.
    let own = unsafe { pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from(writer.to_u32())) };
    (finished || own).then(|| rows.get(0, 1).unwrap_or(true))
}

/// Notes that an attempt was put off.
pub fn log_deferral(a: Attempt, delay: i64) {
    run(
        c"INSERT INTO async.task_log (task_id, attempt, seq, level, message)
          VALUES ($1, $2, 1000000, 'STATUS', format('put off for %s', async.interval_pretty($3 * interval '1 us')))
          ON CONFLICT DO NOTHING",
        &[arg(a.task_id), arg(a.attempt), arg(delay)],
    );
}

/// The pool of a node's tasks is known: those that wait for it get it.
pub fn classified(flow_id: i64, node_no: i32, pool: &str) {
    run(
        c"UPDATE flow.flow_node SET concurrency_pool = $3 WHERE flow_id = $1 AND node_no = $2",
        &[arg(flow_id), arg(node_no), arg(pool)],
    );
    run(
        c"UPDATE async.task t SET concurrency_pool = $3
          WHERE t.task_id IN (SELECT n.task_id FROM flow.flow_node n WHERE n.flow_id = $1 AND n.node_no = $2
                              UNION ALL
                              SELECT s.task_id FROM flow.flow_step s WHERE s.flow_id = $1 AND s.node_no = $2)
            AND t.processed IS NULL AND t.concurrency_pool = ''",
        &[arg(flow_id), arg(node_no), arg(pool)],
    );
}

/// In a callback's own COMMIT: marks the attempt, or refuses the commit when the attempt has been ended meanwhile.
pub fn mark_partially_committed(a: Attempt) {
    let Some(owner) = connected(super::extension_owner) else {
        pgrx::error!("the extension pgflow was dropped while task {} ran", a.task_id);
    };
    let open = super::as_user(owner, || {
        writable(|| {
            connected(|| {
                run(
                    c"UPDATE async.task SET partially_committed = true
                      WHERE task_id = $1 AND attempt = $2 - 1 AND processed IS NULL",
                    &[arg(a.task_id), arg(a.attempt)],
                )
                .len == 1
            })
        })
    });
    if !open {
        pgrx::ereport!(
            ERROR,
            pgrx::PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            format!("task {} was ended by somebody else: its callback may not commit", a.task_id)
        );
    }
}

/// Runs bookkeeping that must write even where the callback made its transaction read-only, and wait where its role may not.
pub fn writable<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: a process-global flag of the current transaction. If `body` raises, the transaction aborts, and the next
    // one sets the flag anew.
    unsafe {
        let read_only = pg_sys::XactReadOnly;
        pg_sys::XactReadOnly = false;
        let no_timeout = NoLockTimeout::begin();
        let value = body();
        drop(no_timeout);
        pg_sys::XactReadOnly = read_only;
        value
    }
}

/// While it lives, a role's lock_timeout does not apply: bookkeeping waits for a client's lock on the task's row.
struct NoLockTimeout(i32);

impl NoLockTimeout {
    fn begin() -> Self {
        // SAFETY: the variable behind the setting, of this process only; put back by `drop`.
        unsafe {
            let before = NoLockTimeout(pg_sys::LockTimeout);
            pg_sys::LockTimeout = 0;
            before
        }
    }
}

impl Drop for NoLockTimeout {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::LockTimeout = self.0 }
    }
}

/// Keeps what a callback said.
pub fn log(a: Attempt, levels: Vec<String>, messages: Vec<String>) {
    run(
        c"INSERT INTO async.task_log (task_id, attempt, seq, level, message)
          SELECT $1, $2, coalesce((SELECT max(l.seq) FROM async.task_log l WHERE l.task_id = $1 AND l.attempt = $2), 0)
                         + m.place::int, m.level, m.message
          FROM unnest($3, $4) WITH ORDINALITY AS m (level, message, place)",
        &[arg(a.task_id), arg(a.attempt), arg(levels), arg(messages)],
    );
}

/// Starts the child run of a step, as the caller's role.
pub fn run_flow(flow: &str, arguments: pg_sys::Datum, parent_task_id: i64) {
    run(
        c"SELECT flow.run_flow(_flow => $1, _arguments => $2, _parent_task_id => $3)",
        &[arg(flow), Arg(pg_sys::JSONBOID, Some(arguments)), arg(parent_task_id)],
    );
}

/// The type that callbacks take.
pub fn callback_type() -> Option<pg_sys::Oid> {
    run(c"SELECT 'flow.callback_arguments_t'::regtype::oid", &[]).one()
}
