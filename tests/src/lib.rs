//! What the tests against a running server share: scratch clusters, random flows, the reference model they are compared
//! with, and mutations of the cascade. Knows nothing of the engine's code; talks to it in SQL only.

pub mod cluster;
pub mod database;
pub mod failure;
pub mod generator;
pub mod guard;
pub mod model;
pub mod mutation;
pub mod overlay;
pub mod place;
pub mod plan;
pub mod play;
pub mod postmaster;
pub mod rng;
pub mod servers;
pub mod session;
pub mod standby;
