//! What an object store answers, in a user's words.
//!
//! Of what a store or the HTTP client says only the code and its own message are taken: the rest may hold addresses with
//! signatures in them. Every secret of the store's options is masked.

use std::error::Error as _;
use std::io::ErrorKind;

use super::store::Opened;
use crate::job::Failure;

/// The code of a failure that says nothing of the request: the store was not reached, or was lost. Another try may succeed.
pub const UNREACHABLE: &str = "unreachable";

/// What was being done, to which object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing<'a> {
    /// `write`, `read`, `delete`, …
    pub verb: &'a str,
    pub path: &'a str,
}

/// Whether the store says that there is no such object; not: no such bucket.
pub(super) fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && !is_bucket_missing(error)
}

pub(super) fn is_bucket_missing(error: &object_store::Error) -> bool {
    let code = code_of(&error.to_string());
    code.is_some_and(|code| ["NoSuchBucket", "ContainerNotFound"].contains(&code.as_str()))
}

pub(super) fn failure(opened: &Opened, doing: Doing<'_>, error: &object_store::Error) -> Failure {
    let name = &opened.name;
    let text = error.to_string();
    let code = code_of(&text);
    let told = tag(&text, "Message").filter(|m| !m.is_empty());
    let mut failure = match code.as_deref() {
        Some(code) => by_code(name, code).code(code),
        None => without_code(name, doing.verb, &with_causes(&text, error), error),
    };
    let place = match doing.path {
        "" => format!("In {}.", opened.url),
        path => format!("In {}, could not {} {path}.", opened.url, doing.verb),
    };
    failure.detail = Some(match told {
        Some(told) => format!("{place} It says: {}", first_line(&told)),
        None => place,
    });
    opened.masked(failure)
}

/// By the code that S3, Azure or Google give in the body.
fn by_code(name: &str, code: &str) -> Failure {
    let credentials = "Correct the credentials in the user mapping of the store's server, or in the store's options.";
    let (message, hint) = match code {
        "NoSuchBucket" | "ContainerNotFound" => (
            format!("the bucket of store \"{name}\" does not exist"),
            "Create it, or correct the store's url (and its endpoint and region).",
        ),
        "NoSuchKey" | "BlobNotFound" => {
            (format!("the object is not in store \"{name}\""), "It may have expired, or somebody may have deleted it.")
        }
        "SignatureDoesNotMatch" | "AuthenticationFailed" | "InvalidAuthenticationInfo" => (
            format!("store \"{name}\" refuses the credentials: the secret does not fit"),
            "Correct the secret key in the user mapping of the store's server, or in the store's options; see that region and \
             endpoint are right and the server's clock too.",
        ),
        "InvalidAccessKeyId" | "NotSignedUp" | "InvalidToken" | "InvalidSecurity" | "NoAuthenticationInformation" => {
            (format!("store \"{name}\" does not know the credentials"), credentials)
        }
        "ExpiredToken" | "TokenRefreshRequired" => {
            (format!("the credentials of store \"{name}\" have expired"), credentials)
        }
        "RequestTimeTooSkewed" => (
            format!("store \"{name}\" refuses the credentials: the clocks differ too much"),
            "Set the clock of this server.",
        ),
        "AccessDenied" | "AuthorizationFailure" | "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions"
        | "AccountIsDisabled" | "AllAccessDisabled" => (
            format!("the credentials of store \"{name}\" do not allow this"),
            "They must allow writing, reading and deleting objects below the store's prefix.",
        ),
        "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            (format!("the bucket of store \"{name}\" is in another region"), "Set the store's option region.")
        }
        "SlowDown" | "ServerBusy" | "ServiceUnavailable" | "TooManyRequests" => {
            (format!("store \"{name}\" is busy"), "Run fewer tasks that write to it at once, or try again later.")
        }
        _ => (format!("store \"{name}\" answers with an error"), "See the store's own documentation of this code."),
    };
    Failure::new(message).hint(hint)
}

/// By the kind of error, its cause and, last, its text.
fn without_code(name: &str, verb: &str, text: &str, error: &object_store::Error) -> Failure {
    use object_store::Error;
    let contains = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match error {
        Error::NotFound { .. } => {
            return Failure::new(format!("the object is not in store \"{name}\""))
                .hint("It may have expired, or somebody may have deleted it; or the store's bucket does not exist.");
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            let status = if matches!(error, Error::PermissionDenied { .. }) { "403" } else { "401" };
            return Failure::new(format!("store \"{name}\" refuses access"))
                .code(status)
                .hint("Correct the credentials in the user mapping of the store's server, or in the store's options.");
        }
        Error::InvalidPath { .. } => return Failure::new("the path of the result is not one that a store can hold"),
        _ => {}
    }
    let io = io_error(error);
    let reason = |kind: ErrorKind| io.as_ref().is_some_and(|(found, _)| *found == kind);
    if contains(&["dns error", "failed to lookup address"]) {
        return Failure::new(format!("the host of store \"{name}\" is not known"))
            .code(UNREACHABLE)
            .hint("Correct the store's endpoint, or its bucket if virtual_hosted_style_request is on.");
    }
    if contains(&["invalid peer certificate", "UnknownIssuer", "InvalidCertificate"]) {
        return Failure::new(format!("the certificate of store \"{name}\" is not to be trusted"))
            .code(UNREACHABLE)
            .hint("Name the authority's certificate in the store's option ca_file.");
    }
    if contains(&["BadScheme", "URL scheme is not allowed"]) {
        return Failure::new(format!("store \"{name}\" is not reached with encryption"))
            .hint("Use an https:// endpoint, or set the store's option allow_http to true.");
    }
    if reason(ErrorKind::ConnectionRefused) || contains(&["Connection refused"]) {
        return Failure::new(format!("store \"{name}\" cannot be reached: connection refused"))
            .code(UNREACHABLE)
            .hint("See that it runs and that the store's endpoint names its host and port.");
    }
    if reason(ErrorKind::TimedOut) || contains(&["operation timed out", "deadline has elapsed"]) {
        return Failure::new(format!("store \"{name}\" does not answer in time"))
            .code(UNREACHABLE)
            .hint("See that it runs; the store's options connect_timeout and timeout set how long is waited.");
    }
    if reason(ErrorKind::StorageFull) || reason(ErrorKind::QuotaExceeded) {
        return Failure::new(format!("the disk of store \"{name}\" is full"))
            .hint("Make room, or have results expire earlier.");
    }
    if reason(ErrorKind::PermissionDenied) || reason(ErrorKind::ReadOnlyFilesystem) {
        return Failure::new(format!("the server may not {verb} in the directory of store \"{name}\""))
            .hint("The operating system user that Postgres runs as must be allowed to.");
    }
    if contains(&["HTTP error", "error sending request", "connection closed", "Connection reset"]) {
        return Failure::new(format!("the connection to store \"{name}\" was lost")).code(UNREACHABLE);
    }
    if contains(&["without LOCATION"]) {
        return by_code(name, "PermanentRedirect").code("PermanentRedirect");
    }
    let what = io.map(|(_, text)| text).or_else(|| status(text).map(|status| format!("it answers {status}")));
    let what = what.unwrap_or_else(|| "the reason is not known".to_owned());
    Failure::new(format!("could not {verb} an object of store \"{name}\": {what}"))
}

/// What is looked at for known words, and never shown: the text, and those of its causes, which it does not repeat.
fn with_causes(text: &str, error: &object_store::Error) -> String {
    let mut whole = text.to_owned();
    let mut source = error.source();
    while let Some(error) = source {
        whole.push('\n');
        whole.push_str(&error.to_string());
        source = error.source();
    }
    whole
}

/// The operating system's error behind it, if there is one.
fn io_error(error: &object_store::Error) -> Option<(ErrorKind, String)> {
    let mut source = error.source();
    let mut found = None;
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            found = Some((io.kind(), first_line(&io.to_string())));
        }
        source = error.source();
    }
    found
}

/// `503 Service Unavailable` out of the client's text.
fn status(text: &str) -> Option<String> {
    let rest = &text[text.find("status code: ")? + "status code: ".len()..];
    Some(rest.split(':').next().unwrap_or_default().trim().chars().take(60).collect())
}

fn code_of(text: &str) -> Option<String> {
    tag(text, "Code")
        .filter(|code| !code.is_empty() && code.len() < 100 && code.chars().all(|c| c.is_ascii_alphanumeric()))
}

fn tag(text: &str, name: &str) -> Option<String> {
    let open = format!("<{name}>");
    let from = text.find(&open)? + open.len();
    let to = from + text[from..].find(&format!("</{name}>"))?;
    Some(text[from..to].trim().to_owned())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}
