//! Results in object stores: real S3 and Azure servers and directories, every format and compression, and what goes wrong.
//!
//! `gs://` is not here: nothing that can be installed speaks the interface that it needs.

mod encrypted;
mod failures;
mod large;
mod others;
mod paths;
mod round_trips;
mod stores;
