//! The file on the later versions of PostgreSQL; the cluster of the other tests has the oldest one that pgflow itself needs.

use pgflow_tests::servers::other_postgres::{of_major, MAJORS};

use crate::kit::*;

#[test]
fn the_file_does_its_work_on_later_versions_of_postgresql() {
    for major in MAJORS {
        let cluster = of_major(major)
            .and_then(|options| options.not_preloaded().start())
            .unwrap_or_else(|error| panic!("PostgreSQL {major}: {error:#}"));
        // Deleted when the process ends: a database of it outlives this function.
        let cluster = Box::leak(Box::new(cluster));
        test_on(cluster, Client::File, |the| {
            the.remote.cluster.psql(&the.remote.name, "postgres", CLIENT)?;
            let mut owner = the.remote.connect()?;
            let mut here = the.user("etl")?;
            let (flow_id, args) = the.callback()?;
            for session in [&mut here, &mut owner] {
                let push = format!("CALL flow.push_steps({flow_id}, 'a', ARRAY['{{\"s\": \"it''s\"}}'::JSONB])");
                session.run(&push)?;
                refused(
                    session,
                    &format!("DO $$ BEGIN {push}; EXCEPTION WHEN division_by_zero THEN NULL; END $$"),
                    &["only after a COMMIT"],
                )?;
                refused(session, &format!("BEGIN; {push}; COMMIT"), &["2D000", "only after a COMMIT"])?;
                session.run("ROLLBACK")?;
                same(session.text(&format!("SELECT flow.args({flow_id})"))?, "{}")?;
                refused(session, "CALL flow.push_steps(777, 'a', NULL)", &["42704", "run 777 does not exist", "HINT"])?;
            }
            same(the.steps()?, r#"{"s": "it's"}"#)?;
            same(here.text("SELECT coalesce(array_length(dblink_get_connections(), 1), 0)")?, "0")?;
            here.run(&format!("CALL flow.defer({args}, '0')"))?;
            let mut left = [the.take()?, the.take()?];
            left.sort_unstable();
            here.run(&format!("CALL flow.finish({args})"))?;
            here.run(&format!("SELECT async.finish(ARRAY[{}], 'FINISHED', NULL)", left[1]))?;
            the.ends_as(flow_id, "Finished")?;
            here.run("SELECT async.enter_inbox('e', 1, 1)")?;
            refused(&mut here, "SELECT async.enter_inbox('e', 1, 1)", &["23505", "inbox_pkey"])?;
            same(here.text("SELECT async.in_inbox('e', 1, 1)")?, "t")?;
            owner.run(&format!("SELECT async.server($$host=127.0.0.1 port=1 user=u password='{PASSWORD}'$$)"))?;
            let error = here.error("SELECT flow.cancel(1)")?;
            same((error.contains("08001"), error.contains("s3cret")), (true, false))?;
            owner.run("SELECT async.clean_inbox(); DROP SCHEMA async, flow CASCADE")
        });
    }
}
