//! Routines by name, as configurations write them: possibly with a schema, possibly quoted.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// What a name and argument types lead to.
pub enum Found {
    Exactly(pg_sys::Oid),
    /// Only routines of that name that take something else: what one of them takes.
    Other(String),
    Nothing,
}

/// Looks a routine up by the current search path. Unlike LookupFuncName() it finds procedures too.
///
/// # Safety
/// Must be called inside a transaction.
pub unsafe fn find(name: &str, types: &[pg_sys::Oid]) -> Found {
    let Some(names) = CString::new(name).ok().and_then(|n| qualified(&n)) else { return Found::Nothing };
    let mut other = None;
    let mut candidate = pg_sys::FuncnameGetCandidates(names, -1, std::ptr::null_mut(), false, false, false, true);
    while !candidate.is_null() {
        let takes = std::slice::from_raw_parts((*candidate).args.as_ptr(), (*candidate).nargs as usize);
        if takes == types {
            return Found::Exactly((*candidate).oid);
        }
        other.get_or_insert_with(|| {
            let names = takes.iter().map(|t| text(pg_sys::format_type_be(*t)));
            names.collect::<Vec<_>>().join(", ")
        });
        candidate = (*candidate).next;
    }
    other.map_or(Found::Nothing, Found::Other)
}

/// The routine's name as SQL writes it, with its schema.
///
/// # Safety
/// `routine` must exist.
pub unsafe fn quoted_name(routine: pg_sys::Oid) -> String {
    let schema = pg_sys::get_namespace_name(pg_sys::get_func_namespace(routine));
    text(pg_sys::quote_qualified_identifier(schema, pg_sys::get_func_name(routine)))
}

unsafe fn text(string: *const std::ffi::c_char) -> String {
    CStr::from_ptr(string).to_string_lossy().into_owned()
}

unsafe fn qualified(name: &CStr) -> Option<*mut pg_sys::List> {
    let mut parts = std::ptr::null_mut();
    let copy = pg_sys::pstrdup(name.as_ptr());
    if !pg_sys::SplitIdentifierString(copy, b'.' as _, &mut parts) || parts.is_null() || (*parts).length > 2 {
        return None;
    }
    let mut names = std::ptr::null_mut();
    for i in 0..(*parts).length {
        let part = (*(*parts).elements.add(i as usize)).ptr_value;
        names = pg_sys::lappend(names, pg_sys::makeString(part.cast()).cast());
    }
    Some(names)
}
