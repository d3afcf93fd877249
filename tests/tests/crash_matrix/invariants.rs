//! What must hold when everything has come to rest, whatever has died before.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::session::Session;

use crate::round::{wait_for, Before};
use crate::world::{World, MARKS_OF_WORK, NODES_OF_WORK};

/// No run is stuck.
pub fn wait_for_runs(world: &World, patience: Duration) -> Result<()> {
    let until = Instant::now() + patience;
    loop {
        let mut session = world.session()?;
        if session.number("SELECT count(*) FROM flow.flow WHERE processed IS NULL").is_ok_and(|open| open == 0) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("runs are open {patience:?} after the last death: stuck");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Every invariant; the error says each that does not hold.
pub fn check(world: &World, before: &Before) -> Result<()> {
    let mut session = world.session()?;
    let mut wrong = Vec::new();
    no_open_task(&mut session)?;
    let complete = if before.may_fail { Vec::new() } else { completeness(before) };
    for (what, sql) in consistency(before).into_iter().chain(complete) {
        for row in session.rows(&sql)?.into_iter().take(5) {
            let cells: Vec<String> = row.into_iter().map(|cell| cell.unwrap_or_else(|| "NULL".into())).collect();
            wrong.push(format!("{what}: {}", cells.join(" | ")));
        }
    }
    far_effects(world, before, &mut session, &mut wrong)?;
    processes(&mut session)?;
    log_is_clean(world.cluster(), before.log, &mut wrong);
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What is open when no run is: only steps that came too late, which the dispatcher drops when it sees them.
fn no_open_task(session: &mut Session) -> Result<()> {
    wait_for("no task is open when every run has ended", || {
        Ok(session.number("SELECT count(*) FROM async.task WHERE processed IS NULL")? == 0)
    })
}

/// Each gives the rows that must not be there, however tasks have ended.
fn consistency(before: &Before) -> Vec<(&'static str, String)> {
    let (runs, flow_id) = (runs(before), before.flow_id);
    vec![
        (
            "counters differ from recounts: run, counters, recounts",
            format!(
                "SELECT f.flow_id, f.count_nodes, f.count_finished_nodes, f.count_failed_nodes, n.nodes, n.ended, n.failed
                 FROM flow.flow f CROSS JOIN LATERAL (
                   SELECT count(*) AS nodes, count(n.ended) AS ended,
                          count(*) FILTER (WHERE n.state::TEXT IN ('E', 'K', 'C', 'T')) AS failed
                   FROM flow.flow_node n WHERE n.flow_id = f.flow_id) n
                 WHERE {runs} AND ((f.count_nodes, f.count_finished_nodes, f.count_failed_nodes) <> (n.nodes, n.ended, n.failed)
                                   OR n.ended <> n.nodes)"
            ),
        ),
        (
            "parents are counted wrong: run, node",
            format!(
                "SELECT f.flow_id, n.node, n.parents_open FROM flow.flow f JOIN flow.flow_node n USING (flow_id)
                 WHERE {runs} AND NOT f.cancelled AND n.parents_open <> 0"
            ),
        ),
        (
            "an effect is not there as often as its task has finished: run, node, task, status, times",
            format!(
                "SELECT t.flow_id, n.node, t.task_id, t.finish_status, count(m.task_id)
                 FROM flow.flow f JOIN async.task t ON t.flow_id = f.flow_id
                 JOIN flow.flow_node n ON n.flow_id = t.flow_id AND n.node_no = t.node_no
                 LEFT JOIN crash.mark m ON m.task_id = t.task_id AND m.what = 'done'
                 WHERE {runs} AND f.flow IN ('work', 'small', 'long') AND n.node <> 'far' AND NOT (n.node IN ('child', 't') AND t.is_step)
                 GROUP BY 1, 2, 3, 4 HAVING count(m.task_id) <> (t.finish_status = 'FINISHED')::INT"
            ),
        ),
        (
            "what a task did before its COMMIT, or when it put itself off, is not there as it should: task, status, times",
            format!(
                "SELECT t.task_id, n.node, t.finish_status, count(m.task_id)
                 FROM flow.flow f JOIN async.task t ON t.flow_id = f.flow_id
                 JOIN flow.flow_node n ON n.flow_id = t.flow_id AND n.node_no = t.node_no
                 LEFT JOIN crash.mark m ON m.task_id = t.task_id AND m.what IN ('first', 'put off')
                 WHERE {runs} AND f.flow = 'work' AND n.node IN ('parts', 'later') AND t.finish_status = 'FINISHED'
                 GROUP BY 1, 2, 3 HAVING count(m.task_id) < 1 OR n.node = 'later' AND count(m.task_id) <> 1"
            ),
        ),
        (
            "effects of a task that there never was: run, node, task",
            format!(
                "SELECT m.flow_id, m.node, m.task_id FROM crash.mark m
                 WHERE m.flow_id > {flow_id} AND NOT EXISTS (SELECT FROM async.task t WHERE t.task_id = m.task_id)"
            ),
        ),
        (
            "a run is there without its start, or the reverse: run",
            format!(
                "SELECT f.flow_id, s.flow_id FROM
                   (SELECT f.flow_id FROM flow.flow f
                    WHERE f.flow_id > {flow_id} AND f.flow IN ('work', 'long') AND f.parent_flow_id IS NULL) f
                 FULL JOIN (SELECT s.flow_id FROM crash.started s WHERE s.flow_id > {flow_id}) s ON s.flow_id = f.flow_id
                 WHERE f.flow_id IS NULL OR s.flow_id IS NULL"
            ),
        ),
    ]
}

/// The round's runs, in a condition on `flow.flow f`.
fn runs(before: &Before) -> String {
    format!("(f.flow_id > {} OR f.flow_id = {})", before.flow_id, before.again)
}

/// The same, where nothing has failed but what was to.
fn completeness(before: &Before) -> Vec<(&'static str, String)> {
    let (runs, again) = (runs(before), before.again);
    vec![
        (
            "a run of work has not left every mark once: run, marks",
            format!(
                "SELECT f.flow_id, m.marks FROM flow.flow f CROSS JOIN LATERAL (
                   SELECT string_agg(c.node || ' ' || c.times, ', ' ORDER BY c.node) AS marks
                   FROM (SELECT m.node, count(*) AS times FROM crash.mark m
                         WHERE m.flow_id = f.flow_id AND m.what = 'done' GROUP BY m.node) c) m
                 WHERE {runs} AND f.flow = 'work' AND NOT f.cancelled AND m.marks IS DISTINCT FROM '{MARKS_OF_WORK}'"
            ),
        ),
        (
            "a run of work has not ended as it should: run, nodes",
            format!(
                "SELECT f.flow_id, s.nodes, f.first_error FROM flow.flow f CROSS JOIN LATERAL (
                   SELECT string_agg(s.node || ' ' || s.status, ', ' ORDER BY s.node) AS nodes
                   FROM flow.v_flow_node_status s WHERE s.flow_id = f.flow_id) s
                 WHERE {runs} AND f.flow = 'work' AND s.nodes IS DISTINCT FROM '{NODES_OF_WORK}'"
            ),
        ),
        (
            "a small run has not ended as it should: run, failed nodes",
            format!(
                "SELECT f.flow_id, f.count_failed_nodes FROM flow.flow f LEFT JOIN flow.flow p ON p.flow_id = f.parent_flow_id
                 WHERE {runs} AND f.flow = 'small' AND p.cancelled IS NOT TRUE AND (f.count_failed_nodes > 0 OR f.cancelled)"
            ),
        ),
        (
            "the run that runs again has not run as often as it was told to: run, times, told",
            format!(
                "SELECT {again}, m.times, r.told FROM
                   (SELECT count(*) AS times FROM crash.mark WHERE flow_id = {again} AND node = 'y') m,
                   (SELECT count(*) AS told FROM crash.restarted WHERE flow_id = {again}) r
                 WHERE m.times <> r.told + 1"
            ),
        ),
    ]
}

/// On the other server the inbox makes it exactly once as well.
fn far_effects(world: &World, before: &Before, session: &mut Session, wrong: &mut Vec<String>) -> Result<()> {
    let tasks = session.column(&format!(
        "SELECT t.task_id FROM async.task t JOIN flow.flow_node n ON n.flow_id = t.flow_id AND n.node_no = t.node_no
         WHERE t.flow_id > {} AND n.node = 'far' AND t.finish_status = 'FINISHED' ORDER BY 1",
        before.flow_id
    ))?;
    let mut there = world.cluster().connect_again(&world.far.name, pgflow_tests::cluster::SUPERUSER)?;
    let marks =
        there.column(&format!("SELECT task_id FROM crash.mark WHERE flow_id > {} ORDER BY 1", before.flow_id))?;
    if tasks != marks {
        wrong.push(format!("elsewhere, tasks {tasks:?} have finished, and {marks:?} were done"));
    }
    Ok(())
}

/// One launcher, one dispatcher, and no worker that nobody knows; no place in shared memory that nobody frees.
fn processes(session: &mut Session) -> Result<()> {
    let seen = "SELECT coalesce(string_agg(s.line, '; ' ORDER BY s.line), '') FROM (
        SELECT 'a place is held: ' || p.kind || ' ' || coalesce(p.pid, 0) || ' ' || p.state AS line
        FROM async.processes() p WHERE p.kind = 'worker' AND (p.state NOT IN ('idle', 'running') OR p.queued > 0)
        UNION ALL
        SELECT 'nobody knows: ' || a.backend_type || ' ' || a.pid FROM pg_stat_activity a
        WHERE a.backend_type LIKE 'pgflow%' AND NOT EXISTS (SELECT FROM async.processes() p WHERE p.pid = a.pid)
        UNION ALL
        SELECT 'it is gone: ' || p.kind || ' ' || p.pid FROM async.processes() p
        WHERE NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = p.pid)
        UNION ALL
        SELECT count(*) || ' ' || k.kind || 's' FROM unnest(ARRAY['pgflow launcher', 'pgflow dispatcher']) k (kind)
        LEFT JOIN pg_stat_activity a ON a.backend_type = k.kind AND coalesce(a.datname, current_database()) = current_database()
        GROUP BY k.kind HAVING count(a.pid) <> 1
        UNION ALL
        SELECT 'a task runs when every run has ended: ' || r.task_id FROM async.running() r) s";
    let mut last = String::new();
    wait_for("the engine's processes are those that there should be", || {
        last = session.text(seen)?;
        Ok(last.is_empty())
    })
    .map_err(|error| error.context(last))
}

pub fn log_length(cluster: &Cluster) -> u64 {
    fs::metadata(cluster.directory().join("log")).map(|log| log.len()).unwrap_or(0)
}

/// The engine has said nothing that it should not have.
fn log_is_clean(cluster: &Cluster, from: u64, wrong: &mut Vec<String>) {
    let mut text = Vec::new();
    if let Ok(mut log) = fs::File::open(cluster.directory().join("log")) {
        let _ = log.seek(SeekFrom::Start(from)).and_then(|_| log.read_to_end(&mut text));
    }
    let text = String::from_utf8_lossy(&text);
    // By pg_cancel_backend; and what a callback says that is to fail.
    let asked_for =
        |line: &&str| line.contains("canceling statement due to user request") || line.contains("planned failure");
    let of_the_engine = |line: &&str| line.contains(" pgflow ");
    let bad = text.lines().filter(|line| {
        line.contains("bug of pgflow")
            || line.contains("PANIC")
            || line.contains("TRAP:")
            || line.contains("terminated by signal 11")
            || line.contains("terminated by signal 6")
            || (of_the_engine(line) && (line.contains("ERROR:") || line.contains("panicked")) && !asked_for(line))
    });
    wrong.extend(bad.take(3).map(|line| format!("the log says: {line}")));
}
