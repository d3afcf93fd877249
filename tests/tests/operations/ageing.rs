//! F25: `pgflow.priority_ageing`.

use anyhow::ensure;
use pgflow_tests::cluster::Cluster;

use crate::kit::*;

#[test]
fn f25_with_ageing_what_is_less_urgent_runs_too() {
    let options = Cluster::options().setting("pgflow.priority_ageing", "50ms").setting("pgflow.workers", "2");
    test_alone("ageing", options, |database, session| {
        callback(
            session,
            "slow_step",
            "IF _args.step_arguments = '{}' THEN
               DECLARE _steps JSONB[] := ARRAY(SELECT jsonb_build_object('s', i) FROM generate_series(1, 20000) i);
               BEGIN CALL flow.push_steps(_args.flow_id, _args.node, _steps); END;
             ELSE PERFORM pg_sleep(0.004); END IF;",
        )?;
        configure(session, "long", r#"{"node": "a", "routine": "t.slow_step", "priority": -3}"#)?;
        configure(session, "patient", r#"{"node": "a", "routine": "t.nothing", "priority": 3}"#)?;
        let long = run(session, "long")?;
        database.wait_until("(SELECT count(*) FROM async.task WHERE is_step AND processed IS NOT NULL) > 100", SOON)?;
        let patient = run(session, "patient")?;
        same(ended(database, patient)?, "a Finished")?;
        let open = session.number("SELECT count(*) FROM async.task WHERE is_step AND processed IS NULL")?;
        ensure!(open > 0, "it ran when all others had");
        session.run(&format!("SELECT flow.cancel({long})"))
    });
}
