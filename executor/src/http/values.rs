//! Values by name for one job: in its URL, its headers and its body.
//!
//! Must never let an argument change more than its own place, nor put a secret into a URL.

use std::collections::BTreeMap;

use serde_json::{json, Map, Value};
use url::Url;

use super::request::Request;
use super::settings::Settings;
use super::template::{encoded, Piece, Template};
use crate::job::{Failure, Job, Secret};

/// Looks names up for one job.
pub struct Values<'a> {
    pub job: &'a Job,
}

impl Values<'_> {
    /// An argument, else what the engine knows of the task.
    fn get(&self, name: &str) -> Option<Value> {
        let arguments = &self.job.work.arguments;
        arguments.get(name).cloned().or_else(|| match name {
            "flow_id" => arguments.flow_id.map(Value::from),
            "flow" => arguments.flow.clone().map(Value::from),
            "node" => arguments.node.clone().map(Value::from),
            "task_id" => Some(Value::from(self.job.task_id)),
            "attempt" => Some(Value::from(self.job.attempt)),
            _ => None,
        })
    }

    /// The whole of the callback's arguments.
    pub fn arguments(&self) -> Value {
        let arguments = &self.job.work.arguments;
        json!({
            "flow_id": arguments.flow_id,
            "flow": arguments.flow,
            "flow_arguments": arguments.flow_arguments,
            "node": arguments.node,
            "step_arguments": arguments.step_arguments,
            "task_id": self.job.task_id,
        })
    }

    pub fn url(&self, request: &Request, settings: &Settings) -> Result<Url, Failure> {
        let mut url = settings.base.clone();
        let path = self.path(&request.path)?;
        if !path.is_empty() {
            let base = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("{base}{path}"));
        }
        for (name, template) in &request.query {
            let mut text = String::new();
            for piece in &template.0 {
                match piece {
                    Piece::Text(t) => text.push_str(t),
                    Piece::Argument(argument) => text.push_str(&self.plain(argument, &format!("query {name}"))?),
                    Piece::Secret(_) => return Err(Failure::new("a secret does not belong into a URL")),
                }
            }
            url.query_pairs_mut().append_pair(name, &text);
        }
        Ok(url)
    }

    fn path(&self, template: &Template) -> Result<String, Failure> {
        let mut path = String::new();
        for piece in &template.0 {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Argument(name) => {
                    let text = self.plain(name, "the path")?;
                    if text.is_empty() {
                        return Err(Failure::new(format!("the argument {name} of the path is empty"))
                            .hint("The request would go to another resource than the one that is meant."));
                    }
                    path.push_str(&encoded(&text));
                }
                Piece::Secret(_) => return Err(Failure::new("a secret does not belong into a URL")),
            }
        }
        // URLs take such a segment, however it is written, as a step up: to what nobody has named.
        let dots = |segment: &str| {
            let segment = segment.to_ascii_lowercase().replace("%2e", ".");
            segment == "." || segment == ".."
        };
        if path.split('/').any(dots) {
            return Err(Failure::new("the path has a segment . or .., which would lead elsewhere"));
        }
        Ok(path)
    }

    /// An argument as a text.
    fn plain(&self, name: &str, place: &str) -> Result<String, Failure> {
        match self.get(name) {
            Some(Value::String(text)) => Ok(text),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            None | Some(Value::Null) => {
                Err(Failure::new(format!("there is no argument {name}, which {place} refers to"))
                    .hint("Give it in the step's or the flow's arguments."))
            }
            Some(_) => {
                Err(Failure::new(format!("the argument {name}, which {place} refers to, is an array or object"))
                    .hint("Only texts, numbers, true and false can be part of a URL or header."))
            }
        }
    }

    /// A header's value.
    pub fn text(
        &self,
        template: &Template,
        secrets: &BTreeMap<String, Secret>,
        header: &str,
    ) -> Result<String, Failure> {
        let mut text = String::new();
        for piece in &template.0 {
            match piece {
                Piece::Text(t) => text.push_str(t),
                Piece::Argument(name) => text.push_str(&self.plain(name, &format!("header {header}"))?),
                Piece::Secret(name) => match secrets.get(name) {
                    Some(secret) => text.push_str(secret.expose()),
                    None => return Err(Failure::new(format!("there is no {name}, which header {header} refers to"))
                        .hint(
                        "In a target's headers it is an option of the foreign server or of the user mapping of the \
                             task's role; in a request's headers one of the task's secrets.",
                    )),
                },
            }
        }
        Ok(text)
    }

    /// `"$name"` is the value of that name, `"$$…"` a text that begins with `$`. `secret` is set if one was put in.
    pub fn body(&self, body: &Value, secret: &mut bool) -> Result<Value, Failure> {
        Ok(match body {
            Value::String(text) => match reference(text) {
                Reference::None => body.clone(),
                Reference::Literal(text) => Value::from(text),
                Reference::To(name) => {
                    if let Some(found) = self.job.work.secrets.get(name) {
                        *secret = true;
                        Value::from(found.expose())
                    } else {
                        self.get(name).ok_or_else(|| {
                            Failure::new(format!("there is no argument {name}, which the body refers to"))
                                .hint("Give it in the step's or the flow's arguments; \"$$name\" is the text $name.")
                        })?
                    }
                }
            },
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.body(item, secret)).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let mut resolved = Map::new();
                for (key, value) in fields {
                    resolved.insert(key.clone(), self.body(value, secret)?);
                }
                Value::Object(resolved)
            }
            _ => body.clone(),
        })
    }
}

enum Reference<'a> {
    None,
    Literal(&'a str),
    To(&'a str),
}

/// `$5.00` and `$a and b` are texts as they stand.
fn reference(text: &str) -> Reference<'_> {
    let Some(rest) = text.strip_prefix('$') else { return Reference::None };
    if rest.starts_with('$') {
        return Reference::Literal(rest);
    }
    let first = rest.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
    if first && rest.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        Reference::To(rest)
    } else {
        Reference::None
    }
}
