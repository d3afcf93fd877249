//! What answers mean, and what is kept of them.

use pgflow_executor::job::{Ending, Job};
use pgflow_executor::results::{Batch, Keep, Shape};
use serde_json::{json, Value};

use crate::kit::{again, failed, inline, job, kept, kind, object, run, target};
use crate::server::{answer, json as json_answer, Answer, Server};

async fn asked(reply: Answer, request: Value) -> (Server, Job) {
    let server = Server::start(move |_| reply.clone()).await;
    let job = job(&target(&server.url(), json!({"max_response_bytes": 1_000_000})), request);
    (server, job)
}

#[tokio::test]
async fn an_array_of_objects_is_kept_as_rows() {
    let (_server, job) = asked(json_answer(r#"[{"a": 1, "b": "x"}, {"b": null, "c": [1]}]"#), json!({})).await;
    let kept = kept(run(&inline(job)).await);
    let columns: Vec<_> = kept.columns.iter().map(|c| (c.name.as_str(), c.shape.clone())).collect();
    assert_eq!(columns, [("a", Shape::Int), ("b", Shape::Text), ("c", Shape::Json)]);
    assert_eq!(kept.rows, Some(2));
    let rows: Vec<Value> = kept.content.unwrap().into_iter().map(Value::Object).collect();
    assert_eq!(json!(rows), json!([{"a": 1, "b": "x", "c": null}, {"a": null, "b": null, "c": [1]}]));
}

#[tokio::test]
async fn an_object_is_one_row_and_anything_else_is_told_whole() {
    let (_server, job) = asked(json_answer(r#"{"id": 9}"#), json!({})).await;
    assert_eq!(kept(run(&inline(job)).await).content.unwrap(), [object(json!({"id": 9}))]);
    let text = answer(201, &["Content-Type: text/plain", "X-A: 1", "X-A: 2"], "hello");
    let (_server, job) = asked(text, json!({})).await;
    let row = kept(run(&inline(job)).await).content.unwrap().remove(0);
    assert_eq!((&row["status"], &row["body"], &row["headers"]["x-a"]), (&json!(201), &json!("hello"), &json!("1, 2")));
    let (_server, job) = asked(answer(204, &[], ""), json!({})).await;
    let row = kept(run(&inline(job)).await).content.unwrap().remove(0);
    assert_eq!((&row["status"], &row["body"]), (&json!(204), &json!("")));
}

#[tokio::test]
async fn a_large_answer_is_parsed_whole() {
    let rows: Vec<Value> = (0..20_000).map(|n| json!({"n": n, "text": "a row of some length"})).collect();
    let server = Server::start(move |_| json_answer(&json!(rows).to_string())).await;
    let mut job = inline(job(&target(&server.url(), json!({})), json!({"method": "GET"})));
    job.keep = Keep::Inline { max_rows: 20_000, max_bytes: 1 << 30 };
    assert_eq!(kept(run(&job).await).rows, Some(20_000));
}

#[tokio::test]
async fn rows_go_to_a_worker_in_batches() {
    let rows: Vec<Value> = (0..1200).map(|n| json!({ "n": n })).collect();
    let (_server, mut job) = asked(json_answer(&json!(rows).to_string()), json!({})).await;
    let (sender, mut batches) = tokio::sync::mpsc::channel(2);
    job.keep = Keep::Worker(sender);
    let running = tokio::spawn(async move { run(&job).await });
    let (mut columns, mut count) = (0, 0);
    while let Some(batch) = batches.recv().await {
        match batch {
            Batch::Columns(found) => columns = found.len(),
            Batch::Rows(rows) => count += rows.len(),
        }
    }
    assert_eq!((columns, count), (1, 1200));
    assert_eq!(kept(running.await.unwrap()).rows, Some(1200));
}

#[tokio::test]
async fn a_stop_while_a_slow_worker_takes_rows_ends_it() {
    let rows: Vec<Value> = (0..5000).map(|n| json!({ "n": n })).collect();
    let (_server, mut job) = asked(json_answer(&json!(rows).to_string()), json!({})).await;
    let (sender, mut batches) = tokio::sync::mpsc::channel(1);
    job.keep = Keep::Worker(sender);
    let context = crate::kit::context();
    let stop = context.stop.clone();
    let running = tokio::spawn(async move { kind().run(&job, &context).await });
    assert!(matches!(batches.recv().await, Some(Batch::Columns(_))));
    stop.cancel();
    assert!(matches!(running.await.unwrap(), Ending::Stopped));
}

#[tokio::test]
async fn an_export_is_refused_before_anything_is_sent() {
    let (server, mut job) = asked(json_answer("{}"), json!({})).await;
    job.keep = Keep::Export {
        store: Default::default(),
        path: "x".into(),
        format: pgflow_executor::results::Format::Json,
        compression: Default::default(),
    };
    assert!(failed(run(&job).await).message.contains("cannot export"));
    assert_eq!(server.connections(), 0);
    let faults = kind().check_options(&object(json!({"request": {}, "result": {"to": "export"}})));
    assert_eq!(faults[0].path, ".result.to");
}

#[tokio::test]
async fn answers_that_say_not_now_are_tried_again() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let (_server, job) = asked(answer(status, &["Retry-After: 7"], "busy"), json!({})).await;
        let (after, down, failure) = again(run(&job).await);
        assert_eq!((after, down), (Some(7), false));
        assert_eq!(failure.code, Some(status.to_string()));
        assert!(failure.detail.unwrap().ends_with("/: busy"));
    }
    let (_server, job) = asked(answer(503, &[], ""), json!({})).await;
    assert_eq!(again(run(&job).await).0, None);
    let (_server, job) = asked(answer(503, &["Retry-After: 999999"], ""), json!({})).await;
    assert_eq!(again(run(&job).await).0, Some(3600));
}

#[tokio::test]
async fn a_date_to_come_back_at_is_heeded() {
    for (date, after) in [("Thu, 01 Jan 2099 00:00:00 GMT", 3600), ("Sun, 06 Nov 1994 08:49:37 GMT", 0)] {
        let (_server, job) = asked(answer(503, &[&format!("Retry-After: {date}")], ""), json!({})).await;
        assert_eq!(again(run(&job).await).0, Some(after));
    }
}

#[tokio::test]
async fn other_answers_fail_with_their_status_and_an_excerpt() {
    let long = format!("no such job\n{}", "x".repeat(100_000));
    let (_server, job) = asked(answer(404, &[], &long), json!({"query": {"q": "private"}})).await;
    let failure = failed(run(&inline(job)).await);
    assert_eq!((failure.message.as_str(), failure.code.as_deref()), ("the answer is 404 Not Found", Some("404")));
    let detail = failure.detail.unwrap();
    assert!(detail.starts_with("POST http://127.0.0.1") && detail.contains("no such job x"), "{detail}");
    assert!(detail.chars().count() < 600 && !detail.contains("private"), "{detail}");
}

#[tokio::test]
async fn what_is_expected_decides() {
    let (_server, job) = asked(answer(503, &[], ""), json!({"expect": [503]})).await;
    assert!(matches!(run(&job).await, Ending::Finished(_)));
    let (_server, job) = asked(answer(200, &[], ""), json!({"expect": [201, "3xx"]})).await;
    assert_eq!(failed(run(&job).await).code.as_deref(), Some("200"));
    let (_server, job) = asked(answer(404, &[], ""), json!({"expect": ["4xx"], "asynchronous": true})).await;
    assert!(matches!(run(&job).await, Ending::Finished(done) if done.goes_on));
}

#[tokio::test]
async fn a_huge_answer_is_refused_with_and_without_a_length() {
    let known = Answer::Full(200, vec![], vec![b'x'; 1_000_001]);
    for reply in [known, Answer::Endless(1 << 30)] {
        let (_server, job) = asked(reply, json!({})).await;
        let failure = failed(run(&inline(job.clone())).await);
        assert!(failure.message.contains("larger than 1000000 bytes"), "{failure}");
        assert!(failure.hint.unwrap().contains("max_response_bytes"));
        // Nobody wants it: it is not read to its end, and the request was carried out.
        assert!(matches!(run(&job).await, Ending::Finished(_)));
    }
    let (_server, job) = asked(Answer::Full(200, vec![], vec![b'x'; 1_000_000]), json!({})).await;
    assert!(matches!(run(&inline(job)).await, Ending::Finished(_)));
}
