//! What an administrator lives through: several databases, copies, standbys, dumps, too few places, odd roles, attackers.
//! Each test's name says the rule. Most share one cluster, a database for each; some need one of their own.

mod ageing;
mod databases;
mod dumps;
mod failover;
mod forging;
mod idle;
mod injection;
mod kit;
mod launcher;
mod lost_events;
mod operating;
mod places;
mod pushes_in_flight;
mod restarts;
mod retention;
mod roles;
mod settings_of_roles;
mod shadowing;
mod snapshots;
mod standby;
mod stopped_attempts;
mod template_copies;
mod traps;
mod unloaded;
