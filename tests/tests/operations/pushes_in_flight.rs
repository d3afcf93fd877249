//! A push that is under way while something else happens: its node opens, the dispatcher goes. Found by the model of the
//! protocol (docs/protocol.md): until the engine's next look at everything, a minute later, nobody went on with such runs.

use pgflow_tests::database::{Database, Kind};
use pgflow_tests::session::Session;

use crate::kit::*;

/// A run whose empty node `b` has just opened while a session pushes a step to it: the run and that session.
fn pushing_to_empty(database: &Database, session: &mut Session) -> anyhow::Result<(i64, Session)> {
    configure(
        session,
        "f",
        r#"{"node": "a", "routine": "t.waits"},
           {"node": "b", "empty": true, "step_routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
    )?;
    let flow_id = run(session, "f")?;
    wait_running(database, 1)?;
    let mut pusher = database.connect()?;
    pusher.run("BEGIN")?;
    pusher.run(&format!("CALL flow.push_steps({flow_id}, 'b', ARRAY['{{\"s\": 1}}']::JSONB[])"))?;
    open_gate(session)?;
    database.wait_until(
        &format!("(SELECT state = 'S' FROM flow.flow_node WHERE flow_id = {flow_id} AND node = 'b')"),
        SOON,
    )?;
    Ok((flow_id, pusher))
}

#[test]
fn an_empty_node_ends_when_the_push_that_kept_it_open_is_rolled_back() {
    test("push_rolled_back", |database, session| {
        let (flow_id, mut pusher) = pushing_to_empty(database, session)?;
        pusher.run("ROLLBACK")?;
        same(ended(database, flow_id)?, "a Finished, b Finished")?;
        same(log(session)?, "a")
    });
}

/// Its step was held for a node that had not opened, and what it announces at its commit nobody hears.
#[test]
fn a_step_that_is_committed_while_there_is_no_dispatcher_runs() {
    test("push_unheard", |database, session| {
        let (flow_id, mut pusher) = pushing_to_empty(database, session)?;
        let dispatcher = the(database, Kind::Dispatcher)?;
        session.run(&format!("SELECT pg_terminate_backend({dispatcher}, 10000)"))?;
        pusher.run("COMMIT")?;
        same(ended(database, flow_id)?, "a Finished, b Finished")?;
        same(log(session)?, "a b1")
    });
}
