//! Whose code runs with whose rights, when what was configured has changed since.

use anyhow::Result;

use crate::kit::*;

/// alice may become etl, makes a flow run as etl, loses the membership, and replaces her own procedure.
#[test]
fn an_author_who_lost_a_role_cannot_run_code_as_it_any_more() {
    attack("lost_role", |place| {
        place.admin.run("GRANT lost_role_victim TO lost_role_attacker")?;
        place.attacker.run(
            "CREATE SCHEMA own; GRANT USAGE ON SCHEMA own TO PUBLIC;
             CREATE PROCEDURE own.works(_args flow.callback_arguments_t) LANGUAGE plpgsql AS
               'BEGIN INSERT INTO t.log (what) VALUES (''works''); END';
             SELECT flow.configure_flow('f', '{\"flow\": {\"run_as\": \"lost_role_victim\"}, \"nodes\": [{\"node\": \"a\", \"routine\": \"own.works\"}]}')",
        )?;
        let flow_id = run(&mut place.attacker, "f")?;
        same(place.ended(flow_id)?, "a Finished")?;
        same(place.log()?, "works by lost_role_victim")?;

        place.admin.run("REVOKE lost_role_victim FROM lost_role_attacker")?;
        place.attacker.run(
            "CREATE OR REPLACE PROCEDURE own.works(_args flow.callback_arguments_t) LANGUAGE plpgsql AS
               'BEGIN INSERT INTO t.log (what) VALUES (''stolen''); END'",
        )?;
        refused(
            &mut place.attacker,
            "SELECT flow.run_flow('f', '{}')",
            "may not run as role \"lost_role_victim\" any more",
        )?;
        refused(&mut place.victim, "SELECT flow.run_flow('f', '{}')", "ERROR 42501")?;
        refused(&mut place.attacker, &format!("SELECT flow.restart_flow({flow_id})"), "ERROR 42501")?;
        same(place.log()?, "works by lost_role_victim")?;
        // Somebody who may, and has looked at it, puts it right.
        place.admin.run("SELECT flow.configure_flow('f', '{\"flow\": {\"run_as\": \"lost_role_victim\"}, \"nodes\": [{\"node\": \"b\", \"routine\": \"t.notes\"}]}')")?;
        let flow_id = run(&mut place.victim, "f")?;
        same(place.ended(flow_id)?, "b Finished")
    });
}

/// A flow whose steps start a flow of a name that is nobody's yet, or nobody's any more: whoever takes the name does not get
/// the rights of those who run the first one.
#[test]
fn a_flow_that_steps_start_cannot_be_put_in_place_by_another() {
    attack("child", |place| {
        place.attacker.run(
            "CREATE SCHEMA own; GRANT USAGE ON SCHEMA own TO PUBLIC;
             CREATE PROCEDURE own.steals(_args flow.callback_arguments_t) LANGUAGE plpgsql AS
               'BEGIN INSERT INTO t.log (what) VALUES (''stolen''); END'",
        )?;
        let parent = r#"{"node": "p", "empty": true, "steps_to_flow": "child"}"#;
        let start = |place: &mut Place<'_>| -> Result<i64> {
            place.victim.run("BEGIN")?;
            let flow_id = run(&mut place.victim, "parent")?;
            place.victim.run(&format!("CALL flow.push_steps({flow_id}, 'p', ARRAY['{{\"i\": 1}}']::JSONB[])"))?;
            place.victim.run("COMMIT")?;
            Ok(flow_id)
        };
        // The name is nobody's when the parent is configured.
        let gated = r#"{"node": "p", "routine": "t.nothing", "steps_to_flow": "child"}"#;
        configure(&mut place.victim, "parent", gated)?;
        let theft = r#"{"node": "a", "routine": "own.steals"}"#;
        configure(&mut place.attacker, "child", theft)?;
        let flow_id = start(place)?;
        same(place.ended(flow_id)?, "p Failed")?;
        contains(&place.error_of(flow_id)?, "may not start flow \"child\" of role \"child_attacker\"")?;
        same(place.log()?, "")?;

        // It was the victim's, and was dropped.
        place.attacker.run("SELECT flow.drop_flow('child')")?;
        configure(&mut place.victim, "child", r#"{"node": "a", "routine": "t.notes"}"#)?;
        let flow_id = start(place)?;
        same(place.ended(flow_id)?, "p Finished")?;
        place.victim.run("SELECT flow.drop_flow('child')")?;
        configure(&mut place.attacker, "child", theft)?;
        let flow_id = start(place)?;
        same(place.ended(flow_id)?, "p Failed")?;
        same(place.log()?, "child.a by child_victim")?;

        // Whoever configures the parent again, having looked, says that it is meant; an admin's flow is trusted by itself.
        configure(&mut place.victim, "parent", gated)?;
        let flow_id = start(place)?;
        same(place.ended(flow_id)?, "p Finished")?;
        contains(&place.log()?, "stolen by child_victim")?;
        place.attacker.run("SELECT flow.drop_flow('child')")?;
        configure(&mut place.admin, "child", r#"{"node": "a", "routine": "t.notes"}"#)?;
        let flow_id = start(place)?;
        same(place.ended(flow_id)?, "p Finished")?;
        let _ = parent;
        Ok(())
    });
}

/// A name without a schema means, for ever, what it meant to its author: a procedure that comes first on the path of the
/// role that runs it is not called.
#[test]
fn a_routine_of_the_same_name_in_another_schema_is_not_called() {
    attack("same_name", |place| {
        place.admin.run("CREATE SCHEMA shared; GRANT ALL ON SCHEMA shared TO PUBLIC; ALTER ROLE same_name_victim SET search_path = shared, t, public")?;
        place.victim = place.database.connect_as("same_name_victim")?;
        configure(&mut place.victim, "f", r#"{"node": "notes"}"#)?;
        place.attacker.run(
            "CREATE PROCEDURE shared.notes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS
               'BEGIN INSERT INTO t.log (what) VALUES (''stolen''); END'",
        )?;
        let flow_id = run(&mut place.victim, "f")?;
        same(place.ended(flow_id)?, "notes Finished")?;
        same(place.log()?, "f.notes by same_name_victim")?;
        // With other arguments, or in pg_temp, it is not even a candidate.
        place.attacker.run(
            "CREATE PROCEDURE shared.nothing(_args JSONB) LANGUAGE plpgsql AS 'BEGIN NULL; END';
             CREATE PROCEDURE pg_temp.notes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS 'BEGIN NULL; END'",
        )?;
        let flow_id = run(&mut place.victim, "f")?;
        same(place.ended(flow_id)?, "notes Finished")
    });
}

/// Its owner may replace it, which is what owners may; who has only CREATE on the schema may not.
#[test]
fn a_routine_is_replaced_by_its_owner_only_and_asked_for_its_right_when_it_runs() {
    attack("replaced", |place| {
        place.admin.run(
            "GRANT CREATE ON SCHEMA t TO PUBLIC;
             CREATE PROCEDURE t.waits(_args flow.callback_arguments_t) LANGUAGE plpgsql AS
               'BEGIN PERFORM pg_sleep(0.5); END'",
        )?;
        configure(
            &mut place.victim,
            "f",
            r#"{"node": "a", "routine": "t.waits"}, {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        refused(
            &mut place.attacker,
            "CREATE OR REPLACE PROCEDURE t.notes(_args flow.callback_arguments_t) LANGUAGE plpgsql AS 'BEGIN NULL; END'",
            "ERROR 42501",
        )?;
        // Its right is taken back while the run waits.
        let flow_id = run(&mut place.victim, "f")?;
        place.admin.run("REVOKE EXECUTE ON PROCEDURE t.notes FROM PUBLIC")?;
        same(place.ended(flow_id)?, "a Finished, b Failed")?;
        contains(&place.error_of(flow_id)?, "permission denied for procedure notes")?;
        refused(&mut place.victim, "SELECT flow.run_flow('f', '{}')", "permission denied for procedure t.notes")?;
        // It goes while the run waits, and another role makes one of that name: that is not called in its place unless the
        // schema lets everybody create in it, as here. Then it runs as the role of the run: docs/security.md says so.
        place.admin.run("GRANT EXECUTE ON PROCEDURE t.notes TO PUBLIC")?;
        let flow_id = run(&mut place.victim, "f")?;
        place.admin.run("DROP PROCEDURE t.notes")?;
        same(place.ended(flow_id)?, "a Finished, b Failed")?;
        contains(&place.error_of(flow_id)?, "procedure t.notes(flow.callback_arguments_t) does not exist")
    });
}

/// A role is granted to others while its run goes on: they get its rows, and lose them with the membership.
#[test]
fn rights_on_runs_come_and_go_with_the_membership() {
    attack("member", |place| {
        configure(&mut place.victim, "f", r#"{"node": "a", "routine": "t.notes"}"#)?;
        let flow_id = run(&mut place.victim, "f")?;
        place.ended(flow_id)?;
        let seen = "SELECT count(*) FROM flow.flow";
        same(place.attacker.number(seen)?, 0)?;
        place.admin.run("GRANT member_victim TO member_attacker")?;
        same(place.attacker.number(seen)?, 1)?;
        place.admin.run("REVOKE member_victim FROM member_attacker")?;
        same(place.attacker.number(seen)?, 0)?;
        refused(&mut place.attacker, &format!("SELECT flow.cancel({flow_id})"), "ERROR 42501")
    });
}
