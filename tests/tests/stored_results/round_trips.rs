//! What is written comes back as it was.

use std::time::Duration;

use pgflow_executor::results::{
    delete, read, read_rows, rows, signed_url, size, Column, Compression, Format, Keep, Rows, Shape, Store, Stream,
};
use serde_json::{json, Map, Value};

use crate::stores::{azure, column, keep, put, s3, shared_azure, shared_s3, write_rows, Directory};

const FORMATS: [Format; 4] = [Format::Parquet, Format::Csv, Format::Json, Format::Arrow];
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

fn columns() -> Vec<Column> {
    vec![
        column("b", "bool", Shape::Bool),
        column("i", "bigint", Shape::Int),
        column("f", "double precision", Shape::Float),
        column("d", "numeric", Shape::Decimal { scale: Some(4) }),
        column("huge", "UInt256", Shape::Decimal { scale: Some(0) }),
        column("any", "numeric", Shape::Decimal { scale: None }),
        column("text, \"quoted\"", "text", Shape::Text),
        column("bytes", "bytea", Shape::Bytes),
        column("day", "date", Shape::Date),
        column("ts", "timestamp", Shape::Timestamp),
        column("tz", "timestamptz", Shape::TimestampTz),
        column("ns", "DateTime64(9)", Shape::TimestampTz),
        column("id", "uuid", Shape::Uuid),
        column("j", "jsonb", Shape::Json),
        column("a", "bigint[]", Shape::Array(Box::new(Shape::Int))),
        column("aa", "Array(Array(Decimal(38, 2)))", {
            Shape::Array(Box::new(Shape::Array(Box::new(Shape::Decimal { scale: Some(2) }))))
        }),
        column("a", "text[]", Shape::Array(Box::new(Shape::Text))),
    ]
}

fn extreme() -> Vec<Vec<Value>> {
    let digits = "9".repeat(34);
    vec![
        vec![
            json!(true),
            json!(i64::MAX),
            json!(f64::MIN_POSITIVE),
            json!(format!("{digits}.9999")),
            json!("115792089237316195423570985008687907853269984665640564039457584007913129639935"),
            json!("0.000000000000000000000000000000000000000000000000001"),
            json!("líne\r\none, \"two\"\t🎉 '\\N' \u{0001}"),
            json!("00ff10"),
            json!("5874897-12-31"),
            json!("294247-01-10T04:00:54.775807"),
            json!("0001-01-01T00:00:00Z"),
            json!("2026-11-20T12:30:00.123456789Z"),
            json!("6b1f2e3d-0000-4000-8000-00000000000a"),
            json!({"k": [1, {"x": "é"}], "z": null}),
            json!([1, null, i64::MIN]),
            json!([["0.10", null], [], null]),
            json!(["", null, "a,\"b"]),
        ],
        vec![Value::Null; 17],
        vec![
            json!(false),
            json!(i64::MIN),
            json!("NaN"),
            json!(format!("-{digits}.9999")),
            json!("0"),
            json!("-1"),
            json!(""),
            json!(""),
            json!("-4713-11-24"),
            json!("1969-12-31T23:59:59.999999"),
            json!("2026-11-20T12:30:00.100Z"),
            json!("1677-09-21T00:12:43.145224193Z"),
            json!("00000000-0000-0000-0000-000000000000"),
            json!("a text"),
            json!([]),
            json!([]),
            json!([]),
        ],
        vec![
            json!(true),
            json!(0),
            json!("-Infinity"),
            json!("0.0000"),
            json!("1"),
            json!("NaN"),
            json!("\\N"),
            json!("ff"),
            json!("1970-01-01"),
            json!("1970-01-01T00:00:00"),
            json!("1970-01-01T00:00:00Z"),
            json!("1970-01-01T00:00:00.000000001Z"),
            json!("x"),
            json!(0.1),
            json!([1]),
            json!([["1.00"]]),
            json!(["日本"]),
        ],
    ]
}

/// What is read back of a row.
fn expected(format: Format, columns: &[Column], row: &[Value]) -> Map<String, Value> {
    let names = columns.iter().enumerate().map(|(at, column)| match at {
        16 => "a_2".to_owned(),
        _ => column.name.clone(),
    });
    let values = row.iter().map(|value| match (format, value) {
        (Format::Csv, Value::Null) => Value::Null,
        (Format::Csv, Value::String(text)) => json!(text),
        (Format::Csv, other) => json!(other.to_string()),
        (_, other) => other.clone(),
    });
    names.zip(values).collect()
}

fn name(format: Format, compression: Compression) -> String {
    format!("{format:?}/{compression:?}").to_lowercase()
}

/// Every format and compression: extreme values, no row, no column; then gone again.
async fn everything(store: &Store) {
    let columns = columns();
    let rows = extreme();
    for format in FORMATS {
        for compression in COMPRESSIONS {
            let path = name(format, compression);
            let keep_as = |path: &str| keep(store, path, format, compression);
            let kept = write_rows(&keep_as(&path), &columns, &rows).await;
            assert_eq!((kept.rows, kept.format, kept.compression), (Some(4), Some(format), compression));
            assert_eq!(kept.location, Some(format!("{}/{path}", store.url)));
            assert_eq!(kept.bytes, size(store, &path).await.unwrap(), "{path}");
            assert_eq!(kept.columns[16].name, "a_2");
            let back = read_rows(store, &path, format, compression, 0, None).await.unwrap();
            let wanted: Vec<_> = rows.iter().map(|row| expected(format, &columns, row)).collect();
            assert_eq!(back, wanted, "{path}");
            let back = read_rows(store, &path, format, compression, 1, Some(2)).await.unwrap();
            assert_eq!(back, wanted[1..3], "{path}");
            assert!(read_rows(store, &path, format, compression, 4, None).await.unwrap().is_empty());

            // No row; no column.
            write_rows(&keep_as(&path), &columns, &[]).await;
            assert!(read_rows(store, &path, format, compression, 0, None).await.unwrap().is_empty(), "{path}");
            write_rows(&keep_as(&path), &[], &[vec![], vec![]]).await;
            let back = read_rows(store, &path, format, compression, 0, None).await.unwrap();
            // A Parquet file has its rows in its columns.
            let empty = if format == Format::Parquet { 0 } else { 2 };
            assert_eq!(back, vec![Map::new(); empty], "{path}");

            let (gone, left) = delete(store, vec![(7, path.clone()), (8, "never/there".into())]).await;
            assert_eq!((gone.len(), left), (2, Vec::new()));
            assert_eq!(delete(store, vec![(7, path.clone())]).await, (vec![7], Vec::new()));
            assert_eq!(size(store, &path).await.unwrap(), None);
        }
    }
}

#[tokio::test]
async fn everything_comes_back_from_a_directory() {
    let directory = Directory::new("round");
    everything(&directory.store()).await;
}

#[tokio::test]
async fn everything_comes_back_from_s3() {
    everything(&s3(shared_s3(), "round/trip")).await;
    // At the root of the bucket.
    let mut root = s3(shared_s3(), "");
    root.url = "s3://results".into();
    assert_eq!(put(&root, "at-root.csv", "a\r\n1\r\n").await.location.as_deref(), Some("s3://results/at-root.csv"));
    assert_eq!(read_rows(&root, "at-root.csv", Format::Csv, Compression::None, 0, None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn everything_comes_back_from_azure() {
    everything(&azure(shared_azure(), "round/trip")).await;
}

/// Rows of a few row groups and batches, and of more than one part of an upload.
async fn many(store: &Store, format: Format, compression: Compression, count: i64) {
    let columns = [column("n", "bigint", Shape::Int), column("text", "text", Shape::Text)];
    let row = |n: i64| vec![json!(n), json!(format!("{n:x}-{}", n.wrapping_mul(0x1E37_79B9_7F4A_7C15)).repeat(4))];
    let mut writer = Rows::open(&keep(store, "many", format, compression), columns.to_vec()).await.unwrap();
    for n in 0..count {
        writer.push(row(n)).await.unwrap();
    }
    let kept = writer.close().await.unwrap();
    assert_eq!(kept.rows, Some(count as u64));
    let mut reader = rows(store, "many", format, compression, 5).await.unwrap();
    let mut next = 5;
    while let Some(batch) = reader.next().await.unwrap() {
        for found in batch {
            let n = found["n"].as_i64().or_else(|| found["n"].as_str()?.parse().ok()).unwrap();
            assert_eq!((n, &found["text"]), (next, &row(next)[1]));
            next += 1;
        }
    }
    assert_eq!(next, count);
    let one = read_rows(store, "many", format, compression, count as u64 - 3, Some(1)).await.unwrap();
    assert_eq!(one[0]["text"], row(count - 3)[1]);
    assert_eq!(delete(store, vec![(1, "many".into())]).await.0, [1]);
}

#[tokio::test]
async fn many_rows_come_back_in_order() {
    let s3 = s3(shared_s3(), "many");
    many(&s3, Format::Parquet, Compression::None, 150_000).await;
    for format in [Format::Csv, Format::Json, Format::Arrow] {
        many(&s3, format, Compression::None, 70_000).await;
    }
    many(&azure(shared_azure(), "many"), Format::Json, Compression::Zstd, 70_000).await;
    let directory = Directory::new("many");
    many(&directory.store(), Format::Csv, Compression::Gzip, 70_000).await;
}

#[tokio::test]
async fn bytes_come_back_as_they_were_streamed() {
    let directory = Directory::new("bytes");
    for store in [s3(shared_s3(), "bytes"), azure(shared_azure(), "bytes"), directory.store()] {
        for compression in COMPRESSIONS {
            let mut stream = Stream::open(&keep(&store, "b.json", Format::Json, compression)).await.unwrap();
            let piece: Vec<u8> = (0..1_500_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            for _ in 0..8 {
                stream.write(piece.clone().into()).await.unwrap();
            }
            let kept = stream.close(None, Vec::new()).await.unwrap();
            assert_eq!(kept.bytes, size(&store, "b.json").await.unwrap());
            let mut reader = read(&store, "b.json", Format::Json, compression).await.unwrap();
            let mut at = 0;
            while let Some(bytes) = reader.next().await.unwrap() {
                for byte in bytes {
                    assert_eq!(byte, piece[at % piece.len()]);
                    at += 1;
                }
            }
            assert_eq!(at, 8 * piece.len());
        }
    }
}

/// Fetches a URL with nothing but a socket.
fn fetch(url: &str) -> String {
    use std::io::{Read, Write};
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut socket = std::net::TcpStream::connect(host).unwrap();
    write!(socket, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn a_signed_url_lets_anybody_read_one_object_for_a_while() {
    let valid = Duration::from_secs(600);
    for store in [s3(shared_s3(), "signed"), azure(shared_azure(), "signed")] {
        let path = if store.name == "s3" { "a b/ü.csv" } else { "a/b.csv" };
        put(&store, path, "only for you").await;
        let url = signed_url(&store, path, valid).await.unwrap().unwrap();
        for (key, value) in &store.options {
            let secret = key.contains("secret") || key.ends_with("account_key");
            assert!(!secret || !url.contains(value.expose()), "{key} is in the URL");
        }
        assert!(fetch(&url).ends_with("only for you"), "{}", fetch(&url));
        let refused = fetch(url.split_once('?').unwrap().0);
        assert!(!refused.contains("only for you"), "{refused}");
        assert!(signed_url(&store, "a", Duration::from_secs(8 * 24 * 3600)).await.is_err());
    }
    // Azure would refuse it.
    let failure = signed_url(&azure(shared_azure(), "signed"), "a b/ü.csv", valid).await.unwrap_err();
    assert!(failure.message.contains("beyond ASCII"), "{failure}");
    let directory = Directory::new("signed");
    assert_eq!(signed_url(&directory.store(), "a", valid).await.unwrap(), None);
}

#[tokio::test]
async fn values_that_a_format_cannot_hold_are_refused_and_nothing_is_left() {
    let directory = Directory::new("refused");
    let store = directory.store();
    for (shape, type_name, value, what) in [
        (Shape::Timestamp, "timestamp", "infinity", "infinity is no date that the format has"),
        (Shape::Decimal { scale: Some(2) }, "numeric(10, 2)", "NaN", "NaN is not a decimal number"),
        (Shape::Decimal { scale: Some(2) }, "numeric", "0.001", "0.001 has more than 2 digits behind the point"),
        (Shape::Timestamp, "timestamp", "2026-01-01T00:00:00.1234567", "is finer than the format's time"),
        (Shape::Bytes, "bytea", "xyz", "it is not of the shape Bytes"),
    ] {
        for format in [Format::Parquet, Format::Arrow] {
            let keep: Keep = keep(&store, "x", format, Compression::None);
            let mut rows = Rows::open(&keep, vec![column("c", type_name, shape.clone())]).await.unwrap();
            rows.push(vec![json!(value)]).await.unwrap();
            let failure = rows.close().await.unwrap_err();
            assert!(failure.message.contains(what) && failure.message.contains("column \"c\""), "{failure}");
            assert!(failure.hint.is_some());
        }
        // As text it is what it is.
        let keep = keep(&store, "x.csv", Format::Csv, Compression::None);
        write_rows(&keep, &[column("c", type_name, shape.clone())], &[vec![json!(value)]]).await;
    }
    assert_eq!(crate::stores::files(directory.path()).keys().collect::<Vec<_>>(), ["x.csv"]);
}

/// As the executor's runtime is made: one thread, four that may block. Looking up a host's name needs one of those.
#[test]
fn many_readers_share_few_threads() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build().unwrap();
    runtime.block_on(async {
        let mut by_name = s3(shared_s3(), "shared");
        let endpoint = format!("http://localhost:{}", shared_s3().port());
        by_name.options.insert("endpoint".into(), pgflow_executor::job::Secret::new(endpoint));
        let columns = [column("n", "bigint", Shape::Int)];
        let row_sets: Vec<Vec<Value>> = (0..3000).map(|n| vec![json!(n)]).collect();
        let directory = Directory::new("shared");
        for store in [by_name, directory.store()] {
            write_rows(&keep(&store, "n", Format::Parquet, Compression::Zstd), &columns, &row_sets).await;
            let readers: Vec<_> = (0..16)
                .map(|_| {
                    let store = store.clone();
                    tokio::spawn(async move {
                        read_rows(&store, "n", Format::Parquet, Compression::Zstd, 0, None).await.unwrap().len()
                    })
                })
                .collect();
            for reader in readers {
                assert_eq!(reader.await.unwrap(), 3000);
            }
        }
    });
}
