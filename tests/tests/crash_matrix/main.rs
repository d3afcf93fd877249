//! The crash matrix: a process of a server stands still at a named point, and it, or the server, dies there. Afterwards
//! every effect is there exactly once, no run is stuck, counters equal recounts, and no process is left behind.
//!
//! `matrix.rs` is the fixed table, `random.rs` rounds by chance (`PGFLOW_ROUNDS`, `PGFLOW_SEED`), `shortages.rs` what is no
//! death: a full disk, no room for a process or a connection, no memory. See docs/reliability.md.

mod death;
mod invariants;
mod matrix;
mod point;
mod random;
mod round;
mod shortages;
mod world;
