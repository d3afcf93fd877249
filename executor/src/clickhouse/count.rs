//! How many rows a stream of ClickHouse's own bytes holds: ClickHouse does not say it to whoever reads the stream.
//!
//! Holds a bounded piece of the stream, whatever its size. What cannot be counted is not known; nothing fails for it.

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaDataReader;

use crate::results::Format;

/// How much of the end of a Parquet file is kept: its directory must lie in it.
const TAIL: usize = 4 * 1024 * 1024;
/// The longest header of an Arrow message.
const HEADER: usize = 16 * 1024 * 1024;

pub enum Counter {
    Json(u64),
    Csv { lines: u64, quoted: bool },
    Parquet(Vec<u8>),
    Arrow(Arrow),
}

impl Counter {
    pub fn of(format: Format) -> Counter {
        match format {
            Format::Json => Counter::Json(0),
            Format::Csv => Counter::Csv { lines: 0, quoted: false },
            Format::Parquet => Counter::Parquet(Vec::new()),
            Format::Arrow => Counter::Arrow(Arrow::default()),
        }
    }

    pub fn take(&mut self, chunk: &[u8]) {
        match self {
            Counter::Json(rows) => *rows += chunk.iter().filter(|byte| **byte == b'\n').count() as u64,
            Counter::Csv { lines, quoted } => {
                for byte in chunk {
                    // A quote inside quotes is written twice: it opens again at once.
                    match byte {
                        b'"' => *quoted = !*quoted,
                        b'\n' if !*quoted => *lines += 1,
                        _ => {}
                    }
                }
            }
            Counter::Parquet(tail) => {
                tail.extend_from_slice(chunk);
                if tail.len() > 2 * TAIL {
                    tail.drain(..tail.len() - TAIL);
                }
            }
            Counter::Arrow(arrow) => arrow.take(chunk),
        }
    }

    pub fn rows(&self) -> Option<u64> {
        match self {
            Counter::Json(rows) => Some(*rows),
            Counter::Csv { lines, .. } => Some(lines.saturating_sub(1)),
            Counter::Parquet(tail) => parquet_rows(tail),
            Counter::Arrow(arrow) => arrow.is_whole().then_some(arrow.rows),
        }
    }
}

/// A Parquet file ends with its directory, the directory's length, and PAR1.
fn parquet_rows(tail: &[u8]) -> Option<u64> {
    let end = tail.strip_suffix(b"PAR1")?;
    let (rest, length) = end.split_last_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let directory = rest.get(rest.len().checked_sub(length)?..)?;
    let metadata = ParquetMetaDataReader::decode_metadata(&Bytes::copy_from_slice(directory)).ok()?;
    u64::try_from(metadata.file_metadata().num_rows()).ok()
}

/// Reads the headers of the messages of an Arrow stream and passes over their bodies.
#[derive(Default)]
pub struct Arrow {
    header: Vec<u8>,
    /// Bytes of a body that are still to come.
    body: u64,
    rows: u64,
    lost: bool,
}

impl Arrow {
    fn take(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() && !self.lost {
            if self.body > 0 {
                let skip = usize::try_from(self.body).unwrap_or(usize::MAX).min(chunk.len());
                self.body -= skip as u64;
                chunk = &chunk[skip..];
                continue;
            }
            let needed = self.needed();
            let taken = (needed - self.header.len()).min(chunk.len());
            self.header.extend_from_slice(&chunk[..taken]);
            chunk = &chunk[taken..];
            if self.header.len() == 8 && !self.header.starts_with(&[0xff; 4]) {
                self.lost = true;
            } else if self.header.len() == needed && needed == self.needed() {
                self.message();
            }
        }
    }

    /// Whether it ends where a message does.
    fn is_whole(&self) -> bool {
        !self.lost && self.body == 0 && self.header.is_empty()
    }

    /// How long the header is, as far as it is known: a mark, a length, and so many bytes.
    fn needed(&self) -> usize {
        match self.header.get(4..8).and_then(|length| <[u8; 4]>::try_from(length).ok()) {
            Some(length) => 8 + usize::try_from(u32::from_le_bytes(length)).unwrap_or(HEADER).min(HEADER),
            None => 8,
        }
    }

    fn message(&mut self) {
        let header = std::mem::take(&mut self.header);
        if header.len() == 8 {
            return; // the end of the stream
        }
        match arrow_ipc::root_as_message(&header[8..]) {
            Ok(message) => {
                self.body = u64::try_from(message.bodyLength()).unwrap_or_default();
                let batch = message.header_as_record_batch().map_or(0, |batch| batch.length());
                self.rows += u64::try_from(batch).unwrap_or_default();
            }
            Err(_) => self.lost = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(format: Format, bytes: &[u8], piece: usize) -> Option<u64> {
        let mut counter = Counter::of(format);
        bytes.chunks(piece).for_each(|chunk| counter.take(chunk));
        counter.rows()
    }

    #[test]
    fn lines_are_rows_but_not_inside_quotes() {
        let csv = b"\"a\",\"b\"\n1,\"x\ny\"\n2,\"he said \"\"no\n\"\"\"\n";
        for piece in [1, 3, 100] {
            assert_eq!(counted(Format::Csv, csv, piece), Some(2));
            assert_eq!(counted(Format::Json, b"{\"a\":1}\n{\"a\":\"x\\ny\"}\n", piece), Some(2));
        }
        assert_eq!(counted(Format::Csv, b"\"a\"\n", 1), Some(0));
    }

    #[test]
    fn what_is_broken_is_not_counted() {
        assert_eq!(counted(Format::Parquet, b"PAR1 and no directory PAR1", 5), None);
        assert_eq!(counted(Format::Parquet, b"", 5), None);
        assert_eq!(counted(Format::Arrow, b"no arrow at all, but long enough for a header of one", 5), None);
    }
}
