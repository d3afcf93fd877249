//! Opens the connections of a target a few at a time. A password exchange costs both sides milliseconds of work: hundreds at
//! once would all be late, be given up together and begin anew.
//!
//! Whoever waits for a place while another finds the target down is told so at once.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;

use super::errors::Refusal;
use crate::job::Failure;

/// Connections of one target that are opened at once.
const AT_ONCE: usize = 16;

/// By the fingerprint of the target.
#[derive(Default)]
pub struct Doors {
    doors: Mutex<HashMap<u64, Arc<Door>>>,
}

struct Door {
    places: Semaphore,
    /// When it was last found to be down.
    down: Mutex<Option<(Instant, Failure)>>,
}

impl Doors {
    pub async fn through<T>(
        &self,
        fingerprint: u64,
        open: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let from = Instant::now();
        let door = self.door(fingerprint);
        // It is never closed.
        let _place = door.places.acquire().await;
        if let Some((at, failure)) = &*door.down.lock().unwrap_or_else(PoisonError::into_inner) {
            if *at > from {
                return Err(Refusal::Down(failure.clone()));
            }
        }
        let opened = open.await;
        if let Err(Refusal::Down(failure)) = &opened {
            *door.down.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), failure.clone()));
        }
        opened
    }

    /// Those that nobody stands at are forgotten on the way.
    fn door(&self, fingerprint: u64) -> Arc<Door> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.retain(|of, door| *of == fingerprint || Arc::strong_count(door) > 1);
        let new = || Arc::new(Door { places: Semaphore::new(AT_ONCE), down: Mutex::default() });
        doors.entry(fingerprint).or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_few_at_a_time_and_whoever_waits_hears_that_it_is_down() {
        let (doors, inside, most, tried) =
            (Doors::default(), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let open = |down: bool| {
            let (inside, most, tried) = (&inside, &most, &tried);
            async move {
                tried.fetch_add(1, SeqCst);
                most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                inside.fetch_sub(1, SeqCst);
                if down {
                    Err(Refusal::Down(Failure::new("down")))
                } else {
                    Ok(())
                }
            }
        };
        let all = (0..100).map(|_| doors.through(1, open(false)));
        assert!(futures_util::future::join_all(all).await.iter().all(Result::is_ok));
        assert_eq!((most.load(SeqCst), tried.swap(0, SeqCst)), (AT_ONCE, 100));
        let all = (0..100).map(|_| doors.through(1, open(true)));
        assert!(futures_util::future::join_all(all).await.iter().all(Result::is_err));
        assert_eq!(tried.load(SeqCst), AT_ONCE);
        assert!(doors.through(1, open(false)).await.is_ok(), "it is tried again");
        assert!(doors.through(2, open(false)).await.is_ok());
        assert_eq!(doors.doors.lock().unwrap().len(), 1);
    }
}
