//! Typed rows out of JSONCompactEachRowWithNamesAndTypes: a line of names, a line of types, a line for each row.
//!
//! Holds one line at a time, whatever the size of the result.

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::json;
use super::values::{self, Cell};
use crate::job::Failure;
use crate::results::{Keep, Kept, Rows};

/// The longest row.
const LINE: usize = 256 * 1024 * 1024;
/// Rows that are read before others get a turn.
const TURN: usize = 200;

/// Takes the bytes of an answer and hands its rows on.
pub struct Reader<'a> {
    keep: &'a Keep,
    buffer: BytesMut,
    /// Up to here there is no line break.
    looked: usize,
    names: Option<Vec<String>>,
    cells: Vec<(String, Cell)>,
    rows: Option<Rows>,
    read: usize,
}

impl<'a> Reader<'a> {
    pub fn new(keep: &'a Keep) -> Reader<'a> {
        Reader { keep, buffer: BytesMut::new(), looked: 0, names: None, cells: Vec::new(), rows: None, read: 0 }
    }

    pub async fn take(&mut self, chunk: Bytes) -> Result<(), Failure> {
        self.buffer.extend_from_slice(&chunk);
        while let Some(end) = self.buffer[self.looked..].iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(self.looked + end + 1);
            self.looked = 0;
            self.line(&line).await?;
        }
        self.looked = self.buffer.len();
        if self.looked > LINE {
            return Err(Failure::new("a row of the result is larger than 256 MiB"));
        }
        Ok(())
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let text = std::str::from_utf8(line).map_err(|_| {
            Failure::new("the result has text that is not UTF-8")
                .hint("Have the query return hex(…), base64Encode(…) or toValidUTF8(…) of binary columns.")
        })?;
        let broken = || Failure::new("the rows that ClickHouse sent cannot be read");
        if let Some(rows) = &mut self.rows {
            let elements =
                json::elements(text).filter(|elements| elements.len() == self.cells.len()).ok_or_else(broken)?;
            let mut row = Vec::with_capacity(elements.len());
            for (element, (name, cell)) in elements.into_iter().zip(&self.cells) {
                let value = cell.value(element).map_err(|what| broken().detail(format!("Column {name}: {what}.")))?;
                row.push(value);
            }
            self.read += 1;
            if self.read.is_multiple_of(TURN) {
                tokio::task::yield_now().await;
            }
            return rows.push(row).await;
        }
        let words = serde_json::from_str::<Vec<Value>>(text).map_err(|_| broken())?;
        let words: Vec<String> = words.iter().filter_map(|w| w.as_str().map(str::to_owned)).collect();
        match self.names.take() {
            None => self.names = Some(words),
            Some(names) if names.len() == words.len() => {
                let (columns, cells): (Vec<_>, Vec<_>) =
                    names.into_iter().zip(words).map(|(name, type_name)| values::column(name, type_name)).unzip();
                self.cells = columns.iter().map(|column| column.name.clone()).zip(cells).collect();
                self.rows = Some(Rows::open(self.keep, columns).await?);
            }
            Some(_) => return Err(broken()),
        }
        Ok(())
    }

    /// All has come. A query that returns nothing at all gives a result without columns.
    pub async fn close(self) -> Result<Kept, Failure> {
        if !self.buffer.is_empty() || self.names.is_some() {
            self.abort().await;
            return Err(Failure::new("the rows that ClickHouse sent end in the middle"));
        }
        match self.rows {
            Some(rows) => rows.close().await,
            None => Rows::open(self.keep, Vec::new()).await?.close().await,
        }
    }

    pub async fn abort(self) {
        if let Some(rows) = self.rows {
            rows.abort().await;
        }
    }
}
