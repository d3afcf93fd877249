//! Sends a request, follows redirects, and tells what became of a request that got no answer.
//!
//! Must never follow to where the target does not allow, nor take credentials to another host: reqwest's own following of
//! redirects is off, since it knows only some of the headers that are secret.

use std::error::Error;
use std::io;

use reqwest::header::{HeaderMap, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use reqwest::{Client, Method, Response, StatusCode};
use tokio::time::{timeout_at, Instant};
use url::Url;

use super::guard::{self, Refused};
use super::request::{Prepared, Request};
use super::settings::Settings;
use crate::job::{Ending, Failure};

const MOST_REDIRECTS: usize = 5;

/// Sends it and returns the answer that counts, or how the attempt ended without one.
pub async fn send(
    client: &Client,
    settings: &Settings,
    request: &Request,
    prepared: &mut Prepared,
    deadline: Instant,
) -> Result<Response, Ending> {
    let mut own = true;
    let mut redirects = 0;
    loop {
        let place = place(&prepared.method, &prepared.url);
        guard::check(&prepared.url, &settings.hosts, &settings.private)
            .map_err(|failure| Ending::Failed(failure.detail(place.clone())))?;
        let built = build(client, settings, prepared, own).map_err(|error| {
            Ending::Failed(Failure::new(format!("no request: {}", last(&error))).detail(place.clone()))
        })?;
        if let Some(authorization) = built.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()) {
            prepared.masks.extend(authorization.split_once(' ').map(|(_, rest)| rest.to_owned()));
        }
        let response = match timeout_at(deadline, client.execute(built)).await {
            Err(_) => {
                let seconds = settings.timeout.as_secs_f64();
                return Err(Ending::Lost(
                    Failure::new(format!("no answer within {seconds} s"))
                        .detail(place)
                        .hint("Raise the target's timeout if the work takes longer, or make the request asynchronous."),
                ));
            }
            Ok(Err(error)) => return Err(ending_of(&error, &place, redirects == 0)),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        let Some(next) = location(&response).filter(|_| is_redirect(status) && !request.expects(status)) else {
            return Ok(response);
        };
        redirects += 1;
        let from = prepared.url.clone();
        follow(prepared, &from, next, status, redirects, &mut own)
            .map_err(|failure| Ending::Failed(failure.code(status.as_str()).detail(place)))?;
    }
}

/// `POST http://host/path`, without the query: it may hold what is nobody's business.
pub fn place(method: &Method, url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    format!("{method} {shown}")
}

fn build(
    client: &Client,
    settings: &Settings,
    prepared: &Prepared,
    own: bool,
) -> Result<reqwest::Request, reqwest::Error> {
    let mut headers = prepared.headers.clone();
    let mut builder = client.request(prepared.method.clone(), prepared.url.clone());
    if own {
        headers.extend(prepared.own_headers.clone());
        if let Some((user, password)) = settings.user.as_ref().filter(|_| !headers.contains_key(AUTHORIZATION)) {
            builder = builder.basic_auth(user, Some(password.expose()));
        }
    }
    builder = builder.headers(headers);
    if let Some(body) = &prepared.body {
        builder = builder.body(body.clone());
    }
    builder.build()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn location(response: &Response) -> Option<String> {
    let value: &HeaderMap = response.headers();
    value.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Makes the request the next one. `own` becomes false, for good, when it leaves the host that credentials are for.
fn follow(
    prepared: &mut Prepared,
    from: &Url,
    location: String,
    status: StatusCode,
    redirects: usize,
    own: &mut bool,
) -> Result<(), Failure> {
    if redirects > MOST_REDIRECTS {
        return Err(Failure::new(format!("more than {MOST_REDIRECTS} redirects")));
    }
    let mut next =
        from.join(&location).map_err(|error| Failure::new(format!("redirected to what is no URL: {error}")))?;
    // Credentials that the other side writes into a URL are not ours.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    next.set_fragment(None);
    if from.scheme() == "https" && next.scheme() != "https" {
        return Err(Failure::new(format!("redirected from https to {}", next.scheme()))
            .hint("Requests that began encrypted do not go on without."));
    }
    *own &= same_place(from, &next);
    let drops_body = status == StatusCode::SEE_OTHER && prepared.method != Method::HEAD
        || matches!(status.as_u16(), 301 | 302) && prepared.method == Method::POST;
    if drops_body {
        prepared.method = Method::GET;
        prepared.body = None;
        prepared.headers.remove(CONTENT_TYPE);
    } else if prepared.own_body && prepared.body.is_some() && !*own {
        return Err(Failure::new("redirected to another host with a body that holds a secret")
            .hint("Secrets go to the target's own host only: configure the other one as a target."));
    }
    prepared.url = next;
    Ok(())
}

/// Host and port; https in place of http on their usual ports is the same place, only better.
fn same_place(from: &Url, next: &Url) -> bool {
    let port = |url: &Url| url.port_or_known_default();
    let same_port = from.scheme() == next.scheme() && port(from) == port(next);
    let upgraded =
        next.scheme() == "https" && from.scheme() == "http" && (port(from), port(next)) == (Some(80), Some(443));
    guard::host_of(from) == guard::host_of(next) && (same_port || upgraded)
}

/// What became of a request that was not answered. `first`: it went to the target itself, not to where that sent it.
fn ending_of(error: &reqwest::Error, place: &str, first: bool) -> Ending {
    if let Some(refused) = find::<Refused>(error) {
        return Ending::Failed(refused.failure().detail(place));
    }
    let tls = find::<rustls::Error>(error);
    if let Some(tls) = tls.filter(|tls| error.is_connect() || turned_away(tls)) {
        return Ending::Failed(tls_failure(tls).detail(place));
    }
    if error.is_connect() {
        let message = if error.is_timeout() { "no connection in time".to_owned() } else { last(error) };
        return Ending::Again {
            failure: Failure::new(format!("cannot connect: {message}"))
                .detail(place)
                .hint("The request was not sent. It is tried again when the target can be reached."),
            after: None,
            down: first,
        };
    }
    if error.is_builder() {
        return Ending::Failed(Failure::new(format!("no request: {}", last(error))).detail(place));
    }
    Ending::Lost(lost(error, place))
}

/// The other side did not take the handshake, which a client of TLS 1.3 learns only after it has begun to send.
fn turned_away(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        error,
        rustls::Error::AlertReceived(
            Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::HandshakeFailure
        )
    )
}

/// The connection ended before the answer did.
pub fn lost(error: &reqwest::Error, place: &str) -> Failure {
    Failure::new(format!("the connection was lost: {}", last(error)))
        .detail(place)
        .hint("The request may have been carried out; the next attempt carries the same Idempotency-Key.")
}

pub fn tls_failure(error: &rustls::Error) -> Failure {
    let hint = match error {
        rustls::Error::InvalidCertificate(_) => {
            "Name a file with the authority's certificate in the target's ca_file; verify = ca does not check the name."
        }
        rustls::Error::InvalidMessage(_) => {
            "The other side may not speak TLS on this port: http:// in place of https://?"
        }
        _ => "See the target's url, ca_file and verify.",
    };
    Failure::new(format!("TLS: {error}")).hint(hint)
}

/// The error of a type in a chain of causes; `io::Error` hides the one that it was made from.
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = cause(error);
    }
    None
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return Some(inner);
    }
    error.source()
}

/// The last cause: what the operating system or the protocol says. Those above name the URL.
fn last(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(cause) = cause(error) {
        error = cause;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_belong_to_a_host_and_port() {
        let same = |a: &str, b: &str| same_place(&Url::parse(a).unwrap(), &Url::parse(b).unwrap());
        assert!(same("http://a/x", "http://a/y"));
        assert!(same("http://a/", "https://A./"));
        assert!(same("https://a/", "https://a:443/"));
        assert!(!same("http://a/", "http://b/"));
        assert!(!same("http://a:8080/", "http://a:8081/"));
        assert!(!same("http://a:8080/", "https://a/"));
        assert!(!same("https://a/", "http://a/"));
    }

    #[test]
    fn a_place_does_not_show_the_query() {
        assert_eq!(place(&Method::GET, &Url::parse("http://a/x?key=1").unwrap()), "GET http://a/x");
    }
}
