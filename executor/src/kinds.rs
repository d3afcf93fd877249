//! The kinds of targets that tasks are sent to. A new one is a line here.

use crate::kind::Kind;

/// One of each.
pub fn all() -> Vec<Box<dyn Kind>> {
    vec![
        Box::new(crate::postgres::Postgres::default()),
        Box::new(crate::clickhouse::ClickHouse::default()),
        Box::new(crate::http::Http::default()),
    ]
}

/// The kind of this name, fresh: for checks.
pub fn by_name(name: &str) -> Option<Box<dyn Kind>> {
    all().into_iter().find(|kind| kind.name() == name)
}
