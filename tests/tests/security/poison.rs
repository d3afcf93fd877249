//! What a user writes into a task must not end a worker or the dispatcher, which would be started again for it, for ever.

use anyhow::{ensure, Result};
use pgflow_tests::database::Kind;

use crate::kit::*;

/// Nobody of the engine ended in it, and the others' work goes on.
fn nothing_ended(place: &mut Place<'_>, dispatcher: &[i32]) -> Result<()> {
    let log = place.database.cluster.log_tail(2000, "exited with exit code 1");
    ensure!(log.is_empty(), "processes ended: {log}");
    same(place.database.pids(Kind::Dispatcher)?, dispatcher.to_vec())?;
    configure(&mut place.victim, "alive", r#"{"node": "a", "routine": "t.nothing"}"#)?;
    let flow_id = run(&mut place.victim, "alive")?;
    same(place.ended(flow_id)?, "a Finished")
}

fn dispatcher(place: &mut Place<'_>) -> Result<Vec<i32>> {
    configure(&mut place.attacker, "first", r#"{"node": "a", "routine": "t.nothing"}"#)?;
    let flow_id = run(&mut place.attacker, "first")?;
    place.ended(flow_id)?;
    place.database.pids(Kind::Dispatcher)
}

#[test]
fn times_beyond_the_end_of_time_end_no_process() {
    attack("endless", |place| {
        let before = dispatcher(place)?;
        place.admin.run("SELECT async.configure('{\"targets\": [{\"target\": \"out\", \"kind\": \"external\"}, {\"target\": \"later\", \"asynchronous_finish\": true}]}')")?;
        let long = "178000000 years";
        let task = place
            .attacker
            .number(&format!("SELECT async.push_task(async.task('SELECT 1', manual_timeout => '{long}'))"))?;
        place
            .attacker
            .run(&format!("SELECT async.push_task(async.task('SELECT 1', 'later', manual_timeout => '{long}'))"))?;
        place.attacker.run(&format!("SELECT async.push_task(async.task(NULL, 'out', manual_timeout => '{long}'))"))?;
        place.attacker.run(&format!("SELECT async.push_query('local', 'SELECT 1', _timeout => '{long}')"))?;
        // With a step that goes on, so that the dispatcher adds the node's time-out to a time.
        for (flow, timeout) in
            [("text", format!("\"{long}\"")), ("number", "1e10".into()), ("far", "\"290000 years\"".into())]
        {
            place.attacker.run(&format!(
                "SELECT flow.configure_flow('{flow}', '{{\"nodes\": [{{\"node\": \"a\", \"routine\": \"t.nothing\", \"target\": \"later\",
                   \"node_timeout\": {timeout}, \"step_timeout\": {timeout}, \"steps\": [{{\"i\": 1}}]}}]}}')"
            ))?;
            let flow_id = run(&mut place.attacker, flow)?;
            let waits = format!("EXISTS (SELECT FROM async.task WHERE flow_id = {flow_id} AND yielded IS NOT NULL)");
            place.database.wait_until(&waits, SOON)?;
            place.attacker.run(&format!("SELECT async.finish(array_agg(task_id), 'FINISHED', NULL) FROM async.task WHERE flow_id = {flow_id} AND NOT is_step"))?;
            let step = format!(
                "EXISTS (SELECT FROM async.task WHERE flow_id = {flow_id} AND is_step AND yielded IS NOT NULL)"
            );
            place.database.wait_until(&step, SOON)?;
            place.attacker.run(&format!("SELECT async.defer(array_agg(task_id), '290000 years') FROM async.task WHERE flow_id = {flow_id} AND is_step"))?;
        }
        place
            .database
            .wait_until(&format!("(SELECT finish_status = 'FINISHED' FROM async.task WHERE task_id = {task})"), SOON)?;
        place.attacker.run("SELECT async.get_tasks('out', 10)")?;
        nothing_ended(place, &before)
    });
}

#[test]
fn deeply_nested_arguments_end_no_process() {
    attack("deep", |place| {
        let before = dispatcher(place)?;
        configure(&mut place.attacker, "child", r#"{"node": "a", "routine": "t.nothing", "steps": [{"i": 1}]}"#)?;
        configure(
            &mut place.attacker,
            "parent",
            r#"{"node": "a", "routine": "t.nothing", "steps_to_flow": "child"}, {"node": "b", "routine": "t.nothing"}"#,
        )?;
        let deep =
            |levels: usize| format!("('{{\"x\": ' || repeat('[', {levels}) || repeat(']', {levels}) || '}}')::JSONB");
        for levels in [300, 3000] {
            place.attacker.run("BEGIN")?;
            let flow_id = place.attacker.number(&format!("SELECT flow.run_flow('parent', {})", deep(levels)))?;
            for node in ["a", "b"] {
                place.attacker.run(&format!("CALL flow.push_steps({flow_id}, '{node}', ARRAY[{}])", deep(levels)))?;
            }
            place
                .attacker
                .run(&format!("SELECT async.push_task(async.task('SELECT 1', task_data => {}))", deep(levels)))?;
            place.attacker.run("COMMIT")?;
            same(place.ended(flow_id)?, "a Finished, b Finished")?;
            for call in ["flow.graphviz", "flow.task_list", "flow.args"] {
                place.attacker.run(&format!("SELECT {call}({flow_id})"))?;
            }
        }
        nothing_ended(place, &before)
    });
}
