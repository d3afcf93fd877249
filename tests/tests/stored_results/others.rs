//! Other programs: what ClickHouse writes is read, and what is written here ClickHouse reads as what it is.

use pgflow_executor::results::{read_rows, Compression, Format, Shape, Store};
use pgflow_tests::servers::clickhouse::ClickHouse;
use pgflow_tests::servers::s3::S3;
use serde_json::{json, Value};

use crate::stores::{column, keep, s3, shared_s3, write_rows};

fn function(server: &S3, path: &str, format: &str) -> String {
    let (endpoint, key, secret) = (server.endpoint(), server.access_key(), server.secret_key());
    format!("s3('{endpoint}/results/others/{path}', '{key}', '{secret}', '{format}')")
}

async fn back(store: &Store, path: &str, format: Format, compression: Compression) -> Vec<Value> {
    let rows = read_rows(store, path, format, compression, 0, None).await.unwrap();
    rows.into_iter().map(Value::Object).collect()
}

#[tokio::test]
async fn what_clickhouse_writes_is_read() {
    let server = shared_s3();
    let store = s3(server, "others");
    let clickhouse = ClickHouse::start().unwrap();
    let query = "SELECT toUInt64(18446744073709551615) AS u64, toUInt64(5) AS small, toInt8(-1) AS i8, \
        CAST(0.1 AS Float32) AS f32, CAST('nan' AS Float64) AS f64, toDecimal64('1.25', 4) AS d, \
        'a,\"b\" ö' AS s, CAST(NULL AS Nullable(String)) AS n, toDate32('1950-02-03') AS day, \
        toDateTime64('2026-11-20 12:30:00.123456', 6, 'UTC') AS t, [1, 2] AS a, map('k', 1) AS m, \
        tuple(1 AS x, 'y' AS y) AS tup, toLowCardinality('low') AS lc, true AS b";
    let wanted = json!({
        "u64": "18446744073709551615", "small": 5, "i8": -1, "f32": 0.1, "f64": "NaN", "d": "1.2500", "s": "a,\"b\" ö",
        "n": null, "day": "1950-02-03", "t": "2026-11-20T12:30:00.123456Z", "a": [1, 2], "m": {"k": 1}, "lc": "low",
        "b": true,
    });
    // Compressed inside as ClickHouse does it by default, and otherwise.
    for (format, name, settings) in [
        (Format::Parquet, "Parquet", ""),
        (Format::Parquet, "Parquet", ", output_format_parquet_compression_method='lz4'"),
        (Format::Parquet, "Parquet", ", output_format_parquet_compression_method='snappy'"),
        (Format::Parquet, "Parquet", ", output_format_parquet_compression_method='gzip'"),
        (Format::Arrow, "ArrowStream", ""),
        (Format::Arrow, "ArrowStream", ", output_format_arrow_compression_method='zstd'"),
        (Format::Arrow, "ArrowStream", ", output_format_arrow_compression_method='none'"),
    ] {
        let to = function(server, "typed", name);
        let sql = format!("INSERT INTO FUNCTION {to} {query} SETTINGS s3_truncate_on_insert=1{settings}");
        clickhouse.query(&sql).unwrap();
        let rows = back(&store, "typed", format, Compression::None).await;
        assert_eq!(rows.len(), 1);
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(&rows[0][key], value, "{name}{settings}: {key}");
        }
    }
    for (format, name) in [(Format::Csv, "CSVWithNames"), (Format::Json, "JSONEachRow")] {
        for (compression, extension) in
            [(Compression::None, ""), (Compression::Gzip, ".gz"), (Compression::Zstd, ".zst")]
        {
            let path = format!("lines.{name}{extension}");
            let to = function(server, &path, name);
            let query = "SELECT number AS n, if(n = 1, NULL, concat('a,\"\\n', toString(n))) AS s FROM numbers(100000)";
            clickhouse.query(&format!("INSERT INTO FUNCTION {to} {query} SETTINGS s3_truncate_on_insert=1")).unwrap();
            let rows = back(&store, &path, format, compression).await;
            assert_eq!(rows.len(), 100_000, "{path}");
            assert_eq!((&rows[0]["s"], &rows[1]["s"]), (&json!("a,\"\n0"), &Value::Null), "{path}");
            assert_eq!(rows[99_999]["s"], json!("a,\"\n99999"), "{path}");
        }
    }
    // Row groups that are larger than what is read at once.
    let to = function(server, "groups", "Parquet");
    let query = "SELECT number AS n, hex(sipHash128(number)) AS h, repeat(h, 8) AS long FROM numbers(200000)";
    clickhouse.query(&format!("INSERT INTO FUNCTION {to} {query} SETTINGS s3_truncate_on_insert=1")).unwrap();
    let rows = read_rows(&store, "groups", Format::Parquet, Compression::None, 199_998, None).await.unwrap();
    assert_eq!((rows.len(), &rows[1]["n"]), (2, &json!(199_999)));
}

#[tokio::test]
async fn clickhouse_reads_what_is_written() {
    let server = shared_s3();
    let store = s3(server, "others");
    let clickhouse = ClickHouse::start().unwrap();
    let columns = [
        column("i", "bigint", Shape::Int),
        column("f", "float8", Shape::Float),
        column("d", "numeric(20, 4)", Shape::Decimal { scale: Some(4) }),
        column("s", "text", Shape::Text),
        column("day", "date", Shape::Date),
        column("t", "timestamptz", Shape::TimestampTz),
        column("a", "bigint[]", Shape::Array(Box::new(Shape::Int))),
    ];
    let rows: Vec<Vec<Value>> = (0..5000)
        .map(|n| match n {
            7 => vec![json!(null), json!(null), json!(null), json!(null), json!(null), json!(null), json!([])],
            n => vec![
                json!(i64::MAX - n),
                json!(0.5),
                json!(format!("{n}.0625")),
                json!(format!("é{n}")),
                json!("2026-11-20"),
                json!("2026-11-20T12:30:00.123456Z"),
                json!([n, null]),
            ],
        })
        .collect();
    let select = "SELECT count(), min(i), sum(f), sum(CAST(d AS Nullable(Decimal(20, 4)))), max(s), any(day), any(t), sum(length(a)), countIf(s IS NULL)";
    for (format, name) in [(Format::Parquet, "Parquet"), (Format::Arrow, "ArrowStream"), (Format::Json, "JSONEachRow")]
    {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let extension = match (format, compression) {
                (Format::Parquet, _) | (_, Compression::None) => "",
                (_, Compression::Gzip) => ".gz",
                (_, Compression::Zstd) => ".zst",
            };
            let path = format!("ours.{name}{extension}");
            write_rows(&keep(&store, &path, format, compression), &columns, &rows).await;
            let from = function(server, &path, name);
            let answer = clickhouse.query(&format!("{select} FROM {from} FORMAT TSV")).unwrap();
            let cells: Vec<&str> = answer.trim().split('\t').collect();
            assert_eq!(cells[0], "5000", "{path}: {answer}");
            assert_eq!(cells[1], (i64::MAX - 4999).to_string(), "{path}: {answer}");
            let wanted = ["2499.5", "12497805.4375", "é999", "2026-11-20", cells[6], "9998", "1"];
            assert_eq!(cells[2..], wanted, "{path}: {answer}");
            assert!(cells[6].contains(":30:00.123456"), "{path}: {answer}");
        }
    }
}
