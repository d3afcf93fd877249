//! Clients, with their open connections, kept for the next request to the same target.
//!
//! Must never use a client for a target with other rules: connections that it keeps were judged by its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::redirect::Policy;
use reqwest::Client;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use super::guard::{Guard, Private};
use super::settings::Settings;
use crate::job::{Failure, Target};
use crate::tls::{client_config, Verify};

/// Targets whose clients are kept.
const MOST: usize = 64;
/// Connections of a client that wait for the next request, a host.
const MOST_IDLE_CONNECTIONS: usize = 32;
const IDLE_CONNECTION: Duration = Duration::from_secs(30);
const IDLE_CLIENT: Duration = Duration::from_secs(90);

/// Everything that a client is made from.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    fingerprint: u64,
    private: Private,
    verify: Verify,
    ca_file: Option<String>,
    connect_timeout: Duration,
    needs_tls: bool,
}

struct Entry {
    client: Arc<OnceCell<Client>>,
    used: Instant,
}

#[derive(Default)]
pub struct Clients {
    kept: Mutex<HashMap<Key, Entry>>,
}

impl Clients {
    pub async fn get(&self, target: &Target, settings: &Settings) -> Result<Client, Failure> {
        let key = Key {
            fingerprint: target.fingerprint,
            private: settings.private.clone(),
            verify: settings.verify,
            ca_file: settings.ca_file.clone(),
            connect_timeout: settings.connect_timeout,
            needs_tls: settings.base.scheme() == "https",
        };
        // Many jobs that begin at once wait for one client.
        let cell = self.entry(&key);
        cell.get_or_try_init(|| build(key)).await.cloned()
    }

    fn entry(&self, key: &Key) -> Arc<OnceCell<Client>> {
        let mut kept = self.lock();
        let used = Instant::now();
        if let Some(entry) = kept.get_mut(key) {
            entry.used = used;
            return entry.client.clone();
        }
        if kept.len() >= MOST {
            let oldest = kept.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            oldest.map(|key| kept.remove(&key));
        }
        let client = Arc::new(OnceCell::new());
        kept.insert(key.clone(), Entry { client: client.clone(), used });
        client
    }

    /// Lets go of clients that nothing has asked for lately; whether any is left.
    pub fn tidy(&self) -> bool {
        let mut kept = self.lock();
        kept.retain(|_, entry| entry.used.elapsed() < IDLE_CLIENT);
        !kept.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn build(key: Key) -> Result<Client, Failure> {
    let tls = tls(key.verify, key.ca_file, key.needs_tls).await?;
    Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(key.connect_timeout)
        .pool_max_idle_per_host(MOST_IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_CONNECTION)
        .tls_backend_preconfigured(tls)
        .dns_resolver(Guard::new(key.private))
        .build()
        .map_err(|error| Failure::new(format!("an HTTP client cannot be set up: {error}")))
}

/// `needed`: the target is https. Without, a machine that has no authorities' certificates can still speak plain HTTP.
pub async fn tls(verify: Verify, ca_file: Option<String>, needed: bool) -> Result<ClientConfig, Failure> {
    // Reads files.
    let read = tokio::task::spawn_blocking(move || match client_config(verify, ca_file.as_deref()) {
        Err(_) if !needed && ca_file.is_none() => trusting_nobody(),
        other => other,
    });
    let config = read.await.map_err(|error| Failure::new(format!("TLS cannot be set up: {error}")))??;
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn trusting_nobody() -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(format!("TLS cannot be set up: {error}")))?;
    Ok(Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target(fingerprint: u64) -> Target {
        let options = json!({"base_url": "http://example.com"});
        Target { fingerprint, options: options.as_object().cloned().unwrap_or_default(), ..Target::default() }
    }

    #[tokio::test]
    async fn clients_are_kept_within_a_bound() {
        let clients = Clients::default();
        assert!(!clients.tidy());
        for fingerprint in 0..(MOST as u64 * 2) {
            let target = target(fingerprint);
            let settings = Settings::of(&target).ok().unwrap();
            clients.entry(&Key {
                fingerprint,
                private: settings.private,
                verify: settings.verify,
                ca_file: None,
                connect_timeout: settings.connect_timeout,
                needs_tls: false,
            });
        }
        assert_eq!(clients.lock().len(), MOST);
        assert!(clients.tidy());
        let target = target(1000);
        let mut settings = Settings::of(&target).ok().unwrap();
        clients.get(&target, &settings).await.unwrap();
        let before = clients.lock().len();
        clients.get(&target, &settings).await.unwrap();
        assert_eq!(clients.lock().len(), before);
        settings.private.all = true;
        let key_of = |clients: &Clients| clients.lock().keys().filter(|key| key.fingerprint == 1000).count();
        clients.get(&target, &settings).await.unwrap();
        assert_eq!(key_of(&clients), 2, "other rules, another client");
    }
}
