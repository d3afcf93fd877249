//! Runs futures on the caller's own thread, a slice of time each: for callers that must look at something else in between,
//! such as a session that reads a result and may be cancelled.
//!
//! A future is never dropped while it is being polled, and nothing of the caller's runs while one is.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// A runtime that moves only while it is asked to.
pub struct Foreground {
    runtime: Option<Runtime>,
}

impl Foreground {
    /// Blocking work (files, names of hosts) is done by two threads at most, which start inside `slice`: the caller has
    /// blocked every signal then that they must not handle.
    pub fn new() -> std::io::Result<Foreground> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
        Ok(Foreground { runtime: Some(runtime) })
    }

    /// Drives a future for at most so long. `None`: it has not ended yet; ask again.
    pub fn slice<F: Future + Unpin>(&self, future: &mut F, at_most: Duration) -> Option<F::Output> {
        let runtime = self.runtime.as_ref()?;
        runtime.block_on(async { tokio::time::timeout(at_most, future).await.ok() })
    }
}

impl Drop for Foreground {
    /// Waits for nothing: a thread that looks up a name may take long.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_goes_on_where_the_slice_before_has_left_it() {
        let foreground = Foreground::new().unwrap();
        let mut slept = Box::pin(async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::task::spawn_blocking(|| 7).await.unwrap()
        });
        let mut slices = 1;
        let value = loop {
            match foreground.slice(&mut slept, Duration::from_millis(15)) {
                Some(value) => break value,
                None => slices += 1,
            }
        };
        assert_eq!(value, 7);
        assert!(slices > 1, "one slice does not suffice for 100 ms");
    }

    #[test]
    fn dropping_it_waits_for_no_thread() {
        let foreground = Foreground::new().unwrap();
        let mut never = Box::pin(tokio::task::unconstrained(async {
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            std::mem::forget(sender);
            let _ = tokio::task::spawn_blocking(move || receiver.recv()).await;
        }));
        assert!(foreground.slice(&mut never, Duration::from_millis(10)).is_none());
        drop(foreground);
        drop(never);
    }
}
