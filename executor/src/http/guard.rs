//! Where a request may go: hosts by name, addresses by range.
//!
//! Addresses are judged when a connection is made, on the very addresses that it is made to, so that a name that leads
//! elsewhere from one moment to the next (DNS rebinding) gets nowhere. Must never hand an address on that it has not judged.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::job::Failure;

/// A host that requests may go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostRule {
    Exact(String),
    /// `*.example.com`: every name below, not the name itself. Kept with its leading dot.
    Below(String),
}

impl HostRule {
    pub fn parse(text: &str) -> Result<HostRule, String> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if name.contains('*') {
            return Err("a host is a name, an address, or *.name".into());
        }
        match host_name(name) {
            Some(name) if below && name.parse::<IpAddr>().is_err() && !name.starts_with('[') => {
                Ok(HostRule::Below(format!(".{name}")))
            }
            Some(name) if !below => Ok(HostRule::Exact(name)),
            _ => Err("a host is a name, an address, or *.name: without scheme, port and path".into()),
        }
    }

    fn admits(&self, host: &str) -> bool {
        match self {
            HostRule::Exact(name) => name == host,
            HostRule::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

/// A host as URLs spell it: lower case, punycode, addresses in their one form; without the dot at the end.
pub fn host_name(text: &str) -> Option<String> {
    let text = match text.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => text.to_owned(),
    };
    let host = Host::parse(&text).ok()?;
    Some(host.to_string().trim_end_matches('.').to_owned()).filter(|name| !name.is_empty())
}

/// The host of a URL, spelt the same way.
pub fn host_of(url: &Url) -> Option<String> {
    url.host_str().and_then(host_name)
}

/// Which hosts may have addresses that are not public.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Private {
    pub all: bool,
    pub hosts: Vec<String>,
}

impl Private {
    fn admits(&self, host: &str) -> bool {
        self.all || self.hosts.iter().any(|name| name == host)
    }
}

/// Whether anybody on the internet may have this address. Whatever is not known to be public is not.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match a {
        0 | 10 | 127 => true,                                           // this network, private, loopback
        100 => (64..128).contains(&b),                                  // shared by carriers
        169 => b == 254,              // link-local, with the metadata services of clouds
        172 => (16..32).contains(&b), // private
        192 => matches!((b, c), (168, _) | (0, 0) | (0, 2) | (88, 99)), // private, protocols, examples, 6to4
        198 => matches!(b, 18 | 19) || (b, c) == (51, 100), // benchmarks, examples
        203 => (b, c) == (0, 113),    // examples
        224.. => true,                // multicast, reserved, broadcast
        _ => false,
    };
    !special
}

/// Only 2000::/3 is given out to anybody. In it: no tunnels (Teredo, 6to4), which hide an IPv4 address, and no examples.
/// Outside of it, among others: loopback, unspecified, NAT64 (64:ff9b::/96, 64:ff9b:1::/48), unique local, link-local,
/// site-local, multicast.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let special = match a {
        0x2001 => b < 0x0200 || b == 0x0db8,
        0x2002 => true,
        0x3fff => b < 0x1000,
        _ => false,
    };
    a & 0xe000 == 0x2000 && !special
}

/// The reason why a connection is not made. It travels inside the client's error.
#[derive(Clone, Debug)]
pub struct Refused {
    host: String,
    address: IpAddr,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host {} leads to {}, which is not a public address", self.host, self.address)
    }
}

impl std::error::Error for Refused {}

impl Refused {
    pub fn failure(&self) -> Failure {
        Failure::new(self.to_string()).hint(
            "If that is meant, an administrator lists the host under the target's allow_private_hosts, or sets allow_private.",
        )
    }
}

/// Whether a request may go to this URL as far as the URL tells: scheme, host, an address in place of a name.
pub fn check(url: &Url, hosts: &[HostRule], private: &Private) -> Result<(), Failure> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Failure::new(format!("requests go to http and https only, not to {}", url.scheme())));
    }
    let Some(host) = host_of(url) else { return Err(Failure::new("the URL has no host")) };
    if !hosts.iter().any(|rule| rule.admits(&host)) {
        return Err(Failure::new(format!("the target does not allow requests to the host {host}"))
            .hint("An administrator lists it under the target's allow_hosts if it is meant."));
    }
    // The client connects to an address without asking its resolver.
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        _ => return Ok(()),
    };
    judge(private, &host, address).map_err(|refused| refused.failure())
}

fn judge(private: &Private, host: &str, address: IpAddr) -> Result<(), Refused> {
    if private.admits(host) || is_public(address) {
        Ok(())
    } else {
        Err(Refused { host: host.to_owned(), address })
    }
}

type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// What resolves names for every connection of a client.
#[derive(Clone)]
pub struct Guard {
    private: Private,
    lookup: Lookup,
}

impl Guard {
    pub fn new(private: Private) -> Guard {
        let lookup: Lookup = Arc::new(|host| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        });
        Guard { private, lookup }
    }

    /// The addresses of a host. One that must not be reached refuses them all: a name with both kinds is no accident.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found = (self.lookup)(host.to_owned()).await?;
        let host = host_name(host).unwrap_or_else(|| host.to_owned());
        for address in &found {
            judge(&self.private, &host, *address)?;
        }
        if found.is_empty() {
            return Err(format!("the host {host} has no address").into());
        }
        Ok(found)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = guard.addresses(name.as_str()).await?;
            Ok(Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[test]
    fn addresses_that_are_not_public() {
        let refused = "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 \
            169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.0.1 \
            198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 \
            :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 \
            64:ff9b::127.0.0.1 64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 2001::1 2001:0:1::1 2001:db8::1 2002:7f00:1::1 \
            3fff::1 5f00::1 fc00::1 fd00:ec2::254 fdff:ffff::1 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1";
        for address in refused.split_whitespace() {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        let public = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 128.0.0.1 169.253.0.1 \
            172.15.255.255 172.32.0.1 192.0.1.1 192.167.0.1 192.169.0.1 198.17.0.1 198.20.0.1 223.255.255.255 \
            ::ffff:8.8.8.8 2001:4860:4860::8888 2606:4700::1111 2a00:1450::1";
        for address in public.split_whitespace() {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    fn allowed(url: &str, hosts: &[&str], private: &Private) -> bool {
        let hosts: Vec<_> = hosts.iter().map(|host| HostRule::parse(host).unwrap()).collect();
        check(&Url::parse(url).unwrap(), &hosts, private).is_ok()
    }

    #[test]
    fn hosts_are_matched_whole_and_in_one_spelling() {
        let none = Private::default();
        assert!(allowed("https://API.Example.com./x", &["api.example.com"], &none));
        assert!(allowed("https://a.b.example.com/", &["*.example.com"], &none));
        assert!(!allowed("https://example.com/", &["*.example.com"], &none));
        assert!(!allowed("https://evilexample.com/", &["*.example.com", "example.com"], &none));
        assert!(!allowed("https://example.com.evil.org/", &["*.example.com", "example.com"], &none));
        assert!(!allowed("https://example.com@evil.org/", &["example.com"], &none));
        assert!(!allowed("ftp://example.com/", &["example.com"], &none));
        assert!(allowed("https://bücher.example/", &["xn--bcher-kva.example"], &none));
        for wrong in
            ["*", "*.*", "a*.example.com", "http://example.com", "example.com:80", "example.com/x", "", "*.10.0.0.1"]
        {
            assert!(HostRule::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_in_place_of_a_name_is_judged_however_it_is_spelt() {
        let none = Private::default();
        let loopback = ["127.0.0.1", "::1", "::ffff:127.0.0.1"];
        for url in ["http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f.0.0.1/", "http://[::1]/"] {
            assert!(!allowed(url, &loopback, &none), "{url}");
        }
        assert!(!allowed("http://[::ffff:127.0.0.1]/", &loopback, &none));
        assert!(allowed("http://127.1/", &loopback, &Private { all: true, hosts: vec![] }));
        assert!(allowed("http://127.1/", &loopback, &Private { all: false, hosts: vec!["127.0.0.1".into()] }));
    }

    /// A name that is public when somebody checks it and private when the connection is made.
    fn rebinding(private: Private) -> Guard {
        let asked = Arc::new(AtomicUsize::new(0));
        let lookup: Lookup = Arc::new(move |_| {
            let address = if asked.fetch_add(1, SeqCst) == 0 { [93, 184, 216, 34] } else { [127, 0, 0, 1] };
            Box::pin(async move { Ok(vec![IpAddr::from(address)]) })
        });
        Guard { private, lookup }
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_the_next_time_is_refused_then() {
        let guard = rebinding(Private::default());
        assert!(guard.addresses("example.com").await.is_ok());
        let error = guard.addresses("example.com").await.unwrap_err();
        assert!(error.is::<Refused>(), "{error}");
        let guard = rebinding(Private { all: false, hosts: vec!["example.com".into()] });
        assert!(guard.addresses("example.com").await.is_ok());
        assert!(guard.addresses("EXAMPLE.com.").await.is_ok());
        assert!(guard.addresses("other.example.com").await.is_err());
    }

    #[tokio::test]
    async fn the_client_connects_to_what_was_judged() {
        let guard = rebinding(Private::default());
        assert!(guard.addresses("example.com").await.is_ok());
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(
                crate::tls::client_config(crate::tls::Verify::Nothing, None).unwrap().as_ref().clone(),
            )
            .dns_resolver(guard)
            .build()
            .unwrap();
        let error = client.get("http://example.com:1/").send().await.unwrap_err();
        assert!(super::super::exchange::find::<Refused>(&error).is_some(), "{error:?}");
    }

    #[tokio::test]
    async fn one_private_address_among_public_ones_refuses_the_name() {
        let lookup: Lookup =
            Arc::new(|_| Box::pin(async { Ok(vec![IpAddr::from([93, 184, 216, 34]), IpAddr::from([10, 0, 0, 1])]) }));
        let guard = Guard { private: Private::default(), lookup };
        assert!(guard.addresses("example.com").await.is_err());
    }
}
