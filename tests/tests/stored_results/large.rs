//! A result of a gigabyte in a process of little memory.

use pgflow_executor::results::{delete, read, size, Compression, Format, Rows, Shape, Stream};
use serde_json::json;

use crate::stores::{column, keep, s3, shared_s3};

const GIGABYTE: u64 = 1 << 30;

/// Memory of this process, its program included, in MiB.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let fields: Vec<u64> = statm.split_whitespace().map(|field| field.parse().unwrap()).collect();
    fields[1] * 4096 / 1024 / 1024
}

/// Runs the test once more in a process of its own, since memory is the process's.
fn alone(test: &str) -> bool {
    if std::env::var_os("PGFLOW_ALONE").is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let status = std::process::Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env("PGFLOW_ALONE", "1")
        .status()
        .unwrap();
    assert!(status.success());
    false
}

#[tokio::test]
async fn a_gigabyte_is_streamed_in_little_memory() {
    if !alone("large::a_gigabyte_is_streamed_in_little_memory") {
        return;
    }
    let store = s3(shared_s3(), "large");
    let mut highest = 0;
    let mut state = 1u64;
    let mut stream = Stream::open(&keep(&store, "large.csv", Format::Csv, Compression::None)).await.unwrap();
    let mut written = 0;
    while written < GIGABYTE {
        let mut piece = Vec::with_capacity(256 * 1024);
        while piece.len() < 256 * 1024 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            piece.extend_from_slice(&state.to_le_bytes());
        }
        written += piece.len() as u64;
        stream.write(piece.into()).await.unwrap();
        highest = highest.max(resident());
    }
    let kept = stream.close(None, Vec::new()).await.unwrap();
    assert_eq!(kept.bytes, Some(GIGABYTE));
    assert_eq!(size(&store, "large.csv").await.unwrap(), Some(GIGABYTE));
    let writing = highest;
    let mut reader = read(&store, "large.csv", Format::Csv, Compression::None).await.unwrap();
    let (mut seen, mut state) = (0u64, 1u64);
    let mut rest: Vec<u8> = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        seen += piece.len() as u64;
        rest.extend_from_slice(&piece);
        let whole = rest.len() / 8 * 8;
        for word in rest[..whole].chunks_exact(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            assert_eq!(word, state.to_le_bytes());
        }
        rest.drain(..whole);
        highest = highest.max(resident());
    }
    assert_eq!(seen, GIGABYTE);
    println!("a gigabyte of bytes: {writing} MiB while writing, {highest} MiB in all");
    assert!(highest < 256, "{highest} MiB");
    delete(&store, vec![(1, "large.csv".into())]).await;
}

#[tokio::test]
async fn many_rows_of_every_format_take_little_memory() {
    if !alone("large::many_rows_of_every_format_take_little_memory") {
        return;
    }
    let store = s3(shared_s3(), "large-rows");
    let columns = [column("n", "bigint", Shape::Int), column("text", "text", Shape::Text)];
    let mut highest = 0;
    for format in [Format::Parquet, Format::Csv, Format::Json, Format::Arrow] {
        let keep = keep(&store, "rows", format, Compression::None);
        let mut rows = Rows::open(&keep, columns.to_vec()).await.unwrap();
        for n in 0..600_000i64 {
            let text: String =
                (0..10).map(|k| format!("{:016x}", (n + k).wrapping_mul(0x1E37_79B9_7F4A_7C15))).collect();
            rows.push(vec![json!(n), json!(text)]).await.unwrap();
            if n % 1000 == 0 {
                highest = highest.max(resident());
            }
        }
        let kept = rows.close().await.unwrap();
        let mut reader = pgflow_executor::results::rows(&store, "rows", format, Compression::None, 0).await.unwrap();
        let mut count = 0;
        while let Some(batch) = reader.next().await.unwrap() {
            count += batch.len() as u64;
            highest = highest.max(resident());
        }
        assert_eq!(kept.rows, Some(count));
        println!("{format:?}: {} MiB stored, at most {highest} MiB of memory", kept.bytes.unwrap() / 1024 / 1024);
    }
    assert!(highest < 256, "{highest} MiB");
    delete(&store, vec![(1, "rows".into())]).await;
}
