//! Reading stored results in a session: every format, pieces of them, cancelling, memory.

use std::io::Read as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use pgflow_executor::results::{Compression, Format};

use crate::kit::*;

#[test]
fn every_format_and_compression_gives_the_rows_back() {
    test("formats", |database, session| {
        let shelf = Shelf::make(database, session)?;
        let mut ann = database.connect_as("ann")?;
        for (n, format) in [Format::Parquet, Format::Json, Format::Csv, Format::Arrow].into_iter().enumerate() {
            for (m, compression) in [Compression::None, Compression::Gzip, Compression::Zstd].into_iter().enumerate() {
                let id = ann.number(&format!("SELECT task_id FROM async.submit('SELECT {n}{m}')"))?;
                let path = format!("of/{n}{m}");
                let kept = shelf.write(&path, format, compression, 2500, 0)?;
                finish(session, id, &recorded(&kept, &path)?)?;
                let count = format!("SELECT count(*) || ' ' || sum((f->>'n')::INT) FROM async.fetch_result({id}) AS f");
                same(ann.text(&count).with_context(|| path.clone())?, format!("2500 {}", 2499 * 1250))?;
                let piece = format!("SELECT string_agg(f->>'t', ', ') FROM async.fetch_result({id}, 2, 2400) AS f");
                same(ann.text(&piece)?, "row 2400, row 2401".into())?;
                same(ann.number(&format!("SELECT count(*) FROM async.fetch_result({id}, 10, 2495)"))?, 5)?;
                same(ann.number(&format!("SELECT count(*) FROM async.fetch_result({id}, 0)"))?, 0)?;
                same(ann.text(&format!("SELECT coalesce(async.result_url({id}), 'none')"))?, "none".into())?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_file_that_is_gone_is_an_error_that_says_where_it_was() {
    test("gone", |database, session| {
        let shelf = Shelf::make(database, session)?;
        let mut ann = database.connect_as("ann")?;
        let id = ann.number("SELECT task_id FROM async.submit('SELECT 1')")?;
        let kept = shelf.write("x.json", Format::Json, Compression::None, 5, 0)?;
        finish(session, id, &recorded(&kept, "x.json")?)?;
        std::fs::remove_file(shelf.directory.join("x.json"))?;
        let error = ann.error(&format!("SELECT async.fetch_result({id})"))?;
        ensure!(error.contains("58030") && error.contains("x.json"), "{error}");
        std::fs::write(shelf.directory.join("x.json"), "{\"n\": 1}\nnonsense\n")?;
        let error = ann.error(&format!("SELECT async.fetch_result({id})"))?;
        ensure!(error.contains("58030"), "{error}");
        same(ann.number("SELECT 1")?, 1)
    });
}

/// A result of 100 MB is read by a session that holds far less than that.
#[test]
fn reading_takes_a_bounded_amount_of_memory() {
    test("memory", |database, session| {
        let shelf = Shelf::make(database, session)?;
        let mut ann = database.connect_as("ann")?;
        let id = ann.number("SELECT task_id FROM async.submit('SELECT 1')")?;
        let kept = shelf.write("big.json", Format::Json, Compression::None, 100_000, 1000)?;
        finish(session, id, &recorded(&kept, "big.json")?)?;
        let pid = ann.number("SELECT pg_backend_pid()")?;
        let peak = || -> Result<u64> {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find(|l| l.starts_with("RssAnon:")).context("no RssAnon")?;
            Ok(line.split_whitespace().nth(1).context("no size")?.parse::<u64>()? / 1024)
        };
        let before = peak()?;
        let count = format!("SELECT count(*) FROM async.fetch_result({id})");
        let (counted, most) = std::thread::scope(|scope| -> Result<(i64, u64)> {
            let reading = scope.spawn(|| ann.number(&count));
            let mut most = before;
            while !reading.is_finished() {
                most = most.max(peak()?);
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok((reading.join().unwrap_or_else(|_| anyhow::bail!("it panicked"))?, most))
        })?;
        same(counted, 100_000)?;
        ensure!(most < before + 60, "{before} MB before, {most} MB while it read 100 MB");
        Ok(())
    });
}

/// A store that takes the connection and says nothing: the session can be cancelled all the same, and lives on.
#[test]
fn reading_from_a_store_that_hangs_can_be_cancelled() {
    test("hangs", |database, session| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for mut client in listener.incoming().flatten() {
                let mut some = [0; 64];
                let _ = client.read(&mut some);
                held.push(client);
            }
        });
        session.run(&format!(
            r#"INSERT INTO async.store (store, url, options) VALUES ('shelf', 's3://bucket/x',
                 '{{"endpoint": "http://127.0.0.1:{port}", "allow_http": "true", "region": "here",
                    "access_key_id": "me", "secret_access_key": "hunter22"}}')"#
        ))?;
        let mut ann = database.connect_as("ann")?;
        let id = ann.number("SELECT task_id FROM async.submit('SELECT 1')")?;
        finish(
            session,
            id,
            r#"{"kept_as": "object", "store": "shelf", "path": "x.json", "location": "s3://bucket/x/x.json", "format": "json"}"#,
        )?;
        for _ in 0..3 {
            let started = Instant::now();
            let error = ann.error(&format!("SET statement_timeout = '300ms'; SELECT async.fetch_result({id})"))?;
            ensure!(error.contains("57014"), "{error}");
            ensure!(started.elapsed() < Duration::from_secs(10), "it took {:?}", started.elapsed());
            same(ann.number("SET statement_timeout = 0; SELECT 1")?, 1)?;
        }
        let url = ann.text(&format!("SELECT async.result_url({id}, '1 hour')"))?;
        ensure!(url.contains("x.json") && url.contains("Signature") && !url.contains("hunter22"), "{url}");
        Ok(())
    });
}
