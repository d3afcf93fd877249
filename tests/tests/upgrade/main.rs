//! Upgrades. A database that was made with an earlier version is, after `ALTER EXTENSION pgflow UPDATE`, what a new one is:
//! its schema, and how it goes on with what the earlier version had left in the middle of work. Until then nothing is done
//! in it. `../../upgrade/` holds what those versions had left.

mod kit;
mod middle;
mod schema;
mod versions;
