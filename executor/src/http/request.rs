//! What a node or task says under `request`, and the request that comes of it.
//!
//! Must never send what was not checked, nor hand anything that may be a secret to another host than the target's: what
//! belongs to the target only is kept apart from the start.

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, CONTENT_TYPE, USER_AGENT};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use super::settings::{header, Settings};
use super::template::{Piece, Takes, Template};
use super::values::Values;
use crate::job::{Failure, Job};
use crate::kind::Fault;

/// The secret that the engine knows an asynchronous request's receiver by.
const CALLBACK_TOKEN: &str = "callback_token";

/// `request`, checked.
pub struct Request {
    method: Method,
    pub path: Template,
    pub query: Vec<(String, Template)>,
    headers: Vec<(HeaderName, Template)>,
    body: Body,
    pub expect: Vec<Expect>,
    pub asynchronous: bool,
}

enum Body {
    None,
    Arguments,
    Given(Value),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    Status(u16),
    /// `2xx`: its first digit.
    Class(u16),
}

impl Request {
    /// All faults of a task's options at once, or the request.
    pub fn of(options: &Map<String, Value>) -> Result<Request, Vec<Fault>> {
        let mut faults = Vec::new();
        for key in options.keys().filter(|key| !["request", "result"].contains(&key.as_str())) {
            faults.push(Fault::new(format!(".{key}"), "means nothing to a target of kind http"));
        }
        let result = options.get("result");
        if result.and_then(|r| r.as_str().or_else(|| r.get("to")?.as_str())) == Some("export") {
            faults.push(Fault::new(".result.to", "a target of kind http cannot export: use object"));
        }
        let request = match options.get("request") {
            Some(Value::Object(request)) => request,
            Some(_) => return Err(with(faults, Fault::new(".request", "must be an object"))),
            None => {
                return Err(with(faults, Fault::new(".request", "is missing; {} posts the arguments to the target")))
            }
        };
        let found = Parser { request, faults: &mut faults }.request();
        if faults.is_empty() {
            Ok(found)
        } else {
            Err(faults)
        }
    }

    pub fn expects(&self, status: StatusCode) -> bool {
        self.expect.iter().any(|expect| match expect {
            Expect::Status(number) => status.as_u16() == *number,
            Expect::Class(digit) => status.as_u16() / 100 == *digit,
        })
    }
}

fn with(mut faults: Vec<Fault>, fault: Fault) -> Vec<Fault> {
    faults.push(fault);
    faults
}

struct Parser<'a> {
    request: &'a Map<String, Value>,
    faults: &'a mut Vec<Fault>,
}

impl Parser<'_> {
    fn fault(&mut self, key: &str, message: impl Into<String>) {
        self.faults.push(Fault::new(format!(".request.{key}"), message));
    }

    fn request(mut self) -> Request {
        const KEYS: [&str; 8] =
            ["method", "path", "query", "headers", "body", "expect", "asynchronous", "max_attempts"];
        for key in self.request.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            self.fault(key, format!("unknown key; known are: {}", KEYS.join(", ")));
        }
        if self.request.get("max_attempts").is_some_and(|n| n.as_u64().is_none_or(|n| n == 0)) {
            self.fault("max_attempts", "must be a whole number above 0");
        }
        let asynchronous = match self.request.get("asynchronous") {
            None => false,
            Some(Value::Bool(asynchronous)) => *asynchronous,
            Some(_) => {
                self.fault("asynchronous", "must be true or false");
                false
            }
        };
        let method = self.method();
        let body = match self.request.get("body") {
            Some(Value::Null) => Body::None,
            Some(body) => Body::Given(body.clone()),
            None if [Method::POST, Method::PUT, Method::PATCH].contains(&method) => Body::Arguments,
            None => Body::None,
        };
        let path = self.path();
        let query = self.query();
        let headers = self.headers();
        let expect = self.expect();
        Request { method, path, query, headers, body, expect, asynchronous }
    }

    fn method(&mut self) -> Method {
        match self.request.get("method").map(Value::as_str) {
            None => Method::POST,
            Some(Some("GET")) => Method::GET,
            Some(Some("HEAD")) => Method::HEAD,
            Some(Some("POST")) => Method::POST,
            Some(Some("PUT")) => Method::PUT,
            Some(Some("PATCH")) => Method::PATCH,
            Some(Some("DELETE")) => Method::DELETE,
            Some(Some("OPTIONS")) => Method::OPTIONS,
            Some(_) => {
                self.fault("method", "must be GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS");
                Method::POST
            }
        }
    }

    fn path(&mut self) -> Template {
        let message = match self.request.get("path").map(Value::as_str) {
            None => return Template::default(),
            Some(None) => "must be a text".to_owned(),
            Some(Some(text)) if !text.is_empty() && !text.starts_with('/') => "must begin with /".to_owned(),
            Some(Some(text)) if text.contains(['?', '#', '\\']) || text.chars().any(char::is_control) => {
                "must not hold ?, # and \\; what follows a ? is the query".to_owned()
            }
            Some(Some(text)) => match Template::parse(text, Takes::Arguments) {
                Ok(path) => return path,
                Err(message) => message,
            },
        };
        self.fault("path", message);
        Template::default()
    }

    fn query(&mut self) -> Vec<(String, Template)> {
        let mut found = Vec::new();
        let Some(query) = self.request.get("query") else { return found };
        let Some(query) = query.as_object() else {
            self.fault("query", "must be an object: name → value");
            return found;
        };
        for (name, value) in query {
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                let text = match value {
                    Value::String(text) => Template::parse(text, Takes::Arguments),
                    Value::Number(_) | Value::Bool(_) => Ok(Template(vec![Piece::Text(value.to_string())])),
                    _ => Err("must be a text, a number, true or false, or an array of these".into()),
                };
                match text {
                    Ok(text) => found.push((name.clone(), text)),
                    Err(message) => self.fault(&format!("query.{name}"), message),
                }
            }
        }
        found
    }

    fn headers(&mut self) -> Vec<(HeaderName, Template)> {
        let mut found: Vec<(HeaderName, Template)> = Vec::new();
        let Some(headers) = self.request.get("headers") else { return found };
        let Some(headers) = headers.as_object() else {
            self.fault("headers", "must be an object: name → text");
            return found;
        };
        for (name, value) in headers {
            match header(name, value, Takes::Both) {
                Ok((name, _)) if found.iter().any(|(other, _)| *other == name) => {
                    self.fault(&format!("headers.{name}"), "is there twice");
                }
                Ok(header) => found.push(header),
                Err(message) => self.fault(&format!("headers.{name}"), message),
            }
        }
        found
    }

    fn expect(&mut self) -> Vec<Expect> {
        let Some(expect) = self.request.get("expect") else { return vec![Expect::Class(2)] };
        let list = expect.as_array().map(Vec::as_slice).unwrap_or_default();
        let found: Option<Vec<Expect>> = list.iter().map(expected).collect();
        match found {
            Some(found) if !found.is_empty() => found,
            _ => {
                self.fault("expect", "must be an array of statuses from 200 to 599, or of \"2xx\" and the like");
                Vec::new()
            }
        }
    }
}

fn expected(value: &Value) -> Option<Expect> {
    if let Some(text) = value.as_str() {
        let digit = text.strip_suffix("xx")?.parse().ok()?;
        return (2..=5).contains(&digit).then_some(Expect::Class(digit));
    }
    let status = u16::try_from(value.as_u64()?).ok()?;
    (200..600).contains(&status).then_some(Expect::Status(status))
}

/// A request that is ready to be sent.
pub struct Prepared {
    pub method: Method,
    pub url: Url,
    /// For whoever the request ends up with.
    pub headers: HeaderMap,
    /// For the host of the target only.
    pub own_headers: HeaderMap,
    pub body: Option<Bytes>,
    /// The body holds a secret: not for another host.
    pub own_body: bool,
    /// Texts that no message may hold.
    pub masks: Vec<String>,
}

impl Prepared {
    pub fn of(request: &Request, settings: &Settings, job: &Job) -> Result<Prepared, Failure> {
        let values = Values { job };
        let url = values.url(request, settings)?;
        let mut prepared = Prepared {
            method: request.method.clone(),
            url,
            headers: HeaderMap::new(),
            own_headers: HeaderMap::new(),
            body: None,
            own_body: false,
            masks: Vec::new(),
        };
        prepared.set_body(request, &values)?;
        prepared.set_headers(request, settings, &values)?;
        prepared.masks.extend(job.work.secrets.values().map(|secret| secret.expose().to_owned()));
        let parameters = settings.base.query_pairs().filter(|(name, _)| sounds_secret(name));
        prepared.masks.extend(parameters.map(|(_, value)| value.into_owned()));
        if let Some((_, password)) = &settings.user {
            prepared.masks.push(password.expose().to_owned());
        }
        Ok(prepared)
    }

    fn set_body(&mut self, request: &Request, values: &Values<'_>) -> Result<(), Failure> {
        let body = match &request.body {
            Body::None => return Ok(()),
            Body::Arguments => values.arguments(),
            Body::Given(body) => values.body(body, &mut self.own_body)?,
        };
        self.body = Some(Bytes::from(body.to_string()));
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(())
    }

    fn set_headers(&mut self, request: &Request, settings: &Settings, values: &Values<'_>) -> Result<(), Failure> {
        let job = values.job;
        self.headers.insert(USER_AGENT, HeaderValue::from_static(concat!("pgflow/", env!("CARGO_PKG_VERSION"))));
        for (name, template) in &request.headers {
            let text = values.text(template, &job.work.secrets, name.as_str())?;
            let value = header_value(name, &text, template.has_secret() || sounds_secret(name.as_str()))?;
            self.mask_literal(name, &text);
            let public = [CONTENT_TYPE, USER_AGENT, reqwest::header::ACCEPT].contains(name) && !template.has_secret();
            if public {
                self.headers.insert(name.clone(), value);
            } else {
                self.own_headers.insert(name.clone(), value);
            }
        }
        for (name, template) in &settings.headers {
            if request.headers.iter().any(|(other, _)| other == name) {
                return Err(Failure::new(format!("the request sets the header {name}, which the target sets"))
                    .hint("Take it out of the request; an administrator may take it out of the target's headers."));
            }
            let text = values.text(template, &job.target.connection_options, name.as_str())?;
            self.own_headers.insert(name.clone(), header_value(name, &text, true)?);
            self.mask_header(name, template, &text, job);
        }
        self.headers.insert("idempotency-key", header_value_of(&job.intention_key())?);
        self.headers.insert("x-pgflow-task", HeaderValue::from(job.task_id));
        self.headers.insert("x-pgflow-attempt", HeaderValue::from(job.attempt));
        let token = job.work.secrets.get(CALLBACK_TOKEN).filter(|_| request.asynchronous);
        if let Some(token) = token {
            let name = HeaderName::from_static("x-pgflow-callback-token");
            let value = header_value(&name, token.expose(), true)?;
            self.own_headers.insert(name, value);
        }
        Ok(())
    }

    /// A header of the target is masked where it refers to connection options or carries a credential by its name.
    fn mask_header(&mut self, name: &HeaderName, template: &Template, text: &str, job: &Job) {
        for piece in &template.0 {
            if let Piece::Secret(secret) = piece {
                self.masks.extend(job.target.connection_options.get(secret).map(|s| s.expose().to_owned()));
            }
        }
        self.mask_literal(name, text);
    }

    fn mask_literal(&mut self, name: &HeaderName, text: &str) {
        if sounds_secret(name.as_str()) {
            self.masks.push(text.to_owned());
            // `Bearer abc`: the part that counts.
            self.masks.extend(text.split_once(' ').map(|(_, rest)| rest.trim().to_owned()));
        }
    }
}

/// Whether a header or a parameter of a URL holds a credential, by its name.
fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    crate::job::is_credential(&name) || ["key", "cookie", "auth", "sig", "code"].iter().any(|word| name.contains(word))
}

fn header_value(name: &HeaderName, text: &str, sensitive: bool) -> Result<HeaderValue, Failure> {
    let mut value = header_value_of(text)
        .map_err(|failure| Failure { message: format!("header {name}: {}", failure.message), ..failure })?;
    value.set_sensitive(sensitive);
    Ok(value)
}

fn header_value_of(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| Failure::new("its value holds a line break or another character that no header can have"))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
