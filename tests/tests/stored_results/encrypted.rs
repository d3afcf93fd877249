//! https:// endpoints: whom a store's client trusts.

use pgflow_executor::job::Secret;
use pgflow_executor::results::{size, Compression, Format, Store, Stream};
use pgflow_tests::servers::certificates::Authority;
use pgflow_tests::servers::terminator::Terminator;

use crate::stores::{keep, put, s3, shared_s3};

fn with(store: &Store, options: &[(&str, &str)]) -> Store {
    let mut store = store.clone();
    for (key, value) in options {
        store.options.insert((*key).into(), Secret::new(*value));
    }
    store
}

async fn refused(store: &Store) -> String {
    let mut stream = Stream::open(&keep(store, "x", Format::Csv, Compression::None)).await.unwrap();
    stream.write("never arrives".into()).await.unwrap();
    let failure = stream.close(None, Vec::new()).await.unwrap_err();
    assert_eq!(failure.code.as_deref(), Some("unreachable"), "{failure}");
    failure.to_string()
}

#[tokio::test]
async fn certificates_are_checked() {
    let authority = Authority::new().unwrap();
    let certificate = authority.server(&["DNS:localhost"]).unwrap();
    let terminator = Terminator::start(shared_s3().port(), &certificate).unwrap();
    let port = terminator.port();

    let endpoint = format!("https://localhost:{port}");
    let ca_file = authority.file().display().to_string();
    let plain = with(&s3(shared_s3(), "tls"), &[("endpoint", &endpoint), ("allow_http", "false")]);
    // Signed by nobody whom the system knows.
    let failure = refused(&plain).await;
    assert!(failure.contains("is not to be trusted") && failure.contains("ca_file"), "{failure}");
    let trusting = with(&plain, &[("ca_file", &ca_file)]);
    put(&trusting, "x", "through TLS").await;
    assert_eq!(size(&trusting, "x").await.unwrap(), Some(11));
    // Another name than the certificate's.
    let by_number = format!("https://127.0.0.1:{port}");
    let other_name = with(&trusting, &[("endpoint", &by_number)]);
    assert!(refused(&other_name).await.contains("is not to be trusted"));
    put(&with(&other_name, &[("verify", "ca")]), "x", "without the name").await;
    put(&with(&plain, &[("verify", "none")]), "x", "unchecked").await;
    let failure =
        match Stream::open(&keep(&with(&plain, &[("ca_file", "/nowhere")]), "x", Format::Csv, Compression::None)).await
        {
            Ok(_) => panic!("a file that is not there"),
            Err(failure) => failure,
        };
    assert!(failure.message.contains("cannot read the certificates in /nowhere"), "{failure}");
}
