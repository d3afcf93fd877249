//! What callbacks call: steps, ends, deferrals, arguments, cancels; when the server is told; errors as they were raised there.

use std::time::Duration;

use crate::kit::*;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn steps_that_are_pushed_from_the_client_arrive_as_they_are_and_once() {
    for client in BOTH {
        test(client, |the| {
            let flow_id = the.run("{}")?;
            let mut here = the.user("etl")?;
            for _ in 0..2 {
                here.run(&format!(
                    r#"CALL flow.push_steps({flow_id}, 'a', ARRAY['{{"s": "it''s \\ \"q\" ⅞ %s $1"}}', '{{"s": 2}}']::JSONB[])"#
                ))?;
            }
            same(the.steps()?, r#"{"s": "it's \\ \"q\" ⅞ %s $1"} {"s": 2}"#)?;
            here.run(&format!("CALL flow.push_steps({flow_id}, 'a', '{{}}')"))?;
            here.run(&format!("CALL flow.push_steps({flow_id}, 'a', NULL)"))?;
            here.run(&format!(
                "CALL flow.push_steps(_flow_id := {flow_id}, _node := 'a', _arguments := ARRAY['{{\"s\": 3}}'::JSONB],
                   _flush_transaction_when_client := false)"
            ))?;
            the.wait_steps(3)
        });
    }
}

#[test]
fn what_a_callback_wrote_is_there_when_the_server_learns_of_its_steps() {
    for client in BOTH {
        test(client, |the| {
            let flow_id = the.run("{}")?;
            let mut here = the.user("etl")?;
            let waits = "FOR i IN 1..6000 LOOP EXIT WHEN EXISTS (SELECT FROM t.log WHERE what = 'go'); PERFORM pg_sleep(0.01); END LOOP;";
            for (name, flush) in [("first", "DEFAULT"), ("at_once", "false")] {
                let flush = if flush == "DEFAULT" { String::new() } else { format!(", {flush}") };
                here.run(&format!(
                    "CREATE PROCEDURE t.{name}() LANGUAGE plpgsql AS $$ BEGIN
                       INSERT INTO t.log VALUES ('{name}');
                       CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": \"{name}\"}}'::JSONB]{flush});
                       {waits} RAISE EXCEPTION 'and then it fails';
                     END $$"
                ))?;
            }
            let mut other = the.remote.connect()?;
            for (steps, name, visible) in [(1, "first", "1"), (2, "at_once", "0")] {
                let mut session = the.remote.connect_as("etl")?;
                let call = format!("CALL t.{name}()");
                let running = std::thread::spawn(move || session.error(&call));
                the.wait_steps(steps)?;
                same(other.text(&format!("SELECT count(*) FROM t.log WHERE what = '{name}'"))?, visible)?;
                other.run("INSERT INTO t.log VALUES ('go')")?;
                let error = running.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
                same(error.contains("and then it fails"), true)?;
                // The server is not untold.
                same(other.text(&format!("SELECT count(*) FROM t.log WHERE what = '{name}'"))?, visible)?;
                the.wait_steps(steps)?;
                other.run("DELETE FROM t.log WHERE what = 'go'")?;
            }
            Ok(())
        });
    }
}

#[test]
fn where_no_commit_is_possible_the_call_says_so_and_nothing_is_told() {
    for client in BOTH {
        test(client, |the| {
            let (flow_id, args) = the.callback()?;
            let mut here = the.user("etl")?;
            let push = format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": 1}}'::JSONB]);");
            let finish = format!("CALL flow.finish({args});");
            here.run(&format!(
                "CREATE FUNCTION t.f() RETURNS VOID LANGUAGE plpgsql AS $f$ BEGIN {push} END $f$;
                 CREATE PROCEDURE t.p() LANGUAGE plpgsql AS $f$ BEGIN {push} END $f$;
                 CREATE PROCEDURE t.s() LANGUAGE plpgsql SET work_mem = '1MB' AS $f$ BEGIN {finish} END $f$"
            ))?;
            for call in [
                "SELECT t.f()".to_owned(),
                "BEGIN; CALL t.p(); COMMIT".to_owned(),
                "CALL t.s()".to_owned(),
                format!("BEGIN; {finish} COMMIT"),
                format!("DO $$ BEGIN {push} EXCEPTION WHEN division_by_zero THEN NULL; END $$"),
            ] {
                refused(
                    &mut here,
                    &call,
                    &["2D000", "only after a COMMIT", "_flush_transaction_when_client := false"],
                )?;
                here.run("ROLLBACK")?;
            }
            same(the.steps()?, "")?;
            same(the.node(flow_id)?, "Running Async")?;
            here.run(&format!("BEGIN; {} ROLLBACK", push.replace(");", ", false);")))?;
            here.run("CALL t.p()")?;
            the.wait_steps(1)
        });
    }
}

#[test]
fn finish_ends_the_task_and_the_second_time_changes_nothing() {
    for client in BOTH {
        test(client, |the| {
            let (flow_id, args) = the.callback()?;
            let mut here = the.user("etl")?;
            here.run(&format!("CALL flow.finish({args})"))?;
            the.ends_as(flow_id, "Finished")?;
            here.run(&format!("CALL flow.finish({args}, true, 'too late')"))?;
            same(the.node(flow_id)?, "Finished")?;
            let (flow_id, args) = the.callback()?;
            here.run(&format!(
                "CALL flow.finish({args}, _failed := true, _error_message := 'it''s \\ broken', _flush_transaction_when_client := false)"
            ))?;
            the.server.wait_run(flow_id)?;
            same(the.node(flow_id)?.contains("it's \\ broken"), true)
        });
    }
}

#[test]
fn defer_puts_the_task_off_for_its_interval_in_whatever_style() {
    for client in BOTH {
        test(client, |the| {
            let (flow_id, args) = the.callback()?;
            let mut here = the.user("etl")?;
            here.run(&format!(
                "SET intervalstyle = 'sql_standard'; CALL flow.defer({args}, '1 day -2 hours'); RESET intervalstyle"
            ))?;
            let mut server = the.server.connect()?;
            let task = format!("FROM async.task WHERE flow_id = {flow_id}");
            same(
                server.text(&format!(
                    "SELECT eligible_when - clock_timestamp() BETWEEN '21 hours' AND '22 hours' {task}"
                ))?,
                "t",
            )?;
            refused(&mut here, &format!("CALL flow.defer({args}, '-1 hour')"), &["22023", "put off"])?;
            here.run(&format!("CALL flow.defer({args}, '0')"))?;
            let id = the.take()?;
            here.run(&format!("SELECT async.defer(ARRAY[{id}], '0')"))?;
            same(the.take()?, id)
        });
    }
}

#[test]
fn arguments_are_asked_once_and_kept_for_the_next_time() {
    for client in BOTH {
        test(client, |the| {
            let flow_id = the.run(r#"{"day": "it's Monday \\ ⅞"}"#)?;
            let mut here = the.user("etl")?;
            let wanted = r#"{"day": "it's Monday \\ ⅞"}"#;
            same(here.text(&format!("SELECT flow.args({flow_id})"))?, wanted)?;
            // The server does not know them any more, the client does.
            the.server.connect()?.run(&format!("UPDATE flow.flow SET arguments = '{{}}' WHERE flow_id = {flow_id}"))?;
            same(here.text(&format!("SELECT flow.args({flow_id})"))?, wanted)?;
            let other = the.run("{}")?;
            same(here.text(&format!("BEGIN READ ONLY; SELECT flow.args({other}); COMMIT"))?, "{}")?;
            // Another server's runs have the same numbers.
            let table = if the.client == Client::File { "flow.arguments" } else { "flow.client_arguments" };
            let mut owner = the.remote.connect()?;
            same(owner.text(&format!("SELECT count(*) FROM {table}"))?, "1")?;
            owner.run(&format!("SELECT async.server($${}$$)", the.address()))?;
            same(owner.text(&format!("SELECT count(*) FROM {table}"))?, "0")
        });
    }
}

#[test]
fn kept_arguments_are_bounded() {
    test(Client::File, |the| {
        let mut owner = the.remote.connect()?;
        owner.run(
            "INSERT INTO flow.arguments (flow_id, arguments) SELECT -n, '{}' FROM generate_series(1, 12000) n;
             UPDATE flow.arguments SET cached = now() - INTERVAL '31 days' WHERE flow_id > -5",
        )?;
        // One in a hundred cleans, at most 1,000 rows: 4,000 calls that find nothing kept clean enough, very surely.
        let flow_id = the.run("{}")?;
        owner.run(&format!(
            "DO $$ BEGIN FOR i IN 1..4000 LOOP
               PERFORM flow.args({flow_id}); DELETE FROM flow.arguments WHERE flow_id = {flow_id};
             END LOOP; END $$"
        ))?;
        let left = owner.number("SELECT count(*) FROM flow.arguments")?;
        same((9_990..=10_000).contains(&left), true)?;
        same(owner.text("SELECT count(*) FROM flow.arguments WHERE cached < now() - INTERVAL '30 days'")?, "0")
    });
}

#[test]
fn runs_and_tasks_of_the_server_are_cancelled_ended_and_pushed_from_the_client() {
    for client in BOTH {
        test(client, |the| {
            let mut here = the.user("etl")?;
            let (flow_id, _) = the.callback()?;
            here.run(&format!("SELECT flow.cancel({flow_id})"))?;
            same(the.node(flow_id)?, "Cancelled: cancelled by robot")?;
            here.run(&format!("SELECT flow.cancel({flow_id})"))?; // has ended already
            let task = "async.task('INSERT INTO t.log VALUES (''it''''s done'')', _timeout := NULL)"
                .replace(", _timeout := NULL", "");
            let id = here.number(&format!("SELECT async.push_task({task})"))?;
            the.server.wait_until(
                &format!("(SELECT finish_status = 'FINISHED' FROM async.task WHERE task_id = {id})"),
                SOON,
            )?;
            same(the.server.connect()?.text("SELECT what FROM t.log")?, "it's done")?;
            let ids = here.column(
                "SELECT async.push_tasks(ARRAY[async.task(NULL, 'there', '{\"a\": \"(\\\"b, c)\"}'),
                   async.task(NULL, 'there', manual_timeout := '1 day 1 hour')], 'EXECUTE', 'from afar')",
            )?;
            here.run(&format!("SELECT async.finish(ARRAY[{}], 'FAILED', 'no''t')", ids[0]))?;
            here.run(&format!("SELECT async.cancel(ARRAY[{}])", ids[1]))?;
            same(
                the.server.connect()?.column(&format!(
                    "SELECT concat_ws(' ', finish_status, processing_error, task_data, manual_timeout, source, run_as)
                     FROM async.task WHERE task_id IN ({}) ORDER BY task_id",
                    ids.join(", ")
                ))?,
                vec![
                    r#"FAILED no't {"a": "(\"b, c)"} from afar robot"#.to_owned(),
                    "CANCELED manual cancel 1 day 01:00:00 from afar robot".to_owned(),
                ],
            )
        });
    }
}

#[test]
fn errors_of_the_server_arrive_with_code_message_and_hint() {
    for client in BOTH {
        test(client, |the| {
            let flow_id = the.run("{}")?;
            let mut here = the.user("etl")?;
            refused(
                &mut here,
                "SELECT flow.args(777)",
                &["42704", "run 777 does not exist", "HINT: flow.v_flow_status"],
            )?;
            refused(&mut here, "CALL flow.push_steps(777, 'a', NULL)", &["42704", "run 777 does not exist"])?;
            refused(
                &mut here,
                &format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{}}'::JSONB])"),
                &[
                    "22023",
                    "element 1 of the steps is the empty object",
                    "DETAIL: A step is identified",
                    "HINT: Give every step",
                ],
            )?;
            refused(
                &mut here,
                &format!("CALL flow.push_steps({flow_id}, 'zz', ARRAY['{{\"s\": 1}}'::JSONB])"),
                &["42704", "no node \"zz\"", "Its nodes are \"a\""],
            )?;
            // A run of a role whose rights the connection's user lacks.
            the.server.connect()?.run("CREATE SCHEMA IF NOT EXISTS s")?;
            let theirs = the.server.connect()?.number("SELECT flow.run_flow('f', '{}')")?;
            refused(&mut here, &format!("SELECT flow.cancel({theirs})"), &["42501", "permission denied for run"])
        });
    }
}

#[test]
fn a_client_that_is_the_extension_starts_nothing_itself_until_it_is_its_own_server_again() {
    test(Client::Extension, |the| {
        let mut here = the.remote.connect()?;
        same(here.text("SELECT async.is_client()")?, "t")?;
        let mut user = the.user("etl")?;
        refused(&mut user, "SELECT async.server('')", &["42501", "flow_admin"])?;
        same(here.text("SELECT async.server('')")?, "")?;
        same(here.text("SELECT async.is_client()")?, "f")?;
        // Its own runs again: there is none of that number here.
        let flow_id = the.run("{}")?;
        refused(&mut user, &format!("SELECT flow.args({flow_id})"), &["42704"])?;
        refused(&mut user, &format!("CALL flow.push_steps({flow_id}, 'a', NULL)"), &["42704"])?;
        // And on the server, which is preloaded: no client while something is open, no run while it is a client.
        let mut server = the.server.connect()?;
        refused(&mut server, "SELECT async.server('host=nowhere user=x')", &["55000", "open"])?;
        server.run("SELECT flow.cancel(flow_id) FROM flow.flow WHERE processed IS NULL")?;
        same(server.text("SELECT async.server('host=nowhere user=x')")?, "host=nowhere user=x")?;
        refused(
            &mut server,
            "SELECT flow.run_flow('f', '{}')",
            &["55000", "is a client of \"host=nowhere user=x\"", "async.server('')"],
        )?;
        server.run("SELECT async.server('')")?;
        server.run("SELECT flow.run_flow('f', '{}')")
    });
}
