//! Whom a request is told to: certificates and how much of them is checked.

use pgflow_executor::job::{Ending, Target};
use serde_json::{json, Value};

use crate::kit::{failed, inline, job, kept, kind, run, target, text};
use crate::server::{answer, Server, TlsServer};

async fn get(target: &Target) -> Ending {
    run(&inline(job(target, json!({"method": "GET"})))).await
}

/// Refused with a hint, by the request and by the probe.
async fn refused(url: &str, options: Value, word: &str) {
    let target = target(url, options);
    let failure = failed(get(&target).await);
    assert!(failure.message.contains("TLS") && failure.message.contains(word), "{failure}");
    assert!(failure.hint.unwrap().contains("ca_file"));
    let failure = kind().probe(&target).await.unwrap_err();
    assert!(failure.message.contains("TLS") && failure.message.contains(word), "{failure}");
}

async fn accepted(url: &str, options: Value) {
    let target = target(url, options);
    let row = kept(get(&target).await).content.unwrap().remove(0);
    assert_eq!(row["status"], json!(200));
    assert_eq!(kind().probe(&target).await, Ok(()));
}

#[tokio::test]
async fn a_certificate_is_checked_as_much_as_the_target_says() {
    let server = TlsServer::start("IP:127.0.0.1").await;
    let authority = text(&server.authority);
    accepted(&server.url(), json!({"ca_file": authority})).await;
    accepted(&server.url(), json!({"ca_file": authority, "verify": "ca"})).await;
    accepted(&server.url(), json!({"verify": "none"})).await;
    let other = TlsServer::start("IP:127.0.0.1").await;
    for verify in ["full", "ca"] {
        refused(&server.url(), json!({"ca_file": text(&other.authority), "verify": verify}), "certificate").await;
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_passes_only_where_names_do_not_count() {
    let server = TlsServer::start("DNS:other.example").await;
    let authority = text(&server.authority);
    refused(&server.url(), json!({"ca_file": authority}), "not valid for name").await;
    accepted(&server.url(), json!({"ca_file": authority, "verify": "ca"})).await;
    accepted(&server.url(), json!({"verify": "none"})).await;
}

#[tokio::test]
async fn a_file_of_authorities_that_is_not_there_is_told() {
    let target = target("https://127.0.0.1:1", json!({"ca_file": "/nonexistent/ca.pem"}));
    let failure = failed(get(&target).await);
    assert!(failure.message.contains("/nonexistent/ca.pem"), "{failure}");
    assert!(kind().probe(&target).await.is_err());
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_told() {
    let (listener, port) = crate::server::listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let failure = failed(get(&target(&format!("https://127.0.0.1:{port}"), json!({"verify": "none"}))).await);
    assert!(failure.hint.unwrap().contains("http://"));
}

#[tokio::test]
async fn a_request_goes_on_encrypted_but_not_without() {
    let secure = TlsServer::start("IP:127.0.0.1").await;
    let location = format!("Location: {}/", secure.url());
    let plain = Server::start(move |_| answer(302, &[&location], "")).await;
    let ending = get(&target(&plain.url(), json!({"ca_file": text(&secure.authority)}))).await;
    assert_eq!(kept(ending).content.unwrap()[0]["status"], json!(200));

    let page = format!("HTTP/1.0 302 Found\r\nLocation: {}/\r\nContent-Length: 0\r\n\r\n", plain.url());
    let back = TlsServer::serving("IP:127.0.0.1", Some(&page)).await;
    let before = plain.connections();
    let target = target(&back.url(), json!({"ca_file": text(&back.authority)}));
    let failure = failed(run(&job(&target, json!({"method": "GET", "path": "/page"}))).await);
    assert!(failure.message.contains("redirected from https to http"), "{failure}");
    assert_eq!((failure.code.as_deref(), plain.connections()), (Some("302"), before));
}
