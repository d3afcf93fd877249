//! Many tasks elsewhere at once: from one dispatcher, in pools, by priority, from two databases of a server.

use anyhow::{ensure, Result};
use pgflow_tests::cluster::Cluster;

use crate::kit::*;

#[test]
fn one_dispatcher_has_five_hundred_in_flight() {
    let cluster = start(Cluster::options().setting("pgflow.max_remote_tasks", "600"));
    test_on(&cluster, away(), "crowd", |place| {
        let url = place.web.url();
        place.target(
            "web",
            r#""kind": "http", "max_concurrency": 500"#,
            &format!(r#""base_url": "{url}", "allow_private": true, "timeout": 600"#),
        )?;
        place
            .sql
            .run(r#"SELECT count(async.push_request('web', '{"path": "/gate"}')) FROM generate_series(1, 510) n"#)?;
        wait_for("500 were asked", || Ok(place.web.asked("/gate").len() >= 500))?;
        same(place.sql.number("SELECT count(*) FROM async.running()")?, 500)?;
        same(place.sql.number("SELECT count(*) FROM async.v_task WHERE state = 'Pending'")?, 10)?;
        pause(500);
        same(place.web.asked("/gate").len(), 500)?;
        // The dispatcher is not kept from local work by any of it.
        let local = place.sql.number("SELECT async.push_task(async.task('SELECT 1'))")?;
        place.ends(local, "Finished")?;
        place.web.open_gate();
        place.wait_all()?;
        same(place.sql.number("SELECT count(*) FROM async.task WHERE finish_status = 'FINISHED'")?, 511)?;
        // Those of a second each are in flight at once, too.
        place
            .sql
            .run(r#"SELECT count(async.push_request('web', '{"path": "/slow"}')) FROM generate_series(1, 500) n"#)?;
        place.here.wait_until("(SELECT count(*) = 500 FROM async.running())", SOON)?;
        place.wait_all()
    });
}

#[test]
fn max_concurrency_holds_on_the_other_side() {
    test("at_most", |place| {
        let string = place.string();
        place.target("few", &format!(r#""connection_string": "{string}", "max_concurrency": 3"#), "")?;
        place.there()?.run(
            "CREATE TABLE t.count (at TIMESTAMPTZ, n INT);
             CREATE FUNCTION t.sample() RETURNS VOID LANGUAGE sql AS $$
               INSERT INTO t.count SELECT clock_timestamp(), count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND state = 'active' AND query LIKE '%t.sample%' AND application_name ~ '^pgflow-.*[0-9]$' $$",
        )?;
        place.sql.run("SELECT count(async.push_query('few', 'SELECT t.sample(), pg_sleep(0.05), ' || n)) FROM generate_series(1, 40) n")?;
        let mut most = 0;
        let mut there = place.there()?;
        while place.sql.number("SELECT count(*) FROM async.task WHERE processed IS NULL")? > 0 {
            most = most.max(there.number("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%t.sample%' AND state = 'active' AND application_name ~ '^pgflow-.*[0-9]$'")?);
            ensure!(place.sql.number("SELECT count(*) FROM async.running()")? <= 3, "more than 3 run");
        }
        most = most.max(there.number("SELECT max(n) FROM t.count")?);
        ensure!((2..=3).contains(&most), "{most} at once");
        same(place.sql.number("SELECT count(*) FROM async.task WHERE finish_status = 'FINISHED'")?, 40)
    });
}

#[test]
fn pools_and_priorities_hold_for_work_elsewhere() {
    test("ordered", |place| {
        let string = place.string();
        place.target("one", &format!(r#""connection_string": "{string}", "max_concurrency": 9"#), "")?;
        place.sql.run(
            r#"SELECT async.configure('{"concurrency_pools": [{"concurrency_pool": "narrow", "max_workers": 1}]}')"#,
        )?;
        place.sql.run("SELECT async.pause()")?;
        place.sql.run(
            "SELECT count(async.push_task(async.task(format('INSERT INTO t.log (what) VALUES (%L)', p || '-' || n),
                      'one', priority => p, concurrency_pool => 'narrow')))
               FROM generate_series(1, 4) n, (VALUES (5), (-5), (0)) AS x(p)",
        )?;
        place.sql.run("SELECT async.resume()")?;
        place.wait_all()?;
        same(
            place.there()?.text("SELECT string_agg(split_part(what, '-', CASE WHEN what LIKE '-%' THEN 2 ELSE 1 END), '' ORDER BY id) FROM t.log")?,
            "555500005555",
        )?;
        // One at a time: no two overlap.
        same(place.there()?.number("SELECT count(DISTINCT id) FROM t.log")?, 12)
    });
}

#[test]
fn two_databases_share_the_places_of_a_server() {
    let cluster = start(Cluster::options().setting("pgflow.max_remote_tasks", "10"));
    cluster.database("first").unwrap_or_else(|error| panic!("{error:#}"));
    test_on(&cluster, away(), "sharing", |place| {
        let other = cluster.database("sharing_too")?;
        let url = place.web.url();
        let mut sql = other.connect()?;
        sql.run(&format!(
            r#"SELECT async.configure('{{"targets": [{{"target": "web", "kind": "http", "max_concurrency": 50, "options": {{"base_url": "{url}", "allow_private": true, "timeout": 600}}}}]}}')"#
        ))?;
        let push = r#"SELECT count(async.push_request('web', '{"path": "/gate"}')) FROM generate_series(1, 15) n"#;
        place.sql.run(push)?;
        sql.run(push)?;
        let mut running = || -> Result<i64> {
            let count = "SELECT count(*) FROM async.running()";
            Ok(place.sql.number(count)? + sql.number(count)?)
        };
        wait_for("every place is taken", || Ok(running()? == 10))?;
        for _ in 0..20 {
            ensure!(running()? <= 10 && place.web.asked("/gate").len() <= 10, "more than there are places");
            pause(50);
        }
        place.web.open_gate();
        place.wait_all()?;
        other.wait_until("NOT EXISTS (SELECT FROM async.task WHERE processed IS NULL)", SOON)?;
        same(place.web.asked("/gate").len(), 30)
    });
}
