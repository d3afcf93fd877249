//! Rows as they are kept: every type that has a shape, and what is said of one that has none.

use std::sync::Arc;

use anyhow::Result;
use pgflow_executor::job::Job;
use pgflow_executor::results::{Compression, Format, Keep, Shape, Store};
use serde_json::json;

use crate::kit::*;

#[test]
fn values_keep_their_digits_and_shapes() -> Result<()> {
    let (string, mut session) = database("values_keep")?;
    session.run("CREATE TYPE mood AS ENUM ('sad', 'so so'); CREATE DOMAIN positive AS INT CHECK (value > 0)")?;
    let expected = [
        ("true", json!(true), Shape::Bool),
        ("(-7)::smallint", json!(-7), Shape::Int),
        ("9223372036854775807", json!(9_223_372_036_854_775_807_i64), Shape::Int),
        ("5::positive", json!(5), Shape::Int),
        ("4000000000::oid", json!(4_000_000_000_u32), Shape::Int),
        ("0.1::real", json!(0.1), Shape::Float),
        ("'-Infinity'::float8", json!("-Infinity"), Shape::Float),
        ("1e300::float8", json!(1e300), Shape::Float),
        ("12345678901234567890.000100::numeric", json!("12345678901234567890.000100"), Shape::Decimal { scale: None }),
        ("(-0.05)::numeric(10,3)", json!("-0.050"), Shape::Decimal { scale: Some(3) }),
        ("0::numeric", json!("0"), Shape::Decimal { scale: None }),
        ("10000::numeric", json!("10000"), Shape::Decimal { scale: None }),
        ("0.00001234::numeric", json!("0.00001234"), Shape::Decimal { scale: None }),
        ("'NaN'::numeric", json!("NaN"), Shape::Decimal { scale: None }),
        ("'é'::text", json!("é"), Shape::Text),
        ("'x'::char(3)", json!("x  "), Shape::Text),
        ("'so so'::mood", json!("so so"), Shape::Text),
        ("'\\x00ff'::bytea", json!("00ff"), Shape::Bytes),
        ("'1011'::bit(4)", json!("1011"), Shape::Text),
        ("'2026-11-20'::date", json!("2026-11-20"), Shape::Date),
        ("'0044-03-15 BC'::date", json!("0044-03-15 BC"), Shape::Date),
        ("'infinity'::date", json!("infinity"), Shape::Date),
        ("'12:30:00.5'::time", json!("12:30:00.5"), Shape::Text),
        ("'12:30+05:30'::timetz", json!("12:30:00+05:30"), Shape::Text),
        ("'1999-12-31 23:59:59.000001'::timestamp", json!("1999-12-31T23:59:59.000001"), Shape::Timestamp),
        ("'2026-11-20 12:30:00+02'::timestamptz", json!("2026-11-20T10:30:00Z"), Shape::TimestampTz),
        ("'1 year 2 mons -3 days 04:05:06.7'::interval", json!("1 year 2 mons -3 days +04:05:06.7"), Shape::Text),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), Shape::Uuid),
        ("'{\"a\": [1, null]}'::jsonb", json!({"a": [1, null]}), Shape::Json),
        ("'[1,2]'::json", json!([1, 2]), Shape::Json),
        ("'10.0.0.1/8'::inet", json!("10.0.0.1/8"), Shape::Text),
        ("'::1'::inet", json!("::1"), Shape::Text),
        ("'10.0.0.0/8'::cidr", json!("10.0.0.0/8"), Shape::Text),
        ("'08:00:2b:01:02:03'::macaddr", json!("08:00:2b:01:02:03"), Shape::Text),
        ("'{1,NULL,3}'::int[]", json!([1, null, 3]), Shape::Array(Box::new(Shape::Int))),
        ("'{sad}'::mood[]", json!(["sad"]), Shape::Array(Box::new(Shape::Text))),
        ("'{}'::text[]", json!([]), Shape::Array(Box::new(Shape::Text))),
        ("NULL::int", json!(null), Shape::Int),
    ];
    let columns: Vec<String> = expected.iter().enumerate().map(|(at, (sql, _, _))| format!("{sql} AS c{at}")).collect();
    let mut bench = Bench::new();
    let done = bench.done(&Job { keep: inline(), ..job(&string, query(&format!("SELECT {}", columns.join(", ")))) })?;
    let kept = done.kept.unwrap();
    let row = &kept.content.unwrap()[0];
    for (at, (sql, value, shape)) in expected.iter().enumerate() {
        assert_eq!(&row[&format!("c{at}")], value, "{sql}");
        assert_eq!(&kept.columns[at].shape, shape, "{sql}");
    }
    assert_eq!(kept.columns[9].type_name, "numeric(10,3)");
    assert_eq!(kept.columns[25].type_name, "timestamp with time zone");
    Ok(())
}

#[test]
fn what_cannot_be_kept_is_named_with_the_cure() -> Result<()> {
    let (string, mut session) = database("cannot_be_kept")?;
    session.run("CREATE TYPE pair AS (a INT, b INT); CREATE TABLE t (x INT)")?;
    let mut bench = Bench::new();
    for text in ["SELECT '(1,2)'::point AS p", "SELECT '(1,2)'::pair AS p", "SELECT '[1,2)'::int4range AS p"] {
        let failure = bench.failure(&Job { keep: inline(), ..job(&string, query(text)) })?;
        assert!(failure.hint.unwrap_or_default().contains("\"p\"::text"), "{text}");
    }
    for (text, word) in [("SELECT 1 AS a, 2 AS a", "two columns"), ("SELECT '{{1},{2}}'::int[] AS a", "dimension")] {
        let failure = bench.failure(&Job { keep: inline(), ..job(&string, query(text)) })?;
        assert!(failure.message.contains(word), "{failure:?}");
    }
    // Nothing of a query is done whose rows cannot be kept.
    let text = "INSERT INTO t SELECT generate_series(1, 20000) RETURNING x";
    let failure = bench.failure(&Job { keep: inline(), ..job(&string, query(text)) })?;
    assert!(failure.message.contains("too large"), "{failure:?}");
    wait_for(&mut session, "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND application_name LIKE 'pgflow-7438%' AND datname = current_database()", "0")?;
    assert_eq!(session.text("SELECT count(*) FROM t")?, "0");
    bench.rows(job(&string, query("INSERT INTO t VALUES (1)")))?;
    assert_eq!(session.text("SELECT count(*) FROM t")?, "1");
    Ok(())
}

#[test]
fn rows_go_to_a_store() -> Result<()> {
    let (string, _) = database("rows_to_a_store")?;
    let directory = std::env::temp_dir().join(format!("pgflow-rows-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let store = Store { name: "files".into(), url: format!("file://{}", directory.display()), ..Store::default() };
    let keep = Keep::Object {
        store: Arc::new(store),
        path: "a/b.csv".into(),
        format: Format::Csv,
        compression: Compression::None,
    };
    let text = "SELECT i, i * 0.5 AS half, 'é,' || i AS t FROM generate_series(1, 3) AS i";
    let outcome = Bench::new().done(&Job { keep, ..job(&string, query(text)) });
    let written = std::fs::read_to_string(directory.join("a/b.csv")).unwrap_or_default();
    std::fs::remove_dir_all(&directory)?;
    assert_eq!(outcome?.kept.and_then(|kept| kept.rows), Some(3));
    assert_eq!(written.lines().count(), 4, "{written}");
    assert!(written.contains("2,1.0,\"é,2\""), "{written}");
    Ok(())
}
