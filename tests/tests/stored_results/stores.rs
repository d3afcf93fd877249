//! The stores that tests write to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use pgflow_executor::job::Secret;
use pgflow_executor::results::{Column, Compression, Format, Keep, Kept, Rows, Shape, Store, Stream};
use pgflow_tests::servers::azurite::{Azurite, ACCOUNT};
use pgflow_tests::servers::s3::S3;
use serde_json::Value;

pub fn store(name: &str, url: &str, options: &[(&str, &str)]) -> Store {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), Secret::new(*value))).collect();
    Store { name: name.into(), url: url.into(), options }
}

pub fn s3(server: &S3, prefix: &str) -> Store {
    store(
        "s3",
        &server.url(prefix),
        &[
            ("endpoint", &server.endpoint()),
            ("allow_http", "true"),
            ("region", "us-east-1"),
            ("aws_access_key_id", server.access_key()),
            ("aws_secret_access_key", server.secret_key()),
        ],
    )
}

pub fn azure(server: &Azurite, prefix: &str) -> Store {
    store(
        "azure",
        &server.url(prefix),
        &[
            ("endpoint", &server.endpoint()),
            ("allow_http", "on"),
            ("account_name", ACCOUNT),
            ("azure_storage_account_key", server.key()),
        ],
    )
}

/// A directory that is gone afterwards.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Directory {
        let path = PathBuf::from(format!("/tmp/pgflow-results-{}-{name}", std::process::id()));
        // What an earlier process of this number left.
        let _ = std::fs::remove_dir_all(&path);
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn store(&self) -> Store {
        store("files", &format!("file://{}", self.0.display()), &[])
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Started once, stopped by their guards when the tests end.
pub fn shared_s3() -> &'static S3 {
    static SERVER: OnceLock<S3> = OnceLock::new();
    SERVER.get_or_init(|| S3::start().unwrap())
}

pub fn shared_azure() -> &'static Azurite {
    static SERVER: OnceLock<Azurite> = OnceLock::new();
    SERVER.get_or_init(|| Azurite::start().unwrap())
}

pub fn keep(store: &Store, path: &str, format: Format, compression: Compression) -> Keep {
    Keep::Object { store: Arc::new(store.clone()), path: path.into(), format, compression }
}

pub fn column(name: &str, type_name: &str, shape: Shape) -> Column {
    Column { name: name.into(), type_name: type_name.into(), shape }
}

/// Bytes into an object.
pub async fn put(store: &Store, path: &str, text: &str) -> Kept {
    let mut stream = Stream::open(&keep(store, path, Format::Csv, Compression::None)).await.unwrap();
    stream.write(text.to_owned().into()).await.unwrap();
    stream.close(None, Vec::new()).await.unwrap()
}

pub async fn write_rows(keep: &Keep, columns: &[Column], rows: &[Vec<Value>]) -> Kept {
    let mut writer = Rows::open(keep, columns.to_vec()).await.unwrap();
    for row in rows {
        writer.push(row.clone()).await.unwrap();
    }
    writer.close().await.unwrap()
}

/// Every file below a directory, the server's own notes left out.
pub fn files(directory: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(directory).unwrap().display().to_string();
                found.insert(name, entry.metadata().map(|meta| meta.len()).unwrap_or_default());
            }
        }
    }
    found
}
