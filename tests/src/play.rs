//! Carries plans out as real flows: sets up the callback `play.act`, starts runs, and compares what has become of each
//! with what the model expects, node by node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::database::Database;
use crate::model::{Expected, ExpectedNode, Mark, Times, Who};
use crate::plan::{Plan, StepNo};
use crate::session::Session;

/// The callback of every node and step. What it does is in the flow's arguments; what it has done is in `play.mark`.
const SETUP: &str = r#"
CREATE SCHEMA play;
CREATE TABLE play.mark (flow_id BIGINT NOT NULL, node TEXT NOT NULL, who TEXT NOT NULL, mark TEXT NOT NULL);

CREATE PROCEDURE play.act(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
DECLARE
  _who  TEXT := coalesce(_args.step_arguments->>'step', 'own');
  _does JSONB := _args.flow_arguments #> ARRAY['plan', _args.node, _who];
  _push JSONB[];
BEGIN
  IF _does ? 'pushes' THEN
    _push := array(SELECT jsonb_build_object('step', s) FROM jsonb_array_elements(_does->'pushes') s);
    CALL flow.push_steps(_args.flow_id, _args.node, _push);
  END IF;
  IF _does ? 'commits' THEN
    INSERT INTO play.mark VALUES (_args.flow_id, _args.node, _who, 'begun');
    COMMIT;
    PERFORM pg_sleep((_does->>'pause_ms')::FLOAT / 1000);
  END IF;
  INSERT INTO play.mark VALUES (_args.flow_id, _args.node, _who, 'done');
  IF _does ? 'fails' THEN
    RAISE EXCEPTION 'planned failure of %', _who;
  END IF;
END
$$;
"#;

/// Creates the callback and the table of marks.
pub fn set_up(session: &mut Session) -> Result<()> {
    session.run(SETUP)
}

/// Configures a plan as a flow and starts a run, with the early steps pushed in the same transaction.
pub fn start(session: &mut Session, flow: &str, plan: &Plan) -> Result<i64> {
    let configure = "SELECT flow.configure_flow($1, $2)";
    session.execute(configure, &[&flow, &plan.configuration()]).context("configure_flow")?;
    let only: Option<Vec<String>> =
        plan.only.as_ref().map(|only| only.nodes.iter().map(|node| Plan::name(*node)).collect());
    let add_parents = plan.only.as_ref().is_some_and(|only| only.add_parents);
    let add_children = plan.only.as_ref().is_some_and(|only| only.add_children);
    let mut transaction = session.transaction()?;
    let flow_id: i64 = transaction
        .query_one(
            "SELECT flow_id FROM flow.run_flow($1, $2, $3, $4, $5)",
            &[&flow, &plan.arguments(), &only, &add_parents, &add_children],
        )
        .context("run_flow")?
        .get(0);
    for (number, node) in plan.nodes.iter().enumerate().filter(|(_, node)| !node.early_steps.is_empty()) {
        let steps: Vec<_> = node.early_steps.iter().map(|step| serde_json::json!({ "step": step })).collect();
        let push = "CALL flow.push_steps($1, $2, $3)";
        transaction.execute(push, &[&flow_id, &Plan::name(number), &steps]).context("push_steps")?;
    }
    transaction.commit()?;
    Ok(flow_id)
}

/// Waits until none of the runs is open. False: some still are when the time is up.
pub fn wait_for_all(session: &mut Session, flow_ids: &[i64], timeout: Duration) -> Result<bool> {
    let until = Instant::now() + timeout;
    loop {
        let open: i64 = session
            .query_one("SELECT count(*) FROM flow.flow WHERE flow_id = ANY ($1) AND processed IS NULL", &[&flow_ids])?
            .get(0);
        if open == 0 {
            return Ok(true);
        }
        if Instant::now() > until {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until all runs have ended or nothing has moved for so long; returns how many are open.
pub fn wait_while_moving(session: &mut Session, flow_ids: &[i64], stillness: Duration) -> Result<i64> {
    let mut seen = (0, 0);
    let mut since = Instant::now();
    loop {
        let row = session.query_one(
            "SELECT count(*) FILTER (WHERE processed IS NULL), sum(count_finished_nodes)::BIGINT,
                    (SELECT count(*) FROM async.task WHERE processed IS NOT NULL)
             FROM flow.flow WHERE flow_id = ANY ($1)",
            &[&flow_ids],
        )?;
        let (open, now): (i64, (i64, i64)) = (row.get(0), (row.get(1), row.get(2)));
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if open == 0 || since.elapsed() > stillness {
            return Ok(open);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether processes have died while the run went on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Calm,
    /// Then tasks may be attempted again, and what a callback had committed before it died is there once more.
    Deadly,
}

/// Every difference between what has become of a run and what was expected, in words.
pub fn differences(database: &Database, flow_id: i64, plan: &Plan, expected: &Expected) -> Result<Vec<String>> {
    differences_in(Weather::Calm, database, flow_id, plan, expected)
}

pub fn differences_in(
    weather: Weather,
    database: &Database,
    flow_id: i64,
    plan: &Plan,
    expected: &Expected,
) -> Result<Vec<String>> {
    let mut session = database.connect()?;
    let mut wrong = Vec::new();
    compare_run(&mut session, weather, flow_id, plan, expected, &mut wrong)?;
    let actual = actual_nodes(&mut session, flow_id)?;
    for (number, node) in expected.nodes.iter().enumerate() {
        let name = Plan::name(number);
        match actual.get(&name) {
            Some(actual) => compare_node(&name, actual, node, &mut wrong),
            None => wrong.push(format!("{name}: not in the run")),
        }
    }
    compare_marks(&mut session, weather, flow_id, expected, &mut wrong)?;
    Ok(wrong)
}

fn compare_run(
    session: &mut Session,
    weather: Weather,
    flow_id: i64,
    plan: &Plan,
    expected: &Expected,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let row = session.query_one(
        "SELECT f.processed IS NOT NULL, f.count_nodes, f.count_finished_nodes, f.count_failed_nodes,
                f.first_error IS NOT NULL,
                (SELECT count(*) FROM async.task t WHERE t.flow_id = f.flow_id AND t.processed IS NULL),
                (SELECT count(*) FROM async.task t WHERE t.flow_id = f.flow_id AND t.attempt > 1)
         FROM flow.flow f WHERE f.flow_id = $1",
        &[&flow_id],
    )?;
    if !row.get::<_, bool>(0) {
        wrong.push("the run is still open".into());
    }
    let nodes = plan.nodes.len() as i32;
    for (column, name, wanted) in [
        (1, "count_nodes", nodes),
        (2, "count_finished_nodes", nodes),
        (3, "count_failed_nodes", expected.count_failed_nodes as i32),
    ] {
        let found: i32 = row.get(column);
        if found != wanted {
            wrong.push(format!("{name} is {found}, not {wanted}"));
        }
    }
    if row.get::<_, bool>(4) != (expected.count_failed_nodes > 0) {
        wrong.push("first_error is there without a failure, or the reverse".into());
    }
    for (column, what) in [(5, "tasks are open in a run that has ended"), (6, "tasks were attempted more than once")] {
        let found: i64 = row.get(column);
        if found > 0 && (column == 5 || weather == Weather::Calm) {
            wrong.push(format!("{found} {what}"));
        }
    }
    Ok(())
}

struct ActualNode {
    status: String,
    steps: i64,
    steps_finished: i64,
    steps_failed: i64,
    error: String,
}

fn actual_nodes(session: &mut Session, flow_id: i64) -> Result<BTreeMap<String, ActualNode>> {
    let rows = session.query(
        "SELECT s.node, s.status, s.steps, s.steps_finished, s.steps_failed, coalesce(n.error, '')
         FROM flow.v_flow_node_status s JOIN flow.flow_node n ON n.flow_id = s.flow_id AND n.node = s.node
         WHERE s.flow_id = $1",
        &[&flow_id],
    )?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let node = ActualNode {
                status: row.get(1),
                steps: row.get(2),
                steps_finished: row.get(3),
                steps_failed: row.get(4),
                error: row.get(5),
            };
            (row.get(0), node)
        })
        .collect())
}

fn compare_node(name: &str, actual: &ActualNode, expected: &ExpectedNode, wrong: &mut Vec<String>) {
    if actual.status != expected.word.text() {
        wrong.push(format!("{name}: is {}, not {} ({})", actual.status, expected.word.text(), actual.error));
        return;
    }
    if let Some(steps) = expected.steps {
        let found = (actual.steps, actual.steps_finished, actual.steps_failed);
        let wanted = (steps.all as i64, steps.finished as i64, steps.failed as i64);
        if found != wanted {
            wrong.push(format!("{name}: (steps, finished, failed) are {found:?}, not {wanted:?}"));
        }
    }
    let named = |who: &Who| actual.error.contains(&format!("planned failure of {}", who_text(*who)));
    if !expected.culprits.is_empty() && !expected.culprits.iter().any(named) {
        wrong.push(format!("{name}: its error names none of {:?}: {}", expected.culprits, actual.error));
    }
}

/// Compares the marks that callbacks have left with how often each must be there.
fn compare_marks(
    session: &mut Session,
    weather: Weather,
    flow_id: i64,
    expected: &Expected,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let rows = session
        .query("SELECT node, who, mark, count(*) FROM play.mark WHERE flow_id = $1 GROUP BY 1, 2, 3", &[&flow_id])?;
    let mut found: BTreeMap<(String, String, String), usize> =
        rows.into_iter().map(|row| ((row.get(0), row.get(1), row.get(2)), row.get::<_, i64>(3) as usize)).collect();
    for (number, node) in expected.nodes.iter().enumerate() {
        let name = Plan::name(number);
        for ((who, mark), times) in &node.marks {
            let key = (name.clone(), who_text(*who), mark_text(*mark).to_owned());
            let count = found.remove(&key).unwrap_or(0);
            let repeated = weather == Weather::Deadly && *mark == Mark::Begun && *times != Times::Never && count > 1;
            if !times.allows(count) && !repeated {
                wrong.push(format!("{name}: mark {who:?} {mark:?} is there {count} times, expected {times:?}"));
            }
        }
    }
    wrong.extend(found.into_keys().map(|key| format!("a mark that nobody can have left: {key:?}")));
    Ok(())
}

fn who_text(who: Who) -> String {
    match who {
        Who::Own => "own".into(),
        Who::Step(step) => StepNo::to_string(&step),
    }
}

fn mark_text(mark: Mark) -> &'static str {
    match mark {
        Mark::Begun => "begun",
        Mark::Done => "done",
    }
}

/// A plan that went wrong, to be read: its configuration, what its callbacks do, what was expected.
pub fn described(plan: &Plan, expected: &Expected, wrong: &[String]) -> String {
    let mut text =
        format!("configuration: {}\narguments: {}\nonly: {:?}\n", plan.configuration(), plan.arguments(), plan.only);
    for (number, node) in plan.nodes.iter().enumerate() {
        text += &format!("{}: expected {:?}", Plan::name(number), expected.nodes[number].word);
        if !node.early_steps.is_empty() {
            text += &format!(", pushed early {:?}", node.early_steps);
        }
        text += "\n";
    }
    text + "differences:\n  " + &wrong.join("\n  ")
}
