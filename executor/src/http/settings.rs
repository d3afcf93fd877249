//! A target of kind `http` as configured, checked.
//!
//! Must never put the value of a connection option or of a header into a fault: they may be secrets.

use std::time::Duration;

use reqwest::header::HeaderName;
use serde_json::{Map, Value};
use url::Url;

use super::guard::{self, host_name, HostRule, Private};
use super::template::{Takes, Template};
use crate::job::{Secret, Target};
use crate::kind::Fault;
use crate::tls::Verify;

const MAX_RESPONSE_BYTES: u64 = 10 * 1024 * 1024;
/// An answer is held in memory while it is read.
const MOST_RESPONSE_BYTES: u64 = 256 * 1024 * 1024;

pub struct Settings {
    /// Without credentials.
    pub base: Url,
    pub user: Option<(String, Secret)>,
    pub headers: Vec<(HeaderName, Template)>,
    pub hosts: Vec<HostRule>,
    pub private: Private,
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub max_response_bytes: u64,
    pub ca_file: Option<String>,
    pub verify: Verify,
}

impl Settings {
    /// All faults at once, or the settings.
    pub fn of(target: &Target) -> Result<Settings, Vec<Fault>> {
        let mut faults = Vec::new();
        for key in target.options.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            faults.push(Fault::new(format!(".options.{key}"), format!("unknown key; known are: {}", KEYS.join(", "))));
        }
        let mut options = Options { options: &target.options, faults: &mut faults };
        let timeout = options.seconds("timeout", 30.0, 86_400.0);
        let connect_timeout = options.seconds("connect_timeout", 10.0, 3_600.0);
        let max_response_bytes = options.whole("max_response_bytes", MAX_RESPONSE_BYTES, 1, MOST_RESPONSE_BYTES);
        options.seconds("retry_delay", 1.0, 86_400.0);
        options.seconds("retry_delay_max", 60.0, 86_400.0);
        options.whole("max_attempts", 5, 1, 1_000_000);
        options.text("give_up_after");
        let ca_file = options.text("ca_file");
        let verify = options.verify();
        let mut hosts = options.hosts();
        let private = options.private(target.password_required);
        let headers = options.headers();
        let base = base_url(target, hosts.is_none() && private.all, &mut faults);
        let Some((base, user)) = base else { return Err(faults) };
        if let Some(hosts) = &hosts {
            if let Err(failure) = guard::check(&base, hosts, &Private { all: true, hosts: Vec::new() }) {
                faults.push(Fault::new(
                    ".options.allow_hosts",
                    format!("the base URL is not in it: {}", failure.message),
                ));
            }
        } else if let Some(host) = guard::host_of(&base) {
            hosts = Some(vec![HostRule::Exact(host)]);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Settings {
            user: user_of(target).or(user),
            base,
            headers,
            hosts: hosts.unwrap_or_default(),
            private,
            timeout,
            // A time-out of the exchange then means that there was a connection, and that something may have been sent.
            connect_timeout: connect_timeout.min(timeout.mul_f64(0.9)),
            max_response_bytes,
            ca_file,
            verify,
        })
    }
}

const KEYS: [&str; 14] = [
    "base_url",
    "headers",
    "allow_hosts",
    "allow_private",
    "allow_private_hosts",
    "max_response_bytes",
    "timeout",
    "ca_file",
    "verify",
    "connect_timeout",
    "give_up_after",
    "retry_delay",
    "retry_delay_max",
    "max_attempts",
];

fn user_of(target: &Target) -> Option<(String, Secret)> {
    let user = target.connection_options.get("user")?;
    let password = target.connection_options.get("password").cloned().unwrap_or_default();
    Some((user.expose().to_owned(), password))
}

type Base = (Url, Option<(String, Secret)>);

/// Where requests go: as the administrator configured the target, else as the foreign server says.
fn base_url(target: &Target, anywhere: bool, faults: &mut Vec<Fault>) -> Option<Base> {
    let option = target.options.get("base_url");
    let (path, text) = if let Some(option) = option {
        match option.as_str() {
            Some(text) => (".options.base_url", text),
            None => {
                faults.push(Fault::new(".options.base_url", "must be a text: http(s)://host…"));
                return None;
            }
        }
    } else if let Some(string) = &target.connection_string {
        (".connection_string", string.expose())
    } else if let Some(url) = target.connection_options.get("url") {
        if anywhere {
            faults.push(Fault::new(
                ".options.allow_hosts",
                "must be given with allow_private: the URL is an option of a foreign server or user mapping",
            ));
        }
        (".server", url.expose())
    } else {
        faults.push(Fault::new(
            ".connection_string",
            "is missing: the URL that requests go to (or the option base_url, or the option url of a foreign server)",
        ));
        return None;
    };
    let wrong = match Url::parse(text.trim()) {
        Err(error) => format!("is no URL: {error}"),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => "must begin with http:// or https://".into(),
        Ok(url) if url.fragment().is_some() => "must not have a #fragment".into(),
        Ok(url) if option.is_some() && !(url.username().is_empty() && url.password().is_none()) => {
            "must not hold credentials: use a user mapping of a foreign server".into()
        }
        Ok(url) => return Some(without_credentials(url)),
    };
    faults.push(Fault::new(path, wrong));
    None
}

fn without_credentials(mut url: Url) -> Base {
    let decoded = |text: &str| {
        let encoded = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
        url::form_urlencoded::parse(encoded.as_bytes()).next().map(|(_, v)| v.into_owned()).unwrap_or_default()
    };
    let user = (!url.username().is_empty() || url.password().is_some())
        .then(|| (decoded(url.username()), Secret::new(decoded(url.password().unwrap_or_default()))));
    // Fails only for URLs that cannot have a host; these have one.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    (url, user)
}

struct Options<'a> {
    options: &'a Map<String, Value>,
    faults: &'a mut Vec<Fault>,
}

impl Options<'_> {
    fn fault(&mut self, key: &str, message: impl Into<String>) {
        self.faults.push(Fault::new(format!(".options.{key}"), message));
    }

    fn seconds(&mut self, key: &str, default: f64, most: f64) -> Duration {
        let seconds = match self.options.get(key) {
            None => default,
            Some(value) => match value.as_f64().filter(|s| *s > 0.0 && *s <= most) {
                Some(seconds) => seconds,
                None => {
                    self.fault(key, format!("must be a number of seconds above 0, at most {most}"));
                    default
                }
            },
        };
        Duration::from_secs_f64(seconds)
    }

    fn whole(&mut self, key: &str, default: u64, least: u64, most: u64) -> u64 {
        match self.options.get(key) {
            None => default,
            Some(value) => value.as_u64().filter(|n| (least..=most).contains(n)).unwrap_or_else(|| {
                self.fault(key, format!("must be a whole number from {least} to {most}"));
                default
            }),
        }
    }

    fn text(&mut self, key: &str) -> Option<String> {
        let value = self.options.get(key)?;
        let text = value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        if text.is_none() {
            self.fault(key, "must be a text");
        }
        text
    }

    fn verify(&mut self) -> Verify {
        match self.options.get("verify").map(|value| value.as_str()) {
            None | Some(Some("full")) => Verify::Full,
            Some(Some("ca")) => Verify::Authority,
            Some(Some("none")) => Verify::Nothing,
            Some(_) => {
                self.fault("verify", "must be full, ca or none");
                Verify::Full
            }
        }
    }

    fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.options.get(key)?;
        let texts = value.as_array().map(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        let Some(Some(texts)) = texts else {
            self.fault(key, "must be an array of hosts");
            return Some(Vec::new());
        };
        Some(texts)
    }

    fn hosts(&mut self) -> Option<Vec<HostRule>> {
        let mut rules = Vec::new();
        for (at, text) in self.texts("allow_hosts")?.iter().enumerate() {
            match HostRule::parse(text) {
                Ok(rule) => rules.push(rule),
                Err(message) => self.fault(&format!("allow_hosts[{at}]"), message),
            }
        }
        Some(rules)
    }

    /// `owned`: by somebody who is no superuser, and must not open the server's own network.
    fn private(&mut self, owned: bool) -> Private {
        let all = match self.options.get("allow_private") {
            None => false,
            Some(Value::Bool(all)) => *all,
            Some(_) => {
                self.fault("allow_private", "must be true or false");
                false
            }
        };
        let mut hosts = Vec::new();
        for (at, text) in self.texts("allow_private_hosts").unwrap_or_default().iter().enumerate() {
            match host_name(text) {
                Some(name) if !text.contains('*') => hosts.push(name),
                _ => self.fault(&format!("allow_private_hosts[{at}]"), "must be the name or address of one host"),
            }
        }
        if owned && all {
            self.fault("allow_private", "only a superuser's target may reach private addresses");
        }
        if owned && !hosts.is_empty() {
            self.fault("allow_private_hosts", "only a superuser's target may reach private addresses");
        }
        Private { all, hosts }
    }

    fn headers(&mut self) -> Vec<(HeaderName, Template)> {
        let mut found: Vec<(HeaderName, Template)> = Vec::new();
        let Some(value) = self.options.get("headers") else { return found };
        let Some(object) = value.as_object() else {
            self.fault("headers", "must be an object: name → text");
            return found;
        };
        for (name, value) in object {
            match header(name, value, Takes::Secrets) {
                Ok((name, _)) if found.iter().any(|(other, _)| *other == name) => {
                    self.fault(&format!("headers.{name}"), "is there twice");
                }
                Ok(header) => found.push(header),
                Err(message) => self.fault(&format!("headers.{name}"), message),
            }
        }
        found
    }
}

/// A header as configured; its fixed parts are checked here, the whole when it is put together.
pub fn header(name: &str, value: &Value, takes: Takes) -> Result<(HeaderName, Template), String> {
    let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is no name of a header".to_owned())?;
    const OURS: [&str; 17] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "http2-settings",
        "idempotency-key",
        "x-pgflow-task",
        "x-pgflow-attempt",
        "x-pgflow-callback-token",
    ];
    if OURS.contains(&header.as_str()) {
        return Err("this header is set by pgflow itself".into());
    }
    let text = value.as_str().ok_or("must be a text")?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("must not hold line breaks or other control characters".into());
    }
    Ok((header, Template::parse(text, takes)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn target(options: Value) -> Target {
        Target { options: options.as_object().cloned().unwrap_or_default(), ..Target::default() }
    }

    fn faults(target: &Target) -> Vec<String> {
        let faults = Settings::of(target).err().unwrap_or_default();
        faults.into_iter().map(|f| format!("{} {}", f.path, f.message)).collect()
    }

    #[test]
    fn defaults() {
        let settings = Settings::of(&target(json!({"base_url": "https://Example.com/api"}))).ok().unwrap();
        assert_eq!(settings.hosts, vec![HostRule::Exact("example.com".into())]);
        assert_eq!(settings.private, Private::default());
        assert_eq!(settings.verify, Verify::Full);
        assert_eq!(settings.max_response_bytes, MAX_RESPONSE_BYTES);
        assert_eq!((settings.timeout.as_secs(), settings.connect_timeout.as_secs()), (30, 10));
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let wrong = json!({
            "base_url": "https://u:p@example.com", "heders": {}, "timeout": 0, "connect_timeout": "x", "verify": true,
            "max_response_bytes": 0.5, "allow_hosts": ["http://x", "*"], "allow_private": "yes", "allow_private_hosts": ["*.x"],
            "headers": {"Host": "a", "a b": "c", "X-A": "b\r\nX-B: c", "X-C": 1, "X-D": "${", "x-e": "1", "X-E": "2"},
            "ca_file": 5, "max_attempts": -1, "retry_delay": -1, "give_up_after": 5
        });
        let found = faults(&target(wrong));
        for path in [
            ".options.base_url must not hold credentials",
            ".options.heders unknown key",
            ".options.timeout must",
            ".options.connect_timeout must",
            ".options.verify must",
            ".options.max_response_bytes must",
            ".options.allow_hosts[0] ",
            ".options.allow_hosts[1] ",
            ".options.allow_private must",
            ".options.allow_private_hosts[0] ",
            ".options.headers.Host this header is set by pgflow",
            ".options.headers.a b is no name",
            ".options.headers.X-A must not hold line breaks",
            ".options.headers.X-C must be a text",
            ".options.headers.X-D a brace",
            ".options.headers.x-e is there twice",
            ".options.ca_file must",
            ".options.max_attempts must",
            ".options.retry_delay must",
            ".options.give_up_after must",
        ] {
            assert!(found.iter().any(|f| f.starts_with(path)), "{path}: {found:#?}");
        }
    }

    #[test]
    fn who_is_no_superuser_does_not_open_private_networks() {
        for options in [json!({"allow_private": true}), json!({"allow_private_hosts": ["db"]})] {
            let mut target = target(options);
            target.connection_string = Some(Secret::new("http://db"));
            assert_eq!(faults(&target), Vec::<String>::new());
            target.password_required = true;
            assert_eq!(faults(&target).len(), 1);
        }
    }

    #[test]
    fn a_url_of_a_user_mapping_does_not_open_private_networks_either() {
        let mut target = target(json!({"allow_private": true}));
        target.connection_options.insert("url".into(), Secret::new("http://metadata"));
        assert_eq!(faults(&target).len(), 1);
        target.options.insert("allow_hosts".into(), json!(["db"]));
        let found = faults(&target);
        assert!(found.len() == 1 && found[0].contains("metadata"), "{found:?}");
    }

    #[test]
    fn credentials_of_a_connection_string_are_used_and_not_told() {
        let mut target = target(json!({}));
        target.connection_string = Some(Secret::new("http://ann:s%40c+ret@example.com/x?a=1"));
        let settings = Settings::of(&target).ok().unwrap();
        assert_eq!(settings.base.as_str(), "http://example.com/x?a=1");
        let (user, password) = settings.user.unwrap();
        assert_eq!((user.as_str(), password.expose()), ("ann", "s@c+ret"));
        target.connection_string = Some(Secret::new("http://ann:secret@example .com/"));
        let found = faults(&target);
        assert!(found.len() == 1 && !found[0].contains("secret"), "{found:?}");
        target.connection_string = Some(Secret::new("host=db password=secret"));
        let found = faults(&target);
        assert!(found.len() == 1 && !found[0].contains("secret"), "{found:?}");
        target.connection_string = None;
        assert_eq!(faults(&target).len(), 1);
    }
}
