//! Secrets: bound wherever a parameter may stand, shown nowhere.

use pgflow_executor::job::{Job, Secret};
use serde_json::json;

use crate::kit::{ask, end, failed, inline, job, kept, kind, map, run, running, server, start, until};

const SECRET: &str = "s3cr3t 'hunter22' \\ ü";

fn with_secret(query: &str) -> Job {
    let mut job = Job { keep: inline(), ..job(query) };
    job.work.secrets.insert("token".into(), Secret::new(SECRET));
    job.work.secrets.insert("number".into(), Secret::new("12"));
    // What the arguments say of a secret does not count.
    job.work.arguments.step_arguments = json!({"token": "no", "number": 0});
    job
}

#[tokio::test]
async fn secrets_arrive_and_no_list_of_queries_shows_them() {
    let query = "SELECT {token:String} AS t, {number:UInt8} + 1 AS n, length({token:String}) AS l, sleep(1) AS s \
                 FROM numbers(20) LIMIT {number:UInt8}";
    let job = with_secret(query);
    let run = start(&kind(), &job);
    until("it runs", async || running(server(), &job).await == 1).await;
    let id = job.attempt_key(1);
    let shown = ask(server(), format!("SELECT * FROM system.processes WHERE query_id = '{id}' FORMAT Vertical")).await;
    let kept = kept(end(run).await);
    assert_eq!((kept.rows, &kept.content.unwrap()[0]["t"]), (Some(12), &json!(SECRET)));
    ask(server(), "SYSTEM FLUSH LOGS".into()).await;
    let logged = ask(server(), format!("SELECT * FROM system.query_log WHERE query_id = '{id}' FORMAT Vertical")).await;
    let files = std::fs::read_to_string(server().process().directory().join("server.log")).unwrap_or_default();
    // Other tests provoke errors that speak of their secrets.
    let files: String = files.lines().filter(|line| line.contains(&id)).collect();
    for text in [&shown, &logged, &files] {
        assert!(
            !text.contains("hunter22") && !text.contains(&hex(SECRET)) && !text.contains(server().password()),
            "{text}"
        );
    }
    assert!(shown.contains("getClientHTTPHeader") && logged.contains("QueryFinish"), "{shown}\n{logged}");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn errors_of_queries_with_secrets_do_not_show_them() {
    for query in [
        "SELECT no_such_column, {token:String}",
        "SELECT throwIf({token:String} != '')",
        "SELECT {number:Array(String)}",
        "SELECT * FROM no_such_table WHERE a = {token:String}",
        "SELECT toUInt8({token:String} || 'x')",
        "SELECT toUInt8(hex({token:String}))",
        "SELECT {token:UInt8}",
    ] {
        let job = with_secret(query);
        let failure = failed(run(&job).await);
        assert!(!failure.to_string().contains("hunter22"), "{query}: {failure}");
    }
}

#[tokio::test]
async fn secrets_are_plain_parameters_where_the_target_wants_it() {
    let mut job = with_secret("SELECT {token:String} AS t");
    let mut target = (*job.target).clone();
    target.options = map(json!({"secrets": "parameters"}));
    job.target = target.into();
    assert_eq!(kept(run(&job).await).content.unwrap()[0]["t"], json!(SECRET));
}
