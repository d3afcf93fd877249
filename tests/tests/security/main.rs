//! Attacks, each named after its threat; docs/security.md lists them. The attacker has a role that may log in and run flows.

mod code;
mod exhaustion;
mod injection;
mod kit;
mod malicious;
mod poison;
mod tokens;
