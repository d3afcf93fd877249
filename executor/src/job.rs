//! What a kind of target is given, and what it gives back. Plain values; a secret does not print.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::results::{Keep, Kept};

/// A text that must not be seen: it prints as `***`.
#[derive(Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(SecretString::from(text.into()))
    }

    /// The text itself; only for whoever sends it to where it belongs.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A place where tasks run, as configured, with the credentials of the role that the task runs as.
#[derive(Clone, Debug, Default)]
pub struct Target {
    pub name: String,
    /// Whose credentials these are.
    pub role: String,
    pub kind: String,
    /// A connection string or URL as the administrator wrote it; may hold credentials.
    pub connection_string: Option<Secret>,
    /// Options of a foreign server and of the user mapping, which win over those of the string: `host`, `port`, `dbname`,
    /// `url`, `user`, `password`, `sslmode`, … Every value may be a secret.
    pub connection_options: BTreeMap<String, Secret>,
    /// Whoever defined the target is no superuser: the connection must carry and use a password.
    pub password_required: bool,
    /// What `async.configure` was given under `options`; each kind knows its own keys.
    pub options: Map<String, Value>,
    /// Differs when anything above differs: what was opened for another one is not used.
    pub fingerprint: u64,
}

/// The arguments of a callback (`flow.callback_arguments_t`); of a task outside flows only `step_arguments` (its
/// `task_data`) and `task_id` are set.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    pub flow_id: Option<i64>,
    pub flow: Option<String>,
    pub flow_arguments: Value,
    pub node: Option<String>,
    pub step_arguments: Value,
}

impl Arguments {
    /// A value by name: of the step, else of the flow.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.step_arguments.get(name).or_else(|| self.flow_arguments.get(name))
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Work {
    pub query: Option<String>,
    /// The procedure to call, as configured (schema-qualified or not).
    pub routine: Option<String>,
    pub arguments: Arguments,
    /// What the node or task says beside: `parameters`, `settings`, `tier`, `request`, … Each kind knows its own keys.
    pub options: Map<String, Value>,
    /// Bound like parameters of the same name; they win over these. Never shown, never logged.
    pub secrets: BTreeMap<String, Secret>,
}

/// How many attempts beside the last are looked up; a task fails after fewer.
const MOST_UNSURE: i32 = 1000;

/// One attempt of a task, with everything that is needed to run it.
#[derive(Clone, Debug, Default)]
pub struct Job {
    pub task_id: i64,
    pub attempt: i32,
    /// Identifies the orchestrating database for as long as its task ids mean the same.
    pub engine: String,
    /// The attempt before this one may have run, or may still run: it is looked up before anything is done.
    pub unsure: bool,
    /// With `unsure`: the first attempt whose fate is unknown, if that is not only the one before. An attempt that was told
    /// to wait, or was itself lost before it could look, leaves what came before it as unknown as it was.
    pub unsure_since: Option<i32>,
    /// Counts intentions: an administrator's restart of the task is a new one, a retry is not. Part of `intention_key`.
    pub intention: i32,
    /// The role the task runs as in the orchestrating database.
    pub role: String,
    pub target: Arc<Target>,
    pub work: Work,
    pub keep: Keep,
    /// What is left of the task's time when it is handed over.
    pub time_limit: Option<Duration>,
}

impl Job {
    /// The name of an attempt, the same whoever asks: `pgflow-<engine>-<task>-<attempt>`.
    pub fn attempt_key(&self, attempt: i32) -> String {
        format!("pgflow-{}-{}-{attempt}", self.engine, self.task_id)
    }

    /// The attempts before this one whose fate is unknown.
    pub fn unsure_attempts(&self) -> std::ops::Range<i32> {
        if !self.unsure {
            return self.attempt..self.attempt;
        }
        let last = self.attempt - 1;
        self.unsure_since.unwrap_or(last).clamp(last - MOST_UNSURE, last)..self.attempt
    }

    /// The same for every attempt of one intention: what a receiver needs to see a repetition.
    pub fn intention_key(&self) -> String {
        format!("pgflow-{}-{}-{}", self.engine, self.task_id, self.intention)
    }
}

/// What went wrong, in a user's words. Must not hold a secret: see `Job::masked`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// SQLSTATE, ClickHouse's code, HTTP status: as the other side says it.
    pub code: Option<String>,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Failure { message: message.into(), ..Failure::default() }
    }

    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// As it is kept with the task: `message (code)`, then detail and hint on lines of their own.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, "\nDETAIL: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nHINT: {hint}")?;
        }
        Ok(())
    }
}

/// A message of the other side that is kept with the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// NOTICE, WARNING, INFO, LOG.
    pub level: String,
    pub message: String,
}

/// What is left when the work is done.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// None where `Keep::Nothing` was asked for.
    pub kept: Option<Kept>,
    pub notices: Vec<Notice>,
    /// The other side goes on by itself and will end the task with `flow.finish` or a callback.
    pub goes_on: bool,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum Ending {
    Finished(Done),
    /// The other side says that it failed: nothing is tried again.
    Failed(Failure),
    /// Nothing was done: the target could not be reached or was busy. Tried again after `after`, else with back-off.
    Again {
        failure: Failure,
        after: Option<Duration>,
        down: bool,
    },
    /// It may have been done, or may still run: the connection was lost. The next attempt is handed out with `unsure`.
    Lost(Failure),
    /// The stop that was asked for has been carried out, as far as it could be: see `kind::Context::stop`.
    Stopped,
}

impl Job {
    /// A text in which every secret of the job is replaced by `***`, and every NUL by U+FFFD. Every message that leaves a kind passes here: the
    /// runner sees to it for endings.
    pub fn masked(&self, text: &str) -> String {
        let mut secrets: Vec<String> = Vec::new();
        let mut add = |secret: &str| {
            // Shorter ones would mask harmless words, and are no secrets worth the name.
            if secret.len() >= 4 {
                secrets.push(secret.to_owned());
            }
        };
        self.work.secrets.values().for_each(|s| add(s.expose()));
        for (key, value) in self.target.connection_options.iter().chain(self.keep.store_options()) {
            if is_credential(key) {
                add(value.expose());
            }
        }
        if let Some(string) = &self.target.connection_string {
            passwords_of(string.expose()).iter().for_each(|p| add(p));
        }
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        let text = secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"));
        // Nor a character that no text of Postgres can hold.
        text.replace('\0', "\u{fffd}")
    }
}

/// Whether the value of an option is a credential, by its name.
pub fn is_credential(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    [
        "password",
        "passwd",
        "secret",
        "token",
        "sslkey",
        "access_key",
        "account_key",
        "sas",
        "service_account",
        "authorization",
    ]
    .iter()
    .any(|word| key.contains(word))
}

/// The passwords in a connection string: the part of a URL's user info after the colon, raw and decoded, and the values of
/// keys that are credentials, in a query string or in `key=value` pairs.
fn passwords_of(string: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(url) = url::Url::parse(string) {
        if let Some(password) = url.password() {
            found.push(password.to_owned());
            found.push(decoded(password));
        }
        for (key, value) in url.query_pairs() {
            if is_credential(&key) {
                found.push(value.clone().into_owned());
            }
        }
        for pair in url.query().unwrap_or_default().split('&') {
            if let Some((key, value)) = pair.split_once('=').filter(|(key, _)| is_credential(key)) {
                let _ = key;
                found.push(value.to_owned());
            }
        }
    } else if let Some((_, rest)) = string.split_once("://") {
        // A URL of several hosts, as libpq has it: `postgresql://user:password@a:1,b:2/db?password=…`.
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let credentials = authority.rsplit_once('@').map_or("", |(credentials, _)| credentials);
        let passwords = credentials.split_once(':').map(|(_, password)| password).into_iter();
        let values = query.split('&').filter_map(|pair| pair.split_once('=').filter(|(key, _)| is_credential(key)));
        for password in passwords.chain(values.map(|(_, value)| value)) {
            found.push(password.to_owned());
            found.push(decoded(password));
        }
    } else {
        // key = 'va\'lue' pairs.
        let mut rest = string;
        while let Some(at) = rest.find('=') {
            let key = rest[..at].trim().rsplit(char::is_whitespace).next().unwrap_or_default().to_owned();
            let after = rest[at + 1..].trim_start();
            let (value, raw, next) = pair_value(after);
            if is_credential(&key) {
                found.push(value);
                found.push(raw);
            }
            rest = next;
        }
    }
    found.retain(|p| !p.is_empty());
    found
}

/// The value at the start of a text: (unescaped, as written, what follows).
fn pair_value(text: &str) -> (String, String, &str) {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(usize::from(quoted)) {
        if escaped {
            value.push(c);
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if quoted && c == '\'' {
            return (value, text[1..at].to_owned(), &text[at + 1..]);
        } else if !quoted && c.is_whitespace() {
            return (value, text[..at].to_owned(), &text[at..]);
        } else {
            value.push(c);
        }
    }
    (value, text.to_owned(), "")
}

fn decoded(text: &str) -> String {
    let encoded = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(encoded.as_bytes()).next().map(|(_, v)| v.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(string: &str) -> Job {
        let target = Target { connection_string: Some(Secret::new(string)), ..Target::default() };
        Job { target: Arc::new(target), ..Job::default() }
    }

    #[test]
    fn passwords_are_masked_wherever_they_stand() {
        let url = job("clickhouse://ann:s%40cret@h:9000/db?password=other1&x=y");
        assert_eq!(url.masked("ann s%40cret s@cret other1 y"), "ann *** *** *** y");
        let hosts = job("postgresql://ann:s%40cret@a:1,[::1]:2/db?x=y&sslpassword=other1");
        assert_eq!(hosts.masked("ann s%40cret s@cret other1 y"), "ann *** *** *** y");
        let pairs = job(r"host=h password='it\'s me' user=ann sslpassword=abcd dbname=d");
        assert_eq!(pairs.masked("ann it's me abcd h"), "ann *** *** h");
    }

    #[test]
    fn a_secret_does_not_print() {
        let mut job = job("host=h password=hunter22");
        job.work.secrets.insert("key".into(), Secret::new("hunter23"));
        let printed = format!("{job:?}");
        assert!(!printed.contains("hunter"), "{printed}");
        assert!(!job.masked("got hunter23").contains("hunter"));
    }

    #[test]
    fn what_is_unknown_stays_unknown() {
        let sure = Job { attempt: 5, ..Job::default() };
        assert!(sure.unsure_attempts().is_empty());
        let unsure = Job { unsure: true, ..sure };
        assert_eq!(unsure.unsure_attempts(), 4..5);
        assert_eq!(Job { unsure_since: Some(2), ..unsure.clone() }.unsure_attempts(), 2..5);
        assert_eq!(Job { unsure_since: Some(9), ..unsure }.unsure_attempts(), 4..5);
    }

    #[test]
    fn arguments_of_the_step_win() {
        let arguments = Arguments {
            flow_arguments: serde_json::json!({"a": 1, "b": 2}),
            step_arguments: serde_json::json!({"a": 3}),
            ..Arguments::default()
        };
        assert_eq!(arguments.get("a"), Some(&serde_json::json!(3)));
        assert_eq!(arguments.get("b"), Some(&serde_json::json!(2)));
        assert_eq!(arguments.get("c"), None);
    }
}
