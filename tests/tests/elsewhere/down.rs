//! Targets that cannot be reached: their tasks wait and are not charged, the others run; when it is time, they fail.

use anyhow::{ensure, Result};
use pgflow_tests::cluster::{Cluster, Stop};
use pgflow_tests::servers::proxy::Proxy;

use crate::kit::*;

/// A target behind a proxy.
fn far(place: &mut Place, options: &str) -> Result<Proxy> {
    let proxy = Proxy::to(place.there.cluster.port())?;
    let string = string_by(&place.there, proxy.port());
    place.target("far", &format!(r#""connection_string": "{string}""#), options)?;
    Ok(proxy)
}

const STATUS: &str =
    "SELECT concat_ws(' ', down_since IS NOT NULL, next_try IS NOT NULL, down_tries > 0) FROM async.v_target_status
    WHERE target = 'far'";

#[test]
fn tasks_wait_for_a_target_that_is_down_and_others_run_on() {
    test("waiting", |place| {
        let proxy = far(place, "")?;
        proxy.refuse();
        let waiting: Vec<i64> = (0..20)
            .map(|n| place.push("far", &format!("INSERT INTO t.log (what) VALUES ('w{n}')"), ""))
            .collect::<Result<_>>()?;
        place.here.wait_until(
            "EXISTS (SELECT FROM async.v_target_status WHERE target = 'far' AND down_since IS NOT NULL)",
            SOON,
        )?;
        same(place.sql.text(STATUS)?, "t t t")?;
        let error = place.sql.text("SELECT down_error FROM async.v_target_status WHERE target = 'far'")?;
        contains(&error, &["nobody listens"])?;
        place.here.wait_until("(SELECT down_tries > 2 FROM async.v_target_status WHERE target = 'far')", SOON)?;
        // Other targets, the same server by another way among them, and local work.
        let there = place.push("there", "INSERT INTO t.log (what) VALUES ('there')", "")?;
        let local = place.sql.number("SELECT async.push_task(async.task('SELECT 1'))")?;
        let web = place.request(r#"{"path": "/ok"}"#, "")?;
        for task in [there, local, web] {
            place.ends(task, "Finished")?;
        }
        for task in &waiting {
            same(place.state(*task)?, "Pending")?;
        }
        let unwanted = place.push("far", "SELECT 1", "")?;
        place.sql.run(&format!("SELECT async.cancel(ARRAY[{unwanted}])"))?;
        place.ends(unwanted, "Cancelled")?;
        same(
            place.sql.text(
                "SELECT max(attempt) || ' ' || max(crashes) FROM async.task WHERE target = 'far' AND processed IS NULL",
            )?,
            "0 0",
        )?;
        proxy.heal();
        for task in waiting {
            place.ends(task, "Finished")?;
        }
        same(place.there()?.number("SELECT count(*) FROM t.log WHERE what LIKE 'w%'")?, 20)?;
        same(place.sql.text("SELECT max(crashes) FROM async.task WHERE target = 'far'")?, "0")?;
        place.here.wait_until(&format!("({STATUS}) = 'f f'"), SOON)
    });
}

/// Rows for a table come by way of a worker: it too waits for a target that is down, and is not charged.
#[test]
fn rows_for_a_table_wait_for_a_target_that_is_down() {
    test("waiting_rows", |place| {
        let proxy = far(place, r#""max_attempts": 2"#)?;
        proxy.refuse();
        let task = place.push("far", "SELECT 1 AS a", r#", _result => '{"to": "table", "table": "t.kept"}'"#)?;
        place.here.wait_until("(SELECT down_tries > 3 FROM async.v_target_status WHERE target = 'far')", SOON)?;
        same(place.sql.text("SELECT max(crashes) FROM async.task")?, "0")?;
        contains(
            &place.sql.text("SELECT down_error FROM async.v_target_status WHERE target = 'far'")?,
            &["nobody listens"],
        )?;
        proxy.heal();
        place.ends(task, "Finished")?;
        same(place.sql.text("SELECT a FROM t.kept")?, "1")
    });
}

#[test]
fn what_has_waited_for_longer_than_it_may_fails() {
    test("given_up", |place| {
        let proxy = far(place, r#""give_up_after": "1 second""#)?;
        proxy.refuse();
        place
            .flow("f", r#"{"node": "a", "target": "far", "empty": true, "step_routine": "t.notes", "steps": [{"s": 1}, {"s": 2}]}"#)?;
        let flow_id = place.run("f")?;
        let task = place.push("far", "SELECT 1", "")?;
        same(place.ended(flow_id)?, "a Failed")?;
        place.ends(task, "Failed")?;
        contains(&place.error(task)?, &["give_up_after", "nobody listens"])?;
        contains(&place.error_of_run(flow_id)?, &["give_up_after"])?;
        // It is asked about once more, and comes back.
        proxy.heal();
        let task = place.push("far", "SELECT 1", "")?;
        place
            .here
            .wait_until(&format!("(SELECT processed IS NOT NULL FROM async.task WHERE task_id = {task})"), SOON)?;
        place.here.wait_until(&format!("({STATUS}) = 'f f'"), SOON)?;
        let task = place.push("far", "SELECT 1", "")?;
        place.ends(task, "Finished")
    });
}

#[test]
fn a_wrong_password_or_database_is_no_reason_to_wait() {
    let other = start(Cluster::options().not_preloaded().with_passwords());
    test_on(home(), &other, "refused_there", |place| {
        place.there()?.run("CREATE ROLE ann LOGIN PASSWORD 'right one'")?;
        let port = other.port();
        place.target("ann", &format!(r#""connection_string": "host=127.0.0.1 port={port} dbname=refused_there user=ann password='wrong one'""#), "")?;
        place.target(
            "nowhere",
            &format!(r#""connection_string": "host=127.0.0.1 port={port} dbname=nowhere user=postgres""#),
            "",
        )?;
        let task = place.push("ann", "SELECT 1", "")?;
        place.ends(task, "Failed")?;
        let error = place.error(task)?;
        contains(&error, &["password", "28P01", "HINT"])?;
        ensure!(!error.contains("wrong one"), "{error}");
        let task = place.push("nowhere", "SELECT 1", "")?;
        place.ends(task, "Failed")?;
        contains(&place.error(task)?, &["nowhere", "3D000"])
    });
}

/// A second or two of thousands of waiting tasks costs the dispatcher next to nothing.
#[test]
fn many_tasks_of_a_target_that_is_down_do_not_spin_the_dispatcher() {
    test("not_spinning", |place| {
        let proxy = far(place, "")?;
        proxy.refuse();
        place.sql.run("SELECT count(async.push_query('far', 'SELECT ' || n)) FROM generate_series(1, 3000) n")?;
        place
            .here
            .wait_until("EXISTS (SELECT FROM async.v_target_status WHERE target = 'far' AND down_tries > 1)", SOON)?;
        let dispatcher = place.dispatcher()?;
        let before = spent(dispatcher)?;
        pause(4000);
        let after = spent(dispatcher)?;
        // A second of 4: what spins takes them all, or as much as the machine has.
        ensure!(after.0 - before.0 < 100, "{} ticks", after.0 - before.0);
        ensure!(after.1 - before.1 < 4000, "{} switches", after.1 - before.1);
        proxy.heal();
        place.wait_all()?;
        same(place.sql.number("SELECT count(*) FROM async.task WHERE finish_status = 'FINISHED'")?, 3000)
    });
}

/// What one dispatcher has noted of a target does not outlive it as if it were still so.
#[test]
fn after_a_restart_nothing_old_is_said_of_a_target() {
    let cluster = start(Cluster::options());
    test_on(&cluster, away(), "noted", |place| {
        let proxy = far(place, "")?;
        proxy.refuse();
        let task = place.push("far", "SELECT 1", "")?;
        place.here.wait_until(
            "EXISTS (SELECT FROM async.v_target_status WHERE target = 'far' AND down_since IS NOT NULL)",
            SOON,
        )?;
        cluster.stop(Stop::Immediate)?;
        proxy.heal();
        cluster.start()?;
        place.sql = cluster.connect_again("noted", "postgres")?;
        place.ends(task, "Finished")?;
        same(place.sql.text(STATUS)?, "f f")
    });
}

/// Where a target leads is looked up whenever it is asked whether it is there again: also when it was changed while an
/// attempt to reach the old place was under way, or by ALTER SERVER, which tells nobody.
#[test]
fn a_target_that_is_down_is_looked_for_where_it_leads_now() {
    test("moved", |place| {
        let proxy = far(place, r#""connect_timeout": 30"#)?;
        proxy.stall();
        let task = place.push("far", "SELECT 1", "")?;
        wait_for("an attempt is under way", || Ok(proxy.open() > 0))?;
        let string = string_by(&place.there, place.there.cluster.port());
        place.target("far", &format!(r#""connection_string": "{string}""#), "")?;
        place.here.wait_until("EXISTS (SELECT FROM async.v_target WHERE target = 'far')", SOON)?;
        pause(300);
        // Only now the old place turns out to be down.
        proxy.refuse();
        proxy.cut();
        place.ends(task, "Finished")?;

        // A foreign server that moves.
        let nowhere = Proxy::to(place.there.cluster.port())?;
        nowhere.refuse();
        place.sql.run(&format!(
            "CREATE EXTENSION postgres_fdw;
             CREATE SERVER moves FOREIGN DATA WRAPPER postgres_fdw
               OPTIONS (host '127.0.0.1', port '{}', dbname 'moved');
             CREATE USER MAPPING FOR postgres SERVER moves OPTIONS (user 'postgres')",
            nowhere.port()
        ))?;
        place.target("moves", r#""server": "moves""#, "")?;
        let task = place.push("moves", "SELECT 1", "")?;
        place.here.wait_until("(SELECT down_tries > 1 FROM async.v_target_status WHERE target = 'moves')", SOON)?;
        place.sql.run(&format!("ALTER SERVER moves OPTIONS (SET port '{}')", place.there.cluster.port()))?;
        place.ends(task, "Finished")
    });
}
