//! Whoever puts operators, functions, types and tables of his own in the way of ours runs them as himself, or not at all.

use anyhow::{ensure, Result};
use pgflow_tests::session::Session;

use crate::kit::*;

/// Makes every operator on the common types, and many functions, of schema `evil` note who runs them.
fn build_traps(user: &mut Session) -> Result<()> {
    user.run(
        "CREATE SCHEMA evil;
         GRANT USAGE, CREATE ON SCHEMA evil TO PUBLIC;
         CREATE TABLE evil.ran (what TEXT, who NAME, session NAME);
         GRANT INSERT ON evil.ran TO PUBLIC;
         CREATE FUNCTION evil.note(_what TEXT) RETURNS VOID LANGUAGE plpgsql AS $x$ BEGIN
           IF pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'off' THEN
             INSERT INTO evil.ran VALUES (_what, current_user, session_user);
           END IF;
           RAISE LOG 'trap-7393 % as %', _what, current_user;
         END $x$",
    )?;
    let traps = user.column(
        "SELECT format('CREATE FUNCTION evil.op_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $x$ BEGIN PERFORM evil.note(%L); RETURN NULL; END $x$;
                 CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = evil.op_%s)',
                 o.oid, o.oprleft::REGTYPE, o.oprright::REGTYPE, o.oprresult::REGTYPE, o.oid::REGOPERATOR::TEXT, o.oprname,
                 o.oprleft::REGTYPE, o.oprright::REGTYPE, o.oid)
         FROM pg_operator o WHERE o.oprkind = 'b' AND o.oprnamespace = 'pg_catalog'::REGNAMESPACE
           AND o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '||', '->', '->>', '#>>', '?', '@>', '~', '!~')
           AND o.oprleft::REGTYPE::TEXT IN ('bigint', 'integer', 'text', 'name', 'oid', 'boolean', 'jsonb', '\"char\"', 'interval',
             'timestamp with time zone', 'bytea', 'numeric', 'double precision', 'anyarray')
           AND o.oprright::REGTYPE::TEXT IN ('bigint', 'integer', 'text', 'name', 'oid', 'boolean', 'jsonb', '\"char\"', 'interval',
             'timestamp with time zone', 'bytea', 'numeric', 'double precision', 'anyarray')
         UNION ALL
         SELECT format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS $x$ BEGIN PERFORM evil.note(%L); RETURN NULL; END $x$',
                 p.proname, pg_get_function_identity_arguments(p.oid), p.prorettype::REGTYPE, p.oid::REGPROCEDURE)
         FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::REGNAMESPACE AND p.prokind = 'f' AND NOT p.proretset AND p.provariadic = 0
           AND p.proname IN ('now', 'clock_timestamp', 'coalesce', 'format', 'pg_has_role', 'current_setting', 'jsonb_typeof', 'array_to_string',
             'cardinality', 'lower', 'length', 'left', 'sha256', 'convert_to', 'pg_get_userbyid', 'to_regprocedure', 'has_function_privilege',
             'nextval', 'pg_backend_pid', 'has_table_privilege', 'current_database', 'btrim', 'jsonb_build_object', 'extract', 'date_part',
             'make_interval', 'hashtext', 'pg_advisory_xact_lock', 'pg_current_xact_id_if_assigned', 'pg_is_in_recovery', 'concat_ws', 'pg_sleep')
           AND NOT EXISTS (SELECT FROM unnest(p.proargtypes::OID[] || p.prorettype) t WHERE t::REGTYPE::TEXT ~ '^(any|internal|record|cstring)')",
    )?;
    let mut made = 0;
    for trap in traps {
        // A few cannot be made by this role or of these types.
        made += usize::from(user.run(&trap).is_ok());
    }
    ensure!(made > 120, "only {made} traps could be made");
    user.run(
        "CREATE DOMAIN evil.text AS pg_catalog.text; CREATE DOMAIN evil.jsonb AS pg_catalog.jsonb; CREATE DOMAIN evil.interval AS pg_catalog.interval;
         CREATE TABLE evil.task (task_id BIGINT); CREATE TABLE evil.flow (flow_id BIGINT); CREATE TABLE evil.pg_roles (oid OID, rolname NAME);
         CREATE TABLE evil.pg_proc (oid OID); CREATE TABLE evil.pg_database (oid OID)",
    )
}

const SHADOWS: &str = "CREATE TEMP TABLE task (task_id BIGINT); CREATE TEMP TABLE pg_roles (oid OID, rolname NAME);
    CREATE TEMP TABLE pg_class (oid OID); CREATE TEMP TABLE pg_proc (oid OID); CREATE TEMP TABLE flow (flow_id BIGINT);
    CREATE TEMP VIEW pg_database AS SELECT 1 AS oid;
    CREATE FUNCTION pg_temp.now() RETURNS TIMESTAMPTZ LANGUAGE plpgsql AS $x$ BEGIN PERFORM evil.note('pg_temp.now'); RETURN NULL; END $x$;";

#[test]
fn what_shadows_ours_never_runs_as_another() {
    test("shadowed", |database, session| {
        database.role("shadow")?;
        let mut user = database.connect_as("shadow")?;
        build_traps(&mut user)?;
        user.run("CREATE PROCEDURE evil.works(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $x$ BEGIN
              EXECUTE 'CREATE TEMP TABLE IF NOT EXISTS task (task_id BIGINT); CREATE TEMP TABLE IF NOT EXISTS flow (flow_id BIGINT)';
              RAISE NOTICE 'here';
              IF _args.step_arguments OPERATOR(pg_catalog.=) '{}' THEN
                CALL flow.push_steps(_args.flow_id, _args.node, ARRAY['{\"i\": 1}', '{\"i\": 2}']::pg_catalog.jsonb[]);
              END IF;
              PERFORM flow.progress(_args, 1, 2, 'x');
              COMMIT;
              EXECUTE 'SET search_path = pg_temp, evil, pg_catalog';
            END $x$;
            CREATE FUNCTION evil.pool(BIGINT, pg_catalog.text) RETURNS pg_catalog.text LANGUAGE plpgsql AS $x$ BEGIN RETURN 'p'; END $x$")?;
        session.run("ALTER ROLE shadow SET search_path = evil, pg_temp, pg_catalog")?;
        let mut user = database.connect_as("shadow")?;
        user.run(SHADOWS)?;
        user.run(
            r#"SELECT flow.configure_flow('f', '{"concurrency_group_routine": "evil.pool", "nodes": [
            {"node": "a", "routine": "evil.works"},
            {"node": "b", "routine": "evil.works", "dependencies": [{"parent": "a"}], "node_timeout": "1 minute"}]}')"#,
        )?;
        for _ in 0..2 {
            ends_as(database, &mut user, "f", "a Finished, b Finished")?;
        }
        // Everything else that a user may call.
        let flow_id = run(&mut user, "f")?;
        for call in [
            format!("SELECT flow.set_priority({flow_id}, 3)"),
            format!("SELECT flow.wait({flow_id}, '10 s')"),
            format!("SELECT flow.restart_flow({flow_id})"),
            format!("CALL flow.watch({flow_id}, '100 ms')"),
            format!("SELECT flow.retry_failed({flow_id})"),
            format!(
                "SELECT flow.graphviz({flow_id}), flow.graphviz('f'), flow.args({flow_id}), flow.task_list({flow_id})"
            ),
            "SELECT flow.flows(), flow.configuration(), flow.walk_flow('f')".into(),
            "SELECT async.push_task(async.task('SELECT 1', NULL))".into(),
            "SELECT async.push_task(async.task('SELECT 1', NULL, _query => NULL))".into(),
            "SELECT async.cancel(array_agg(task_id)) FROM async.task WHERE flow_id IS NULL".into(),
            "SELECT async.log('NOTICE', 'x')".into(),
            "SELECT * FROM flow.v_flow_status".into(),
            "SELECT * FROM flow.v_flow_node_status".into(),
            "SELECT * FROM flow.v_flow_task_status".into(),
            "SELECT * FROM async.v_task".into(),
            "SELECT * FROM async.v_server_info".into(),
            "SELECT async.pause()".into(),
            "SELECT async.get_tasks('x')".into(),
            "SELECT flow.validate('{}')".into(),
            "SELECT flow.drop_flow('f')".into(),
        ] {
            // Some are refused, and some fail because the role's own operators return nothing: that is its own affair.
            let _ = user.run(&call);
        }
        // A superuser who looks, and one who has the same path in his own session, are not caught through our functions.
        session.run("SELECT * FROM flow.v_flow_status; SELECT * FROM async.v_server_info; SELECT flow.flows()")?;
        database.wait_until("NOT EXISTS (SELECT FROM async.task WHERE processed IS NULL)", SOON)?;
        let others = session.column("SELECT DISTINCT what || ' as ' || who || ', ' || session FROM evil.ran WHERE (who, session) <> ('shadow', 'shadow')")?;
        let own = session.number("SELECT count(*) FROM evil.ran WHERE who = 'shadow'")?;
        println!("{own} traps sprang as the role itself");
        ensure!(others.is_empty(), "{others:?}");
        let logged = database.cluster.log_tail(1000, "trap-7393");
        ensure!(logged.lines().all(|line| line.contains("as shadow")), "{logged}");
        Ok(())
    });
}

/// The shortest way: one operator, first on the role's search_path.
#[test]
fn an_operator_of_a_role_does_not_run_as_the_owner_in_the_bookkeeping() {
    test("one_operator", |database, session| {
        session.run("DROP ROLE IF EXISTS one_operator")?;
        database.role("one_operator")?;
        let mut user = database.connect_as("one_operator")?;
        user.run(
            "CREATE SCHEMA evil;
             CREATE FUNCTION evil.eq(BIGINT, BIGINT) RETURNS BOOL LANGUAGE plpgsql AS $x$ BEGIN
               IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user) THEN
                 EXECUTE 'ALTER ROLE one_operator SUPERUSER';
               END IF;
               RETURN pg_catalog.int8eq($1, $2); END $x$;
             CREATE OPERATOR evil.= (LEFTARG = BIGINT, RIGHTARG = BIGINT, FUNCTION = evil.eq);
             CREATE PROCEDURE evil.nothing(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $x$ BEGIN NULL; END $x$;
             ALTER ROLE one_operator SET search_path = evil, pg_catalog",
        )?;
        configure_one(&mut user, "a", "evil.nothing")?;
        ends_as(database, &mut user, "a", "a Finished")?;
        same(session.truth("SELECT rolsuper FROM pg_roles WHERE rolname = 'one_operator'")?, false)
    });
}

/// An administrator with such a path in his session calls our functions: their bodies are not caught.
#[test]
fn our_functions_do_not_look_into_the_callers_path() {
    test("shadowed_admin", |database, session| {
        database.role("shadow_maker")?;
        let mut user = database.connect_as("shadow_maker")?;
        build_traps(&mut user)?;
        configure(session, "f", r#"{"node": "a", "routine": "t.notes", "steps": [{"s": 1}]}"#)?;
        let mut admin = database.connect()?;
        admin.run("SET search_path = evil, pg_catalog")?;
        let flow_id = admin.number("SELECT flow.run_flow('f'::pg_catalog.text, '{}'::pg_catalog.jsonb)")?;
        for call in [
            format!("SELECT flow.wait({flow_id}, '10 s'::pg_catalog.interval)"),
            format!("CALL flow.watch({flow_id})"),
            format!("SELECT flow.restart_flow({flow_id})"),
            format!("SELECT flow.cancel({flow_id})"),
            format!("SELECT flow.graphviz({flow_id}), flow.args({flow_id}), flow.task_list({flow_id}), flow.flows()"),
            "SELECT flow.graphviz('f'::pg_catalog.text)".into(),
            "SELECT * FROM flow.v_flow_status".into(),
            "SELECT * FROM flow.v_flow_node_status".into(),
            "SELECT * FROM flow.v_flow_task_status".into(),
            "SELECT * FROM flow.v_flow_task".into(),
            "SELECT * FROM async.v_task".into(),
            "SELECT * FROM async.v_task_log".into(),
            "SELECT * FROM async.v_target_status".into(),
            "SELECT * FROM async.v_worker_info".into(),
            "SELECT * FROM async.v_concurrency_pool_info".into(),
            "SELECT * FROM async.v_server_info".into(),
            "SELECT async.pause(), async.resume(), async.drain('1 s'::pg_catalog.interval), async.resume(), async.adopt()".into(),
            r#"SELECT async.configure('{"targets": [{"target": "x", "connection_string": "host=localhost dbname=shadowed_admin"}]}'::pg_catalog.jsonb)"#.into(),
            r#"SELECT flow.configure_flow('g'::pg_catalog.text, '{"nodes": [{"node": "a", "routine": "t.notes"}]}'::pg_catalog.jsonb)"#.into(),
            r#"SELECT flow.validate('{"nodes": [{"node": "a", "routine": "t.notes"}]}'::pg_catalog.jsonb)"#.into(),
            "SELECT async.tail_once(), async.worker_info(), async.running(), async.processes(), async.pool_use()".into(),
            "CALL async.main()".into(),
            "SELECT async.interval_pretty('1 h'::pg_catalog.interval)".into(),
            "SELECT async.push_tasks(ARRAY[async.task('SELECT 1'::pg_catalog.text, NULL)])".into(),
            "SELECT async.drop_target('x'::pg_catalog.text)".into(),
        ] {
            admin.run(&call)?;
        }
        let caught =
            session.column("SELECT DISTINCT what || ' as ' || who FROM evil.ran WHERE who <> 'shadow_maker'")?;
        ensure!(caught.is_empty(), "{caught:?}");
        Ok(())
    });
}
