//! Tasks of kind `clickhouse` against a real ClickHouse: results of every way, progress, stopping, lost connections and
//! servers, errors, secrets. The kind is called as the executor calls it; no PostgreSQL takes part.

mod connections;
mod errors;
mod kit;
mod load;
mod lookups;
mod results;
mod secrets;
mod stopping;
mod stored;
mod tls;
