//! JSON that a user gave to one of our functions. pgrx's own type answers what it cannot read with an internal error; this
//! one says what is wrong.
#![allow(unsafe_code)]

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{pg_sys, FromDatum, PgSqlErrorCode};
use serde_json::Value;

use crate::error::raise;

/// How deep it may be nested. Deeper is refused because reading it takes stack; Postgres itself reads some thousands.
const DEEPEST: usize = 127;

/// A jsonb argument, and how many bytes its text has.
pub struct Json(pub Value, pub usize);

impl FromDatum for Json {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the function is declared to take a jsonb here; its text lives until the end of the call.
        let text = pg_sys::OidOutputFunctionCall(JSONB_OUT, datum);
        let bytes = std::ffi::CStr::from_ptr(text).to_bytes();
        let (read, length) = (serde_json::from_slice(bytes), bytes.len());
        pg_sys::pfree(text.cast());
        let value = read.unwrap_or_else(|_| {
            raise(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("the JSON is nested more than {DEEPEST} levels deep"),
                None,
                None,
            )
        });
        Some(Json(value, length))
    }
}

/// The output function of jsonb, whose OID is fixed.
const JSONB_OUT: pg_sys::Oid = pg_sys::Oid::from_u32(3804);

// SAFETY: unboxed as the datum that it is; null is the default implementation's affair.
unsafe impl<'fcx> ArgAbi<'fcx> for Json {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        match arg.unbox_arg_using_from_datum() {
            Some(json) => json,
            None => raise(
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                "an argument is null that must not be".to_owned(),
                None,
                None,
            ),
        }
    }
}

// SAFETY: never used: every SQL object is declared by hand. The trait is asked for all the same.
unsafe impl SqlTranslatable for Json {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Json);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}
