//! Requests without an answer: what is known of them, and how they end.

use std::time::Duration;

use pgflow_executor::job::Ending;
use serde_json::json;

use crate::kit::{again, context, failed, inline, job, kind, lost, run, target};
use crate::server::{answer, listen, nobody, until, Answer, Server};

#[tokio::test]
async fn nobody_listens() {
    let (_nobody, port) = nobody();
    let target = target(&format!("http://127.0.0.1:{port}"), json!({}));
    let (after, down, failure) = again(run(&job(&target, json!({}))).await);
    assert!(after.is_none() && down, "{failure}");
    assert!(failure.message.contains("refused"), "{failure}");
    let failure = kind().probe(&target).await.unwrap_err();
    assert!(failure.message.contains("refused"), "{failure}");
}

#[tokio::test]
async fn nobody_knows_the_name() {
    let target = target("http://does-not-exist.invalid", json!({}));
    let (_, down, failure) = again(run(&job(&target, json!({}))).await);
    assert!(down && failure.message.contains("cannot connect"), "{failure}");
    assert!(kind().probe(&target).await.is_err());
}

#[tokio::test]
async fn a_connection_that_ends_after_the_request_leaves_it_unknown() {
    let server = Server::start(|_| Answer::Close).await;
    let target = target(&server.url(), json!({}));
    let failure = lost(run(&job(&target, json!({}))).await);
    assert!(failure.hint.unwrap().contains("Idempotency-Key"));
    assert_eq!(server.seen().len(), 1, "the engine tries again, not the client");
    let server = Server::start(|_| Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec())).await;
    lost(run(&job(&crate::kit::target(&server.url(), json!({})), json!({}))).await);
}

#[tokio::test]
async fn a_connection_that_ends_within_the_answer_leaves_it_unknown() {
    for head in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n10\r\nhalf"] {
        let reply = format!("HTTP/1.1 200 OK\r\n{head}").into_bytes();
        let server = Server::start(move |_| Answer::Raw(reply.clone())).await;
        let job = job(&target(&server.url(), json!({})), json!({}));
        lost(run(&job).await);
        lost(run(&inline(job)).await);
    }
}

#[tokio::test]
async fn a_connection_that_ends_after_the_answer_does_no_harm() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let server = Server::start(move |_| Answer::Raw(whole.clone())).await;
    let target = target(&server.url(), json!({}));
    let kind = kind();
    for _ in 0..10 {
        let ending = kind.run(&job(&target, json!({})), &context()).await;
        assert!(matches!(ending, Ending::Finished(_)), "{ending:?}");
        // The client may have seen the end of the connection, or may not.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.seen().len(), 10);
}

#[tokio::test]
async fn a_refusal_that_is_cut_is_a_refusal() {
    let server = Server::start(|_| Answer::Raw(b"HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nhalf".to_vec())).await;
    let failure = failed(run(&job(&target(&server.url(), json!({})), json!({}))).await);
    assert_eq!(failure.code.as_deref(), Some("403"));
}

#[tokio::test]
async fn no_answer_in_time_leaves_it_unknown() {
    let slow = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec();
    for (part, word) in [(Vec::new(), "no answer within 2 s"), (slow, "did not end in time")] {
        let server = Server::start(move |_| Answer::Hang(part.clone())).await;
        let target = target(&server.url(), json!({"timeout": 2}));
        for job in [job(&target, json!({})), inline(job(&target, json!({})))] {
            let failure = lost(run(&job).await);
            assert!(failure.message.contains(word) && failure.hint.is_some(), "{failure}");
        }
    }
}

#[tokio::test]
async fn no_connection_in_time_means_that_nothing_was_sent() {
    // Accepts, and then says nothing to the client's greeting.
    let (listener, port) = listen().await;
    let target =
        target(&format!("https://127.0.0.1:{port}"), json!({"timeout": 2, "connect_timeout": 1, "verify": "none"}));
    let (_, down, failure) = again(run(&job(&target, json!({}))).await);
    assert!(down && failure.message.contains("no connection in time"), "{failure}");
    let failure = kind().probe(&target).await.unwrap_err();
    assert!(failure.message.contains("within 1 s"), "{failure}");
    drop(listener);
}

#[tokio::test]
async fn what_is_no_http_is_told() {
    let server = Server::start(|_| Answer::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())).await;
    lost(run(&job(&target(&server.url(), json!({})), json!({}))).await);
}

#[tokio::test]
async fn a_stop_ends_it_at_once_and_closes_the_connection() {
    for part in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\n",
    ] {
        let server = Server::start(move |_| Answer::Hang(part.to_vec())).await;
        let target = target(&server.url(), json!({"timeout": 3600}));
        for job in [job(&target, json!({})), inline(job(&target, json!({})))] {
            let context = context();
            let stop = context.stop.clone();
            let before = server.seen().len();
            let running = tokio::spawn(async move { kind().run(&job, &context).await });
            until(|| server.seen().len() > before).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.cancel();
            assert!(matches!(running.await.unwrap(), Ending::Stopped));
            until(|| server.open() == 0).await;
        }
    }
}

#[tokio::test]
async fn a_stop_that_came_before_sends_nothing() {
    let server = Server::start(|_| answer(200, &[], "")).await;
    let context = context();
    context.stop.cancel();
    let ending = kind().run(&job(&target(&server.url(), json!({})), json!({})), &context).await;
    assert!(matches!(ending, Ending::Stopped));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_probe_connects_and_sends_nothing() {
    let server = Server::start(|_| answer(200, &[], "")).await;
    assert_eq!(kind().probe(&target(&server.url(), json!({}))).await, Ok(()));
    until(|| server.connections() == 1).await;
    assert!(server.seen().is_empty());
    let wrong = target(&server.url(), json!({"allow_hosts": ["example.com"]}));
    assert!(kind().probe(&wrong).await.is_err());
}
