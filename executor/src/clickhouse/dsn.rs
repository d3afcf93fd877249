//! Where a ClickHouse target is and who we are there: connection strings of the forms that ClickHouse users have, options
//! of a foreign server and its user mapping, which win over them.
//!
//! We speak HTTP. A string with the native protocol's port means the same server: 9000 becomes 8123, 9440 becomes 8443;
//! a server whose HTTP port is another one says `http_port`. Any other port of a `clickhouse://` string is taken as the
//! HTTP port. Must never put a credential into a URL or a message.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::job::{Failure, Secret, Target};
use crate::tls::Verify;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Parameters of other clients' strings that say nothing about our connection.
const IGNORED: &[&str] = &[
    "read_timeout",
    "write_timeout",
    "connection_open_strategy",
    "debug",
    "compress",
    "compress_level",
    "block_buffer_size",
    "max_open_conns",
    "max_idle_conns",
    "conn_max_lifetime",
    "max_compression_buffer",
    "client_info_product",
    "http_proxy",
    "alt_hosts",
];

/// One server of a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    pub name: String,
    pub port: u16,
}

/// A target's connection, read once.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Tried in this order.
    pub hosts: Vec<Host>,
    pub secure: bool,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: Option<String>,
    pub verify: Verify,
    pub ca_file: Option<String>,
    pub connect_timeout: Duration,
    /// Parameters of the string that are ClickHouse's own settings.
    pub settings: BTreeMap<String, String>,
}

impl Connection {
    /// Reads a target. Every fault in it is one failure: `check_target` tells them apart.
    pub fn of(target: &Target) -> Result<Connection, Failure> {
        let mut parts = Parts::default();
        let url = target.connection_options.get("url").or(target.connection_string.as_ref());
        if let Some(url) = url {
            parts.read_string(url.expose())?;
        }
        for (key, value) in &target.connection_options {
            if key != "url" {
                parts.read_option(&key.to_ascii_lowercase(), value.expose())?;
            }
        }
        parts.read_target_options(target)?;
        let connection = parts.finish()?;
        if target.password_required && connection.password.as_ref().is_none_or(|p| p.expose().is_empty()) {
            return Err(Failure::new("a password is required").hint(
                "Whoever configured the target is no superuser: the connection string or the user mapping must have a \
                 password that is not empty.",
            ));
        }
        Ok(connection)
    }

    /// Who we are there: a password without a name is the default user's.
    pub fn login(&self) -> Option<&str> {
        self.user.as_deref().or(self.password.as_ref().map(|_| "default"))
    }

    /// The base URL of a host; no credentials in it.
    pub fn url(&self, host: &Host) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}:{}/", host.name, host.port)
    }
}

#[derive(Default)]
struct Parts {
    /// The string speaks of the native protocol: its ports are mapped.
    native: bool,
    hosts: Vec<(String, Option<u16>)>,
    port: Option<u16>,
    http_port: Option<u16>,
    secure: Option<bool>,
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    verify: Option<Verify>,
    ca_file: Option<String>,
    connect_timeout: Option<Duration>,
    settings: BTreeMap<String, String>,
}

impl Parts {
    fn read_string(&mut self, string: &str) -> Result<(), Failure> {
        let string = string.trim();
        let Some((scheme, rest)) = string.split_once("://") else {
            return Err(wrong("it has no scheme"));
        };
        match scheme.to_ascii_lowercase().as_str() {
            "clickhouse" | "tcp" | "native" => self.native = true,
            "http" => self.secure = Some(false),
            "https" => self.secure = Some(true),
            _ => return Err(wrong("its scheme is none of clickhouse, http, https")),
        }
        let (authority, rest) = rest.split_at(authority_end(rest));
        let (info, hosts) = match authority.rsplit_once('@') {
            Some((info, hosts)) => (Some(info), hosts),
            None => (None, authority),
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        if let Some(info) = info {
            let (user, password) = info.split_once(':').map_or((info, None), |(u, p)| (u, Some(p)));
            self.user = Some(decoded(user)).filter(|u| !u.is_empty());
            self.password = password.map(|p| Secret::new(decoded(p)));
        }
        self.read_hosts(hosts)?;
        let path = decoded(path.trim_matches('/'));
        self.database = Some(path).filter(|p| !p.is_empty());
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            self.read_parameter(&key, &value)?;
        }
        Ok(())
    }

    fn read_hosts(&mut self, text: &str) -> Result<(), Failure> {
        self.hosts.clear();
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (name, port) = match one.rfind(':') {
                Some(at) if !one[at..].contains(']') => (&one[..at], Some(&one[at + 1..])),
                _ => (one, None),
            };
            let port = port.map(|p| p.parse().map_err(|_| wrong("a port is not a number"))).transpose()?;
            let good = |c: char| c.is_alphanumeric() || ".-_[]:%".contains(c);
            if name.is_empty() || !name.chars().all(good) {
                return Err(wrong("a host's name has characters that it cannot have"));
            }
            self.hosts.push((name.to_owned(), port));
        }
        Ok(())
    }

    /// A parameter behind the `?` of a string: what it does not know is a setting of ClickHouse.
    fn read_parameter(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        if IGNORED.contains(&key) || self.read_known(key, value)? {
            return Ok(());
        }
        if !super::settings::is_name(key) {
            return Err(wrong(&format!("its parameter {key:?} is no setting's name")));
        }
        let value = match value {
            "true" => "1",
            "false" => "0",
            other => other,
        };
        self.settings.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn read_option(&mut self, key: &str, value: &str) -> Result<(), Failure> {
        if !self.read_known(key, value)? {
            return Err(Failure::new(format!("unknown option {key:?} of the foreign server or its user mapping")));
        }
        Ok(())
    }

    fn read_known(&mut self, key: &str, value: &str) -> Result<bool, Failure> {
        match key {
            "host" => self.read_hosts(value)?,
            "port" => self.port = Some(number(key, value)?),
            "http_port" => self.http_port = Some(number(key, value)?),
            "user" | "username" => self.user = Some(value.to_owned()),
            "password" => self.password = Some(Secret::new(value)),
            "database" | "dbname" => self.database = Some(value.to_owned()).filter(|d| !d.is_empty()),
            "secure" | "tls" => self.secure = Some(boolean(key, value)?),
            "skip_verify" => self.verify = boolean(key, value)?.then_some(Verify::Nothing).or(self.verify),
            "verify" => self.verify = Some(verify(value)?),
            "sslmode" => match value {
                "disable" => self.secure = Some(false),
                "require" | "verify-ca" | "verify-full" => {
                    self.secure = Some(true);
                    self.verify = Some(match value {
                        "require" => Verify::Nothing,
                        "verify-ca" => Verify::Authority,
                        _ => Verify::Full,
                    });
                }
                _ => return Err(Failure::new("sslmode must be disable, require, verify-ca or verify-full")),
            },
            "ca_file" | "sslrootcert" => self.ca_file = Some(value.to_owned()),
            "dial_timeout" | "connect_timeout" => self.connect_timeout = Some(duration(key, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The target's own options that concern the connection; what the administrator says there holds.
    fn read_target_options(&mut self, target: &Target) -> Result<(), Failure> {
        let text = |key: &str| target.options.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        if self.database.is_none() {
            self.database = text("database");
        }
        if let Some(word) = text("verify") {
            self.verify = Some(verify(&word)?);
        }
        if let Some(file) = text("ca_file") {
            self.ca_file = Some(file);
        }
        if let Some(seconds) = target.options.get("connect_timeout").and_then(|v| v.as_f64()) {
            self.connect_timeout = Duration::try_from_secs_f64(seconds).ok();
        }
        Ok(())
    }

    fn finish(self) -> Result<Connection, Failure> {
        if self.hosts.is_empty() {
            return Err(Failure::new("the target does not say where ClickHouse is")
                .hint("It needs a connection_string such as https://host:8443/?database=d, or a server with a host."));
        }
        let native_tls = |port: Option<u16>| self.native && port == Some(9440);
        let secure = self.secure.unwrap_or(false) || self.hosts.iter().any(|(_, port)| native_tls(port.or(self.port)));
        let hosts = self.hosts.iter().map(|(name, port)| {
            let port = match (self.http_port, self.port.or(*port)) {
                (Some(port), _) => port,
                (None, Some(9000)) if self.native => 8123,
                (None, Some(9440)) if self.native => 8443,
                (None, Some(port)) => port,
                (None, None) if secure => 8443,
                (None, None) => 8123,
            };
            Host { name: name.clone(), port }
        });
        Ok(Connection {
            hosts: hosts.collect(),
            secure,
            user: self.user,
            password: self.password,
            database: self.database,
            verify: self.verify.unwrap_or(Verify::Full),
            ca_file: self.ca_file,
            connect_timeout: self.connect_timeout.unwrap_or(CONNECT_TIMEOUT).max(Duration::from_millis(100)),
            settings: self.settings,
        })
    }
}

/// Where user info and hosts end. A password may hold `/` or `?` as they are: then what stands before them is no host.
fn authority_end(rest: &str) -> usize {
    let end = |from: usize| rest[from..].find(['/', '?']).map_or(rest.len(), |at| from + at);
    let first = end(0);
    let before = &rest[..first];
    let port = before.rsplit_once(':').map_or("", |(_, port)| port);
    match rest.rfind('@') {
        Some(at) if !before.contains('@') && port.parse::<u16>().is_err() && !port.is_empty() => end(at),
        _ => first,
    }
}

fn wrong(what: &str) -> Failure {
    Failure::new(format!("the connection string cannot be read: {what}"))
        .hint("clickhouse://user:password@host:9000/database, or https://host:8443/?database=…&username=…&password=…")
}

fn number(key: &str, value: &str) -> Result<u16, Failure> {
    value.parse().map_err(|_| Failure::new(format!("{key} is not a port number")))
}

fn boolean(key: &str, value: &str) -> Result<bool, Failure> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Ok(true),
        "false" | "0" | "off" | "no" => Ok(false),
        _ => Err(Failure::new(format!("{key} must be true or false"))),
    }
}

pub fn verify(word: &str) -> Result<Verify, Failure> {
    match word {
        "full" => Ok(Verify::Full),
        "ca" => Ok(Verify::Authority),
        "none" => Ok(Verify::Nothing),
        _ => Err(Failure::new("verify must be full, ca or none")),
    }
}

/// `10s`, `500ms`, `1m`, `1m30s`, `10` (seconds).
fn duration(key: &str, value: &str) -> Result<Duration, Failure> {
    let wrong = || Failure::new(format!("{key} must be a time such as 10s or 500ms"));
    let mut rest = value.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let amount: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += amount
            * match &rest[..unit] {
                "" | "s" => 1.0,
                "ms" => 0.001,
                "us" | "µs" => 0.000_001,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Percent-decoded; a `+` stays.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(string: &str) -> Connection {
        Connection::of(&target(string)).unwrap()
    }

    fn target(string: &str) -> Target {
        Target { connection_string: Some(Secret::new(string)), ..Target::default() }
    }

    fn urls(connection: &Connection) -> Vec<String> {
        connection.hosts.iter().map(|h| connection.url(h)).collect()
    }

    fn login(c: &Connection) -> (Option<&str>, Option<&str>, Option<&str>) {
        (c.user.as_deref(), c.password.as_ref().map(Secret::expose), c.database.as_deref())
    }

    #[test]
    fn native_strings_lead_to_the_http_ports() {
        let plain = read("clickhouse://ann:s%40crt@db.example:9000/sales?dial_timeout=500ms&max_threads=4");
        assert_eq!(urls(&plain), ["http://db.example:8123/"]);
        assert_eq!(login(&plain), (Some("ann"), Some("s@crt"), Some("sales")));
        assert_eq!(plain.connect_timeout, Duration::from_millis(500));
        assert_eq!(plain.settings.get("max_threads").map(String::as_str), Some("4"));
        assert_eq!(urls(&read("clickhouse://h:9440/d?secure=true")), ["https://h:8443/"]);
        assert_eq!(urls(&read("clickhouse://h:9440")), ["https://h:8443/"]);
        assert_eq!(urls(&read("clickhouse://h?secure=true")), ["https://h:8443/"]);
        assert_eq!(urls(&read("clickhouse://h:9000?http_port=8124")), ["http://h:8124/"]);
        assert_eq!(urls(&read("clickhouse://h:18123")), ["http://h:18123/"]);
        assert_eq!(urls(&read("clickhouse://[::1]:9000/d")), ["http://[::1]:8123/"]);
    }

    #[test]
    fn several_hosts_keep_their_order() {
        let several = read("clickhouse://u:p@h1:9000,h2:9000,h3/db");
        assert_eq!(urls(&several), ["http://h1:8123/", "http://h2:8123/", "http://h3:8123/"]);
        assert_eq!(login(&several), (Some("u"), Some("p"), Some("db")));
    }

    #[test]
    fn http_strings_of_dekart_and_of_the_go_client() {
        let dekart = read("http://dekart:dek@localhost:8123/dekart?secure=false&skip_verify=true");
        assert_eq!(urls(&dekart), ["http://localhost:8123/"]);
        assert_eq!(login(&dekart), (Some("dekart"), Some("dek"), Some("dekart")));
        assert_eq!(dekart.verify, Verify::Nothing);
        let go = read("https://host:8443/?username=u&password=p%2F%3F&database=d");
        assert_eq!(urls(&go), ["https://host:8443/"]);
        assert_eq!(login(&go), (Some("u"), Some("p/?"), Some("d")));
        assert_eq!(login(&read("clickhouse://u:p/a?b@h:9000/d")), (Some("u"), Some("p/a?b"), Some("d")));
        let bare = read("http://host:8443?username=default&password=p@ss");
        assert_eq!(urls(&bare), ["http://host:8443/"]);
        assert_eq!(login(&bare), (Some("default"), Some("p@ss"), None));
        assert_eq!(urls(&read("https://host")), ["https://host:8443/"]);
        assert_eq!(urls(&read("http://h:8123?secure=true")), ["https://h:8123/"]);
    }

    #[test]
    fn options_of_the_server_and_the_mapping_win() {
        let mut target = target("clickhouse://u:p@h:9000/db");
        let options =
            [("host", "other"), ("port", "8200"), ("dbname", "d2"), ("username", "ann"), ("password", "secret2")];
        target.connection_options = options.iter().map(|(k, v)| (k.to_string(), Secret::new(*v))).collect();
        let read = Connection::of(&target).unwrap();
        assert_eq!(urls(&read), ["http://other:8200/"]);
        assert_eq!(login(&read), (Some("ann"), Some("secret2"), Some("d2")));
        target.connection_options.insert("hots".into(), Secret::new("x"));
        assert!(Connection::of(&target).unwrap_err().message.contains("hots"));
    }

    #[test]
    fn a_required_password_must_be_there_and_not_empty() {
        for (string, good) in [
            ("http://u:p@h", true),
            ("http://u@h", false),
            ("http://u:@h", false),
            ("http://h/?username=u", false),
            ("http://h/?password=x", true),
        ] {
            let target = Target { password_required: true, ..target(string) };
            assert_eq!(Connection::of(&target).is_ok(), good, "{string}");
        }
    }

    #[test]
    fn no_message_holds_the_string() {
        for string in [
            "hunter22",
            "ftp://u:hunter22@h",
            "http://u:hunter22@h:port/",
            "http://u:hunter22@",
            "http://u:hunter22@h?a-b=1",
        ] {
            let failure = Connection::of(&target(string)).unwrap_err();
            assert!(!failure.to_string().contains("hunter22"), "{failure}");
        }
    }
}
