//! Results in stores: ClickHouse's own bytes streamed into an object, and objects that ClickHouse writes itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgflow_executor::job::{Job, Secret, Target};
use pgflow_executor::results::{Compression, Format, Keep, Store};
use pgflow_tests::servers::s3::S3;
use serde_json::json;

use crate::kit::{ask, failed, job, kept, map, run, server, Directory};

#[tokio::test]
async fn every_format_is_stored_and_its_rows_counted() {
    let directory = Directory::new("formats");
    let query = "SELECT number AS n, concat('it''s \"', toString(number), '\\n') AS t FROM numbers(12345) FORMAT TSV;";
    for (format, name) in
        [(Format::Parquet, "r.parquet"), (Format::Csv, "r.csv"), (Format::Json, "r.json"), (Format::Arrow, "r.arrow")]
    {
        let keep = directory.keep(name, format, Compression::None);
        let kept = kept(run(&Job { keep, ..job(query) }).await);
        let bytes = std::fs::read(directory.0.join(name)).unwrap();
        assert_eq!((kept.rows, kept.bytes), (Some(12_345), Some(bytes.len() as u64)), "{format:?}");
        let columns: Vec<_> = kept.columns.iter().map(|c| (c.name.as_str(), c.type_name.as_str())).collect();
        assert_eq!(columns, [("n", "UInt64"), ("t", "String")], "{format:?}");
        match format {
            Format::Parquet => assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1")),
            Format::Csv => assert!(bytes.starts_with(b"\"n\",\"t\"\n")),
            Format::Json => assert!(bytes.starts_with(b"{\"n\":0,")),
            Format::Arrow => assert!(bytes.starts_with(&[0xff; 4])),
        }
    }
    let keep = directory.keep("none.json", Format::Json, Compression::None);
    assert_eq!(kept(run(&Job { keep, ..job("SELECT 1 AS a WHERE 0") }).await).rows, Some(0));
}

#[tokio::test]
async fn an_error_in_mid_stream_leaves_no_object() {
    let directory = Directory::new("broken");
    for format in [Format::Parquet, Format::Csv, Format::Json, Format::Arrow] {
        let keep = directory.keep("broken", format, Compression::None);
        let query = "SELECT throwIf(number = 300000) AS a, toString(number) FROM numbers(1000000) \
                     SETTINGS max_block_size = 10000, output_format_parquet_row_group_size = 1000";
        let failure = failed(run(&Job { keep, ..job(query) }).await);
        assert!(failure.code.as_deref().is_some_and(|code| code.starts_with("395")), "{format:?}: {failure}");
        assert_eq!(directory.files(), Vec::<String>::new(), "{format:?}");
    }
    let keep = directory.keep("nothing.parquet", Format::Parquet, Compression::None);
    failed(run(&Job { keep, ..job("CREATE TABLE IF NOT EXISTS stored_ddl (a Int8) ENGINE = Memory") }).await);
    assert_eq!(directory.files(), Vec::<String>::new());
}

/// What this process holds in memory, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_result_of_a_gigabyte_is_never_held() {
    let directory = Directory::new("gigabyte");
    let keep = directory.keep("big.json", Format::Json, Compression::None);
    let query = "SELECT number, repeat(toString(number % 10), 1000) AS t FROM numbers(1050000)";
    let before = resident();
    let running = crate::kit::start(&crate::kit::kind(), &Job { keep, ..job(query) });
    let mut most = before;
    while !running.ending.is_finished() {
        most = most.max(resident());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let kept = kept(running.ending.await.unwrap());
    println!("{} bytes, from {before} to {most} MiB", kept.bytes.unwrap());
    assert!(kept.rows == Some(1_050_000) && kept.bytes.unwrap() > 1 << 30, "{kept:?}");
    // Other tests of this process run beside it.
    assert!(most - before < 300, "from {before} to {most} MiB");
}

fn s3() -> &'static S3 {
    static SERVER: std::sync::OnceLock<S3> = std::sync::OnceLock::new();
    SERVER.get_or_init(|| S3::start().unwrap())
}

pub fn export(path: &str, format: Format, compression: Compression) -> Keep {
    let options = [
        ("endpoint", s3().endpoint()),
        ("aws_access_key_id", s3().access_key().to_owned()),
        ("secret_access_key", s3().secret_key().to_owned()),
        ("allow_http", "true".to_owned()),
    ];
    let options = options.into_iter().map(|(k, v)| (k.to_owned(), Secret::new(v))).collect::<BTreeMap<_, _>>();
    let store = Store { name: "results".into(), url: s3().url("out"), options };
    Keep::Export { store: Arc::new(store), path: path.into(), format, compression }
}

/// On a target that may be given the keys of stores.
pub fn sharing(job: Job) -> Job {
    let options = map(json!({"export_credentials": "shared"}));
    Job { target: Arc::new(Target { options, ..(*job.target).clone() }), ..job }
}

#[tokio::test]
async fn an_export_that_would_show_the_stores_keys_is_refused_and_says_how() {
    let query = "SELECT getClientHTTPHeader('X-Pgflow-Secret-2') AS stolen";
    let failure = failed(run(&Job { keep: export("stolen", Format::Csv, Compression::None), ..job(query) }).await);
    let told = failure.to_string();
    assert!(told.contains("named_collection") && told.contains("\"export_credentials\": \"shared\""), "{told}");
    assert!(!told.contains(s3().access_key()) && !told.contains(s3().secret_key()), "{told}");
    assert!(!s3().bucket_directory().join("out/stolen").exists());
}

#[tokio::test]
async fn clickhouse_writes_exports_itself_and_shows_no_credentials() {
    let directory = s3().bucket_directory();
    for (at, (query, format, compression)) in [
        ("SELECT number AS n FROM numbers(1000) ORDER BY n DESC", Format::Csv, Compression::None),
        ("SELECT number AS n FROM numbers(1000) -- so;", Format::Csv, Compression::Gzip),
        (
            "WITH 1000 AS many SELECT number AS n FROM numbers(many) SETTINGS max_threads = 1 FORMAT JSON;",
            Format::Parquet,
            Compression::Zstd,
        ),
        ("SELECT n FROM (SELECT number AS n FROM numbers({many:UInt64})) FORMAT Null", Format::Json, Compression::None),
        ("SELECT number AS n FROM numbers(1000);", Format::Arrow, Compression::Zstd),
    ]
    .into_iter()
    .enumerate()
    {
        let mut job = Job { keep: export(&format!("e{at}"), format, compression), ..sharing(job(query)) };
        job.work.options = map(json!({"parameters": {"many": 1000}}));
        let kept = kept(run(&job).await);
        let bytes = std::fs::read(directory.join(format!("out/e{at}"))).unwrap();
        assert_eq!((kept.rows, kept.bytes), (Some(1000), Some(bytes.len() as u64)), "{query}");
        assert_eq!(kept.location.as_deref(), Some(format!("s3://results/out/e{at}").as_str()));
        match at {
            0 => assert!(bytes.starts_with(b"\"n\"\n999\n998\n")),
            1 => assert!(bytes.starts_with(&[0x1f, 0x8b])),
            2 => assert!(bytes.starts_with(b"PAR1")),
            3 => assert!(bytes.starts_with(b"{\"n\":0}\n")),
            _ => assert!(bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])),
        }
        let id = job.attempt_key(1);
        ask(server(), "SYSTEM FLUSH LOGS".into()).await;
        let shown = ask(server(), format!("SELECT query FROM system.query_log WHERE query_id = '{id}'")).await;
        assert!(
            shown.contains("s3(") && !shown.contains(s3().secret_key()) && !shown.contains(s3().access_key()),
            "{shown}"
        );
        // Again: what is there is replaced.
        assert_eq!(crate::kit::kept(run(&job).await).rows, Some(1000));
    }
}

#[tokio::test]
async fn exports_that_cannot_be_are_refused_in_words() {
    let not_a_select = Job { keep: export("x", Format::Csv, Compression::None), ..job("DROP TABLE nothing") };
    assert!(failed(run(&not_a_select).await).message.contains("SELECT"));
    let mut keep = export("x", Format::Csv, Compression::None);
    if let Keep::Export { store, .. } = &mut keep {
        let mut other = (**store).clone();
        other.options.insert("secret_access_key".into(), Secret::new("wrong-wrong-wrong"));
        *store = Arc::new(other);
    }
    let failure = failed(run(&Job { keep, ..sharing(job("SELECT 1 AS a")) }).await);
    assert!(failure.code.is_some() && !failure.to_string().contains("wrong-wrong"), "{failure}");
    let file = Store { url: "file:///tmp".into(), ..Store::default() };
    let keep =
        Keep::Export { store: Arc::new(file), path: "x".into(), format: Format::Csv, compression: Compression::None };
    assert!(failed(run(&Job { keep, ..job("SELECT 1") }).await).hint.is_some());
    let collection = Target { options: map(json!({"named_collection": "no_such"})), ..(*job("").target).clone() };
    let keep = export("x", Format::Csv, Compression::None);
    let failure = failed(run(&Job { keep, target: collection.into(), ..job("SELECT 1 AS a") }).await);
    assert!(failure.message.contains("no_such"), "{failure}");
}

#[tokio::test]
async fn a_store_that_is_down_loses_the_result_and_not_the_task() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Keep::Export { store, path, format, compression } = export("down", Format::Csv, Compression::None) else {
        panic!("an export");
    };
    let mut down = (*store).clone();
    down.options.insert("endpoint".into(), Secret::new(format!("http://127.0.0.1:{free}")));
    let keep = Keep::Object { store: Arc::new(down), path, format, compression };
    let running = crate::kit::start(&crate::kit::kind(), &Job { keep, ..job("SELECT number FROM numbers(10)") });
    let ending = tokio::time::timeout(Duration::from_secs(120), running.ending).await.unwrap().unwrap();
    assert!(matches!(ending, pgflow_executor::job::Ending::Lost(_)), "{ending:?}");
}
