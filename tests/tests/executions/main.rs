//! Executions and results between sessions: submits at the same moment, rights of roles, files that expire, reading that is
//! cancelled. Nothing is sent anywhere: the target is not there, and tasks are ended as the dispatcher would end them.

mod end_to_end;
mod expiry;
mod kit;
mod reading;
mod rights;
mod submitting;
