//! What happens to work elsewhere when anything on the way dies: with the inbox every effect is there exactly once, without
//! it at least once, and never twice where a node forbids that.

use anyhow::{ensure, Context, Result};
use pgflow_tests::cluster::{Cluster, Stop};
use pgflow_tests::postmaster::signal;
use pgflow_tests::rng::{seed_from, Rng};
use pgflow_tests::servers::proxy::{Direction, Pattern, Proxy};

use crate::kit::*;

const TASKS: usize = 50;

/// Pushes the tasks of a round: each adds one row, quickly or not, by a query or (every third) by a callback.
fn push_round(place: &mut Place, target: &str, round: usize) -> Result<()> {
    place.sql.run(&format!(
        "SELECT async.push_query('{target}', format(
           'INSERT INTO t.log (task_id, what) SELECT {round}, ''q%s'' FROM pg_sleep(%s)', n, round((random() * 0.3)::NUMERIC, 3)))
         FROM generate_series(1, {TASKS}) n WHERE n % 3 > 0"
    ))?;
    let steps: Vec<String> =
        (1..=TASKS).filter(|n| n % 3 == 0).map(|n| format!(r#"{{"s": "{n}", "round": {round}}}"#)).collect();
    place.flow(
        "round",
        &format!(
            r#"{{"node": "c", "target": "{target}", "empty": true, "step_routine": "t.slow", "steps": [{}]}}"#,
            steps.join(", ")
        ),
    )?;
    place.run("round").map(drop)
}

fn callbacks(place: &Place) -> Result<()> {
    place.there()?.run(
        "CREATE PROCEDURE t.slow(_args flow.callback_arguments_t) LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO t.log (task_id, what) VALUES ((_args.step_arguments->>'round')::INT, 'c' || (_args.step_arguments->>'s'));
           PERFORM pg_sleep(random() * 0.3);
         END $$",
    )
}

/// Each effect of the rounds so far exactly once.
fn exactly_once(place: &Place, rounds: usize) -> Result<()> {
    let mut there = place.there()?;
    let wrong = there.rows(&format!(
        "SELECT r, w.what, count(l.id) FROM generate_series(1, {rounds}) r
           CROSS JOIN (SELECT CASE WHEN n % 3 > 0 THEN 'q' ELSE 'c' END || n AS what FROM generate_series(1, {TASKS}) n) w
           LEFT JOIN t.log l ON l.task_id = r AND l.what = w.what
          GROUP BY r, w.what HAVING count(l.id) <> 1 ORDER BY 1, 2"
    ))?;
    ensure!(wrong.is_empty(), "(round, effect, times): {wrong:?}");
    Ok(())
}

/// Nothing failed.
fn all_finished(place: &mut Place) -> Result<()> {
    let failed = place.sql.rows(
        "SELECT task_id, finish_status, left(processing_error, 300) FROM async.task WHERE finish_status <> 'FINISHED' LIMIT 5",
    )?;
    ensure!(failed.is_empty(), "{failed:?}");
    Ok(())
}

#[test]
fn killed_at_random_moments_the_orchestrator_has_every_effect_once() {
    let cluster = start(Cluster::options().durable().max_connections(50));
    test_on(&cluster, away(), "killed", |place| {
        callbacks(place)?;
        let mut rng = Rng::new(seed_from("PGFLOW_SEED"));
        let rounds = std::env::var("PGFLOW_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
        for round in 1..=rounds {
            push_round(place, "there", round)?;
            pause(rng.between(0, 500) as u64);
            match round % 3 {
                0 => {
                    let dispatcher = place.dispatcher()?;
                    signal(dispatcher, "KILL")?;
                    wait_for("the server has noticed", || Ok(place.sql.text("SELECT 1").is_err()))?;
                }
                1 => {
                    let dispatcher = place.dispatcher()?;
                    place.sql.run(&format!("SELECT pg_terminate_backend({dispatcher})"))?;
                }
                _ => {
                    cluster.kill_postmaster()?;
                    cluster.start()?;
                }
            }
            place.sql = cluster.connect_again("killed", "postgres")?;
            if round % 2 == 0 {
                place.wait_all()?;
            }
        }
        place.wait_all()?;
        all_finished(place)?;
        exactly_once(place, rounds)
    });
}

#[test]
fn the_other_server_dies_and_every_effect_is_there_once() {
    let other = start(Cluster::options().not_preloaded().durable().max_connections(100));
    test_on(home(), &other, "their_death", |place| {
        callbacks(place)?;
        for (round, stop) in [Some(Stop::Fast), Some(Stop::Immediate), None].into_iter().enumerate() {
            push_round(place, "there", round + 1)?;
            pause(150);
            match stop {
                Some(stop) => other.stop(stop)?,
                None => other.kill_postmaster()?,
            }
            pause(300);
            other.start()?;
            place.wait_all().context("after the other server was stopped")?;
        }
        all_finished(place)?;
        exactly_once(place, 3)
    });
}

#[test]
fn connections_that_break_anywhere_leave_every_effect_once() {
    test("broken_lines", |place| {
        callbacks(place)?;
        let proxy = Proxy::to(place.there.cluster.port())?;
        let string = string_by(&place.there, proxy.port());
        place.target("far", &format!(r#""connection_string": "{string}""#), r#""max_attempts": 20"#)?;
        let mut rng = Rng::new(seed_from("PGFLOW_SEED"));
        for round in 1..=3 {
            push_round(place, "far", round)?;
            for _ in 0..4 {
                pause(rng.between(0, 150) as u64);
                match rng.between(0, 3) {
                    0 => proxy.cut(),
                    1 => proxy.cut_at(Direction::ToServer, b"COMMIT", Pattern::PassedOn),
                    2 => proxy.cut_at(Direction::ToClient, b"COMMIT", Pattern::Withheld),
                    _ => proxy.cut_after(Direction::ToClient, rng.between(0, 2000) as u64),
                }
            }
            pause(200);
            proxy.heal();
            place.wait_all()?;
        }
        all_finished(place)?;
        exactly_once(place, 3)
    });
}

#[test]
fn without_the_inbox_it_is_done_at_least_once_or_fails_if_it_must_not_run_twice() {
    test("no_inbox", |place| {
        let proxy = Proxy::to(place.there.cluster.port())?;
        let string = string_by(&place.there, proxy.port());
        place.target("bare", &format!(r#""connection_string": "{string}""#), r#""inbox": "off""#)?;
        let query = "INSERT INTO t.log (what) SELECT 'done' FROM pg_sleep(1)";
        place.flow("again", &format!(r#"{{"node": "a", "target": "bare", "query": "{query}"}}"#))?;
        place.flow(
            "never",
            &format!(r#"{{"node": "a", "target": "bare", "query": "{query}", "on_partial": "fail"}}"#),
        )?;
        for (flow, wanted) in [("again", "a Finished"), ("never", "a Failed")] {
            let flow_id = place.run(flow)?;
            place.wait_running(1)?;
            place.there.wait_until("EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1)%' AND pid <> pg_backend_pid() AND state = 'active')", SOON)?;
            proxy.cut();
            same(place.ended(flow_id)?, wanted)?;
            let error = place.error_of_run(flow_id)?;
            if flow == "never" {
                contains(&error, &["on_partial", "may have been done elsewhere"])?;
            } else {
                ensure!(place.there()?.number("SELECT count(*) FROM t.log")? >= 1, "it was not done");
            }
        }
        Ok(())
    });
}

/// Also when it is the orchestrator that dies.
#[test]
fn what_must_not_run_twice_fails_when_the_orchestrator_dies() {
    let cluster = start(Cluster::options().durable().max_connections(50));
    test_on(&cluster, away(), "not_twice", |place| {
        place.flow("f", r#"{"node": "a", "target": "web", "request": {"path": "/gate"}, "on_partial": "fail"}"#)?;
        let flow_id = place.run("f")?;
        wait_for("it was asked", || Ok(!place.web.asked("/gate").is_empty()))?;
        cluster.kill_postmaster()?;
        cluster.start()?;
        place.sql = cluster.connect_again("not_twice", "postgres")?;
        same(place.ended(flow_id)?, "a Failed")?;
        contains(&place.error_of_run(flow_id)?, &["may have been done elsewhere"])?;
        same(place.web.asked("/gate").len(), 1)?;
        // A request that may be sent again is, with the key that it had.
        let task = place.request(r#"{"path": "/slow"}"#, "")?;
        wait_for("it was asked", || Ok(!place.web.asked("/slow").is_empty()))?;
        cluster.kill_postmaster()?;
        cluster.start()?;
        place.sql = cluster.connect_again("not_twice", "postgres")?;
        place.ends(task, "Finished")?;
        let asked = place.web.asked("/slow");
        ensure!(asked.len() >= 2, "{asked:?}");
        let first = asked[0].header("idempotency-key").to_owned();
        ensure!(!first.is_empty() && asked.iter().all(|a| a.header("idempotency-key") == first), "{asked:?}");
        Ok(())
    });
}

/// The second attempt dies before it has looked for the first, which still runs there: the third looks for both.
#[test]
fn two_deaths_in_a_row_do_not_hide_what_still_runs() {
    let cluster = start(Cluster::options().durable().max_connections(50));
    test_on(&cluster, away(), "two_deaths", |place| {
        let proxy = Proxy::to(place.there.cluster.port())?;
        let string = string_by(&place.there, proxy.port());
        place.target("far", &format!(r#""connection_string": "{string}""#), r#""connect_timeout": 60"#)?;
        place.flow("f", r#"{"node": "a", "target": "far", "routine": "t.waits"}"#)?;
        let flow_id = place.run("f")?;
        let waits =
            "(SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^pgflow-.*[0-9]$' AND state = 'active'
             AND datname = current_database() AND query LIKE '%t%waits%')";
        place.there.wait_until(&format!("{waits} = 1"), SOON)?;
        // It is known to whom it belongs, but nobody is told of its end.
        proxy.stall();
        cluster.kill_postmaster()?;
        let before = proxy.connections();
        cluster.start()?;
        wait_for("the second attempt connects", || Ok(proxy.connections() > before))?;
        cluster.kill_postmaster()?;
        proxy.heal();
        cluster.start()?;
        place.sql = cluster.connect_again("two_deaths", "postgres")?;
        place.wait_running(1)?;
        place.here.wait_until("(SELECT max(attempt) >= 2 FROM async.task)", SOON)?;
        wait_for("the third attempt is at work", || {
            let name = place.there()?.text("SELECT coalesce(max(application_name), '') FROM pg_stat_activity WHERE application_name ~ '^pgflow-.*-3$' AND state = 'active' AND datname = current_database() AND query LIKE '%t%waits%'")?;
            Ok(!name.is_empty())
        })?;
        place.there()?.run("INSERT INTO t.gate VALUES (1)")?;
        same(place.ended(flow_id)?, "a Finished")?;
        pause(300);
        same(place.there()?.number("SELECT count(*) FROM t.log")?, 1)
    });
}
