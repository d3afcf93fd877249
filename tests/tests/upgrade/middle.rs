//! A server of 0.1.0 was stopped in the middle of work, its files replaced, and started again: nothing is done until the
//! extension is updated; then everything goes on, once, and ends as it would have.

use anyhow::{ensure, Result};
use pgflow_tests::database::{Database, Kind};
use pgflow_tests::session::Session;

use crate::kit::*;

/// The rows of every table of the extension, and what callbacks have written.
fn everything(session: &mut Session) -> Result<Vec<String>> {
    let tables = session.column(
        "SELECT c.oid::regclass FROM pg_class c WHERE c.relkind = 'r'
         AND c.relnamespace IN ('async'::regnamespace, 'flow'::regnamespace, 't'::regnamespace) ORDER BY 1",
    )?;
    let mut all = Vec::new();
    for table in tables {
        let rows = session.column(&format!("SELECT to_jsonb(t) FROM {table} t ORDER BY 1"))?;
        all.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    Ok(all)
}

const NODES: &str = "SELECT string_agg(format('%s %s', node, status), ', ' ORDER BY node) FROM flow.v_flow_node_status WHERE flow_id = ";

fn nodes(session: &mut Session, run: i64) -> Result<String> {
    session.text(&format!("{NODES}{run}"))
}

/// What changes something, each in its own way: refused while the versions differ.
const CHANGES: [&str; 9] = [
    "SELECT flow.run_flow('good', '{}')",
    "SELECT flow.configure_flow('more', '{\"nodes\": [{\"node\": \"a\", \"routine\": \"t.notes\"}]}')",
    "SELECT flow.cancel(5)",
    "CALL flow.push_steps(5, 'hold', ARRAY['{\"s\": 9}']::JSONB[])",
    "SELECT flow.retry_failed(2)",
    "SELECT async.push_tasks(ARRAY[async.task('SELECT 1')], NULL)",
    "SELECT async.get_tasks('outside')",
    "SELECT async.finish(ARRAY[17]::BIGINT[], 'FINISHED', NULL)",
    "SELECT async.submit('SELECT 9')",
];

fn nothing_is_done(database: &Database, alice: &mut Session) -> Result<()> {
    let mut session = database.connect()?;
    let before = everything(&mut session)?;
    for call in CHANGES {
        let error = alice.error(call)?;
        contains(&error, "ERROR 55000: the library of pgflow is")?;
        contains(&error, &format!("is {CURRENT}, the extension in this database 0.1.0"))?;
        contains(&error, "HINT: To go on: ALTER EXTENSION pgflow UPDATE.")?;
    }
    // Reading goes on.
    for view in session.column("SELECT c.oid::regclass FROM pg_class c WHERE c.relkind = 'v' AND c.relnamespace IN ('async'::regnamespace, 'flow'::regnamespace)")? {
        alice.run(&format!("SELECT * FROM {view}"))?;
    }
    same(nodes(alice, 2)?, "a Finished, b Failed, c Skipped, d Finished")?;
    contains(&alice.text("SELECT flow.graphviz(5)")?, "digraph")?;
    same(alice.text("SELECT async.fetch_result(29)")?, "{\"seven\": 7}")?;
    let said = "the library of pgflow is 0.2.0, the extension in this database 0.1.0: ALTER EXTENSION pgflow UPDATE";
    let said = said.replace("0.2.0", CURRENT);
    database.wait_until("(SELECT starvation IS NOT NULL FROM async.v_server_info)", SOON)?;
    same(session.text("SELECT starvation FROM async.v_server_info")?, format!("dispatcher: {said}"))?;
    contains(&database.cluster.log_tail(50, "WARNING"), &said)?;
    // Neither time nor a signal starts anything.
    session.run("SELECT async.announce_settings(), async.wake_launcher()")?;
    pause(700);
    same(database.pids(Kind::Dispatcher)?.len() + database.pids(Kind::Worker)?.len(), 0)?;
    ensure!(everything(&mut session)? == before, "something was changed");
    Ok(())
}

/// Everything of run 5 that waits for the outside is given what it waits for.
fn answer(database: &Database, alice: &mut Session) -> Result<()> {
    let mut session = database.connect()?;
    session.run("INSERT INTO t.gate VALUES (1)")?;
    session.run(&format!(
        r#"SELECT async.configure('{{"targets": [{{"target": "later", "asynchronous_finish": true}}, {{"target": "outside", "kind": "external"}},
           {{"target": "there", "kind": "postgres", "max_concurrency": 3,
             "connection_string": "host=127.0.0.1 port={} dbname=postgres user=postgres sslmode=disable"}}]}}')"#,
        database.cluster.port()
    ))?;
    let taken = alice.column("SELECT task_id FROM async.get_tasks('outside', 10) ORDER BY 1")?;
    same(taken.join(" "), "19 25")?;
    alice.run("SELECT async.finish(ARRAY[19, 25]::BIGINT[], 'FINISHED', NULL)")?;
    alice.run(
        "DO $$ DECLARE _args flow.callback_arguments_t; BEGIN
           SELECT f.flow_id, f.flow, f.arguments, n.node, '{}', n.task_id INTO _args
             FROM flow.flow f JOIN flow.flow_node n USING (flow_id) WHERE f.flow_id = 5 AND n.node = 'yield';
           CALL flow.finish(_args); END $$",
    )
}

#[test]
fn what_0_1_0_had_left_goes_on_after_the_update_and_not_before() {
    let database = left_by_0_1_0(shared(), "middle").unwrap();
    pgflow_tests::failure::with_report(&database, |database| {
        // A session that is there all the time.
        let mut alice = database.connect_as("upgrade_alice")?;
        nothing_is_done(database, &mut alice)?;
        let written = "SELECT string_agg(what, ', ' ORDER BY what) FROM t.log";
        let before = alice.text(written)?;

        let mut admin = database.connect()?;
        admin.run("BEGIN")?;
        update(&mut admin)?;
        admin.run("ROLLBACK")?;
        pause(200);
        contains(&alice.error(CHANGES[0])?, "ALTER EXTENSION pgflow UPDATE")?;
        same(database.pids(Kind::Dispatcher)?.len(), 0)?;

        update(&mut admin)?;
        database.wait_until("(SELECT count(*) = 2 FROM async.running() WHERE task_id IN (15, 16))", SOON)?;
        same(alice.text("SELECT server_status || coalesce(starvation, '') FROM async.v_server_info")?, "running")?;
        // What was running when the server was stopped is a further attempt, and not a suspect.
        same(
            alice.text("SELECT string_agg(format('%s %s', task_id, attempt), ', ' ORDER BY task_id) FROM async.running() WHERE task_id IN (15, 16)")?,
            "15 2, 16 3",
        )?;
        answer(database, &mut alice)?;
        for run in [5, 6, 8, 9, 10] {
            database.wait_run(run)?;
        }
        same(
            nodes(&mut alice, 5)?,
            "child Finished, defer Finished, done Finished, hold Finished, last Finished, table Finished, take Finished, \
             there Finished, wait Finished, yield Finished",
        )?;
        // A run keeps the version of its definition; the next one has the new one.
        same(nodes(&mut alice, 6)?, "next Finished, old Finished")?;
        let changed = alice.number("SELECT flow.run_flow('changed', '{}')")?;
        database.wait_run(changed)?;
        same(nodes(&mut alice, changed)?, "new Finished")?;

        // Once each, and nothing of what had been done before.
        let after = format!("SELECT string_agg(what, ', ' ORDER BY what) FROM t.log WHERE id > (SELECT count(*) FROM unnest(string_to_array('{before}', ', ')))");
        same(
            alice.text(&after)?,
            format!("10 a, {changed} new, 5 defer, 5 hold, 5 hold 7, 5 hold 8, 5 last, 5 wait, 5 wait 1, 5 wait 2, 5 wait 3, 6 next, 6 old, 8 a, 9 a"),
        )?;
        same(alice.text("SELECT string_agg(n::TEXT, ' ' ORDER BY n) FROM t.numbers")?, "1 2 3 4 5")?;
        // Executions and secrets.
        database.wait_until("(SELECT count(*) = 2 FROM async.v_execution WHERE status = 'SUCCEEDED')", SOON)?;
        same(alice.text("SELECT async.fetch_result(30)")?, "{\"eight\": 8}")?;
        // There is no type String over there; the secret is gone all the same, and not in the error.
        database.wait_until("(SELECT finish_status = 'FAILED' FROM async.task WHERE task_id = 31)", SOON)?;
        contains(
            &admin.text("SELECT processing_error FROM async.task WHERE task_id = 31")?,
            "\"string\" does not exist",
        )?;
        same(admin.number("SELECT count(*) FROM async.task_secret")?, 0)?;
        ended_runs_can_be_restarted(database, &mut alice)
    });
}

fn ended_runs_can_be_restarted(database: &Database, alice: &mut Session) -> Result<()> {
    same(alice.text("SELECT string_agg(message, ', ') FROM async.task_log WHERE task_id = 1")?, "noting a")?;
    database
        .connect()?
        .run("CREATE OR REPLACE PROCEDURE t.fails(_args flow.callback_arguments_t) LANGUAGE plpgsql AS 'BEGIN END'")?;
    alice.run("SELECT flow.retry_failed(2); SELECT flow.restart_flow(4); SELECT flow.restart_flow(1, 'd')")?;
    for run in [1, 2, 4] {
        database.wait_run(run)?;
    }
    same(nodes(alice, 1)?, "a Finished, b Finished, c Finished, d Finished")?;
    same(nodes(alice, 2)?, "a Finished, b Finished, c Finished, d Finished")?;
    same(nodes(alice, 4)?, "a Finished")?;
    // Nothing is open, nothing is marked as running.
    same(alice.text("SELECT format('%s %s', unfinished_tasks, running_tasks) FROM async.v_server_info")?, "0 0")?;
    database.wait_until("NOT EXISTS (SELECT FROM async.claim)", SOON)
}
