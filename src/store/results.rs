//! What reading a stored result needs of the tables.

use std::collections::BTreeMap;

use pgflow_executor::job::Secret;
use pgflow_executor::results::{Compression, Format, Store};
use pgrx::{pg_sys, JsonB, PgSqlErrorCode};
use serde_json::Value;

use super::{arg, run};
use crate::error::raise;

/// The object of a result.
pub struct Stored {
    pub store: Store,
    pub path: String,
    pub format: Format,
    pub compression: Compression,
}

/// Where the object of a task's result is; raises unless the caller may read it. Runs with the owner's rights.
pub fn stored_result(caller: pg_sys::Oid, task_id: Option<i64>) -> Stored {
    let rows = run(
        c"SELECT store, path, format, compression FROM async.stored_result_for($1, $2)",
        &[arg(caller), arg(task_id)],
    );
    let text = |column| rows.get::<String>(0, column).unwrap_or_default();
    let (name, path) = (text(1), text(2));
    let (format, compression) = (text(3), text(4));
    Stored {
        store: store_of(&name),
        path,
        format: known(serde_json::from_value(format.as_str().into()), "format", &format),
        compression: known(serde_json::from_value(compression.as_str().into()), "compression", &compression),
    }
}

/// A word that the executor knows, as it was read.
fn known<T>(read: serde_json::Result<T>, what: &str, word: &str) -> T {
    read.unwrap_or_else(|_| {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the result has the {what} {word:?}, which cannot be read"),
            None,
            None,
        )
    })
}

/// A store with its credentials.
fn store_of(name: &str) -> Store {
    let rows = run(c"SELECT url, options FROM async.store_of($1)", &[arg(name)]);
    let options = match rows.get::<JsonB>(0, 2) {
        Some(JsonB(Value::Object(options))) => options,
        _ => serde_json::Map::new(),
    };
    let options: BTreeMap<String, Secret> = options
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => (key, Secret::new(text)),
            other => (key, Secret::new(other.to_string())),
        })
        .collect();
    Store { name: name.to_owned(), url: rows.get(0, 1).unwrap_or_default(), options }
}
