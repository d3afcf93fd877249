//! The body of an answer, piece by piece, never with an error in it taken for data.
//!
//! ClickHouse sends 200 before it knows whether the query succeeds. If it fails later, the body goes on with
//! `\r\n__exception__\r\n<tag>\r\n<message>…`, where the tag was named in a header, and the connection is closed without the
//! last chunk. Servers before 25.11 have no tag: they append the message and may end the body properly; there the end of
//! the body is looked at. A body that ends early in any other way is a connection that was lost.

use std::collections::VecDeque;

use bytes::Bytes;
use reqwest::Response;

use super::error::Exception;

/// How much of the end is held back, because it may be an exception: ClickHouse cuts its message at 16 KiB.
const TAIL: usize = 64 * 1024;

/// Why a body did not come to its end.
#[derive(Debug)]
pub enum Broken {
    Exception(Exception),
    /// The connection was cut.
    Cut(String),
}

pub struct Body {
    response: Response,
    /// `\r\n__exception__\r\n<tag>`, where the server has tags.
    mark: Option<Vec<u8>>,
    /// Not given out yet.
    held: VecDeque<Bytes>,
    held_bytes: usize,
    ended: bool,
    /// What the query wrote, of one whose answer begins when it has ended: an INSERT.
    pub written_rows: Option<u64>,
}

impl Body {
    pub fn of(response: Response) -> Body {
        let tag = response.headers().get("X-ClickHouse-Exception-Tag").map(|tag| tag.as_bytes().to_vec());
        let mark = tag.filter(|tag| !tag.is_empty()).map(|tag| [b"\r\n__exception__\r\n".as_slice(), &tag].concat());
        let summary =
            response.headers().get("X-ClickHouse-Summary").and_then(|s| serde_json::from_slice(s.as_bytes()).ok());
        let written =
            summary.and_then(|summary: serde_json::Value| summary.get("written_rows")?.as_str()?.parse().ok());
        Body { response, mark, held: VecDeque::new(), held_bytes: 0, ended: false, written_rows: written }
    }

    /// The next bytes of data; None: all of it has come. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let spare = self.held.front().is_some_and(|first| self.ended || self.held_bytes - first.len() >= TAIL);
            if spare {
                let first = self.held.pop_front();
                self.held_bytes -= first.as_ref().map_or(0, Bytes::len);
                return Ok(first);
            }
            if self.ended {
                return Ok(None);
            }
            let cut = match self.response.chunk().await {
                Ok(Some(chunk)) => {
                    self.held_bytes += chunk.len();
                    self.held.push_back(chunk);
                    continue;
                }
                Ok(None) => None,
                Err(error) => Some(causes(&error)),
            };
            self.ended = true;
            let exception = exception(&self.held.make_contiguous().concat(), self.mark.as_deref());
            if let Some(broken) = exception.map(Broken::Exception).or(cut.map(Broken::Cut)) {
                self.held.clear();
                return Err(broken);
            }
        }
    }
}

/// The exception at the end of a body.
fn exception(tail: &[u8], mark: Option<&[u8]>) -> Option<Exception> {
    let tail = &tail[tail.len().saturating_sub(TAIL)..];
    let Some(mark) = mark else {
        let text = String::from_utf8_lossy(tail);
        let at = text.rfind("Code: ")?;
        let ends_like_one = text.trim_end().ends_with(')') && text[at..].contains(" (version ");
        return Exception::read(&text[at..]).filter(|_| ends_like_one);
    };
    let at = tail.windows(mark.len()).rposition(|window| window == mark)?;
    let text = String::from_utf8_lossy(&tail[at + mark.len()..]);
    let unreadable = || Exception::of_code(0, "the server reported an error that cannot be read");
    Some(Exception::read(&text).unwrap_or_else(unreadable))
}

/// An error of the connection with its causes, which is where the reason is.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last().is_none_or(|last| !last.ends_with(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    // The first one is the client library's, with the URL.
    match texts.as_slice() {
        [_, rest @ ..] if !rest.is_empty() => rest.join(": "),
        _ => texts.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_body_can_be_an_exception() {
        let message =
            "Code: 395. DB::Exception: It is non-zero. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 26.7.2.1)";
        let tagged = format!("0\r\n__exception__\r\nabcdefgh\r\n{message}\n100 abcdefgh\r\n__exception__\r\n");
        let mark = b"\r\n__exception__\r\nabcdefgh".as_slice();
        assert_eq!(exception(tagged.as_bytes(), Some(mark)).map(|e| e.code), Some(395));
        let other = b"\r\n__exception__\r\nzzzzzzzz".as_slice();
        assert_eq!(exception(tagged.as_bytes(), Some(other)), None);
        assert_eq!(exception(format!("1\n2\n{message}\n").as_bytes(), None).map(|e| e.code), Some(395));
        assert_eq!(exception(format!("{message}\n1\n2\n").as_bytes(), None), None);
        assert_eq!(exception(b"", None), None);
    }
}
