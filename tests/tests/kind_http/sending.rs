//! What a request carries.

use serde_json::{json, Value};

use crate::kit::{context, failed, job, kind, run, secrets, target};
use crate::server::{answer, json as json_answer, Server};

async fn echo() -> Server {
    Server::start(|_| answer(200, &[], "ok")).await
}

#[tokio::test]
async fn a_request_without_more_posts_the_arguments() {
    let server = echo().await;
    let target = target(&server.url(), json!({}));
    let ending = run(&job(&target, json!({}))).await;
    assert!(matches!(&ending, pgflow_executor::job::Ending::Finished(done) if done.kept.is_none() && !done.goes_on));
    let seen = server.last();
    assert_eq!(seen.line, "POST /");
    assert_eq!(
        seen.json(),
        json!({"flow_id": 42, "flow": "nightly", "flow_arguments": {"day": "2026-11-20"}, "node": "call",
            "step_arguments": {"id": 5, "evil": "x\r\nX-Evil: 1"}, "task_id": 7})
    );
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("idempotency-key"), Some("pgflow-engine-7-0"));
    assert_eq!(seen.header("x-pgflow-task"), Some("7"));
    assert_eq!(seen.header("x-pgflow-attempt"), Some("1"));
    assert_eq!(seen.header("user-agent"), Some(concat!("pgflow/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn the_key_stays_the_same_for_another_attempt_and_changes_with_the_intention() {
    let server = echo().await;
    let mut job = job(&target(&server.url(), json!({})), json!({}));
    job.unsure = true;
    job.attempt = 2;
    run(&job).await;
    job.intention = 1;
    run(&job).await;
    let keys: Vec<_> = server.seen().iter().map(|s| s.header("idempotency-key").map(str::to_owned)).collect();
    assert_eq!(keys, [Some("pgflow-engine-7-0".to_owned()), Some("pgflow-engine-7-1".to_owned())]);
    assert_eq!(server.seen()[0].header("x-pgflow-attempt"), Some("2"));
}

#[tokio::test]
async fn path_query_headers_and_body_take_values() {
    let server = echo().await;
    let mut target = target(
        &format!("{}/api", server.url()),
        json!({"headers": {"Authorization": "Bearer ${token}", "X-Fixed": "1"}}),
    );
    target.connection_options = secrets(&[("token", "target-secret")]);
    let request = json!({
        "method": "PUT", "path": "/jobs/{id}", "query": {"k": "{flow_id}", "d": "{day}&x"}, "headers": {"X-Day": "{day}"},
        "body": {"id": "$id", "secret": "$password", "literal": "$$id", "token": "$callback_token"}, "asynchronous": true
    });
    let mut job = job(&target, request);
    job.work.secrets = secrets(&[("password", "task-secret"), ("callback_token", "callback-secret")]);
    let ending = run(&job).await;
    assert!(matches!(&ending, pgflow_executor::job::Ending::Finished(done) if done.goes_on), "{ending:?}");
    let seen = server.last();
    assert_eq!(seen.line, "PUT /api/jobs/5?k=42&d=2026-11-20%26x");
    assert_eq!(seen.header("authorization"), Some("Bearer target-secret"));
    assert_eq!((seen.header("x-fixed"), seen.header("x-day")), (Some("1"), Some("2026-11-20")));
    assert_eq!(seen.header("x-pgflow-callback-token"), Some("callback-secret"));
    assert_eq!(seen.json(), json!({"id": 5, "secret": "task-secret", "literal": "$id", "token": "callback-secret"}));
}

#[tokio::test]
async fn user_and_password_are_basic_authentication() {
    let server = echo().await;
    let mut target = target(&server.url(), json!({}));
    target.connection_options = secrets(&[("user", "ann"), ("password", "p:w")]);
    run(&job(&target, json!({"method": "GET"}))).await;
    assert_eq!(server.last().header("authorization"), Some("Basic YW5uOnA6dw=="));
    assert_eq!(server.last().body, "");
    assert_eq!(server.last().header("content-type"), None);
}

#[tokio::test]
async fn nothing_is_sent_when_a_value_is_missing_or_breaks_a_header() {
    let server = echo().await;
    let target = target(&server.url(), json!({}));
    for (request, part) in [
        (json!({"path": "/{missing}"}), "no argument missing"),
        (json!({"query": {"a": "{missing}"}}), "no argument missing"),
        (json!({"body": {"a": ["$missing"]}}), "no argument missing"),
        (json!({"headers": {"X-A": "${missing}"}}), "no missing"),
        (json!({"headers": {"X-A": "{evil}"}}), "line break"),
        (json!({"headers": {"X-A": "a\r\nX-Evil: 1"}}), "not configured"),
        (json!({"headers": {"Host": "evil"}}), "not configured"),
    ] {
        let failure = failed(run(&job(&target, request.clone())).await);
        assert!(failure.message.contains(part), "{request}: {failure}");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn connections_are_used_again_and_let_go_of() {
    let server = Server::start(|_| json_answer("{}")).await;
    let target = target(&server.url(), json!({}));
    let kind = kind();
    for _ in 0..5 {
        kind.run(&job(&target, json!({})), &context()).await;
    }
    assert_eq!((server.seen().len(), server.connections()), (5, 1));
    assert!(kind.tidy().await);
}

#[tokio::test]
async fn five_hundred_are_in_flight_at_once() {
    let server = Server::start(|_| json_answer(r#"{"ok": true}"#)).await;
    let target = target(&server.url(), json!({"timeout": 300, "connect_timeout": 120}));
    let kind: std::sync::Arc<dyn pgflow_executor::kind::Kind> = kind().into();
    let mut running = Vec::new();
    for id in 0..500 {
        let mut job = job(&target, json!({"headers": {"X-Together": "500"}}));
        job.task_id = id;
        let kind = kind.clone();
        running.push(tokio::spawn(async move { kind.run(&job, &context()).await }));
    }
    for run in running {
        let ending = run.await.unwrap();
        assert!(matches!(ending, pgflow_executor::job::Ending::Finished(_)), "{ending:?}");
    }
    let mut tasks: Vec<Value> = server.seen().iter().map(|seen| seen.json()["task_id"].clone()).collect();
    tasks.sort_by_key(Value::as_i64);
    tasks.dedup();
    assert_eq!(tasks.len(), 500);
    assert_eq!(server.most_at_once(), 500);
}
