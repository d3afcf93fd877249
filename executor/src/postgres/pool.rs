//! Connections that nobody uses right now, by target and role. Bounded: what is too many is closed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Connection;

/// Whose a connection is: the target's fingerprint, and the role in the orchestrating database.
pub type Key = (u64, String);

/// Idle connections of one key, and of all together.
const OF_ONE: usize = 200;
const OF_ALL: usize = 600;

#[derive(Default)]
pub struct Pool {
    idle: Mutex<HashMap<Key, VecDeque<Idle>>>,
}

struct Idle {
    connection: Connection,
    until: Instant,
}

impl Pool {
    /// The one that was used last, so that those that are not needed grow old.
    pub fn take(&self, key: &Key) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(key)?;
        while let Some(Idle { mut connection, until }) = kept.pop_back() {
            if !connection.client.is_closed() && until > Instant::now() {
                connection.reused = true;
                return Some(connection);
            }
            connection.close();
        }
        idle.remove(key);
        None
    }

    /// Keeps a connection whose session has been reset.
    pub fn put(&self, key: Key, connection: Connection, idle_time: Duration) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = idle.values().map(VecDeque::len).sum();
        let kept = idle.entry(key).or_default();
        if all >= OF_ALL || kept.len() >= OF_ONE || idle_time.is_zero() {
            connection.close();
        } else {
            kept.push_back(Idle { connection, until: Instant::now() + idle_time });
        }
    }

    /// Closes what has idled for long or has been closed from there. Whether anything is left.
    pub fn tidy(&self) -> bool {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for kept in idle.values_mut() {
            let (old, young) = kept.drain(..).partition(|i: &Idle| i.until <= now || i.connection.client.is_closed());
            *kept = young;
            let old: VecDeque<Idle> = old;
            old.into_iter().for_each(|idle| idle.connection.close());
        }
        idle.retain(|_, kept| !kept.is_empty());
        !idle.is_empty()
    }
}
