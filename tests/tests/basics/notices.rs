//! C19: what callbacks say is kept with their task, bounded.

use crate::kit::{contains, same, test};

#[test]
fn c19_notices_and_warnings_are_kept_with_the_task() {
    test("c19", |kit| {
        kit.callback("speaks", "RAISE NOTICE 'hello %', 1; RAISE WARNING 'careful'; RAISE DEBUG 'not kept';")?;
        kit.flow(r#"{"node": "a", "routine": "t.speaks"}"#)?;
        kit.run_to_end()?;
        let messages =
            "SELECT string_agg(level || ' ' || message, ', ' ORDER BY seq) FROM async.task_log WHERE level <> 'STATUS'";
        same(kit.session.text(messages)?, "NOTICE hello 1, WARNING careful")
    });
}

#[test]
fn c19_so_are_those_of_a_callback_that_fails() {
    test("c19_failed", |kit| {
        kit.callback("speaks", "RAISE NOTICE 'before it'; RAISE EXCEPTION 'failed';")?;
        kit.flow(r#"{"node": "a", "routine": "t.speaks"}"#)?;
        kit.run_to_end()?;
        contains(&kit.session.text("SELECT string_agg(message, ', ') FROM async.task_log")?, "before it")
    });
}

#[test]
fn c19_they_are_bounded() {
    test("c19_bounded", |kit| {
        kit.callback("babbles", "FOR i IN 1..5000 LOOP RAISE NOTICE '%', repeat('x', 100000); END LOOP;")?;
        kit.flow(r#"{"node": "a", "routine": "t.babbles"}"#)?;
        let flow_id = kit.run_to_end()?;
        same(kit.nodes(flow_id)?, "a Finished")?;
        let kept = kit.session.number("SELECT count(*) FROM async.task_log WHERE level = 'NOTICE'")?;
        anyhow::ensure!((100..=101).contains(&kept), "{kept} messages are kept");
        let longest = kit.session.number("SELECT max(octet_length(message)) FROM async.task_log")?;
        anyhow::ensure!(longest <= 8192 + 100, "one of {longest} bytes is kept");
        Ok(())
    });
}
