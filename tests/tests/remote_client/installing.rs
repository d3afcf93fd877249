//! Installing the file: again, by whom, where something is already, over the SQL original's client.

use anyhow::Result;
use pgflow_tests::database::Database;

use crate::kit::*;

/// Everything that the file makes, with rights and comments.
fn objects(remote: &Database) -> Result<Vec<String>> {
    remote.connect()?.column(
        "SELECT p.oid::REGPROCEDURE || ' ' || coalesce(p.proacl::TEXT, 'default') || md5(p.prosrc) || obj_description(p.oid)
           FROM pg_proc p WHERE p.pronamespace::REGNAMESPACE::TEXT IN ('async', 'flow')
         UNION ALL
         SELECT c.oid::REGCLASS || ' ' || coalesce(c.relacl::TEXT, 'default') FROM pg_class c
          WHERE c.relnamespace::REGNAMESPACE::TEXT IN ('async', 'flow') ORDER BY 1",
    )
}

#[test]
fn again_changes_nothing_and_keeps_server_rights_and_inbox() {
    test(Client::File, |the| {
        let flow_id = the.run("{}")?;
        let mut here = the.user("etl")?;
        here.run("SELECT async.enter_inbox('e', 1, 1)")?;
        let before = objects(&the.remote)?;
        for _ in 0..2 {
            // The real psql, without ON_ERROR_STOP or with it, in a transaction of its own or not.
            the.remote.cluster.psql(&the.remote.name, "postgres", CLIENT)?;
        }
        same(objects(&the.remote)?, before)?;
        same(here.text(&format!("SELECT flow.args({flow_id})"))?, "{}")?;
        same(here.text("SELECT async.in_inbox('e', 1, 1)")?, "t")?;
        same(the.remote.connect()?.text("SELECT count(*) FROM async.client_version")?, "1")?;
        // Every object has a comment, every function pins its search_path unless it commits.
        let mut owner = the.remote.connect()?;
        let bare = owner.column(
            "SELECT p.oid::REGPROCEDURE::TEXT FROM pg_proc p WHERE p.pronamespace::REGNAMESPACE::TEXT IN ('async', 'flow')
              AND (obj_description(p.oid, 'pg_proc') IS NULL OR has_function_privilege('public', p.oid, 'EXECUTE')
                   OR p.prokind = 'f' AND NOT coalesce(p.proconfig, '{}') @> '{\"search_path=pg_catalog, pg_temp\"}')
             UNION ALL
             SELECT format('%s.%s', a.attrelid::REGCLASS, a.attname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
              WHERE c.relnamespace::REGNAMESPACE::TEXT IN ('async', 'flow') AND c.relkind = 'r' AND a.attnum > 0
                AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NULL",
        )?;
        same(bare, Vec::<String>::new())?;
        owner.run("DROP SCHEMA async, flow CASCADE")?;
        owner.run(CLIENT)
    });
}

#[test]
fn a_role_that_is_no_superuser_installs_it_and_its_connections_need_a_password() {
    test(Client::File, |the| {
        let flow_id = the.run(r#"{"a": 1}"#)?;
        let remote = remote_database()?;
        remote.connect()?.run(&format!(
            "DO $$ BEGIN CREATE ROLE dba LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             GRANT CREATE ON DATABASE {} TO dba",
            remote.name
        ))?;
        let mut dba = remote.connect_as("dba")?;
        dba.run(CLIENT)?;
        dba.run(CLIENT)?;
        dba.run(&format!("SELECT async.server($${}$$), async.grant_client('etl')", the.address()))?;
        let mut etl = remote.connect_as("etl")?;
        same(etl.text(&format!("SELECT flow.args({flow_id})"))?, r#"{"a": 1}"#)?;
        etl.run(&format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": 1}}'::JSONB])"))?;
        the.wait_steps(1)?;
        // A server that asks for none would be asked as whoever the remote server is.
        dba.run(&format!("SELECT async.server($${}$$)", the.address().replace("robot", "postgres")))?;
        refused(&mut etl, &format!("SELECT flow.args({flow_id})"), &["2F003", "no superuser", "password"])
    });
}

#[test]
fn schemas_that_somebody_else_prepared_stop_it() {
    let body = || -> Result<()> {
        for (prepared, part) in [
            (
                "GRANT CREATE ON DATABASE {db} TO mallory; CREATE SCHEMA flow AUTHORIZATION mallory",
                "schema flow of role mallory",
            ),
            ("CREATE SCHEMA async; GRANT CREATE ON SCHEMA async TO mallory", "mallory may create in schema async"),
            (
                "CREATE SCHEMA async; GRANT CREATE ON SCHEMA async TO mallory; SET ROLE mallory;
                 CREATE FUNCTION async.commits_first(BOOL) RETURNS BOOL LANGUAGE sql AS 'SELECT true'; RESET ROLE;
                 REVOKE CREATE ON SCHEMA async FROM mallory",
                "async.commits_first(boolean) of role mallory",
            ),
        ] {
            let remote = remote_database()?;
            let mut owner = remote.connect()?;
            owner.run("DO $$ BEGIN CREATE ROLE mallory LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$")?;
            owner.run(&prepared.replace("{db}", &remote.name))?;
            refused(&mut owner, CLIENT, &["42501", part])?;
        }
        let remote = remote_database()?;
        remote.connect()?.run("CREATE EXTENSION pgflow")?;
        refused(&mut remote.connect()?, CLIENT, &["42710", "has the extension pgflow"])?;
        let remote = remote_database()?;
        remote.connect()?.run("CREATE SCHEMA async; CREATE TABLE async.task (task_id BIGINT)")?;
        refused(&mut remote.connect()?, CLIENT, &["42710", "SQL original"])?;
        let remote = remote_database()?;
        remote.connect()?.run("CREATE SCHEMA flow; CREATE TYPE flow.callback_arguments_t AS (flow_id INT)")?;
        refused(&mut remote.connect()?, CLIENT, &["42809", "has other fields"])?;
        same(remote.connect()?.text("SELECT to_regnamespace('async') IS NULL")?, "t")
    };
    body().unwrap_or_else(|error| panic!("{error:#}"));
}

/// The original's client as it looks from outside: its type, the names and arguments of its routines, its tables.
const ORIGINAL: &str = "
    CREATE SCHEMA async;
    CREATE TYPE async.finish_status_t AS ENUM
      ('FINISHED', 'FAILED', 'CANCELED', 'PAUSED', 'TIMED_OUT', 'YIELDED', 'DOA', 'DEFERRED');
    CREATE TABLE async.client_control (client_only BOOL, connection_string TEXT, version TEXT);
    CREATE FUNCTION async.server(_new_connection_string TEXT DEFAULT NULL) RETURNS VOID LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION async.finish(BIGINT[], async.finish_status_t, TEXT, INTERVAL DEFAULT NULL) RETURNS VOID LANGUAGE sql AS 'SELECT';
    CREATE SCHEMA flow;
    CREATE TYPE flow.callback_arguments_t AS (
      flow_id BIGINT, flow TEXT, flow_arguments JSONB, node TEXT, step_arguments JSONB, task_id BIGINT);
    CREATE TABLE flow.arguments (flow_id BIGINT PRIMARY KEY, arguments JSONB);
    INSERT INTO flow.arguments VALUES (1000000, '{\"of\": \"old\"}');
    CREATE FUNCTION flow.args(_flow_id BIGINT) RETURNS JSONB LANGUAGE sql AS 'SELECT NULL::JSONB';
    CREATE FUNCTION flow.cancel(_id BIGINT) RETURNS VOID LANGUAGE sql AS 'SELECT';
    CREATE PROCEDURE flow.push_steps(_flow_id BIGINT, _node TEXT, _arguments JSONB[], _flush_transaction_when_client BOOL DEFAULT TRUE)
      LANGUAGE sql AS 'SELECT';
    CREATE PROCEDURE flow.finish(_args flow.callback_arguments_t, _failed BOOL DEFAULT false, _error_message TEXT DEFAULT NULL,
      _flush_transaction_when_client BOOL DEFAULT true) LANGUAGE sql AS 'SELECT';
    CREATE PROCEDURE flow.defer(_args flow.callback_arguments_t, _duration INTERVAL) LANGUAGE sql AS 'SELECT';
    CREATE SCHEMA app;
    CREATE TABLE app.loaded (what TEXT, args JSONB);
    CREATE PROCEDURE app.load(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO app.loaded SELECT coalesce(_args.step_arguments->>'s', _args.node), flow.args(_args.flow_id);
      IF _args.step_arguments = '{}' THEN
        CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{\"s\": \"one\"}'::JSONB, '{\"s\": \"two\"}'::JSONB]);
      END IF;
      CALL flow.finish(_args, false, NULL, true);
    END $$;";

#[test]
fn a_user_of_the_originals_client_goes_on_with_the_same_calls() {
    test(Client::File, |the| {
        let remote = remote_database()?;
        let mut owner = remote.connect()?;
        owner.run(ORIGINAL)?;
        owner.run(&format!(
            "INSERT INTO async.client_control VALUES (true, $${}$$, '1.0'); GRANT USAGE ON SCHEMA async, flow, app TO etl;
             GRANT EXECUTE ON PROCEDURE flow.push_steps TO etl; GRANT ALL ON app.loaded TO etl",
            the.address()
        ))?;
        owner.run(CLIENT)?;
        let shown = owner.text("SELECT async.server()")?;
        same((shown.contains("user=robot password=***"), shown.contains(PASSWORD)), (true, false))?;
        // The old callback, for a run of the server; by the role that could call the old client.
        let flow_id = the.run(r#"{"day": 1}"#)?;
        let mut etl = remote.connect_as("etl")?;
        for step in ["{}", r#"{"s": "one"}"#, r#"{"s": "two"}"#] {
            let task_id = the.take()?;
            etl.run(&format!(
                "CALL app.load(ROW({flow_id}, 'f', '{{}}', 'a', '{step}', {task_id})::flow.callback_arguments_t)"
            ))?;
        }
        the.ends_as(flow_id, "Finished")?;
        same(
            owner.column("SELECT what || args FROM app.loaded ORDER BY what")?,
            vec![r#"a{"day": 1}"#.to_owned(), r#"one{"day": 1}"#.into(), r#"two{"day": 1}"#.into()],
        )
    });
}
