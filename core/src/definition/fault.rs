//! What is wrong with a configuration, and where: every fault with its JSON path, in the order they were found.
//!
//! Must never stop at the first fault, and never put text of a user into a message unescaped or at full length.

use std::collections::HashSet;
use std::fmt;

use serde_json::Value;

/// The longest piece of a user's text that a message repeats, in characters.
const SHOWN: usize = 80;

/// Whether a fault refuses the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is stored.
    Error,
    /// The configuration is stored, and the author is told.
    Warning,
}

impl Severity {
    /// The word that `flow.validate` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, as a JSON path: `$.nodes[3].dependencies[0].parent`.
    pub path: String,
    /// Whether it refuses the configuration.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// The most faults that are told of; who wrote more reads these first.
const FAULTS_TOLD: usize = 10_000;
/// The most different keys that are unknown. Finding what each was meant to be takes time.
const UNKNOWN_KEYS: usize = 1000;

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub told: Vec<Fault>,
    untold: usize,
    refuses: bool,
    unknown_keys: HashSet<String>,
}

impl Faults {
    pub fn add(&mut self, severity: Severity, path: impl Into<String>, message: String, hint: Option<String>) {
        self.refuses |= severity == Severity::Error;
        // The first error is told in any case: without it nobody would know why nothing was stored.
        let first_error = severity == Severity::Error && self.untold > 0 && !self.tells_an_error();
        if self.told.len() < FAULTS_TOLD || first_error {
            self.told.push(Fault { path: path.into(), severity, message, hint });
        } else {
            self.untold += 1;
        }
    }

    fn tells_an_error(&self) -> bool {
        self.told.iter().any(|fault| fault.severity == Severity::Error)
    }

    /// Notes an unknown key. False: there are so many different ones that this is a fault of its own, told once.
    pub fn takes_unknown_key(&mut self, key: &str, path: &str) -> bool {
        if self.unknown_keys.len() >= UNKNOWN_KEYS && !self.unknown_keys.contains(key) {
            if self.unknown_keys.len() == UNKNOWN_KEYS {
                self.error(path, format!("there are more than {UNKNOWN_KEYS} different unknown keys"));
                self.unknown_keys.insert(String::from("\0told"));
            }
            return false;
        }
        if !self.unknown_keys.contains(key) {
            self.unknown_keys.insert(key.to_owned());
        }
        true
    }

    /// All of them, with a last one that counts those that are left out.
    pub fn into_list(mut self) -> Vec<Fault> {
        if self.untold > 0 {
            let severity = if self.refuses { Severity::Error } else { Severity::Warning };
            let message = format!("and {} more faults, which are left out", self.untold);
            self.told.push(Fault { path: "$".into(), severity, message, hint: None });
        }
        self.told
    }

    pub fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, path, message.into(), None);
    }

    pub fn error_hint(&mut self, path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Error, path, message.into(), Some(hint.into()));
    }

    pub fn warn_hint(&mut self, path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, path, message.into(), Some(hint.into()));
    }

    pub fn refuses(&self) -> bool {
        self.refuses
    }
}

/// The path of a key of the object at `path`.
pub(super) fn key_path(path: &str, key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain {
        format!("{path}.{key}")
    } else {
        format!("{path}[{}]", quoted(key))
    }
}

/// A user's text as a message may show it: in quotes, odd characters escaped, shortened.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text, &['"', '\\']))
}

/// The same without quotes, for a name inside a statement that a hint proposes.
pub(super) fn plain(text: &str) -> String {
    shown(text, &[])
}

fn shown(text: &str, escaped: &[char]) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        match c {
            _ if i == SHOWN => {
                out.push('…');
                break;
            }
            c if escaped.contains(&c) => out.extend(['\\', c]),
            c if crate::text::is_odd(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// What a JSON value is, in words.
pub(super) fn described(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => format!("the number {}", n.to_string().chars().take(SHOWN).collect::<String>()),
        Value::String(s) => format!("the string {}", quoted(s)),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_quotes_odd_keys() {
        assert_eq!(key_path("$", "nodes"), "$.nodes");
        assert_eq!(key_path("$.nodes[1]", "a b"), "$.nodes[1][\"a b\"]");
        assert_eq!(key_path("$", "1x"), "$[\"1x\"]");
        assert_eq!(key_path("$", ""), "$[\"\"]");
    }

    #[test]
    fn a_quoted_text_is_escaped_and_shortened() {
        assert_eq!(quoted("a\"b\\c\nd\u{202e}é"), "\"a\\\"b\\\\c\\u{a}d\\u{202e}é\"");
        let long = quoted(&"x".repeat(500));
        assert_eq!(long.chars().count(), SHOWN + 3);
        assert!(long.ends_with("x…\""));
    }

    #[test]
    fn a_value_is_described_in_words() {
        assert_eq!(described(&json!("x")), "the string \"x\"");
        assert_eq!(described(&json!(1.5)), "the number 1.5");
        assert_eq!(described(&json!([1])), "an array");
        assert_eq!(described(&json!({})), "an object");
        assert_eq!(described(&json!(null)), "null");
        assert_eq!(described(&json!(true)), "true");
    }

    #[test]
    fn a_fault_prints_its_path_message_and_hint() {
        let mut faults = Faults::default();
        faults.error_hint("$.x", "is wrong", "mend it");
        faults.error("$.y", "is wrong");
        assert_eq!(faults.told[0].to_string(), "$.x: is wrong (mend it)");
        assert_eq!(faults.told[1].to_string(), "$.y: is wrong");
        assert!(faults.refuses());
        assert_eq!(Severity::Warning.to_string(), "warning");
    }
}
