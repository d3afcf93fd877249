//! Values of `{name:Type}` parameters, as ClickHouse reads them from `param_name`: the text form of the declared type, with
//! TSV escapes at the outside and quotes inside arrays, maps and tuples.
//!
//! Must never guess: what cannot be a value of the type is a failure that names the parameter.

use chrono::{DateTime, NaiveDateTime};
use serde_json::{Map, Value};

use super::types::Type;
use crate::job::{Failure, Work};

/// Where the value of a parameter comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// Named by `work.secrets`.
    Secret,
    Value(std::borrow::Cow<'a, Value>),
}

/// Finds the value of a parameter: a secret, what `parameters` says of it, or an argument of that name.
pub fn find<'a>(work: &'a Work, name: &str) -> Result<Source<'a>, Failure> {
    use std::borrow::Cow;
    if work.secrets.contains_key(name) {
        return Ok(Source::Secret);
    }
    let given = work.options.get("parameters").and_then(Value::as_object);
    let value = match given.and_then(|given| given.get(name)) {
        Some(Value::String(text)) => match text.strip_prefix('$') {
            Some(literal) if literal.starts_with('$') => Some(Cow::Owned(Value::String(literal.to_owned()))),
            Some(argument) if work.secrets.contains_key(argument) => {
                return Err(Failure::new(format!("parameter {name}: ${argument} is a secret"))
                    .hint(format!("Name the parameter {argument}, as the secret is named.")));
            }
            Some(argument) => match work.arguments.get(argument) {
                Some(value) => Some(Cow::Borrowed(value)),
                None => {
                    return Err(Failure::new(format!("parameter {name}: there is no argument {argument}")).hint(
                        "\"$name\" takes the argument of that name; a text that begins with $ is written \"$$…\".",
                    ));
                }
            },
            None => given.and_then(|given| given.get(name)).map(Cow::Borrowed),
        },
        Some(value) => Some(Cow::Borrowed(value)),
        None => work.arguments.get(name).map(Cow::Borrowed),
    };
    value.map(Source::Value).ok_or_else(|| {
        Failure::new(format!("there is no value for the query's parameter {name}"))
            .hint(format!("Give it in the node's \"parameters\", or as an argument {name} of the step or the flow."))
    })
}

/// The text of a value for `param_name`.
pub fn text(name: &str, type_name: &str, value: &Value) -> Result<String, Failure> {
    let ty = Type::read(type_name);
    let wrong = |what: &str| Failure::new(format!("parameter {name} cannot be {type_name}: {what}"));
    if value.is_null() {
        return match type_name.contains("Nullable") || matches!(ty.name.as_str(), "Variant" | "Dynamic") {
            true => Ok("\\N".to_owned()),
            false => Err(wrong("it is null").hint(format!("Declare it as {{{name}:Nullable({type_name})}}."))),
        };
    }
    match ty.name.as_str() {
        // Written as it is: ClickHouse quotes it.
        "Identifier" => value.as_str().map(str::to_owned).ok_or_else(|| wrong("it is no text")),
        "Array" | "Map" | "Tuple" | "Nested" | "Point" | "Ring" | "Polygon" | "MultiPolygon" => match value {
            // Somebody wrote ClickHouse's own form.
            Value::String(own) => Ok(own.clone()),
            _ => inner(&ty, value, 0).map_err(|what| wrong(&what)),
        },
        _ => scalar(&ty, value).map(|text| escaped(&text)).map_err(|what| wrong(&what)),
    }
}

const DEPTH: usize = 50;

/// A value inside an array, a map or a tuple.
fn inner(ty: &Type, value: &Value, depth: usize) -> Result<String, String> {
    if depth > DEPTH {
        return Err("it is nested too deeply".into());
    }
    let item = |index: usize, value: &Value| match ty.element(index) {
        Some((_, element)) => inner(&element, value, depth + 1),
        None => inner(&Type::read("String"), value, depth + 1),
    };
    if value.is_null() {
        return Ok("NULL".into());
    }
    match (ty.name.as_str(), value) {
        ("Array", Value::Array(items)) => {
            let items: Result<Vec<_>, _> = items.iter().map(|value| item(0, value)).collect();
            Ok(format!("[{}]", items?.join(",")))
        }
        ("Ring" | "Polygon" | "MultiPolygon", Value::Array(items)) => {
            let element = Type::read(match ty.name.as_str() {
                "Ring" => "Point",
                "Polygon" => "Ring",
                _ => "Polygon",
            });
            let items: Result<Vec<_>, _> = items.iter().map(|value| inner(&element, value, depth + 1)).collect();
            Ok(format!("[{}]", items?.join(",")))
        }
        ("Point", Value::Array(items)) if items.len() == 2 => Ok(format!("({},{})", items[0], items[1])),
        ("Map", Value::Object(members)) => {
            let members: Result<Vec<_>, String> = members
                .iter()
                .map(|(key, value)| Ok(format!("{}:{}", item(0, &Value::String(key.clone()))?, item(1, value)?)))
                .collect();
            Ok(format!("{{{}}}", members?.join(",")))
        }
        ("Tuple", Value::Array(items)) if items.len() == ty.arguments.len() => {
            let items: Result<Vec<_>, _> = items.iter().enumerate().map(|(at, value)| item(at, value)).collect();
            Ok(tuple(items?))
        }
        ("Tuple", Value::Object(members)) => tuple_of(ty, members, item),
        ("Array" | "Map" | "Tuple" | "Point" | "Ring" | "Polygon" | "MultiPolygon", _) => {
            Err(format!("a {} is no {}", kind(value), ty.name))
        }
        _ => {
            let text = scalar(ty, value)?;
            Ok(if is_bare(&ty.name) { text } else { quoted(&text) })
        }
    }
}

fn tuple_of(
    ty: &Type,
    members: &Map<String, Value>,
    item: impl Fn(usize, &Value) -> Result<String, String>,
) -> Result<String, String> {
    let items: Result<Vec<_>, String> = (0..ty.arguments.len())
        .map(|at| {
            let name = ty.element(at).and_then(|(name, _)| name).ok_or("its elements have no names")?;
            item(at, members.get(&name).ok_or(format!("its element {name} is missing"))?)
        })
        .collect();
    Ok(tuple(items?))
}

fn tuple(items: Vec<String>) -> String {
    format!("({}{})", items.join(","), if items.len() == 1 { "," } else { "" })
}

/// Whether values stand without quotes inside arrays and the like.
fn is_bare(name: &str) -> bool {
    name.starts_with("Int")
        || name.starts_with("UInt")
        || name.starts_with("Float")
        || name.starts_with("Decimal")
        || name.starts_with("Interval")
        || matches!(name, "Bool" | "BFloat16")
}

/// A value that is no array, map or tuple, before it is escaped or quoted.
fn scalar(ty: &Type, value: &Value) -> Result<String, String> {
    let name = ty.name.as_str();
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(yes) if name == "Bool" || name.contains("String") => yes.to_string(),
        Value::Bool(yes) => u8::from(*yes).to_string(),
        Value::Number(number) => number.to_string(),
        Value::Array(_) | Value::Object(_) if takes_json(name) => return Ok(value.to_string()),
        _ => return Err(format!("a {} is no {name}", kind(value))),
    };
    if is_bare(name) && value.is_string() {
        return bare(name, &text);
    }
    if takes_json(name) && name.starts_with("JSON") {
        // A text that is to be JSON: an object as it is.
        return Ok(text);
    }
    Ok(match name {
        "DateTime" | "DateTime32" => instant(&text).map_or(text, |at| at.timestamp().to_string()),
        "DateTime64" => instant(&text).map_or(text, |at| {
            let nanos = at.timestamp_subsec_nanos();
            format!("{}.{nanos:09}", at.timestamp()).trim_end_matches('0').trim_end_matches('.').to_owned()
        }),
        // What JSON writes for a day may carry a time.
        "Date" | "Date32" => match text.split_once(['T', ' ']) {
            Some((day, _)) if day.len() == 10 => day.to_owned(),
            _ => text,
        },
        _ => text,
    })
}

/// A number or a boolean that came as a text: nothing else may stand in it, since it is not quoted.
fn bare(name: &str, text: &str) -> Result<String, String> {
    let text = text.trim();
    let good = match name {
        "Bool" => matches!(text.to_ascii_lowercase().as_str(), "true" | "false" | "0" | "1"),
        _ => !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)),
    };
    if good {
        Ok(text.to_owned())
    } else {
        Err(format!("this text is no {name}"))
    }
}

fn takes_json(name: &str) -> bool {
    matches!(name, "String" | "FixedString" | "JSON" | "Object" | "Dynamic" | "Variant")
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "JSON array",
        Value::Object(_) => "JSON object",
    }
}

/// A time that says its zone: `2026-11-20T12:30:00+01:00`. One without is left to ClickHouse, which takes the column's or
/// the server's zone.
fn instant(text: &str) -> Option<DateTime<chrono::FixedOffset>> {
    let text = text.trim();
    if NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").is_ok() {
        return None;
    }
    let full = |text: &str| {
        DateTime::parse_from_rfc3339(text).or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
    };
    full(text).ok()
}

/// With the escapes of TSV: the outermost form.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            c => out.push(c),
        }
    }
    out
}

/// As a ClickHouse string literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", escaped(text).replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::{Arguments, Secret};

    fn good(type_name: &str, value: Value) -> String {
        text("p", type_name, &value).unwrap()
    }

    #[test]
    fn values_take_the_form_of_their_type() {
        assert_eq!(good("String", json!("a\tb\\c\n'd'")), "a\\tb\\\\c\\n'd'");
        assert_eq!(good("String", json!({"a": 1})), "{\"a\":1}");
        assert_eq!(good("String", json!(5)), "5");
        assert_eq!(good("Nullable(String)", json!(null)), "\\N");
        assert_eq!(good("UInt64", json!(18_446_744_073_709_551_615_u64)), "18446744073709551615");
        assert_eq!(good("Int256", json!("-12")), "-12");
        assert_eq!(good("UInt8", json!(true)), "1");
        assert_eq!(good("Bool", json!(true)), "true");
        assert_eq!(good("Decimal(20,3)", json!("12.345")), "12.345");
        assert_eq!(good("Array(String)", json!(["a'b", "c\\d", "e\nf"])), "['a\\'b','c\\\\d','e\\nf']");
        assert_eq!(good("Array(Nullable(Int8))", json!([1, null])), "[1,NULL]");
        assert_eq!(good("Array(Array(UInt8))", json!([[1], []])), "[[1],[]]");
        assert_eq!(good("Map(String, UInt64)", json!({"k'": 1})), "{'k\\'':1}");
        assert_eq!(good("Map(UInt8, Array(String))", json!({"1": ["x"]})), "{1:['x']}");
        assert_eq!(good("Tuple(a UInt8, b String)", json!({"b": "x", "a": 1})), "(1,'x')");
        assert_eq!(good("Tuple(UInt8)", json!([1])), "(1,)");
        assert_eq!(good("Date", json!("2026-11-20")), "2026-11-20");
        assert_eq!(good("Date", json!("2026-11-20T00:00:00")), "2026-11-20");
        assert_eq!(good("DateTime", json!("2026-11-20T12:00:00+01:00")), "1795172400");
        assert_eq!(good("DateTime64(3)", json!("2026-11-20T11:00:00.5Z")), "1795172400.5");
        assert_eq!(good("DateTime64(3)", json!("2026-11-20T11:00:00Z")), "1795172400");
        assert_eq!(good("DateTime", json!("2026-11-20 11:00:00")), "2026-11-20 11:00:00");
        assert_eq!(good("Array(DateTime)", json!(["2026-11-20 11:00:00+00"])), "['1795172400']");
        assert_eq!(good("JSON", json!({"a": "b\nc"})), "{\"a\":\"b\\\\nc\"}");
        assert_eq!(good("Identifier", json!("my table")), "my table");
    }

    #[test]
    fn what_cannot_be_of_the_type_is_refused_with_its_name() {
        for (type_name, value) in [
            ("String", json!(null)),
            ("UInt8", json!([1])),
            ("Array(UInt8)", json!(["1], x"])),
            ("Array(UInt8)", json!({"a": 1})),
            ("Tuple(a UInt8)", json!({"b": 1})),
            ("Tuple(UInt8, UInt8)", json!([1])),
            ("Bool", json!("1); drop")),
        ] {
            let failure = text("p_1", type_name, &value).unwrap_err();
            assert!(failure.message.contains("p_1"), "{type_name}: {failure}");
        }
    }

    #[test]
    fn values_are_found_in_their_order() {
        let work = Work {
            arguments: Arguments {
                step_arguments: json!({"a": 1, "s": "no"}),
                flow_arguments: json!({"a": 2, "b": "flow"}),
                ..Arguments::default()
            },
            options: json!({"parameters": {"x": "$b", "y": "$$b", "z": 3, "q": "$nothing"}})
                .as_object()
                .cloned()
                .unwrap(),
            secrets: [("s".to_owned(), Secret::new("hunter22"))].into(),
            ..Work::default()
        };
        let value = |name: &str| match find(&work, name) {
            Ok(Source::Value(value)) => value.into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(value("a"), json!(1));
        assert_eq!(value("x"), json!("flow"));
        assert_eq!(value("y"), json!("$b"));
        assert_eq!(value("z"), json!(3));
        assert_eq!(find(&work, "s").unwrap(), Source::Secret);
        assert!(find(&work, "gone").unwrap_err().message.contains("gone"));
        assert!(find(&work, "q").unwrap_err().message.contains("nothing"));
    }
}
