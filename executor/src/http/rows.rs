//! An answer as a table: JSON objects as rows, anything else as one row that holds it.
//!
//! Pure. Must never change a value: what does not fit a narrower column is kept as JSON.

use serde_json::{Map, Value};

use crate::results::{Column, Shape};

#[derive(Debug, PartialEq)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
}

/// `json`: the other side says that it is JSON. If it is not, it is kept as it is.
pub fn table_of(status: u16, headers: Map<String, Value>, body: Vec<u8>, json: bool) -> Table {
    if json {
        match serde_json::from_slice(&body) {
            Ok(Value::Object(object)) => return of_objects(vec![object]),
            Ok(Value::Array(items)) if items.iter().all(Value::is_object) => {
                return of_objects(items.into_iter().filter_map(object_of).collect());
            }
            _ => {}
        }
    }
    let (body, shape, type_name) = match String::from_utf8(body) {
        Ok(text) => (text, Shape::Text, "text"),
        Err(error) => (hex::encode(error.as_bytes()), Shape::Bytes, "bytea"),
    };
    let columns = vec![
        column("status", Shape::Int, "integer"),
        column("headers", Shape::Json, "jsonb"),
        column("body", shape, type_name),
    ];
    Table { columns, rows: vec![vec![Value::from(status), Value::Object(headers), Value::from(body)]] }
}

fn object_of(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

fn column(name: &str, shape: Shape, type_name: &str) -> Column {
    Column { name: name.to_owned(), type_name: type_name.to_owned(), shape }
}

/// Columns in the order in which their names come up.
fn of_objects(objects: Vec<Map<String, Value>>) -> Table {
    let mut kinds: Map<String, Value> = Map::new();
    let mut seen: Vec<Seen> = Vec::new();
    for object in &objects {
        for (name, value) in object {
            let at = match kinds.get(name).and_then(Value::as_u64) {
                Some(at) => at as usize,
                None => {
                    kinds.insert(name.clone(), Value::from(seen.len()));
                    seen.push(Seen::default());
                    seen.len() - 1
                }
            };
            seen[at].see(value);
        }
    }
    let columns: Vec<Column> = kinds.keys().zip(&seen).map(|(name, seen)| seen.column(name)).collect();
    let rows = objects
        .into_iter()
        .map(|mut object| {
            let values = columns.iter().map(|column| match (object.remove(&column.name), &column.shape) {
                (Some(Value::Number(number)), Shape::Decimal { .. }) => Value::from(number.to_string()),
                (value, _) => value.unwrap_or_default(),
            });
            values.collect()
        })
        .collect();
    Table { columns, rows }
}

/// What the values of a column have been so far.
#[derive(Default)]
struct Seen {
    bools: bool,
    ints: bool,
    large_ints: bool,
    floats: bool,
    texts: bool,
    others: bool,
}

impl Seen {
    fn see(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::Bool(_) => self.bools = true,
            Value::Number(number) if number.is_i64() => self.ints = true,
            Value::Number(number) if number.is_u64() => self.large_ints = true,
            Value::Number(_) => self.floats = true,
            Value::String(_) => self.texts = true,
            Value::Array(_) | Value::Object(_) => self.others = true,
        }
    }

    fn column(&self, name: &str) -> Column {
        let (shape, type_name) = match (self.bools, self.ints, self.large_ints, self.floats, self.texts, self.others) {
            (true, false, false, false, false, false) => (Shape::Bool, "boolean"),
            (false, true, false, false, false, false) => (Shape::Int, "bigint"),
            (false, _, true, false, false, false) => (Shape::Decimal { scale: Some(0) }, "numeric"),
            (false, false, false, true, false, false) => (Shape::Float, "double precision"),
            // Beyond 2^53 a whole number is not the same as a float: decimals hold both.
            (false, _, _, true, false, false) => (Shape::Decimal { scale: None }, "numeric"),
            (false, false, false, false, _, false) => (Shape::Text, "text"),
            _ => (Shape::Json, "jsonb"),
        };
        column(name, shape, type_name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(body: &str) -> Table {
        table_of(200, Map::new(), body.as_bytes().to_vec(), true)
    }

    #[test]
    fn objects_are_rows_with_the_columns_of_all() {
        let table = table(
            r#"[{"i": 1, "f": 1.5, "b": true, "t": "x", "j": [1], "m": 1, "n": null},
                {"i": -2, "f": 2.25, "b": null, "t": null, "j": "y", "m": "a", "late": 18446744073709551615}]"#,
        );
        let shapes: Vec<_> = table.columns.iter().map(|c| (c.name.as_str(), c.shape.clone())).collect();
        assert_eq!(
            shapes,
            vec![
                ("i", Shape::Int),
                ("f", Shape::Float),
                ("b", Shape::Bool),
                ("t", Shape::Text),
                ("j", Shape::Json),
                ("m", Shape::Json),
                ("n", Shape::Text),
                ("late", Shape::Decimal { scale: Some(0) }),
            ]
        );
        assert_eq!(table.rows[1][7], json!("18446744073709551615"));
        assert_eq!(table.rows[0][7], Value::Null);
        assert_eq!(table.rows[0][..4], [json!(1), json!(1.5), json!(true), json!("x")]);
    }

    #[test]
    fn whole_numbers_among_floats_keep_every_digit() {
        let table = table(r#"[{"n": 9007199254740993}, {"n": 0.5}]"#);
        assert_eq!(table.columns[0].shape, Shape::Decimal { scale: None });
        assert_eq!(table.rows, vec![vec![json!("9007199254740993")], vec![json!("0.5")]]);
    }

    #[test]
    fn one_object_is_one_row_and_an_empty_array_none() {
        assert_eq!(table(r#"{"a": 1}"#).rows, vec![vec![json!(1)]]);
        assert_eq!(table("[]"), Table { columns: vec![], rows: vec![] });
    }

    #[test]
    fn anything_else_is_kept_as_it_is() {
        for body in ["", "hello", "[1, 2]", "\"x\"", "{\"a\": "] {
            let table = table(body);
            assert_eq!(table.rows, vec![vec![json!(200), json!({}), json!(body)]]);
        }
        let table = table_of(201, Map::new(), vec![0xff, 0x00], false);
        assert_eq!((table.columns[2].shape.clone(), table.rows[0][2].clone()), (Shape::Bytes, json!("ff00")));
        assert_eq!(table_of(200, Map::new(), b"{}".to_vec(), false).columns.len(), 3);
    }
}
