//! Requests to the servers of one target.
//!
//! Must never put a credential or a secret into a URL: they go in headers, which neither ClickHouse nor a proxy logs.
//! Nothing is sent twice unless it is certain that nothing was done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Response;
use sha2::Digest;
use tokio::sync::Mutex;

use super::body::{causes, Body, Broken};
use super::dsn::{Connection, Host};
use super::error::{self, Exception};
use super::progress::Board;
use super::query::Statement;
use crate::job::{Ending, Failure};
use crate::tls;

/// A connection that idles longer is closed: the server would close it under us. ClickHouse keeps them 3 s by default.
const IDLE: Duration = Duration::from_secs(2);
/// What is more goes in the body instead of the URL, which servers and proxies limit.
const LONG_PARAMETERS: usize = 4096;
/// How much of an error's text is read.
const ERROR_BODY: usize = 64 * 1024;
/// What a small query of our own may return.
const SMALL: usize = 4 * 1024 * 1024;

/// The client of one target; used by all of its jobs.
pub struct Client {
    pub connection: Connection,
    http: reqwest::Client,
    /// What runs on each host, as seen last.
    pub boards: Vec<Mutex<Board>>,
    /// Seconds since `born` when it was used last.
    used: AtomicU64,
    born: Instant,
}

impl Client {
    pub async fn open(connection: Connection) -> Result<Client, Failure> {
        let (secure, verify, file) = (connection.secure, connection.verify, connection.ca_file.clone());
        // Reading the system's certificates takes a while.
        let config = tokio::task::spawn_blocking(move || match secure {
            true => tls::client_config(verify, file.as_deref()),
            false => tls::client_config(tls::Verify::Nothing, None),
        });
        let config = config.await.map_err(|_| Failure::new("TLS cannot be set up"))??;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*config).clone())
            .default_headers(headers(&connection)?)
            .connect_timeout(connection.connect_timeout)
            .pool_idle_timeout(IDLE)
            .tcp_keepalive(Duration::from_secs(30))
            .tcp_nodelay(true)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| Failure::new(format!("the HTTP client cannot be set up: {}", causes(&error))))?;
        let boards = connection.hosts.iter().map(|_| Mutex::new(Board::default())).collect();
        Ok(Client { connection, http, boards, used: AtomicU64::new(0), born: Instant::now() })
    }

    pub fn touch(&self) {
        self.used.store(self.born.elapsed().as_secs(), Ordering::Relaxed);
    }

    pub fn idle(&self) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_secs(self.used.load(Ordering::Relaxed)))
    }

    /// The hosts, by number.
    pub fn hosts(&self) -> std::ops::Range<usize> {
        0..self.connection.hosts.len()
    }

    fn host(&self, number: usize) -> &Host {
        &self.connection.hosts[number % self.connection.hosts.len()]
    }

    /// Sends a statement to a host: its answer, whose body may still turn out to be an error.
    pub async fn send(&self, host: usize, statement: &Statement) -> Result<Body, Refused> {
        let response = self.request(host, statement).await?;
        let status = response.status().as_u16();
        let code = header(&response, "X-ClickHouse-Exception-Code").and_then(|code| code.parse::<u32>().ok());
        if status == 200 && code.is_none_or(|code| code == 0) {
            return Ok(Body::of(response));
        }
        let retry_after = header(&response, "Retry-After").and_then(pause);
        let text = error_text(response).await;
        match (Exception::read(&text), code) {
            (Some(exception), _) => Err(Refused::Exception(exception)),
            (None, Some(code)) => Err(Refused::Exception(Exception::of_code(code, &text))),
            (None, None) => Err(Refused::Status { status, retry_after, text }),
        }
    }

    async fn request(&self, host: usize, statement: &Statement) -> Result<Response, Refused> {
        let host = self.host(host);
        let url = self.connection.url(host);
        let mut query: Vec<(String, &str)> = Vec::new();
        let mut put = |name: &str, value| query.push((name.to_owned(), value));
        if let Some(id) = &statement.query_id {
            put("query_id", id);
        }
        if let Some(format) = statement.format {
            put("default_format", format);
        }
        if let Some(key) = &statement.quota_key {
            put("quota_key", key);
        }
        let settings = statement.wished.iter().chain(&statement.needed).chain(&statement.settings);
        // The user's own word on a setting comes last and holds.
        let settings: std::collections::BTreeMap<_, _> = settings.collect();
        settings.into_iter().for_each(|(name, value)| put(name, value));
        let parameters: Vec<(String, &str)> =
            statement.parameters.iter().map(|(name, value)| (format!("param_{name}"), value.expose())).collect();
        let long = parameters.iter().map(|(_, value)| value.len()).sum::<usize>() > LONG_PARAMETERS;
        let mut request = self.http.post(url);
        for (name, value) in &statement.secrets {
            request = request.header(name.as_str(), secret_header(value.expose())?);
        }
        if long {
            // ClickHouse does not apply every setting to DDL that comes in this form: only for what does not fit otherwise.
            let boundary = boundary(&statement.text, &parameters);
            let body = multipart(&boundary, &statement.text, &parameters);
            request = request.query(&query).header("Content-Type", format!("multipart/form-data; boundary={boundary}"));
            request = request.body(body);
        } else {
            query.extend(parameters);
            request = request.query(&query).header("Content-Type", "text/plain; charset=UTF-8");
            request = request.body(statement.text.clone());
        }
        request.send().await.map_err(|error| {
            let text = causes(&error);
            match error.is_connect() || error.is_builder() {
                true => Refused::Unreachable { host: host.clone(), text, built: !error.is_builder() },
                false => Refused::Cut { host: host.clone(), text },
            }
        })
    }

    /// A small query of our own on a host, within a time: its whole answer.
    pub async fn ask(&self, host: usize, text: String, limit: Duration) -> Result<String, Refused> {
        let statement = Statement::own(text);
        let whole = async {
            let mut body = self.send(host, &statement).await?;
            let mut answer = Vec::new();
            while let Some(chunk) = body.next().await.map_err(|broken| match broken {
                Broken::Exception(exception) => Refused::Exception(exception),
                Broken::Cut(text) => Refused::Cut { host: self.host(host).clone(), text },
            })? {
                answer.extend_from_slice(&chunk);
                if answer.len() > SMALL {
                    break;
                }
            }
            Ok(String::from_utf8_lossy(&answer).into_owned())
        };
        match tokio::time::timeout(limit, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(Refused::Cut {
                host: self.host(host).clone(),
                text: format!("no answer within {} s", limit.as_secs_f32()),
            }),
        }
    }
}

/// Why there is no answer to read.
#[derive(Debug)]
pub enum Refused {
    /// No connection: nothing was done. Not `built`: the request could not even be made.
    Unreachable {
        host: Host,
        text: String,
        built: bool,
    },
    /// The connection broke after the request had gone out.
    Cut {
        host: Host,
        text: String,
    },
    Exception(Exception),
    Status {
        status: u16,
        retry_after: Option<Duration>,
        text: String,
    },
}

impl Refused {
    pub fn failure(&self) -> Failure {
        match self {
            Refused::Unreachable { host, text, built: true } => {
                let hint = match text.contains("certificate") {
                    true => "Name a file with the authority's certificate: \"ca_file\" in the target's options.",
                    false => {
                        "Check the host, and that the port is the one of ClickHouse's HTTP interface (8123, 8443)."
                    }
                };
                Failure::new(format!("cannot connect to ClickHouse on {}:{}: {text}", host.name, host.port)).hint(hint)
            }
            Refused::Unreachable { text, .. } => Failure::new(format!("the request cannot be made: {text}")),
            Refused::Cut { host, text } => {
                Failure::new(format!("the connection to ClickHouse on {}:{} was lost: {text}", host.name, host.port))
            }
            Refused::Exception(exception) => exception.failure(),
            Refused::Status { status, retry_after, text } => match error::of_status(*status, *retry_after, text) {
                Ending::Failed(failure) | Ending::Lost(failure) | Ending::Again { failure, .. } => failure,
                Ending::Finished(_) | Ending::Stopped => Failure::new(format!("HTTP {status}")),
            },
        }
    }

    /// How an attempt ends whose query got this answer.
    pub fn ending(&self) -> Ending {
        match self {
            Refused::Unreachable { built: true, .. } => {
                Ending::Again { failure: self.failure(), after: None, down: true }
            }
            Refused::Unreachable { .. } => Ending::Failed(self.failure()),
            Refused::Cut { .. } => Ending::Lost(self.failure()),
            Refused::Exception(exception) => exception.ending(),
            Refused::Status { status, retry_after, text } => error::of_status(*status, *retry_after, text),
        }
    }
}

pub fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Whatever a proxy says, a task is tried again after that long.
const LONGEST_PAUSE: u64 = 60 * 60;

/// What Retry-After says, in seconds.
fn pause(retry_after: &str) -> Option<Duration> {
    retry_after.trim().parse::<u64>().ok().map(|seconds| Duration::from_secs(seconds.min(LONGEST_PAUSE)))
}

async fn error_text(mut response: Response) -> String {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        text.extend_from_slice(&chunk);
        if text.len() > ERROR_BODY {
            break;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What goes with every request.
fn headers(connection: &Connection) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, what: &str, value: &str| {
        let mut value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| Failure::new(format!("the {what} has a character that HTTP cannot carry")))?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
        Ok::<(), Failure>(())
    };
    put("user-agent", "version", concat!("pgflow/", env!("CARGO_PKG_VERSION")))?;
    if let Some(user) = &connection.user {
        put("x-clickhouse-user", "user", user)?;
    } else if connection.password.is_some() {
        put("x-clickhouse-user", "user", "default")?;
    }
    if let Some(password) = &connection.password {
        put("x-clickhouse-key", "password", password.expose())?;
    }
    if let Some(database) = &connection.database {
        put("x-clickhouse-database", "database", database)?;
    }
    Ok(headers)
}

fn secret_header(value: &str) -> Result<HeaderValue, Refused> {
    let wrong = |_| Refused::Exception(Exception::of_code(0, "a secret cannot be sent as a header"));
    let mut value = HeaderValue::from_str(value).map_err(wrong)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A line that stands nowhere in what it separates.
fn boundary(query: &str, parameters: &[(String, &str)]) -> String {
    let mut digest = sha2::Sha256::new();
    digest.update(query);
    parameters.iter().for_each(|(_, value)| digest.update(value));
    format!("pgflow-{}", hex::encode(digest.finalize()))
}

fn multipart(boundary: &str, query: &str, parameters: &[(String, &str)]) -> String {
    let fields =
        std::iter::once(("query", query)).chain(parameters.iter().map(|(name, value)| (name.as_str(), *value)));
    let field = |(name, value): (&str, &str)| {
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    format!("{}--{boundary}--\r\n", fields.map(field).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_bounded() {
        let seconds = |text: &str| pause(text).map(|pause| pause.as_secs());
        assert_eq!([seconds("7"), seconds("18446744073709551615"), seconds("soon")], [Some(7), Some(3600), None]);
    }
}
