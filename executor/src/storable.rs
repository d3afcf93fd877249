//! Takes the character NUL out of what is told: Postgres can store it neither in text nor in jsonb, and what cannot be
//! stored could not be told at all.
//!
//! Must never touch values on their way into a table: those are the user's, and fail where they are written.

use serde_json::{Map, Value};

use crate::job::{Done, Failure};
use crate::results::Kept;

/// Stands for it.
const INSTEAD: &str = "\u{fffd}";

pub fn text(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', INSTEAD);
    }
}

pub fn failure(failure: &mut Failure) {
    text(&mut failure.message);
    [&mut failure.code, &mut failure.detail, &mut failure.hint].into_iter().flatten().for_each(text);
}

pub fn done(done: &mut Done) {
    for notice in &mut done.notices {
        text(&mut notice.level);
        text(&mut notice.message);
    }
    done.kept.iter_mut().for_each(kept);
}

pub fn kept(kept: &mut Kept) {
    kept.location.iter_mut().for_each(text);
    for column in &mut kept.columns {
        text(&mut column.name);
        text(&mut column.type_name);
    }
    kept.content.iter_mut().flatten().for_each(object);
}

fn object(values: &mut Map<String, Value>) {
    values.values_mut().for_each(value);
    if values.keys().any(|key| key.contains('\0')) {
        for (key, value) in std::mem::take(values) {
            let mut name = key.replace('\0', INSTEAD);
            // Two keys may have become one: neither value is dropped.
            while values.contains_key(&name) {
                name.push_str(INSTEAD);
            }
            values.insert(name, value);
        }
    }
}

fn value(value: &mut Value) {
    match value {
        Value::String(string) => text(string),
        Value::Array(values) => values.iter_mut().for_each(self::value),
        Value::Object(values) => object(values),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::Notice;
    use crate::results::{Column, Shape};

    #[test]
    fn nothing_that_is_kept_has_nul() {
        let content = json!([{"a\0b": ["x\0", {"k\0": {"deep\0": "\0"}}], "n": 1, "same\0": 1, "same\u{fffd}": 2}]);
        let mut all = Done {
            kept: Some(Kept {
                location: Some("s3://b/\0".into()),
                columns: vec![Column { name: "a\0b".into(), type_name: "Enum('\0')".into(), shape: Shape::Text }],
                content: content.as_array().unwrap().iter().map(|row| row.as_object().cloned()).collect(),
                ..Kept::default()
            }),
            notices: vec![Notice { level: "NOTICE".into(), message: "no\0te".into() }],
            goes_on: false,
        };
        done(&mut all);
        assert_eq!(all.notices[0].message, "no\u{fffd}te");
        let kept = all.kept.unwrap();
        assert_eq!((kept.location.as_deref(), kept.columns[0].name.as_str()), (Some("s3://b/\u{fffd}"), "a\u{fffd}b"));
        let row = &kept.content.as_ref().unwrap()[0];
        assert_eq!(row["a\u{fffd}b"], json!(["x\u{fffd}", {"k\u{fffd}": {"deep\u{fffd}": "\u{fffd}"}}]));
        assert_eq!(row.len(), 4, "{row:?}");
        assert!(!serde_json::to_string(&kept).unwrap().contains("\\u0000"));
    }
}
