//! Targets elsewhere as users have them: through SQL, with a running engine and real servers on the other side.

mod copies;
mod crowds;
mod down;
mod flows;
mod hostile;
mod idle;
mod kit;
mod large;
mod once;
mod progress;
mod results;
mod secrets;
mod stopping;
mod submitting;
mod web;
