//! Typed rows on their way to where the job says.
//!
//! To a store they go in batches of about a megabyte, encoded on a thread that may block, since the executor has only one
//! that must not. What is held at once: a batch, a row group of Parquet (8 to 16 MB), and what `Stream` holds.

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::encode::{weight, with_names_apart, Encoder};
use super::object::Stream;
use super::{Batch, Column, Keep, Kept};
use crate::job::Failure;

/// Rows that a worker gets at once.
const BATCH: usize = 500;
/// Or fewer, when they take that much memory.
const BATCH_WEIGHT: usize = 1024 * 1024;

/// How deep the values of an inline row may be nested. Postgres, which gets all rows as one JSON text, reads 128 levels.
const LEVELS: usize = 100;

/// Rows, and their size in memory, that are encoded at once.
const ENCODE_ROWS: usize = 4096;
const ENCODE_WEIGHT: usize = 1024 * 1024;

/// Takes the rows of one result. Unless `close` succeeds nothing is left of it.
pub struct Rows {
    columns: Vec<Column>,
    count: u64,
    bytes: u64,
    to: To,
}

enum To {
    Nothing,
    Inline { rows: Vec<Map<String, Value>>, names: u64, max_rows: u64, max_bytes: u64 },
    Worker { sender: mpsc::Sender<Batch>, batch: Vec<Vec<Value>>, weight: usize },
    Object(Box<Object>),
}

struct Object {
    stream: Stream,
    /// None: it failed, or a call was dropped in the middle.
    encoder: Option<Encoder>,
    batch: Vec<Vec<Value>>,
    weight: usize,
}

impl Rows {
    /// Where two columns have one name, a result that is kept as objects or in a store calls the second `name_2`.
    pub async fn open(keep: &Keep, columns: Vec<Column>) -> Result<Rows, Failure> {
        let mut columns = columns;
        let to = match keep {
            Keep::Nothing => To::Nothing,
            Keep::Inline { max_rows, max_bytes } => {
                columns = with_names_apart(columns);
                // Every row is an object: its names and what stands between them count too.
                let names = columns.iter().map(|column| json_size(&column.name.as_str().into()) + 2).sum::<u64>() + 2;
                To::Inline { rows: Vec::new(), names, max_rows: *max_rows, max_bytes: *max_bytes }
            }
            Keep::Worker(sender) => {
                send(sender, Batch::Columns(columns.clone())).await?;
                To::Worker { sender: sender.clone(), batch: Vec::new(), weight: 0 }
            }
            Keep::Object { format, compression, .. } => {
                columns = with_names_apart(columns);
                let encoder = Encoder::new(*format, *compression, columns.clone())?;
                let stream = Stream::open(keep).await?;
                To::Object(Box::new(Object { stream, encoder: Some(encoder), batch: Vec::new(), weight: 0 }))
            }
            Keep::Export { .. } => {
                return Err(Failure::new("this kind of target cannot write results to a store itself")
                    .hint("Use \"object\" instead of \"export\"."));
            }
        };
        Ok(Rows { columns, count: 0, bytes: 0, to })
    }

    /// One row: a value for each column, of its shape.
    pub async fn push(&mut self, row: Vec<Value>) -> Result<(), Failure> {
        self.count += 1;
        match &mut self.to {
            To::Nothing => {}
            To::Inline { rows, names, max_rows, max_bytes } => {
                if let Some(at) = row.iter().position(|value| is_deeper(value, LEVELS)) {
                    let name = self.columns.get(at).map_or("", |column| column.name.as_str());
                    return Err(Failure::new(format!(
                        "a value of column {name:?} is nested too deep to be kept inline"
                    ))
                    .detail(format!("Arrays and objects may be nested {LEVELS} levels."))
                    .hint("Have the query return it as text, or keep it as \"object\"."));
                }
                self.bytes += *names + row.iter().map(json_size).sum::<u64>();
                if self.count > *max_rows || self.bytes > *max_bytes {
                    return Err(Failure::new("the result is too large to be kept inline")
                        .detail(format!("It may have {max_rows} rows and {max_bytes} bytes."))
                        .hint("Keep it as \"table\" or \"object\", or have the query return less."));
                }
                rows.push(self.columns.iter().map(|c| c.name.clone()).zip(row).collect());
            }
            To::Worker { sender, batch, weight: taken } => {
                *taken += 24 + row.iter().map(weight).sum::<usize>();
                batch.push(row);
                if batch.len() >= BATCH || *taken >= BATCH_WEIGHT {
                    *taken = 0;
                    send(sender, Batch::Rows(std::mem::take(batch))).await?;
                }
            }
            To::Object(object) => {
                object.weight += 24 + row.iter().map(weight).sum::<usize>();
                object.batch.push(row);
                if object.batch.len() >= ENCODE_ROWS || object.weight >= ENCODE_WEIGHT {
                    object.flush().await?;
                }
            }
        }
        Ok(())
    }

    pub async fn close(self) -> Result<Kept, Failure> {
        let mut kept = Kept { rows: Some(self.count), columns: self.columns, ..Kept::default() };
        match self.to {
            To::Nothing => {}
            To::Inline { rows, .. } => {
                kept.bytes = Some(self.bytes);
                kept.content = Some(rows);
            }
            To::Worker { sender, batch, .. } => {
                if !batch.is_empty() {
                    send(&sender, Batch::Rows(batch)).await?;
                }
            }
            To::Object(object) => return object.close(kept.rows, kept.columns).await,
        }
        Ok(kept)
    }

    /// Leaves nothing behind. Dropping does the same, later.
    pub async fn abort(self) {
        if let To::Object(object) = self.to {
            object.stream.abort().await;
        }
    }
}

impl Object {
    async fn flush(&mut self) -> Result<(), Failure> {
        let rows = std::mem::take(&mut self.batch);
        self.weight = 0;
        let mut encoder = self.encoder.take().ok_or_else(broken)?;
        let (encoder, encoded) = apart(move || {
            let encoded = encoder.encode(&rows);
            (encoder, encoded)
        })
        .await?;
        self.stream.write(encoded?.into()).await?;
        self.encoder = Some(encoder);
        Ok(())
    }

    async fn close(mut self, rows: Option<u64>, columns: Vec<Column>) -> Result<Kept, Failure> {
        if !self.batch.is_empty() {
            self.flush().await?;
        }
        let encoder = self.encoder.take().ok_or_else(broken)?;
        let rest = apart(move || encoder.finish()).await??;
        self.stream.write(rest.into()).await?;
        self.stream.close(rows, columns).await
    }
}

/// As JSON text.
fn json_size(value: &Value) -> u64 {
    value.to_string().len() as u64
}

/// Whether arrays and objects in it are nested more levels than that.
fn is_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(values) => levels == 0 || values.iter().any(|value| is_deeper(value, levels - 1)),
        Value::Object(values) => levels == 0 || values.values().any(|value| is_deeper(value, levels - 1)),
        _ => false,
    }
}

fn broken() -> Failure {
    Failure::new("the result was not stored: writing it failed or was stopped before")
}

/// Runs what takes processor time on a thread that may.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Failure::new("internal error of pgflow's executor: a thread that encodes results is gone"))
}

async fn send(sender: &mpsc::Sender<Batch>, batch: Batch) -> Result<(), Failure> {
    sender.send(batch).await.map_err(|_| Failure::new("the worker that writes the rows is gone"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::results::Shape;

    fn columns(names: &[&str]) -> Vec<Column> {
        let column = |name: &&str| Column { name: (*name).to_owned(), type_name: "x".into(), shape: Shape::Json };
        names.iter().map(column).collect()
    }

    #[tokio::test]
    async fn names_count_in_every_inline_row() {
        let long = "n".repeat(500);
        let keep = Keep::Inline { max_rows: 10, max_bytes: 1100 };
        let mut rows = Rows::open(&keep, columns(&[&long])).await.unwrap();
        rows.push(vec![json!(1)]).await.unwrap();
        rows.push(vec![json!(1)]).await.unwrap();
        assert!(rows.push(vec![json!(1)]).await.unwrap_err().message.contains("too large"));
    }

    #[tokio::test]
    async fn deep_values_are_refused_inline() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        let mut rows =
            Rows::open(&Keep::Inline { max_rows: 10, max_bytes: 10_000 }, columns(&["a", "b"])).await.unwrap();
        rows.push(vec![json!(1), nested(100)]).await.unwrap();
        let failure = rows.push(vec![json!(1), nested(101)]).await.unwrap_err();
        assert!(failure.message.contains("column \"b\"") && failure.hint.is_some(), "{failure}");
        assert!(rows.push(vec![json!({"k": nested(100)}), json!(1)]).await.is_err());
    }

    #[tokio::test]
    async fn a_worker_gets_rows_in_bounded_pieces() {
        let (sender, mut batches) = mpsc::channel(100);
        let mut rows = Rows::open(&Keep::Worker(sender), columns(&["a"])).await.unwrap();
        for _ in 0..5 {
            rows.push(vec![json!("x".repeat(600_000))]).await.unwrap();
        }
        for _ in 0..501 {
            rows.push(vec![json!(1)]).await.unwrap();
        }
        rows.close().await.unwrap();
        let mut sizes = Vec::new();
        while let Some(batch) = batches.recv().await {
            if let Batch::Rows(rows) = batch {
                sizes.push(rows.len());
            }
        }
        assert_eq!(sizes, [2, 2, 500, 2]);
    }
}
