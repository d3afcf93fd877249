//! Nobody sees what others have submitted: neither query nor result nor secret, in any table, view or function.

use anyhow::{ensure, Result};
use pgflow_tests::session::Session;

use crate::kit::*;

/// Every relation of ours in which a role can see one of the marks.
fn seen(session: &mut Session, marks: &str) -> Result<Vec<String>> {
    let relations = session.column(
        "SELECT c.oid::regclass::TEXT FROM pg_class c
          WHERE c.relnamespace IN ('async'::regnamespace, 'flow'::regnamespace) AND c.relkind IN ('r', 'v')
            AND has_table_privilege(c.oid, 'SELECT') ORDER BY 1",
    )?;
    ensure!(relations.len() > 10, "{relations:?}");
    let mut seen = Vec::new();
    for relation in relations {
        if session
            .truth(&format!("SELECT EXISTS (SELECT FROM {relation} AS r WHERE to_jsonb(r.*)::TEXT ~ '{marks}')"))?
        {
            seen.push(relation);
        }
    }
    Ok(seen)
}

#[test]
fn nobody_sees_anothers_query_result_or_secret() {
    test("sees", |database, session| {
        let shelf = Shelf::make(database, session)?;
        let mut ann = database.connect_as("ann")?;
        let mut bob = database.connect_as("bob")?;
        let mut ids = Vec::new();
        for n in 0..3 {
            let id = ann.text(&format!(
                "SELECT task_id FROM async.submit('SELECT ''querymark{n}''', 'idmark{n}', _secrets => '{{\"k\": \"hunter22\"}}')"
            ))?;
            ids.push(id.parse::<i64>()?);
        }
        finish(session, ids[0], r#"{"kept_as": "inline", "content": [{"x": "resultmark"}]}"#)?;
        let kept = shelf.write("filemark.json", pgflow_executor::results::Format::Json, Default::default(), 3, 0)?;
        finish(session, ids[1], &recorded(&kept, "filemark.json")?)?;

        same(seen(&mut bob, "querymark|idmark|hunter22|resultmark|filemark")?, Vec::<String>::new())?;
        // And nobody at all sees a secret; its own role sees the rest.
        same(seen(&mut ann, "hunter22")?, Vec::<String>::new())?;
        let own = seen(&mut ann, "querymark|resultmark|filemark")?;
        for relation in ["async.execution", "async.v_execution", "async.v_result", "async.result", "async.task"] {
            ensure!(own.iter().any(|r| r == relation), "{own:?} lacks {relation}");
        }
        same(ann.column(&format!("SELECT async.fetch_result({})", ids[1]))?.len(), 3)?;

        for call in [
            format!("async.fetch_result({})", ids[0]),
            format!("async.fetch_result({})", ids[1]),
            format!("async.read_stored({}, NULL, 0)", ids[1]),
            format!("async.result_url({})", ids[1]),
            format!("async.drop_result({})", ids[0]),
            "async.execution_result(1)".into(),
            "async.cancel_execution(1)".into(),
        ] {
            let error = bob.error(&format!("SELECT {call}"))?;
            ensure!(error.contains("42704") && !error.contains("mark"), "{call}: {error}");
        }
        // What a role submits under the same query_id is its own.
        same(
            bob.text("SELECT collapsed FROM async.submit('SELECT 1', 'idmark2', _stale_after => '1 day')")?,
            "f".into(),
        )?;
        same(
            bob.text("SELECT result_task_id FROM async.submit('SELECT 1', 'idmark0', _stale_after => '1 day')")?,
            "".into(),
        )
    });
}

#[test]
fn a_role_cannot_read_a_table_through_anothers_result() {
    test("through", |database, session| {
        let mut ann = database.connect_as("ann")?;
        let id = ann.number("SELECT task_id FROM async.submit('SELECT 1')")?;
        session.run("CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 'tablemark' AS x; GRANT USAGE ON SCHEMA s TO ann")?;
        finish(session, id, r#"{"kept_as": "table", "location": "s.t"}"#)?;
        let error = ann.error(&format!("SELECT async.fetch_result({id})"))?;
        ensure!(error.contains("42501"), "{error}");
        session.run("GRANT SELECT ON s.t TO ann")?;
        same(ann.text(&format!("SELECT async.fetch_result({id})->>'x'"))?, "tablemark".into())
    });
}
