//! Statements that the engine must make room for, or hear of: dropping, renaming and copying databases, which fail while
//! anybody is connected; creating databases, which may bring the extension with their template; dropping and updating the extension.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::sync::atomic::Ordering::*;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;

use super::announce::{note, Note};
use super::process::{signal, wait_briefly};
use super::shmem::{shared, Database, DatabaseState, WorkerState};

/// How long the engine's processes of a database may take to end (milliseconds).
const LEAVE_TIMEOUT: i64 = 10_000;

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Puts the hook in place. Called once from `_PG_init` while the postmaster preloads.
pub fn init() {
    // SAFETY: the postmaster loads libraries in one thread.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(hook);
    }
}

mod raw {
    use pgrx::pg_sys;
    extern "C-unwind" {
        /// The server's function, without the guard that pgrx puts around it.
        #[allow(clippy::too_many_arguments)]
        pub fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            source: *const std::ffi::c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            receiver: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

/// Every utility statement of the server passes here. The statement itself runs outside of any guard of pgrx, which would
/// lose what it does not know of an error (its own SQLSTATE, its context, names of constraints); nothing in this frame
/// has a destructor that a jump could skip.
#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn hook(
    statement: *mut pg_sys::PlannedStmt,
    source: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let node = (*statement).utilityStmt;
    if concerns_us((*node).type_) {
        pgrx_extern_c_guard(|| {
            let updates = (*node).type_ == pg_sys::NodeTag::T_AlterExtensionStmt;
            if updates {
                note(Note::Updated);
            }
            if make_room(node) {
                note(Note::WakeLauncher { here: updates || (*node).type_ == pg_sys::NodeTag::T_DropStmt });
            }
        });
    }
    let next = match PREVIOUS {
        Some(previous) => previous,
        None => raw::standard_ProcessUtility,
    };
    next(statement, source, read_only_tree, context, parameters, environment, receiver, completion)
}

fn concerns_us(tag: pg_sys::NodeTag) -> bool {
    matches!(
        tag,
        pg_sys::NodeTag::T_DropdbStmt
            | pg_sys::NodeTag::T_RenameStmt
            | pg_sys::NodeTag::T_AlterDatabaseStmt
            | pg_sys::NodeTag::T_CreatedbStmt
            | pg_sys::NodeTag::T_DropStmt
            | pg_sys::NodeTag::T_AlterExtensionStmt
    )
}

/// Gives a statement the database it needs to itself. Returns whether the launcher is to look when it has committed.
unsafe fn make_room(node: *mut pg_sys::Node) -> bool {
    match (*node).type_ {
        pg_sys::NodeTag::T_DropdbStmt => {
            dismiss((*node.cast::<pg_sys::DropdbStmt>()).dbname);
            true
        }
        pg_sys::NodeTag::T_RenameStmt => {
            let rename = node.cast::<pg_sys::RenameStmt>();
            let is_database = (*rename).renameType == pg_sys::ObjectType::OBJECT_DATABASE;
            if is_database {
                dismiss((*rename).subname);
            }
            is_database
        }
        pg_sys::NodeTag::T_AlterDatabaseStmt => {
            let alter = node.cast::<pg_sys::AlterDatabaseStmt>();
            if [c"tablespace", c"is_template", c"allow_connections"]
                .iter()
                .any(|o| option((*alter).options, o).is_some())
            {
                dismiss((*alter).dbname);
            }
            true
        }
        pg_sys::NodeTag::T_CreatedbStmt => {
            if let Some(template) = option((*node.cast::<pg_sys::CreatedbStmt>()).options, c"template") {
                dismiss(pg_sys::defGetString(template));
            }
            true
        }
        pg_sys::NodeTag::T_DropStmt => {
            (*node.cast::<pg_sys::DropStmt>()).removeType == pg_sys::ObjectType::OBJECT_EXTENSION
        }
        pg_sys::NodeTag::T_AlterExtensionStmt => {
            CStr::from_ptr((*node.cast::<pg_sys::AlterExtensionStmt>()).extname) == c"pgflow"
        }
        _ => false,
    }
}

unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    let count = if options.is_null() { 0 } else { (*options).length };
    (0..count)
        .map(|i| (*(*options).elements.add(i as usize)).ptr_value as *mut pg_sys::DefElem)
        .find(|o| CStr::from_ptr((**o).defname) == name && !(**o).arg.is_null())
}

/// Ends the engine's processes in a database that the caller owns; they come back when the transaction has ended.
unsafe fn dismiss(name: *const std::ffi::c_char) {
    if name.is_null() {
        return;
    }
    let oid = pg_sys::get_database_oid(name, true);
    // Who may not do it is refused by the statement itself, and must not be able to stop the engine by trying.
    if oid == pg_sys::Oid::INVALID || !owns(oid) || oid == pg_sys::MyDatabaseId {
        return;
    }
    let Some(database) = shared().database(oid) else { return };
    note(Note::LetBack(oid.to_u32()));
    database.set_state(DatabaseState::Dismissed);
    let mut waited = 0;
    while waited < LEAVE_TIMEOUT && end_processes(database) {
        wait_briefly(20);
        waited += 20;
    }
}

/// Asks the engine's processes of a database to end. Returns whether any is left or still starting.
fn end_processes(database: &Database) -> bool {
    let oid = database.oid.load(Acquire);
    let mut any = false;
    for w in shared().workers() {
        let present = matches!(w.state(), WorkerState::Starting | WorkerState::Ready | WorkerState::Leaving);
        if present && w.database.load(Acquire) == oid {
            any = true;
            w.dismissed.store(true, Release);
            signal(w.process.pid(), libc::SIGTERM);
        }
    }
    let dispatcher = database.dispatcher.pid();
    signal(dispatcher, libc::SIGTERM);
    any || dispatcher != 0
}

unsafe fn owns(database: pg_sys::Oid) -> bool {
    #[cfg(feature = "pg15")]
    return pg_sys::pg_database_ownercheck(database, pg_sys::GetUserId());
    #[cfg(not(feature = "pg15"))]
    return pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, pg_sys::GetUserId());
}
