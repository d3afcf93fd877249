//! A Parquet file in a store as something that Parquet's reader reads, a few blocks at a time. It asks for columns page by
//! page, so that row groups of any size take little memory.
//!
//! Blocks the thread it runs on while it waits for the store: it must be one of the runtime's blocking threads (`apart`).
//! Waiting may need another one of them, to look up a host's name: so few are used at once (`TURNS`), and a runtime that reads
//! Parquet must have at least four.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{GetResultPayload, ObjectStoreExt};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::failure::{failure, Doing};
use super::store::Opened;
use crate::job::Failure;

const BLOCK: u64 = 256 * 1024;

/// Blocks that are held: 16 MiB.
const HELD: usize = 64;

/// What is fetched at once of a file that is read from one end to the other.
const AHEAD: u64 = 4;

/// Who may block a thread for it.
pub(super) static TURNS: Semaphore = Semaphore::const_new(2);

#[derive(Clone)]
pub(super) struct Pages(Arc<Inner>);

struct Inner {
    opened: Arc<Opened>,
    path: Path,
    name: String,
    length: u64,
    /// Of a directory: read without the runtime.
    file: Option<File>,
    runtime: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    blocks: HashMap<u64, (Bytes, u64)>,
    uses: u64,
    /// What the store answered, for whoever gets the reader's error.
    failure: Option<Failure>,
}

impl Pages {
    pub async fn open(opened: Arc<Opened>, name: &str) -> std::result::Result<Pages, Failure> {
        let path = opened.locate(name)?;
        let failed = |error| failure(&opened, Doing { verb: "read", path: name }, &error);
        let (length, file) = if opened.is_directory() {
            let object = opened.objects.get(&path).await.map_err(failed)?;
            match (object.meta.size, object.payload) {
                (size, GetResultPayload::File(file, _)) => (size, Some(file)),
                (size, _) => (size, None),
            }
        } else {
            (opened.objects.head(&path).await.map_err(failed)?.size, None)
        };
        Ok(Pages(Arc::new(Inner {
            path,
            name: name.to_owned(),
            length,
            file,
            runtime: Handle::current(),
            state: Mutex::default(),
            opened,
        })))
    }

    /// What the store said when reading failed.
    pub fn failure(&self) -> Option<Failure> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).failure.take()
    }

    fn fetch(&self, from: u64, to: u64) -> Result<Bytes> {
        let inner = &self.0;
        if let Some(file) = &inner.file {
            let mut bytes = vec![0; to.saturating_sub(from) as usize];
            file.read_exact_at(&mut bytes, from)?;
            return Ok(bytes.into());
        }
        let outcome = inner.runtime.block_on(inner.opened.objects.get_range(&inner.path, from..to));
        outcome.map_err(|error| {
            let doing = Doing { verb: "read", path: &inner.name };
            let failure = failure(&inner.opened, doing, &error);
            inner.state.lock().unwrap_or_else(PoisonError::into_inner).failure = Some(failure);
            ParquetError::General("the store does not give it".into())
        })
    }

    fn held(&self, number: u64) -> Option<Bytes> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.uses += 1;
        let uses = state.uses;
        let (block, used) = state.blocks.get_mut(&number)?;
        *used = uses;
        Some(block.clone())
    }

    fn block(&self, number: u64) -> Result<Bytes> {
        if let Some(block) = self.held(number) {
            return Ok(block);
        }
        let length = self.0.length;
        let (first, last) = if length <= HELD as u64 * BLOCK {
            (0, length.div_ceil(BLOCK))
        } else if number > 0 && self.held(number - 1).is_some() {
            (number, number + AHEAD)
        } else {
            (number, number + 1)
        };
        let bytes = self.fetch(first * BLOCK, (last * BLOCK).min(length))?;
        let mut wanted = Bytes::new();
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (number_of, chunk) in (first..).zip(bytes.chunks(BLOCK as usize)) {
            // Copied, so that a block does not hold the others.
            let block = Bytes::copy_from_slice(chunk);
            if number_of == number {
                wanted = block.clone();
            }
            if state.blocks.len() >= HELD {
                let oldest = state.blocks.iter().min_by_key(|(_, (_, used))| *used).map(|(number, _)| *number);
                oldest.and_then(|oldest| state.blocks.remove(&oldest));
            }
            state.uses += 1;
            let uses = state.uses;
            state.blocks.insert(number_of, (block, uses));
        }
        Ok(wanted)
    }

    /// What there is from here to the end of a block.
    fn from(&self, at: u64) -> Result<Bytes> {
        if at >= self.0.length {
            return Ok(Bytes::new());
        }
        let block = self.block(at / BLOCK)?;
        let inside = ((at % BLOCK) as usize).min(block.len());
        Ok(block.slice(inside..))
    }
}

impl Length for Pages {
    fn len(&self) -> u64 {
        self.0.length
    }
}

impl ChunkReader for Pages {
    type T = From;

    fn get_read(&self, start: u64) -> Result<From> {
        Ok(From { pages: self.clone(), at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let end = start.saturating_add(length as u64);
        if end > self.0.length {
            return Err(ParquetError::EOF("the file is shorter than it says".into()));
        }
        if length as u64 > AHEAD * BLOCK {
            return self.fetch(start, end);
        }
        let first = self.from(start)?;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        let mut bytes = BytesMut::with_capacity(length);
        bytes.extend_from_slice(&first);
        while bytes.len() < length {
            let next = self.from(start + bytes.len() as u64)?;
            if next.is_empty() {
                return Err(ParquetError::EOF("the file is shorter than it says".into()));
            }
            let take = next.len().min(length - bytes.len());
            bytes.extend_from_slice(&next[..take]);
        }
        Ok(bytes.freeze())
    }
}

/// Reads on from a place.
pub(super) struct From {
    pages: Pages,
    at: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.pages.from(self.at).map_err(io::Error::other)?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.at += count as u64;
        Ok(count)
    }
}
