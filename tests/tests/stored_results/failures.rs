//! What goes wrong is said in a user's words, without secrets, and leaves nothing behind.

use std::time::{Duration, Instant};

use pgflow_executor::job::{Failure, Secret};
use pgflow_executor::results::{check_store, delete, read, read_rows, size, Compression, Format, Shape, Store, Stream};
use pgflow_tests::servers::s3::S3;
use serde_json::json;

use crate::stores::{azure, column, files, keep, put, s3, shared_azure, shared_s3, store, write_rows, Directory};

const PLAIN: (Format, Compression) = (Format::Csv, Compression::None);

async fn refused(store: &Store) -> Failure {
    let mut stream = Stream::open(&keep(store, "x.csv", PLAIN.0, PLAIN.1)).await.unwrap();
    stream.write("some bytes".into()).await.unwrap();
    let failure = stream.close(None, Vec::new()).await.unwrap_err();
    let text = failure.to_string();
    for (key, value) in &store.options {
        let secret = key.contains("key") || key.contains("secret");
        assert!(!secret || !text.contains(value.expose()), "{key} is told: {text}");
    }
    assert!(failure.hint.is_some() && !text.contains("<?xml"), "{text}");
    let (gone, left) = delete(store, vec![(1, "x.csv".into())]).await;
    assert!(gone.is_empty() && left.len() == 1, "{gone:?} {left:?}");
    assert!(read(store, "x.csv", PLAIN.0, PLAIN.1).await.is_err());
    failure
}

fn with(mut store: Store, key: &str, value: &str) -> Store {
    store.options.insert(key.into(), Secret::new(value));
    store
}

#[tokio::test]
async fn wrong_credentials_are_told_apart() {
    let s3 = s3(shared_s3(), "refused");
    let failure = refused(&with(s3.clone(), "aws_secret_access_key", "not-the-secret-at-all")).await;
    assert_eq!(failure.code.as_deref(), Some("SignatureDoesNotMatch"), "{failure}");
    assert!(failure.message.contains("the secret does not fit"), "{failure}");
    let failure = refused(&with(s3, "aws_access_key_id", "nobody-knows-me")).await;
    assert!(failure.message.contains("store \"s3\""), "{failure}");
    let wrong = "d3JvbmcgYnV0IGJhc2U2NCBhbmQgbG9uZyBlbm91Z2ggLi4uLi4uLi4uLi4u";
    let failure = refused(&with(azure(shared_azure(), "refused"), "azure_storage_account_key", wrong)).await;
    assert_eq!(failure.code.as_deref(), Some("AuthorizationFailure"), "{failure}");
}

/// Answers every request with the same words, as a store does that the servers here are not.
fn answering(status: &'static str, body: &'static str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let mut buffer = [0; 65536];
                // Requests here fit one segment.
                while socket.read(&mut buffer).is_ok_and(|count| count > 0) {
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                    if socket.write_all(format!("{head}{body}").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    endpoint
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named() {
    let mut azure = azure(shared_azure(), "");
    azure.url = "az://nowhere/x".into();
    let failure = refused(&azure).await;
    assert_eq!(failure.code.as_deref(), Some("ContainerNotFound"), "{failure}");
    assert_eq!(failure.message, "the bucket of store \"azure\" does not exist");
    assert!(failure.detail.unwrap().contains("az://nowhere/x"));
    // The S3 server of these tests makes buckets when they are written to, so S3's answer is played.
    let none = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist\
                </Message><BucketName>nowhere</BucketName></Error>";
    let played = with(s3(shared_s3(), ""), "endpoint", &answering("404 Not Found", none));
    let failure = refused(&played).await;
    assert_eq!(failure.code.as_deref(), Some("NoSuchBucket"), "{failure}");
    assert!(failure.detail.unwrap().contains("The specified bucket does not exist"));
}

#[tokio::test]
async fn other_answers_are_told_with_what_to_do() {
    for (status, body, code, words) in [
        (
            "403 Forbidden",
            "<Error><Code>AccessDenied</Code><Message>No.</Message></Error>",
            "AccessDenied",
            "do not allow this",
        ),
        (
            "403 Forbidden",
            "<Error><Code>InvalidAccessKeyId</Code></Error>",
            "InvalidAccessKeyId",
            "does not know the credentials",
        ),
        ("400 Bad Request", "<Error><Code>ExpiredToken</Code></Error>", "ExpiredToken", "have expired"),
        ("301 Moved Permanently", "", "PermanentRedirect", "in another region"),
        ("400 Bad Request", "<Error><Code>Odd</Code><Message>Oddly.</Message></Error>", "Odd", "answers with an error"),
    ] {
        let played = with(s3(shared_s3(), ""), "endpoint", &answering(status, body));
        let failure = refused(&played).await;
        assert_eq!(failure.code.as_deref(), Some(code), "{failure}");
        assert!(failure.message.contains(words), "{failure}");
    }
    // What is no S3 at all.
    let played = with(s3(shared_s3(), ""), "endpoint", &answering("418 I'm a teapot", "<html>short and stout</html>"));
    let failure = refused_text(&played).await;
    assert!(failure.contains("it answers 418") && !failure.contains("html"), "{failure}");
}

async fn refused_text(store: &Store) -> String {
    let stream = Stream::open(&keep(store, "x.csv", PLAIN.0, PLAIN.1)).await.unwrap();
    stream.close(None, Vec::new()).await.unwrap_err().to_string()
}

#[tokio::test]
async fn objects_that_are_not_there_are_told() {
    let directory = Directory::new("missing");
    for store in [s3(shared_s3(), "none"), azure(shared_azure(), "none"), directory.store()] {
        for format in [Format::Csv, Format::Parquet] {
            let failure = read_rows(&store, "none.csv", format, Compression::None, 0, None).await.unwrap_err();
            assert!(failure.message.contains("the object is not in store"), "{failure}");
        }
        assert_eq!(size(&store, "none.csv").await.unwrap(), None);
    }
}

#[tokio::test]
async fn an_object_of_another_format_is_no_crash() {
    let directory = Directory::new("damaged");
    let store = directory.store();
    let text = "a,b\n1\n{}\nPAR1\u{0}\u{0}\u{0}\u{0}PAR1 no format at all, and long enough to be one".repeat(50);
    put(&store, "x", &text).await;
    for format in [Format::Parquet, Format::Csv, Format::Json, Format::Arrow] {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let failure = read_rows(&store, "x", format, compression, 0, None).await.unwrap_err();
            assert!(failure.message.contains("the object cannot be read"), "{failure}");
        }
    }
}

#[tokio::test]
async fn an_object_that_has_been_cut_is_an_error() {
    let directory = Directory::new("cut");
    let store = directory.store();
    let columns = [column("n", "bigint", Shape::Int), column("s", "text", Shape::Text)];
    let rows: Vec<_> = (0..20_000).map(|n| vec![json!(n), json!(format!("text {n}"))]).collect();
    for (format, compression) in [
        (Format::Parquet, Compression::Zstd),
        (Format::Arrow, Compression::None),
        (Format::Json, Compression::Gzip),
        (Format::Csv, Compression::Zstd),
    ] {
        let kept = write_rows(&keep(&store, "x", format, compression), &columns, &rows).await;
        let length = kept.bytes.unwrap();
        // Not the last byte: of an Arrow stream the end marker may be missing.
        for part in [length / 2, length / 3, length - 20] {
            write_rows(&keep(&store, "x", format, compression), &columns, &rows).await;
            let file = std::fs::OpenOptions::new().write(true).open(directory.path().join("x")).unwrap();
            file.set_len(part).unwrap();
            let failure = read_rows(&store, "x", format, compression, 0, None).await.unwrap_err();
            assert!(failure.message.contains("the object cannot be read"), "{format:?} {part}/{length}: {failure}");
        }
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_told_in_bounded_time() {
    let port = pgflow_tests::place::free_port().unwrap();
    let endpoint = format!("http://127.0.0.1:{port}");
    let down = with(s3(shared_s3(), "down"), "endpoint", &endpoint);
    let from = Instant::now();
    let mut stream = Stream::open(&keep(&down, "x.csv", PLAIN.0, PLAIN.1)).await.unwrap();
    stream.write("some bytes".into()).await.unwrap();
    let failure = stream.close(None, Vec::new()).await.unwrap_err();
    assert_eq!(failure.message, "store \"s3\" cannot be reached: connection refused", "{failure}");
    assert_eq!(failure.code.as_deref(), Some("unreachable"));
    // Many objects are not tried one after the other.
    let (gone, left) = delete(&down, (0..2000).map(|id| (id, format!("{id}.csv"))).collect()).await;
    assert!(gone.is_empty() && left.len() == 2000);
    assert!(left.iter().all(|(_, reason)| reason.contains("connection refused")));
    assert!(from.elapsed() < Duration::from_secs(180));
}

#[tokio::test]
async fn a_store_that_dies_in_the_middle_fails_the_result_and_shows_nothing() {
    let server = S3::start().unwrap();
    let store = s3(&server, "middle");
    let mut stream = Stream::open(&keep(&store, "x.csv", PLAIN.0, PLAIN.1)).await.unwrap();
    let piece = bytes_of(1024 * 1024);
    for _ in 0..12 {
        stream.write(piece.clone().into()).await.unwrap();
    }
    server.kill().unwrap();
    let mut failure = None;
    for _ in 0..40 {
        if let Err(error) = stream.write(piece.clone().into()).await {
            failure = Some(error);
            break;
        }
    }
    let failure = failure.expect("a dead store takes no 40 MiB");
    assert_eq!(failure.code.as_deref(), Some("unreachable"), "{failure}");
    assert!(stream.close(None, Vec::new()).await.is_err(), "what has failed cannot be closed");
    server.start_again().unwrap();
    assert_eq!(size(&store, "x.csv").await.unwrap(), None);
    // The same store is usable again at once.
    put(&store, "y.csv", "back").await;
}

fn bytes_of(count: u32) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// The object and parts of uploads that a server holds.
fn traces(server: &S3) -> Vec<String> {
    let root = server.bucket_directory();
    let all = files(root.parent().unwrap());
    all.into_keys().filter(|name| name.contains("upload") || name.ends_with("left.csv")).collect()
}

async fn until_clean(server: &S3) {
    let until = Instant::now() + Duration::from_secs(60);
    while !traces(server).is_empty() {
        assert!(Instant::now() < until, "left behind: {:?}", traces(server));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_aborted_or_dropped_leaves_neither_object_nor_parts() {
    let server = S3::start().unwrap();
    let store = s3(&server, "dir");
    let directory = Directory::new("abort");
    let files_store = directory.store();
    for drops in [false, true] {
        for store in [&store, &files_store] {
            let mut stream = Stream::open(&keep(store, "left.csv", PLAIN.0, PLAIN.1)).await.unwrap();
            for _ in 0..12 {
                stream.write(bytes_of(1024 * 1024).into()).await.unwrap();
            }
            if store.name == "s3" {
                assert!(!traces(&server).is_empty(), "nothing was uploaded, so nothing is tested");
            }
            match drops {
                false => stream.abort().await,
                true => drop(stream),
            }
        }
        until_clean(&server).await;
        let until = Instant::now() + Duration::from_secs(60);
        while !files(directory.path()).is_empty() {
            assert!(Instant::now() < until, "left behind: {:?}", files(directory.path()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // A small one has not been anywhere yet.
    let mut small = Stream::open(&keep(&store, "left.csv", PLAIN.0, PLAIN.1)).await.unwrap();
    small.write("x".into()).await.unwrap();
    small.abort().await;
    assert_eq!(size(&store, "left.csv").await.unwrap(), None);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_told() {
    let directory = Directory::new("no-directory");
    std::fs::write(directory.path(), "a file").unwrap();
    let below = store("files", &format!("file://{}/below", directory.path().display()), &[]);
    let failure = match Stream::open(&keep(&below, "x", PLAIN.0, PLAIN.1)).await {
        Ok(_) => panic!("a directory below a file"),
        Err(failure) => failure,
    };
    assert!(failure.message.starts_with("the directory of store \"files\" cannot be used"), "{failure}");
    std::fs::remove_file(directory.path()).unwrap();
}

#[tokio::test]
async fn nothing_but_the_options_gives_credentials() {
    // What a builder left to itself would use.
    let server = shared_s3();
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", server.access_key()),
        ("AWS_SECRET_ACCESS_KEY", server.secret_key()),
        ("AWS_ENDPOINT", &server.endpoint()),
        ("AWS_ALLOW_HTTP", "true"),
    ] {
        std::env::set_var(name, value);
    }
    let mut store = s3(server, "environment");
    store.options.retain(|key, _| !key.contains("key"));
    let failure = match Stream::open(&keep(&store, "x", PLAIN.0, PLAIN.1)).await {
        Ok(_) => panic!("it has credentials that nobody gave"),
        Err(failure) => failure,
    };
    assert!(failure.message.contains("access_key_id: it is missing"), "{failure}");
    assert!(!check_store(&store).is_empty());
    // Unsigned, although the environment has credentials: refused by the server.
    let unsigned = with(store.clone(), "skip_signature", "true");
    let mut stream = Stream::open(&keep(&unsigned, "x", PLAIN.0, PLAIN.1)).await.unwrap();
    stream.write("x".into()).await.unwrap();
    let failure = stream.close(None, Vec::new()).await.unwrap_err();
    assert_eq!(failure.code.as_deref(), Some("AccessDenied"), "{failure}");
    // Asked for, they are used.
    let asked = with(store, "credentials", "environment");
    put(&asked, "x", "from the environment").await;
    assert_eq!(size(&s3(server, "environment"), "x").await.unwrap(), Some(20));
}

#[tokio::test]
async fn encryption_is_not_left_out_by_mistake() {
    let store = s3(shared_s3(), "plain");
    let plain = with(store, "allow_http", "false");
    assert_eq!(check_store(&plain)[0].path, ".options.endpoint");
    assert!(Stream::open(&keep(&plain, "x", PLAIN.0, PLAIN.1)).await.is_err());
}
