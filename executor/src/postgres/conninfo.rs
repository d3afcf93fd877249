//! How to reach a server: libpq's connection strings (`key=value` and URI), overlaid with the options of a foreign server
//! and its user mapping.
//!
//! Pure. Reads nothing of the machine: no environment, no `.pgpass`, no service file, no certificates of a home directory;
//! what would need one of them is refused. A message never holds a value that may be a secret.

use std::net::IpAddr;
use std::time::Duration;

use crate::job::{Secret, Target};
use crate::kind::Fault;
use crate::tls::Verify;

use super::names::unknown_key;
use super::pairs;

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What the certificate must say, and what is looked up unless there is an address. Begins with `/`: a directory of
    /// Unix sockets.
    pub name: String,
    pub address: Option<IpAddr>,
    pub port: u16,
}

impl Host {
    pub fn is_socket(&self) -> bool {
        self.address.is_none() && self.name.starts_with('/')
    }
}

/// `sslmode`, as far as it says whether to encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypt {
    Never,
    /// Plain first, encrypted if the server insists.
    Allow,
    /// Encrypted if the server can.
    Prefer,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    Disable,
    Prefer,
    Require,
}

#[derive(Clone, Debug)]
pub struct Conninfo {
    pub hosts: Vec<Host>,
    /// In any order rather than the written one.
    pub balanced: bool,
    pub session: Session,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub database: Option<String>,
    pub options: Option<String>,
    pub application_name: Option<String>,
    pub connect_timeout: Option<Duration>,
    pub keepalives: bool,
    pub keepalives_idle: Duration,
    pub keepalives_interval: Duration,
    pub keepalives_count: u32,
    pub tcp_user_timeout: Duration,
    pub encrypt: Encrypt,
    pub verify: Verify,
    /// A file with certificates of authorities; none: those of the system.
    pub authorities: Option<String>,
    /// TLS from the first byte (PostgreSQL 17 and later).
    pub direct: bool,
    pub sni: bool,
    pub binding: Binding,
}

/// Keys that are understood.
const KEYS: [&str; 23] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "fallback_application_name",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslmode",
    "sslrootcert",
    "sslnegotiation",
    "sslsni",
    "channel_binding",
    "target_session_attrs",
    "load_balance_hosts",
    "client_encoding",
];

/// Keys that libpq knows and that are refused, with the reason.
const REFUSED: [(&str, &str); 17] = [
    ("passfile", "password files are not read: they belong to the operating system user of the server"),
    ("service", "service files are not read: they belong to the operating system user of the server"),
    ("servicefile", "service files are not read: they belong to the operating system user of the server"),
    ("sslcert", "client certificates are not used: they belong to the operating system user of the server"),
    ("sslkey", "client certificates are not used: they belong to the operating system user of the server"),
    ("sslpassword", "client certificates are not used: they belong to the operating system user of the server"),
    ("sslcertmode", "client certificates are not used: they belong to the operating system user of the server"),
    ("sslcrl", "lists of revoked certificates are not supported"),
    ("sslcrldir", "lists of revoked certificates are not supported"),
    ("requirepeer", "is not supported"),
    ("require_auth", "is not supported"),
    ("krbsrvname", "Kerberos is not supported"),
    ("gsslib", "Kerberos is not supported"),
    ("gssdelegation", "Kerberos is not supported"),
    ("replication", "is not a session that runs queries"),
    ("requiressl", "is an old word for sslmode=require"),
    ("sslkeylogfile", "is not supported"),
];

/// Options of foreign servers and user mappings that are those of the wrappers (postgres_fdw, dblink_fdw), not of the
/// connection. `password_required` is among them: whether a password is, the target says.
const OF_WRAPPERS: [&str; 18] = [
    "use_remote_estimate",
    "fdw_startup_cost",
    "fdw_tuple_cost",
    "extensions",
    "updatable",
    "truncatable",
    "fetch_size",
    "batch_size",
    "async_capable",
    "analyze_sampling",
    "parallel_commit",
    "parallel_abort",
    "keep_connections",
    "password_required",
    "use_scram_passthrough",
    "restore_stats",
    "schema_name",
    "table_name",
];

/// What the target says, or everything that is wrong with it.
pub fn of(target: &Target) -> Result<Conninfo, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut found: Vec<(String, Secret)> = Vec::new();
    if let Some(string) = &target.connection_string {
        match pairs::of(string.expose()) {
            Ok(pairs) => {
                for (key, value) in pairs {
                    check_key(&key, &value, ".connection_string", &mut faults);
                    found.push((key, Secret::new(value)));
                }
            }
            Err(what) => faults.push(Fault::new(".connection_string", what)),
        }
    }
    for (key, value) in &target.connection_options {
        if OF_WRAPPERS.contains(&key.as_str()) {
            continue;
        }
        check_key(key, value.expose(), &format!(".server.{key}"), &mut faults);
        // An address of the server's options is not to be met by a host of the string, nor the other way round.
        if key == "host" && !target.connection_options.contains_key("hostaddr") {
            found.retain(|(k, _)| k != "hostaddr");
        }
        found.retain(|(k, _)| k != key);
        found.push((key.clone(), value.clone()));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let reader = Reader { found, faults };
    reader.read()
}

fn check_key(key: &str, value: &str, path: &str, faults: &mut Vec<Fault>) {
    if value.contains('\0') {
        faults.push(Fault::new(path, format!("{key} has a zero byte in it")));
    }
    if let Some((_, why)) = REFUSED.iter().find(|(known, _)| *known == key) {
        faults.push(Fault::new(path, format!("{key}: {why}")));
    } else if !KEYS.contains(&key) && !IGNORED.contains(&key) {
        faults.push(Fault::new(path, unknown_key("connection option", key, &KEYS)));
    }
}

/// Understood where the value asks for nothing that is not so anyway: checked one by one.
const IGNORED: [&str; 5] =
    ["gssencmode", "sslcompression", "ssl_min_protocol_version", "ssl_max_protocol_version", "scram_client_key"];

struct Reader {
    found: Vec<(String, Secret)>,
    faults: Vec<Fault>,
}

impl Reader {
    fn get(&self, key: &str) -> Option<&str> {
        // The last one counts, and an empty value is none, as libpq has it.
        self.found.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.expose()).filter(|v| !v.is_empty())
    }

    fn owned(&self, key: &str) -> Option<String> {
        self.get(key).map(str::to_owned)
    }

    fn fault(&mut self, key: &str, what: impl std::fmt::Display) {
        self.faults.push(Fault::new(".connection_string", format!("{key} {what}")));
    }

    /// One of some words; the first is meant where there is none.
    fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> T {
        let given = self.owned(key);
        let chosen = match &given {
            None => Some(words[0].1),
            Some(given) => words.iter().find(|(word, _)| word == given).map(|(_, value)| *value),
        };
        chosen.unwrap_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fault(key, format_args!("must be one of {}", known.join(", ")));
            words[0].1
        })
    }

    fn number(&mut self, key: &str) -> Option<i64> {
        let given = self.owned(key)?;
        let number = given.trim().parse::<i32>().ok().map(i64::from);
        if number.is_none() {
            self.fault(key, "must be a whole number");
        }
        number
    }

    /// A count of seconds that is more than zero; zero and less: the default of whoever asks.
    fn seconds(&mut self, key: &str) -> Option<Duration> {
        self.number(key).filter(|n| *n > 0).map(|n| Duration::from_secs(n.unsigned_abs()))
    }

    fn read(mut self) -> Result<Conninfo, Vec<Fault>> {
        let hosts = self.hosts();
        let (encrypt, verify, authorities) = self.encryption();
        let direct = self.word("sslnegotiation", &[("postgres", false), ("direct", true)]);
        if direct && encrypt != Encrypt::Always {
            self.fault("sslnegotiation", "direct needs sslmode require, verify-ca or verify-full");
        }
        for key in ["ssl_min_protocol_version", "ssl_max_protocol_version"] {
            let lowest = key.contains("min");
            let fine: &[&str] = if lowest { &["TLSv1", "TLSv1.1", "TLSv1.2"] } else { &["TLSv1.3"] };
            if self.get(key).is_some_and(|v| !fine.contains(&v)) {
                self.fault(key, "cannot be chosen: TLS 1.2 and 1.3 are spoken");
            }
        }
        if self.get("gssencmode").is_some_and(|v| v == "require") {
            self.fault("gssencmode", "cannot be require: Kerberos is not supported");
        }
        if self.get("client_encoding").is_some_and(|v| !["auto", "utf8", "utf-8"].contains(&&*v.to_ascii_lowercase())) {
            self.fault("client_encoding", "must be UTF8 or auto");
        }
        let info = Conninfo {
            balanced: self.word("load_balance_hosts", &[("disable", false), ("random", true)]),
            session: self.word(
                "target_session_attrs",
                &[
                    ("any", Session::Any),
                    ("read-write", Session::ReadWrite),
                    ("read-only", Session::ReadOnly),
                    ("primary", Session::Primary),
                    ("standby", Session::Standby),
                    ("prefer-standby", Session::PreferStandby),
                ],
            ),
            user: self.owned("user"),
            password: self.get("password").map(Secret::new),
            database: self.owned("dbname"),
            options: self.owned("options"),
            application_name: self.owned("application_name").or_else(|| self.owned("fallback_application_name")),
            // Fewer than two seconds are not, as libpq has it.
            connect_timeout: self.seconds("connect_timeout").map(|t| t.max(Duration::from_secs(2))),
            keepalives: self.number("keepalives").is_none_or(|n| n != 0),
            keepalives_idle: self.seconds("keepalives_idle").unwrap_or(Duration::from_secs(30)),
            keepalives_interval: self.seconds("keepalives_interval").unwrap_or(Duration::from_secs(10)),
            keepalives_count: self.number("keepalives_count").filter(|n| *n > 0).map_or(3, |n| n as u32),
            tcp_user_timeout: self
                .number("tcp_user_timeout")
                .filter(|n| *n > 0)
                .map_or(Duration::from_secs(60), |n| Duration::from_millis(n.unsigned_abs())),
            sni: self.number("sslsni").is_none_or(|n| n != 0),
            binding: self.word(
                "channel_binding",
                &[("prefer", Binding::Prefer), ("disable", Binding::Disable), ("require", Binding::Require)],
            ),
            hosts,
            encrypt,
            verify,
            authorities,
            direct,
        };
        if self.faults.is_empty() {
            Ok(info)
        } else {
            Err(self.faults)
        }
    }

    fn encryption(&mut self) -> (Encrypt, Verify, Option<String>) {
        let root = self.owned("sslrootcert");
        let system = root.as_deref() == Some("system");
        if system && self.get("sslmode").is_some_and(|mode| mode != "verify-full") {
            self.fault("sslmode", "must be verify-full with sslrootcert=system");
        }
        let first = if system { "verify-full" } else { "prefer" };
        let mut modes = vec![
            ("prefer", (Encrypt::Prefer, Verify::Nothing)),
            ("disable", (Encrypt::Never, Verify::Nothing)),
            ("allow", (Encrypt::Allow, Verify::Nothing)),
            // With a root certificate, require checks the authority: as libpq does.
            ("require", (Encrypt::Always, if root.is_some() { Verify::Authority } else { Verify::Nothing })),
            ("verify-ca", (Encrypt::Always, Verify::Authority)),
            ("verify-full", (Encrypt::Always, Verify::Full)),
        ];
        modes.sort_by_key(|(word, _)| *word != first);
        let (encrypt, verify) = self.word("sslmode", &modes);
        (encrypt, verify, root.filter(|_| !system))
    }

    fn hosts(&mut self) -> Vec<Host> {
        let list = |text: Option<&str>| -> Vec<String> {
            text.map(|t| t.split(',').map(|part| part.trim().to_owned()).collect()).unwrap_or_default()
        };
        let names = list(self.get("host"));
        let addresses = list(self.get("hostaddr"));
        let ports = list(self.get("port"));
        let count = names.len().max(addresses.len()).max(1);
        if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
            self.fault("hostaddr", "must have as many entries as host");
        }
        if ports.len() > 1 && ports.len() != count {
            self.fault("port", "must have one entry, or as many as host");
        }
        (0..count)
            .map(|at| {
                let written = addresses.get(at).filter(|a| !a.is_empty());
                let address = written.and_then(|a| a.parse::<IpAddr>().ok());
                if written.is_some() && address.is_none() {
                    self.fault("hostaddr", "must be numeric addresses");
                }
                let name = names.get(at).filter(|n| !n.is_empty()).cloned();
                if name.as_deref().is_some_and(|n| n.starts_with('@')) {
                    self.fault("host", "cannot be an abstract Unix socket");
                }
                let name = name.or_else(|| address.map(|a| a.to_string())).unwrap_or_else(|| "localhost".into());
                let port = ports.get(at).or(ports.first()).filter(|p| !p.is_empty());
                let port = port.map_or(Some(5432), |p| p.parse::<u16>().ok().filter(|p| *p > 0));
                if port.is_none() {
                    self.fault("port", "must be a number from 1 to 65535");
                }
                Host { name, address, port: port.unwrap_or(5432) }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(string: &str, options: &[(&str, &str)]) -> Target {
        Target {
            connection_string: Some(Secret::new(string)),
            connection_options: options.iter().map(|(k, v)| ((*k).to_owned(), Secret::new(*v))).collect(),
            ..Target::default()
        }
    }

    fn read(string: &str) -> Conninfo {
        of(&target(string, &[])).unwrap()
    }

    fn refused(string: &str) -> String {
        let faults = of(&target(string, &[])).expect_err(string);
        faults.into_iter().map(|f| f.message).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn hosts_ports_and_addresses_go_together() {
        let info = read("host=a,b port=1,2 hostaddr=10.0.0.1,::1");
        assert_eq!(info.hosts.len(), 2);
        assert_eq!(info.hosts[1], Host { name: "b".into(), address: Some("::1".parse().unwrap()), port: 2 });
        assert_eq!(read("host=a,b port=7").hosts[1].port, 7);
        assert_eq!(read("dbname=x").hosts[0].name, "localhost");
        assert!(read("host=/var/run/postgresql").hosts[0].is_socket());
        assert!(refused("host=a,b port=1,2,3").contains("port must have"));
        assert!(refused("host=a port=0").contains("65535"));
    }

    #[test]
    fn uris_are_read_as_libpq_does() {
        let info = read("postgresql://ann:p%40ss@h1:1,[::1]:2/db%20x?sslmode=verify-full&connect_timeout=3");
        assert_eq!((info.hosts[0].port, info.hosts[1].name.as_str(), info.hosts[1].port), (1, "::1", 2));
        assert_eq!(info.database.as_deref(), Some("db x"));
        assert_eq!(info.password.as_ref().map(Secret::expose), Some("p@ss"));
        assert_eq!((info.encrypt, info.verify), (Encrypt::Always, Verify::Full));
        assert!(read("postgres://%2Ftmp%2Fsock/db").hosts[0].is_socket());
        assert_eq!(read("postgresql:///db?host=x").hosts[0].name, "x");
    }

    #[test]
    fn the_servers_options_win_and_a_wrappers_are_left_alone() {
        let options = [("host", "there"), ("user", "ann"), ("fetch_size", "100"), ("password_required", "false")];
        let info = of(&target("host=here hostaddr=1.2.3.4 user=bob port=7", &options)).unwrap();
        assert_eq!(info.hosts[0], Host { name: "there".into(), address: None, port: 7 });
        assert_eq!(info.user.as_deref(), Some("ann"));
    }

    #[test]
    fn what_reads_the_machine_is_refused() {
        for key in ["passfile", "service", "sslcert", "sslkey"] {
            assert!(refused(&format!("{key}=x")).contains(key));
        }
        assert!(refused("hots=x").contains("host"), "{}", refused("hots=x"));
        assert!(!refused("pasword=hunter22").contains("hunter22"));
        assert!(refused("sslrootcert=system sslmode=require").contains("verify-full"));
        assert!(refused("sslmode=maybe").contains("verify-ca"));
    }

    #[test]
    fn modes_of_tls() {
        assert_eq!((read("").encrypt, read("").verify), (Encrypt::Prefer, Verify::Nothing));
        assert_eq!(read("sslmode=require").verify, Verify::Nothing);
        assert_eq!(read("sslmode=require sslrootcert=/x").verify, Verify::Authority);
        let system = read("sslrootcert=system");
        assert_eq!((system.verify, system.authorities), (Verify::Full, None));
    }
}
