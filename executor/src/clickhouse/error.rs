//! What ClickHouse says when it cannot: its codes, in a user's words, and what follows from them.
//!
//! Must never take an error for "nothing was done" unless ClickHouse says so.

use std::time::Duration;

use crate::job::{Ending, Failure};

/// The longest message of ClickHouse's that is taken; it is cut further when secrets have been masked in it.
const MESSAGE: usize = 20_000;

pub const UNKNOWN_SETTING: u32 = 115;
pub const TIMEOUT_EXCEEDED: u32 = 159;
pub const READONLY: u32 = 164;
pub const TOO_MANY_SIMULTANEOUS_QUERIES: u32 = 202;
pub const QUERY_WITH_SAME_ID: u32 = 216;
pub const QUERY_WAS_CANCELLED: u32 = 394;
pub const SETTING_CONSTRAINT_VIOLATION: u32 = 452;

/// An exception of ClickHouse's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    pub code: u32,
    /// `UNKNOWN_TABLE`.
    pub name: Option<String>,
    pub message: String,
}

impl Exception {
    /// Reads `Code: 60. DB::Exception: … (UNKNOWN_TABLE) (version 26.7.2.1)`. None: it is none.
    pub fn read(text: &str) -> Option<Exception> {
        let from = text.find("Code: ")?;
        let text = text[from + 6..].trim();
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let code = text[..digits].parse().ok()?;
        let rest = text[digits..].trim_start_matches(['.', ' ', ',']);
        let (origin, message) = rest.split_once("Exception: ")?;
        if !origin.starts_with("DB::") {
            return None;
        }
        let message = match message.rfind(" (version ") {
            Some(at) => &message[..at],
            None => message,
        };
        let (message, name) = match message.trim_end().strip_suffix(')').and_then(|m| m.rsplit_once(" (")) {
            Some((message, name)) if !name.is_empty() && name.chars().all(is_name) => (message, Some(name.to_owned())),
            _ => (message, None),
        };
        // What it was called with inside.
        let message = message.split(", Stack trace").next().unwrap_or(message).trim();
        Some(Exception { code, name, message: message.to_owned() })
    }

    /// Reads what `read` does not: an error of a library below ClickHouse (`std::exception. Code: 1001, … (version 26.7)`),
    /// or the code alone. None: it is not ClickHouse's.
    pub fn read_foreign(text: &str) -> Option<Exception> {
        if !text.starts_with("Code: ") && !text.contains(" (version ") {
            return None;
        }
        let (_, rest) = text.split_once("Code: ")?;
        let code = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        Some(Exception::of_code(code, text))
    }

    /// What only headers told.
    pub fn of_code(code: u32, body: &str) -> Exception {
        Exception { code, name: None, message: cut(body.trim(), MESSAGE) }
    }

    pub fn failure(&self) -> Failure {
        let name = self.name.as_deref().map_or(String::new(), |name| format!(" {name}"));
        let message = match self.code {
            TIMEOUT_EXCEEDED => format!("the query took longer than ClickHouse allows it: {}", self.message),
            QUERY_WAS_CANCELLED => "the query was killed by somebody else".to_owned(),
            _ => format!("ClickHouse: {}", self.message),
        };
        let failure = Failure::new(cut(&message, MESSAGE)).code(format!("{}{name}", self.code));
        match self.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    /// How an attempt ends that got this answer.
    pub fn ending(&self) -> Ending {
        match self.code {
            TOO_MANY_SIMULTANEOUS_QUERIES => Ending::Again { failure: self.failure(), after: None, down: false },
            // One of ours with this name runs already: what becomes of it must be looked up.
            QUERY_WITH_SAME_ID => Ending::Lost(self.failure()),
            _ => Ending::Failed(self.failure()),
        }
    }

    /// The setting that ClickHouse does not let us set, if that is what is wrong.
    pub fn refused_setting(&self) -> Option<&str> {
        if ![UNKNOWN_SETTING, READONLY, SETTING_CONSTRAINT_VIOLATION].contains(&self.code) {
            return None;
        }
        let word = |quote: char| {
            let (_, rest) = self.message.split_once(quote)?;
            rest.split(quote).next()
        };
        // "Cannot modify 'x' setting in readonly mode", "Setting x should not be changed", "Unknown setting 'x'".
        let plain = || self.message.strip_prefix("Setting ")?.split_whitespace().next();
        word('\'').or_else(|| word('`')).or_else(plain)
    }

    fn hint(&self) -> Option<&'static str> {
        Some(match self.code {
            60 | 81 => "Check the name and the target's \"database\", and that the user may see it.",
            47 | 46 | 36 => "Check the names of columns and functions in the query.",
            62 => "Check the query's syntax with clickhouse-client; a parameter is written {name:Type}.",
            26 | 27 | 53 | 457 => "Check that the value fits the declared type of the parameter.",
            456 => "Give the parameter a value in the node's \"parameters\" or in its arguments.",
            115 => "Check the names in \"settings\" of the node, the tier and the target.",
            158 | 307 | 396 => "A limit of the user's profile or of \"settings\" was reached; have the query read or return less.",
            159 => "Raise max_execution_time in \"settings\" (or the user's profile), or the task's time-out.",
            160 => "ClickHouse estimates that it would take longer than max_execution_time.",
            164 => "The user's profile is read-only: readonly = 2 lets settings go with a query.",
            192..=194 | 516 => "Check user and password in the connection string or the user mapping.",
            195 | 291 | 497 => "Grant the user the privilege, or use another user.",
            201 => "The quota of this user (or quota_key) is used up.",
            202 => "ClickHouse runs as many queries as it may: it is tried again.",
            209 | 210 | 279 => "ClickHouse could not reach another server that the query needs.",
            216 => "What became of the earlier query is looked up first.",
            241 => "Raise max_memory_usage in \"settings\" or set max_bytes_before_external_group_by, or have the query hold less.",
            242 | 999 => "ClickHouse Keeper or the table's replica is not available now.",
            243 | 252 => "The ClickHouse server cannot take more data now; see its disks and parts.",
            394 => "Somebody ran KILL QUERY, or the server was shut down.",
            446 => "The user's profile does not let this function be used: allow_get_client_http_header must be allowed for \
                    secrets, or set the target's option \"secrets\" to \"parameters\".",
            452 => "A constraint of the user's profile forbids this setting.",
            499 => "ClickHouse could not use the object store: check its endpoint as ClickHouse reaches it, and its credentials.",
            _ => return None,
        })
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
}

/// An answer of HTTP that is no exception of ClickHouse's: of something in between.
pub fn of_status(status: u16, retry_after: Option<Duration>, body: &str) -> Ending {
    let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut failure =
        Failure::new(format!("ClickHouse's HTTP interface answered {status}")).code(format!("HTTP {status}"));
    if !body.is_empty() {
        failure = failure.detail(cut(&body, 300));
    }
    match status {
        429 | 503 => Ending::Again { failure, after: retry_after, down: false },
        // Something in between gave up waiting: the query may run.
        502 | 504 => Ending::Lost(failure.hint("A proxy in between has a time limit that is shorter than the query.")),
        401 | 403 => {
            Ending::Failed(failure.hint("Check user and password in the connection string or the user mapping."))
        }
        404 => Ending::Failed(failure.hint("Check the host and the port: is it ClickHouse's HTTP port (8123, 8443)?")),
        _ => Ending::Failed(failure),
    }
}

/// A text that is not longer than so many characters.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_read() {
        let text =
            "Code: 60. DB::Exception: Unknown table expression identifier 'x' in scope SELECT (1). (UNKNOWN_TABLE) \
                    (version 26.7.2.1)\n";
        let exception = Exception::read(text).unwrap();
        assert_eq!((exception.code, exception.name.as_deref()), (60, Some("UNKNOWN_TABLE")));
        assert_eq!(exception.message, "Unknown table expression identifier 'x' in scope SELECT (1).");
        let failure = exception.failure();
        assert_eq!(failure.code.as_deref(), Some("60 UNKNOWN_TABLE"));
        assert!(failure.hint.is_some());
        let old =
            "Code: 210. DB::NetException: I/O error: Broken pipe. (NETWORK_ERROR) (version 23.8.8.20 (official build))";
        assert_eq!(Exception::read(old).map(|e| e.code), Some(210));
        for none in ["", "Code: ", "Code: x. DB::Exception: y", "Code: 5. Std::Exception: y", "<html>"] {
            assert_eq!(Exception::read(none), None, "{none}");
        }
        let below = "std::exception. Code: 1001, type: std::bad_alloc, e.what() = no memory (version 26.7.2.1)";
        assert_eq!(Exception::read(below), None);
        for (text, code) in [(below, Some(1001)), ("Code: 210", Some(210)), ("<p>Error Code: 503</p>", None)] {
            assert_eq!(Exception::read_foreign(text).map(|e| e.code), code, "{text}");
        }
    }

    #[test]
    fn a_refused_setting_is_known() {
        let refused = |code, message: &str| {
            let exception = Exception { code, name: None, message: message.into() };
            exception.refused_setting().map(str::to_owned)
        };
        assert_eq!(refused(164, "Cannot modify 'max_x' setting in readonly mode.").as_deref(), Some("max_x"));
        assert_eq!(refused(452, "Setting max_y should not be changed").as_deref(), Some("max_y"));
        assert_eq!(refused(115, "Unknown setting 'max_z'").as_deref(), Some("max_z"));
        assert_eq!(refused(62, "'max_z'"), None);
    }
}
