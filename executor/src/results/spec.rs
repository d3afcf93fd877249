//! What a node or task says about its result (`result` in a configuration), as plain values. Pure.

use serde_json::{Map, Value};

use super::location::check_template;
use super::{Compression, Format};
use crate::kind::Fault;

/// What is kept inline unless it is said otherwise.
pub const INLINE_ROWS: u64 = 1000;
pub const INLINE_BYTES: u64 = 1024 * 1024;

/// What is to be done with a result, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultSpec {
    pub to: ResultTo,
    /// An interval as Postgres reads it; None: what the store or the server's settings say.
    pub keep_for: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResultTo {
    #[default]
    Nothing,
    Inline {
        max_rows: u64,
        max_bytes: u64,
        /// Of an HTTP answer: whether its headers are kept too.
        headers: bool,
    },
    Table {
        /// `schema.name`, or a name that the run's role's search path leads to.
        table: String,
        /// Makes it if it is not there; true unless it is said otherwise.
        create: bool,
        truncate: bool,
    },
    /// Written by the executor.
    Object(ObjectSpec),
    /// Written by the other side.
    Export(ObjectSpec),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectSpec {
    pub store: String,
    /// For `object_path`.
    pub path: Option<String>,
    pub format: Format,
    pub compression: Compression,
}

/// The keys of each kind, beside `to` and `keep_for`.
const KINDS: &[(&str, &[&str])] = &[
    ("none", &[]),
    ("inline", &["max_rows", "max_bytes", "headers"]),
    ("table", &["table", "create", "truncate"]),
    ("object", &["store", "path", "format", "compression"]),
    ("export", &["store", "path", "format", "compression"]),
];

/// Reads the `result` option: a word, or an object. Faults have paths relative to it (`.max_rows`).
pub fn parse_result(options: &Value) -> Result<ResultSpec, Vec<Fault>> {
    let whole = |message: &str| vec![Fault::new("", message.to_owned())];
    let word;
    let object = match options {
        Value::Null => return Ok(ResultSpec::default()),
        Value::String(to) => {
            word = Map::from_iter([("to".to_owned(), Value::String(to.clone()))]);
            &word
        }
        Value::Object(object) => object,
        _ => {
            return Err(whole("it must be \"none\", \"inline\" or an object such as {\"to\": \"table\", \"table\": …}"))
        }
    };
    let kinds = || KINDS.iter().map(|(kind, _)| format!("\"{kind}\"")).collect::<Vec<_>>().join(", ");
    let to = match object.get("to") {
        Some(Value::String(to)) => to.as_str(),
        Some(_) => return Err(vec![Fault::new(".to", format!("it must be one of {}", kinds()))]),
        None => return Err(vec![Fault::new(".to", format!("it is missing; it is one of {}", kinds()))]),
    };
    let Some((_, keys)) = KINDS.iter().find(|(kind, _)| *kind == to) else {
        let path = if options.is_string() { "" } else { ".to" };
        return Err(vec![Fault::new(path, format!("there is no result {to:?}: it is one of {}", kinds()))]);
    };
    let mut reader = Reader { object, faults: Vec::new() };
    for key in object.keys().filter(|key| !["to", "keep_for"].contains(&key.as_str()) && !keys.contains(&key.as_str()))
    {
        let known = ["to", "keep_for"].iter().chain(keys.iter()).copied().collect::<Vec<_>>().join(", ");
        reader.faults.push(Fault::new(format!(".{key}"), format!("a result to {to:?} has no {key}; it has {known}")));
    }
    let spec = ResultSpec {
        keep_for: reader.text("keep_for"),
        to: match to {
            "inline" => ResultTo::Inline {
                max_rows: reader.count("max_rows").unwrap_or(INLINE_ROWS),
                max_bytes: reader.count("max_bytes").unwrap_or(INLINE_BYTES),
                headers: reader.flag("headers", false),
            },
            "table" => ResultTo::Table {
                table: reader.needed("table"),
                create: reader.flag("create", true),
                truncate: reader.flag("truncate", false),
            },
            "object" => ResultTo::Object(reader.object()),
            "export" => ResultTo::Export(reader.object()),
            _ => ResultTo::Nothing,
        },
    };
    if reader.faults.is_empty() {
        Ok(spec)
    } else {
        Err(reader.faults)
    }
}

struct Reader<'a> {
    object: &'a Map<String, Value>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, key: &str, message: impl Into<String>) {
        self.faults.push(Fault::new(format!(".{key}"), message));
    }

    /// A text that is not empty; `null` counts as not given.
    fn text(&mut self, key: &str) -> Option<String> {
        match self.object.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if !text.trim().is_empty() => Some(text.clone()),
            Some(_) => {
                self.fault(key, "it must be a text");
                None
            }
        }
    }

    fn needed(&mut self, key: &str) -> String {
        if self.object.get(key).is_none_or(Value::is_null) {
            self.fault(key, "it is missing");
        }
        self.text(key).unwrap_or_default()
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.object.get(key) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.fault(key, "it must be true or false");
                default
            }
        }
    }

    fn count(&mut self, key: &str) -> Option<u64> {
        match self.object.get(key)? {
            Value::Null => None,
            Value::Number(number) if number.as_u64().is_some_and(|n| n <= i64::MAX as u64) => number.as_u64(),
            _ => {
                self.fault(key, "it must be a whole number, 0 or more");
                None
            }
        }
    }

    fn object(&mut self) -> ObjectSpec {
        let store = self.needed("store");
        let path = self.text("path");
        if let Some(Err(message)) = path.as_deref().map(check_template) {
            self.fault("path", message);
        }
        let format = self.word("format", Format::Parquet, "parquet, csv, json or arrow");
        let by_format = if format == Format::Parquet { Compression::Zstd } else { Compression::None };
        let compression = self.word("compression", by_format, "none, gzip or zstd");
        ObjectSpec { store, path, format, compression }
    }

    fn word<T: serde::de::DeserializeOwned>(&mut self, key: &str, default: T, words: &str) -> T {
        match self.object.get(key) {
            None | Some(Value::Null) => default,
            Some(value) => serde_json::from_value(value.clone()).unwrap_or_else(|_| {
                self.fault(key, format!("it must be one of {words}"));
                default
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn to(options: Value) -> ResultTo {
        parse_result(&options).unwrap().to
    }

    fn faults(options: Value) -> Vec<String> {
        let faults = parse_result(&options).unwrap_err();
        faults.into_iter().map(|f| format!("{}: {}", f.path, f.message)).collect()
    }

    #[test]
    fn words_and_objects_are_read() {
        let inline = ResultTo::Inline { max_rows: 1000, max_bytes: 1024 * 1024, headers: false };
        assert_eq!(to(json!(null)), ResultTo::Nothing);
        assert_eq!(to(json!("none")), ResultTo::Nothing);
        assert_eq!(to(json!("inline")), inline);
        assert_eq!(to(json!({"to": "inline"})), inline);
        assert_eq!(
            to(json!({"to": "inline", "max_rows": 5, "max_bytes": 6, "headers": true})),
            ResultTo::Inline { max_rows: 5, max_bytes: 6, headers: true }
        );
        assert_eq!(
            to(json!({"to": "table", "table": "s.t"})),
            ResultTo::Table { table: "s.t".into(), create: true, truncate: false }
        );
        assert_eq!(
            to(json!({"to": "table", "table": "t", "create": false, "truncate": true})),
            ResultTo::Table { table: "t".into(), create: false, truncate: true }
        );
        let spec = parse_result(&json!({"to": "none", "keep_for": "7 days"})).unwrap();
        assert_eq!(spec.keep_for.as_deref(), Some("7 days"));
    }

    #[test]
    fn compression_follows_the_format() {
        let object = |format, compression| ObjectSpec { store: "r".into(), path: None, format, compression };
        assert_eq!(
            to(json!({"to": "object", "store": "r"})),
            ResultTo::Object(object(Format::Parquet, Compression::Zstd))
        );
        assert_eq!(
            to(json!({"to": "export", "store": "r", "format": "csv"})),
            ResultTo::Export(object(Format::Csv, Compression::None))
        );
        assert_eq!(
            to(json!({"to": "object", "store": "r", "format": "json", "compression": "gzip"})),
            ResultTo::Object(object(Format::Json, Compression::Gzip))
        );
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        assert_eq!(faults(json!("inlin")).len(), 1);
        assert_eq!(faults(json!("table")), [".table: it is missing"]);
        assert_eq!(faults(json!(["inline"])).len(), 1);
        assert_eq!(faults(json!({"max_rows": 1})).len(), 1);
        assert_eq!(
            faults(json!({"to": "object", "store": 5, "path": "../x", "format": "xml", "compression": "lz4", "max_rows": 1})),
            [
                ".max_rows: a result to \"object\" has no max_rows; it has to, keep_for, store, path, format, compression",
                ".store: it must be a text",
                ".path: the path must not have . or .. as a part",
                ".format: it must be one of parquet, csv, json or arrow",
                ".compression: it must be one of none, gzip or zstd",
            ]
        );
        assert_eq!(faults(json!({"to": "inline", "max_rows": -1, "max_bytes": 1.5, "headers": "yes"})).len(), 3);
        assert_eq!(faults(json!({"to": "table", "table": "", "keep_for": 3})).len(), 2);
    }
}
