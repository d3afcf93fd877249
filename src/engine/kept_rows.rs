//! In a worker: rows on their way between SQL and what a task's result is to be: a table of its role's, rows kept inline,
//! an object that the executor writes. Everything here runs with the rights of the task's role.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::{CStr, CString};

use pgflow_executor::bridge::Frame;
use pgflow_executor::job::Notice;
use pgflow_executor::results::{Column, Kept, ResultSpec, ResultTo, Shape};
use pgrx::{pg_sys, FromDatum, IntoDatum, PgSqlErrorCode};
use serde_json::{Map, Value};

use super::bridge::Line;
use super::own_task::Attempt;
use crate::error::raise;
use crate::private_lock::{self, About};

/// The most rows that are moved at once, and how many are the first time, before their size is known.
const BATCH: usize = 500;
const FIRST_BATCH: usize = 20;
/// About as much JSON is moved at once.
const BATCH_BYTES: usize = 1 << 20;
/// Values that are nested deeper are refused: whoever reads them gives up at 128, and rows come in arrays and objects.
const LEVELS: u32 = 100;

/// What an attempt has stored.
type Stored = (Attempt, Kept, ResultSpec);

thread_local! {
    /// The object of a local query whose transaction has not committed yet.
    static STORED: RefCell<Option<Stored>> = const { RefCell::new(None) };
}

/// What the last local query has stored since this was asked last: if its transaction has failed, nobody else knows of it.
pub fn stored() -> Option<Stored> {
    STORED.take()
}

/// Takes the rows of a task's own target elsewhere into the table that its result is to be.
pub fn fetch(attempt: Attempt, spec: &ResultSpec) -> (Kept, Vec<Notice>) {
    let ResultTo::Table { table: wanted, create, truncate } = &spec.to else { return Default::default() };
    let mut line = Line::open(attempt);
    let mut table = None;
    loop {
        match line.receive() {
            Frame::Columns(columns) => table = Some(Table::open(wanted, *create, *truncate, columns)),
            Frame::Rows(rows) => {
                if let Some(table) = &mut table {
                    table.write(rows);
                }
            }
            Frame::Done { notices, .. } => {
                let kept = table.map_or_else(|| Table::without_rows(wanted, *truncate), Table::close);
                return (kept, notices);
            }
            _ => {}
        }
    }
}

/// Runs a query that returns rows, and keeps them.
pub fn keep_query(attempt: Attempt, query: &str, spec: &ResultSpec) -> Kept {
    match &spec.to {
        ResultTo::Table { table: wanted, create, truncate } => {
            let mut table = None;
            each_batch(query, |part| match part {
                Part::Columns(columns) => table = Some(Table::open(wanted, *create, *truncate, columns)),
                Part::Rows(rows) => {
                    if let Some(table) = &mut table {
                        table.write(rows);
                    }
                }
            });
            table.map_or_else(Kept::default, Table::close)
        }
        ResultTo::Inline { max_rows, max_bytes, .. } => {
            let mut kept = Kept::default();
            let (mut content, mut bytes) = (Vec::new(), 0);
            each_batch(query, |part| match part {
                Part::Columns(columns) => kept.columns = columns,
                Part::Rows(rows) => {
                    bytes += rows.iter().flatten().map(|v| v.to_string().len() as u64 + 1).sum::<u64>();
                    content.extend(rows.into_iter().map(|row| named(&kept.columns, row)));
                    if content.len() as u64 > *max_rows || bytes > *max_bytes {
                        too_large(*max_rows, *max_bytes);
                    }
                }
            });
            kept.rows = Some(content.len() as u64);
            kept.bytes = Some(bytes);
            kept.content = Some(content);
            kept
        }
        _ => {
            let mut line = Line::open(attempt);
            each_batch(query, |part| match part {
                Part::Columns(columns) => line.send(&Frame::Columns(columns)),
                Part::Rows(rows) => line.send(&Frame::Rows(rows)),
            });
            line.send(&Frame::NoMore);
            loop {
                if let Frame::Done { kept, .. } = line.receive() {
                    let kept = kept.unwrap_or_default();
                    STORED.set(Some((attempt, kept.clone(), spec.clone())));
                    return kept;
                }
            }
        }
    }
}

fn too_large(max_rows: u64, max_bytes: u64) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        "the result is too large to be kept inline".to_owned(),
        Some(format!("It may have {max_rows} rows and {max_bytes} bytes.")),
        Some("Keep it as \"table\" or \"object\", or have the query return less."),
    )
}

fn named(columns: &[Column], row: Vec<Value>) -> Map<String, Value> {
    columns.iter().map(|c| c.name.clone()).zip(row).collect()
}

enum Part {
    Columns(Vec<Column>),
    Rows(Vec<Vec<Value>>),
}

/// Runs one statement that returns rows, through a cursor, and hands its rows on in batches.
fn each_batch(query: &str, mut take: impl FnMut(Part)) {
    let Ok(text) = CString::new(query) else {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "the query has a NUL character in it".to_owned(),
            None,
            None,
        );
    };
    crate::store::connected(|| {
        // SAFETY: SPI's own calls, in an SPI connection with a snapshot; the plan and portal are of this connection.
        let portal = unsafe {
            let plan = pg_sys::SPI_prepare(text.as_ptr(), 0, std::ptr::null_mut());
            if plan.is_null() || !pg_sys::SPI_is_cursor_plan(plan) {
                raise(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "the query has no result to keep".to_owned(),
                    Some("It must be one statement that returns rows.".to_owned()),
                    Some("Leave \"result\" out, or add RETURNING."),
                );
            }
            pg_sys::SPI_cursor_open(std::ptr::null(), plan, std::ptr::null_mut(), std::ptr::null(), false)
        };
        // SAFETY: the portal is open and has a row type.
        let columns = unsafe {
            pg_sys::BlessTupleDesc((*portal).tupDesc);
            columns((*portal).tupDesc)
        };
        let shapes: Vec<(String, Shape)> = columns.iter().map(|c| (c.name.clone(), c.shape.clone())).collect();
        take(Part::Columns(columns));
        let scratch = scratch();
        let mut wanted = FIRST_BATCH;
        loop {
            // SAFETY: as above; the tuple table lives until it is freed below.
            let (count, table) = unsafe {
                pg_sys::SPI_cursor_fetch(portal, true, wanted as _);
                (pg_sys::SPI_processed as usize, pg_sys::SPI_tuptable)
            };
            let (mut rows, mut bytes, mut all) = (Vec::new(), 0, 0);
            for i in 0..count {
                // SAFETY: the table has `count` rows of the portal's type; nothing of a row's conversion is left in
                // `scratch`, whose parent is the SPI connection's own context.
                let (values, size) = unsafe {
                    let before = pg_sys::MemoryContextSwitchTo(scratch);
                    let row = row(*(*table).vals.add(i), (*portal).tupDesc, &shapes);
                    pg_sys::MemoryContextSwitchTo(before);
                    row
                };
                rows.push(values);
                bytes += size;
                if bytes >= BATCH_BYTES || i + 1 == count {
                    // SAFETY: as above.
                    unsafe { pg_sys::MemoryContextReset(scratch) };
                    take(Part::Rows(std::mem::take(&mut rows)));
                    all += std::mem::take(&mut bytes);
                }
            }
            // SAFETY: freed before the next fetch, so that memory does not grow.
            unsafe { pg_sys::SPI_freetuptable(table) };
            if count == 0 {
                break;
            }
            wanted = (BATCH_BYTES / (all / count).max(1)).clamp(1, BATCH);
        }
        // SAFETY: opened above.
        unsafe { pg_sys::SPI_cursor_close(portal) };
    });
}

/// Memory for what the conversion of rows leaves behind, below the current context.
fn scratch() -> pg_sys::MemoryContext {
    // SAFETY: a context below the current one, with which it ends.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"pgflow rows".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    }
}

/// # Safety
/// `descriptor` must be valid.
unsafe fn columns(descriptor: pg_sys::TupleDesc) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for i in 1..=(*descriptor).natts {
        let name = CStr::from_ptr(pg_sys::SPI_fname(descriptor, i)).to_string_lossy().into_owned();
        let type_oid = pg_sys::SPI_gettypeid(descriptor, i);
        let type_name = CStr::from_ptr(pg_sys::format_type_be(type_oid)).to_string_lossy().into_owned();
        if columns.iter().any(|c| c.name == name) {
            raise(
                PgSqlErrorCode::ERRCODE_DUPLICATE_COLUMN,
                format!("two columns of the result are called \"{name}\""),
                None,
                Some("Give each column a name of its own with AS."),
            );
        }
        columns.push(Column { name, type_name, shape: shape(type_oid) });
    }
    columns
}

unsafe fn shape(type_oid: pg_sys::Oid) -> Shape {
    let base = pg_sys::getBaseType(type_oid);
    let element = pg_sys::get_element_type(base);
    if element != pg_sys::Oid::INVALID {
        return Shape::Array(Box::new(shape(element)));
    }
    match base {
        pg_sys::BOOLOID => Shape::Bool,
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => Shape::Int,
        pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => Shape::Float,
        pg_sys::NUMERICOID => Shape::Decimal { scale: None },
        pg_sys::BYTEAOID => Shape::Bytes,
        pg_sys::DATEOID => Shape::Date,
        pg_sys::TIMESTAMPOID => Shape::Timestamp,
        pg_sys::TIMESTAMPTZOID => Shape::TimestampTz,
        pg_sys::UUIDOID => Shape::Uuid,
        pg_sys::JSONOID | pg_sys::JSONBOID => Shape::Json,
        other if pg_sys::type_is_rowtype(other) => Shape::Json,
        _ => Shape::Text,
    }
}

/// `pg_catalog.row_to_json(record)`.
const ROW_TO_JSON: pg_sys::Oid = pg_sys::Oid::from_u32(3155);

/// The values of a row as JSON, each of its column's shape, and how long they were as text. Times come as ISO 8601 whatever
/// DateStyle says.
///
/// # Safety
/// `tuple` must fit `descriptor`, which must be blessed and have a column for each of `columns`. What is left behind is in
/// the current memory context.
unsafe fn row(
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
    columns: &[(String, Shape)],
) -> (Vec<Value>, usize) {
    let record = pg_sys::heap_copy_tuple_as_datum(tuple, descriptor);
    let json = pg_sys::OidFunctionCall1Coll(ROW_TO_JSON, pg_sys::Oid::INVALID, record);
    let text = String::from_datum(json, false).unwrap_or_default();
    let mut values: Map<String, Value> =
        serde_json::from_str(&text).unwrap_or_else(|error| cannot_keep(Some(error.to_string())));
    if values.values().any(|value| is_deeper(value, LEVELS)) {
        cannot_keep(None);
    }
    let row = columns.iter().map(|(name, shape)| shaped(values.remove(name).unwrap_or_default(), shape)).collect();
    (row, text.len())
}

fn is_deeper(value: &Value, levels: u32) -> bool {
    match value {
        Value::Array(values) => levels == 0 || values.iter().any(|v| is_deeper(v, levels - 1)),
        Value::Object(values) => levels == 0 || values.values().any(|v| is_deeper(v, levels - 1)),
        _ => false,
    }
}

fn cannot_keep(detail: Option<String>) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("the result has a value that is nested more than {LEVELS} levels deep"),
        detail,
        Some("Cast it to text in the query."),
    )
}

fn shaped(value: Value, shape: &Shape) -> Value {
    match (shape, value) {
        (_, Value::Null) => Value::Null,
        (Shape::Array(of), Value::Array(values)) => values.into_iter().map(|v| shaped(v, of)).collect(),
        (Shape::Decimal { .. }, Value::Number(number)) => Value::String(number.to_string()),
        (Shape::Bytes, Value::String(text)) => Value::String(text.trim_start_matches("\\x").to_owned()),
        (Shape::TimestampTz, Value::String(text)) => Value::String(match chrono::DateTime::parse_from_rfc3339(&text) {
            Ok(at) => at.to_utc().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
            // infinity, and years that no calendar of other systems has.
            Err(_) => text,
        }),
        (_, value) => value,
    }
}

/// A table that rows are written into, in the task's transaction.
struct Table {
    name: String,
    columns: Vec<Column>,
    insert: CString,
    count: u64,
}

impl Table {
    fn open(wanted: &str, create: bool, truncate: bool, columns: Vec<Column>) -> Table {
        crate::store::connected(|| {
            let quoted = quoted(wanted);
            let is_there = || text_of(c"SELECT pg_catalog.to_regclass($1)::text", &quoted).is_some();
            let mut exists = is_there();
            if !exists && create {
                // Of two that miss it one makes it; the other waits until that is committed, and finds it.
                private_lock::lock(About::ResultTable, private_lock::number(&quoted));
                // SAFETY: in a transaction. No lock on a relation was taken, which would have done this.
                unsafe { pg_sys::AcceptInvalidationMessages() };
                exists = is_there();
            }
            if !exists && create {
                let all: Vec<String> =
                    columns.iter().map(|c| format!("{} {}", identifier(&c.name), sql_type(&c.shape))).collect();
                execute(&format!("CREATE TABLE {quoted} ({})", all.join(", ")));
            } else if truncate {
                execute(&format!("TRUNCATE {quoted}"));
            }
            let names = columns.iter().map(|c| identifier(&c.name)).collect::<Vec<_>>().join(", ");
            let insert = format!(
                "INSERT INTO {quoted} ({names}) SELECT {names}
                 FROM pg_catalog.json_populate_recordset(NULL::{quoted}, $1::pg_catalog.json)"
            );
            let insert = CString::new(insert).unwrap_or_default();
            Table { name: full_name(&quoted).unwrap_or(quoted), columns, insert, count: 0 }
        })
    }

    /// What is kept of a statement that returns nothing.
    fn without_rows(wanted: &str, truncate: bool) -> Kept {
        crate::store::connected(|| {
            let quoted = quoted(wanted);
            let location = full_name(&quoted);
            if truncate && location.is_some() {
                execute(&format!("TRUNCATE {quoted}"));
            }
            Kept { location, rows: Some(0), ..Kept::default() }
        })
    }

    fn write(&mut self, rows: Vec<Vec<Value>>) {
        self.count += rows.len() as u64;
        let rows: Vec<Value> = rows
            .into_iter()
            .map(|row| {
                let values = self.columns.iter().zip(row);
                Value::Object(values.map(|(c, v)| (c.name.clone(), for_input(v, &c.shape))).collect())
            })
            .collect();
        let text = Value::Array(rows).to_string();
        crate::store::connected(|| run_with(&self.insert, &text));
    }

    fn close(self) -> Kept {
        Kept { location: Some(self.name), rows: Some(self.count), columns: self.columns, ..Kept::default() }
    }
}

/// A table's name as it was given, each part quoted.
fn quoted(wanted: &str) -> String {
    text_of(
        c"SELECT pg_catalog.array_to_string(array(SELECT pg_catalog.quote_ident(x)
                 FROM pg_catalog.unnest(pg_catalog.parse_ident($1)) x), '.')",
        wanted,
    )
    .unwrap_or_default()
}

/// The name of an existing table with its schema: whoever asks for the result has another search path.
fn full_name(quoted: &str) -> Option<String> {
    text_of(
        c"SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
          WHERE c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)",
        quoted,
    )
}

/// As the input functions of Postgres want it.
fn for_input(value: Value, shape: &Shape) -> Value {
    match (shape, value) {
        (Shape::Bytes, Value::String(text)) => Value::String(format!("\\x{text}")),
        (Shape::Array(of), Value::Array(values)) => values.into_iter().map(|v| for_input(v, of)).collect(),
        (_, value) => value,
    }
}

/// The type of a column that is created for values of a shape.
fn sql_type(shape: &Shape) -> String {
    let name = match shape {
        Shape::Bool => "bool",
        Shape::Int => "int8",
        Shape::Float => "float8",
        Shape::Decimal { .. } => "numeric",
        Shape::Text => "text",
        Shape::Bytes => "bytea",
        Shape::Date => "date",
        Shape::Timestamp => "timestamp",
        Shape::TimestampTz => "timestamptz",
        Shape::Uuid => "uuid",
        Shape::Json => "jsonb",
        // An array of arrays is the same type.
        Shape::Array(of) => return format!("{}[]", sql_type(of).trim_end_matches("[]")),
    };
    format!("pg_catalog.{name}")
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn execute(sql: &str) {
    let Ok(sql) = CString::new(sql) else {
        raise(PgSqlErrorCode::ERRCODE_INVALID_NAME, "a name has a NUL character in it".to_owned(), None, None);
    };
    // SAFETY: SPI's own call, in an SPI connection.
    let code = unsafe { pg_sys::SPI_execute(sql.as_ptr(), false, 0) };
    if code < 0 {
        pgrx::error!("SPI error {code}");
    }
}

fn run_with(sql: &CStr, argument: &str) {
    let mut types = [pg_sys::TEXTOID];
    let mut values = [argument.into_datum().unwrap_or(pg_sys::Datum::from(0))];
    // SAFETY: SPI's own call, with one argument of the type given.
    let code = unsafe {
        pg_sys::SPI_execute_with_args(
            sql.as_ptr(),
            1,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            std::ptr::null(),
            false,
            0,
        )
    };
    if code < 0 {
        pgrx::error!("SPI error {code}");
    }
}

/// The one value of a query with one text argument.
fn text_of(sql: &CStr, argument: &str) -> Option<String> {
    run_with(sql, argument);
    // SAFETY: SPI sets both after a successful statement.
    unsafe {
        if pg_sys::SPI_processed == 0 {
            return None;
        }
        let (table, mut null) = (pg_sys::SPI_tuptable, false);
        let datum = pg_sys::SPI_getbinval(*(*table).vals, (*table).tupdesc, 1, &mut null);
        String::from_datum(datum, null)
    }
}
