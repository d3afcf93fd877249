//! How far queries are, read from `system.processes`: one look for all queries of a host, shared by their jobs.
//!
//! Must never fail a job: what cannot be read is not known.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ::clickhouse::Row;
use serde::Deserialize;

use super::client::{Client, Refused};
use crate::kind::Progress;

/// Before the first look: a quick query has none.
const FIRST: Duration = Duration::from_millis(150);
/// Between looks.
const BETWEEN: Duration = Duration::from_millis(300);
/// A look that is younger serves everybody.
const FRESH: Duration = Duration::from_millis(200);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(3);
/// Queries of ours that are looked at.
const MOST: u32 = 10_000;

/// What runs on a host, by query id.
#[derive(Default)]
pub struct Board {
    at: Option<Instant>,
    /// None: the last look failed.
    running: Option<HashMap<String, Progress>>,
}

#[derive(Row, Deserialize)]
struct Running {
    query_id: String,
    rows: u64,
    bytes: u64,
    total_rows: u64,
}

/// A query on a host: None: nobody knows; Some(None): it does not run.
pub async fn look(client: &Client, host: usize, query_id: &str) -> Option<Option<Progress>> {
    let board = client.boards.get(host)?;
    let mut board = board.lock().await;
    if board.at.is_none_or(|at| at.elapsed() > FRESH) {
        board.running = fetch(client, host).await.ok();
        board.at = Some(Instant::now());
    }
    board.running.as_ref().map(|running| running.get(query_id).copied())
}

async fn fetch(client: &Client, host: usize) -> Result<HashMap<String, Progress>, Refused> {
    // Anybody can give a query a name that is no text; ours are.
    let query = "SELECT query_id, toUInt64(read_rows) AS rows, toUInt64(read_bytes) AS bytes, \
                 toUInt64(greatest(total_rows_approx, 0)) AS total_rows \
                 FROM system.processes WHERE startsWith(query_id, 'pgflow-') AND isValidUTF8(query_id) LIMIT ?";
    let running: Vec<Running> = client.rows(host, query, |query| query.bind(MOST), LOOK).await?;
    let entry =
        |one: Running| (one.query_id, Progress { rows: one.rows, bytes: one.bytes, total_rows: one.total_rows });
    Ok(running.into_iter().map(entry).collect())
}

/// Tells how far a query is, for as long as it is polled; never ends. A query that no look finds need not have ended: the
/// looks may go to another server behind the same address.
pub async fn watch(client: &Client, host: usize, query_id: &str, tell: &(dyn Fn(Progress) + Send + Sync)) {
    tokio::time::sleep(FIRST).await;
    let mut last = Progress::default();
    loop {
        if let Some(Some(progress)) = look(client, host, query_id).await {
            if progress != last {
                last = progress;
                tell(progress);
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
}
