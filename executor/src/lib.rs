//! What runs tasks somewhere else: on a remote Postgres, on ClickHouse, over HTTP; and where their results go.
//!
//! Pure async Rust. Nothing here may know of pgrx, of SQL tables or of shared memory: the dispatcher hands in plain values
//! (`job::Job`) over a bounded channel and gets plain values back (`runner::Report`). One thread runs everything
//! (`runner::Executor`), so nothing here may block it; hundreds of jobs are in flight at once.
//!
//! A kind of target is one file (or folder) that implements `kind::Kind`, and one line in `kinds`.

pub mod bridge;
pub mod foreground;
pub mod job;
pub mod kind;
pub mod kinds;
pub mod results;
pub mod runner;
pub mod tls;

mod clickhouse;
mod http;
mod postgres;
mod storable;
