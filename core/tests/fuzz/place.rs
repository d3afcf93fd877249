//! Follows a fault's JSON path into the document that it speaks of.

use serde_json::Value;

/// How far a path could be followed.
#[derive(Debug, PartialEq)]
pub enum Place {
    /// To its end, or to the object in which the last key is missing.
    Found,
    /// It speaks of what was stored before.
    Stored,
    /// It leads nowhere.
    Lost(String),
}

/// One step of a path.
#[derive(Debug)]
enum Step {
    Key(String),
    /// A key that the path shows shortened or with escapes: any key will do.
    OddKey,
    Index(usize),
}

pub fn place(document: &Value, path: &str) -> Place {
    if path.starts_with("$.nodes[?") {
        return Place::Stored;
    }
    let Some(rest) = path.strip_prefix('$') else { return Place::Lost(format!("{path} does not begin with $")) };
    let Some(steps) = steps(rest) else { return Place::Lost(format!("{path} is no path")) };
    let mut here = document;
    for (n, step) in steps.iter().enumerate() {
        let next = match step {
            Step::Key(key) => here.get(key),
            Step::OddKey => here.as_object().and_then(|object| object.values().next()),
            Step::Index(index) => here.get(index),
        };
        match next {
            Some(found) => here = found,
            None if n + 1 == steps.len() && (here.is_object() || here.is_null()) => return Place::Found,
            None => return Place::Lost(format!("{path}: {step:?} of {here}")),
        }
        if matches!(step, Step::OddKey) {
            return Place::Found;
        }
    }
    Place::Found
}

fn steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            steps.push(Step::Key(after[..end].to_owned()));
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix("[\"") {
            steps.push(Step::OddKey);
            rest = &after[end_of_quoted(after)?..];
        } else {
            let after = rest.strip_prefix('[')?;
            let end = after.find(']')?;
            steps.push(Step::Index(after[..end].parse().ok()?));
            rest = &after[end + 1..];
        }
    }
    Some(steps)
}

/// Behind the `"]` that ends a quoted key.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return text[at + 1..].starts_with(']').then_some(at + 2),
            _ => {}
        }
    }
    None
}
