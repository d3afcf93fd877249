//! Requests as they are put together: what goes where, and what an argument must not reach.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::job::{Arguments, Secret, Target, Work};

/// A job with arguments to refer to.
fn job(target: Value, request: Value) -> Job {
    let mut secrets = BTreeMap::new();
    secrets.insert("token".to_owned(), Secret::new("task-secret"));
    secrets.insert(CALLBACK_TOKEN.to_owned(), Secret::new("callback-secret"));
    let mut connection_options = BTreeMap::new();
    connection_options.insert("key".to_owned(), Secret::new("target-secret"));
    let options = json!({ "request": request });
    Job {
        task_id: 7,
        attempt: 2,
        engine: "e".into(),
        target: Arc::new(Target {
            connection_options,
            options: target.as_object().cloned().unwrap_or_default(),
            ..Target::default()
        }),
        work: Work {
            arguments: Arguments {
                flow_id: Some(42),
                flow: Some("f".into()),
                flow_arguments: json!({"id": "of the flow", "day": "2026-11-20", "list": [1], "token": "plain"}),
                node: Some("n".into()),
                step_arguments: json!({
                    "id": "a/b", "up": "..", "none": "", "evil": "x\r\nX-Evil: 1", "query": "a&b=c", "null": null, "n": 5
                }),
            },
            options: options.as_object().cloned().unwrap_or_default(),
            secrets,
            ..Work::default()
        },
        ..Job::default()
    }
}

fn prepare(target: Value, request: Value) -> Result<Prepared, Failure> {
    let job = job(target, request);
    let settings = Settings::of(&job.target).map_err(|f| Failure::new(format!("{f:?}")))?;
    let request = Request::of(&job.work.options).map_err(|f| Failure::new(format!("{f:?}")))?;
    Prepared::of(&request, &settings, &job)
}

fn base() -> Value {
    json!({"base_url": "https://example.com/api/"})
}

fn faults(options: Value) -> Vec<String> {
    let faults = Request::of(options.as_object().unwrap()).err().unwrap_or_default();
    faults.into_iter().map(|f| format!("{} {}", f.path, f.message)).collect()
}

#[test]
fn paths_and_queries_take_arguments_encoded() {
    let request = json!({"method": "GET", "path": "/jobs/{id}/{n}/{flow_id}", "query": {"q": "{query}", "k": ["1", 2], "é": "{day}"}});
    let prepared = prepare(base(), request).unwrap();
    assert_eq!(prepared.url.as_str(), "https://example.com/api/jobs/a%2Fb/5/42?q=a%26b%3Dc&k=1&k=2&%C3%A9=2026-11-20");
    assert!(prepared.body.is_none());
    let prepared = prepare(json!({"base_url": "https://example.com/x?v=1"}), json!({"query": {"a": true}})).unwrap();
    assert_eq!(prepared.url.as_str(), "https://example.com/x?v=1&a=true");
}

#[test]
fn an_argument_does_not_change_the_path_around_it() {
    for (path, part) in [
        ("/jobs/{up}", "segment . or .."),
        ("/jobs/.{up}", ""),
        ("/jobs/%2e{none}", "empty"),
        ("/jobs/{none}", "empty"),
        ("/jobs/{missing}", "no argument missing"),
        ("/jobs/{null}", "no argument null"),
        ("/jobs/{list}", "array or object"),
        ("/jobs/../admin", "segment . or .."),
        ("/jobs/%2E%2e/admin", "segment . or .."),
    ] {
        match prepare(base(), json!({ "path": path })) {
            Err(failure) => assert!(!part.is_empty() && failure.message.contains(part), "{path}: {failure}"),
            Ok(prepared) => assert!(part.is_empty(), "{path}: {}", prepared.url),
        }
    }
    let prepared = prepare(base(), json!({"path": "//evil.example/{id}"})).unwrap();
    assert_eq!(prepared.url.host_str(), Some("example.com"));
}

#[test]
fn headers_carry_references_and_no_line_breaks() {
    let target =
        json!({"base_url": "https://example.com", "headers": {"Authorization": "Bearer ${key}", "X-Braces": "{}"}});
    let request =
        json!({"headers": {"X-Day": "{day}", "X-Token": "${token}", "Accept": "text/csv"}, "asynchronous": true});
    let prepared = prepare(target.clone(), request).unwrap();
    let own = |name: &str| prepared.own_headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let open = |name: &str| prepared.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(own("authorization"), "Bearer target-secret");
    assert_eq!(own("x-braces"), "{}");
    assert_eq!((own("x-day"), own("x-token")), ("2026-11-20".into(), "task-secret".into()));
    assert_eq!(own("x-pgflow-callback-token"), "callback-secret");
    assert_eq!(open("idempotency-key"), "pgflow-e-7-0");
    assert_eq!((open("x-pgflow-task"), open("x-pgflow-attempt")), ("7".into(), "2".into()));
    assert_eq!(open("accept"), "text/csv");
    assert!(open("user-agent").starts_with("pgflow/"));
    assert!(!format!("{:?}", prepared.own_headers).contains("secret"));

    let failure = prepare(target.clone(), json!({"headers": {"X-A": "{evil}"}})).err().unwrap();
    assert!(failure.message.contains("x-a") && !failure.to_string().contains("X-Evil"), "{failure}");
    let failure = prepare(target.clone(), json!({"headers": {"authorization": "mine"}})).err().unwrap();
    assert!(failure.message.contains("which the target sets"), "{failure}");
    let failure = prepare(target, json!({"headers": {"X-A": "${key}"}})).err().unwrap();
    assert!(failure.message.contains("there is no key"), "a request does not see the target's secrets: {failure}");
}

#[test]
fn without_asynchronous_there_is_no_token() {
    let prepared = prepare(base(), json!({})).unwrap();
    assert!(!prepared.own_headers.contains_key("x-pgflow-callback-token"));
}

fn body(request: Value) -> (Value, bool) {
    let prepared = prepare(base(), request).unwrap();
    (serde_json::from_slice(&prepared.body.unwrap()).unwrap(), prepared.own_body)
}

#[test]
fn bodies_take_values_whole() {
    let request = json!({"body": {"a": "$id", "b": ["$list", "$n"], "$id": "$null", "c": "$$id", "d": "$5", "e": "$id x", "f": "$task_id"}});
    let expected = json!({"a": "a/b", "b": [[1], 5], "$id": null, "c": "$id", "d": "$5", "e": "$id x", "f": 7});
    assert_eq!(body(request), (expected, false));
    assert_eq!(body(json!({"body": "$token"})), (json!("task-secret"), true), "secrets win");
    let failure = prepare(base(), json!({"body": "$missing"})).err().unwrap();
    assert!(failure.message.contains("no argument missing"), "{failure}");
    assert!(prepare(base(), json!({"body": null})).unwrap().body.is_none());
}

#[test]
fn without_a_body_the_arguments_are_sent() {
    let (sent, own) = body(json!({}));
    assert_eq!((&sent["flow_id"], &sent["task_id"], &sent["node"], own), (&json!(42), &json!(7), &json!("n"), false));
    assert_eq!(sent["step_arguments"]["id"], json!("a/b"));
    assert_eq!(sent["flow_arguments"]["day"], json!("2026-11-20"));
    assert!(!sent.to_string().contains("secret"));
}

#[test]
fn every_fault_of_a_request_is_told_with_its_place() {
    let found = faults(json!({"settings": {}, "result": {"to": "export"}, "request": {
        "metod": "GET", "method": "CONNECT", "path": "x", "query": {"a": {}, "b": "${x}"}, "body": 1, "expect": ["9xx"],
        "asynchronous": 1, "max_attempts": 0,
        "headers": {"Content-Length": "1", "Transfer-Encoding": "chunked", "Connection": "x", "hOsT": "x",
            "Idempotency-Key": "x", "X-A": "a\nb", "x-b": "1", "X-B": "2"}
    }}));
    for path in [
        ".settings means nothing",
        ".result.to a target of kind http",
        ".request.metod unknown key",
        ".request.method must",
        ".request.path must begin",
        ".request.query.a must",
        ".request.query.b a secret",
        ".request.expect must",
        ".request.asynchronous must",
        ".request.max_attempts must",
        ".request.headers.Content-Length this header",
        ".request.headers.Transfer-Encoding this header",
        ".request.headers.Connection this header",
        ".request.headers.hOsT this header",
        ".request.headers.Idempotency-Key this header",
        ".request.headers.X-A must not hold line breaks",
        ".request.headers.x-b is there twice",
    ] {
        assert!(found.iter().any(|f| f.starts_with(path)), "{path}: {found:#?}");
    }
    assert_eq!(found.len(), 17, "{found:#?}");
    assert_eq!(faults(json!({})).len(), 1);
    assert_eq!(faults(json!({"request": []})).len(), 1);
    for path in ["/a?b", "/a#b", "/a\\b", "/{", "/a\nb"] {
        assert_eq!(faults(json!({"request": {"path": path}})).len(), 1, "{path}");
    }
    assert!(faults(json!({"request": {}, "result": "inline"})).is_empty());
}

#[test]
fn statuses_that_are_expected() {
    let of = |expect: Value| Request::of(json!({"request": {"expect": expect}}).as_object().unwrap()).ok().unwrap();
    let expects = |request: &Request, status| request.expects(StatusCode::from_u16(status).unwrap());
    let request = of(json!([202, "4xx"]));
    assert!(expects(&request, 202) && expects(&request, 404) && !expects(&request, 200));
    let request = Request::of(json!({"request": {}}).as_object().unwrap()).ok().unwrap();
    assert!(expects(&request, 200) && expects(&request, 299) && !expects(&request, 301));
}
