//! A connection with a few short methods, so that a test reads like the SQL it runs. Values come as text.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{anyhow, bail, Context, Result};
use postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// A row as text; `None` is NULL.
pub type TextRow = Vec<Option<String>>;

pub struct Session {
    client: Client,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Session {
    pub fn connect(port: u16, database: &str, user: &str) -> Result<Session> {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let seen = notices.clone();
        let client = Config::new()
            .host("127.0.0.1")
            .port(port)
            .dbname(database)
            .user(user)
            .connect_timeout(Duration::from_secs(5))
            .application_name("pgflow-tests")
            .notice_callback(move |notice| {
                if let Ok(mut seen) = seen.lock() {
                    seen.push(format!("{}: {}", notice.severity(), notice.message()));
                }
            })
            .connect(NoTls)
            .map_err(|error| described(&error, &format!("connecting to {database} as {user}")))?;
        Ok(Session { client, notices })
    }

    /// Runs statements; their results are dropped.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).map_err(|error| described(&error, sql))
    }

    /// All rows of the last query that gives any.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<TextRow>> {
        let messages = self.client.simple_query(sql).map_err(|error| described(&error, sql))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
                }
                _ => None,
            })
            .collect())
    }

    /// The first column of the first row, NULL as "".
    pub fn text(&mut self, sql: &str) -> Result<String> {
        let rows = self.rows(sql)?;
        let row = rows.first().with_context(|| format!("no row from: {sql}"))?;
        Ok(row.first().cloned().flatten().unwrap_or_default())
    }

    /// The first column of every row, NULL as "".
    pub fn column(&mut self, sql: &str) -> Result<Vec<String>> {
        Ok(self.rows(sql)?.into_iter().map(|row| row.into_iter().next().flatten().unwrap_or_default()).collect())
    }

    pub fn number(&mut self, sql: &str) -> Result<i64> {
        let text = self.text(sql)?;
        text.parse().with_context(|| format!("{text:?} is no number; from: {sql}"))
    }

    pub fn truth(&mut self, sql: &str) -> Result<bool> {
        Ok(self.text(sql)? == "t")
    }

    /// The message of the error that a statement must raise, with its detail and hint.
    pub fn error(&mut self, sql: &str) -> Result<String> {
        match self.client.batch_execute(sql) {
            Ok(()) => bail!("no error from: {sql}"),
            Err(error) if error.as_db_error().is_some() => Ok(described(&error, "").to_string()),
            Err(error) => Err(described(&error, sql)),
        }
    }

    /// The notices and warnings that have come since the last call.
    pub fn notices(&mut self) -> Vec<String> {
        // A round trip delivers what is on its way.
        let _ = self.client.batch_execute("");
        self.notices.lock().map(|mut seen| std::mem::take(&mut *seen)).unwrap_or_default()
    }
}

impl Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// A server's error in full, which the driver's own text leaves out.
fn described(error: &postgres::Error, sql: &str) -> anyhow::Error {
    let mut text = match error.as_db_error() {
        Some(db) => {
            let mut text = format!("{} {}: {}", db.severity(), db.code().code(), db.message());
            for (name, more) in [("DETAIL", db.detail()), ("HINT", db.hint()), ("CONTEXT", db.where_())] {
                if let Some(more) = more {
                    text += &format!("\n{name}: {more}");
                }
            }
            text
        }
        None => error.to_string(),
    };
    if !sql.is_empty() {
        text += &format!("\nin: {}", sql.chars().take(600).collect::<String>());
    }
    anyhow!(text)
}

/// Text as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
