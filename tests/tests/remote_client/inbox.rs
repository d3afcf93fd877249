//! The inbox: an attempt is entered once, with the effects, by its own role.

use crate::kit::*;

#[test]
fn an_attempt_is_entered_once_with_the_effects_and_each_role_has_its_own() {
    for client in BOTH {
        test(client, |the| {
            let mut etl = the.user("etl")?;
            let mut mallory = the.user("mallory")?;
            let enter = "SELECT async.enter_inbox('engine', 1, 1)";
            let look = "SELECT async.in_inbox('engine', 1, 1)";
            mallory.run(enter)?; // tries to make others believe that it is done
            same(etl.text(look)?, "f")?;
            etl.run(&format!("BEGIN; {enter}; INSERT INTO t.log VALUES ('effect'); ROLLBACK"))?;
            same(etl.text(look)?, "f")?;
            etl.run(&format!("BEGIN; {enter}; INSERT INTO t.log VALUES ('effect'); COMMIT"))?;
            same(etl.text(look)?, "t")?;
            refused(&mut etl, enter, &["23505", "inbox_pkey"])?;
            etl.run("SELECT async.enter_inbox('engine', 1, 2), async.enter_inbox('another', 1, 1)")?;
            same(etl.text("SELECT async.in_inbox('engine', 1, 3)")?, "f")?;
            // Whoever acts for another role goes on being the one that logged in.
            the.remote.connect()?.run("GRANT etl TO mallory")?;
            mallory.run("SET ROLE etl")?;
            same(mallory.text("SELECT async.in_inbox('another', 1, 1)")?, "f")?;
            for statement in [
                "SELECT FROM async.inbox",
                "INSERT INTO async.inbox (engine, task_id, attempt, run_as) VALUES ('e', 1, 1, 'etl')",
                "DELETE FROM async.inbox",
                "SELECT async.enter_attempt('e', 1, 1)",
                "SELECT async.clean_inbox()",
            ] {
                refused(&mut etl, statement, &["42501"])?;
            }
            Ok(())
        });
    }
}

#[test]
fn an_entry_that_another_session_is_making_is_waited_for() {
    for client in BOTH {
        test(client, |the| {
            for (end, wanted) in [("COMMIT", "23505"), ("ROLLBACK", "entered")] {
                let mut first = the.user("etl")?;
                let mut second = the.user("etl")?;
                let enter = format!("SELECT async.enter_inbox('{end}', 1, 1)");
                first.run(&format!("BEGIN; {enter}"))?;
                let waiting = std::thread::spawn(move || match second.run(&enter) {
                    Ok(()) => "entered".to_owned(),
                    Err(error) => error.to_string(),
                });
                the.remote.wait_until(
                    "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')",
                    std::time::Duration::from_secs(20),
                )?;
                first.run(end)?;
                let found = waiting.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?;
                same((end, found.contains(wanted)), (end, true))?;
            }
            Ok(())
        });
    }
}

#[test]
fn old_entries_go_a_bounded_number_at_a_time() {
    for client in BOTH {
        test(client, |the| {
            let mut owner = the.remote.connect()?;
            owner.run(
                "INSERT INTO async.inbox (engine, task_id, attempt, done)
                 SELECT 'old', n, 1, now() - INTERVAL '31 days' FROM generate_series(1, 1500) n;
                 INSERT INTO async.inbox (engine, task_id, attempt) SELECT 'new', n, 1 FROM generate_series(1, 100) n",
            )?;
            same(owner.text("SELECT async.clean_inbox()")?, "1000")?;
            same(owner.text("SELECT async.clean_inbox()")?, "500")?;
            same(owner.text("SELECT async.clean_inbox()")?, "0")?;
            same(owner.text("SELECT string_agg(DISTINCT engine, ',') FROM async.inbox")?, "new")?;
            // Entering cleans now and then, whatever the session's settings; a stricter isolation must not fail for it.
            owner.run("INSERT INTO async.inbox (engine, task_id, attempt, done) VALUES ('old', 1, 1, now() - INTERVAL '31 days')")?;
            let mut etl = the.user("etl")?;
            etl.run("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT async.enter_inbox('s', n, 1) FROM generate_series(1, 3000) n; COMMIT")?;
            same(owner.text("SELECT count(*) FROM async.inbox WHERE engine = 'old'")?, "1")?;
            etl.run("SELECT async.enter_inbox('r', n, 1) FROM generate_series(1, 8000) n")?;
            same(owner.text("SELECT count(*) FROM async.inbox WHERE engine = 'old'")?, "0")
        });
    }
}
