//! The engine's processes and what they share. See docs/architecture.md for how work flows through them.

pub mod announce;
pub mod bridge;
pub mod callback;
pub mod dispatcher;
pub mod events;
pub mod hooks;
pub mod kept_rows;
pub mod launcher;
pub mod notices;
pub mod own_task;
pub mod pauses;
pub mod process;
pub mod session;
mod shared_steps;
pub mod shmem;
pub mod stop_points;
pub mod worker;
