//! Nothing outside a store's prefix is written, read or deleted.

use std::time::Duration;

use pgflow_executor::results::{delete, read, read_rows, signed_url, size, Compression, Format, Stream};

use crate::stores::{azure, files, keep, put, s3, shared_azure, shared_s3, store, Directory};

const TRAVERSALS: [&str; 12] = [
    "../outside.csv",
    "a/../../outside.csv",
    "/outside.csv",
    "//outside.csv",
    "..",
    ".",
    "a/./b",
    "a\\..\\..\\outside.csv",
    "%2e%2e/outside.csv",
    "..%2foutside.csv",
    "a\0b",
    "",
];

#[tokio::test]
async fn paths_that_lead_elsewhere_are_refused_everywhere() {
    let directory = Directory::new("paths");
    std::fs::create_dir_all(directory.path()).unwrap();
    let outside = directory.path().join("outside.csv");
    std::fs::write(&outside, "a\n1\n").unwrap();
    let url = format!("file://{}/inside", directory.path().display());
    for store in [store("files", &url, &[]), s3(shared_s3(), "in/side"), azure(shared_azure(), "in/side")] {
        for path in TRAVERSALS {
            assert!(Stream::open(&keep(&store, path, Format::Csv, Compression::None)).await.is_err(), "{path}");
            assert!(read(&store, path, Format::Csv, Compression::None).await.is_err(), "{path}");
            assert!(read_rows(&store, path, Format::Parquet, Compression::None, 0, None).await.is_err(), "{path}");
            assert!(signed_url(&store, path, Duration::from_secs(60)).await.is_err(), "{path}");
            assert!(size(&store, path).await.is_err(), "{path}");
            let (gone, left) = delete(&store, vec![(1, path.to_owned())]).await;
            assert!(gone.is_empty() && left.len() == 1, "{path}");
        }
    }
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "a\n1\n");
}

#[tokio::test]
async fn a_prefix_is_not_left_and_its_neighbours_are_not_touched() {
    let server = shared_s3();
    put(&s3(server, "team"), "x.csv", "mine").await;
    put(&s3(server, "team2"), "x.csv", "theirs").await;
    assert_eq!(delete(&s3(server, "team"), vec![(1, "x.csv".into())]).await.0, [1]);
    assert_eq!(size(&s3(server, "team2"), "x.csv").await.unwrap(), Some(6));
    assert_eq!(size(&s3(server, "team"), "x.csv").await.unwrap(), None);
}

#[tokio::test]
async fn a_directory_is_made_and_an_object_is_replaced_as_a_whole() {
    let directory = Directory::new("made");
    let store = store("files", &format!("file://{}/deep/er", directory.path().display()), &[]);
    put(&store, "a/b c/latest.csv", "first, and longer").await;
    let mut second = Stream::open(&keep(&store, "a/b c/latest.csv", Format::Csv, Compression::None)).await.unwrap();
    second.write(vec![b'x'; 6 * 1024 * 1024].into()).await.unwrap();
    // Until it is whole the first one is there.
    assert_eq!(size(&store, "a/b c/latest.csv").await.unwrap(), Some(17));
    second.close(None, Vec::new()).await.unwrap();
    assert_eq!(size(&store, "a/b c/latest.csv").await.unwrap(), Some(6 * 1024 * 1024));
    assert_eq!(files(directory.path()).len(), 1);
}
