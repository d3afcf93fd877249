//! What a local worker reads and writes about its tasks. Runs with the rights of the extension's owner; the caller
//! switches to them and back.
#![allow(unsafe_code)]

use pgflow_executor::results::{ResultSpec, ResultTo};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{pg_sys, IntoDatum};

use super::{arg, connected, nodes, run, run_qualified, Arg};
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

/// Reads the open ones among `task_ids`, in that order. What callbacks are called with is made in `context`.
pub fn details(task_ids: Vec<i64>, callback_type: pg_sys::Oid, context: pg_sys::MemoryContext) -> Vec<Details> {
    let rows = run(
        c"SELECT t.task_id, t.attempt, t.query, t.is_step, t.task_data, t.concurrency_pool = '', t.flow_id, t.node_no,
                 t.first_consumed,
                 (extract(epoch FROM least(coalesce(t.manual_timeout, g.default_timeout,
                    (SELECT c.default_timeout FROM async.control c), $2 * interval '1 ms'), interval '100 years')) * 1000000)::bigint,
                 t.asynchronous_finish, t.options->'result', t.options->>'synchronous_commit' = 'off',
                 coalesce(g.kind, 'local') = 'local', f.flow, f.arguments, f.definition_id,
                 CASE WHEN t.is_step THEN t.task_data ELSE '{}' END, u.place
          FROM unnest($1) WITH ORDINALITY AS u (task_id, place)
          CROSS JOIN LATERAL (SELECT x.task_id, x.attempt, x.query, x.is_step, x.task_data, x.concurrency_pool, x.flow_id,
                                     x.node_no, x.first_consumed, x.manual_timeout, x.asynchronous_finish, x.options, x.target
                              FROM async.task x WHERE x.task_id = u.task_id AND x.processed IS NULL OFFSET 0) t
          LEFT JOIN LATERAL (SELECT x.kind, x.default_timeout FROM async.target x WHERE x.target = t.target OFFSET 0) g ON true
          LEFT JOIN LATERAL (SELECT x.flow, x.arguments, x.definition_id FROM flow.flow x
                             WHERE x.flow_id = t.flow_id OFFSET 0) f ON true",
        &[arg(task_ids), arg(crate::settings::default_timeout_ms())],
    );
    let node_key = |row| Some((rows.get::<i64>(row, 17)?, rows.get::<i32>(row, 8)?));
    let nodes = nodes::of((0..rows.len).filter_map(node_key).collect());
    let form = CallbackForm::of(callback_type);
    // In order, as they come mostly: the server would sort the whole rows.
    let mut order: Vec<usize> = (0..rows.len).collect();
    order.sort_by_cached_key(|row| rows.get::<i64>(*row, 19));
    order
        .into_iter()
        .filter_map(|row| {
            let task_id: i64 = rows.get(row, 1)?;
            let before: i32 = rows.get(row, 2)?;
            let given: Option<String> = rows.get(row, 3);
            let is_step: bool = rows.get(row, 4)?;
            let flow: Option<String> = rows.get(row, 15);
            let asynchronous = rows.get(row, 11).unwrap_or(false);
            let is_here = rows.get(row, 14).unwrap_or(true);
            let node = node_key(row).and_then(|key| nodes.get(&key));
            let of_flow = rows.get::<i64>(row, 7).zip(rows.get::<i32>(row, 8)).zip(node);
            if of_flow.is_none() && rows.get::<i64>(row, 7).is_some() {
                pgrx::error!("its run, or its node's definition, does not exist");
            }
            let spec = match of_flow {
                Some((_, node)) => node.spec.clone(),
                None => rows.get::<pgrx::JsonB>(row, 12).and_then(|result| spec_of(&result.0)),
            };
            let arguments = || {
                let ((flow_id, _), node) = of_flow?;
                let (name, number) = (node.name.as_str().into_datum(), |n: i64| Some(pg_sys::Datum::from(n)));
                let of_row = |column| rows.datum(row, column);
                Some(form.make([number(flow_id), of_row(15), of_row(16), name, of_row(18), number(task_id)], context))
            };
            let work = of_flow.map(|(_, node)| if is_step { &node.steps } else { &node.own });
            let own_query = given.clone().or_else(|| work?.query.clone());
            let asked = work.filter(|work| given.is_none() && work.query.is_none() && work.routine.is_none());
            let classify = || {
                let ((flow_id, node_no), node) = of_flow.filter(|_| rows.get(row, 6).unwrap_or(false))?;
                Some(What::Classify { routine: node.classify.clone()?, flow_id, node_no, node: node.name.clone() })
            };
            let starts_flow = || of_flow.filter(|_| is_step).and_then(|(_, node)| node.steps_to_flow.clone());
            let what = if let Some(classify) = classify() {
                classify
            } else if let Some(flow) = starts_flow() {
                What::Flow { flow, arguments: kept(rows.datum(row, 5)?, context) }
            // What a task runs or calls of its own goes before the function that makes queries for the others.
            } else if let Some(routine) = asked.and_then(|_| of_flow?.1.query_routine.clone()) {
                What::AskQuery { routine, arguments: arguments()?, here: is_here }
            } else if let (false, Some(spec)) = (is_here, &spec) {
                What::Fetch { spec: spec.clone() }
            } else if let Some(query) = own_query {
                match &spec {
                    Some(spec) => What::Keeping { query, spec: spec.clone() },
                    None => What::Query(query),
                }
            } else if let Some(arguments) = arguments() {
                What::Call { routine: work.and_then(|work| work.routine.clone()).unwrap_or_default(), arguments }
            } else {
                pgrx::error!("it has nothing to run");
            };
            // What has been tried before runs alone: the last attempt may have failed for the company it was in.
            let may_share = is_here && is_step && before == 0 && !asynchronous;
            let shares = match (&what, of_flow.filter(|_| may_share)) {
                (What::Call { .. } | What::Query(_), Some((place, node))) => {
                    node.steps_per_transaction.filter(|most| *most > 1).map(|most| (place, most))
                }
                _ => None,
            };
            Some(Details {
                task_id,
                attempt: before + 1,
                what,
                first_started: rows.datum(row, 9).map(|d| d.value() as i64),
                timeout: rows.get(row, 10),
                asynchronous,
                spec,
                elsewhere: !is_here,
                lazy: of_flow.map_or_else(|| rows.get(row, 13).unwrap_or(false), |(_, node)| node.lazy),
                shares,
                label: match (flow, node) {
                    (Some(flow), Some(node)) => format!("pgflow: flow {flow} node {} task {task_id}", node.name),
                    _ => format!("pgflow: task {task_id}"),
                },
            })
        })
        .collect()
}

/// A copy of a varlena of SPI's memory.
fn kept(datum: pg_sys::Datum, context: pg_sys::MemoryContext) -> pg_sys::Datum {
    // SAFETY: the datum is a varlena that lives as long as the SPI connection; the context is given back.
    unsafe {
        let old = pg_sys::MemoryContextSwitchTo(context);
        let copy = datumCopy(datum, false, -1);
        pg_sys::MemoryContextSwitchTo(old);
        copy
    }
}

/// The row type of what callbacks are called with.
struct CallbackForm(pg_sys::TupleDesc);

impl CallbackForm {
    fn of(callback_type: pg_sys::Oid) -> Self {
        // SAFETY: raises if there is no such type; the copy lives as long as the transaction's memory.
        CallbackForm(unsafe { pg_sys::lookup_rowtype_tupdesc_copy(callback_type, -1) })
    }

    /// A `flow.callback_arguments_t`: flow_id, flow, flow_arguments, node, step_arguments, task_id.
    fn make(&self, values: [Option<pg_sys::Datum>; 6], context: pg_sys::MemoryContext) -> pg_sys::Datum {
        let mut nulls = values.map(|value| value.is_none());
        let mut values = values.map(|value| value.unwrap_or(pg_sys::Datum::null()));
        // SAFETY: as many values as the type has columns, of their types; the row is copied with what is stored out of line.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.0, values.as_mut_ptr(), nulls.as_mut_ptr());
            let old = pg_sys::MemoryContextSwitchTo(context);
            let row = pg_sys::heap_copy_tuple_as_datum(tuple, self.0);
            pg_sys::MemoryContextSwitchTo(old);
            pg_sys::heap_freetuple(tuple);
            row
        }
    }
}

/// What is to be kept; none: nothing is. It was checked when it was configured.
pub(super) fn spec_of(result: &serde_json::Value) -> Option<Box<ResultSpec>> {
    pgflow_executor::results::parse_result(result).ok().filter(|spec| spec.to != ResultTo::Nothing).map(Box::new)
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
