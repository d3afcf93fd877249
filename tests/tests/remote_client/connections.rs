//! Connections to the server: opened for a call, or kept where that is safe; what is said when there is none.

use crate::kit::*;

const OPEN: &str = "SELECT coalesce(array_length(dblink_get_connections(), 1), 0)";

#[test]
fn an_ordinary_role_finds_no_connection_open_after_a_call() {
    for client in BOTH {
        test(client, |the| {
            let flow_id = the.run("{}")?;
            let mut here = the.user("etl")?;
            here.run(&format!("SELECT flow.args({flow_id})"))?;
            same(here.text(OPEN)?, "0")?;
            refused(&mut here, &format!("CALL flow.push_steps({flow_id}, 'zz', NULL)"), &["42704"])?;
            same(here.text(OPEN)?, "0")?;
            // Nor after one that was stopped while the server was busy with it.
            let mut server = the.server.connect()?;
            server.run(&format!("BEGIN; SELECT FROM flow.flow WHERE flow_id = {flow_id} FOR UPDATE"))?;
            here.run("SET statement_timeout = '300ms'")?;
            let mut release = the.server.connect()?;
            let pid = server.text("SELECT pg_backend_pid()")?;
            let waiting = std::thread::spawn(move || -> anyhow::Result<String> {
                // dblink of PostgreSQL 16 and before cannot be stopped while it waits: let go after a while.
                std::thread::sleep(std::time::Duration::from_secs(1));
                release.text(&format!("SELECT pg_terminate_backend({pid})"))
            });
            let error = here.error(&format!("SELECT flow.cancel({flow_id})"))?;
            same(error.contains("57014"), true)?;
            waiting.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
            here.run("RESET statement_timeout")?;
            same(here.text(OPEN)?, "0")
        });
    }
}

#[test]
fn a_role_that_cannot_misuse_a_connection_keeps_one_and_gets_a_new_one_when_it_breaks() {
    for client in BOTH {
        test(client, |the| {
            let flow_id = the.run("{}")?;
            let push = |n: i32| format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": {n}}}'::JSONB])");
            let mut server = the.server.connect()?;
            let name = &the.server.name;
            let pids = format!("SELECT coalesce(string_agg(pid::TEXT, ','), '') FROM pg_stat_activity WHERE usename = 'robot' AND datname = '{name}'");
            let mut owner = the.remote.connect()?;
            owner.run(&push(1))?;
            same(owner.text(OPEN)?, "1")?;
            let first = server.text(&pids)?;
            owner.run(&push(2))?;
            same(server.text(&pids)?, first.clone())?;
            server.run(&format!("SELECT pg_terminate_backend({first})"))?;
            owner.run(&push(3))?;
            same(owner.text(OPEN)?, "1")?;
            the.wait_steps(3)?;
            // Another server: another connection, and only that.
            owner.run(&format!("SELECT async.server($${}$$)", the.address()))?;
            owner.run(&push(4))?;
            same(owner.text(OPEN)?, "1")?;
            drop(owner);

            let mut here = the.user("etl")?;
            the.remote.connect()?.run(
                "DO $$ DECLARE r REGPROCEDURE; BEGIN
                   FOR r IN SELECT d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                     WHERE e.extname = 'dblink' AND d.classid = 'pg_proc'::REGCLASS AND d.deptype = 'e'
                   LOOP EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', r); END LOOP; END $$",
            )?;
            here.run(&push(5))?;
            let kept = server.text(&format!("{pids} AND backend_start > now() - INTERVAL '1 hour'"))?;
            here.run(&push(6))?;
            same(kept.is_empty(), false)?;
            same(server.text(&pids)?, kept)?;
            the.wait_steps(6)?;
            refused(&mut here, "SELECT dblink_get_connections()", &["42501"])
        });
    }
}

#[test]
fn what_is_missing_for_a_connection_is_named_and_the_password_is_not() {
    for client in BOTH {
        test(client, |the| {
            let (flow_id, _) = the.callback()?;
            let mut here = the.user("etl")?;
            let mut owner = the.remote.connect()?;
            let call = format!("SELECT flow.args({flow_id})");
            for (string, part) in [
                ("host=127.0.0.1 port=1 dbname=d user=u password=s3cret", "password=***"),
                ("postgresql://u:s3cret@127.0.0.1:1/d?sslpassword=s3cret", "postgresql://u@127.0.0.1:1/d"),
                ("host = 127.0.0.1 port=1 sslpassword = 's3\\cret' user='o''s3cret", ""),
            ] {
                let set = format!("SELECT async.server($${string}$$)");
                if part.is_empty() {
                    let error = owner.error(&set)?;
                    same(error.contains("22023") && !error.contains("s3"), true)?;
                    continue;
                }
                owner.run(&set)?;
                for session in [&mut here, &mut owner] {
                    let error = session.error(&call)?;
                    same(
                        (error.contains("ERROR 08001") && error.contains(part), error.contains("s3cret")),
                        (true, false),
                    )?;
                }
            }
            // A wrong password: what the server says is passed on, the password is not.
            owner.run(&format!("SELECT async.server($${}$$)", the.address().replace("s3cret word", "s3cret wrong")))?;
            let error = here.error(&call)?;
            same((error.contains("password authentication failed"), error.contains("s3cret")), (true, false))?;
            // Quotes, blanks and percents, as libpq reads them.
            for (string, shown) in [
                (
                    the.address(),
                    format!(
                        "host=127.0.0.1 port={} dbname={} user=robot password=***",
                        the.server.cluster.port(),
                        the.server.name
                    ),
                ),
                (
                    format!(
                        "postgresql://robot:s3cret%20word@127.0.0.1:{}/{}",
                        the.server.cluster.port(),
                        the.server.name
                    ),
                    format!("postgresql://robot@127.0.0.1:{}/{}", the.server.cluster.port(), the.server.name),
                ),
                (
                    format!(
                        "host='127.0.0.1'port={} dbname = {} user=robot password=s3cret\\ word",
                        the.server.cluster.port(),
                        the.server.name
                    ),
                    format!(
                        "host='127.0.0.1' port={} dbname={} user=robot password=***",
                        the.server.cluster.port(),
                        the.server.name
                    ),
                ),
            ] {
                same(owner.text(&format!("SELECT async.server($${string}$$)"))?, shown.clone())?;
                same(here.text(&call)?, "{}")?;
                same(here.text("SELECT async.server()")?, shown)?;
            }
            for bad in [
                "password",
                "password=a b",
                "host=h password='s3",
                "postgres://u:p@ss@h/d",
                "postgres://u:p/w@h/d",
                "postgres://u:p%zz@h/d",
                "postgres://u:s3@h:x/d",
                "nowhere",
                "postgres://u:p@h/d?password",
                "=x",
            ] {
                let error = owner.error(&format!("SELECT async.server($${bad}$$)"))?;
                same((bad, error.contains("22023"), error.contains("s3")), (bad, true, false))?;
            }
            // A foreign server: the password is in the user mapping of whoever owns the client.
            owner.run(&format!(
                "CREATE SERVER orchestrator FOREIGN DATA WRAPPER dblink_fdw OPTIONS (host '127.0.0.1', port '{}', dbname '{}');
                 CREATE USER MAPPING FOR CURRENT_USER SERVER orchestrator OPTIONS (user 'robot', password '{PASSWORD}');
                 SELECT async.server('orchestrator')",
                the.server.cluster.port(),
                the.server.name
            ))?;
            same(here.text(&call)?, "{}")?;
            same(here.text("SELECT async.server()")?, "server orchestrator")?;

            if the.client == Client::File {
                owner.run("SELECT async.server('')")?;
                for call in [call.clone(), format!("CALL flow.push_steps({flow_id}, 'a', NULL)")] {
                    refused(&mut here, &call, &["55000", "does not know its orchestrating server", "async.server"])?;
                }
                owner.run(&format!("SELECT async.server($${}$$)", the.address()))?;
            }
            owner.run("DROP EXTENSION dblink CASCADE")?;
            if the.client == Client::Extension {
                owner.run(&format!("SELECT async.server($${}$$)", the.address()))?;
            }
            refused(
                &mut here,
                &format!("SELECT flow.cancel({flow_id})"),
                &["42704", "\"dblink\" is not installed", "CREATE EXTENSION dblink"],
            )
        });
    }
}
