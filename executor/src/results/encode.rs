//! Rows to bytes of a format: CSV, JSON lines, and, in `columns`, Parquet and Arrow. Pure; takes processor time, so it is
//! called where it may.
//!
//! Every value comes back as it went in (`decode`), or writing fails: nothing is rounded, cut or replaced.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::columns::{self, ArrowFile, ParquetFile};
use super::{Column, Compression, Format};
use crate::job::Failure;

pub(super) enum Encoder {
    Csv { columns: Vec<Column>, begun: bool },
    Json { columns: Vec<Column> },
    Parquet(Box<ParquetFile>),
    Arrow(Box<ArrowFile>),
}

impl Encoder {
    pub fn new(format: Format, compression: Compression, columns: Vec<Column>) -> Result<Encoder, Failure> {
        Ok(match format {
            Format::Csv => Encoder::Csv { columns, begun: false },
            Format::Json => Encoder::Json { columns },
            Format::Parquet => Encoder::Parquet(Box::new(ParquetFile::new(columns, compression)?)),
            Format::Arrow => Encoder::Arrow(Box::new(ArrowFile::new(columns)?)),
        })
    }

    /// What is to be written because of these rows; it may lag behind.
    pub fn encode(&mut self, rows: &[Vec<Value>]) -> Result<Vec<u8>, Failure> {
        match self {
            Encoder::Csv { columns, begun } => {
                let mut out = String::new();
                if !std::mem::replace(begun, true) {
                    csv_header(&mut out, columns);
                }
                rows.iter().for_each(|row| csv_line(&mut out, row));
                Ok(out.into_bytes())
            }
            Encoder::Json { columns } => {
                let mut out = Vec::new();
                for row in rows {
                    json_line(&mut out, columns, row).map_err(columns::cannot_write)?;
                }
                Ok(out)
            }
            Encoder::Parquet(file) => file.write(rows),
            Encoder::Arrow(file) => file.write(rows),
        }
    }

    /// What is left.
    pub fn finish(self) -> Result<Vec<u8>, Failure> {
        match self {
            Encoder::Csv { columns, begun } => {
                let mut out = String::new();
                if !begun {
                    csv_header(&mut out, &columns);
                }
                Ok(out.into_bytes())
            }
            Encoder::Json { .. } => Ok(Vec::new()),
            Encoder::Parquet(file) => file.finish(),
            Encoder::Arrow(file) => file.finish(),
        }
    }
}

/// Names that can be keys of one object: a second `a` becomes `a_2`.
pub(super) fn with_names_apart(mut columns: Vec<Column>) -> Vec<Column> {
    let given: HashSet<String> = columns.iter().map(|column| column.name.clone()).collect();
    let mut taken = HashSet::new();
    for column in &mut columns {
        let mut name = column.name.clone();
        let mut count = 1u32;
        while taken.contains(&name) || (count > 1 && given.contains(&name)) {
            count += 1;
            name = format!("{}_{count}", column.name);
        }
        taken.insert(name.clone());
        column.name = name;
    }
    columns
}

fn csv_header(out: &mut String, columns: &[Column]) {
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        csv_text(out, &column.name);
    }
    out.push_str("\r\n");
}

/// NULL is nothing, an empty text is `""`; lists and JSON are JSON texts.
fn csv_line(out: &mut String, row: &[Value]) {
    for (at, value) in row.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        match value {
            Value::Null => {}
            Value::String(text) => csv_text(out, text),
            Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
            Value::Array(_) | Value::Object(_) => csv_text(out, &value.to_string()),
        }
    }
    out.push_str("\r\n");
}

fn csv_text(out: &mut String, text: &str) {
    let odd = text.is_empty()
        || text.contains(['"', ',', '\n', '\r'])
        || text.starts_with([' ', '\t'])
        || text.ends_with([' ', '\t'])
        // What other programs take for NULL or for the end.
        || text.starts_with('\\');
    if odd {
        out.push('"');
        out.push_str(&text.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(text);
    }
}

fn json_line(out: &mut Vec<u8>, columns: &[Column], row: &[Value]) -> serde_json::Result<()> {
    out.push(b'{');
    for (at, (column, value)) in columns.iter().zip(row).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, &column.name)?;
        out.push(b':');
        serde_json::to_writer(&mut *out, value)?;
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// About what a value takes in memory.
pub(super) fn weight(value: &Value) -> usize {
    16 + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(weight).sum(),
        Value::Object(values) => object_weight(values),
        _ => 0,
    }
}

fn object_weight(values: &Map<String, Value>) -> usize {
    values.iter().map(|(key, value)| key.len() + 48 + weight(value)).sum()
}
