//! Reading results back: their bytes without the compression around them, and their rows, whatever the format.
//!
//! Bounded memory: a piece of the object and a batch of rows. Runs on a runtime with one thread too, if it may have four
//! blocking threads; those are started by the thread that runs it, and inherit its signal mask.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};

use arrow_ipc::reader::StreamDecoder;
use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use bytes::{Buf, Bytes};
use futures_util::stream::BoxStream;
use futures_util::StreamExt;
use object_store::ObjectStoreExt;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, ReadBuf};

use super::failure::{failure, Doing};
use super::lines::{Csv, Json};
use super::object::around;
use super::pages::{Pages, TURNS};
use super::rows::apart;
use super::store::{open, Opened};
use super::{values, Compression, Format, Store};
use crate::job::Failure;

/// Bytes that are given at once.
const PIECE: usize = 64 * 1024;

/// Rows of Parquet that are given at once.
const BATCH: usize = 1000;

/// The bytes of an object, in pieces.
pub struct Reader {
    opened: Arc<Opened>,
    name: String,
    bytes: Unpacker,
}

enum Unpacker {
    Plain(Chunks),
    Gzip(Box<GzipDecoder<Chunks>>),
    Zstd(Box<ZstdDecoder<Chunks>>),
}

/// The bytes of an object without the compression around it. Parquet comes as it is: its compression is inside.
pub async fn read(store: &Store, path: &str, format: Format, compression: Compression) -> Result<Reader, Failure> {
    let opened = open(store).await?;
    let location = opened.locate(path)?;
    let object = opened.objects.get(&location).await;
    let object = object.map_err(|error| failure(&opened, Doing { verb: "read", path }, &error))?;
    let chunks = Chunks { stream: object.into_stream(), current: Bytes::new() };
    let bytes = match around(format, compression) {
        Compression::None => Unpacker::Plain(chunks),
        Compression::Gzip => {
            let mut decoder = GzipDecoder::new(chunks);
            decoder.multiple_members(true);
            Unpacker::Gzip(Box::new(decoder))
        }
        Compression::Zstd => {
            let mut decoder = ZstdDecoder::new(chunks);
            decoder.multiple_members(true);
            Unpacker::Zstd(Box::new(decoder))
        }
    };
    Ok(Reader { opened, name: path.to_owned(), bytes })
}

impl Reader {
    /// The next piece, never empty; None: that was all.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let mut piece = vec![0; PIECE];
        let count = match &mut self.bytes {
            Unpacker::Plain(chunks) => chunks.read(&mut piece).await,
            Unpacker::Gzip(decoder) => decoder.read(&mut piece).await,
            Unpacker::Zstd(decoder) => decoder.read(&mut piece).await,
        };
        let count = count.map_err(|error| self.failed(error))?;
        piece.truncate(count);
        Ok((count > 0).then(|| piece.into()))
    }

    fn failed(&self, error: std::io::Error) -> Failure {
        let doing = Doing { verb: "read", path: &self.name };
        match error.get_ref().and_then(|inner| inner.downcast_ref::<object_store::Error>()) {
            Some(error) => failure(&self.opened, doing, error),
            None => unreadable(&self.opened, &self.name, &error.to_string()),
        }
    }
}

fn unreadable(opened: &Opened, name: &str, what: &str) -> Failure {
    let failure = Failure::new(format!("the object cannot be read: {what}"))
        .detail(format!("It is {}.", opened.location(name)))
        .hint("It was not written by this task, or it has been changed since.");
    opened.masked(failure)
}

/// A stream of chunks as something that is read.
struct Chunks {
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    current: Bytes,
}

impl AsyncBufRead for Chunks {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.current.is_empty() {
            match ready!(this.stream.poll_next_unpin(context)) {
                Some(Ok(chunk)) => this.current = chunk,
                Some(Err(error)) => return Poll::Ready(Err(std::io::Error::other(error))),
                None => break,
            }
        }
        Poll::Ready(Ok(&this.current))
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        self.get_mut().current.advance(count);
    }
}

impl AsyncRead for Chunks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let bytes = ready!(self.as_mut().poll_fill_buf(context))?;
        let count = bytes.len().min(buffer.remaining());
        buffer.put_slice(&bytes[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

/// The rows of an object, in batches.
pub struct RowReader {
    opened: Arc<Opened>,
    name: String,
    /// Rows that are passed over yet.
    skip: u64,
    from: Source,
}

enum Source {
    Csv(Reader, Box<Csv>),
    Json(Reader, Json),
    Arrow(Reader, Box<StreamDecoder>),
    /// None: an earlier call was dropped in the middle.
    Parquet(Pages, Option<ParquetRecordBatchReader>),
    End,
}

/// The rows of an object from `offset` on. Values are as `Shape` says for each column, with two exceptions: of CSV every
/// value is a text, and a 64-bit number without sign is a number where it fits one with sign.
pub async fn rows(
    store: &Store,
    path: &str,
    format: Format,
    compression: Compression,
    offset: u64,
) -> Result<RowReader, Failure> {
    let opened = open(store).await?;
    let mut skip = offset;
    let from = match format {
        Format::Csv => Source::Csv(read(store, path, format, compression).await?, Box::default()),
        Format::Json => Source::Json(read(store, path, format, compression).await?, Json::default()),
        Format::Arrow => Source::Arrow(read(store, path, format, compression).await?, Box::new(StreamDecoder::new())),
        Format::Parquet => {
            let pages = Pages::open(opened.clone(), path).await?;
            let asked = pages.clone();
            let reader = in_turn(move || {
                let builder = ParquetRecordBatchReaderBuilder::try_new(asked)?.with_batch_size(BATCH);
                // Parquet's reader passes over rows without decoding them.
                builder.with_offset(usize::try_from(offset).unwrap_or(usize::MAX)).build()
            })
            .await?;
            let reader = reader
                .map_err(|error| pages.failure().unwrap_or_else(|| unreadable(&opened, path, &error.to_string())))?;
            skip = 0;
            Source::Parquet(pages, Some(reader))
        }
    };
    Ok(RowReader { opened, name: path.to_owned(), skip, from })
}

/// At most `limit` rows from `offset` on, all at once; None: every row.
pub async fn read_rows(
    store: &Store,
    path: &str,
    format: Format,
    compression: Compression,
    offset: u64,
    limit: Option<u64>,
) -> Result<Vec<Map<String, Value>>, Failure> {
    let mut all = Vec::new();
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if limit == 0 {
        return Ok(all);
    }
    let mut reader = rows(store, path, format, compression, offset).await?;
    while let Some(batch) = reader.next().await? {
        let room = limit - all.len();
        all.extend(batch.into_iter().take(room));
        if all.len() == limit {
            break;
        }
    }
    Ok(all)
}

impl RowReader {
    /// The next rows, never none; None: that was all.
    pub async fn next(&mut self) -> Result<Option<Vec<Map<String, Value>>>, Failure> {
        loop {
            let mut batch = match self.batch().await? {
                Some(batch) => batch,
                None => return Ok(None),
            };
            let skipped = batch.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= skipped as u64;
            batch.drain(..skipped);
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
    }

    /// What comes next, perhaps no row; None: that was all.
    async fn batch(&mut self) -> Result<Option<Vec<Map<String, Value>>>, Failure> {
        let mut batch = Vec::new();
        let mut at_end = false;
        let outcome = match &mut self.from {
            Source::Csv(reader, csv) => match reader.next().await? {
                Some(piece) => csv.push(&piece, &mut batch),
                None => {
                    at_end = true;
                    csv.finish(&mut batch)
                }
            },
            Source::Json(reader, json) => match reader.next().await? {
                Some(piece) => json.push(&piece, &mut batch),
                None => {
                    at_end = true;
                    json.finish(&mut batch)
                }
            },
            Source::Arrow(reader, decoder) => match reader.next().await? {
                Some(piece) => decode(decoder, piece, &mut batch),
                None => {
                    at_end = true;
                    decoder.finish().map_err(|error| error.to_string())
                }
            },
            Source::Parquet(pages, reader) => {
                let mut taken = reader.take().ok_or_else(|| Failure::new("reading the object was stopped before"))?;
                let (taken, next) = in_turn(move || {
                    let next = taken.next();
                    let rows = next.map(|batch| batch.map_err(|e| e.to_string()).and_then(|b| values::rows(&b)));
                    (taken, rows)
                })
                .await?;
                *reader = Some(taken);
                match next {
                    Some(Ok(rows)) => {
                        batch = rows;
                        Ok(())
                    }
                    Some(Err(what)) => match pages.failure() {
                        Some(failure) => return Err(failure),
                        None => Err(what),
                    },
                    None => {
                        at_end = true;
                        Ok(())
                    }
                }
            }
            Source::End => return Ok(None),
        };
        outcome.map_err(|what| unreadable(&self.opened, &self.name, &what))?;
        if at_end {
            self.from = Source::End;
        }
        Ok(Some(batch))
    }
}

/// Work with `Pages`, on a thread that may block.
async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    // It is never closed.
    let _turn = TURNS.acquire().await.ok();
    apart(work).await
}

fn decode(decoder: &mut StreamDecoder, piece: Bytes, rows: &mut Vec<Map<String, Value>>) -> Result<(), String> {
    // What is damaged in a way that the decoder does not expect may make it panic; it is not used again then.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let mut buffer = piece.into();
        // At the end of the piece nothing comes out any more.
        while let Some(batch) = decoder.decode(&mut buffer).map_err(|error| error.to_string())? {
            rows.extend(values::rows(&batch)?);
        }
        Ok(())
    }));
    decoded.unwrap_or_else(|_| Err("it is damaged".into()))
}
