//! Where requests may go, whatever leads them there; and what they take along.

use pgflow_executor::job::{Ending, Secret};
use serde_json::json;

use crate::kit::{again, failed, inline, job, kept, kind, object, run, secrets, target};
use crate::server::{answer, Server};

async fn greeting() -> Server {
    Server::start(|_| answer(200, &[], "inside")).await
}

/// Sends /go to `location`, and greets everywhere else.
async fn redirecting(status: u16, location: String) -> Server {
    Server::start(move |seen| {
        if seen.line.contains("/go") {
            answer(status, &[&format!("Location: {location}")], "")
        } else {
            answer(200, &[], "arrived")
        }
    })
    .await
}

#[tokio::test]
async fn a_private_address_is_refused_by_number_and_by_name() {
    let server = greeting().await;
    for host in ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]"] {
        let target = target(&format!("http://{host}:{}", server.port), json!({"allow_private": false}));
        let failure = failed(run(&job(&target, json!({}))).await);
        assert!(failure.message.contains("not a public address"), "{host}: {failure}");
        assert!(failure.hint.unwrap().contains("allow_private_hosts"));
        let failure = kind().probe(&target).await.unwrap_err();
        assert!(failure.message.contains("not a public address"), "{host}: {failure}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_private_address_is_reached_where_its_name_is_listed() {
    let server = greeting().await;
    let options = json!({"allow_private": false, "allow_private_hosts": ["LOCALHOST"]});
    let listed = target(&format!("http://localhost:{}", server.port), options.clone());
    assert!(matches!(run(&job(&listed, json!({}))).await, Ending::Finished(_)));
    assert!(kind().probe(&listed).await.is_ok());
    let other = target(&server.url(), options);
    failed(run(&job(&other, json!({}))).await);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn another_target_with_the_same_connection_does_not_lend_its_rights() {
    let server = greeting().await;
    let kind = kind();
    let mut target = target(&format!("http://localhost:{}", server.port), json!({}));
    let context = crate::kit::context();
    assert!(matches!(kind.run(&job(&target, json!({})), &context).await, Ending::Finished(_)));
    target.options.insert("allow_private".into(), json!(false));
    failed(kind.run(&job(&target, json!({})), &context).await);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn who_is_no_superuser_does_not_reach_private_addresses() {
    let server = greeting().await;
    let mut target = target(&server.url(), json!({}));
    target.password_required = true;
    assert_eq!(kind().check_target(&target)[0].path, ".options.allow_private");
    failed(run(&job(&target, json!({}))).await);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_redirect_off_the_list_is_refused() {
    let other = greeting().await;
    let server = redirecting(302, format!("http://localhost:{}/", other.port)).await;
    let mut target = target(&server.url(), json!({}));
    let failure = failed(run(&job(&target, json!({"path": "/go"}))).await);
    assert!(failure.message.contains("does not allow requests to the host localhost"), "{failure}");
    assert_eq!(other.connections(), 0);
    // On the list, but private.
    target.options = object(json!({
        "base_url": server.url(), "allow_hosts": ["127.0.0.1", "localhost"], "allow_private_hosts": ["127.0.0.1"]
    }));
    let failure = failed(run(&job(&target, json!({"path": "/go"}))).await);
    assert!(failure.message.contains("not a public address"), "{failure}");
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn other_schemes_are_not_followed() {
    for location in ["ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "data:,x"] {
        let server = redirecting(307, location.to_owned()).await;
        let failure = failed(run(&job(&target(&server.url(), json!({})), json!({"path": "/go"}))).await);
        assert!(failure.message.contains("http and https only"), "{location}: {failure}");
    }
}

#[tokio::test]
async fn credentials_are_not_taken_to_another_host() {
    let other = greeting().await;
    let server = redirecting(307, format!("http://ann:theirs@localhost:{}/x", other.port)).await;
    let mut target = target(
        &server.url(),
        json!({"allow_hosts": ["127.0.0.1", "localhost"], "headers": {"X-Api-Key": "${key}", "Cookie": "c=${key}"}}),
    );
    target.connection_options = secrets(&[("key", "target-secret"), ("user", "ann"), ("password", "hunter22")]);
    let request =
        json!({"path": "/go", "headers": {"X-Token": "${token}"}, "body": {"id": "$id"}, "asynchronous": true});
    let mut job = job(&target, request);
    job.work.secrets = secrets(&[("token", "task-secret"), ("callback_token", "callback-secret")]);
    assert!(matches!(run(&job).await, Ending::Finished(_)));
    let first = server.last();
    for name in ["authorization", "x-api-key", "cookie", "x-token", "x-pgflow-callback-token"] {
        assert!(first.header(name).is_some(), "{name}");
        assert_eq!(other.last().header(name), None, "{name}");
    }
    assert_eq!((other.last().line.as_str(), other.last().json()), ("POST /x", json!({"id": 5})));
    assert_eq!(other.last().header("idempotency-key"), first.header("idempotency-key"));
    assert!(!format!("{:?}", other.seen()).contains("secret"));

    job.work.options = object(json!({"request": {"path": "/go", "body": {"t": "$token"}}}));
    let failure = failed(run(&job).await);
    assert!(failure.message.contains("body that holds a secret"), "{failure}");
    assert_eq!(other.seen().len(), 1);
}

#[tokio::test]
async fn credentials_do_not_come_back_after_another_host() {
    let server = Server::start(|seen| {
        let port = seen.header("host").unwrap().split(':').nth(1).unwrap().to_owned();
        match seen.line.as_str() {
            "GET /1" => answer(302, &[&format!("Location: http://localhost:{port}/2")], ""),
            "GET /2" => answer(302, &[&format!("Location: http://127.0.0.1:{port}/3")], ""),
            _ => answer(200, &[], ""),
        }
    })
    .await;
    let options = json!({"allow_hosts": ["127.0.0.1", "localhost"], "headers": {"Authorization": "Bearer hunter22"}});
    let ending = run(&job(&target(&server.url(), options), json!({"method": "GET", "path": "/1"}))).await;
    assert!(matches!(ending, Ending::Finished(_)), "{ending:?}");
    let sent: Vec<_> = server.seen().iter().map(|s| s.header("authorization").is_some()).collect();
    assert_eq!(sent, [true, false, false]);
}

#[tokio::test]
async fn redirects_on_the_same_host_keep_credentials_and_change_the_method_as_they_must() {
    for (status, method, expected) in [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (302, "PUT", "PUT"),
        (303, "HEAD", "HEAD"),
    ] {
        let server = redirecting(status, "../there?x=1#part".to_owned()).await;
        let mut target = target(&server.url(), json!({}));
        target.connection_options = secrets(&[("user", "ann"), ("password", "hunter22")]);
        let ending = run(&job(&target, json!({"method": method, "path": "/go/a"}))).await;
        assert!(matches!(ending, Ending::Finished(_)), "{status} {method}: {ending:?}");
        let seen = server.last();
        assert_eq!(seen.line, format!("{expected} /there?x=1"), "{status} {method}");
        assert!(seen.header("authorization").is_some());
        assert_eq!(seen.body.is_empty(), expected == "GET" || expected == "HEAD", "{status} {method}");
    }
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|_| answer(302, &["Location: /again"], "")).await;
    let failure = failed(run(&job(&target(&server.url(), json!({})), json!({}))).await);
    assert_eq!((failure.message.as_str(), failure.code.as_deref()), ("more than 5 redirects", Some("302")));
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn a_redirect_that_is_expected_is_an_answer() {
    let server = redirecting(302, "/there".into()).await;
    let job = inline(job(&target(&server.url(), json!({})), json!({"path": "/go", "expect": [302]})));
    let row = kept(run(&job).await).content.unwrap().remove(0);
    assert_eq!((&row["status"], &row["headers"]["location"]), (&json!(302), &json!("/there")));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_where_nobody_listens_does_not_say_that_the_target_is_down() {
    let (_nobody, port) = crate::server::nobody();
    let server = redirecting(302, format!("http://127.0.0.1:{port}/")).await;
    let (_, down, failure) = again(run(&job(&target(&server.url(), json!({})), json!({"path": "/go"}))).await);
    assert!(!down && failure.message.contains("cannot connect"), "{failure}");
}

#[tokio::test]
async fn proxies_of_the_environment_are_not_asked() {
    // Alone in a process: others would read the environment meanwhile.
    if std::env::var_os("PGFLOW_PROXY_TEST").is_none() {
        let proxy = greeting().await;
        let this = std::env::current_exe().unwrap();
        let run = tokio::task::spawn_blocking(move || {
            std::process::Command::new(this)
                .args(["--exact", "guarding::proxies_of_the_environment_are_not_asked"])
                .env("PGFLOW_PROXY_TEST", "1")
                .env("http_proxy", proxy.url())
                .env("HTTP_PROXY", proxy.url())
                .env("ALL_PROXY", proxy.url())
                .env_remove("no_proxy")
                .env_remove("NO_PROXY")
                .output()
                .map(|output| (output, proxy))
        });
        let (output, proxy) = run.await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        assert_eq!(proxy.connections(), 0);
        return;
    }
    let server = greeting().await;
    assert!(matches!(run(&job(&target(&server.url(), json!({})), json!({}))).await, Ending::Finished(_)));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn no_message_holds_a_secret() {
    let server = Server::start(|seen| {
        let all = format!("{seen:?} {}", seen.body);
        answer(400, &[], &all)
    })
    .await;
    let mut target = target(
        &format!("{}?api_key=query-secret", server.url()),
        json!({"headers": {"X-Api-Key": "literal-secret", "X-Other": "${other}"}}),
    );
    target.connection_options =
        secrets(&[("user", "ann"), ("password", "basic-secret"), ("other", "other-secret \"quoted\"")]);
    let mut job = job(
        &target,
        json!({"headers": {"X-T": "${token}", "Cookie": "their-secret"}, "body": ["$token"], "asynchronous": true}),
    );
    job.work.secrets = secrets(&[("token", "task-secret"), ("callback_token", "callback-secret")]);
    let failure = failed(run(&job).await).to_string();
    assert!(failure.contains("***") && failure.contains("POST http://127.0.0.1"), "{failure}");
    for secret in ["secret", "quoted", "YW5uOmJhc2ljLXNlY3JldA"] {
        assert!(!failure.contains(secret), "{failure}");
    }
    // Nor when nobody answers, with the password in the URL.
    let (_nobody, port) = crate::server::nobody();
    job.target = std::sync::Arc::new(pgflow_executor::job::Target {
        connection_string: Some(Secret::new(format!("http://ann:hunter22@127.0.0.1:{port}/?token=hunter23"))),
        options: object(json!({"allow_private": true})),
        ..target
    });
    let (_, _, failure) = again(run(&job).await);
    assert!(!failure.to_string().contains("hunter"), "{failure}");
}

#[tokio::test]
async fn a_secret_that_comes_back_in_a_redirect_is_masked_too() {
    let server = Server::start(|seen| match seen.header("x-api-key") {
        Some(key) if seen.line == "POST /" => answer(307, &[&format!("Location: /{key}")], ""),
        _ => answer(404, &[], ""),
    })
    .await;
    let target = target(&server.url(), json!({"headers": {"X-Api-Key": "hunter22 hunter23"}}));
    let failure = failed(run(&job(&target, json!({}))).await).to_string();
    assert!(server.last().line.contains("hunter22%20hunter23"), "{:?}", server.last());
    assert!(failure.contains("/***") && !failure.contains("hunter"), "{failure}");
}
