//! Typed rows on their way to where the job says.

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{Batch, Column, Keep, Kept};
use crate::job::Failure;

/// Rows that a worker gets at once.
const BATCH: usize = 500;

/// Takes the rows of one result. Unless `close` succeeds nothing is left of it.
pub struct Rows {
    columns: Vec<Column>,
    count: u64,
    bytes: u64,
    to: To,
}

enum To {
    Nothing,
    Inline { rows: Vec<Map<String, Value>>, max_rows: u64, max_bytes: u64 },
    Worker { sender: mpsc::Sender<Batch>, batch: Vec<Vec<Value>> },
}

impl Rows {
    pub async fn open(keep: &Keep, columns: Vec<Column>) -> Result<Rows, Failure> {
        let to = match keep {
            Keep::Nothing => To::Nothing,
            Keep::Inline { max_rows, max_bytes } => {
                To::Inline { rows: Vec::new(), max_rows: *max_rows, max_bytes: *max_bytes }
            }
            Keep::Worker(sender) => {
                send(sender, Batch::Columns(columns.clone())).await?;
                To::Worker { sender: sender.clone(), batch: Vec::new() }
            }
            Keep::Object { .. } | Keep::Export { .. } => {
                return Err(Failure::new("this kind of target cannot write results to a store"));
            }
        };
        Ok(Rows { columns, count: 0, bytes: 0, to })
    }

    /// One row: a value for each column, of its shape.
    pub async fn push(&mut self, row: Vec<Value>) -> Result<(), Failure> {
        self.count += 1;
        match &mut self.to {
            To::Nothing => {}
            To::Inline { rows, max_rows, max_bytes } => {
                self.bytes += row.iter().map(|v| v.to_string().len() as u64 + 1).sum::<u64>();
                if self.count > *max_rows || self.bytes > *max_bytes {
                    return Err(Failure::new("the result is too large to be kept inline")
                        .detail(format!("It may have {max_rows} rows and {max_bytes} bytes."))
                        .hint("Keep it as \"table\" or \"object\", or have the query return less."));
                }
                rows.push(self.columns.iter().map(|c| c.name.clone()).zip(row).collect());
            }
            To::Worker { sender, batch } => {
                batch.push(row);
                if batch.len() >= BATCH {
                    send(sender, Batch::Rows(std::mem::take(batch))).await?;
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
            To::Worker { sender, batch } => {
                if !batch.is_empty() {
                    send(&sender, Batch::Rows(batch)).await?;
                }
            }
        }
        Ok(kept)
    }

    /// Leaves nothing behind.
    pub async fn abort(self) {}
}

async fn send(sender: &mpsc::Sender<Batch>, batch: Batch) -> Result<(), Failure> {
    sender.send(batch).await.map_err(|_| Failure::new("the worker that writes the rows is gone"))
}
