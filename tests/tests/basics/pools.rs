//! C16, E9, E11: pools bound what runs at the same time, and a concurrency group routine that raises hurts its task only.

use anyhow::Result;

use crate::kit::{contains, same, test, Kit};

const SIX_STEPS: &str = r#""steps": [{"s": 1}, {"s": 2}, {"s": 3}, {"s": 4}, {"s": 5}, {"s": 6}]"#;

/// A callback that takes 100 ms and notes from when to when.
fn timed(kit: &mut Kit) -> Result<()> {
    kit.session.run("CREATE TABLE t.span (begun TIMESTAMPTZ, ended TIMESTAMPTZ)")?;
    kit.callback(
        "timed",
        "DECLARE _begun TIMESTAMPTZ := clock_timestamp(); BEGIN
           PERFORM pg_sleep(0.1);
           INSERT INTO t.span VALUES (_begun, clock_timestamp());
         END;",
    )
}

/// The most spans at any time.
fn most_at_once(kit: &mut Kit) -> Result<i64> {
    kit.session.number(
        "SELECT max(at_once) FROM (SELECT (SELECT count(*) FROM t.span o WHERE o.begun <= s.begun AND o.ended > s.begun) AS at_once
         FROM t.span s) x",
    )
}

#[test]
fn c16_a_target_is_a_pool() {
    test("c16", |kit| {
        timed(kit)?;
        kit.session.run(r#"SELECT async.configure('{"targets": [{"target": "two", "max_concurrency": 2}]}')"#)?;
        kit.flow(&format!(
            r#"{{"node": "a", "node_routine": "t.nothing", "step_routine": "t.timed", "target": "two", {SIX_STEPS}}}"#
        ))?;
        kit.run_to_end()?;
        same(most_at_once(kit)?, 2)
    });
}

#[test]
fn c16_e9_a_changed_size_holds_at_once() {
    test("e9", |kit| {
        timed(kit)?;
        kit.session.run(r#"SELECT async.configure('{"targets": [{"target": "some", "max_concurrency": 1}]}')"#)?;
        kit.flow(&format!(
            r#"{{"node": "a", "node_routine": "t.nothing", "step_routine": "t.timed", "target": "some", {SIX_STEPS}}}"#
        ))?;
        let flow_id = kit.run()?;
        kit.wait_until("(SELECT count(*) FROM t.span) = 1")?;
        kit.session.run(r#"SELECT async.configure('{"targets": [{"target": "some", "max_concurrency": 5}]}')"#)?;
        kit.wait(flow_id)?;
        let most = most_at_once(kit)?;
        anyhow::ensure!(most > 1, "still one at a time");
        Ok(())
    });
}

#[test]
fn c16_the_concurrency_group_routine_names_the_pool() {
    test("c16_group", |kit| {
        timed(kit)?;
        kit.session.run(
            r#"CREATE SCHEMA "Odd one";
               CREATE FUNCTION "Odd one".pool(_flow_id BIGINT, _node TEXT) RETURNS TEXT LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO t.log (what) VALUES (_node || ' as ' || current_user); RETURN 'narrow'; END $$;
               SELECT async.configure('{"concurrency_pools": [{"concurrency_pool": "narrow", "max_workers": 2}]}');
               SELECT flow.configure_flow('f', '{"concurrency_group_routine": "\"Odd one\".pool", "nodes": [
                 {"node": "a", "node_routine": "t.nothing", "step_routine": "t.timed",
                  "steps": [{"s": 1}, {"s": 2}, {"s": 3}, {"s": 4}, {"s": 5}, {"s": 6}]}]}')"#,
        )?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Finished")?;
        same(most_at_once(kit)?, 2)?;
        contains(&kit.log()?, "a as postgres")
    });
}

#[test]
fn c16_e11_a_group_routine_that_raises_fails_its_task_only() {
    test("e11", |kit| {
        kit.session.run(
            r#"CREATE FUNCTION t.pool(_flow_id BIGINT, _node TEXT) RETURNS TEXT LANGUAGE plpgsql AS
                 $$ BEGIN IF _node = 'bad' THEN RAISE EXCEPTION 'no pool for you'; END IF; RETURN 'some'; END $$;
               SELECT flow.configure_flow('f', '{"concurrency_group_routine": "t.pool", "nodes": [
                 {"node": "bad", "routine": "t.notes"}, {"node": "good", "routine": "t.notes"}]}')"#,
        )?;
        kit.named_flow("g", r#"{"node": "other", "routine": "t.notes"}"#)?;
        let flow_id = kit.run()?;
        let other = kit.session.number("SELECT flow.run_flow('g', '{}')")?;
        kit.wait(flow_id)?;
        kit.wait(other)?;
        same(kit.error_of(flow_id, "good")?, "")?;
        same(kit.nodes(flow_id)?, "bad Failed, good Finished")?;
        contains(&kit.error_of(flow_id, "bad")?, "no pool for you")?;
        same(kit.session.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")?, "good other")
    });
}
