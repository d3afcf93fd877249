//! Opens object stores: from what was configured to something that objects are written to.
//!
//! Must never take credentials from the environment, a file of the server or the cloud's metadata address unless the
//! store's option `credentials` is `environment`: every builder is given its credentials here, since without any they would
//! look there by themselves. TLS is `crate::tls`, with ring.
//!
//! `gs://` is built and checked like the others, but no server was there to test it against.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{ClientConfigKey, HttpClient, HttpConnector, StaticCredentialProvider};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use sha2::{Digest, Sha256};

use super::options::{self, Address, Options, Scheme};
use super::Store;
use crate::job::{is_credential, Failure, Secret};
use crate::tls::{self, Verify};

/// Stores that are kept open at most.
const KEPT: usize = 64;

/// How a request is repeated: a few times, not for long. What waits for a store holds a place of the executor.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(200),
            max_backoff: Duration::from_secs(3),
            base: 2.0,
        },
        max_retries: 4,
        retry_timeout: Duration::from_secs(30),
    }
}

/// A store that is ready to be used.
pub(super) struct Opened {
    pub objects: Arc<dyn ObjectStore>,
    pub signer: Option<Arc<dyn Signer>>,
    pub name: String,
    /// Without a slash at its end.
    pub url: String,
    scheme: Scheme,
    prefix: String,
    secrets: Vec<Secret>,
}

impl Opened {
    /// The object at a path below the store's prefix; nothing else can be named.
    pub fn locate(&self, path: &str) -> Result<Path, Failure> {
        let wrong = |message: String| Failure::new(message).detail(format!("The path of the object is {path:?}."));
        options::check_path(path).map_err(wrong)?;
        let whole = if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) };
        Path::parse(whole).map_err(|error| wrong(format!("the path is not one that a store can hold: {error}")))
    }

    pub fn is_directory(&self) -> bool {
        self.scheme == Scheme::File
    }

    pub fn is_azure(&self) -> bool {
        self.scheme == Scheme::Azure
    }

    /// The URL of an object, without credentials.
    pub fn location(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    pub fn masked(&self, failure: Failure) -> Failure {
        let mask = |text: String| {
            self.secrets.iter().fold(text, |text, secret| match secret.expose() {
                short if short.len() < 4 => text,
                secret => text.replace(secret, "***"),
            })
        };
        Failure {
            code: failure.code,
            message: mask(failure.message),
            detail: failure.detail.map(mask),
            hint: failure.hint.map(mask),
        }
    }
}

/// A client's connections live on the runtime that made them; another runtime must not wait for them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    runtime: tokio::runtime::Id,
    configuration: [u8; 32],
}

struct Entry {
    opened: Arc<Opened>,
    used: Instant,
}

static OPEN: OnceLock<Mutex<HashMap<Key, Entry>>> = OnceLock::new();

fn key(store: &Store) -> Key {
    let mut digest = Sha256::new();
    let mut add = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    };
    add(&store.name);
    add(&store.url);
    for (key, value) in &store.options {
        add(key);
        add(value.expose());
    }
    Key { runtime: tokio::runtime::Handle::current().id(), configuration: digest.finalize().into() }
}

/// The store, opened now or before. Connects nowhere; of `file://` the directory is made.
pub(super) async fn open(store: &Store) -> Result<Arc<Opened>, Failure> {
    let key = key(store);
    let open = OPEN.get_or_init(Mutex::default);
    if let Some(entry) = open.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&key) {
        entry.used = Instant::now();
        return Ok(entry.opened.clone());
    }
    let opened = Arc::new(build(store).await?);
    let mut entries = open.lock().unwrap_or_else(PoisonError::into_inner);
    while entries.len() >= KEPT {
        let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key) else { break };
        entries.remove(&oldest);
    }
    entries.insert(key, Entry { opened: opened.clone(), used: Instant::now() });
    Ok(opened)
}

async fn build(store: &Store) -> Result<Opened, Failure> {
    let unusable = |what: String| {
        Failure::new(format!("store \"{}\" cannot be used as configured: {what}", store.name))
            .hint("Correct it with async.configure, or the options of its server and user mapping.")
    };
    if let Some(fault) = options::check_use(store).into_iter().next() {
        return Err(unusable(format!("{}: {}", fault.path.trim_start_matches('.'), fault.message)));
    }
    let address = options::address(&store.url).map_err(unusable)?;
    let (options, _) = options::options(address.scheme, store);
    let secrets = store
        .options
        .iter()
        .filter(|(key, _)| is_credential(key) || key.contains("customer_key") || key.contains("encryption_key"))
        .map(|(_, value)| value.clone())
        .collect();
    let mut opened = Opened {
        objects: Arc::new(object_store::memory::InMemory::new()),
        signer: None,
        name: store.name.clone(),
        url: store.url.trim_end_matches('/').to_owned(),
        scheme: address.scheme,
        prefix: address.prefix.clone(),
        secrets,
    };
    if address.scheme == Scheme::File {
        opened.objects = Arc::new(directory(store, &address.prefix).await?);
        // The directory is the root of what the store can name.
        opened.prefix.clear();
        return Ok(opened);
    }
    let connector = Connector::new(&options)?;
    let built = match address.scheme {
        Scheme::File => return Ok(opened),
        Scheme::S3 => s3(&address, &options, connector).map(|s| opened.set(Arc::new(s))),
        Scheme::Azure => azure(&address, &options, connector).map(|s| opened.set(Arc::new(s))),
        Scheme::Google => google(&address, &options, connector).map(|s| opened.set(Arc::new(s))),
    };
    match built {
        Ok(()) => Ok(opened),
        Err(error) => {
            let failure = unusable(error.to_string());
            Err(opened.masked(failure))
        }
    }
}

impl Opened {
    fn set<S: ObjectStore + Signer>(&mut self, store: Arc<S>) {
        self.objects = store.clone();
        self.signer = Some(store);
    }
}

/// Makes the directory if need be.
async fn directory(store: &Store, path: &str) -> Result<LocalFileSystem, Failure> {
    let path = format!("/{path}");
    let failed = |what: String| {
        Failure::new(format!("the directory of store \"{}\" cannot be used: {what}", store.name))
            .detail(format!("It is {path}."))
            .hint("The operating system user that Postgres runs as must be allowed to make it, or to write in it.")
    };
    tokio::fs::create_dir_all(&path).await.map_err(|error| failed(error.to_string()))?;
    // What is recorded as kept must survive a crash as the record does.
    LocalFileSystem::new_with_prefix(&path)
        .map(|files| files.with_fsync(true))
        .map_err(|error| failed(error.to_string()))
}

fn client_options() -> ClientOptions {
    // Only says what the connector must allow: see `Connector::connect`.
    ClientOptions::new().with_allow_http(false)
}

fn s3(address: &Address, options: &Options, connector: Connector) -> object_store::Result<object_store::aws::AmazonS3> {
    let environment = options::from_environment(options);
    let mut builder = if environment { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
    builder = builder
        .with_client_options(client_options())
        .with_retry(retries())
        .with_http_connector(connector)
        .with_bucket_name(&address.bucket)
        // Not every store that speaks S3 has it.
        .with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
    for (name, value) in options {
        if let Some(key) = parsed::<AmazonS3ConfigKey>(name) {
            builder = builder.with_config(key, value);
        }
    }
    if !environment && !options.contains_key("access_key_id") {
        let nobody = AwsCredential { key_id: String::new(), secret_key: String::new(), token: None };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
    }
    builder.build()
}

fn azure(
    address: &Address,
    options: &Options,
    connector: Connector,
) -> object_store::Result<object_store::azure::MicrosoftAzure> {
    let environment = options::from_environment(options);
    let mut builder = if environment { MicrosoftAzureBuilder::from_env() } else { MicrosoftAzureBuilder::new() };
    builder = builder
        .with_client_options(client_options())
        .with_retry(retries())
        .with_http_connector(connector)
        .with_container_name(&address.bucket);
    for (name, value) in options {
        if let Some(key) = parsed::<AzureConfigKey>(name) {
            builder = builder.with_config(key, value);
        }
    }
    if !environment && options::is_true(options, "skip_signature") {
        let nobody = object_store::azure::AzureCredential::BearerToken(String::new());
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
    }
    builder.build()
}

fn google(
    address: &Address,
    options: &Options,
    connector: Connector,
) -> object_store::Result<object_store::gcp::GoogleCloudStorage> {
    let environment = options::from_environment(options);
    let mut builder =
        if environment { GoogleCloudStorageBuilder::from_env() } else { GoogleCloudStorageBuilder::new() };
    builder = builder
        .with_client_options(client_options())
        .with_retry(retries())
        .with_http_connector(connector)
        .with_bucket_name(&address.bucket)
        .with_skip_signature(options::is_true(options, "skip_signature"));
    if let Some(url) = options.get("base_url") {
        builder = builder.with_base_url(url);
    }
    if let Some(key) = options.get("service_account_key") {
        builder = builder.with_service_account_key(key);
    } else if !environment {
        // Also with no signature: without credentials the builder reads a file of the server's operating system user.
        let bearer = options.get("bearer_token").cloned().unwrap_or_default();
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential { bearer })));
    }
    builder.build()
}

/// The builder's key for an option; options of the connection are the connector's.
fn parsed<K: std::str::FromStr>(name: &str) -> Option<K> {
    const OURS: [&str; 8] = [
        "allow_http",
        "ca_file",
        "connect_timeout",
        "credentials",
        "named_collection",
        "proxy_url",
        "timeout",
        "verify",
    ];
    if OURS.contains(&name) {
        return None;
    }
    name.parse().ok()
}

/// Makes HTTP clients: TLS of `crate::tls`, no redirects, no proxy of the environment, time limits.
#[derive(Clone)]
struct Connector {
    tls: Arc<rustls::ClientConfig>,
    allow_http: bool,
    connect_timeout: Duration,
    answer_timeout: Duration,
    proxy: Option<String>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    fn new(options: &Options) -> Result<Connector, Failure> {
        let verify = match options.get("verify").map(String::as_str) {
            Some("none") => Verify::Nothing,
            Some("ca") => Verify::Authority,
            _ => Verify::Full,
        };
        let endpoint = options.get("endpoint").or_else(|| options.get("base_url"));
        let authorities = options.get("ca_file").map(String::as_str);
        let tls = if authorities.is_none() && endpoint.is_some_and(|url| url.starts_with("http://")) {
            trusts_nobody()?
        } else {
            tls::client_config(verify, authorities)?
        };
        let seconds = |name: &str, default: u64| {
            Duration::from_secs(options.get(name).and_then(|s| s.parse().ok()).unwrap_or(default))
        };
        Ok(Connector {
            tls,
            allow_http: options::is_true(options, "allow_http"),
            connect_timeout: seconds("connect_timeout", 10),
            answer_timeout: seconds("timeout", 60),
            proxy: options.get("proxy_url").cloned(),
        })
    }
}

/// For a store that is not encrypted: nothing is read from the server's certificates.
fn trusts_nobody() -> Result<Arc<rustls::ClientConfig>, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(format!("TLS cannot be set up: {error}")))?;
    Ok(Arc::new(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()))
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Builders ask for it themselves only to reach the cloud's metadata address.
        let metadata = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|v| v == "true");
        let failed = |error: reqwest::Error| object_store::Error::Generic { store: "HTTP", source: Box::new(error) };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured((*self.tls).clone())
            .https_only(!self.allow_http && !metadata)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(self.connect_timeout)
            // For each wait, not for the whole: an object may be large and its reader slow.
            .read_timeout(self.answer_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("pgflow/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(failed)?);
        }
        builder.build().map(HttpClient::new).map_err(failed)
    }
}
