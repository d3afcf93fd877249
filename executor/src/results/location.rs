//! Where a result's object lies: path templates and extensions. Pure.
//!
//! A value in a path is one segment or a part of one, whatever it holds: it can neither leave its place nor hide. What
//! cannot stand in a path is replaced by `_`, and a digest of the value follows, so that two values never share a path.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::options::check_path;
use super::{Compression, Format};
use crate::job::{Failure, Job};

const DEFAULT: &str = "{task_id}-{attempt}";

/// The longest value in a path, in bytes; longer ones are cut and followed by their digest.
const LONGEST: usize = 100;

enum Piece<'a> {
    Literal(&'a str),
    Name(&'a str),
}

fn pieces(template: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        if at > 0 {
            pieces.push(Piece::Literal(&rest[..at]));
        }
        let inside = &rest[at..];
        let end = inside.find('}').filter(|end| *end > 0).ok_or("a { or } in the path has no partner")?;
        let name = &inside[1..end];
        if name.is_empty() || name.contains('{') {
            return Err("the path must have a name between { and }".into());
        }
        pieces.push(Piece::Name(name));
        rest = &inside[end + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Ok(pieces)
}

/// What is wrong with a template, as far as it can be known before a task runs.
pub(super) fn check_template(template: &str) -> Result<(), String> {
    let sample: String = pieces(template)?
        .iter()
        .map(|piece| match piece {
            Piece::Literal(text) => text,
            Piece::Name(_) => "x",
        })
        .collect();
    check_path(&sample)
}

/// The path of a task's result below its store's prefix, with the extension of its format. `{…}` are: flow, flow_id, node,
/// task_id, attempt, and names of arguments (of the step, else of the flow).
///
/// A template that names neither `task_id` nor something else that differs has each task replace what the one before wrote:
/// then that is what was asked for.
pub fn object_path(
    template: Option<&str>,
    job: &Job,
    format: Format,
    compression: Compression,
) -> Result<String, Failure> {
    let template = template.unwrap_or(DEFAULT);
    let wrong = |message: String| {
        Failure::new(message).detail(format!("The path of the result is configured as {template:?}.")).hint(
            "A path is relative to its store, such as reports/{flow}/{task_id}; it may name flow, flow_id, node, task_id, \
             attempt and arguments.",
        )
    };
    check_template(template).map_err(wrong)?;
    let mut path = String::new();
    for piece in pieces(template).map_err(wrong)? {
        match piece {
            Piece::Literal(text) => path.push_str(text),
            Piece::Name(name) => {
                let value =
                    value(job, name).ok_or_else(|| wrong(format!("there is no argument {name:?} for the path")))?;
                path.push_str(&safe(&value));
            }
        }
    }
    let path = with_extension(path, format, compression);
    check_path(&path).map_err(wrong)?;
    Ok(path)
}

fn value(job: &Job, name: &str) -> Option<String> {
    let arguments = &job.work.arguments;
    Some(match name {
        "flow" => arguments.flow.clone().unwrap_or_default(),
        "flow_id" => arguments.flow_id.map(|id| id.to_string()).unwrap_or_default(),
        "node" => arguments.node.clone().unwrap_or_default(),
        "task_id" => job.task_id.to_string(),
        "attempt" => job.attempt.to_string(),
        argument => match arguments.get(argument)? {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        },
    })
}

/// A value as a part of a path segment.
fn safe(value: &str) -> String {
    if value.is_empty() {
        return "_".into();
    }
    let mut text: String = value
        .chars()
        .enumerate()
        .map(|(at, c)| match c {
            // Not the first: hidden files, and `..`.
            '.' if at > 0 => c,
            '-' | '_' | '=' | '+' | ',' | '@' => c,
            c if c.is_alphanumeric() => c,
            _ => '_',
        })
        .collect();
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    if text != value || text == "_" {
        let digest = Sha256::digest(value.as_bytes());
        text.push('-');
        text.push_str(&hex::encode(&digest[..4]));
    }
    text
}

fn with_extension(mut path: String, format: Format, compression: Compression) -> String {
    let inner = match format {
        Format::Parquet => ".parquet",
        Format::Csv => ".csv",
        Format::Json => ".json",
        Format::Arrow => ".arrow",
    };
    let outer = match (format, compression) {
        (Format::Parquet, _) | (_, Compression::None) => "",
        (_, Compression::Gzip) => ".gz",
        (_, Compression::Zstd) => ".zst",
    };
    let named = |extension: &str| path.rsplit('/').next().is_some_and(|file| file.len() > extension.len());
    let whole = format!("{inner}{outer}");
    if path.ends_with(&whole) && named(&whole) {
        return path;
    }
    let is_inner = path.ends_with(inner) && named(inner);
    path.push_str(if is_inner { outer } else { &whole });
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::{Arguments, Work};

    fn job() -> Job {
        let arguments = Arguments {
            flow_id: Some(7),
            flow: Some("daily/report".into()),
            node: Some("load.users".into()),
            flow_arguments: json!({"day": "2026-11-20", "up": "../../etc", "n": 5, "none": null, "empty": "", "dot": "."}),
            step_arguments: json!({"day": "2026-11-21", "list": [1, "a/b"], "task_id": "evil"}),
        };
        Job { task_id: 42, attempt: 3, work: Work { arguments, ..Work::default() }, ..Job::default() }
    }

    fn path(template: &str) -> String {
        object_path(Some(template), &job(), Format::Csv, Compression::None).unwrap()
    }

    #[test]
    fn templates_are_filled() {
        assert_eq!(object_path(None, &job(), Format::Parquet, Compression::Zstd).unwrap(), "42-3.parquet");
        assert_eq!(path("r/{node}/{flow_id}-{task_id}"), "r/load.users/7-42.csv");
        assert_eq!(path("{day}/{n}"), "2026-11-21/5.csv");
        assert_eq!(path("latest"), "latest.csv");
    }

    #[test]
    fn values_stay_where_they_are_put() {
        assert_eq!(path("{empty}{none}"), "__.csv");
        for template in ["{up}", "{up}/x", "a/{up}", "{dot}{dot}/x", "{list}", "{flow}", "x/{dot}"] {
            let path = path(template);
            assert_eq!(path.matches('/').count(), template.matches('/').count(), "{path}");
            assert!(path.split('/').all(|segment| !segment.starts_with('.')), "{path}");
        }
        assert_eq!(safe("daily/report"), "daily_report-06fa923c");
        assert_ne!(safe("a/b"), safe("a:b"));
        assert_ne!(safe("_"), safe(""));
        assert_eq!(safe("Bücher"), "Bücher");
        for odd in ["\0", "a\nb", "%2e%2e", "..\\..", "a#1", "{x}", "*", "\u{202e}x", &"ü".repeat(500)] {
            let text = safe(odd);
            assert!(text.len() <= LONGEST + 9 && check_path(&text).is_ok(), "{odd:?}: {text}");
        }
    }

    #[test]
    fn templates_that_lead_elsewhere_are_refused() {
        for wrong in
            ["", "/etc/x", "../x", "a/../b", "a//b", "a/", "{", "}", "{}", "a{b", "a}b", "{a{b}}", "a\0", "%2e", "x*"]
        {
            assert!(check_template(wrong).is_err(), "{wrong}");
            assert!(object_path(Some(wrong), &job(), Format::Csv, Compression::None).is_err(), "{wrong}");
        }
        for fine in ["{any}/x", "reports/{flow}/{task_id}.csv", "a b/c"] {
            assert_eq!(check_template(fine), Ok(()), "{fine}");
        }
        let missing = object_path(Some("{nothing}"), &job(), Format::Csv, Compression::None).unwrap_err();
        assert_eq!(missing.message, "there is no argument \"nothing\" for the path");
    }

    #[test]
    fn extensions_are_appended_unless_they_are_there() {
        let of = |path: &str, format, compression| with_extension(path.into(), format, compression);
        for (path, format, compression, expected) in [
            ("a", Format::Parquet, Compression::Gzip, "a.parquet"),
            ("a", Format::Csv, Compression::Gzip, "a.csv.gz"),
            ("a.csv", Format::Csv, Compression::Gzip, "a.csv.gz"),
            ("a.csv.gz", Format::Csv, Compression::Gzip, "a.csv.gz"),
            ("a.json", Format::Csv, Compression::None, "a.json.csv"),
            ("a", Format::Json, Compression::Zstd, "a.json.zst"),
            ("x/.arrow", Format::Arrow, Compression::None, "x/.arrow.arrow"),
        ] {
            assert_eq!(of(path, format, compression), expected);
        }
    }
}
