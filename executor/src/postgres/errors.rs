//! What servers and sockets say when something is wrong, in a user's words, and what follows from it.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::{DbError, ErrorPosition, SqlState};
use tokio_postgres::Error;

use super::wire::NotOffered;
use crate::job::Failure;

/// Why there is no connection.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// The server cannot be reached or takes nobody now: later it may.
    Down(Failure),
    /// It will say the same tomorrow.
    Refused(Failure),
}

/// What an error while connecting means. `place`: `host:port`.
pub fn refusal(error: &Error, place: &str) -> Refusal {
    if let Some(db) = error.as_db_error() {
        return refusal_of_server(db, place);
    }
    let cannot = |what: &str| Failure::new(format!("cannot connect to {place}: {what}"));
    let source = error.source();
    if source.is_some_and(|s| s.is::<NotOffered>()) {
        return Refusal::Refused(
            cannot("the server does not support TLS")
                .code("08001")
                .hint("Switch on `ssl` on the server, or set sslmode to prefer or disable."),
        );
    }
    if let Some(io) = source.and_then(|s| s.downcast_ref::<io::Error>()) {
        return match io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => refusal_of_tls(tls, cannot),
            None if io.kind() == io::ErrorKind::InvalidInput => Refusal::Refused(cannot(&io.to_string())),
            None => Refusal::Down(cannot(&words_of_io(io)).code("08001")),
        };
    }
    let text = source.map_or_else(|| error.to_string(), |s| format!("{error}: {s}"));
    if error.is_closed() {
        return Refusal::Down(cannot("the connection was closed").code("08006"));
    }
    if text.contains("password missing") {
        return Refusal::Refused(
            cannot("the server asks for a password and there is none")
                .code("28P01")
                .hint("Put `password` into the user mapping or the connection string."),
        );
    }
    if text.contains("channel binding") {
        return Refusal::Refused(
            cannot(&text)
                .code("28000")
                .hint("channel_binding=require needs TLS and scram-sha-256; set it to prefer otherwise."),
        );
    }
    Refusal::Refused(cannot(&text))
}

fn refusal_of_server(db: &DbError, place: &str) -> Refusal {
    let failure = failure_of(db, None);
    let failure = Failure { message: format!("cannot connect to {place}: {}", failure.message), ..failure };
    let code = db.code().code();
    // A pooler answers everything with one code.
    let of_pooler = code == "08P01";
    let said = db.message();
    let final_word =
        ["no such database", "no such user", "does not exist", "not allowed", "auth failed", "authentication failed"]
            .iter()
            .any(|word| said.contains(word));
    match &code[..2] {
        "08" if of_pooler && final_word => Refusal::Refused(failure),
        "08" | "53" | "57" | "58" | "XX" => Refusal::Down(failure),
        _ => Refusal::Refused(with_hint(failure, hint_of_login(db.code()))),
    }
}

fn hint_of_login(code: &SqlState) -> Option<&'static str> {
    Some(match code.code() {
        "3D000" => "Name a database of that server in `dbname`; without one it is that of the user's name.",
        "28P01" => "Check `user` and `password` in the user mapping or the connection string.",
        "28000" => "Check `user` and `sslmode`, and what the server's pg_hba.conf admits from here.",
        "42501" => "GRANT CONNECT on that database to the user, or name another user.",
        _ => return None,
    })
}

fn with_hint(failure: Failure, hint: Option<&str>) -> Failure {
    match hint {
        Some(hint) if failure.hint.is_none() => failure.hint(hint),
        _ => failure,
    }
}

fn refusal_of_tls(error: &rustls::Error, cannot: impl Fn(&str) -> Failure) -> Refusal {
    use rustls::CertificateError as C;
    let hint = match error {
        // Of another authority, or of another one of the same name.
        rustls::Error::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "Name the file with the authority's certificate in sslrootcert."
        }
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "Connect by a name that is in the certificate's subject alternative names (with hostaddr for the address), or set \
             sslmode to verify-ca."
        }
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "Renew the server's certificate."
        }
        rustls::Error::InvalidCertificate(_) => "Check the server's certificate and sslrootcert.",
        rustls::Error::AlertReceived(_) => "The server broke the handshake off; its log says why.",
        _ => "Check that the server speaks TLS 1.2 or 1.3.",
    };
    Refusal::Refused(cannot(&format!("TLS: {error}")).code("08001").hint(hint))
}

/// Without an operating system's number behind it.
fn words_of_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "the connection was closed".to_owned(),
        _ => error.to_string(),
    }
}

/// An error of the server. `text`: what was sent, to show the place.
pub fn failure_of(db: &DbError, text: Option<&str>) -> Failure {
    let mut failure = Failure::new(db.message()).code(db.code().code());
    let mut details: Vec<String> = db.detail().map(str::to_owned).into_iter().collect();
    match (db.position(), text) {
        (Some(ErrorPosition::Original(at)), Some(text)) => details.extend(place_in(text, *at)),
        (Some(ErrorPosition::Internal { position, query }), _) => details.extend(place_in(query, *position)),
        _ => {}
    }
    if let Some(context) = db.where_().map(of_the_users).filter(|c| !c.is_empty()) {
        details.push(format!("CONTEXT: {context}"));
    }
    if !details.is_empty() {
        failure = failure.detail(details.join("\n"));
    }
    with_hint(failure, db.hint().or_else(|| hint_of_work(db)))
}

fn hint_of_work(db: &DbError) -> Option<&'static str> {
    let said = db.message();
    Some(match db.code().code() {
        "25006" => "The target is read-only: a standby? Name all its hosts with target_session_attrs=read-write.",
        "3F000" if said.contains("\"flow\"") => CLIENT_SQL,
        "42704" if said.contains("callback_arguments_t") => CLIENT_SQL,
        "42883" if said.starts_with("procedure ") => {
            "It must exist there as a procedure that takes flow.callback_arguments_t, on the user's search_path or with its \
             schema."
        }
        "42601" if said.contains("multiple commands") => {
            "A query with parameters, or whose rows are kept, must be a single statement."
        }
        _ => return None,
    })
}

const CLIENT_SQL: &str = "Install pgflow_client.sql in that database, and GRANT USAGE on its schemas to the user.";

/// Context without the lines of the block that we send.
fn of_the_users(context: &str) -> &str {
    let ours = context.rfind("SQL statement \"CALL ").filter(|_| context.contains("inline_code_block"));
    let context = ours.map_or(context, |at| &context[..at]).trim_end();
    let mut end = context.len().min(2000);
    while !context.is_char_boundary(end) {
        end -= 1;
    }
    &context[..end]
}

/// Line and column of a character, and what stands there.
fn place_in(text: &str, position: u32) -> Option<String> {
    let at = (position as usize).checked_sub(1)?;
    let before: String = text.chars().take(at).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let there: String = text.chars().skip(at).take_while(|c| *c != '\n').take(40).collect();
    Some(format!("LINE {line}, column {column}: {there}"))
}

/// Whether the server's process ended with this: nobody can say what became of what was sent.
pub fn ends_the_session(error: &Error) -> bool {
    match error.as_db_error() {
        // Severity is translated; FATAL errors of these classes are all that can come in mid-session.
        Some(db) => {
            matches!(db.code().code(), "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04")
                || db.code().code().starts_with("08")
        }
        None => !is_ours(error),
    }
}

/// Whether it was refused on this side, before anything was sent.
fn is_ours(error: &Error) -> bool {
    let text = error.to_string();
    text.starts_with("error serializing") || text.starts_with("error encoding") || text.starts_with("expected ")
}

/// What broke, for an ending in doubt.
pub fn lost(error: &Error, place: &str) -> Failure {
    match error.as_db_error() {
        Some(db) => {
            let failure = failure_of(db, None);
            Failure { message: format!("the session at {place} was ended: {}", failure.message), ..failure }
        }
        None => {
            Failure::new(format!("the connection to {place} was lost")).code("08006").detail(match error.source() {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            })
        }
    }
}

/// Any error, as a failure.
pub fn failure(error: &Error, text: Option<&str>) -> Failure {
    match error.as_db_error() {
        Some(db) => failure_of(db, text),
        None => Failure::new(match error.source() {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_line_and_a_column() {
        assert_eq!(place_in("SELECT\n  x y", 10).as_deref(), Some("LINE 2, column 3: x y"));
        assert_eq!(place_in("é x", 3).as_deref(), Some("LINE 1, column 3: x"));
    }

    #[test]
    fn the_context_of_our_own_block_is_left_out() {
        let context =
            "PL/pgSQL function p(x) line 3 at RAISE\nSQL statement \"CALL \"p\"(ROW(1))\"\nPL/pgSQL function \
                       inline_code_block line 1 at CALL";
        assert_eq!(of_the_users(context), "PL/pgSQL function p(x) line 3 at RAISE");
    }
}
