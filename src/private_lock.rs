//! Locks for the rest of a transaction that no session can take from outside. Those of pg_advisory_lock are everybody's:
//! whoever knows the number keeps others waiting for as long as he likes.
#![allow(unsafe_code)]

use pgrx::pg_sys;
use pgrx::prelude::*;

/// What a lock is about; two of different kinds never meet.
#[derive(Clone, Copy)]
pub enum About {
    /// A flow's name that nobody has configured yet.
    FlowName = 1,
    /// A role whose open runs are being counted.
    Role = 2,
    /// A table that a result is about to make.
    ResultTable = 3,
}

/// The two forms of pg_advisory_lock have 1 and 2 here.
const OURS: u16 = 0x7066;
const USER_LOCKMETHOD: u8 = 2;

pub fn lock(about: About, what: u32) {
    // SAFETY: in a transaction; the tag is plain data, and the lock goes when the transaction ends, however it does.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.to_u32(),
            locktag_field2: about as u32,
            locktag_field3: what,
            locktag_field4: OURS,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: USER_LOCKMETHOD,
        };
        pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, false);
    }
}

/// A number for a text. Two texts that share it wait for each other without need, once in four billion; the same in every session.
pub fn number(text: &str) -> u32 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish() as u32
}

#[pg_extern(sql = false)]
fn lock_role(role: pg_sys::Oid) {
    lock(About::Role, role.to_u32());
}

#[pg_extern(sql = false)]
fn lock_name(flow: &str) {
    lock(About::FlowName, number(flow));
}
