//! Callbacks in another database: what they call there acts on the orchestrating server. Two clusters: one orchestrates, the
//! other one has the client, either the file for servers without the extension, or the extension, not preloaded. Each
//! test's name says the rule.

mod calls;
mod connections;
mod inbox;
mod installing;
mod kit;
mod secrets;
mod versions;
