//! In a worker: runs a user's code as a client's top-level statement, so that it may COMMIT, and settles what of it would
//! otherwise run at commit.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{pg_sys, IntoDatum, PgSqlErrorCode, PgTryBuilder};

use crate::error::raise;
use crate::store::routine::{self, Found};

/// Runs `body`, which raises whatever is wrong. After an error the transaction is aborted and the error's text returned.
pub fn guarded<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    let abort = |error: CaughtError| {
        // SAFETY: ends whatever transaction is open; restores user, settings of the transaction and locks.
        unsafe { pg_sys::AbortCurrentTransaction() };
        Err(text(&error))
    };
    let body = AssertUnwindSafe(body);
    PgTryBuilder::new(move || Ok({ body }.0())).catch_others(abort).catch_rust_panic(abort).execute()
}

fn report_of(error: &CaughtError) -> &pgrx::pg_sys::panic::ErrorReportWithLevel {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
        CaughtError::RustPanic { ereport, .. } => ereport,
    }
}

fn text(error: &CaughtError) -> String {
    let report = report_of(error);
    let mut text = report.message().to_owned();
    for (label, part) in [("DETAIL", report.detail()), ("HINT", report.hint())] {
        if let Some(part) = part.filter(|p| !p.is_empty()) {
            text.push_str(&format!("\n{label}: {part}"));
        }
    }
    text
}

/// Fires deferred triggers and closes cursors now, with the callback's rights, so that none of it runs later with other
/// rights.
pub fn settle_user_code() {
    // SAFETY: in the callback's transaction, no portal is active. `SET CONSTRAINTS ALL IMMEDIATE` as a statement node.
    unsafe {
        let statement = pg_sys::palloc0(size_of::<pg_sys::ConstraintsSetStmt>()) as *mut pg_sys::ConstraintsSetStmt;
        (*statement).type_ = pg_sys::NodeTag::T_ConstraintsSetStmt;
        (*statement).constraints = std::ptr::null_mut();
        (*statement).deferred = false;
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::AfterTriggerSetState(statement);
        pg_sys::PopActiveSnapshot();
        pg_sys::PortalHashTableDeleteAll();
    }
}

/// The same at the end of a subtransaction, and so that constraints which are deferred stay so for the task that comes next.
fn settle_shared_code() {
    // SAFETY: in the callback's subtransaction, no portal is active. What has been fired may be dropped from the list
    // although the subtransaction could still be rolled back: all that stood there before it has been fired as well.
    unsafe {
        pg_sys::AfterTriggerFireDeferred();
        pg_sys::PortalHashTableDeleteAll();
    }
}

/// How a callback ended that shares its transaction.
pub enum Shared {
    Returned,
    /// Its effects are rolled back.
    Failed(String),
}

/// Runs `body` in a subtransaction with settings of its own. What is wrong with the company rather than with the callback is
/// raised: a cancel, a deadlock, a conflict with other transactions.
pub fn in_subtransaction(body: impl FnOnce()) -> Shared {
    // SAFETY: the pattern of PL/pgSQL's exception blocks, as in `store::guarded`; and of a function's SET clauses for the
    // settings, whose nested level an error pops with the subtransaction.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let back = move || {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        };
        let failed = move |error: CaughtError| {
            let code = report_of(&error).sql_error_code();
            let text = text(&error);
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            back();
            match code {
                PgSqlErrorCode::ERRCODE_QUERY_CANCELED
                | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
                | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE => raise(code, text, None, None),
                PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_TERMINATION => Shared::Failed(format!(
                    "{text}\nDETAIL: The steps of this node share transactions (steps_per_transaction).\n                     HINT: Take COMMIT and ROLLBACK out of the procedure, or set steps_per_transaction to 1."
                )),
                _ => Shared::Failed(text),
            }
        };
        let body = AssertUnwindSafe(move || {
            let level = pg_sys::NewGUCNestLevel();
            body();
            settle_shared_code();
            pg_sys::AtEOXact_GUC(false, level);
            pg_sys::ReleaseCurrentSubTransaction();
            back();
            Shared::Returned
        });
        PgTryBuilder::new(move || ({ body }.0)()).catch_others(failed).catch_rust_panic(failed).execute()
    }
}

/// Runs SQL text, statement by statement, as a client's simple query would run it.
pub fn run_query(text: &str) {
    let Ok(source) = CString::new(text) else {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "the query has a NUL character in it".to_owned(),
            None,
            None,
        );
    };
    // SAFETY: the pattern of exec_simple_query(): parse, then for each statement analyse and plan under a snapshot, and
    // run it in a top-level portal. Parse trees live in the transaction's memory unless a statement commits, hence the
    // context of their own.
    unsafe {
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopMemoryContext,
            c"pgflow query".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let guard = DeleteContext(context);
        let old = pg_sys::MemoryContextSwitchTo(context);
        let trees = pg_sys::pg_parse_query(source.as_ptr());
        pg_sys::MemoryContextSwitchTo(old);
        let count = if trees.is_null() { 0 } else { (*trees).length };
        for i in 0..count {
            let raw = (*(*trees).elements.add(i as usize)).ptr_value as *mut pg_sys::RawStmt;
            if (*(*raw).stmt).type_ == pg_sys::NodeTag::T_TransactionStmt {
                raise(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "a task's query may not control the transaction itself".to_owned(),
                    None,
                    Some("Put the statements into a procedure that COMMITs, and CALL it."),
                );
            }
            let snapshot = pg_sys::analyze_requires_snapshot(raw);
            if snapshot {
                pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            }
            let old = pg_sys::MemoryContextSwitchTo(context);
            let queries = pg_sys::pg_analyze_and_rewrite_fixedparams(
                raw,
                source.as_ptr(),
                std::ptr::null(),
                0,
                std::ptr::null_mut(),
            );
            let plans = pg_sys::pg_plan_queries(
                queries,
                source.as_ptr(),
                pg_sys::CURSOR_OPT_PARALLEL_OK as i32,
                std::ptr::null_mut(),
            );
            pg_sys::MemoryContextSwitchTo(old);
            if snapshot {
                pg_sys::PopActiveSnapshot();
            }
            run_portal(&source, pg_sys::CreateCommandTag((*raw).stmt), plans, std::ptr::null_mut());
            pg_sys::CommandCounterIncrement();
        }
        drop(guard);
    }
}

struct DeleteContext(pg_sys::MemoryContext);

impl Drop for DeleteContext {
    fn drop(&mut self) {
        // SAFETY: made by `run_query`; nothing of it is used after, on either way out. An error may have left it current.
        unsafe {
            if pg_sys::CurrentMemoryContext == self.0 {
                pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            }
            pg_sys::MemoryContextDelete(self.0)
        }
    }
}

/// # Safety
/// `plans` must outlive the portal; `parameters` must be null or made for the statement, in the portal's own context.
unsafe fn run_portal(
    source: &CStr,
    tag: pg_sys::CommandTag::Type,
    plans: *mut pg_sys::List,
    parameters: pg_sys::ParamListInfo,
) {
    let portal = pg_sys::CreatePortal(c"".as_ptr(), true, true);
    (*portal).visible = false;
    run_in(portal, source, tag, plans, parameters);
}

unsafe fn run_in(
    portal: pg_sys::Portal,
    source: &CStr,
    tag: pg_sys::CommandTag::Type,
    plans: *mut pg_sys::List,
    parameters: pg_sys::ParamListInfo,
) {
    pg_sys::PortalDefineQuery(portal, std::ptr::null(), source.as_ptr(), tag, plans, std::ptr::null_mut());
    pg_sys::PortalStart(portal, parameters, 0, std::ptr::null_mut());
    let receiver = pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone);
    let mut completion: pg_sys::QueryCompletion = std::mem::zeroed();
    #[cfg(not(feature = "pg18"))]
    pg_sys::PortalRun(portal, i64::MAX as _, true, true, receiver, receiver, &mut completion);
    #[cfg(feature = "pg18")]
    pg_sys::PortalRun(portal, i64::MAX as _, true, receiver, receiver, &mut completion);
    pg_sys::PortalDrop(portal, false);
}

/// `CALL routine($1)` for the routines of this role, each analysed once.
pub struct Calls {
    argument: pg_sys::Oid,
    known: HashMap<pg_sys::Oid, (CString, *mut pg_sys::List)>,
}

impl Calls {
    /// The type of the argument.
    pub fn argument(&self) -> pg_sys::Oid {
        self.argument
    }

    pub fn new(argument: pg_sys::Oid) -> Self {
        Calls { argument, known: HashMap::new() }
    }

    /// Calls the procedure with one argument. The name is resolved now, by this role's search path.
    pub fn call(&mut self, name: &str, argument: pg_sys::Datum) {
        let procedure = resolve(name, &[self.argument], b'p');
        // SAFETY: `procedure` exists and takes exactly the callback's type; the statements are copied into the portal's
        // own memory, because a COMMIT inside must not free them.
        unsafe {
            let (source, statements) = match self.known.get(&procedure) {
                Some((source, statements)) => (source.clone(), *statements),
                None => {
                    let analysed = analyse(procedure, self.argument);
                    self.known.insert(procedure, analysed.clone());
                    analysed
                }
            };
            let portal = pg_sys::CreatePortal(c"".as_ptr(), true, true);
            (*portal).visible = false;
            let old = pg_sys::MemoryContextSwitchTo((*portal).portalContext);
            let statements = pg_sys::copyObjectImpl(statements.cast()).cast();
            let parameters = pg_sys::makeParamList(1);
            let parameter = (*parameters).params.as_mut_ptr();
            (*parameter).value = argument;
            (*parameter).isnull = false;
            (*parameter).ptype = self.argument;
            (*parameter).pflags = pg_sys::PARAM_FLAG_CONST as u16;
            pg_sys::MemoryContextSwitchTo(old);
            run_in(portal, &source, pg_sys::CommandTag::CMDTAG_CALL, statements, parameters);
        }
    }
}

/// Parses and analyses `CALL name($1)` once; the result lives as long as the process.
unsafe fn analyse(procedure: pg_sys::Oid, argument: pg_sys::Oid) -> (CString, *mut pg_sys::List) {
    let source = CString::new(format!("CALL {}($1)", routine::quoted_name(procedure))).unwrap_or_default();
    pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    let trees = pg_sys::pg_parse_query(source.as_ptr());
    let raw = (*(*trees).elements).ptr_value as *mut pg_sys::RawStmt;
    let types = [argument];
    let queries =
        pg_sys::pg_analyze_and_rewrite_fixedparams(raw, source.as_ptr(), types.as_ptr(), 1, std::ptr::null_mut());
    let plans = pg_sys::pg_plan_queries(queries, source.as_ptr(), 0, std::ptr::null_mut());
    let old = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
    let kept = pg_sys::copyObjectImpl(plans.cast()).cast();
    pg_sys::MemoryContextSwitchTo(old);
    pg_sys::PopActiveSnapshot();
    (source, kept)
}

/// The routine of this name with exactly these argument types, by the current search path; raises what is wrong with it.
fn resolve(name: &str, types: &[pg_sys::Oid], kind: u8) -> pg_sys::Oid {
    // SAFETY: catalogue look-ups inside a transaction.
    unsafe {
        if let Found::Exactly(found) = routine::find(name, types) {
            if pg_sys::get_func_prokind(found) as u8 == kind {
                return found;
            }
        }
    }
    let (expected, arguments) = match (kind, types.len()) {
        (b'p', _) => ("procedure", "flow.callback_arguments_t"),
        (_, 1) => ("function", "flow.callback_arguments_t"),
        _ => ("function", "bigint, text"),
    };
    raise(
        PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
        format!("{expected} {name}({arguments}) does not exist"),
        Some("It is looked up when the task runs, by the search_path of the role that it runs as.".to_owned()),
        Some("Create it, or configure the flow with the routine's schema in its name."),
    )
}

/// Asks the flow's concurrency routine for the pool of a node's tasks.
pub fn ask_pool(name: &str, flow_id: i64, node: &str) -> String {
    let types = [pg_sys::INT8OID, pg_sys::TEXTOID];
    let values = [flow_id.into_datum(), node.into_datum()].map(|d| d.unwrap_or(pg_sys::Datum::from(0)));
    ask(name, types, values).unwrap_or_else(|| {
        raise(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("concurrency_group_routine {name} returned no pool for node {node}"),
            None,
            None,
        )
    })
}

/// Asks a node's query_routine for the query of a task.
pub fn ask_query(name: &str, arguments: pg_sys::Datum, arguments_type: pg_sys::Oid) -> String {
    ask(name, [arguments_type], [arguments]).unwrap_or_else(|| {
        raise(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("query_routine {name} returned no query"),
            None,
            None,
        )
    })
}

/// What a function of the user's returns, as text; None: nothing or an empty text.
fn ask<const N: usize>(name: &str, mut types: [pg_sys::Oid; N], mut values: [pg_sys::Datum; N]) -> Option<String> {
    let function = resolve(name, &types, b'f');
    let parameters: Vec<String> = (1..=N).map(|n| format!("${n}")).collect();
    // SAFETY: a catalogue look-up inside a transaction.
    let function = unsafe { routine::quoted_name(function) };
    let sql = format!("SELECT {function}({})::text", parameters.join(", "));
    let sql = CString::new(sql).unwrap_or_default();
    // SAFETY: runs the user's function with the user's rights; the types fit the function found.
    let answer: Option<String> = crate::store::connected(|| unsafe {
        let (types, values) = (types.as_mut_ptr(), values.as_mut_ptr());
        let code = pg_sys::SPI_execute_with_args(sql.as_ptr(), N as i32, types, values, std::ptr::null(), false, 1);
        if code < 0 || pg_sys::SPI_processed == 0 {
            pgrx::error!("{name} returned nothing");
        }
        let table = pg_sys::SPI_tuptable;
        let value = pg_sys::SPI_getvalue(*(*table).vals, (*table).tupdesc, 1);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_string_lossy().into_owned())
    });
    answer.filter(|text| !text.is_empty())
}
