//! Whether a target can be reached: a connection, and TLS on it, without a request.
//!
//! Must never connect to an address that a request would not.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Host;

use super::exchange::{find, tls_failure};
use super::guard::{self, Guard, Refused};
use super::settings::Settings;
use super::{client, exchange};
use crate::job::Failure;

pub async fn connect(settings: &Settings) -> Result<(), Failure> {
    let limit = settings.connect_timeout;
    match tokio::time::timeout(limit, attempt(settings)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::new(format!("no connection to {} within {} s", at(settings), limit.as_secs_f64()))),
    }
}

fn at(settings: &Settings) -> String {
    let port = settings.base.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", settings.base.host_str().unwrap_or_default())
}

async fn attempt(settings: &Settings) -> Result<(), Failure> {
    guard::check(&settings.base, &settings.hosts, &settings.private)?;
    let stream = open(settings).await?;
    if settings.base.scheme() != "https" {
        return Ok(());
    }
    let name = match settings.base.host() {
        Some(Host::Domain(name)) => ServerName::try_from(name.trim_end_matches('.').to_owned()).ok(),
        Some(Host::Ipv4(address)) => Some(ServerName::from(IpAddr::V4(address))),
        Some(Host::Ipv6(address)) => Some(ServerName::from(IpAddr::V6(address))),
        None => None,
    };
    let name = name.ok_or_else(|| Failure::new(format!("no certificate can be for {}", at(settings))))?;
    let config = client::tls(settings.verify, settings.ca_file.clone(), true).await?;
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(_) => Ok(()),
        Err(error) => Err(match find::<rustls::Error>(&error) {
            Some(error) => tls_failure(error).detail(at(settings)),
            None => Failure::new(format!("cannot connect to {}: {error}", at(settings))),
        }),
    }
}

async fn open(settings: &Settings) -> Result<TcpStream, Failure> {
    let port = settings.base.port_or_known_default().unwrap_or_default();
    let addresses = match settings.base.host() {
        Some(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
        Some(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
        Some(Host::Domain(name)) => Guard::new(settings.private.clone()).addresses(name).await.map_err(|error| {
            match exchange::find::<Refused>(error.as_ref()) {
                Some(refused) => refused.failure(),
                None => Failure::new(format!("cannot find {name}: {error}")),
            }
        })?,
        None => Vec::new(),
    };
    let mut refused = String::from("it has no address");
    for address in addresses {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error.to_string(),
        }
    }
    Err(Failure::new(format!("cannot connect to {}: {refused}", at(settings))))
}
