//! What is wrong is said: ClickHouse's code, its words, a hint; and whether it is tried again.

use std::net::TcpListener;

use pgflow_executor::job::{Ending, Job, Secret, Target};
use pgflow_executor::results::Keep;
use serde_json::json;

use crate::kit::{failed, inline, job, job_on, kind, map, run, server, target};

#[tokio::test]
async fn errors_have_code_words_and_hint() {
    for (query, code, word) in [
        ("SELECT * FROM no_such_table", "60 UNKNOWN_TABLE", "no_such_table"),
        ("SELECT no_such_column", "47 UNKNOWN_IDENTIFIER", "no_such_column"),
        ("SELEC 1", "62 SYNTAX_ERROR", "position"),
        ("SELECT count() FROM system.numbers SETTINGS max_execution_time = 1", "159 TIMEOUT_EXCEEDED", "longer than"),
        (
            "SELECT groupArray(number) FROM numbers(100000000) SETTINGS max_memory_usage = 10000000",
            "241 MEMORY_LIMIT_EXCEEDED",
            "memory",
        ),
        ("SELECT 1 SETTINGS no_such_setting = 1", "115 UNKNOWN_SETTING", "no_such_setting"),
    ] {
        for keep in [Keep::Nothing, inline()] {
            let failure = failed(run(&Job { keep, ..job(query) }).await);
            assert_eq!(failure.code.as_deref(), Some(code), "{query}: {failure}");
            assert!(failure.to_string().contains(word) && failure.hint.is_some(), "{query}: {failure}");
            assert!(!failure.message.contains("(version "), "{failure}");
        }
    }
}

#[tokio::test]
async fn an_error_in_mid_stream_is_no_result() {
    for query in [
        "SELECT throwIf(number = 200000), number FROM numbers(1000000) SETTINGS max_block_size = 1000",
        "SELECT throwIf(number = 200000), number FROM numbers(1000000) SETTINGS max_block_size = 1000 FORMAT CSV",
        "SELECT throwIf(number = 5) FROM numbers(10) SETTINGS max_block_size = 1",
    ] {
        let (sender, mut batches) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move { while batches.recv().await.is_some() {} });
        for keep in [Keep::Nothing, inline_any(), Keep::Worker(sender.clone())] {
            let failure = failed(run(&Job { keep, ..job(query) }).await);
            assert!(failure.code.as_deref().is_some_and(|code| code.starts_with("395")), "{query}: {failure}");
        }
    }
}

fn inline_any() -> Keep {
    Keep::Inline { max_rows: u64::MAX, max_bytes: u64::MAX }
}

#[tokio::test]
async fn wrong_credentials_fail_and_are_not_shown() {
    let mut wrong = target(server(), server().http_port());
    wrong.connection_options.insert("password".into(), Secret::new("hunter22"));
    wrong.fingerprint = 1;
    let failure = failed(run(&job_on(wrong.clone(), "SELECT 1")).await);
    assert!(failure.code.as_deref().is_some_and(|code| code.starts_with("516")), "{failure}");
    assert!(failure.hint.is_some() && !failure.to_string().contains("hunter22"), "{failure}");
    // The server is there all the same.
    assert!(kind().probe(&wrong).await.is_ok());
    let required =
        Target { password_required: true, connection_options: [("password".into(), Secret::new(""))].into(), ..wrong };
    assert!(failed(run(&job_on(required, "SELECT 1")).await).message.contains("password"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere = target(server(), free);
    let Ending::Again { failure, down: true, .. } = run(&job_on(nowhere.clone(), "SELECT 1")).await else {
        panic!("it is down");
    };
    assert!(failure.message.contains(&free.to_string()) && failure.hint.is_some(), "{failure}");
    assert!(kind().probe(&nowhere).await.is_err());
    // The next host of the list is taken.
    let string = format!(
        "clickhouse://{}:{}@127.0.0.1:{free},127.0.0.1:{}/default",
        server().user(),
        server().password(),
        server().http_port()
    );
    let several = Target { connection_string: Some(Secret::new(string)), fingerprint: 2, ..nowhere };
    crate::kit::done(run(&job_on(several, "SELECT 1")).await);
}

#[tokio::test]
async fn a_second_query_of_the_same_name_is_lost_and_not_failed() {
    let job = job("SELECT sleep(3)");
    let kind = kind();
    let first = crate::kit::start(&kind, &job);
    crate::kit::until("it runs", async || crate::kit::running(server(), &job).await == 1).await;
    assert!(matches!(run(&job).await, Ending::Lost(_)));
    crate::kit::done(crate::kit::end(first).await);
}

#[tokio::test]
async fn a_target_is_checked_without_connecting() {
    let kind = kind();
    assert_eq!(kind.check_target(&target(server(), 1)), vec![]);
    let bad = Target { options: map(json!({"settigns": {}})), ..target(server(), 1) };
    assert!(kind.check_target(&bad)[0].message.contains("settigns"));
    assert!(kind.check_options(&map(json!({"parametres": {}})))[0].message.contains("parametres"));
}
