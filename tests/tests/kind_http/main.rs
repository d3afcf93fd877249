//! The kind `http` against a server of the tests' own: what is sent, where it may go, what an answer means.

mod answers;
mod guarding;
mod kit;
mod losing;
mod sending;
mod server;
mod tls;
