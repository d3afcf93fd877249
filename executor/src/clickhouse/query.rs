//! A job's query as it is sent: its parameters bound, its own FORMAT and SETTINGS out of the way where the result goes
//! somewhere, and the settings that come with it.
//!
//! Secrets must never become part of a text that ClickHouse shows. It shows the query in `system.processes`,
//! `system.query_log` and its server log *with parameters filled in*, so a secret is sent as a header instead and the query
//! reads it there: `unhex(getClientHTTPHeader('X-Pgflow-Secret-1'))`. `"secrets": "parameters"` among the target's options
//! binds them as plain parameters, for servers that do not let us.

use std::collections::BTreeMap;

use serde_json::Value;

use super::export;
use super::parameters::{self, Source};
use super::settings::{self, Settings};
use super::text::{self, What};
use crate::job::{Failure, Job, Secret};
use crate::results::{Compression, Format, Keep};

/// The name of the header of a secret begins so.
pub const SECRET_HEADER: &str = "X-Pgflow-Secret-";
/// ClickHouse must allow a query to read headers.
const HEADERS_ALLOWED: &str = "allow_get_client_http_header";

/// A request for ClickHouse, but for where it goes.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    pub text: String,
    pub query_id: Option<String>,
    pub format: Option<&'static str>,
    /// What the user set: ClickHouse must take it.
    pub settings: Settings,
    /// Settings of ours that the result would be wrong without: likewise, and a refusal says why.
    pub needed: Settings,
    /// Settings of ours that help; sent unless ClickHouse refuses them.
    pub wished: Settings,
    pub parameters: BTreeMap<String, Secret>,
    /// Header by header: what `unhex` makes of it is a secret.
    pub secrets: Vec<(String, Secret)>,
    pub quota_key: Option<String>,
}

impl Statement {
    /// One of our own, without anything that a user said.
    pub fn own(text: impl Into<String>) -> Statement {
        Statement { text: text.into(), ..Statement::default() }
    }

    /// Adds a secret: the expression that stands for it.
    pub fn hide(&mut self, secret: &Secret) -> String {
        let name = format!("{SECRET_HEADER}{}", self.secrets.len() + 1);
        let expression = format!("unhex(getClientHTTPHeader('{name}'))");
        self.secrets.push((name, Secret::new(hex::encode(secret.expose()))));
        self.needed.insert(HEADERS_ALLOWED.into(), "1".into());
        expression
    }
}

/// Makes the statement of a job.
pub fn of(job: &Job, of_string: &Settings) -> Result<Statement, Failure> {
    let query = job.work.query.as_deref().unwrap_or_default();
    let pieces = text::pieces(query);
    if pieces.is_empty() {
        return Err(Failure::new("the query is empty"));
    }
    let mut statement = Statement {
        query_id: Some(job.attempt_key(job.attempt)),
        settings: settings::of(job, of_string)?,
        quota_key: quota_key(job)?,
        ..Statement::default()
    };
    let tail = text::tail(query, &pieces);
    let mut edits: Vec<(std::ops::Range<usize>, String)> = Vec::new();
    bind(job, query, &pieces, &mut statement, &mut edits)?;
    if let Some(semicolons) = &tail.semicolons {
        edits.push((semicolons.clone(), String::new()));
    }
    let returns_rows = !matches!(job.keep, Keep::Nothing);
    if let Some(format) = tail.format.clone().filter(|_| returns_rows) {
        edits.push((format, String::new()));
    }
    if let (Keep::Export { .. }, Some(clause)) = (&job.keep, &tail.settings) {
        edits.push((clause.clone(), String::new()));
        for (name, value) in &tail.pairs {
            let value = literal(value).ok_or_else(|| {
                Failure::new(format!("the query's setting {name} cannot be taken out of it"))
                    .hint("Put it into the node's \"settings\".")
            })?;
            statement.settings.insert(name.clone(), value);
        }
    }
    let time_limited = statement.settings.contains_key("max_execution_time")
        || tail.pairs.iter().any(|(name, _)| name == "max_execution_time");
    if let Some(limit) = job.time_limit.filter(|_| !time_limited) {
        // A net for a query that nobody can stop any more: the stop at the limit itself is ours.
        statement.wished.insert("max_execution_time".into(), (limit.as_secs() + 5).to_string());
    }
    statement.text = edited(query, edits);
    shape(job, query, &pieces, &mut statement)?;
    Ok(statement)
}

/// What depends on where the result goes.
fn shape(job: &Job, query: &str, pieces: &[text::Piece], statement: &mut Statement) -> Result<(), Failure> {
    let mut wish = |name: &str, value: &str| statement.wished.insert(name.into(), value.into());
    wish("http_write_exception_in_output_format", "0");
    match &job.keep {
        Keep::Nothing => statement.format = Some("Null"),
        Keep::Inline { .. } | Keep::Worker(_) => {
            statement.format = Some("JSONCompactEachRowWithNamesAndTypes");
            for (name, value) in [("output_format_json_quote_denormals", "1"), ("date_time_output_format", "iso")] {
                statement.needed.insert(name.into(), value.into());
            }
        }
        Keep::Object { format, compression, .. } => {
            statement.format = Some(format_name(*format));
            format_settings(*format, *compression, &mut statement.wished);
        }
        Keep::Export { format, compression, .. } => {
            let first = text::first_word(query, pieces);
            if !matches!(
                first.as_str(),
                "SELECT" | "WITH" | "FROM" | "SHOW" | "DESCRIBE" | "DESC" | "EXPLAIN" | "VALUES"
            ) {
                return Err(Failure::new("only what a SELECT returns can be exported")
                    .detail(format!("The query begins with {}.", super::error::cut(&first, 30))));
            }
            format_settings(*format, *compression, &mut statement.wished);
            statement.wished.insert("s3_truncate_on_insert".into(), "1".into());
            export::wrap(job, statement)?;
        }
    }
    Ok(())
}

/// ClickHouse's name of a format.
pub fn format_name(format: Format) -> &'static str {
    match format {
        Format::Parquet => "Parquet",
        Format::Csv => "CSVWithNames",
        Format::Json => "JSONEachRow",
        Format::Arrow => "ArrowStream",
    }
}

/// Only what every reader of ours can read: no LZ4 inside Parquet and Arrow.
fn format_settings(format: Format, compression: Compression, wished: &mut Settings) {
    let pairs: &[(&str, &str)] = match (format, compression) {
        (Format::Parquet, Compression::None) => {
            &[("output_format_parquet_compression_method", "snappy"), ("output_format_parquet_string_as_string", "1")]
        }
        (Format::Parquet, _) => {
            &[("output_format_parquet_compression_method", "zstd"), ("output_format_parquet_string_as_string", "1")]
        }
        (Format::Arrow, _) => {
            &[("output_format_arrow_compression_method", "none"), ("output_format_arrow_string_as_string", "1")]
        }
        _ => &[],
    };
    wished.extend(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
}

/// Binds every parameter of the text.
fn bind(
    job: &Job,
    query: &str,
    pieces: &[text::Piece],
    statement: &mut Statement,
    edits: &mut Vec<(std::ops::Range<usize>, String)>,
) -> Result<(), Failure> {
    let as_parameters = job.target.options.get("secrets").and_then(Value::as_str) == Some("parameters");
    let mut hidden: BTreeMap<&str, String> = BTreeMap::new();
    for piece in &pieces[..text::before_data(query, pieces)] {
        let What::Parameter { name, type_name } = &piece.what else { continue };
        match parameters::find(&job.work, name)? {
            Source::Value(value) => {
                let text = parameters::text(name, type_name, &value)?;
                statement.parameters.insert(name.clone(), Secret::new(text));
            }
            Source::Secret => {
                let Some(secret) = job.work.secrets.get(name) else { continue };
                // A name cannot be an expression.
                if as_parameters || type_name == "Identifier" {
                    let text = parameters::text(name, type_name, &Value::String(secret.expose().to_owned()))?;
                    statement.parameters.insert(name.clone(), Secret::new(text));
                    continue;
                }
                let expression = hidden.entry(name).or_insert_with(|| statement.hide(secret)).clone();
                let cast = match type_name.as_str() {
                    "String" => expression,
                    _ => format!("CAST({expression} AS {type_name})"),
                };
                edits.push((piece.at.clone(), cast));
            }
        }
    }
    Ok(())
}

fn quota_key(job: &Job) -> Result<Option<String>, Failure> {
    let key = job.work.options.get("quota_key").or_else(|| job.target.options.get("quota_key"));
    match key {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(key)) => Ok(Some(key.clone()).filter(|key| !key.is_empty())),
        Some(_) => Err(Failure::new("quota_key must be a text")),
    }
}

/// The text with pieces of it replaced.
fn edited(text: &str, mut edits: Vec<(std::ops::Range<usize>, String)>) -> String {
    edits.sort_by_key(|(at, _)| at.start);
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (at, new) in edits {
        // A parameter inside a clause that is taken out goes with it.
        if at.start >= from {
            out.push_str(&text[from..at.start]);
            out.push_str(&new);
            from = at.end;
        }
    }
    out.push_str(&text[from..]);
    out
}

/// The value of a literal of a SETTINGS clause.
fn literal(text: &str) -> Option<String> {
    let Some(inside) = text.strip_prefix('\'') else {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
        return plain.then(|| match text.to_ascii_lowercase().as_str() {
            "true" => "1".to_owned(),
            "false" => "0".to_owned(),
            _ => text.to_owned(),
        });
    };
    let mut out = String::new();
    let mut chars = inside.strip_suffix('\'')?.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                '0' => '\0',
                c => c,
            }),
            '\'' => out.push(chars.next()?),
            c => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::job::{Target, Work};
    use crate::results::Store;

    fn job(query: &str, keep: Keep) -> Job {
        let work = Work {
            query: Some(query.into()),
            secrets: [("key".to_owned(), Secret::new("hunter22"))].into(),
            options: json!({"parameters": {"n": 5, "s": "it's"}}).as_object().cloned().unwrap(),
            ..Work::default()
        };
        let options = json!({"export_credentials": "shared"}).as_object().cloned().unwrap();
        let target = Arc::new(Target { options, ..Target::default() });
        Job { target, task_id: 7, attempt: 2, engine: "e".into(), work, keep, ..Job::default() }
    }

    fn inline() -> Keep {
        Keep::Inline { max_rows: 1, max_bytes: 1 }
    }

    fn export() -> Keep {
        let options = [("endpoint", "http://s3:9100"), ("access_key_id", "AKIA"), ("secret_access_key", "s3cr3t-x")];
        let store = Store {
            name: "r".into(),
            url: "s3://bucket/pre".into(),
            options: options.iter().map(|(k, v)| (k.to_string(), Secret::new(*v))).collect(),
        };
        Keep::Export {
            store: Arc::new(store),
            path: "a/b.csv".into(),
            format: Format::Csv,
            compression: Compression::None,
        }
    }

    fn made(query: &str, keep: Keep) -> Statement {
        of(&job(query, keep), &Settings::new()).unwrap()
    }

    #[test]
    fn parameters_and_secrets_are_bound() {
        let statement = made("select {n:UInt8}, {s:String}, {key:String}, {key:UInt8}, '{n:String}'", Keep::Nothing);
        let hidden = "unhex(getClientHTTPHeader('X-Pgflow-Secret-1'))";
        let text = format!("select {{n:UInt8}}, {{s:String}}, {hidden}, CAST({hidden} AS UInt8), '{{n:String}}'");
        assert_eq!(statement.text, text);
        assert_eq!(statement.parameters["n"].expose(), "5");
        assert_eq!(statement.secrets[0].1.expose(), hex::encode("hunter22"));
        assert_eq!(statement.query_id.as_deref(), Some("pgflow-e-7-2"));
        assert!(!format!("{statement:?}").contains("hunter22"));
    }

    #[test]
    fn secrets_can_be_parameters_where_the_target_says_so() {
        let mut job = job("select {key:String}", Keep::Nothing);
        let options = json!({"secrets": "parameters"}).as_object().cloned().unwrap();
        job.target = Arc::new(Target { options, ..Target::default() });
        let statement = of(&job, &Settings::new()).unwrap();
        assert_eq!(
            (statement.text.as_str(), statement.parameters["key"].expose()),
            ("select {key:String}", "hunter22")
        );
    }

    #[test]
    fn a_format_of_the_user_stays_only_where_nothing_is_kept() {
        assert_eq!(made("select 1 format CSV;", Keep::Nothing).text, "select 1 format CSV");
        let kept = made("select 1 format CSV settings max_threads=1;", inline());
        assert_eq!(kept.text.trim(), "select 1  settings max_threads=1");
        assert_eq!(kept.format, Some("JSONCompactEachRowWithNamesAndTypes"));
        assert_eq!(made("insert into t format CSV\n1;", inline()).text, "insert into t format CSV\n1;");
    }

    #[test]
    fn an_export_wraps_any_select() {
        for query in [
            "select 1 as a",
            "select 1 as a;",
            "select 1 as a -- so",
            "select 1 as a format JSON;",
            "/* x */ select 1 as a settings max_threads = 2, a='it\\'s' format JSON",
            "with 1 as b select b as a ;",
        ] {
            let statement = made(query, export());
            let text = &statement.text;
            let hidden = "unhex(getClientHTTPHeader('X-Pgflow-Secret-1'))";
            assert!(text.starts_with("INSERT INTO FUNCTION s3('http://s3:9100/bucket/pre/a/b.csv', "), "{text}");
            assert!(text.contains(hidden) && !text.contains("s3cr3t") && !text.contains("AKIA"), "{text}");
            assert!(text.ends_with("\n)") && !text.contains(';') && !text.contains("JSON"), "{text}");
            if query.contains("settings") {
                assert_eq!(
                    (statement.settings["max_threads"].as_str(), statement.settings["a"].as_str()),
                    ("2", "it's")
                );
                assert!(!text.contains("settings"), "{text}");
            }
        }
        for query in ["insert into t values (1)", "drop table t"] {
            assert!(of(&job(query, export()), &Settings::new()).is_err(), "{query}");
        }
    }

    #[test]
    fn the_time_limit_is_a_net_unless_the_user_has_one() {
        let net = |query: &str| {
            let mut job = job(query, Keep::Nothing);
            job.time_limit = Some(Duration::from_secs(10));
            of(&job, &Settings::new()).unwrap().wished.get("max_execution_time").cloned()
        };
        assert_eq!(net("select 1").as_deref(), Some("15"));
        assert_eq!(net("select 1 settings max_execution_time = 3"), None);
    }

    #[test]
    fn a_missing_parameter_is_named() {
        let failure = of(&job("select {gone:UInt8}", Keep::Nothing), &Settings::new()).unwrap_err();
        assert!(failure.message.contains("gone"), "{failure}");
        assert!(of(&job(" -- nothing\n", Keep::Nothing), &Settings::new()).is_err());
    }
}
