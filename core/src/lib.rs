//! The parts of pgflow that know nothing of PostgreSQL, so that plain `cargo test` covers them.
//!
//! Nothing here may depend on pgrx, touch a table or read a clock.

pub mod definition;
pub mod diagram;
pub mod queue;
pub mod ring;
mod text;
