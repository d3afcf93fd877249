//! What a stranger may write as a configuration: whatever it is, the parser answers with a definition that keeps its
//! promises, or with faults that have a place. It never panics, and a diagram of anything is a diagram.
//!
//! A few hundred cases of each property run with the unit tests, the same ones every time. `make fuzz MINUTES=60` runs
//! others for as long as it is told and prints what it did (`PGFLOW_FUZZ_MINUTES`, `PGFLOW_FUZZ_SEED`).

mod dot;
mod fake;
mod generate;
mod place;
mod properties;
mod run;
