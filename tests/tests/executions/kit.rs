//! The cluster of this binary, and what its tests do again and again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{anyhow, ensure, Context, Result};
use pgflow_executor::results::{Column, Compression, Format, Keep, Kept, Rows, Shape, Store};
use pgflow_tests::cluster::Cluster;
use pgflow_tests::database::Database;
use pgflow_tests::failure::in_database;
use pgflow_tests::session::Session;
use serde_json::json;

/// Nothing runs there: what the dispatcher would do, these tests do.
fn shared() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static FIRST: Mutex<()> = Mutex::new(());
    let _one = FIRST.lock();
    CLUSTER.get_or_init(|| {
        Cluster::options()
            .setting("pgflow.enabled", "off")
            .setting("pgflow.purge_interval", "1d")
            .start()
            .unwrap_or_else(|error| panic!("cannot start a cluster: {error:#}"))
    })
}

/// Runs a test in a database of its own, in which there is a ClickHouse target that does not answer, and two roles.
pub fn test(name: &str, body: impl FnOnce(&Database, &mut Session) -> Result<()>) {
    in_database(shared(), name, |database| {
        let mut session = database.connect()?;
        session.run(
            r#"SELECT async.configure('{"targets": [{"target": "warehouse", "kind": "clickhouse",
                 "connection_string": "http://127.0.0.1:1"}]}')"#,
        )?;
        database.role("ann")?;
        database.role("bob")?;
        body(database, &mut session)
    });
}

/// Ends a task as the dispatcher does, and records what it has kept.
pub fn finish(session: &mut Session, task_id: i64, kept: &str) -> Result<()> {
    session.run(&format!(
        "BEGIN;
         UPDATE async.task SET processed = clock_timestamp(), consumed = clock_timestamp(), attempt = 1,
           finish_status = 'FINISHED', failed = false WHERE task_id = {task_id};
         SELECT async.record_result({task_id}, 1, '{kept}');
         COMMIT"
    ))
}

pub fn same<T: PartialEq + std::fmt::Debug>(is: T, should: T) -> Result<()> {
    ensure!(is == should, "is {is:?}, should be {should:?}");
    Ok(())
}

/// A store in a directory of the cluster's, which the server can read and these tests can write.
pub struct Shelf {
    pub directory: PathBuf,
    pub store: Arc<Store>,
}

impl Shelf {
    pub fn make(database: &Database, session: &mut Session) -> Result<Shelf> {
        let directory = database.cluster.directory().join(format!("shelf_{}", database.name));
        std::fs::create_dir(&directory)?;
        open_to_all(&directory)?;
        let url = format!("file://{}", directory.display());
        session.run(&format!("INSERT INTO async.store (store, url) VALUES ('shelf', '{url}')"))?;
        Ok(Shelf { directory, store: Arc::new(Store { name: "shelf".into(), url, options: BTreeMap::new() }) })
    }

    /// Writes rows `{"n": 0, "t": "row 0"}` and so on.
    pub fn write(&self, path: &str, format: Format, compression: Compression, rows: u64, width: usize) -> Result<Kept> {
        let keep = Keep::Object { store: self.store.clone(), path: path.into(), format, compression };
        let column =
            |name: &str, type_name: &str, shape| Column { name: name.into(), type_name: type_name.into(), shape };
        run(async {
            let columns = vec![column("n", "UInt32", Shape::Int), column("t", "String", Shape::Text)];
            let mut sink = Rows::open(&keep, columns).await?;
            for n in 0..rows {
                sink.push(vec![json!(n), json!(format!("row {n:width$}"))]).await?;
            }
            sink.close().await
        })
    }

    /// What the dispatcher does with what expires; returns how many objects it has deleted.
    pub fn expire(&self, session: &mut Session) -> Result<usize> {
        let mut deleted = 0;
        loop {
            let due = session.rows("SELECT task_id, path FROM async.expire_results(3) WHERE store = 'shelf'")?;
            if due.is_empty() {
                return Ok(deleted);
            }
            let objects = due
                .into_iter()
                .map(|row| Ok((row[0].as_deref().unwrap_or("").parse()?, row[1].clone().context("no path")?)))
                .collect::<Result<Vec<(i64, String)>>>()?;
            for (_, path) in &objects {
                ensure!(self.directory.join(path).exists(), "{path} is deleted a second time");
            }
            let (gone, kept) = run(async { Ok(pgflow_executor::results::delete(&self.store, objects.clone()).await) })?;
            ensure!(kept.is_empty() && gone.len() == objects.len(), "{kept:?}");
            deleted += gone.len();
            session.run(&format!("SELECT async.results_deleted(ARRAY{gone:?}::BIGINT[])"))?;
        }
    }
}

fn open_to_all(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777))?)
}

/// The record of an object, as the dispatcher gives it to async.record_result.
pub fn recorded(kept: &Kept, path: &str) -> Result<String> {
    Ok(json!({
        "kept_as": "object", "store": "shelf", "path": path, "location": kept.location, "format": kept.format,
        "compression": kept.compression, "rows": kept.rows, "bytes": kept.bytes, "meta": kept.columns,
    })
    .to_string())
}

/// Runs a future of the executor's.
fn run<T>(
    future: impl std::future::Future<Output = std::result::Result<T, pgflow_executor::job::Failure>>,
) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(future).map_err(|failure| anyhow!("{failure}"))
}
