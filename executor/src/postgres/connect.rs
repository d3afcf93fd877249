//! From a target to an open connection: hosts in their order, encryption as `sslmode` says, the password rule.
//!
//! The rule: where `Target::password_required`, the connection must carry a password *and* the server must have asked for it
//! (`wire::Seen`), as postgres_fdw and dblink demand. Else whoever may define a target would get in by trust or peer, as
//! the operating system user of this server. The connection is closed before anything was sent on it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres::Config;

use super::connection::{Connection, Way};
use super::conninfo::{Binding, Conninfo, Encrypt, Host, Session};
use super::errors::{refusal, Refusal};
use super::options::TargetOptions;
use super::wire::{Encryption, Negotiator, Seen};
use crate::job::{Failure, Target};
use crate::tls::client_config;

/// Addresses of one name that are tried.
const ADDRESSES: usize = 16;

/// Opens a connection for a role of the orchestrating database.
pub async fn open(
    target: &Target,
    info: &Conninfo,
    options: &TargetOptions,
    role: &str,
) -> Result<Connection, Refusal> {
    if target.password_required && info.password.is_none() {
        return Err(Refusal::Refused(password_required("It carries none.")));
    }
    let limit = info.connect_timeout.unwrap_or(options.connect_timeout);
    let mut hosts: Vec<&Host> = info.hosts.iter().collect();
    if info.balanced {
        shuffle(&mut hosts);
    }
    let rounds: &[Session] = match info.session {
        Session::PreferStandby => &[Session::Standby, Session::Any],
        ref other => std::slice::from_ref(other),
    };
    let mut last = None;
    for wanted in rounds {
        for host in &hosts {
            let opener = Opener { target, info, options, role, host, limit };
            match opener.open(*wanted).await {
                Ok(connection) => return Ok(connection),
                // What another host may do better.
                Err(Refusal::Down(failure)) => last = Some(Refusal::Down(failure)),
                Err(refused) => return Err(refused),
            }
        }
    }
    Err(last.unwrap_or_else(|| Refusal::Refused(Failure::new("the target names no host"))))
}

fn password_required(detail: &str) -> Failure {
    Failure::new("password is required")
        .code("2F003")
        .detail(format!("The connection must use a password. {detail}"))
        .hint(
        "A target that a role without superuser rights has defined needs `password` in its user mapping or connection \
         string, and a server that asks for it (pg_hba.conf: scram-sha-256).",
    )
}

fn shuffle(hosts: &mut [&Host]) {
    // A hasher with random keys is all the chance that this needs.
    let chance = RandomState::new();
    for at in (1..hosts.len()).rev() {
        let mut hasher = chance.build_hasher();
        hasher.write_usize(at);
        hosts.swap(at, hasher.finish() as usize % (at + 1));
    }
}

struct Opener<'a> {
    target: &'a Target,
    info: &'a Conninfo,
    options: &'a TargetOptions,
    role: &'a str,
    host: &'a Host,
    limit: Duration,
}

impl Opener<'_> {
    fn place(&self) -> String {
        match self.host.is_socket() {
            true => format!("{}/.s.PGSQL.{}", self.host.name, self.host.port),
            false => format!("{}:{}", self.host.name, self.host.port),
        }
    }

    fn late(&self) -> Refusal {
        let what = format!("cannot connect to {}: no answer in {} s", self.place(), self.limit.as_secs());
        Refusal::Down(Failure::new(what).code("08001"))
    }

    /// The addresses of the host in turn; none for a socket.
    async fn open(&self, wanted: Session) -> Result<Connection, Refusal> {
        if self.host.is_socket() {
            return self.open_at(None, wanted).await;
        }
        let addresses: Vec<IpAddr> = match self.host.address {
            Some(address) => vec![address],
            None => {
                let look_up = tokio::net::lookup_host((self.host.name.as_str(), self.host.port));
                let found = tokio::time::timeout(self.limit, look_up).await.map_err(|_| self.late())?;
                let found = found.map_err(|error| {
                    let what = format!("cannot connect to {}: the name is not known: {error}", self.place());
                    Refusal::Down(Failure::new(what).code("08001"))
                })?;
                found.map(|address| address.ip()).take(ADDRESSES).collect()
            }
        };
        let mut last = None;
        for address in addresses {
            match self.open_at(Some(address), wanted).await {
                Err(Refusal::Down(failure)) => last = Some(Refusal::Down(failure)),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| {
            Refusal::Down(Failure::new(format!("cannot connect to {}: the name has no address", self.place())))
        }))
    }

    /// With and without encryption, as `sslmode` says.
    async fn open_at(&self, address: Option<IpAddr>, wanted: Session) -> Result<Connection, Refusal> {
        let config = match (self.info.encrypt, address) {
            // A Unix socket is not encrypted.
            (Encrypt::Never, _) | (_, None) => None,
            _ => {
                let config = client_config(self.info.verify, self.info.authorities.as_deref());
                let mut config = (*config.map_err(Refusal::Refused)?).clone();
                config.enable_sni = self.info.sni;
                if self.info.direct {
                    config.alpn_protocols = vec![b"postgresql".to_vec()];
                }
                Some(Arc::new(config))
            }
        };
        let Some(config) = config else { return self.attempt(address, Encryption::Never, wanted).await };
        let refused = |result: &Result<Connection, Refusal>| {
            // What pg_hba.conf does not admit this way it may admit the other.
            matches!(result, Err(Refusal::Refused(f)) if matches!(f.code.as_deref(), Some("28000" | "08001")))
        };
        match self.info.encrypt {
            Encrypt::Always if self.info.direct => self.attempt(address, Encryption::AtOnce(config), wanted).await,
            Encrypt::Always | Encrypt::Never => self.attempt(address, Encryption::Always(config), wanted).await,
            Encrypt::Prefer => {
                let first = self.attempt(address, Encryption::IfOffered(config), wanted).await;
                if !refused(&first) {
                    return first;
                }
                self.attempt(address, Encryption::Never, wanted).await.or(first)
            }
            Encrypt::Allow => {
                let first = self.attempt(address, Encryption::Never, wanted).await;
                if !refused(&first) {
                    return first;
                }
                self.attempt(address, Encryption::Always(config), wanted).await.or(first)
            }
        }
    }

    async fn attempt(
        &self,
        address: Option<IpAddr>,
        encryption: Encryption,
        wanted: Session,
    ) -> Result<Connection, Refusal> {
        let attempt = async {
            let connection = self.log_in(address, encryption).await?;
            self.suits(connection, wanted).await
        };
        tokio::time::timeout(self.limit, attempt).await.map_err(|_| self.late())?
    }

    async fn log_in(&self, address: Option<IpAddr>, encryption: Encryption) -> Result<Connection, Refusal> {
        let place = self.place();
        let seen = Arc::new(Seen::default());
        let negotiator = Negotiator { encryption, name: self.host.name.clone(), seen: seen.clone(), they_close: false };
        let config = self.config(address);
        let connection = match address {
            Some(_) => {
                let opened = config.connect(negotiator.clone()).await;
                let (client, session) = opened.map_err(|error| refusal(&error, &place))?;
                Connection::new(client, session, Way::Network(negotiator), seen, place)
            }
            None => {
                let path = format!("{}/.s.PGSQL.{}", self.host.name, self.host.port);
                let socket = UnixStream::connect(&path).await.map_err(|error| {
                    Refusal::Down(Failure::new(format!("cannot connect to {path}: {error}")).code("08001"))
                })?;
                let opened = config.connect_raw(socket, negotiator.clone()).await;
                let (client, session) = opened.map_err(|error| refusal(&error, &place))?;
                Connection::new(client, session, Way::Socket(negotiator, path), seen, place)
            }
        };
        if self.target.password_required && !connection.asked_for_password() {
            return Err(Refusal::Refused(password_required("The server did not ask for it.")));
        }
        Ok(connection)
    }

    fn config(&self, address: Option<IpAddr>) -> Config {
        let info = self.info;
        let mut config = Config::new();
        let user = info.user.as_deref().unwrap_or(self.role);
        config.user(user).dbname(info.database.as_deref().unwrap_or(user));
        if let Some(password) = &info.password {
            config.password(password.expose());
        }
        // Not everything between here and there lets options pass.
        if let Some(options) = info.options.as_deref().filter(|_| self.options.pooler != Some(true)) {
            config.options(options);
        }
        config.application_name(info.application_name.as_deref().unwrap_or("pgflow"));
        config.connect_timeout(self.limit);
        config.channel_binding(match info.binding {
            Binding::Disable => ChannelBinding::Disable,
            Binding::Prefer => ChannelBinding::Prefer,
            Binding::Require => ChannelBinding::Require,
        });
        // The negotiator gets the socket at once, and asks for TLS itself.
        config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        config.keepalives(info.keepalives).keepalives_idle(info.keepalives_idle);
        config.keepalives_interval(info.keepalives_interval).keepalives_retries(info.keepalives_count);
        config.tcp_user_timeout(info.tcp_user_timeout);
        if let Some(address) = address {
            config.host(&self.host.name).hostaddr(address).port(self.host.port);
        }
        config
    }

    /// Finds out what it is connected to, and whether that is what `target_session_attrs` asks for.
    async fn suits(&self, mut connection: Connection, wanted: Session) -> Result<Connection, Refusal> {
        let place = self.place();
        connection.find_out(self.options).await.map_err(|error| refusal(&error, &place))?;
        let facts = connection.facts();
        let lacks = match wanted {
            Session::Any | Session::PreferStandby => None,
            Session::ReadWrite => facts.read_only.then_some("it takes no writes"),
            Session::ReadOnly => (!facts.read_only).then_some("it takes writes"),
            Session::Primary => facts.standby.then_some("it is a standby"),
            Session::Standby => (!facts.standby).then_some("it is no standby"),
        };
        match lacks {
            None => Ok(connection),
            Some(what) => {
                let failure = Failure::new(format!("{place} is not what target_session_attrs asks for: {what}"));
                connection.close();
                Err(Refusal::Down(failure.code("08001")))
            }
        }
    }
}
