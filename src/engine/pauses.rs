//! How long to wait before something elsewhere is tried again: longer each time, up to a limit, and spread, so that what
//! failed at the same moment is not all tried at the same moment.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Of a task whose attempt was lost or not taken.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

/// The pause after this many tries, in microseconds.
pub fn after(tries: i32, first: Duration, most: Duration) -> i64 {
    let pauses =
        ExponentialBuilder::default().with_min_delay(first).with_max_delay(most).without_max_times().with_jitter();
    let pause = pauses.build().nth(tries.clamp(0, 64) as usize).unwrap_or(most);
    pause.as_micros().min(3_600_000_000) as i64
}

/// The pause of a task that was tried this often, in microseconds.
pub fn of_task(tries: i32) -> i64 {
    after(tries, FIRST, MOST)
}
