//! Tasks of kind `postgres`, run by the executor against real servers. No extension is needed: the executor is driven as the
//! dispatcher drives it.

mod inbox;
mod kit;
mod load;
mod pooler;
mod proxy;
mod refusals;
mod stopping;
mod tls;
mod values;
mod versions;
mod work;
