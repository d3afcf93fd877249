//! A query whose rows are wanted: described first, then streamed to where the job says. A bounded part of it is in memory.
//!
//! The statement is prepared before it runs. tokio-postgres looks types up that are not built in with queries of its own on
//! the same connection: it must do so before rows stream, or each would wait for the other.

use std::collections::HashSet;
use std::error::Error as StdError;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Error, Statement};

use super::placeholders::Bound;
use super::values::{name_of, Codec};
use crate::job::Failure;
use crate::kind::{Context, Progress};
use crate::results::{Column, Keep, Rows};

/// Between two tellings of how far it is.
const TELL: Duration = Duration::from_millis(300);

/// Why there are no rows.
pub enum Trouble {
    /// The server or the connection says so.
    Sql(Error),
    /// The rows cannot be kept. The statement may still run.
    Ours(Failure),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Sql(error)
    }
}

/// What came of it: rows that are to be closed, and whether the session now holds statements of tokio-postgres's own.
pub struct Streamed {
    pub rows: Rows,
    pub looked_up: bool,
}

struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

pub async fn stream(client: &Client, bound: &Bound, keep: &Keep, context: &Context) -> Result<Streamed, Trouble> {
    let statement = client.prepare_typed(&bound.text, &vec![Type::UNKNOWN; bound.values.len()]).await?;
    let looked_up = statement.columns().iter().any(|column| Type::from_oid(column.type_().oid()).is_none());
    let (columns, codecs) = columns_of(&statement).map_err(Trouble::Ours)?;
    let values = bound.values.iter().map(|value| value as &(dyn ToSql + Sync));
    let mut found = pin!(client.query_raw(&statement, values).await?);
    // Opened with the first row or at the end: a statement that must be run again some other way leaves nothing.
    let mut rows: Option<Rows> = None;
    let mut progress = Progress::default();
    let mut told = Instant::now();
    loop {
        let row = match found.try_next().await {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(error) => {
                abort(rows).await;
                return Err(Trouble::Sql(error));
            }
        };
        let mut values = Vec::with_capacity(codecs.len());
        for (at, codec) in codecs.iter().enumerate() {
            let raw: Option<Raw<'_>> = row.try_get(at)?;
            match raw.map_or(Ok(serde_json::Value::Null), |Raw(bytes)| codec.read(bytes)) {
                Ok(value) => values.push(value),
                Err(what) => {
                    abort(rows).await;
                    let name = &columns[at].name;
                    return Err(Trouble::Ours(
                        Failure::new(format!("the column {name} of the result cannot be kept: {what}"))
                            .hint(format!("Cast it in the query: \"{name}\"::text.")),
                    ));
                }
            }
        }
        progress.rows += 1;
        progress.bytes += row.raw_size_bytes() as u64;
        let mut to = match rows.take() {
            Some(rows) => rows,
            None => Rows::open(keep, columns.clone()).await.map_err(Trouble::Ours)?,
        };
        if let Err(failure) = to.push(values).await {
            to.abort().await;
            return Err(Trouble::Ours(failure));
        }
        rows = Some(to);
        if told.elapsed() >= TELL {
            told = Instant::now();
            (context.progress)(progress);
        }
    }
    (context.progress)(progress);
    let rows = match rows {
        Some(rows) => rows,
        None => Rows::open(keep, columns).await.map_err(Trouble::Ours)?,
    };
    Ok(Streamed { rows, looked_up })
}

async fn abort(rows: Option<Rows>) {
    if let Some(rows) = rows {
        rows.abort().await;
    }
}

fn columns_of(statement: &Statement) -> Result<(Vec<Column>, Vec<Codec>), Failure> {
    let mut columns = Vec::new();
    let mut codecs = Vec::new();
    let mut names = HashSet::new();
    for column in statement.columns() {
        let (name, kind, modifier) = (column.name(), column.type_(), column.type_modifier());
        let type_name = name_of(kind, modifier);
        let codec = Codec::of(kind).ok_or_else(|| {
            Failure::new(format!("the column {name} of the result has the type {type_name}, which cannot be kept"))
                .code("0A000")
                .hint(format!("Cast it in the query: \"{name}\"::text, or to_jsonb(\"{name}\")."))
        })?;
        if !names.insert(name) {
            return Err(Failure::new(format!("two columns of the result are called {name}"))
                .code("42701")
                .hint("Give each a name of its own with AS."));
        }
        columns.push(Column { name: name.to_owned(), type_name, shape: codec.shape(modifier) });
        codecs.push(codec);
    }
    Ok((columns, codecs))
}
