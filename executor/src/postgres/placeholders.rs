//! Parameters of queries: `{name}` and `{name:type}` outside of quotes and comments.
//!
//! Braces mean nothing in SQL there, so no query is changed that could run as it is. `{name}` becomes a parameter `$n` whose
//! type the server finds out, `{name:type}` becomes `($n::type)`. Values are sent beside the text, as texts that the server
//! reads as that type; nothing is ever pasted into the query.

use std::collections::BTreeMap;
use std::error::Error;

use bytes::BytesMut;
use serde_json::{Map, Value};
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use super::names::is_of_identifier;
use crate::job::{Arguments, Failure, Secret};

/// The most parameters that a statement can have.
const MOST: usize = 65_535;

/// A query as it is sent.
#[derive(Debug, Default)]
pub struct Bound {
    pub text: String,
    pub values: Vec<Text>,
}

/// A value in the form that the server's types read; it does not print.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(Option<String>);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Text {
    pub fn new(text: impl Into<String>) -> Text {
        Text(Some(text.into()))
    }
}

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(match &self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// Where values come from: secrets first, then what `parameters` says, and without `parameters` the arguments.
pub struct Values<'a> {
    pub secrets: &'a BTreeMap<String, Secret>,
    pub parameters: Option<&'a Map<String, Value>>,
    pub arguments: &'a Arguments,
}

impl Values<'_> {
    fn get(&self, name: &str, type_name: &str) -> Result<Text, Failure> {
        if let Some(secret) = self.secrets.get(name) {
            return Ok(Text::new(secret.expose()));
        }
        let Some(parameters) = self.parameters else {
            let value = self.arguments.get(name);
            return value.map(|value| text_of(value, type_name)).ok_or_else(|| {
                Failure::new(format!("the query's parameter {{{name}}} has no value"))
                    .hint("Name it in `parameters`, or give it in the arguments of the step or the flow.")
            });
        };
        let Some(value) = parameters.get(name) else {
            return Err(Failure::new(format!("the query's parameter {{{name}}} has no value"))
                .hint("Name it in `parameters`: with a value, or with \"$name\" for one of the arguments."));
        };
        let value = match value.as_str().and_then(|text| text.strip_prefix('$')) {
            // "$$x" is the text "$x".
            Some(text) if text.starts_with('$') => return Ok(Text::new(text)),
            Some(reference) => self.arguments.get(reference).ok_or_else(|| {
                Failure::new(format!("the parameter {name} refers to an argument ${reference} that is not there"))
                    .hint("Give it in the arguments of the step or the flow.")
            })?,
            None => value,
        };
        Ok(text_of(value, type_name))
    }
}

fn text_of(value: &Value, type_name: &str) -> Text {
    match value {
        Value::Null => Text(None),
        Value::String(text) => Text::new(text.as_str()),
        Value::Array(items) if type_name.ends_with("[]") => Text::new(array_of(items)),
        other => Text::new(other.to_string()),
    }
}

/// A list in the form that the server's arrays read.
fn array_of(items: &[Value]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::Null => "NULL".to_owned(),
            Value::Array(items) => array_of(items),
            Value::String(text) => quoted_item(text),
            other => quoted_item(&other.to_string()),
        })
        .collect();
    format!("{{{}}}", items.join(","))
}

fn quoted_item(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The query with its placeholders replaced, and their values in order.
pub fn bind(query: &str, values: &Values<'_>) -> Result<Bound, Failure> {
    let mut bound = Bound { text: String::with_capacity(query.len()), values: Vec::new() };
    let mut known: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut at = 0;
    while at < query.len() {
        let rest = &query[at..];
        let skipped = quoted_length(rest, &query[..at]);
        if skipped > 0 {
            bound.text.push_str(&rest[..skipped]);
            at += skipped;
            continue;
        }
        if rest.starts_with('{') {
            let (name, type_name, length) = placeholder(rest)?;
            let number = match known.get(&(name.clone(), type_name.clone())) {
                Some(number) => *number,
                None => {
                    bound.values.push(values.get(&name, &type_name)?);
                    let number = bound.values.len();
                    if number > MOST {
                        return Err(Failure::new("the query has too many parameters"));
                    }
                    known.insert((name, type_name.clone()), number);
                    number
                }
            };
            match type_name.as_str() {
                "" => bound.text.push_str(&format!("${number}")),
                type_name => bound.text.push_str(&format!("(${number}::{type_name})")),
            }
            at += length;
            continue;
        }
        let next = rest.chars().next().map_or(1, char::len_utf8);
        bound.text.push_str(&rest[..next]);
        at += next;
    }
    Ok(bound)
}

/// The name, the type and the length of the placeholder that a text begins with.
fn placeholder(text: &str) -> Result<(String, String, usize), Failure> {
    let wrong = || {
        let shown: String = text.chars().take(40).collect();
        Failure::new(format!("a parameter of the query cannot be read at \"{shown}\""))
            .hint("It is written {name} or {name:type}; a brace that is meant as text belongs into quotes.")
    };
    let end = text.find('}').ok_or_else(wrong)?;
    let inner = &text[1..end];
    let (name, type_name) = inner.split_once(':').unwrap_or((inner, ""));
    let (name, type_name) = (name.trim(), type_name.trim());
    let named =
        !name.is_empty() && name.chars().all(is_of_identifier) && !name.starts_with(|c: char| c.is_ascii_digit());
    // A type is words, a schema, a size in parentheses, brackets; never anything that could end the cast.
    let typed = type_name.chars().all(|c| c.is_alphanumeric() || "_ .,()[]\"".contains(c));
    let balanced = {
        let mut depth = 0i32;
        type_name.chars().all(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth >= 0
        }) && depth == 0
            && type_name.matches('"').count() % 2 == 0
    };
    if !named || !typed || !balanced || inner.ends_with(':') {
        return Err(wrong());
    }
    Ok((name.to_owned(), type_name.to_owned(), end + 1))
}

/// The length of the quoted text or comment that a text begins with; 0: it begins with neither.
fn quoted_length(text: &str, before: &str) -> usize {
    let bytes = text.as_bytes();
    let mut before = before.chars().rev();
    let (last, last_but_one) = (before.next(), before.next());
    match bytes {
        [b'\'', ..] => {
            // E'…' has backslashes; what else may stand before a quote (date'…') has none.
            let escapes = matches!(last, Some('e' | 'E')) && !last_but_one.is_some_and(is_of_identifier);
            closing(bytes, b'\'', escapes)
        }
        [b'"', ..] => closing(bytes, b'"', false),
        [b'-', b'-', ..] => text.find('\n').map_or(text.len(), |at| at + 1),
        [b'/', b'*', ..] => {
            let (mut depth, mut at) = (1, 2);
            while at < bytes.len() && depth > 0 {
                match &bytes[at..] {
                    [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
                    [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
            }
            at
        }
        [b'$', ..] if !last.is_some_and(is_of_identifier) => {
            let Some(end) = text[1..].find('$').map(|at| at + 1) else { return 0 };
            let tag = &text[1..end];
            if tag.starts_with(|c: char| c.is_ascii_digit()) || !tag.chars().all(|c| c != '$' && is_of_identifier(c)) {
                return 0;
            }
            let mark = &text[..=end];
            text[end + 1..].find(mark).map_or(text.len(), |at| end + 1 + at + mark.len())
        }
        _ => 0,
    }
}

/// Behind the closing quote of what begins with one. A doubled quote closes and opens again, which comes to the same.
fn closing(bytes: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        let doubled = bytes[at] == quote && bytes.get(at + 1) == Some(&quote);
        if doubled || escapes && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] == quote {
            return at + 1;
        } else {
            at += 1;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bound(query: &str, parameters: Option<Value>) -> Result<Bound, Failure> {
        let arguments = Arguments {
            flow_arguments: json!({"day": "2026-11-20", "n": 1}),
            step_arguments: json!({"n": 2, "list": ["a\"b", null, 3]}),
            ..Arguments::default()
        };
        let secrets = BTreeMap::from([("key".to_owned(), Secret::new("hunter22"))]);
        let parameters = parameters.map(|p| p.as_object().cloned().unwrap());
        bind(query, &Values { secrets: &secrets, parameters: parameters.as_ref(), arguments: &arguments })
    }

    #[test]
    fn placeholders_become_parameters() {
        let got = bound("SELECT {n:int}, {day}, {n:int}, {n}, {key}, {list:text[]}", None).unwrap();
        assert_eq!(got.text, "SELECT ($1::int), $2, ($1::int), $3, $4, ($5::text[])");
        let texts: Vec<_> = got.values.iter().map(|v| v.0.clone().unwrap()).collect();
        assert_eq!(texts, ["2", "2026-11-20", "2", "hunter22", r#"{"a\"b",NULL,"3"}"#]);
        assert!(!format!("{got:?}").contains("hunter22"));
    }

    #[test]
    fn quotes_and_comments_are_left_alone() {
        let query = "SELECT '{n}', date'\\', E'\\'{n}', \"{n}\", $x${n}$x$, $${n}$$ -- {n}\n/* {n} /* {n} */ {n} */ , a$b, ''''";
        assert_eq!(bound(query, None).unwrap().text, query);
    }

    #[test]
    fn parameters_are_values_or_references() {
        let parameters = json!({"a": "$n", "b": "$$n", "c": null, "d": {"x": 1}});
        let got = bound("{a} {b} {c} {d}", Some(parameters.clone())).unwrap();
        assert_eq!(got.values, [Text::new("2"), Text::new("$n"), Text(None), Text::new(r#"{"x":1}"#)]);
        assert!(bound("{n}", Some(parameters)).unwrap_err().message.contains("{n}"));
        assert!(bound("{a}", Some(json!({"a": "$nothing"}))).unwrap_err().message.contains("$nothing"));
    }

    #[test]
    fn what_is_no_placeholder_is_refused() {
        for query in ["{", "{}", "{a b}", "{1}", "{n:int)}", "{n:int;}", "{n:}", "{n:int)::text(}"] {
            assert!(bound(query, None).is_err(), "{query}");
        }
    }
}
