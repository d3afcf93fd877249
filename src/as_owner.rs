//! `as_owner`: what stands behind most public SQL functions. It calls the function of the same name with `_as` behind
//! it, with the rights of the extension's owner, and passes the caller's role as the first argument.
//!
//! A SECURITY DEFINER function cannot know who called it; this can. The `_as` function checks the caller's rights.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;

/// What is known of a public function.
#[derive(Clone, Copy)]
struct Target {
    /// Its `_as` function.
    inner: pg_sys::Oid,
    owner: pg_sys::Oid,
    /// It may change something.
    is_volatile: bool,
}

thread_local! {
    /// By the public function. Forgotten whenever a function is replaced or dropped, as an update of the extension does.
    static TARGETS: RefCell<HashMap<pg_sys::Oid, Target>> = RefCell::new(HashMap::new());
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

#[no_mangle]
pub extern "C" fn pg_finfo_as_owner() -> &'static pg_sys::Pg_finfo_record {
    const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &VERSION_1
}

/// A call that is ready to be made. Plain data: an error of the called function jumps over the frame that holds it.
#[derive(Clone, Copy)]
struct Call {
    function: unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
    inner: pg_sys::FunctionCallInfo,
    caller: pg_sys::Oid,
    context: i32,
}

/// See the module.
///
/// The called function runs outside of any guard of pgrx, because a guard loses what it does not know of an error: its
/// own SQLSTATE, its context, the names of constraints. Nothing in this frame has a destructor that a jump could skip.
///
/// # Safety
/// Called by Postgres' function manager with a valid call record.
#[no_mangle]
pub unsafe extern "C-unwind" fn as_owner(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let call = pgrx_extern_c_guard(|| prepare(fcinfo));
    let result = (call.function)(call.inner);
    pgrx_extern_c_guard(|| pg_sys::SetUserIdAndSecContext(call.caller, call.context));
    (*fcinfo).isnull = (*call.inner).isnull;
    result
}

/// Builds the call of the `_as` function and switches to its owner. If the call raises, the abort of the transaction or
/// subtransaction switches back.
unsafe fn prepare(fcinfo: pg_sys::FunctionCallInfo) -> Call {
    let flinfo = (*fcinfo).flinfo;
    let Target { inner: target, owner, is_volatile } = target_of((*flinfo).fn_oid);
    if is_volatile {
        crate::version::require_same();
    }
    if (*flinfo).fn_extra.is_null() {
        let inner = pg_sys::MemoryContextAllocZero((*flinfo).fn_mcxt, size_of::<pg_sys::FmgrInfo>());
        pg_sys::fmgr_info_cxt(target, inner.cast(), (*flinfo).fn_mcxt);
        (*flinfo).fn_extra = inner;
    }
    let inner_flinfo = (*flinfo).fn_extra.cast::<pg_sys::FmgrInfo>();

    let arguments = (*fcinfo).nargs as usize;
    let size = std::mem::offset_of!(pg_sys::FunctionCallInfoBaseData, args)
        + (arguments + 1) * size_of::<pg_sys::NullableDatum>();
    let inner = pg_sys::palloc0(size) as pg_sys::FunctionCallInfo;
    (*inner).flinfo = inner_flinfo;
    (*inner).resultinfo = (*fcinfo).resultinfo;
    (*inner).fncollation = (*fcinfo).fncollation;
    (*inner).nargs = (arguments + 1) as i16;
    let to = (*inner).args.as_mut_ptr();
    std::ptr::copy_nonoverlapping((*fcinfo).args.as_ptr(), to.add(1), arguments);

    let (mut caller, mut context) = (pg_sys::Oid::INVALID, 0);
    pg_sys::GetUserIdAndSecContext(&mut caller, &mut context);
    *to = pg_sys::NullableDatum { value: pg_sys::Datum::from(caller), isnull: false };
    let Some(function) = (*inner_flinfo).fn_addr else { pgrx::error!("function {target} has no address") };
    pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
    Call { function, inner, caller, context }
}

unsafe fn target_of(function: pg_sys::Oid) -> Target {
    if let Some(known) = TARGETS.with_borrow(|targets| targets.get(&function).copied()) {
        return known;
    }
    if !REGISTERED.replace(true) {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        pg_sys::CacheRegisterSyscacheCallback(cache, Some(function_changed), pg_sys::Datum::from(0));
    }
    let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::PROCOID as i32, function.into());
    if tuple.is_null() {
        pgrx::error!("cache lookup failed for function {function}");
    }
    let row = pg_sys::GETSTRUCT(tuple) as pg_sys::Form_pg_proc;
    let owner = (*row).proowner;
    let is_volatile = (*row).provolatile == pg_sys::PROVOLATILE_VOLATILE as std::ffi::c_char;
    let name = format!("{}_as\0", CStr::from_ptr((*row).proname.data.as_ptr()).to_string_lossy());
    let mut types = vec![pg_sys::OIDOID];
    types.extend_from_slice(std::slice::from_raw_parts(
        (*row).proargtypes.values.as_ptr(),
        (*row).proargtypes.dim1 as usize,
    ));
    let schema = pg_sys::get_namespace_name((*row).pronamespace);
    pg_sys::ReleaseSysCache(tuple);
    let mut names = std::ptr::null_mut();
    for part in [schema.cast_const(), name.as_ptr().cast()] {
        names = pg_sys::lappend(names, pg_sys::makeString(pg_sys::pstrdup(part)).cast());
    }
    let inner = pg_sys::LookupFuncName(names, types.len() as i32, types.as_ptr(), false);
    let target = Target { inner, owner, is_volatile };
    TARGETS.with_borrow_mut(|targets| targets.insert(function, target));
    target
}

/// Called by Postgres when a function was changed by anybody. Must not raise.
unsafe extern "C-unwind" fn function_changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    let _ = TARGETS.try_with(|targets| targets.try_borrow_mut().map(|mut targets| targets.clear()));
    crate::version::forget();
}
