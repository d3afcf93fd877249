//! Tokens that end a task: they cannot be guessed, read, or used for another one.

use anyhow::{ensure, Result};
use pgflow_tests::session::literal;

use crate::kit::*;

#[test]
fn a_callback_token_is_neither_guessed_nor_read() {
    attack("tokens", |place| {
        place
            .admin
            .run("SELECT async.configure('{\"targets\": [{\"target\": \"later\", \"asynchronous_finish\": true}]}')")?;
        configure(&mut place.victim, "f", r#"{"node": "a", "routine": "t.nothing", "target": "later"}"#)?;
        let flow_id = run(&mut place.victim, "f")?;
        place.database.wait_until("EXISTS (SELECT FROM async.task WHERE yielded IS NOT NULL)", SOON)?;
        let task = place.admin.number("SELECT task_id FROM async.task")?;
        let token = place.admin.text(&format!("SELECT async.make_callback_token({task}, 1)"))?;
        ensure!(token.len() == 64, "{token:?}");
        // Not even its digest is there for anybody, nor the function that makes one.
        refused(&mut place.attacker, "SELECT * FROM async.callback_token", "ERROR 42501")?;
        refused(&mut place.victim, "SELECT * FROM async.callback_token", "ERROR 42501")?;
        refused(&mut place.attacker, &format!("SELECT async.make_callback_token({task}, 1)"), "ERROR 42501")?;
        let digest = place.admin.text("SELECT encode(digest, 'hex') FROM async.callback_token")?;
        for guess in ["", "0", "%", "' OR true --", &digest, &token[..63], &token.to_uppercase(), &format!("{token} ")]
        {
            refused(&mut place.attacker, &format!("SELECT async.finish_by_token({})", literal(guess)), "ERROR 28000")?;
        }
        refused(&mut place.attacker, "SELECT async.finish_by_token(NULL)", "ERROR 28000")?;
        same(place.admin.number("SELECT count(*) FROM async.task WHERE processed IS NULL")?, 1)?;
        // The token is all the right that is needed; once.
        place.attacker.run(&format!("SELECT async.finish_by_token('{token}')"))?;
        refused(&mut place.attacker, &format!("SELECT async.finish_by_token('{token}')"), "ERROR 28000")?;
        same(place.ended(flow_id)?, "a Finished")
    });
}

/// The arguments that a callback is given say which task is meant; other ones are refused before anything is looked at.
#[test]
fn forged_callback_arguments_are_refused() {
    attack("forged_arguments", |place| -> Result<()> {
        place
            .admin
            .run("SELECT async.configure('{\"targets\": [{\"target\": \"later\", \"asynchronous_finish\": true}]}')")?;
        let nodes = r#"{"node": "a", "routine": "t.nothing", "target": "later"}, {"node": "b", "routine": "t.nothing", "target": "later"}"#;
        configure(&mut place.victim, "f", nodes)?;
        let of_victim = run(&mut place.victim, "f")?;
        let of_attacker = run(&mut place.attacker, "f")?;
        place.database.wait_until("(SELECT count(*) = 4 FROM async.task WHERE yielded IS NOT NULL)", SOON)?;
        let task_of = |place: &mut Place<'_>, run: i64, node: &str| {
            place.admin.number(&format!("SELECT task_id FROM flow.flow_node WHERE flow_id = {run} AND node = '{node}'"))
        };
        let (theirs, own) = (task_of(place, of_victim, "a")?, task_of(place, of_attacker, "a")?);
        let arguments = |run: &str, node: &str, task: &str| {
            format!("ROW({run}, 'f', '{{}}', {node}, '{{}}', {task})::flow.callback_arguments_t")
        };
        let (victims, attackers) = (of_victim.to_string(), of_attacker.to_string());
        for (forged, error) in [
            (arguments(&victims, "'a'", &theirs.to_string()), "ERROR 42501"),
            // A run of his own with another's task, and the other way round.
            (arguments(&attackers, "'a'", &theirs.to_string()), "ERROR 42501"),
            (arguments(&victims, "'a'", &own.to_string()), "ERROR 22023"),
            (arguments(&attackers, "'b'", &own.to_string()), "ERROR 22023"),
            (arguments("NULL", "NULL", &own.to_string()), "ERROR 22023"),
            (arguments(&attackers, "'a'", "NULL"), "ERROR 42704"),
            (arguments(&attackers, "'a'", "-1"), "ERROR 42704"),
            (arguments(&attackers, "'a'", "9223372036854775807"), "ERROR 42704"),
            ("NULL::flow.callback_arguments_t".to_owned(), "ERROR 42704"),
        ] {
            refused(&mut place.attacker, &format!("CALL flow.finish({forged})"), error)?;
            refused(&mut place.attacker, &format!("CALL flow.defer({forged}, '1 h')"), error)?;
            refused(&mut place.attacker, &format!("SELECT flow.finish_now({forged}, true, 'x')"), error)?;
            refused(&mut place.attacker, &format!("SELECT flow.defer_now({forged}, '1 h')"), error)?;
            place.attacker.run(&format!("SELECT flow.progress({forged}, 1)"))?;
        }
        refused(
            &mut place.attacker,
            &format!("SELECT flow.push_steps_now({of_victim}, 'a', ARRAY['{{\"i\": 1}}']::JSONB[])"),
            "ERROR 42501",
        )?;
        same(place.admin.number("SELECT count(*) FROM async.task WHERE processed IS NULL AND yielded IS NOT NULL")?, 4)
    });
}
