//! One object on its way into a store: small ones in one request, larger ones in parts.
//!
//! Holds two parts at most: one that is filled and one on its way. Nothing is visible before `close`; whatever else becomes
//! of it, `abort`, an error, or being dropped, removes the parts that the store has.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{Attribute, Attributes, MultipartUpload, ObjectStoreExt, PutMultipartOptions, PutOptions};
use tokio::task::JoinSet;

use super::failure::{failure, is_bucket_missing, is_missing, Doing};
use super::store::Opened;
use crate::job::Failure;

/// The smallest part that S3 takes.
const PART: usize = 5 * 1024 * 1024;

/// Parts after which they are made twice as large. S3 takes 10,000 parts: 300 GiB in all.
const PARTS_OF_A_SIZE: usize = 2000;

/// How long removing the parts may take.
const ABORT: Duration = Duration::from_secs(30);

fn part_size(number: usize) -> usize {
    PART << (number / PARTS_OF_A_SIZE).min(4)
}

pub(super) struct Upload {
    opened: Arc<Opened>,
    path: Path,
    /// As the user names it.
    name: String,
    attributes: Attributes,
    buffer: BytesMut,
    parts: Parts,
    number: usize,
    /// Bytes taken.
    taken: u64,
    /// Something failed, or a call was dropped in the middle: it cannot be closed any more.
    broken: bool,
}

/// The multipart upload, once there is one; aborted when dropped.
#[derive(Default)]
struct Parts {
    upload: Option<Box<dyn MultipartUpload>>,
    on_the_way: JoinSet<object_store::Result<()>>,
}

/// Waits until no part is on its way.
async fn settle(parts: &mut JoinSet<object_store::Result<()>>) -> object_store::Result<()> {
    while let Some(part) = parts.join_next().await {
        part.map_err(|error| object_store::Error::JoinError { source: error })??;
    }
    Ok(())
}

impl Parts {
    /// Goes on when whoever waits for it is dropped.
    async fn abort(&mut self) {
        if let Some(task) = self.begin_abort() {
            // It does not panic, and is not cancelled but with the runtime.
            let _ = task.await;
        }
    }

    fn begin_abort(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let mut upload = self.upload.take()?;
        let mut on_the_way = std::mem::take(&mut self.on_the_way);
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(runtime.spawn(async move {
            on_the_way.shutdown().await;
            // If the store does not do it now nobody can: its own rules for incomplete uploads will.
            let _ = tokio::time::timeout(ABORT, upload.abort()).await;
        }))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.begin_abort();
    }
}

impl Upload {
    pub fn new(opened: Arc<Opened>, path: &str, content_type: &'static str) -> Result<Upload, Failure> {
        let mut attributes = Attributes::new();
        if !opened.is_directory() {
            attributes.insert(Attribute::ContentType, content_type.into());
        }
        Ok(Upload {
            path: opened.locate(path)?,
            name: path.to_owned(),
            opened,
            attributes,
            buffer: BytesMut::new(),
            parts: Parts::default(),
            number: 0,
            taken: 0,
            broken: false,
        })
    }

    pub fn taken(&self) -> u64 {
        self.taken
    }

    pub fn location(&self) -> String {
        self.opened.location(&self.name)
    }

    pub async fn write(&mut self, mut chunk: &[u8]) -> Result<(), Failure> {
        self.usable()?;
        self.taken += chunk.len() as u64;
        loop {
            let room = part_size(self.number) - self.buffer.len();
            if chunk.len() < room {
                self.buffer.extend_from_slice(chunk);
                return Ok(());
            }
            self.buffer.extend_from_slice(&chunk[..room]);
            chunk = &chunk[room..];
            self.broken = true;
            let part = self.buffer.split().freeze();
            if let Err(error) = self.send(part).await {
                return Err(self.fail(error).await);
            }
            self.broken = false;
        }
    }

    async fn send(&mut self, part: Bytes) -> object_store::Result<()> {
        let upload = match &mut self.parts.upload {
            Some(upload) => upload,
            none => {
                let options = PutMultipartOptions { attributes: self.attributes.clone(), ..Default::default() };
                none.insert(self.opened.objects.put_multipart_opts(&self.path, options).await?)
            }
        };
        settle(&mut self.parts.on_the_way).await?;
        self.number += 1;
        self.parts.on_the_way.spawn(upload.put_part(part.into()));
        Ok(())
    }

    /// Makes the object visible. If the store's very last answer is lost it may be there, whole, although this fails.
    pub async fn close(mut self) -> Result<(), Failure> {
        self.usable()?;
        match self.finish().await {
            Ok(()) => {
                self.parts.upload = None;
                Ok(())
            }
            Err(error) => Err(self.fail(error).await),
        }
    }

    async fn finish(&mut self) -> object_store::Result<()> {
        let rest = self.buffer.split().freeze();
        if self.parts.upload.is_none() {
            let options = PutOptions { attributes: self.attributes.clone(), ..Default::default() };
            self.opened.objects.put_opts(&self.path, rest.into(), options).await?;
            return Ok(());
        }
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        settle(&mut self.parts.on_the_way).await?;
        if let Some(upload) = &mut self.parts.upload {
            upload.complete().await?;
        }
        Ok(())
    }

    pub async fn abort(mut self) {
        self.parts.abort().await;
    }

    fn usable(&self) -> Result<(), Failure> {
        match self.broken {
            true => Err(Failure::new("the result was not stored: writing it failed or was stopped before")),
            false => Ok(()),
        }
    }

    async fn fail(&mut self, error: object_store::Error) -> Failure {
        self.broken = true;
        self.parts.abort().await;
        failure(&self.opened, Doing { verb: "write", path: &self.name }, &error)
    }
}

/// Deletes one object; one that is not there counts as deleted.
pub(super) async fn remove(opened: &Opened, name: &str) -> Result<(), Failure> {
    let path = opened.locate(name)?;
    let Err(mut error) = opened.objects.delete(&path).await else { return Ok(()) };
    if is_missing(&error) {
        // Not every answer says what is missing: it may be the bucket, and then nothing has been deleted.
        match opened.objects.list(Some(&path)).next().await {
            Some(Err(other)) if is_bucket_missing(&other) => error = other,
            _ => return Ok(()),
        }
    }
    Err(failure(opened, Doing { verb: "delete", path: name }, &error))
}
