//! Stopping a query: KILL QUERY on a connection of its own. Closing the connection of the query does not stop it.

use std::time::Duration;

use super::client::Client;
use crate::kind::STOP_GRACE;

/// How long one request may take.
const ONE: Duration = Duration::from_millis(1500);
/// Between two looks whether it is gone.
const BETWEEN: Duration = Duration::from_millis(100);
/// Looks until the query is told again: it may not have begun when it was told first.
const AGAIN: u32 = 3;

/// Kills a query and waits until it is gone from the host; false: nobody knows whether it is.
pub async fn kill(client: &Client, host: usize, query_id: &str) -> bool {
    end(client, host, query_id, 0).await
}

/// The same for one that should be gone already: looks first.
pub async fn gone(client: &Client, host: usize, query_id: &str) -> bool {
    end(client, host, query_id, 1).await
}

async fn end(client: &Client, host: usize, query_id: &str, mut looks: u32) -> bool {
    let kill = "KILL QUERY WHERE query_id = ? ASYNC FORMAT Null";
    let count = "SELECT count() FROM system.processes WHERE query_id = ?";
    let all = async {
        loop {
            if looks.is_multiple_of(AGAIN) {
                // A failure shows in the look that follows.
                let _ = client.tell(host, kill, |query| query.bind(query_id), ONE).await;
            }
            looks += 1;
            match client.rows::<u64>(host, count, |query| query.bind(query_id), ONE).await {
                Ok(running) if running == [0] => return,
                _ => tokio::time::sleep(BETWEEN).await,
            }
        }
    };
    tokio::time::timeout(STOP_GRACE.mul_f32(0.9), all).await.is_ok()
}
