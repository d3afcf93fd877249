//! Where what a query returns goes: nowhere, into the dispatcher's hands (small), to a local worker, or to an object store.
//!
//! Two ways in: `Rows` takes typed rows and writes any format; `Stream` takes bytes that are in the wanted format already
//! (ClickHouse writes Parquet itself) and only stores them. Either holds a bounded amount of memory, whatever the size of
//! the result, and leaves nothing behind unless `close` succeeds.

mod columns;
mod encode;
mod failure;
mod lines;
mod location;
mod moments;
mod object;
mod options;
mod pages;
mod read;
mod rows;
mod spec;
mod store;
mod upload;
mod values;

pub use failure::UNREACHABLE;
pub use location::object_path;
pub use object::{delete, signed_url, size, Stream};
pub use options::check_store;
pub use read::{read, read_rows, rows, Reader, RowReader};
pub use rows::Rows;
pub use spec::{parse_result, ObjectSpec, ResultSpec, ResultTo, INLINE_BYTES, INLINE_ROWS};

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::job::{Failure, Secret};
use crate::storable;

/// An object store, as an administrator configured it.
#[derive(Clone, Debug, Default)]
pub struct Store {
    pub name: String,
    /// `file:///dir`, `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix`. No credentials in it. No server
    /// was there to test `gs://` against. A directory is one of this server's: who may name it may have files written where
    /// the operating system user of Postgres may.
    pub url: String,
    /// Options by the names that `object_store` knows (`aws_access_key_id`, `endpoint`, …), with or without the prefix.
    pub options: BTreeMap<String, Secret>,
}

/// Formats of stored results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Parquet,
    Csv,
    /// JSON lines: an object a row.
    Json,
    /// The Arrow IPC stream format.
    Arrow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    None,
    Gzip,
    Zstd,
}

/// What is to be done with what a query returns.
#[derive(Clone, Debug, Default)]
pub enum Keep {
    #[default]
    Nothing,
    /// Given back with the ending, as JSON rows; more than this is a failure that says so.
    Inline { max_rows: u64, max_bytes: u64 },
    /// Stored under `path` (relative to the store's prefix; the extension of the file is in it: `object_path`). What is there
    /// already is replaced when the new object is whole. Of Parquet the compression is inside the file, else around it.
    Object { store: Arc<Store>, path: String, format: Format, compression: Compression },
    /// The other side writes the object itself: only kinds that can.
    Export { store: Arc<Store>, path: String, format: Format, compression: Compression },
    /// Handed to somebody on this server, who writes them into a table: batches of rows through a bounded channel. What
    /// follows the last batch is the ending.
    Worker(mpsc::Sender<Batch>),
}

impl Keep {
    /// Where the object is to lie in its store.
    pub fn path(&self) -> Option<&str> {
        match self {
            Keep::Object { path, .. } | Keep::Export { path, .. } => Some(path),
            _ => None,
        }
    }

    /// The options of the store, if there is one: credentials among them.
    pub(crate) fn store_options(&self) -> impl Iterator<Item = (&String, &Secret)> {
        let store = match self {
            Keep::Object { store, .. } | Keep::Export { store, .. } => Some(store),
            _ => None,
        };
        store.into_iter().flat_map(|store| store.options.iter())
    }
}

/// What a worker gets: the columns once, then rows.
#[derive(Clone, Debug)]
pub enum Batch {
    Columns(Vec<Column>),
    Rows(Vec<Vec<Value>>),
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    /// The type as the source calls it: `Nullable(UInt64)`, `timestamp with time zone`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// What the values are, in terms every format and Postgres can hold.
    pub shape: Shape,
}

/// What the values of a column are. How each comes as JSON is said with it; NULL is `null` everywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// A JSON number that fits 64 bits with sign.
    Int,
    /// A JSON number; not-a-number and infinities are the strings `NaN`, `Infinity`, `-Infinity`.
    Float,
    /// A string of digits: integers beyond 64 bits and decimals (digits behind the point; none: arbitrary).
    Decimal {
        scale: Option<u8>,
    },
    /// A string.
    Text,
    /// A string: hexadecimal digits.
    Bytes,
    /// `2026-11-20`.
    Date,
    /// Without a zone: `2026-11-20T12:30:00.123456`.
    Timestamp,
    /// In UTC: `2026-11-20T12:30:00.123456Z`.
    TimestampTz,
    Uuid,
    /// Any JSON value.
    Json,
    /// A JSON array of values of that shape.
    Array(Box<Shape>),
}

/// What was kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The URL of the object, without credentials.
    pub location: Option<String>,
    /// The same below the store's prefix.
    pub path: Option<String>,
    pub format: Option<Format>,
    pub compression: Compression,
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
    pub columns: Vec<Column>,
    /// Of an inline result: the rows.
    pub content: Option<Vec<Map<String, Value>>>,
}

/// What a value of type jsonb can hold, with room to spare (it is 256 MB).
const MOST_CONTENT: u64 = 128 * 1024 * 1024;

impl Kept {
    /// As Postgres can hold it; Err: it cannot.
    pub fn holdable(mut self) -> Result<Kept, Failure> {
        for column in &mut self.columns {
            storable::text(&mut column.name);
            storable::text(&mut column.type_name);
        }
        let Some(content) = &self.content else { return Ok(self) };
        if content.iter().flatten().any(|(name, value)| name.contains('\0') || has_nul(value)) {
            return Err(Failure::new("the result has a NUL character, which PostgreSQL cannot hold")
                .hint("Keep it as an object, or have the query leave it out."));
        }
        let names: usize = content.first().map_or(0, |row| row.keys().map(|name| name.len() + 8).sum());
        if self.bytes.unwrap_or(0) + (names * content.len()) as u64 > MOST_CONTENT {
            return Err(
                Failure::new("the result is too large to be kept inline").hint("Keep it as a table or an object.")
            );
        }
        Ok(self)
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(values) => values.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}
