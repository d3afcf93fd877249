//! A role that may use the client cannot find out the password that it uses.

use anyhow::Result;
use pgflow_tests::session::Session;

use crate::kit::*;

/// Everything that a statement lets its session see: rows, error, messages.
fn seen(session: &mut Session, sql: &str) -> String {
    let shown = match session.rows(sql) {
        Ok(rows) => format!("{rows:?}"),
        Err(error) => format!("{error:#}"),
    };
    let text = format!("{shown}\n{}", session.notices().join("\n"));
    let _ = session.run("ROLLBACK");
    text
}

/// The password as text, as plans print the bytes of a constant, and as dumps of memory in hexadecimal would.
fn reveals(text: &str) -> bool {
    let bytes: Vec<String> = PASSWORD.bytes().take(6).map(|b| b.to_string()).collect();
    let hex: String = PASSWORD.bytes().take(6).map(|b| format!("{b:02x}")).collect();
    text.contains("s3cret") || text.contains(&bytes.join(" ")) || text.contains(&hex)
}

fn calls(flow_id: i64) -> Vec<String> {
    vec![
        format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": 1}}'::JSONB])"),
        format!("CALL flow.push_steps({flow_id}, 'zz', NULL)"),
        format!("SELECT flow.args({flow_id})"),
        "SELECT flow.cancel(777)".into(),
        "CALL flow.defer(ROW(1, 'f', NULL, 'a', NULL, 777)::flow.callback_arguments_t, '1 s')".into(),
        "SELECT async.server()".into(),
        "SELECT async.server('host=h password=x')".into(),
        "SELECT async.cancel(ARRAY[777])".into(),
        "SELECT async.enter_inbox('e', 1, 1)".into(),
        "SELECT async.enter_inbox('e', 1, 1)".into(),
    ]
}

#[test]
fn no_table_view_function_or_message_shows_the_password() {
    for client in BOTH {
        test(client, |the| {
            let flow_id = the.run("{}")?;
            let mut here = the.user("etl")?;
            let mut owner = the.remote.connect()?;
            owner.run("ANALYZE")?;
            let mut all = String::new();
            // Every relation of the database, as far as it may be read; every routine of the schemas, as far as it may be called.
            let relations = here.column(
                "SELECT format('%s', c.oid::REGCLASS) FROM pg_class c WHERE c.relkind IN ('r', 'v', 'm', 'i', 't', 'S')
                   AND c.relname NOT IN ('pg_stat_activity')",
            )?;
            same(relations.len() > 200, true)?;
            for relation in relations {
                all += &seen(&mut here, &format!("SELECT * FROM {relation}"));
            }
            for routine in here.column(
                "SELECT format('%s(%s)', p.oid::REGPROC, (SELECT string_agg(format('NULL::%s', format_type(t, NULL)), ', ')
                   FROM unnest(p.proargtypes) t)) FROM pg_proc p
                 WHERE p.pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('async', 'flow'))
                   AND p.prokind = 'f' AND p.prorettype <> 'trigger'::REGTYPE
                   AND p.proname NOT IN ('wait', 'watch_look', 'wait_for_change', 'wait_for_latch')",
            )? {
                all += &seen(&mut here, &format!("SELECT * FROM {routine}"));
            }
            for (n, sql) in [
                "SELECT * FROM async.client_server",
                "SELECT connection_string FROM async.client_server",
                "TABLE pg_stats",
                "SELECT query_to_xml('SELECT * FROM async.client_server', true, true, '')",
                "SELECT table_to_xml('async.client_server', true, true, '')",
                "COPY async.client_server TO STDOUT",
                "SELECT * FROM async.ask_server('SELECT 1')",
                "SELECT async.connection_parts('x')",
                "SELECT async.set_server('x')",
                "EXPLAIN ANALYZE VERBOSE SELECT async.server()",
                "SELECT dblink_get_connections()",
                "SELECT * FROM dblink('pgflow', 'SELECT 1') AS r(x INT)",
                "CREATE FUNCTION async.dblink(TEXT, TEXT) RETURNS INT LANGUAGE sql AS 'SELECT 1'",
                "CREATE TRIGGER x BEFORE INSERT ON async.client_server EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                "SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.proname IN ('ask_server', 'kept_connection', 'set_server')",
            ]
            .into_iter()
            .enumerate()
            {
                let found = seen(&mut here, sql);
                // The first four and the forbidden ones must be refused, not merely empty.
                if [0, 1, 3, 4, 5, 6, 8, 12, 13].contains(&n) {
                    same((sql, found.contains("42501")), (sql, true))?;
                }
                all += &found;
            }
            for call in calls(flow_id) {
                all += &seen(&mut here, &call);
            }
            same(reveals(&all), false)
        });
    }
}

#[test]
fn no_plan_or_log_line_that_a_session_can_ask_for_shows_the_password() {
    for client in BOTH {
        test(client, |the| {
            let flow_id = the.run("{}")?;
            drop(the.user("etl")?);
            // Also names that the session gives to what the client's functions might find instead of their own.
            let script = |statement: &str| {
                the.remote.cluster.psql(
                    &the.remote.name,
                    "etl",
                    &format!(
                        "\\set ON_ERROR_STOP 0
                         \\set VERBOSITY verbose
                         CREATE FUNCTION pg_temp.dblink(TEXT, TEXT) RETURNS SETOF RECORD LANGUAGE plpgsql AS
                           $$ BEGIN RAISE NOTICE 'got %', $1; END $$;
                         CREATE TEMP TABLE client_server AS SELECT 'x' AS connect_with;
                         SET search_path = pg_temp, t, public, pg_catalog;
                         SET plpgsql.print_strict_params = on; SET plan_cache_mode = force_custom_plan;
                         SET debug_pretty_print = off; SET debug_print_parse = on; SET debug_print_rewritten = on;
                         SET debug_print_plan = on; SET client_min_messages = debug5;
                         {statement};"
                    ),
                )
            };
            // Without plans of its own there would be nothing to be found, and nothing tested.
            same(reveals(&script(&format!("SELECT E'{PASSWORD}'"))?.replace("s3cret", "")), true)?;
            let mut all = String::new();
            for call in calls(flow_id) {
                all += &script(&call)?;
            }
            same((all.contains("QUERY"), reveals(&all)), (true, false))?;
            // With a server that does not answer.
            let mut owner = the.remote.connect()?;
            owner.run(&format!("SELECT async.server($$host=127.0.0.1 port=1 user=u password='{PASSWORD}'$$)"))?;
            for call in calls(flow_id) {
                all += &script(&call)?;
            }
            same((all.contains("08001"), reveals(&all)), (true, false))
        });
    }
}

#[test]
fn a_role_without_the_grant_cannot_use_the_client() {
    for client in BOTH {
        test(client, |the| {
            let flow_id = the.run("{}")?;
            the.remote.connect()?.run(
                "DO $$ BEGIN CREATE ROLE stranger LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$",
            )?;
            let mut stranger = the.remote.connect_as("stranger")?;
            let check = |session: &mut Session| -> Result<()> {
                for call in calls(flow_id) {
                    refused(session, &call, &["42501"])?;
                }
                Ok(())
            };
            check(&mut stranger)?;
            if the.client == Client::File {
                let mut here = the.user("leaver")?;
                here.run(&format!("SELECT flow.args({flow_id})"))?;
                the.remote.connect()?.run("SELECT async.revoke_client('leaver')")?;
                for call in calls(flow_id) {
                    refused(&mut here, &call, &["42501"])?;
                }
            }
            Ok(())
        });
    }
}
