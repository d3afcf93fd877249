//! Results in an object store: streaming bytes into it, deleting, signing, sizes.
//!
//! Never leaves a store's prefix. An object that is at the path already is replaced when the new one is whole: paths carry
//! the task and the attempt unless the user's own template leaves them out, and then replacing is what was asked for.

use std::time::Duration;

use async_compression::tokio::write::{GzipEncoder, ZstdEncoder};
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::ObjectStoreExt;
use tokio::io::AsyncWriteExt;

use super::failure::{failure, is_missing, Doing, UNREACHABLE};
use super::store::open;
use super::upload::{remove, Upload};
use super::{Column, Compression, Format, Keep, Kept, Store};
use crate::job::Failure;

/// Objects of a store that are deleted at once.
const DELETES: usize = 8;

/// What is compressed before others get a turn: a few milliseconds of work.
const PIECE: usize = 64 * 1024;

/// The longest time that S3 signs for.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Stores bytes that are in the wanted format already, and compresses them on the way if that is wanted (but for Parquet,
/// whose compression is inside the format: its bytes are stored as they come). Nothing is visible in the store until
/// `close`. Holds about 10 MiB at most for results up to 10 GB, more beyond (`upload`).
pub struct Stream {
    packer: Packer,
    upload: Upload,
    format: Format,
    compression: Compression,
}

/// What is compressed lands in memory, and is taken from there after each piece.
enum Packer {
    Plain,
    Gzip(GzipEncoder<Vec<u8>>),
    Zstd(ZstdEncoder<Vec<u8>>),
}

impl Packer {
    fn new(compression: Compression) -> Packer {
        match compression {
            Compression::None => Packer::Plain,
            Compression::Gzip => Packer::Gzip(GzipEncoder::new(Vec::new())),
            Compression::Zstd => Packer::Zstd(ZstdEncoder::new(Vec::new())),
        }
    }

    async fn pack(&mut self, piece: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Packer::Plain => Ok(piece.to_vec()),
            Packer::Gzip(encoder) => {
                encoder.write_all(piece).await?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Packer::Zstd(encoder) => {
                encoder.write_all(piece).await?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    async fn rest(self) -> std::io::Result<Vec<u8>> {
        match self {
            Packer::Plain => Ok(Vec::new()),
            Packer::Gzip(mut encoder) => {
                encoder.shutdown().await?;
                Ok(encoder.into_inner())
            }
            Packer::Zstd(mut encoder) => {
                encoder.shutdown().await?;
                Ok(encoder.into_inner())
            }
        }
    }
}

fn cannot_pack(error: std::io::Error) -> Failure {
    Failure::new(format!("the result cannot be compressed: {error}"))
}

/// What a browser is told.
fn content_type(format: Format, packed: Compression) -> &'static str {
    match (packed, format) {
        (Compression::Gzip, _) => "application/gzip",
        (Compression::Zstd, _) => "application/zstd",
        (Compression::None, Format::Parquet) => "application/vnd.apache.parquet",
        (Compression::None, Format::Csv) => "text/csv; charset=utf-8",
        (Compression::None, Format::Json) => "application/x-ndjson",
        (Compression::None, Format::Arrow) => "application/vnd.apache.arrow.stream",
    }
}

/// How the file as a whole is compressed.
pub(super) fn around(format: Format, compression: Compression) -> Compression {
    match format {
        Format::Parquet => Compression::None,
        _ => compression,
    }
}

impl Stream {
    /// Of a `Keep::Object`. Connects nowhere yet, unless it is a directory.
    pub async fn open(keep: &Keep) -> Result<Stream, Failure> {
        let Keep::Object { store, path, format, compression } = keep else {
            return Err(Failure::new("this result is not to be kept in a store"));
        };
        let around = around(*format, *compression);
        let upload = Upload::new(open(store).await?, path, content_type(*format, around))?;
        Ok(Stream { packer: Packer::new(around), upload, format: *format, compression: *compression })
    }

    /// Waits for the store when it is slower than whoever writes. After a failure nothing is left in the store, and
    /// everything else fails too.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), Failure> {
        if matches!(self.packer, Packer::Plain) {
            return self.upload.write(&chunk).await;
        }
        for piece in chunk.chunks(PIECE) {
            let packed = self.packer.pack(piece).await.map_err(cannot_pack)?;
            self.upload.write(&packed).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Bytes of the object so far, compressed.
    pub fn bytes(&self) -> u64 {
        self.upload.taken()
    }

    /// Makes the object visible. `rows` and `columns` as far as the source has told them.
    pub async fn close(self, rows: Option<u64>, columns: Vec<Column>) -> Result<Kept, Failure> {
        let Stream { packer, mut upload, format, compression } = self;
        let rest = packer.rest().await.map_err(cannot_pack)?;
        upload.write(&rest).await?;
        let (location, bytes) = (upload.location(), upload.taken());
        upload.close().await?;
        Ok(Kept {
            path: None,
            location: Some(location),
            format: Some(format),
            compression,
            rows,
            bytes: Some(bytes),
            columns,
            content: None,
        })
    }

    /// Leaves nothing behind. Dropping does the same, later.
    pub async fn abort(self) {
        self.upload.abort().await;
    }
}

/// Deletes objects (id, path); one that is not there counts as deleted. Returns the ids that are gone, and those that are
/// not, with the reason.
pub async fn delete(store: &Store, objects: Vec<(i64, String)>) -> (Vec<i64>, Vec<(i64, String)>) {
    let opened = match open(store).await {
        Ok(opened) => opened,
        Err(failure) => {
            let reason = failure.to_string();
            return (Vec::new(), objects.into_iter().map(|(id, _)| (id, reason.clone())).collect());
        }
    };
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    // Once the store has not been reached the others are not tried.
    let down = std::sync::OnceLock::new();
    let mut outcomes = futures_util::stream::iter(objects)
        .map(|(id, path)| {
            let (opened, down) = (opened.clone(), &down);
            async move {
                let outcome = match down.get() {
                    Some(failure) => Err(Failure::clone(failure)),
                    None => remove(&opened, &path).await,
                };
                if let Err(failure) = &outcome {
                    if failure.code.as_deref() == Some(UNREACHABLE) {
                        let _ = down.set(failure.clone());
                    }
                }
                (id, outcome)
            }
        })
        .buffer_unordered(DELETES);
    while let Some((id, outcome)) = outcomes.next().await {
        match outcome {
            Ok(()) => gone.push(id),
            Err(failure) => kept.push((id, failure.to_string())),
        }
    }
    drop(outcomes);
    (gone, kept)
}

/// A URL that anybody may read the object with, for a while; None where the store has no such thing.
pub async fn signed_url(store: &Store, path: &str, valid: Duration) -> Result<Option<String>, Failure> {
    let opened = open(store).await?;
    let location = opened.locate(path)?;
    let Some(signer) = &opened.signer else { return Ok(None) };
    if valid.is_zero() || valid > LONGEST {
        return Err(Failure::new("a URL can be valid for a second to 7 days"));
    }
    match signer.signed_url(reqwest::Method::GET, &location, valid).await {
        // `object_store` signs such a path as it stands in the URL, Azure expects it as it is.
        Ok(url) if opened.is_azure() && url.path().contains('%') => {
            Err(Failure::new("for this object no URL can be signed: its path has characters beyond ASCII, or blanks")
                .detail(format!("It is {}.", opened.location(path)))
                .hint("Use a path of ASCII letters, digits and - _ . in the result's configuration."))
        }
        Ok(url) => Ok(Some(url.to_string())),
        Err(error) => Err(failure(&opened, Doing { verb: "sign", path }, &error)
            .hint("Only credentials that are a key can sign: not a token, and none at all.")),
    }
}

/// The size of an object; None: it is not there. Of what somebody else wrote (an export).
pub async fn size(store: &Store, path: &str) -> Result<Option<u64>, Failure> {
    let opened = open(store).await?;
    match opened.objects.head(&opened.locate(path)?).await {
        Ok(meta) => Ok(Some(meta.size)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(failure(&opened, Doing { verb: "look up", path }, &error)),
    }
}
