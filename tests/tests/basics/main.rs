//! The rules of docs/semantics.md one by one, each in a short flow of its own: a test's name begins with the number of the
//! rule (C1 to C21) or of the original's defect (E1 to E14) that it holds us to. One cluster, a database for each test.

mod arguments;
mod cancelling;
mod child_flows;
mod deferring;
mod finishing;
mod graph;
mod kit;
mod leaks;
mod notices;
mod pools;
mod priorities;
mod restarting;
mod roles;
mod shared_transactions;
mod steps;
mod timeouts;
mod transactions;
