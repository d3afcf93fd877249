//! Columns of Arrow as JSON values: those that `columns` writes as they went in, and whatever other programs write.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Int8Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt16Type,
    UInt32Type, UInt64Type, UInt8Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_json::writer::make_encoder;
use arrow_json::EncoderOptions;
use arrow_schema::{DataType, FieldRef, TimeUnit};
use serde_json::{Map, Value};

use super::columns::EXTENSION;
use super::moments::{date_text, time_text, Unit};

/// The rows of a batch.
pub(super) fn rows(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, String> {
    let schema = batch.schema();
    let mut rows = vec![Map::new(); batch.num_rows()];
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let is_json = field.metadata().get(EXTENSION.0).is_some_and(|name| name == EXTENSION.1);
        for (at, row) in rows.iter_mut().enumerate() {
            let value = match value(field, column.as_ref(), at)? {
                Value::String(text) if is_json => serde_json::from_str(&text).unwrap_or(Value::String(text)),
                value => value,
            };
            row.insert(field.name().clone(), value);
        }
    }
    Ok(rows)
}

fn value(field: &FieldRef, array: &dyn Array, at: usize) -> Result<Value, String> {
    if array.is_null(at) {
        return Ok(Value::Null);
    }
    macro_rules! number {
        ($type:ty) => {
            Value::from(array.as_primitive::<$type>().value(at))
        };
    }
    macro_rules! time {
        ($type:ty, $unit:expr, $utc:expr) => {
            Value::String(time_text(array.as_primitive::<$type>().value(at), $unit, $utc))
        };
    }
    macro_rules! clock {
        ($type:ty, $unit:expr) => {{
            let text = time_text(i64::from(array.as_primitive::<$type>().value(at)), $unit, false);
            Value::String(text.split_once('T').map(|(_, clock)| clock.to_owned()).unwrap_or(text))
        }};
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(at)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => match array.as_primitive::<UInt64Type>().value(at) {
            small if i64::try_from(small).is_ok() => Value::from(small),
            large => Value::String(large.to_string()),
        },
        // By its shortest digits: 0.1 is 0.1.
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(at);
            float(value.to_string().parse().unwrap_or(f64::from(value)))
        }
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(at)),
        DataType::Decimal128(..) => Value::String(array.as_primitive::<Decimal128Type>().value_as_string(at)),
        DataType::Decimal256(..) => Value::String(array.as_primitive::<Decimal256Type>().value_as_string(at)),
        DataType::Utf8 => Value::String(array.as_string::<i32>().value(at).to_owned()),
        DataType::LargeUtf8 => Value::String(array.as_string::<i64>().value(at).to_owned()),
        DataType::Utf8View => Value::String(array.as_string_view().value(at).to_owned()),
        DataType::Binary => Value::String(hex::encode(array.as_binary::<i32>().value(at))),
        DataType::LargeBinary => Value::String(hex::encode(array.as_binary::<i64>().value(at))),
        DataType::BinaryView => Value::String(hex::encode(array.as_binary_view().value(at))),
        DataType::FixedSizeBinary(_) => Value::String(hex::encode(array.as_fixed_size_binary().value(at))),
        DataType::Date32 => Value::String(date_text(i64::from(array.as_primitive::<Date32Type>().value(at)))),
        DataType::Date64 => {
            Value::String(date_text(array.as_primitive::<Date64Type>().value(at).div_euclid(86_400_000)))
        }
        DataType::Timestamp(TimeUnit::Second, zone) => time!(TimestampSecondType, Unit::Seconds, zone.is_some()),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            time!(TimestampMillisecondType, Unit::Milliseconds, zone.is_some())
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            time!(TimestampMicrosecondType, Unit::Microseconds, zone.is_some())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            time!(TimestampNanosecondType, Unit::Nanoseconds, zone.is_some())
        }
        DataType::Time32(TimeUnit::Second) => clock!(Time32SecondType, Unit::Seconds),
        DataType::Time32(_) => clock!(Time32MillisecondType, Unit::Milliseconds),
        DataType::Time64(TimeUnit::Microsecond) => clock!(Time64MicrosecondType, Unit::Microseconds),
        DataType::Time64(_) => clock!(Time64NanosecondType, Unit::Nanoseconds),
        DataType::List(inner) => list(inner, array.as_list::<i32>().value(at).as_ref())?,
        DataType::LargeList(inner) => list(inner, array.as_list::<i64>().value(at).as_ref())?,
        DataType::FixedSizeList(inner, _) => list(inner, array.as_fixed_size_list().value(at).as_ref())?,
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let values = fields
                .iter()
                .zip(columns)
                .map(|(field, column)| value(field, column.as_ref(), at).map(|value| (field.name().clone(), value)));
            Value::Object(values.collect::<Result<_, _>>()?)
        }
        DataType::Map(..) => map(array.as_map().value(at).columns(), field)?,
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            match value(field, dictionary.keys(), at)?.as_u64() {
                Some(key) => value(field, dictionary.values().as_ref(), key as usize)?,
                None => return Err("a dictionary has a key that is no number".into()),
            }
        }
        _ => by_arrow(field, array, at)?,
    })
}

fn float(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn list(field: &FieldRef, values: &dyn Array) -> Result<Value, String> {
    (0..values.len()).map(|at| value(field, values, at)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// A map as an object; its keys as texts.
fn map(columns: &[arrow_array::ArrayRef], field: &FieldRef) -> Result<Value, String> {
    let [keys, values] = columns else { return Err("a map is not of keys and values".into()) };
    let mut object = Map::new();
    for at in 0..keys.len() {
        let key = match value(field, keys.as_ref(), at)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        object.insert(key, value(field, values.as_ref(), at)?);
    }
    Ok(Value::Object(object))
}

/// What is left (intervals, unions, …), as Arrow's own JSON writer has it.
fn by_arrow(field: &FieldRef, array: &dyn Array, at: usize) -> Result<Value, String> {
    let options = EncoderOptions::default();
    let mut encoder = make_encoder(field, array, &options).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    encoder.encode(at, &mut text);
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}
