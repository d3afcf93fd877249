//! Flows whose nodes run in several places: what reaches each, what callbacks there decide, what the views say.

use anyhow::{ensure, Result};

use crate::kit::*;

/// A local node, a callback in another PostgreSQL that pushes steps, inserts into ClickHouse, a request, a local node.
#[test]
fn a_flow_goes_through_every_kind_of_target_and_back() {
    test("journey", |place| {
        let house = place.with_clickhouse()?;
        house.query("CREATE TABLE journey.facts (day Date, s UInt32, site String) ENGINE = MergeTree ORDER BY s")?;
        place.flow(
            "f",
            r#"{"node": "first", "routine": "t.notes"},
               {"node": "load", "target": "there", "routine": "t.pushes", "step_routine": "t.notes",
                "dependencies": [{"parent": "first"}]},
               {"node": "count", "target": "house", "empty": true, "steps": [{"s": 7}, {"s": 8}],
                "step_query": "INSERT INTO facts SELECT {day:Date}, {s:UInt32}, {site:String}",
                "parameters": {"site": "it's \\ {s}", "s": "$s", "day": "$day"}, "dependencies": [{"parent": "load"}]},
               {"node": "tell", "target": "web", "dependencies": [{"parent": "count"}],
                "request": {"method": "POST", "path": "/ok", "body": {"on": "$day", "about": 5}}},
               {"node": "last", "routine": "t.notes", "dependencies": [{"parent": "tell"}]}"#,
        )?;
        let flow_id = place.run_with("f", r#"{"day": "2026-01-02"}"#)?;
        same(place.ended(flow_id)?, "count Finished, first Finished, last Finished, load Finished, tell Finished")?;
        same(place.log()?, "first last")?;
        same(place.there()?.text("SELECT string_agg(what, ' ' ORDER BY what) FROM t.log")?, "load load1 load2 load3")?;
        same(
            house.query("SELECT * FROM journey.facts ORDER BY s")?,
            "2026-01-02\t7\tit\\'s \\\\ {s}\n2026-01-02\t8\tit\\'s \\\\ {s}",
        )?;
        let asked = place.web.asked("/ok");
        same(asked.len(), 1)?;
        same(asked[0].body.replace(' ', ""), r#"{"on":"2026-01-02","about":5}"#)?;
        ensure!(asked[0].header("idempotency-key").starts_with("pgflow-"), "{:?}", asked[0]);
        same(
            place.sql.text(&format!(
                "SELECT string_agg(concat_ws(' ', node, target, steps, steps_finished), ', ' ORDER BY node)
                 FROM flow.v_flow_node_status WHERE flow_id = {flow_id}"
            ))?,
            "count house 2 2, first local 0 0, last local 0 0, load there 3 3, tell web 0 0",
        )
    });
}

#[test]
fn what_a_callback_elsewhere_decides_counts_and_its_error_is_that_of_its_node() {
    test("decisions", |place| {
        for (flow, routine) in
            [("ends", "t.finishes"), ("later", "t.defers"), ("fails", "t.fails"), ("none", "t.nowhere")]
        {
            place.flow(
                flow,
                &format!(
                    r#"{{"node": "a", "target": "there", "routine": "{routine}"}},
                       {{"node": "b", "routine": "t.notes", "dependencies": [{{"parent": "a"}}]}}"#
                ),
            )?;
        }
        let ends = place.run("ends")?;
        same(place.ended(ends)?, "a Failed, b Skipped")?;
        contains(&place.error_of_run(ends)?, &["decided there"])?;
        place.there()?.run("DELETE FROM t.log")?;
        let later = place.run("later")?;
        // Put off for 200 ms again and again until it finds something in its table.
        place
            .here
            .wait_until(&format!("EXISTS (SELECT FROM async.task WHERE flow_id = {later} AND attempt >= 2)"), SOON)?;
        place.there()?.run("INSERT INTO t.log (what) VALUES ('enough')")?;
        same(place.ended(later)?, "a Finished, b Finished")?;
        let fails = place.run("fails")?;
        same(place.ended(fails)?, "a Failed, b Skipped")?;
        contains(&place.error_of_run(fails)?, &["this one fails there", "P0001", "HINT: mend it"])?;
        let none = place.run("none")?;
        same(place.ended(none)?, "a Failed, b Skipped")?;
        contains(&place.error_of_run(none)?, &["nowhere", "42883"])?;
        same(place.sql.number("SELECT count(*) FROM async.decision")?, 0)
    });
}

#[test]
fn failed_work_elsewhere_is_retried_alone() {
    test("mended", |place| {
        let house = place.with_clickhouse()?;
        house.query("CREATE TABLE mended.once (s UInt32) ENGINE = MergeTree ORDER BY s")?;
        place.flow(
            "f",
            r#"{"node": "a", "target": "house", "empty": true, "steps": [{"s": 1}, {"s": 2}],
                "step_query": "INSERT INTO once SELECT {s:UInt32} WHERE throwIf({s:UInt32} = 2 AND NOT (SELECT count() > 0 FROM system.tables WHERE database = 'mended' AND name = 'cure'), 'it is ill') = 0"},
               {"node": "b", "target": "there", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        let flow_id = place.run("f")?;
        same(place.ended(flow_id)?, "a Failed, b Skipped")?;
        contains(&place.error_of_run(flow_id)?, &["it is ill", "395"])?;
        house.query("CREATE TABLE mended.cure (s UInt32) ENGINE = Memory")?;
        place.sql.run(&format!("SELECT flow.retry_failed({flow_id})"))?;
        same(place.ended(flow_id)?, "a Finished, b Finished")?;
        // At least once: the other step may have been done when it was stopped beside the failed one.
        same(
            house.query("SELECT s, count() > 0, s = 1 OR count() = 1 FROM mended.once GROUP BY s ORDER BY s")?,
            "1\t1\t1\n2\t1\t1",
        )?;
        same(place.there()?.text("SELECT string_agg(what, ' ') FROM t.log")?, "b")
    });
}

/// The task's role, its target, what it waits for: seen while it runs.
#[test]
fn work_elsewhere_shows_in_every_view_while_it_runs() {
    test("shown", |place| {
        place.flow("f", r#"{"node": "a", "target": "there", "routine": "t.waits"}"#)?;
        let flow_id = place.run("f")?;
        place.wait_running(1)?;
        same(place.nodes(flow_id)?, "a Running")?;
        let task = place.sql.text(
            "SELECT concat_ws(' ', state, target, run_as, worker_pid IS NOT NULL, consumed IS NOT NULL) FROM async.v_task
             WHERE processed IS NULL",
        )?;
        same(task, "Running there postgres t t")?;
        same(place.sql.text("SELECT tasks_running || ' ' || tasks_pending || ' ' || concurency_assigned_workers FROM async.v_target_status WHERE target = 'there'")?, "1 0 1")?;
        same(place.sql.text("SELECT active_workers FROM async.v_target WHERE target = 'there'")?, "1")?;
        same(place.sql.text("SELECT running_tasks FROM async.v_server_info")?, "1")?;
        let drawn = place.sql.text(&format!("SELECT data FROM flow.graphviz({flow_id})"))?;
        contains(&drawn, &["a", "there"])?;
        let mut there = place.there()?;
        same(there.number("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pgflow-.*[0-9]$' AND datname = current_database()")?, 1)?;
        there.run("INSERT INTO t.gate VALUES (1)")?;
        same(place.ended(flow_id)?, "a Finished").map(drop)
    });
}

#[test]
fn a_routine_here_names_the_query_there() {
    test("asked", |place| {
        let house = place.with_clickhouse()?;
        place.sql.run(
            "CREATE FUNCTION t.names(_args flow.callback_arguments_t) RETURNS TEXT LANGUAGE plpgsql AS $$ BEGIN
               INSERT INTO t.log (what) VALUES ('asked as ' || current_user);
               IF _args.flow_arguments->>'bad' IS NOT NULL THEN RETURN NULL; END IF;
               RETURN format('CREATE TABLE made_%s (a UInt8) ENGINE = Memory', _args.flow_arguments->>'n');
             END $$",
        )?;
        place.here.role("asker")?;
        place.flow("f", r#"{"node": "a", "target": "house", "query_routine": "t.names"}"#)?;
        let flow_id = place.run_with("f", r#"{"n": 5}"#)?;
        same(place.ended(flow_id)?, "a Finished")?;
        same(house.query("EXISTS asked.made_5")?, "1")?;
        same(place.log()?, "asked as postgres")?;
        // The run of another role asks as that role.
        let mut asker = place.here.connect_as("asker")?;
        asker.run(r#"SELECT flow.configure_flow('g', '{"nodes": [{"node": "a", "target": "house", "query_routine": "t.names"}]}')"#)?;
        let other = asker.number(r#"SELECT flow.run_flow('g', '{"n": 6}')"#)?;
        same(place.ended(other)?, "a Finished")?;
        same(place.log()?, "asked as postgres asked as asker")?;
        let bad = place.run_with("f", r#"{"bad": true}"#)?;
        same(place.ended(bad)?, "a Failed")?;
        contains(&place.error_of_run(bad)?, &["t.names", "no query"])
    });
}

#[test]
fn a_local_node_may_have_a_query() {
    test("local_query", |place| {
        place.flow(
            "f",
            r#"{"node": "a", "query": "INSERT INTO t.log (what) SELECT 'queried as ' || current_user"},
               {"node": "b", "query": "SELECT 6 * 7 AS n", "result": "inline", "dependencies": [{"parent": "a"}]},
               {"node": "c", "query": "SELECT 1 / 0", "dependencies": [{"parent": "b"}]}"#,
        )?;
        let flow_id = place.run("f")?;
        same(place.ended(flow_id)?, "a Finished, b Finished, c Failed")?;
        same(place.log()?, "queried as postgres")?;
        contains(&place.error_of_run(flow_id)?, &["division by zero"])?;
        same(
            place.sql.text(&format!(
                "SELECT async.fetch_result(task_id) FROM async.v_result WHERE flow_id = {flow_id} AND node = 'b'"
            ))?,
            r#"{"n": 42}"#,
        )
    });
}

/// A time limit of a node or of its steps stops what runs on the other side.
#[test]
fn time_outs_stop_work_elsewhere() {
    test("timed", |place| {
        place.flow("node", r#"{"node": "a", "target": "there", "routine": "t.waits", "node_timeout": "400 ms"}"#)?;
        place.flow(
            "step",
            r#"{"node": "a", "target": "there", "empty": true, "step_routine": "t.waits", "steps": [{"s": 1}], "step_timeout": "400 ms"}"#,
        )?;
        for flow in ["node", "step"] {
            let flow_id = place.run(flow)?;
            let found = place.ended(flow_id)?;
            ensure!(found == "a Timed Out" || found == "a Failed", "{flow}: {found}");
            contains(&place.error_of_run(flow_id)?, &["time"])?;
            nothing_runs(place)?;
        }
        Ok(())
    });
}

#[test]
fn a_request_that_is_only_accepted_waits_until_somebody_ends_it() {
    test("accepted", |place| {
        place.flow(
            "f",
            r#"{"node": "a", "target": "web", "request": {"path": "/ok", "asynchronous": true}},
               {"node": "b", "routine": "t.notes", "dependencies": [{"parent": "a"}]}"#,
        )?;
        for (call, wanted) in
            [("'FINISHED', NULL", "a Finished, b Finished"), ("'FAILED', 'not today'", "a Failed, b Skipped")]
        {
            let flow_id = place.run("f")?;
            place.here.wait_until(
                &format!("EXISTS (SELECT FROM async.task WHERE flow_id = {flow_id} AND yielded IS NOT NULL)"),
                SOON,
            )?;
            same(place.nodes(flow_id)?.split(',').next().unwrap_or(""), "a Running Async")?;
            place.wait_running(0)?;
            place.sql.run(&format!("SELECT async.finish(array_agg(task_id), {call}) FROM async.task WHERE flow_id = {flow_id} AND yielded IS NOT NULL"))?;
            same(place.ended(flow_id)?, wanted)?;
        }
        Ok(())
    });
}

/// The user mapping is that of the role that the task runs as.
#[test]
fn each_role_goes_with_its_own_credentials() {
    test("mapped_roles", |place| {
        let port = place.there.cluster.port();
        place.there()?.run("CREATE ROLE mapped_ann LOGIN; CREATE ROLE mapped_bob LOGIN")?;
        place.sql.run(&format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE SERVER mapped FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{port}', dbname 'mapped_roles')"
        ))?;
        for role in ["ann", "bob", "eve"] {
            place.here.role(role)?;
        }
        place.sql.run(
            "CREATE USER MAPPING FOR ann SERVER mapped OPTIONS (user 'mapped_ann', password_required 'false');
             CREATE USER MAPPING FOR bob SERVER mapped OPTIONS (user 'mapped_bob')",
        )?;
        place.target("mapped", r#""kind": "postgres", "server": "mapped""#, "")?;
        let push = r#"SELECT async.push_query('mapped', 'SELECT session_user AS u', _result => '"inline"')"#;
        // Who is no superuser needs a password, unless a superuser has said otherwise: as postgres_fdw has it.
        let task = place.here.connect_as("bob")?.number(push)?;
        place.ends(task, "Failed")?;
        contains(&place.error(task)?, &["password is required"])?;
        place.sql.run("ALTER USER MAPPING FOR bob SERVER mapped OPTIONS (ADD password_required 'false')")?;
        for _ in 0..2 {
            for role in ["ann", "bob"] {
                let mut session = place.here.connect_as(role)?;
                let task = session.number(push)?;
                place.ends(task, "Finished")?;
                same(session.text(&format!("SELECT async.fetch_result({task})->>'u'"))?, format!("mapped_{role}"))?;
            }
        }
        let task = place.here.connect_as("eve")?.number(push)?;
        place.ends(task, "Failed")?;
        contains(&place.error(task)?, &["no user mapping", "CREATE USER MAPPING FOR eve"])
    });
}

/// No session of ours runs a statement on the other side any more.
pub fn nothing_runs(place: &Place) -> Result<()> {
    place.there.wait_until(
        "NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name ~ '^pgflow-.*[0-9]$' AND state <> 'idle' AND datname = current_database())",
        SOON,
    )
}
