//! Files of results that are over: each is deleted once, and nothing else ever is.

use std::collections::BTreeSet;
use std::sync::Barrier;

use anyhow::{bail, ensure, Result};
use pgflow_executor::results::{Compression, Format};
use pgflow_tests::session::Session;

use crate::kit::*;

fn submitted(session: &mut Session, n: usize) -> Result<i64> {
    session.number(&format!("SELECT task_id FROM async.submit('SELECT {n}')"))
}

fn files(shelf: &Shelf) -> Result<BTreeSet<String>> {
    let names = std::fs::read_dir(&shelf.directory)?;
    names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[test]
fn a_file_is_deleted_once_and_only_when_nobody_keeps_it() {
    test("files", |database, session| {
        let shelf = Shelf::make(database, session)?;
        let mut ann = database.connect_as("ann")?;
        let mut ids = Vec::new();
        for n in 0..10 {
            let id = submitted(&mut ann, n)?;
            // Two write to the same place; one is the user's own name in it.
            let path = if n > 7 { "latest.json".to_owned() } else { format!("{id}-1.json") };
            let kept = shelf.write(&path, Format::Json, Compression::None, 2, 0)?;
            finish(session, id, &recorded(&kept, &path)?)?;
            ids.push(id);
        }
        std::fs::write(shelf.directory.join("somebodys.json"), "{}")?;
        same(shelf.expire(session)?, 0)?;

        // Four are over; one of them has written to what another keeps.
        let over = format!("{}, {}, {}, {}", ids[0], ids[1], ids[2], ids[8]);
        session.run(&format!("UPDATE async.result SET expires = now() WHERE task_id IN ({over})"))?;
        same(shelf.expire(session)?, 3)?;
        same(shelf.expire(session)?, 0)?;
        let left = files(&shelf)?;
        ensure!(left.contains("latest.json") && left.contains("somebodys.json") && left.len() == 7, "{left:?}");

        // A path that leads out, and one that was never this store's, touch nothing.
        std::fs::write(database.cluster.directory().join("outside.json"), "{}")?;
        for (n, path) in [(1, "../outside.json"), (2, "somebodys.json")] {
            session.run(&format!(
                "INSERT INTO async.result (task_id, attempt, run_as, kept_as, store, path, location, expires)
                 VALUES ({}, 1, 'ann', 'object', 'shelf', '{path}', 'file:///elsewhere/{path}', now())",
                1000 + n
            ))?;
        }
        same(shelf.expire(session)?, 0)?;
        ensure!(database.cluster.directory().join("outside.json").exists(), "a file outside the store is gone");

        session.run("UPDATE async.result SET expires = now()")?;
        same(shelf.expire(session)?, 6)?;
        same(files(&shelf)?, BTreeSet::from(["somebodys.json".to_owned()]))?;
        same(session.number("SELECT count(*) FROM async.result")?, 0)
    });
}

#[test]
fn an_object_is_handed_out_to_one_however_many_ask_at_once() {
    test("handed", |database, session| {
        session.run("INSERT INTO async.store (store, url) VALUES ('shelf', 's3://bucket/x')")?;
        session.run(
            "INSERT INTO async.result (task_id, attempt, run_as, kept_as, store, path, location, expires)
             SELECT i, 1, 'ann', 'object', 'shelf', 'p' || i, 's3://bucket/x/p' || i, now() FROM generate_series(1, 500) AS i",
        )?;
        let together = Barrier::new(8);
        let mut handed: Vec<String> = Vec::new();
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| -> Result<Vec<String>> {
                        let mut session = database.connect()?;
                        let mut mine = Vec::new();
                        together.wait();
                        for _ in 0..20 {
                            mine.extend(session.column("SELECT path FROM async.expire_results(20)")?);
                        }
                        Ok(mine)
                    })
                })
                .collect();
            for thread in threads {
                handed.extend(thread.join().unwrap_or_else(|_| bail!("a session panicked"))?);
            }
            Ok(())
        })?;
        same(handed.len(), 500)?;
        same(handed.iter().collect::<BTreeSet<_>>().len(), 500)
    });
}

#[test]
fn purging_tasks_lets_go_of_their_files_and_keeps_what_executions_show() {
    test("purging", |database, session| {
        let shelf = Shelf::make(database, session)?;
        let mut ann = database.connect_as("ann")?;
        let execution = submitted(&mut ann, 1)?;
        let plain = ann.number("SELECT async.push_query('warehouse', 'SELECT 1')")?;
        for id in [execution, plain] {
            let path = format!("{id}.csv");
            let kept = shelf.write(&path, Format::Csv, Compression::None, 4, 0)?;
            finish(session, id, &recorded(&kept, &path)?)?;
        }
        session.run("UPDATE async.task SET processed = now() - INTERVAL '1 year'")?;
        same(session.number("SELECT async.purge('1 day', NULL, 100)")?, 2)?;
        same(shelf.expire(session)?, 1)?;
        same(files(&shelf)?, BTreeSet::from([format!("{execution}.csv")]))?;
        same(ann.text("SELECT status || ' ' || (result->>'rows') FROM async.v_execution")?, "SUCCEEDED 4".into())?;
        same(
            ann.text("SELECT jsonb_array_length(async.execution_result(execution_id)->'data') FROM async.v_execution")?,
            "4".into(),
        )
    });
}
