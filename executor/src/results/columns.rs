//! Rows as columns: Parquet files and Arrow streams.
//!
//! | shape | Arrow |
//! | --- | --- |
//! | Bool, Int, Float | Boolean, Int64, Float64 |
//! | Decimal | Decimal128 where every value of the type fits 38 digits, as far as its name tells; else Utf8 |
//! | Date | Date32 |
//! | Timestamp, TimestampTz | Timestamp(µs); (ns) if the source's type has more than 6 digits; "UTC" with a zone |
//! | Bytes | Binary |
//! | Text, Uuid, Json | Utf8 |
//! | Array | List |
//!
//! Of rows without columns an Arrow stream keeps the number, a Parquet file does not.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{
    make_builder, ArrayBuilder, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder,
    Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder, TimestampNanosecondBuilder,
};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use super::moments::{self, Unit};
use super::{Column, Compression, Shape};
use crate::job::Failure;

/// Encoded bytes of a row group, held in memory until it is whole.
const ROW_GROUP: usize = 8 * 1024 * 1024;

pub(super) fn cannot_write(error: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the result cannot be written: {error}"))
}

/// Arrow's type of a column.
fn data_type(column: &Column) -> DataType {
    of_shape(&column.shape, &column.type_name)
}

fn of_shape(shape: &Shape, type_name: &str) -> DataType {
    let unit = if sub_microseconds(type_name) { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
    match shape {
        Shape::Bool => DataType::Boolean,
        Shape::Int => DataType::Int64,
        Shape::Float => DataType::Float64,
        Shape::Decimal { scale } => match (scale, digits(type_name)) {
            (Some(scale), Some(digits)) if digits <= 38 && *scale <= digits => {
                DataType::Decimal128(digits, *scale as i8)
            }
            (Some(scale), None) if *scale <= 38 => DataType::Decimal128(38, *scale as i8),
            _ => DataType::Utf8,
        },
        Shape::Text | Shape::Uuid | Shape::Json => DataType::Utf8,
        Shape::Bytes => DataType::Binary,
        Shape::Date => DataType::Date32,
        Shape::Timestamp => DataType::Timestamp(unit, None),
        Shape::TimestampTz => DataType::Timestamp(unit, Some("UTC".into())),
        Shape::Array(shape) => DataType::List(Arc::new(Field::new_list_field(of_shape(shape, type_name), true))),
    }
}

/// How many digits a value can have, as far as the source's name of the type tells: `Decimal(18, 4)`, `UInt128`.
fn digits(type_name: &str) -> Option<u8> {
    let name = type_name.to_ascii_lowercase();
    if name.contains("int256") || name.contains("decimal256") {
        return Some(u8::MAX);
    }
    if name.contains("int128") {
        return Some(39);
    }
    if name.contains("int64") || name.contains("bigint") {
        return Some(20);
    }
    let at = name.find("decimal").or_else(|| name.find("numeric"))?;
    let rest = &name[at..];
    // Decimal32(S) and the like: the number in the parentheses is the scale.
    for (word, digits) in [("decimal32", 9), ("decimal64", 18), ("decimal128", 38)] {
        if rest.starts_with(word) {
            return Some(digits);
        }
    }
    let inside = &rest[rest.find('(')? + 1..];
    let number = inside.split([',', ')']).next()?.trim();
    Some(number.parse::<u32>().ok()?.min(u32::from(u8::MAX)) as u8)
}

fn sub_microseconds(type_name: &str) -> bool {
    let name = type_name.to_ascii_lowercase();
    ["datetime64(7", "datetime64(8", "datetime64(9"].iter().any(|start| name.contains(start))
}

/// Says of a field that its texts are JSON, in a way that other readers know too (Arrow's canonical extension types).
pub(super) const EXTENSION: (&str, &str) = ("ARROW:extension:name", "arrow.json");

fn schema(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| {
        let field = Field::new(&column.name, data_type(column), true);
        match column.shape {
            Shape::Json => {
                let empty = ("ARROW:extension:metadata".to_owned(), String::new());
                field.with_metadata(HashMap::from([(EXTENSION.0.to_owned(), EXTENSION.1.to_owned()), empty]))
            }
            _ => field,
        }
    };
    let fields: Vec<Field> = columns.iter().map(field).collect();
    Arc::new(Schema::new(fields))
}

/// Rows as one batch of columns.
fn batch(schema: &SchemaRef, columns: &[Column], rows: &[Vec<Value>]) -> Result<RecordBatch, Failure> {
    let mut arrays = Vec::with_capacity(columns.len());
    for (at, (column, field)) in columns.iter().zip(schema.fields()).enumerate() {
        let mut builder = make_builder(field.data_type(), rows.len());
        for row in rows {
            let value = row.get(at).unwrap_or(&Value::Null);
            append(builder.as_mut(), field.data_type(), &column.shape, value).map_err(|what| {
                Failure::new(format!("a value of column \"{}\" cannot be written: {what}", column.name))
                    .detail(format!("The column is of type {}.", column.type_name))
                    .hint("Have the query return it as text, or keep the result as csv or json.")
            })?;
        }
        arrays.push(builder.finish());
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options).map_err(cannot_write)
}

fn append(builder: &mut dyn ArrayBuilder, data_type: &DataType, shape: &Shape, value: &Value) -> Result<(), String> {
    let unlike = || format!("it is not of the shape {shape:?}");
    let text = || value.as_str().ok_or_else(unlike);
    let is_null = value.is_null();
    // Each builder is the one that `make_builder` makes for the type.
    macro_rules! put {
        ($builder:ty, $value:expr) => {{
            let builder = builder.as_any_mut().downcast_mut::<$builder>().ok_or_else(unlike)?;
            if is_null {
                builder.append_null();
            } else {
                builder.append_value($value);
            }
        }};
    }
    match data_type {
        DataType::Boolean => put!(BooleanBuilder, value.as_bool().ok_or_else(unlike)?),
        DataType::Int64 => put!(Int64Builder, value.as_i64().ok_or_else(unlike)?),
        DataType::Float64 => put!(Float64Builder, float(value).ok_or_else(unlike)?),
        DataType::Decimal128(digits, scale) => put!(Decimal128Builder, decimal(text()?, *digits, *scale)?),
        DataType::Date32 => put!(Date32Builder, moments::days(text()?)?),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            put!(TimestampNanosecondBuilder, moments::since_epoch(text()?, Unit::Nanoseconds)?);
        }
        DataType::Timestamp(..) => {
            put!(TimestampMicrosecondBuilder, moments::since_epoch(text()?, Unit::Microseconds)?);
        }
        DataType::Binary => put!(BinaryBuilder, hex::decode(text()?).map_err(|_| unlike())?),
        DataType::Utf8 => match value {
            Value::String(text) if *shape != Shape::Json => put!(StringBuilder, text),
            other => put!(StringBuilder, other.to_string()),
        },
        DataType::List(field) => {
            let list = builder.as_any_mut().downcast_mut::<ListBuilder<Box<dyn ArrayBuilder>>>().ok_or_else(unlike)?;
            let Shape::Array(inner) = shape else { return Err(unlike()) };
            if !is_null {
                for value in value.as_array().ok_or_else(unlike)? {
                    append(list.values().as_mut(), field.data_type(), inner, value)?;
                }
            }
            list.append(!is_null);
        }
        _ => return Err(unlike()),
    }
    Ok(())
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        value => value.as_f64(),
    }
}

/// Digits as the integer that a decimal of this scale is.
fn decimal(text: &str, digits: u8, scale: i8) -> Result<i128, String> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let all = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !all(whole) || !all(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(format!("{} is not a decimal number", shown(text)));
    }
    let fraction = fraction.trim_end_matches('0');
    let scale = usize::try_from(scale).unwrap_or(0);
    if fraction.len() > scale {
        return Err(format!("{} has more than {scale} digits behind the point", shown(text)));
    }
    let number = format!("{whole}{fraction}{}", "0".repeat(scale - fraction.len()));
    let number = number.trim_start_matches('0');
    if number.len() > usize::from(digits) {
        return Err(format!("{} has more than {digits} digits", shown(text)));
    }
    let number: i128 =
        if number.is_empty() { 0 } else { number.parse().map_err(|_| format!("{} is too large", shown(text)))? };
    Ok(if negative { -number } else { number })
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A Parquet file, written row group by row group.
pub(super) struct ParquetFile {
    columns: Vec<Column>,
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl ParquetFile {
    pub fn new(columns: Vec<Column>, compression: Compression) -> Result<ParquetFile, Failure> {
        let schema = schema(&columns);
        let codec = match compression {
            Compression::None => basic::Compression::UNCOMPRESSED,
            Compression::Gzip => basic::Compression::GZIP(Default::default()),
            Compression::Zstd => basic::Compression::ZSTD(Default::default()),
        };
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_created_by(concat!("pgflow ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(cannot_write)?;
        Ok(ParquetFile { columns, schema, writer })
    }

    pub fn write(&mut self, rows: &[Vec<Value>]) -> Result<Vec<u8>, Failure> {
        let batch = batch(&self.schema, &self.columns, rows)?;
        self.writer.write(&batch).map_err(cannot_write)?;
        if self.writer.in_progress_size() >= ROW_GROUP || self.writer.memory_size() >= 2 * ROW_GROUP {
            self.writer.flush().map_err(cannot_write)?;
        }
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    pub fn finish(self) -> Result<Vec<u8>, Failure> {
        self.writer.into_inner().map_err(cannot_write)
    }
}

/// An Arrow IPC stream.
pub(super) struct ArrowFile {
    columns: Vec<Column>,
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
}

impl ArrowFile {
    pub fn new(columns: Vec<Column>) -> Result<ArrowFile, Failure> {
        let schema = schema(&columns);
        let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(cannot_write)?;
        Ok(ArrowFile { columns, schema, writer })
    }

    pub fn write(&mut self, rows: &[Vec<Value>]) -> Result<Vec<u8>, Failure> {
        if !rows.is_empty() {
            self.writer.write(&batch(&self.schema, &self.columns, rows)?).map_err(cannot_write)?;
        }
        Ok(std::mem::take(self.writer.get_mut()))
    }

    pub fn finish(self) -> Result<Vec<u8>, Failure> {
        self.writer.into_inner().map_err(cannot_write)
    }
}
