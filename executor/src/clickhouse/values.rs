//! ClickHouse's types and values as columns and values of results.

use serde_json::{Map, Number, Value};

use super::json;
use super::types::Type;
use crate::results::{Column, Shape};

/// How the values of a column are read.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Bool,
    Int,
    Float,
    /// Integers beyond 64 bits with sign, and decimals: their digits.
    Digits(Option<u8>),
    Text,
    /// Text that is padded with zero bytes.
    Fixed,
    Date,
    /// DateTime, DateTime64: in UTC, as `date_time_output_format = iso` writes them.
    Moment,
    Uuid,
    Array(Box<Cell>),
    Map(Box<Cell>),
    /// Elements, and whether they come as an object.
    Tuple(Vec<(Option<String>, Cell)>),
    /// Anything else: as it comes.
    Json,
}

/// A column of a result.
pub fn column(name: String, type_name: String) -> (Column, Cell) {
    let cell = Cell::of(&Type::read(&type_name));
    (Column { name, type_name, shape: cell.shape() }, cell)
}

impl Cell {
    pub fn of(ty: &Type) -> Cell {
        let inner = |index: usize| Box::new(ty.element(index).map_or(Cell::Json, |(_, inner)| Cell::of(&inner)));
        let tuple = || Cell::Tuple((0..ty.arguments.len()).filter_map(|at| ty.element(at)).map(named).collect());
        match ty.name.as_str() {
            "Bool" => Cell::Bool,
            "Int8" | "Int16" | "Int32" | "Int64" | "UInt8" | "UInt16" | "UInt32" => Cell::Int,
            "UInt64" | "Int128" | "UInt128" | "Int256" | "UInt256" => Cell::Digits(Some(0)),
            "Float32" | "Float64" | "BFloat16" => Cell::Float,
            "String" | "IPv4" | "IPv6" | "Time" | "Time64" | "Nothing" => Cell::Text,
            "FixedString" => Cell::Fixed,
            "Date" | "Date32" => Cell::Date,
            "DateTime" | "DateTime32" | "DateTime64" => Cell::Moment,
            "UUID" => Cell::Uuid,
            "Array" => Cell::Array(inner(0)),
            "Map" => Cell::Map(inner(1)),
            "Tuple" => tuple(),
            "Nested" => Cell::Array(Box::new(tuple())),
            name if name.starts_with("Decimal") => Cell::Digits(ty.scale()),
            name if name.starts_with("Enum") => Cell::Text,
            name if name.starts_with("Interval") => Cell::Int,
            _ => Cell::Json,
        }
    }

    pub fn shape(&self) -> Shape {
        match self {
            Cell::Bool => Shape::Bool,
            Cell::Int => Shape::Int,
            Cell::Float => Shape::Float,
            Cell::Digits(scale) => Shape::Decimal { scale: *scale },
            Cell::Text | Cell::Fixed => Shape::Text,
            Cell::Date => Shape::Date,
            Cell::Moment => Shape::TimestampTz,
            Cell::Uuid => Shape::Uuid,
            Cell::Array(inner) => match inner.shape() {
                // Arrays of arrays may be ragged, which no array of Postgres can be.
                Shape::Json | Shape::Array(_) => Shape::Json,
                inner => Shape::Array(Box::new(inner)),
            },
            Cell::Map(_) | Cell::Tuple(_) | Cell::Json => Shape::Json,
        }
    }

    /// A value as ClickHouse wrote it in JSON. The error says what is wrong with it.
    pub fn value(&self, text: &str) -> Result<Value, String> {
        if text == "null" {
            return Ok(Value::Null);
        }
        match self {
            Cell::Int => match bare(text).parse::<i64>() {
                Ok(number) => Ok(Value::Number(number.into())),
                Err(_) => Err("a number does not fit 64 bits".into()),
            },
            Cell::Digits(_) => digits(bare(text)).map(Value::String),
            Cell::Float => match bare(text) {
                "nan" | "-nan" => Ok("NaN".into()),
                "inf" => Ok("Infinity".into()),
                "-inf" => Ok("-Infinity".into()),
                number => float(number),
            },
            Cell::Text | Cell::Date | Cell::Moment | Cell::Uuid => string(text).map(Value::String),
            Cell::Fixed => string(text).map(|text| Value::String(text.trim_end_matches('\0').to_owned())),
            Cell::Array(inner) => {
                let elements = json::elements(text).ok_or("an array cannot be read")?;
                elements.into_iter().map(|element| inner.value(element)).collect::<Result<_, _>>().map(Value::Array)
            }
            Cell::Map(inner) => {
                let mut object = Map::new();
                for (name, value) in json::members(text).ok_or("a map cannot be read")? {
                    object.insert(string(name)?, inner.value(value)?);
                }
                Ok(Value::Object(object))
            }
            Cell::Tuple(parts) => tuple(parts, text),
            Cell::Bool | Cell::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
        }
    }
}

fn named((name, ty): (Option<String>, Type)) -> (Option<String>, Cell) {
    (name, Cell::of(&ty))
}

/// An object if its elements have names, else an array.
fn tuple(parts: &[(Option<String>, Cell)], text: &str) -> Result<Value, String> {
    let part = |at: usize| parts.get(at).map_or(&Cell::Json, |(_, cell)| cell);
    if let Some(elements) = json::elements(text) {
        let values = elements.into_iter().enumerate().map(|(at, element)| part(at).value(element));
        return values.collect::<Result<_, _>>().map(Value::Array);
    }
    let mut object = Map::new();
    for (at, (name, value)) in json::members(text).ok_or("a tuple cannot be read")?.into_iter().enumerate() {
        object.insert(string(name)?, part(at).value(value)?);
    }
    Ok(Value::Object(object))
}

/// Without the quotes that some settings put around numbers.
fn bare(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

fn digits(text: &str) -> Result<String, String> {
    let number = text.strip_prefix('-').unwrap_or(text);
    match !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        true => Ok(text.to_owned()),
        false => Err("a number cannot be read".into()),
    }
}

fn float(text: &str) -> Result<Value, String> {
    let number = text.parse::<f64>().ok().and_then(Number::from_f64);
    number.map(Value::Number).ok_or_else(|| "a number cannot be read".into())
}

fn string(text: &str) -> Result<String, String> {
    // Enums and the like are strings; whatever else comes is shown as it is written.
    match text.starts_with('"') {
        true => serde_json::from_str(text).map_err(|error| error.to_string()),
        false => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(type_name: &str, text: &str) -> (Shape, Value) {
        let (column, cell) = column("c".into(), type_name.into());
        (column.shape, cell.value(text).unwrap())
    }

    #[test]
    fn types_become_shapes_and_values_keep_every_digit() {
        assert_eq!(read("UInt32", "7"), (Shape::Int, json!(7)));
        assert_eq!(read("Nullable(Int64)", "\"-9223372036854775808\""), (Shape::Int, json!(i64::MIN)));
        assert_eq!(read("Nullable(Int64)", "null").1, Value::Null);
        assert_eq!(
            read("UInt64", "18446744073709551615"),
            (Shape::Decimal { scale: Some(0) }, json!("18446744073709551615"))
        );
        let big = "-57896044618658097711785492504343953926634992332820282019728792003956564819968";
        assert_eq!(read("Int256", big).1, json!(big));
        assert_eq!(read("Decimal(76, 3)", "0.100"), (Shape::Decimal { scale: Some(3) }, json!("0.100")));
        assert_eq!(read("Float64", "\"nan\""), (Shape::Float, json!("NaN")));
        assert_eq!(read("Float32", "\"-inf\"").1, json!("-Infinity"));
        assert_eq!(read("Float64", "1e300").1, json!(1e300));
        assert_eq!(read("LowCardinality(Nullable(String))", "\"a\\n\"").1, json!("a\n"));
        assert_eq!(read("FixedString(4)", "\"ab\\u0000\\u0000\"").1, json!("ab"));
        assert_eq!(read("DateTime64(3, 'Asia/Tokyo')", "\"2026-01-01T00:00:00.123Z\"").0, Shape::TimestampTz);
        assert_eq!(read("Enum8('a' = 1)", "\"a\""), (Shape::Text, json!("a")));
        let array = Shape::Array(Box::new(Shape::Decimal { scale: Some(0) }));
        assert_eq!(read("Array(UInt64)", "[1,18446744073709551615]"), (array, json!(["1", "18446744073709551615"])));
        assert_eq!(read("Array(Array(Int8))", "[[1],[2,3]]"), (Shape::Json, json!([[1], [2, 3]])));
        assert_eq!(read("Map(String, UInt8)", "{\"a\":1}"), (Shape::Json, json!({"a": 1})));
        assert_eq!(read("Tuple(a Int128, b String)", "{\"a\":1,\"b\":\"x\"}").1, json!({"a": "1", "b": "x"}));
        assert_eq!(read("Tuple(Int8, String)", "[1,\"x\"]").1, json!([1, "x"]));
        assert_eq!(read("JSON", "{\"x\":9007199254740993}").1, json!({"x": 9_007_199_254_740_993_i64}));
        assert_eq!(read("Bool", "true"), (Shape::Bool, json!(true)));
        assert_eq!(read("Variant(String, UInt8)", "5"), (Shape::Json, json!(5)));
    }
}
