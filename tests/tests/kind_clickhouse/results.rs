//! Typed rows: every type as the shape it is said to have, parameters, formats and settings of the user.

use pgflow_executor::job::{Arguments, Job};
use pgflow_executor::results::{Batch, Column, Keep, Shape};
use serde_json::{json, Value};
use tokio::sync::mpsc;

use crate::kit::{done, failed, inline, job, kept, map, rows, run};

/// The only row of a query, and its columns.
async fn row(query: &str) -> (Vec<Column>, serde_json::Map<String, Value>) {
    let kept = rows(query).await;
    (kept.columns, kept.content.unwrap().remove(0))
}

#[tokio::test]
async fn every_type_keeps_its_value() {
    let decimal = || Shape::Decimal { scale: Some(0) };
    for (expression, shape, value) in [
        ("toUInt8(255)", Shape::Int, json!(255)),
        ("toInt64(-9223372036854775808)", Shape::Int, json!(i64::MIN)),
        ("toUInt64(18446744073709551615)", decimal(), json!("18446744073709551615")),
        (
            "toInt128('-170141183460469231731687303715884105728')",
            decimal(),
            json!("-170141183460469231731687303715884105728"),
        ),
        (
            "toUInt256('115792089237316195423570985008687907853269984665640564039457584007913129639935')",
            decimal(),
            json!("115792089237316195423570985008687907853269984665640564039457584007913129639935"),
        ),
        ("toDecimal128('12.5', 4)", Shape::Decimal { scale: Some(4) }, json!("12.5")),
        (
            "toDecimal256('-0.00000000000000000000000000000000000001', 38)",
            Shape::Decimal { scale: Some(38) },
            json!("-0.00000000000000000000000000000000000001"),
        ),
        ("0.5", Shape::Float, json!(0.5)),
        ("nan", Shape::Float, json!("NaN")),
        ("-inf", Shape::Float, json!("-Infinity")),
        ("true", Shape::Bool, json!(true)),
        ("'tab\\t \"quote\" \\\\ ü \\n'", Shape::Text, json!("tab\t \"quote\" \\ ü \n")),
        ("toFixedString('ab', 4)", Shape::Text, json!("ab")),
        ("CAST('b' AS Enum8('a' = 1, 'b' = 2))", Shape::Text, json!("b")),
        ("toIPv4('1.2.3.4')", Shape::Text, json!("1.2.3.4")),
        ("toIPv6('::1')", Shape::Text, json!("::1")),
        ("toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')", Shape::Uuid, json!("61f0c404-5cb3-11e7-907b-a6006ad3dba0")),
        ("toDate('2026-11-20')", Shape::Date, json!("2026-11-20")),
        ("toDate32('1925-01-01')", Shape::Date, json!("1925-01-01")),
        ("toDateTime('2026-01-01 00:00:00', 'Europe/Berlin')", Shape::TimestampTz, json!("2025-12-31T23:00:00Z")),
        (
            "toDateTime64('2026-01-01 00:00:00.123456', 6, 'Asia/Tokyo')",
            Shape::TimestampTz,
            json!("2025-12-31T15:00:00.123456Z"),
        ),
        ("CAST(NULL AS Nullable(Int32))", Shape::Int, json!(null)),
        ("toLowCardinality('z')", Shape::Text, json!("z")),
        ("[1, NULL]", Shape::Array(Box::new(Shape::Int)), json!([1, null])),
        (
            "[toDateTime('2026-01-01 00:00:00', 'UTC')]",
            Shape::Array(Box::new(Shape::TimestampTz)),
            json!(["2026-01-01T00:00:00Z"]),
        ),
        ("[[1], [2, 3]]", Shape::Json, json!([[1], [2, 3]])),
        ("map('a', toInt128(1))", Shape::Json, json!({"a": "1"})),
        ("CAST((1, 'x') AS Tuple(a Int8, b String))", Shape::Json, json!({"a": 1, "b": "x"})),
        ("(1, 'x')", Shape::Json, json!([1, "x"])),
        ("'{\"x\": 9007199254740993}'::JSON", Shape::Json, json!({"x": 9_007_199_254_740_993_i64})),
        ("INTERVAL 3 DAY", Shape::Int, json!(3)),
    ] {
        let (columns, row) = row(&format!("SELECT {expression} AS c")).await;
        assert_eq!((&columns[0].shape, &row["c"]), (&shape, &value), "{expression}: {}", columns[0].type_name);
    }
}

#[tokio::test]
async fn the_users_format_settings_semicolons_and_comments_do_not_matter() {
    for query in [
        "SELECT 1 AS a FORMAT Parquet",
        "SELECT 1 AS a FORMAT CSV;",
        "SELECT 1 AS a SETTINGS max_threads = 1 FORMAT JSON -- ;",
        "SELECT 1 AS a -- FORMAT CSV",
        "SELECT 1 AS a SETTINGS output_format_json_quote_64bit_integers = 1;",
    ] {
        let kept = rows(query).await;
        assert_eq!(kept.content.unwrap(), [map(json!({"a": 1}))], "{query}");
    }
    let none = rows("SELECT 1 AS a WHERE 0").await;
    assert_eq!((none.rows, none.columns.len()), (Some(0), 1));
    // What returns nothing has no columns.
    let ddl = rows("CREATE TABLE IF NOT EXISTS results_ddl (a Int8) ENGINE = Memory").await;
    assert_eq!((ddl.rows, ddl.columns.len()), (Some(0), 0));
}

#[tokio::test]
async fn parameters_reach_the_query_as_their_type() {
    let mut job = Job { keep: inline(), ..job("") };
    job.work.query = Some(
        "SELECT {s:String} AS s, {n:Nullable(String)} AS n, {a:Array(String)} AS a, {m:Map(String, UInt8)} AS m, \
         {t:Tuple(a UInt8, b String)} AS t, {d:DateTime64(3, 'Asia/Tokyo')} AS d, {x:Decimal(20, 3)} AS x, \
         {dollar:String} AS dollar, {arg:UInt8} AS arg, {flow:String} AS flow, {j:JSON} AS j, {b:Bool} AS b, \
         {ds:Array(DateTime64(3))} AS ds, '{s:String}' AS text, {long:String} = repeat('x', 100000) AS long \
         FROM numbers({limit:UInt8}) LIMIT {limit:UInt8}"
            .into(),
    );
    job.work.options = map(json!({"parameters": {
        "s": "a'b\\c\td\ne", "n": null, "a": ["it's", "b\\"], "m": {"k": 1}, "t": {"b": "x", "a": 7},
        "d": "2026-01-01T00:00:00.5+09:00", "x": "12.345", "dollar": "$$arg", "arg": "$count", "flow": "$who",
        "j": {"a": "x\ny"}, "b": true, "ds": ["2026-01-01T00:00:00.25Z"], "long": "x".repeat(100_000)
    }}));
    job.work.arguments = Arguments {
        flow_arguments: json!({"who": "flow", "count": 1}),
        step_arguments: json!({"count": 2, "limit": 1}),
        ..Arguments::default()
    };
    let kept = kept(run(&job).await);
    let expected = json!({
        "s": "a'b\\c\td\ne", "n": null, "a": ["it's", "b\\"], "m": {"k": 1}, "t": {"a": 7, "b": "x"},
        "d": "2025-12-31T15:00:00.500Z", "x": "12.345", "dollar": "$arg", "arg": 2, "flow": "flow",
        "j": {"a": "x\ny"}, "b": true, "ds": ["2026-01-01T00:00:00.250Z"], "text": "{s:String}", "long": 1
    });
    assert_eq!(kept.content.unwrap(), [map(expected)]);
}

#[tokio::test]
async fn settings_of_string_target_tier_and_node() {
    let mut job = Job { keep: inline(), ..job("") };
    let setting = |name: &str| format!("toString(getSetting('{name}')) AS {name}");
    let names = ["max_threads", "max_block_size", "max_rows_to_read", "max_result_rows"];
    job.work.query = Some(format!("SELECT {}", names.map(setting).join(", ")));
    let mut target = (*job.target).clone();
    target.options = map(json!({
        "settings": {"max_threads": 2, "max_block_size": 2},
        "tiers": {"big": {"settings": {"max_block_size": 3, "max_rows_to_read": 33}}},
        "quota_key": "somebody"
    }));
    job.target = target.into();
    job.work.options = map(json!({"tier": "big", "settings": {"max_result_rows": 44}}));
    let row = kept(run(&job).await).content.unwrap().remove(0);
    let expected =
        json!({"max_threads": "2", "max_block_size": "3", "max_rows_to_read": "33", "max_result_rows": "44"});
    assert_eq!(row, map(expected));
    job.work.options = map(json!({"tier": "huge"}));
    assert!(failed(run(&job).await).message.contains("huge"));
}

#[tokio::test]
async fn a_worker_gets_columns_and_then_every_row() {
    let (sender, mut batches) = mpsc::channel(2);
    let job = Job { keep: Keep::Worker(sender), ..job("SELECT number, toString(number) AS t FROM numbers(10001)") };
    let reading = tokio::spawn(async move {
        let mut columns = Vec::new();
        let mut rows = Vec::new();
        while let Some(batch) = batches.recv().await {
            match batch {
                Batch::Columns(all) => columns = all,
                Batch::Rows(more) => rows.extend(more),
            }
        }
        (columns, rows)
    });
    assert_eq!(kept(run(&job).await).rows, Some(10_001));
    drop(job);
    let (columns, rows) = reading.await.unwrap();
    assert_eq!(columns.len(), 2);
    assert!(rows.len() == 10_001 && rows[10_000] == [json!("10000"), json!("10000")]);
}

#[tokio::test]
async fn nothing_is_kept_of_any_statement() {
    for query in [
        "CREATE TABLE results_any (a UInt64) ENGINE = MergeTree ORDER BY a;",
        "INSERT INTO results_any SELECT number FROM numbers(1000)",
        "INSERT INTO results_any VALUES (1), (2);",
        "INSERT INTO results_any FORMAT CSV\n3\n4\n",
        "SELECT * FROM results_any",
        "SELECT * FROM results_any FORMAT Native;",
        "OPTIMIZE TABLE results_any FINAL",
    ] {
        assert!(done(run(&job(query)).await).kept.is_none(), "{query}");
    }
    let (_, row) = row("SELECT toInt32(count()) AS n FROM results_any").await;
    assert_eq!(row["n"], json!(1004));
    done(run(&job("DROP TABLE results_any")).await);
}

#[tokio::test]
async fn what_is_too_large_or_no_text_fails_and_is_not_left_running() {
    let mut too_large = Job { keep: inline(), ..job("SELECT number FROM system.numbers") };
    too_large.time_limit = Some(crate::kit::PATIENCE);
    let failure = failed(run(&too_large).await);
    assert!(failure.message.contains("too large"), "{failure}");
    assert_eq!(crate::kit::running(crate::kit::server(), &too_large).await, 0);
    let binary = failed(run(&Job { keep: inline(), ..job("SELECT unhex('ff00')") }).await);
    assert!(binary.message.contains("UTF-8") && binary.hint.is_some(), "{binary}");
}
