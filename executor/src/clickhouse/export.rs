//! Results that ClickHouse writes into the object store itself: `INSERT INTO FUNCTION s3(…) SELECT * FROM (…)`.
//!
//! Credentials must never stand in the text, since ClickHouse keeps it in logs: they come from a named collection of that
//! server (`named_collection` among the target's or the store's options). Only where an administrator has said
//! `"export_credentials": "shared"` among the target's options they are the store's, sent as headers that the statement reads
//! (`query::Statement::hide`). The user's own query is part of that statement and can read the headers too: whoever may run
//! queries on such a target can read these keys.

use serde_json::Value;

use super::parameters::quoted;
use super::query::{format_name, Statement};
use crate::job::{Done, Ending, Failure, Job, Secret};
use crate::results::{self, Compression, Format, Keep, Kept, Store};

/// The target's option that shares the keys of stores with whoever runs queries on it, and its only value.
pub const CREDENTIALS: &str = "export_credentials";
pub const SHARED: &str = "shared";

/// Makes an INSERT of a statement that returns rows.
pub fn wrap(job: &Job, statement: &mut Statement) -> Result<(), Failure> {
    let Keep::Export { store, path, format, compression } = &job.keep else { return Ok(()) };
    let url = quoted(&object_url(store, path)?);
    let compression = match (format, compression) {
        // Its compression is inside: a setting.
        (Format::Parquet, _) | (_, Compression::None) => "none",
        (_, Compression::Gzip) => "gzip",
        (_, Compression::Zstd) => "zstd",
    };
    let format = format_name(*format);
    let function = match collection(job, store)? {
        Some(name) => format!("s3({name}, url = {url}, format = '{format}', compression_method = '{compression}')"),
        None if !shares_credentials(job) => {
            return Err(Failure::new(format!("target {} may not be given the keys of store {}", job.target.name, store.name))
                .detail("They would go with the query, which can read them: whoever may run queries there would have them.")
                .hint(
                    "Name a named collection of the ClickHouse server that has the keys: \"named_collection\" in the \
                     options of the target or the store. Or, if everybody who may run queries on the target may know the \
                     keys, set \"export_credentials\": \"shared\" in the target's options.",
                ));
        }
        None => {
            let missing = |what: &str| {
                Failure::new(format!("store {} has no {what} that ClickHouse could write with", store.name)).hint(
                    "Give the store's server a user mapping with access_key_id and secret_access_key, or name a named \
                     collection of the ClickHouse server: \"named_collection\" in the target's options.",
                )
            };
            let key = option(store, "access_key_id").ok_or_else(|| missing("access_key_id"))?;
            let secret = option(store, "secret_access_key").ok_or_else(|| missing("secret_access_key"))?;
            let mut arguments = vec![url, statement.hide(key), statement.hide(secret)];
            if let Some(token) = option(store, "session_token").or_else(|| option(store, "token")) {
                arguments.push(statement.hide(token));
            }
            arguments.extend([format!("'{format}'"), "'auto'".into(), format!("'{compression}'")]);
            format!("s3({})", arguments.join(", "))
        }
    };
    // The line breaks keep a comment at the end of the query from swallowing the bracket.
    statement.text = format!("INSERT INTO FUNCTION {function}\nSELECT * FROM (\n{}\n)", statement.text.trim());
    statement.format = None;
    Ok(())
}

/// What was kept, as far as ClickHouse told it.
pub fn kept(job: &Job, rows: Option<u64>) -> Option<Kept> {
    let Keep::Export { store, path, format, compression } = &job.keep else { return None };
    Some(Kept {
        location: Some(format!("{}/{path}", store.url.trim_end_matches('/'))),
        format: Some(*format),
        compression: *compression,
        rows,
        ..Kept::default()
    })
}

/// Adds the object's size, which ClickHouse does not tell; if the store does not either it is not known.
pub async fn sized(job: &Job, mut ending: Ending) -> Ending {
    if let (Keep::Export { store, path, .. }, Ending::Finished(Done { kept: Some(kept), .. })) =
        (&job.keep, &mut ending)
    {
        kept.bytes = results::size(store, path).await.ok().flatten();
    }
    ending
}

/// Whether a query that ClickHouse shows writes the object of this job.
pub fn writes(job: &Job, shown: &str) -> bool {
    let Keep::Export { store, path, .. } = &job.keep else { return false };
    object_url(store, path).is_ok_and(|url| shown.contains(&quoted(&url)))
}

/// The object as ClickHouse reaches it: endpoint, bucket and path.
fn object_url(store: &Store, path: &str) -> Result<String, Failure> {
    let Some(place) = store.url.strip_prefix("s3://") else {
        return Err(Failure::new(format!("ClickHouse cannot export into store {}", store.name))
            .detail("Exports go into stores whose URL begins with s3://.")
            .hint("Use \"to\": \"object\": pgflow then writes the object itself."));
    };
    // ClickHouse reads these as patterns, or as the end of the path.
    if let Some(c) = place.chars().chain(path.chars()).find(|c| "*?{}#%[]".contains(*c)) {
        return Err(Failure::new(format!("an export cannot have {c} in its path"))
            .hint("Use \"to\": \"object\", or another path."));
    }
    let region =
        option(store, "region").or_else(|| option(store, "default_region")).map_or("us-east-1", Secret::expose);
    let endpoint = match option(store, "endpoint").or_else(|| option(store, "endpoint_url")) {
        Some(endpoint) => endpoint.expose().trim_end_matches('/').to_owned(),
        None => format!("https://s3.{region}.amazonaws.com"),
    };
    let parts = [endpoint.as_str(), place.trim_matches('/'), path.trim_start_matches('/')];
    Ok(parts.iter().filter(|part| !part.is_empty()).map(|part| (*part).to_owned()).collect::<Vec<_>>().join("/"))
}

/// An option of the store, with or without the prefix `aws_`.
fn option<'a>(store: &'a Store, name: &str) -> Option<&'a Secret> {
    let found = store.options.iter().find(|(key, _)| {
        let key = key.to_ascii_lowercase();
        key.strip_prefix("aws_").unwrap_or(&key) == name
    });
    found.map(|(_, value)| value).filter(|value| !value.expose().is_empty())
}

/// Whether the store's keys may go where the user's query can read them. Only an administrator configures targets.
fn shares_credentials(job: &Job) -> bool {
    job.target.options.get(CREDENTIALS).and_then(Value::as_str) == Some(SHARED)
}

/// The named collection to use, as an identifier.
fn collection(job: &Job, store: &Store) -> Result<Option<String>, Failure> {
    let name = match job.target.options.get("named_collection") {
        Some(Value::String(name)) => Some(name.clone()),
        _ => option(store, "named_collection").map(|name| name.expose().to_owned()),
    };
    match name.filter(|name| !name.is_empty()) {
        Some(name) if is_identifier(&name) => Ok(Some(name)),
        Some(_) => Err(Failure::new("named_collection must be the name of a named collection: letters, digits, _")),
        None => Ok(None),
    }
}

pub fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::job::Target;

    fn store(url: &str, options: &[(&str, &str)]) -> Store {
        let options = options.iter().map(|(k, v)| (k.to_string(), Secret::new(*v))).collect();
        Store { name: "r".into(), url: url.into(), options }
    }

    fn job(store: Store, target: Target) -> Job {
        let keep = Keep::Export {
            store: Arc::new(store),
            path: "x/1-1.parquet".into(),
            format: Format::Parquet,
            compression: Compression::Zstd,
        };
        Job { keep, target: Arc::new(target), ..Job::default() }
    }

    #[test]
    fn the_object_is_addressed_by_path() {
        let at = |url: &str, options: &[(&str, &str)]| object_url(&store(url, options), "a/b.csv");
        let minio = at("s3://bucket/prefix/", &[("aws_endpoint", "http://minio:9000/")]).unwrap();
        assert_eq!(minio, "http://minio:9000/bucket/prefix/a/b.csv");
        let aws = at("s3://bucket", &[("region", "eu-west-1")]).unwrap();
        assert_eq!(aws, "https://s3.eu-west-1.amazonaws.com/bucket/a/b.csv");
        assert!(at("file:///tmp", &[]).is_err());
        assert!(at("s3://bucket/a*", &[]).is_err());
    }

    #[test]
    fn a_named_collection_needs_no_credentials() {
        let options = serde_json::json!({"named_collection": "minio"}).as_object().cloned().unwrap();
        let target = Target { options, ..Target::default() };
        let mut statement = Statement::own("select 1");
        wrap(&job(store("s3://b", &[("endpoint", "http://e:1")]), target), &mut statement).unwrap();
        let text = "INSERT INTO FUNCTION s3(minio, url = 'http://e:1/b/x/1-1.parquet', format = 'Parquet', \
                    compression_method = 'none')\nSELECT * FROM (\nselect 1\n)";
        assert_eq!(statement.text, text);
        assert!(statement.secrets.is_empty());
    }

    fn sharing(value: &str) -> Target {
        let options = serde_json::json!({"export_credentials": value}).as_object().cloned().unwrap();
        Target { options, ..Target::default() }
    }

    #[test]
    fn without_credentials_nothing_is_written() {
        let mut statement = Statement::own("select 1");
        let failure = wrap(&job(store("s3://b", &[]), sharing("shared")), &mut statement).unwrap_err();
        assert!(failure.message.contains("access_key_id"), "{failure}");
    }

    #[test]
    fn credentials_go_only_where_they_are_shared() {
        let keys = [("access_key_id", "AKIA"), ("secret_access_key", "s3cr3t-x"), ("endpoint", "http://e:1")];
        for target in [Target::default(), sharing("no")] {
            let mut job = job(store("s3://b", &keys), target);
            // What the user may say changes nothing.
            job.work.options = sharing("shared").options;
            let mut statement = Statement::own("select 1");
            let hint = wrap(&job, &mut statement).unwrap_err().hint.unwrap();
            assert!(hint.contains("named_collection") && hint.contains("\"export_credentials\": \"shared\""), "{hint}");
            assert!(statement.secrets.is_empty() && statement.text == "select 1", "{statement:?}");
        }
        let mut statement = Statement::own("select 1");
        wrap(&job(store("s3://b", &keys), sharing("shared")), &mut statement).unwrap();
        assert_eq!(statement.secrets.len(), 2);
        // A collection needs no leave.
        let mut statement = Statement::own("select 1");
        let store = store("s3://b", &[&keys[..], &[("named_collection", "minio")]].concat());
        wrap(&job(store, Target::default()), &mut statement).unwrap();
        assert!(statement.secrets.is_empty() && statement.text.contains("s3(minio, "), "{statement:?}");
    }

    #[test]
    fn the_object_of_a_running_query_is_recognised() {
        let job = job(store("s3://b", &[("endpoint", "http://e:1")]), Target::default());
        assert!(writes(&job, "INSERT INTO FUNCTION s3('http://e:1/b/x/1-1.parquet', '[HIDDEN]') SELECT 1"));
        assert!(!writes(&job, "INSERT INTO FUNCTION s3('http://e:1/b/x/1-2.parquet', '[HIDDEN]') SELECT 1"));
    }
}
