//! All SQL that Rust runs: one function, one statement or one function call. Plans are made once a process and kept.
//!
//! Everything here must be called on the Postgres thread, inside a transaction. Statements name their objects with their
//! schema and are prepared under a pinned search_path, so that nobody's settings decide what they mean.
#![allow(unsafe_code)]

pub mod catalog;
pub mod client;
pub mod dispatcher;
pub mod launcher;
pub mod nodes;
pub mod remote;
pub mod results;
pub mod routine;
pub mod worker;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;

use pgrx::{pg_sys, FromDatum, IntoDatum};

/// An argument: its type and value.
pub struct Arg(pg_sys::Oid, Option<pg_sys::Datum>);

pub fn arg<T: IntoDatum>(value: T) -> Arg {
    Arg(T::type_oid(), value.into_datum())
}

/// The rows of the last statement. Valid until the end of the SPI connection.
pub struct Rows {
    table: *mut pg_sys::SPITupleTable,
    pub len: usize,
    current: RefCell<Row>,
}

/// The row that was looked at last, all columns of it: each for itself would walk along the row anew.
struct Row {
    number: usize,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Rows {
    fn new(table: *mut pg_sys::SPITupleTable, len: usize) -> Self {
        let none = Row { number: usize::MAX, values: Vec::new(), nulls: Vec::new() };
        Rows { table, len, current: RefCell::new(none) }
    }

    /// Column `column` (from 1) of row `row` (from 0); `None` for NULL or a value that does not fit the type.
    pub fn get<T: FromDatum>(&self, row: usize, column: usize) -> Option<T> {
        let datum = self.datum(row, column)?;
        // SAFETY: a value of the statement's column; that types match is checked by the tests that run each statement.
        unsafe { T::from_datum(datum, false) }
    }

    pub fn one<T: FromDatum>(&self) -> Option<T> {
        self.get(0, 1)
    }

    /// The raw value, for handing on to Postgres. `None` for NULL, and where there is no such row or column.
    pub fn datum(&self, row: usize, column: usize) -> Option<pg_sys::Datum> {
        if row >= self.len || self.table.is_null() {
            return None;
        }
        let mut current = self.current.borrow_mut();
        if current.number != row {
            // SAFETY: `row` is below the number of tuples that SPI returned; both arrays are as long as the row is wide.
            unsafe {
                let (tuple, description) = (*(*self.table).vals.add(row), (*self.table).tupdesc);
                let width = (*description).natts as usize;
                current.values.resize(width, pg_sys::Datum::null());
                current.nulls.resize(width, true);
                let Row { values, nulls, .. } = &mut *current;
                pg_sys::heap_deform_tuple(tuple, description, values.as_mut_ptr(), nulls.as_mut_ptr());
            }
            current.number = row;
        }
        current.nulls.get(column - 1).is_some_and(|null| !null).then(|| current.values[column - 1])
    }
}

thread_local! {
    static PLANS: RefCell<HashMap<*const std::ffi::c_char, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
}

extern "C" {
    static mut jit_enabled: bool;
}

const SEARCH_PATH: &CStr = c"pg_catalog, pg_temp";

/// While it lives, names mean what they mean in pg_catalog, and plans are made once and look rows up by index.
///
/// The search path must be pinned whenever a statement runs, not only when it is prepared: a kept plan is analysed anew
/// when the path has changed, and would then take its operators from wherever a role's path leads, with the owner's rights.
/// The planner's settings are pinned because a statement of ours reads few rows, whatever the tables held when it was
/// first planned. User code never runs under it.
struct Steady {
    guc_level: Option<i32>,
    seqscan: bool,
    hashjoin: bool,
    mergejoin: bool,
    bitmapscan: bool,
    memoize: bool,
    material: bool,
    jit: bool,
    cache_mode: i32,
}

impl Steady {
    /// `pin_path`: false for a statement that names operators and functions with their schema too.
    fn begin(pin_path: bool) -> Self {
        // SAFETY: the variables behind settings of the same names, of this process only; put back by `drop`, also when
        // the statement raises. The nested level of settings belongs to the transaction: an error pops it.
        unsafe {
            let pinned = !pg_sys::namespace_search_path.is_null()
                && CStr::from_ptr(pg_sys::namespace_search_path) == SEARCH_PATH;
            let guc_level = (pin_path && !pinned).then(|| {
                let level = pg_sys::NewGUCNestLevel();
                pg_sys::set_config_option(
                    c"search_path".as_ptr(),
                    SEARCH_PATH.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
                level
            });
            let before = Steady {
                guc_level,
                seqscan: pg_sys::enable_seqscan,
                hashjoin: pg_sys::enable_hashjoin,
                mergejoin: pg_sys::enable_mergejoin,
                bitmapscan: pg_sys::enable_bitmapscan,
                memoize: pg_sys::enable_memoize,
                material: pg_sys::enable_material,
                jit: jit_enabled,
                cache_mode: pg_sys::plan_cache_mode,
            };
            pg_sys::enable_seqscan = false;
            pg_sys::enable_hashjoin = false;
            pg_sys::enable_mergejoin = false;
            // Of two indexes the whole key's is never the worse; a bitmap of the shorter one can look cheaper while a table is
            // small, and would read a whole definition for each of its nodes later.
            pg_sys::enable_bitmapscan = false;
            // A place to remember a thousand rows is made and cleared before the first one is looked up: most of what a
            // statement costs that looks up one. And what is remembered whole is a table that was small once.
            pg_sys::enable_memoize = false;
            pg_sys::enable_material = false;
            // What a sequential scan is said to cost would look worth compiling for.
            jit_enabled = false;
            pg_sys::plan_cache_mode = pg_sys::PlanCacheMode::PLAN_CACHE_MODE_FORCE_GENERIC_PLAN as i32;
            before
        }
    }

    /// The regular end. After an error the settings are popped with the transaction, not here.
    fn end(mut self) {
        if let Some(level) = self.guc_level.take() {
            // SAFETY: pairs with `begin`.
            unsafe { pg_sys::AtEOXact_GUC(true, level) }
        }
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            pg_sys::enable_seqscan = self.seqscan;
            pg_sys::enable_hashjoin = self.hashjoin;
            pg_sys::enable_mergejoin = self.mergejoin;
            pg_sys::enable_bitmapscan = self.bitmapscan;
            pg_sys::enable_memoize = self.memoize;
            pg_sys::enable_material = self.material;
            jit_enabled = self.jit;
            pg_sys::plan_cache_mode = self.cache_mode;
        }
    }
}

/// Runs a statement. `sql` is a literal: its address is the key of the kept plan.
pub fn run(sql: &'static CStr, args: &[Arg]) -> Rows {
    run_steadily(sql, args, Steady::begin(true))
}

/// The same without the cost of pinning the search path, for what runs for every task: `sql` must name every operator and
/// function with its schema.
pub fn run_qualified(sql: &'static CStr, args: &[Arg]) -> Rows {
    run_steadily(sql, args, Steady::begin(false))
}

fn run_steadily(sql: &'static CStr, args: &[Arg], steady: Steady) -> Rows {
    let known = PLANS.with_borrow(|plans| plans.get(&sql.as_ptr()).copied());
    let plan = known.unwrap_or_else(|| prepare(sql, args));
    let mut values: Vec<pg_sys::Datum> = args.iter().map(|a| a.1.unwrap_or(pg_sys::Datum::from(0))).collect();
    let nulls: Vec<std::ffi::c_char> = args.iter().map(|a| if a.1.is_some() { b' ' as _ } else { b'n' as _ }).collect();
    // SAFETY: the plan was prepared for these argument types; both arrays have one element an argument; we are inside
    // an SPI connection (`SPI_execute_plan` says so otherwise, with an error).
    let code = unsafe { pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), false, 0) };
    steady.end();
    if code < 0 {
        pgrx::error!("SPI error {code} in {sql:?}");
    }
    // SAFETY: SPI sets both after every successful statement.
    unsafe { Rows::new(pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize) }
}

/// Makes the plan that is kept; the caller has pinned the search path.
fn prepare(sql: &'static CStr, args: &[Arg]) -> pg_sys::SPIPlanPtr {
    let mut types: Vec<pg_sys::Oid> = args.iter().map(|a| a.0).collect();
    // SAFETY: `types` has one element an argument.
    unsafe {
        let plan = pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr());
        if plan.is_null() {
            pgrx::error!("cannot prepare {sql:?}");
        }
        pg_sys::SPI_keepplan(plan);
        PLANS.with_borrow_mut(|plans| plans.insert(sql.as_ptr(), plan));
        plan
    }
}

/// Runs `body` inside an SPI connection with a snapshot, in the current transaction.
pub fn connected<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: connect and finish are paired; if `body` raises, the abort of the (sub)transaction cleans up both.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::SPI_connect();
        let value = body();
        pg_sys::SPI_finish();
        pg_sys::PopActiveSnapshot();
        value
    }
}

/// Runs `body` in a transaction of its own, for processes that are in none.
pub fn transaction<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: called by background workers between transactions. What raises unwinds to the caller's guard.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        // Whatever a role's or database's settings say: the engine's own transactions write, and see what is committed.
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as i32;
        pg_sys::XactReadOnly = false;
        let value = connected(body);
        pg_sys::CommitTransactionCommand();
        value
    }
}

/// Runs `body` in a subtransaction of the current one, inside the current SPI connection. What it raises is rolled back and
/// returned as text: for what users have written, which must not end a process of the engine's.
pub fn guarded<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    use pgrx::pg_sys::panic::CaughtError;
    // SAFETY: the pattern of PL/pgSQL's exception blocks: memory context and resource owner are put back on both ways out,
    // and the subtransaction is either released or rolled back. Plain Rust values leave `body`.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let back = move || {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        };
        let failed = move |error: CaughtError| {
            let report = match &error {
                CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
                CaughtError::RustPanic { ereport, .. } => ereport,
            };
            let text = report.message().to_owned();
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            back();
            Err(text)
        };
        let body = std::panic::AssertUnwindSafe(move || {
            let value = body();
            pg_sys::ReleaseCurrentSubTransaction();
            back();
            Ok(value)
        });
        pgrx::PgTryBuilder::new(move || ({ body }.0)()).catch_others(failed).catch_rust_panic(failed).execute()
    }
}

/// Runs `body` with the rights of `user`, and gives the old ones back. An error inside restores them with the
/// (sub)transaction's abort.
pub fn as_user<T>(user: pg_sys::Oid, body: impl FnOnce() -> T) -> T {
    let (mut old, mut context) = (pg_sys::Oid::INVALID, 0);
    // SAFETY: the pair of calls that Postgres itself uses around SECURITY DEFINER functions.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut old, &mut context);
        pg_sys::SetUserIdAndSecContext(user, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
        let value = body();
        pg_sys::SetUserIdAndSecContext(old, context);
        value
    }
}

/// Microseconds since 2000, as Postgres counts.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// The extension's own OID, which tells one installation from the next.
pub fn extension_oid() -> Option<pg_sys::Oid> {
    run(c"SELECT oid FROM pg_catalog.pg_extension WHERE extname = 'pgflow'", &[]).one()
}

/// The version of the extension's objects in this database.
pub fn extension_version() -> Option<String> {
    run(c"SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'pgflow'", &[]).one()
}

/// The owner of the extension, if it is installed in this database.
pub fn extension_owner() -> Option<pg_sys::Oid> {
    run(c"SELECT extowner FROM pg_catalog.pg_extension WHERE extname = 'pgflow'", &[]).one()
}
