//! Statements of our own: looks at what runs and at the log, kills, probes. Their rows are structs, which the answer's
//! names and types are checked against.
//!
//! They go through the `clickhouse` crate. The users' queries do not: it hides the status and the headers of an answer,
//! and where data end and a late exception begins.
//!
//! Must never send a user's query, or wait longer than it is told.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::clickhouse::error::Error;
use ::clickhouse::query::Query;
use ::clickhouse::{RowOwned, RowRead};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::body::causes;
use super::client::{Client, Refused, IDLE, KEEPALIVE};
use super::dsn::Connection;
use super::error::{self, Exception};
use super::query::Statement;

/// What an answer may hold; its rows behind that are not read.
const SMALL: u64 = 4 * 1024 * 1024;
/// How much is told of an answer that is not ClickHouse's, in characters.
const FOREIGN: usize = 300;

/// The crate's client of each host, by number; they share their connections.
pub fn clients(connection: &Connection, tls: &Arc<rustls::ClientConfig>) -> Vec<::clickhouse::Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(connection.connect_timeout));
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config((**tls).clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector);
    let mut client = ::clickhouse::Client::with_http_client(http)
        .with_product_info("pgflow", env!("CARGO_PKG_VERSION"))
        // An error then comes instead of rows, not behind them.
        .with_setting("wait_end_of_query", "1");
    if let Some(user) = connection.login() {
        client = client.with_user(user);
    }
    if let Some(password) = &connection.password {
        client = client.with_password(password.expose());
    }
    if let Some(database) = &connection.database {
        client = client.with_header("X-ClickHouse-Database", database);
    }
    connection.hosts.iter().map(|host| client.clone().with_url(connection.url(host))).collect()
}

impl Client {
    /// The rows of a statement on a host, within a time. `bind` gives values to the `?` of its text.
    pub async fn rows<T>(
        &self,
        host: usize,
        text: &str,
        bind: impl FnOnce(Query) -> Query,
        limit: Duration,
    ) -> Result<Vec<T>, Refused>
    where
        T: RowOwned + RowRead,
    {
        let query = bind(self.own(host).query(text));
        self.within(host, limit, async {
            let mut cursor = query.fetch::<T>()?;
            let mut rows = Vec::new();
            while let Some(row) = cursor.next().await? {
                rows.push(row);
                if cursor.received_bytes() > SMALL {
                    break;
                }
            }
            Ok(rows)
        })
        .await
    }

    /// Has a statement without rows done on a host, within a time.
    pub async fn tell(
        &self,
        host: usize,
        text: &str,
        bind: impl FnOnce(Query) -> Query,
        limit: Duration,
    ) -> Result<(), Refused> {
        let query = bind(self.own(host).query(text));
        self.within(host, limit, query.execute()).await
    }

    async fn within<T>(
        &self,
        host: usize,
        limit: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Refused> {
        let whole = async {
            match work.await {
                Ok(answer) => Ok(answer),
                Err(error) => Err(self.refused(host, error).await),
            }
        };
        match tokio::time::timeout(limit, whole).await {
            Ok(answer) => answer,
            Err(_) => Err(Refused::Cut {
                host: self.host(host).clone(),
                text: format!("no answer within {} s", limit.as_secs_f32()),
            }),
        }
    }

    async fn refused(&self, number: usize, error: Error) -> Refused {
        let host = self.host(number).clone();
        let text = causes(&error);
        match error {
            Error::Network(cause) => match cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect)
            {
                true => Refused::Unreachable { host, text, built: true },
                false => Refused::Cut { host, text },
            },
            Error::InvalidParams(_) => Refused::Unreachable { host, text, built: false },
            Error::BadResponse(answer) => match Exception::read(&answer).or_else(|| Exception::read_foreign(&answer)) {
                Some(exception) => Refused::Exception(exception),
                None => self.foreign(number, &answer).await,
            },
            // Rows that are not what was asked for.
            _ => Refused::Exception(Exception::of_code(0, &format!("the answer cannot be read: {error}"))),
        }
    }

    /// The answer was none of ClickHouse's. Its status, which the crate does not tell, says what follows from it: the
    /// least is asked again in the plain way.
    async fn foreign(&self, host: usize, answer: &str) -> Refused {
        match self.send(host, &Statement::own("SELECT 1")).await {
            Err(refused) => refused,
            Ok(_) => Refused::Cut {
                host: self.host(host).clone(),
                text: format!("something in between answered: {}", error::cut(answer.trim(), FOREIGN)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::job::{Ending, Secret, Target};

    const LIMIT: Duration = Duration::from_secs(60);

    async fn client(port: u16) -> Client {
        let connection_string = Some(Secret::new(format!("http://ann:hunter22@127.0.0.1:{port}/sales")));
        let target = Target { connection_string, ..Target::default() };
        Client::open(Connection::of(&target).unwrap()).await.unwrap()
    }

    /// Answers every request in the same way; its port, and the requests' heads.
    async fn answering(answer: &'static str) -> (u16, Arc<std::sync::Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = vec![0; 64 * 1024];
                let read = stream.read(&mut head).await.unwrap();
                seen.lock().unwrap().push(String::from_utf8_lossy(&head[..read]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (port, heads)
    }

    #[tokio::test]
    async fn the_status_of_a_proxys_answer_is_kept() {
        let (port, _) =
            answering("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy")
                .await;
        let refused = client(port).await.rows::<u64>(0, "SELECT 1 AS n", |q| q, LIMIT).await.unwrap_err();
        assert!(matches!(refused, Refused::Status { status: 503, .. }), "{refused:?}");
        let Ending::Again { after, down: false, .. } = refused.ending() else { panic!("{refused:?}") };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }

    #[tokio::test]
    async fn an_exception_keeps_its_code_and_credentials_stay_out_of_the_url() {
        let (port, heads) = answering(
            "HTTP/1.1 404 Not Found\r\nX-ClickHouse-Exception-Code: 60\r\nConnection: close\r\nContent-Length: 65\r\n\r\n\
             Code: 60. DB::Exception: No table. (UNKNOWN_TABLE) (version 26.7)",
        )
        .await;
        let refused = client(port).await.tell(0, "SELECT ?", |q| q.bind("it's"), LIMIT).await.unwrap_err();
        assert!(matches!(&refused, Refused::Exception(exception) if exception.code == 60), "{refused:?}");
        let heads = heads.lock().unwrap().join("\n");
        let (line, head) = heads.split_once("\r\n").unwrap();
        assert!(!line.contains("ann") && !line.contains("hunter22") && !line.contains("sales"), "{line}");
        let head = head.to_ascii_lowercase();
        for header in ["x-clickhouse-user: ann", "x-clickhouse-key: hunter22", "x-clickhouse-database: sales"] {
            assert!(head.contains(header), "{head}");
        }
    }

    #[tokio::test]
    async fn nobody_there_and_a_cut_connection_are_told_apart() {
        let (port, _) = answering("").await;
        let cut = client(port).await.tell(0, "SELECT 1", |q| q, LIMIT).await.unwrap_err();
        assert!(matches!(cut, Refused::Cut { .. }), "{cut:?}");
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let nobody = client(free).await.tell(0, "SELECT 1", |q| q, LIMIT).await.unwrap_err();
        assert!(matches!(nobody, Refused::Unreachable { built: true, .. }), "{nobody:?}");
    }
}
