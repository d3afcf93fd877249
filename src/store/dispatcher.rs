//! What the dispatcher reads and writes. It runs as the bootstrap superuser: nothing here may call a user's code.
#![allow(unsafe_code)]

use pgflow_core::queue::Range;
use pgrx::pg_sys;

use super::{arg, run, Rows};

/// A task as the dispatcher sees it when it loads it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub task_id: i64,
    pub attempt: i32,
    pub flow_id: i64,
    pub node_no: i32,
    pub is_step: bool,
    pub role: pg_sys::Oid,
    pub can_login: bool,
    pub role_name: String,
    pub priority: i32,
    pub target: String,
    /// None: the target's own; "": the flow's routine is to be asked.
    pub pool: Option<String>,
    pub eligible: Option<i64>,
    pub held: bool,
    pub yielded: bool,
    pub times_up: Option<i64>,
    pub suspect: bool,
    /// The node's state, or '\0' outside flows.
    pub node_state: u8,
    /// Ended: only in answers about single tasks.
    pub ended: bool,
    pub failed: bool,
    /// Ended by `flow.finish` from elsewhere, while its call may still run: the call goes on.
    pub decided: bool,
    /// Of a target elsewhere: a worker has it first; see `async.starts_here`.
    pub starts_here: bool,
}

// What is read of tasks, of a FROM item t; `place` is which of the things asked for it belongs to.
macro_rules! select_tasks {
    (place: $place:literal, from: $from:literal) => {
        concat!(
            "SELECT ",
            $place,
            "::bigint, t.task_id, t.attempt, coalesce(t.flow_id, 0), coalesce(t.node_no, -1), t.is_step,
                a.oid, a.rolcanlogin, t.run_as::text, t.priority, t.target, t.concurrency_pool,
                CASE WHEN t.eligible_when <> 'infinity' THEN t.eligible_when END,
                coalesce(t.eligible_when = 'infinity', false), t.yielded IS NOT NULL, t.times_up, t.suspect,
                n.state::text, t.processed IS NOT NULL, coalesce(t.failed, false),
                coalesce(t.finish_status IN ('FINISHED', 'FAILED'), false),
                CASE WHEN t.target <> 'local' AND async.is_elsewhere(t.target)
                     THEN async.starts_here(coalesce(t.flow_id, 0), t.node_no, t.query,
                                            CASE WHEN t.flow_id IS NULL THEN t.options END) END
         FROM ",
            $from,
            "
         LEFT JOIN flow.flow_node n ON n.flow_id = t.flow_id AND n.node_no = t.node_no
         LEFT JOIN pg_authid a ON a.rolname = t.run_as "
        )
    };
}

macro_rules! sql {
    ($($part:expr),*) => {{
        const SQL: &str = concat!($($part,)* "\0");
        match std::ffi::CStr::from_bytes_with_nul(SQL.as_bytes()) {
            Ok(sql) => sql,
            Err(_) => panic!("NUL in SQL"),
        }
    }};
}

/// Each with its place, from 1.
fn loaded(rows: &Rows) -> impl Iterator<Item = (i64, Loaded)> + '_ {
    (0..rows.len).filter_map(|row| {
        let task = Loaded {
            task_id: rows.get(row, 2)?,
            attempt: rows.get(row, 3)?,
            flow_id: rows.get(row, 4)?,
            node_no: rows.get(row, 5)?,
            is_step: rows.get(row, 6)?,
            role: rows.get(row, 7).unwrap_or(pg_sys::Oid::INVALID),
            can_login: rows.get(row, 8).unwrap_or(false),
            role_name: rows.get(row, 9).unwrap_or_default(),
            priority: rows.get(row, 10)?,
            target: rows.get(row, 11)?,
            pool: rows.get(row, 12),
            eligible: rows.datum(row, 13).map(|d| d.value() as i64),
            held: rows.get(row, 14).unwrap_or(false),
            yielded: rows.get(row, 15).unwrap_or(false),
            times_up: rows.datum(row, 16).map(|d| d.value() as i64),
            suspect: rows.get(row, 17).unwrap_or(false),
            node_state: rows.get::<String>(row, 18).and_then(|s| s.bytes().next()).unwrap_or(0),
            ended: rows.get(row, 19).unwrap_or(false),
            failed: rows.get(row, 20).unwrap_or(false),
            decided: rows.get(row, 21).unwrap_or(false),
            starts_here: rows.get(row, 22).unwrap_or(false),
        };
        Some((rows.get(row, 1)?, task))
    })
}

/// The open tasks of each range by id, at most `limit` of each.
pub fn load(ranges: &[Range], limit: usize) -> Vec<Vec<Loaded>> {
    let rows = run(
        sql!(select_tasks!(
            place: "r.place",
            from: "unnest($1, $2, $3, $4) WITH ORDINALITY AS r (low, high, flow_id, node_no, place)
                 CROSS JOIN LATERAL (SELECT x.task_id, x.attempt, x.flow_id, x.node_no, x.is_step, x.run_as, x.priority, x.target,
                                            x.concurrency_pool, x.eligible_when, x.yielded, x.times_up, x.suspect, x.processed,
                                            x.failed, x.finish_status, x.query, x.options
                                     FROM async.task x
                                     WHERE x.task_id BETWEEN r.low AND r.high AND x.processed IS NULL
                                       AND (r.flow_id = 0 OR x.flow_id = r.flow_id) AND (r.node_no = -1 OR x.node_no = r.node_no)
                                     ORDER BY x.task_id LIMIT $5) t"
        )),
        &[
            arg(ranges.iter().map(|r| r.low).collect::<Vec<_>>()),
            arg(ranges.iter().map(|r| r.high).collect::<Vec<_>>()),
            arg(ranges.iter().map(|r| r.flow_id).collect::<Vec<_>>()),
            arg(ranges.iter().map(|r| r.node_no).collect::<Vec<_>>()),
            arg(limit as i64),
        ],
    );
    let mut found: Vec<Vec<Loaded>> = ranges.iter().map(|_| Vec::new()).collect();
    for (place, task) in loaded(&rows) {
        found[place as usize - 1].push(task);
    }
    // As they came, mostly: to sort them there would cost as much as to read them.
    found.iter_mut().for_each(|tasks| tasks.sort_by_key(|task| task.task_id));
    found
}

/// These tasks as they are now, ended ones too.
pub fn look(task_ids: Vec<i64>) -> Vec<Loaded> {
    let rows =
        run(sql!(select_tasks!(place: "1", from: "async.task t"), "WHERE t.task_id = ANY ($1)"), &[arg(task_ids)]);
    loaded(&rows).map(|(_, task)| task).collect()
}

/// Ranges of open tasks by flow and node, from `low` on: (flow_id, node_no, lowest, highest). Steps that are held are among
/// them if their node waits no more: they were pushed while it opened or ended, and nobody else will release or end them.
pub fn open_ranges(low: i64) -> Vec<(i64, i32, i64, i64)> {
    let rows = run(
        c"SELECT coalesce(t.flow_id, 0), coalesce(t.node_no, -1), min(t.task_id), max(t.task_id)
          FROM async.task t
          WHERE t.task_id >= $1 AND t.processed IS NULL
            AND CASE WHEN t.eligible_when = 'infinity'
                     THEN (SELECT n.state <> 'W' FROM flow.flow_node n
                           WHERE n.flow_id = t.flow_id AND n.node_no = t.node_no)
                     ELSE true END
          GROUP BY 1, 2 ORDER BY 3",
        &[arg(low)],
    );
    quadruples(&rows)
}

fn quadruples(rows: &Rows) -> Vec<(i64, i32, i64, i64)> {
    (0..rows.len).filter_map(|r| Some((rows.get(r, 1)?, rows.get(r, 2)?, rows.get(r, 3)?, rows.get(r, 4)?))).collect()
}

/// The same for one run.
pub fn open_ranges_of_run(flow_id: i64) -> Vec<(i64, i32, i64, i64)> {
    let rows = run(
        c"SELECT $1, o.node_no, min(t.task_id), max(t.task_id)
          FROM (SELECT n.node_no, n.task_id FROM flow.flow_node n WHERE n.flow_id = $1 AND n.state IN ('O', 'S')
                UNION ALL
                SELECT s.node_no, s.task_id FROM flow.flow_step s WHERE s.flow_id = $1) o
          CROSS JOIN LATERAL (SELECT x.task_id, x.processed, x.eligible_when FROM async.task x
                              WHERE x.task_id = o.task_id OFFSET 0) t
          WHERE t.processed IS NULL
            AND CASE WHEN t.eligible_when = 'infinity'
                     THEN (SELECT n.state <> 'W' FROM flow.flow_node n WHERE n.flow_id = $1 AND n.node_no = o.node_no)
                     ELSE true END
          GROUP BY 2",
        &[arg(flow_id)],
    );
    quadruples(&rows)
}

/// Nodes of open runs that are open themselves, with their time-out: (flow_id, node_no, times_up).
pub fn open_nodes(flow_id: Option<i64>) -> Vec<(i64, i32, Option<i64>)> {
    let rows = run(
        c"SELECT n.flow_id, n.node_no, n.times_up
          FROM flow.flow r JOIN flow.flow_node n ON n.flow_id = r.flow_id
          WHERE r.processed IS NULL AND n.state IN ('O', 'S') AND ($1 IS NULL OR r.flow_id = $1)",
        &[arg(flow_id)],
    );
    (0..rows.len)
        .filter_map(|r| Some((rows.get(r, 1)?, rows.get(r, 2)?, rows.datum(r, 3).map(|d| d.value() as i64))))
        .collect()
}

/// Whether any run is open.
pub fn any_open_run() -> bool {
    run(c"SELECT FROM flow.flow WHERE processed IS NULL LIMIT 1", &[]).len > 0
}

pub fn any_open_task() -> bool {
    run(
        c"SELECT FROM async.task t, async.engine_state e WHERE t.task_id >= e.open_low AND t.processed IS NULL LIMIT 1",
        &[],
    )
    .len > 0
}

/// What the cascade decided; see `flow.effect_t`.
#[derive(Clone, Debug)]
pub struct Effect {
    pub kind: u8,
    pub flow_id: i64,
    pub node_no: i32,
    pub low: i64,
    pub high: i64,
    pub at: Option<i64>,
}

fn effects(rows: &Rows) -> Vec<Effect> {
    (0..rows.len)
        .filter_map(|r| {
            Some(Effect {
                kind: rows.get::<String>(r, 1)?.bytes().next()?,
                flow_id: rows.get(r, 2)?,
                node_no: rows.get(r, 3).unwrap_or(-1),
                low: rows.get(r, 4).unwrap_or(0),
                high: rows.get(r, 5).unwrap_or(0),
                at: rows.datum(r, 6).map(|d| d.value() as i64),
            })
        })
        .collect()
}

/// Candidates: (flow_id, node_no, failed step).
pub fn settle(candidates: &[(i64, i32, Option<i64>)]) -> Vec<Effect> {
    effects(&run(
        c"SELECT e.kind, e.flow_id, e.node_no, e.task_low, e.task_high, e.at FROM flow.settle($1, $2, $3) e",
        &[
            arg(candidates.iter().map(|c| c.0).collect::<Vec<_>>()),
            arg(candidates.iter().map(|c| c.1).collect::<Vec<_>>()),
            arg(candidates.iter().map(|c| c.2).collect::<Vec<_>>()),
        ],
    ))
}

pub fn time_out_nodes(nodes: &[(i64, i32)]) -> Vec<Effect> {
    effects(&run(
        c"SELECT e.kind, e.flow_id, e.node_no, e.task_low, e.task_high, e.at FROM flow.time_out_nodes($1, $2) e",
        &[arg(nodes.iter().map(|n| n.0).collect::<Vec<_>>()), arg(nodes.iter().map(|n| n.1).collect::<Vec<_>>())],
    ))
}

/// Steps that were held may run; returns them.
pub fn release_held(task_ids: Vec<i64>) -> Vec<i64> {
    let rows = run(c"SELECT * FROM flow.release_held($1)", &[arg(task_ids)]);
    (0..rows.len).filter_map(|r| rows.get(r, 1)).collect()
}

/// Ends open tasks as `status`; returns those it ended.
pub fn end_tasks(task_ids: Vec<i64>, status: &str, error: &str) -> Vec<i64> {
    let rows = run(
        c"SELECT * FROM async.end_tasks($1, $2::async.finish_status_t, $3)",
        &[arg(task_ids), arg(status), arg(error)],
    );
    (0..rows.len).filter_map(|r| rows.get(r, 1)).collect()
}

/// Accounts for lost attempts (task, attempt, charged); returns each open task and whether it has ended by this.
pub fn lose_attempts(lost: &[(i64, i32, bool)], suspect: bool, reason: &str) -> Vec<(i64, bool)> {
    let rows = run(
        c"SELECT * FROM async.lose_attempts($1, $2, $3, $4, $5, $6)",
        &[
            arg(lost.iter().map(|l| l.0).collect::<Vec<_>>()),
            arg(lost.iter().map(|l| l.1).collect::<Vec<_>>()),
            arg(lost.iter().map(|l| l.2).collect::<Vec<_>>()),
            arg(suspect),
            arg(reason),
            arg(crate::settings::max_crash_attempts()),
        ],
    );
    (0..rows.len).filter_map(|r| Some((rows.get(r, 1)?, rows.get(r, 2)?))).collect()
}

/// The mark that precedes starts.
pub fn claim(tasks: &[(i64, i32)], alone: bool) -> i64 {
    run(
        c"INSERT INTO async.claim (task_ids, attempts, alone) VALUES ($1, $2, $3) RETURNING claim_id",
        &[
            arg(tasks.iter().map(|t| t.0).collect::<Vec<_>>()),
            arg(tasks.iter().map(|t| t.1).collect::<Vec<_>>()),
            arg(alone),
        ],
    )
    .one()
    .unwrap_or(0)
}

pub fn delete_claims(claim_ids: Vec<i64>) {
    run(c"DELETE FROM async.claim WHERE claim_id = ANY ($1)", &[arg(claim_ids)]);
}

/// Every claim: (claim_id, task, attempt, alone).
pub fn claims() -> Vec<(i64, i64, i32, bool)> {
    let rows = run(
        c"SELECT c.claim_id, u.task_id, u.attempt, c.alone
          FROM async.claim c, unnest(c.task_ids, c.attempts) AS u (task_id, attempt)",
        &[],
    );
    (0..rows.len).filter_map(|r| Some((rows.get(r, 1)?, rows.get(r, 2)?, rows.get(r, 3)?, rows.get(r, 4)?))).collect()
}

pub struct Target {
    pub name: String,
    pub kind: String,
    pub max: usize,
    pub track_yielded: bool,
}

pub struct Settings {
    pub targets: Vec<Target>,
    pub pools: Vec<(String, usize)>,
    pub workers: Option<usize>,
    pub self_target: String,
    pub self_concurrency: Option<usize>,
    pub default_pool: usize,
    pub paused: bool,
}

pub fn settings() -> Settings {
    let rows = run(
        c"SELECT target, coalesce(async.target_kind(target), kind), max_concurrency, concurrency_track_yielded
          FROM async.target",
        &[],
    );
    let targets = (0..rows.len)
        .filter_map(|r| {
            Some(Target {
                name: rows.get(r, 1)?,
                kind: rows.get(r, 2)?,
                max: rows.get::<i32>(r, 3)? as usize,
                track_yielded: rows.get(r, 4)?,
            })
        })
        .collect();
    let rows = run(c"SELECT concurrency_pool, max_workers FROM async.concurrency_pool", &[]);
    let pools = (0..rows.len).filter_map(|r| Some((rows.get(r, 1)?, rows.get::<i32>(r, 2)? as usize))).collect();
    let rows = run(
        c"SELECT workers, self_target, self_concurrency, default_concurrency_pool_workers, paused FROM async.control",
        &[],
    );
    Settings {
        targets,
        pools,
        workers: rows.get::<i32>(0, 1).map(|n| n as usize),
        self_target: rows.get(0, 2).unwrap_or_else(|| "async.self".to_owned()),
        self_concurrency: rows.get::<i32>(0, 3).map(|n| n as usize),
        default_pool: rows.get::<i32>(0, 4).map_or(8, |n| n as usize),
        paused: rows.get(0, 5).unwrap_or(false),
    }
}

pub struct EngineState {
    pub system_identifier: Option<i64>,
    pub database_oid: Option<pg_sys::Oid>,
    pub clean_stop: bool,
    pub open_low: i64,
}

pub fn engine_state() -> EngineState {
    let rows = run(c"SELECT system_identifier, database_oid, clean_stop, open_low FROM async.engine_state", &[]);
    EngineState {
        system_identifier: rows.get(0, 1),
        database_oid: rows.get(0, 2),
        clean_stop: rows.get(0, 3).unwrap_or(false),
        open_low: rows.get(0, 4).unwrap_or(0),
    }
}

/// Notes where the work runs and whether it was stopped in order; false where a client has the row locked.
pub fn set_engine_state(system_identifier: i64, database: pg_sys::Oid, clean_stop: bool) -> bool {
    run(
        c"UPDATE async.engine_state e SET system_identifier = $1, database_oid = $2, clean_stop = $3
          FROM (SELECT s.only_row FROM async.engine_state s FOR NO KEY UPDATE SKIP LOCKED) l
          WHERE e.only_row = l.only_row
            AND (e.system_identifier IS NULL OR (e.system_identifier = $1 AND e.database_oid = $2))",
        &[arg(system_identifier), arg(database), arg(clean_stop)],
    )
    .len > 0
}

/// Ends the steps that started these ended child runs; P effects for those that a client has locked.
pub fn end_parents(flow_ids: Vec<i64>) -> Vec<Effect> {
    effects(&run(
        c"SELECT e.kind, e.flow_id, e.node_no, e.task_low, e.task_high, e.at FROM flow.end_parents($1) e",
        &[arg(flow_ids)],
    ))
}

/// Ended child runs of open runs whose step has not ended.
pub fn children_that_ended() -> Vec<i64> {
    let rows = run(
        c"SELECT c.flow_id
          FROM flow.flow r
          JOIN flow.flow c ON c.parent_flow_id = r.flow_id AND c.processed IS NOT NULL
          CROSS JOIN LATERAL (SELECT x.processed FROM async.task x WHERE x.task_id = c.parent_task_id OFFSET 0) t
          WHERE r.processed IS NULL AND t.processed IS NULL",
        &[],
    );
    (0..rows.len).filter_map(|r| rows.get(r, 1)).collect()
}

/// Moves the mark below which every task has ended.
pub fn raise_open_low() {
    run(c"SELECT async.raise_open_low()", &[]);
}

pub fn queue_external(tasks: &[&Loaded]) {
    run(
        c"INSERT INTO async.external_queue (target, priority, task_id)
          SELECT * FROM unnest($1, $2, $3) ON CONFLICT DO NOTHING",
        &[
            arg(tasks.iter().map(|t| t.target.clone()).collect::<Vec<_>>()),
            arg(tasks.iter().map(|t| t.priority).collect::<Vec<_>>()),
            arg(tasks.iter().map(|t| t.task_id).collect::<Vec<_>>()),
        ],
    );
}

pub fn unqueue_external(task_ids: Vec<i64>) {
    run(c"DELETE FROM async.external_queue WHERE task_id = ANY ($1)", &[arg(task_ids)]);
}

/// Leases and yielded tasks whose time is up; returns those that wait again.
pub fn expire_leases(task_ids: Vec<i64>) -> Vec<i64> {
    let rows = run(c"SELECT * FROM async.expire_leases($1)", &[arg(task_ids)]);
    (0..rows.len).filter_map(|r| rows.get(r, 1)).collect()
}

/// Deletes at most `limit` old runs and as many old tasks; returns whether more may be left.
pub fn purge(limit: i32) -> bool {
    let keep = (crate::settings::keep_runs_minutes() > 0).then(crate::settings::keep_runs_minutes);
    let number = (crate::settings::keep_runs() > 0).then(|| i64::from(crate::settings::keep_runs()));
    let rows = run(
        c"SELECT flow.purge($1 * interval '1 minute', $2, $3), async.purge($1 * interval '1 minute', $2, $3)",
        &[arg(keep), arg(number), arg(limit)],
    );
    let full = |n: Option<i64>| n.unwrap_or(0) >= i64::from(limit);
    full(rows.get(0, 1)) || full(rows.get(0, 2))
}
