//! No password or token shows anywhere: not in logs, views, errors, drawings or the list of sessions.

use std::collections::BTreeSet;

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::session::Session;

use crate::kit::*;

/// By where it is kept.
const IN_STRING: &str = "pw-in-string-81";
const IN_MAPPING: &str = "pw-in-mapping-82";
const IN_TASK: &str = "secret-of-task-83";
const IN_STORE: &str = "key-of-store-84";
const IN_HEADER: &str = "token-of-web-85";
const WRONG: &str = "pw-that-is-wrong-86";
const ALL: [&str; 6] = [IN_STRING, IN_MAPPING, IN_TASK, IN_STORE, IN_HEADER, WRONG];

fn clean(what: &str, text: &str) -> Result<()> {
    for secret in ALL.into_iter().chain([clickhouse().password(), s3().secret_key()]) {
        if let Some(at) = text.find(secret) {
            let from = text[..at].char_indices().rev().nth(200).map_or(0, |(i, _)| i);
            anyhow::bail!("{secret} shows in {what}: …{}", &text[from..at + secret.len()]);
        }
    }
    Ok(())
}

/// Everything that a role can read: every row of every table and view, what every function of one run or task says.
fn readable(sql: &mut Session) -> Result<String> {
    let mut all = String::new();
    let relations = sql.column(
        "SELECT c.oid::REGCLASS FROM pg_class c WHERE c.relkind IN ('r', 'v', 'm', 'p')
            AND has_schema_privilege(c.relnamespace, 'USAGE') ORDER BY 1",
    )?;
    ensure!(relations.len() > 150, "{} relations", relations.len());
    for relation in relations {
        match sql.column(&format!("SELECT row_to_json(r)::TEXT FROM {relation} r")) {
            Ok(rows) => all += &format!("\n-- {relation}\n{}", rows.join("\n")),
            Err(error) => all += &format!("\n-- {relation}\n{error:#}"),
        }
    }
    for call in [
        "SELECT flow.graphviz(flow_id)::TEXT FROM flow.flow",
        "SELECT flow.graphviz(flow)::TEXT FROM flow.configured",
        "SELECT flow.configuration()::TEXT",
        "SELECT flow.task_list(flow_id)::TEXT FROM flow.flow",
        "SELECT async.configuration()::TEXT",
    ] {
        match sql.column(call) {
            Ok(rows) => all += &format!("\n-- {call}\n{}", rows.join("\n")),
            Err(error) => all += &format!("\n-- {call}\n{error:#}"),
        }
    }
    Ok(all)
}

#[test]
fn no_secret_shows_anywhere_whatever_succeeds_or_fails() {
    let other = start(Cluster::options().not_preloaded().with_passwords().max_connections(50));
    let cluster = start(Cluster::options().setting("log_min_messages", "debug1").setting("log_statement", "all"));
    test_on(&cluster, &other, "secretive", |place| {
        // What an administrator writes is not logged; that is his to see to.
        place.sql = cluster.connect("secretive", "postgres")?;
        place
            .sql
            .run("SET log_statement = 'none'; SET log_min_messages = 'fatal'; SET log_min_error_statement = 'panic'")?;
        let mut there = place.there()?;
        there.run(&format!(
            "CREATE ROLE ann LOGIN PASSWORD '{IN_STRING}'; CREATE ROLE bob LOGIN PASSWORD '{IN_MAPPING}';
             GRANT ALL ON SCHEMA t TO PUBLIC; GRANT ALL ON t.log, t.log_id_seq TO PUBLIC;
             GRANT USAGE ON SCHEMA flow TO PUBLIC"
        ))?;
        let house = place.with_clickhouse()?;
        let (port, name) = (other.port(), "secretive");
        let web = place.web.url();
        let s3 = s3();
        place.sql.run(&format!(
            "CREATE SERVER mapped FOREIGN DATA WRAPPER pgflow OPTIONS (host '127.0.0.1', port '{port}', dbname '{name}');
             CREATE USER MAPPING FOR PUBLIC SERVER mapped OPTIONS (user 'bob', password '{IN_MAPPING}');
             CREATE SERVER api FOREIGN DATA WRAPPER pgflow OPTIONS (url '{web}');
             CREATE USER MAPPING FOR PUBLIC SERVER api OPTIONS (token '{IN_HEADER}')"
        ))?;
        for (target, port, password) in [("ann", port, IN_STRING), ("wrong", port, WRONG), ("closed", 1, IN_STRING)] {
            let string = format!("host=127.0.0.1 port={port} dbname={name} user=ann password='{password}'");
            place.target(target, &format!(r#""connection_string": "{string}""#), "")?;
        }
        let string = format!("postgresql://ann:{IN_STRING}@127.0.0.1:{port}/{name}");
        place.target("url", &format!(r#""connection_string": "{string}""#), "")?;
        place.target("bob", r#""kind": "postgres", "server": "mapped""#, "")?;
        let string = format!("http://{}:{WRONG}@127.0.0.1:{}", house.user(), house.http_port());
        place.target("badhouse", &format!(r#""kind": "clickhouse", "connection_string": "{string}""#), "")?;
        let headers = r#"{"Authorization": "Bearer ${token}"}"#;
        place.target(
            "api",
            r#""kind": "http", "server": "api""#,
            &format!(r#""base_url": "{web}", "allow_private": true, "headers": {headers}"#),
        )?;
        place.sql.run(&format!(
            r#"SELECT async.configure($c$ {{"stores": [{{"store": "cloud", "url": "{}", "options": {{"endpoint": "{}",
                 "allow_http": "true", "region": "us-east-1", "aws_access_key_id": "{}", "aws_secret_access_key": "{IN_STORE}"}}}}]}} $c$)"#,
            s3.url(name),
            s3.endpoint(),
            s3.access_key()
        ))?;
        let secret = format!(r#", _secrets => '{{"key": "{IN_TASK}"}}'"#);
        let mut tasks = Vec::new();
        for target in ["ann", "url", "bob", "wrong"] {
            tasks.push(place.push(target, "SELECT length({key:text})", &secret)?);
            tasks.push(place.push(target, "SELECT {key:text}::INT", &secret)?);
            tasks.push(place.push(
                target,
                "DO $$ BEGIN RAISE WARNING 'noted'; RAISE EXCEPTION 'as asked'; END $$",
                "",
            )?);
        }
        for query in [
            "SELECT length({key:String})",
            "SELECT throwIf(1, {key:String})",
            "SELECT toUInt8({key:String})",
            "SELECT * FROM {key:Identifier}",
        ] {
            tasks.push(place.push("house", query, &secret)?);
            tasks.push(place.push("badhouse", query, &secret)?);
        }
        tasks.push(place.push(
            "house",
            "SELECT 1 AS a",
            r#", _result => '{"to": "object", "store": "cloud", "format": "csv"}'"#,
        )?);
        tasks.push(place.push(
            "house",
            "SELECT 1 AS a",
            r#", _result => '{"to": "export", "store": "cloud", "format": "csv"}'"#,
        )?);
        for request in [
            r#"{"path": "/ok", "body": {"k": "$key"}}"#,
            r#"{"path": "/fail", "body": {"k": "$key"}}"#,
            r#"{"path": "/nowhere", "headers": {"X-Key": "${key}"}}"#,
        ] {
            tasks.push(place.sql.number(&format!("SELECT async.push_request('api', $q${request}$q${secret})"))?);
        }
        place.push("closed", "SELECT {key:text}", &secret)?;
        place.flow(
            "f",
            r#"{"node": "a", "target": "ann", "routine": "t.notes"}, {"node": "b", "target": "ann", "routine": "t.fails"},
               {"node": "c", "target": "wrong", "routine": "t.notes"}, {"node": "d", "target": "api", "request": {"path": "/fail"}}"#,
        )?;
        let flow_id = place.run("f")?;
        for task in &tasks {
            place
                .here
                .wait_until(&format!("(SELECT processed IS NOT NULL FROM async.task WHERE task_id = {task})"), SOON)?;
        }
        place.ended(flow_id)?;
        place.here.wait_until("EXISTS (SELECT FROM async.target_down)", SOON)?;
        let failed = place.sql.column("SELECT DISTINCT target FROM async.task WHERE failed ORDER BY 1")?;
        same(failed, vec!["ann", "api", "badhouse", "bob", "house", "url", "wrong"])?;
        let done: BTreeSet<String> =
            place.sql.column("SELECT target FROM async.task WHERE NOT failed")?.into_iter().collect();
        same(done.into_iter().collect::<Vec<_>>(), vec!["ann", "api", "bob", "house", "url"])?;
        // The secret got where it belongs.
        contains(&place.web.asked("/ok")[0].body, &[IN_TASK])?;
        contains(place.web.asked("/ok")[0].header("authorization"), &[IN_HEADER])?;
        place.sql.run("SELECT 1")?;

        cluster.connect("secretive", "postgres")?.run("CREATE ROLE watcher LOGIN IN ROLE flow_monitor, pg_monitor")?;
        let mut watcher = place.here.connect_as("watcher")?;
        clean("what a monitor reads", &readable(&mut watcher)?)?;
        watcher.run("SELECT 1")?;
        let mut root = place.here.connect()?;
        root.run("SET log_statement = 'none'")?;
        for query in [
            "SELECT coalesce(string_agg(a::TEXT, ' '), '') FROM pg_stat_activity a WHERE application_name <> 'pgflow-tests'",
            "SELECT coalesce(string_agg(t::TEXT, ' '), '') FROM async.task t",
            "SELECT coalesce(string_agg(t::TEXT, ' '), '') FROM async.task_log t",
            "SELECT coalesce(string_agg(t::TEXT, ' '), '') FROM async.v_target t",
            "SELECT coalesce(string_agg(t::TEXT, ' '), '') FROM async.v_store t",
            "SELECT coalesce(string_agg(t::TEXT, ' '), '') FROM async.target_down t",
            "SELECT coalesce(string_agg(t::TEXT, ' '), '') FROM async.result t",
        ] {
            clean(query, &root.text(query)?)?;
        }
        // Only the task that waits has its secrets still.
        same(root.number("SELECT count(*) FROM async.task_secret")?, 1)?;
        clean("the server's log", &cluster.log_tail(usize::MAX, ""))
    });
}
