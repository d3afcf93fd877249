//! What an answer means, and what is kept of it.
//!
//! Must never hold more of an answer than the target's `max_response_bytes`, nor leave part of a result behind.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, NaiveDateTime, Utc};
use reqwest::header::{HeaderMap, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde_json::{Map, Value};
use tokio::time::{timeout_at, Instant};

use super::exchange::lost;
use super::rows::{table_of, Table};
use crate::job::{Done, Ending, Failure};
use crate::kind::{Context, Progress};
use crate::results::{Compression, Format, Keep, Kept, Rows, Stream};

const MOST_WAIT: Duration = Duration::from_secs(3600);
/// Of an answer that was not expected, and what of it is told.
const EXCERPT_BYTES: usize = 4096;
const EXCERPT_CHARS: usize = 500;
/// What is read of an answer that only tells why it is refused.
const EXCERPT_TIME: Duration = Duration::from_secs(5);
/// JSON beyond this is parsed where it holds nobody up.
const LARGE_JSON: usize = 256 * 1024;
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// An answer while it is read.
pub struct Answer<'a> {
    pub response: Response,
    pub max_bytes: u64,
    pub deadline: Instant,
    pub place: String,
    pub masks: &'a [String],
    pub context: &'a Context,
}

impl Answer<'_> {
    /// The other side did what it was asked for.
    pub async fn keep(mut self, keep: &Keep, goes_on: bool) -> Ending {
        let kept = match keep {
            Keep::Nothing => self.discard().await.map(|()| None),
            Keep::Object { format, compression, .. } if self.is_in(*format, *compression) => {
                self.stream(keep).await.map(Some)
            }
            _ => self.rows(keep).await.map(Some),
        };
        match kept {
            Ok(kept) => Ending::Finished(Done { kept, goes_on, ..Done::default() }),
            Err(ending) => ending,
        }
    }

    /// It did not.
    pub async fn refused(mut self) -> Ending {
        let status = self.response.status();
        let reason = status.canonical_reason().unwrap_or("unknown status");
        let after = retry_after(self.response.headers(), Utc::now());
        let excerpt = self.excerpt().await;
        let detail = if excerpt.is_empty() { self.place } else { format!("{}: {excerpt}", self.place) };
        let failure =
            Failure::new(format!("the answer is {} {reason}", status.as_u16())).code(status.as_str()).detail(detail);
        if is_passing(status) {
            Ending::Again { failure: failure.hint("It is tried again."), after, down: false }
        } else {
            Ending::Failed(failure.hint("If this is what the request is to get, list the status under expect."))
        }
    }

    /// The next piece; none at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Ending> {
        match timeout_at(self.deadline, self.response.chunk()).await {
            Err(_) => Err(Ending::Lost(
                Failure::new("the answer did not end in time")
                    .detail(self.place.clone())
                    .hint("Raise the target's timeout if answers take longer."),
            )),
            Ok(Err(error)) => Err(Ending::Lost(lost(&error, &self.place))),
            Ok(Ok(chunk)) => Ok(chunk),
        }
    }

    /// Reads to the end, so that the connection can be used again, but no more than what would be kept of others.
    async fn discard(&mut self) -> Result<(), Ending> {
        let mut bytes = 0;
        while let Some(chunk) = self.chunk().await? {
            bytes += chunk.len() as u64;
            if bytes > self.max_bytes {
                break;
            }
        }
        Ok(())
    }

    fn too_large(&self) -> Ending {
        Ending::Failed(
            Failure::new(format!("the answer is larger than {} bytes", self.max_bytes))
                .code(self.response.status().as_str())
                .detail(self.place.clone())
                .hint("Raise the target's max_response_bytes, or ask for less."),
        )
    }

    /// Why the answer cannot be kept, as far as it is known before any of it is read.
    fn announced_too_large(&self) -> Option<Ending> {
        let length = self.response.content_length()?;
        (length > self.max_bytes).then(|| self.too_large())
    }

    async fn whole(&mut self) -> Result<Vec<u8>, Ending> {
        if let Some(ending) = self.announced_too_large() {
            return Err(ending);
        }
        let mut body = Vec::new();
        let mut told = Instant::now();
        while let Some(chunk) = self.chunk().await? {
            if (body.len() + chunk.len()) as u64 > self.max_bytes {
                return Err(self.too_large());
            }
            body.extend_from_slice(&chunk);
            self.tell(&mut told, body.len() as u64);
        }
        Ok(body)
    }

    fn tell(&self, told: &mut Instant, bytes: u64) {
        if told.elapsed() >= PROGRESS_EVERY {
            *told = Instant::now();
            (self.context.progress)(Progress { bytes, ..Progress::default() });
        }
    }

    fn content_type(&self) -> String {
        let value = self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    fn is_json(&self) -> bool {
        let content = self.content_type();
        content == "application/json" || content == "text/json" || content.ends_with("+json")
    }

    /// The other side sends what is to be stored, byte by byte.
    fn is_in(&self, format: Format, compression: Compression) -> bool {
        let content = self.content_type();
        let types: &[&str] = match format {
            Format::Csv => &["text/csv"],
            Format::Json => {
                &["application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"]
            }
            Format::Parquet => &["application/vnd.apache.parquet"],
            Format::Arrow => &["application/vnd.apache.arrow.stream"],
        };
        let plain = !self.response.headers().contains_key(reqwest::header::CONTENT_ENCODING);
        plain && compression == Compression::None && types.contains(&content.as_str())
    }

    async fn stream(&mut self, keep: &Keep) -> Result<Kept, Ending> {
        if let Some(ending) = self.announced_too_large() {
            return Err(ending);
        }
        let stop = self.context.stop.clone();
        let mut stream = Stream::open(keep).await.map_err(Ending::Failed)?;
        let copied = tokio::select! {
            biased;
            _ = stop.cancelled() => Err(Ending::Stopped),
            copied = self.copy(&mut stream) => copied,
        };
        match copied {
            Ok(()) => stream.close(None, Vec::new()).await.map_err(Ending::Failed),
            Err(ending) => {
                stream.abort().await;
                Err(ending)
            }
        }
    }

    async fn copy(&mut self, stream: &mut Stream) -> Result<(), Ending> {
        let mut bytes = 0;
        let mut told = Instant::now();
        while let Some(chunk) = self.chunk().await? {
            bytes += chunk.len() as u64;
            if bytes > self.max_bytes {
                return Err(self.too_large());
            }
            stream.write(chunk).await.map_err(Ending::Failed)?;
            self.tell(&mut told, bytes);
        }
        Ok(())
    }

    async fn rows(&mut self, keep: &Keep) -> Result<Kept, Ending> {
        let stop = self.context.stop.clone();
        let table = tokio::select! {
            biased;
            _ = stop.cancelled() => return Err(Ending::Stopped),
            table = self.table() => table?,
        };
        let mut rows = Rows::open(keep, table.columns).await.map_err(Ending::Failed)?;
        for row in table.rows {
            let pushed = tokio::select! {
                biased;
                _ = stop.cancelled() => Err(Ending::Stopped),
                pushed = rows.push(row) => pushed.map_err(Ending::Failed),
            };
            if let Err(ending) = pushed {
                rows.abort().await;
                return Err(ending);
            }
        }
        rows.close().await.map_err(Ending::Failed)
    }

    async fn table(&mut self) -> Result<Table, Ending> {
        let body = self.whole().await?;
        let status = self.response.status().as_u16();
        let headers = headers_of(self.response.headers());
        let json = self.is_json();
        if body.len() < LARGE_JSON {
            return Ok(table_of(status, headers, body, json));
        }
        tokio::task::spawn_blocking(move || table_of(status, headers, body, json))
            .await
            .map_err(|error| Ending::Failed(Failure::new(format!("the answer cannot be read: {error}"))))
    }

    /// The beginning of an answer as a text, for a message. What cannot be read is left out: the status is known.
    async fn excerpt(&mut self) -> String {
        self.deadline = self.deadline.min(Instant::now() + EXCERPT_TIME);
        let mut body = Vec::new();
        let mut cut = false;
        while let Ok(Some(chunk)) = self.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > EXCERPT_BYTES {
                body.truncate(EXCERPT_BYTES);
                cut = true;
                break;
            }
        }
        shortened(&String::from_utf8_lossy(&body), cut, self.masks)
    }
}

/// Masked first and shortened then: half a secret would not be recognised.
fn shortened(text: &str, cut: bool, masks: &[String]) -> String {
    let mut text = text.to_owned();
    if cut {
        let longest = masks.iter().map(|mask| begun(&text, mask)).max().unwrap_or_default();
        text.truncate(text.len() - longest);
    }
    let masked = masked(&text, masks);
    let clean: String = masked.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let clean = clean.trim();
    if cut || clean.chars().count() > EXCERPT_CHARS {
        let short: String = clean.chars().take(EXCERPT_CHARS - 1).collect();
        return format!("{short}…");
    }
    clean.to_owned()
}

/// How many bytes at the end of a text are the beginning of a secret.
fn begun(text: &str, secret: &str) -> usize {
    (1..secret.len())
        .rev()
        .filter(|at| secret.is_char_boundary(*at))
        .find(|at| text.ends_with(&secret[..*at]))
        .unwrap_or(0)
}

/// A text without the secrets, also as JSON and URLs write them.
pub fn masked(text: &str, masks: &[String]) -> String {
    let mut all: Vec<String> = Vec::new();
    for mask in masks.iter().filter(|mask| mask.len() >= 4) {
        let json = Value::from(mask.as_str()).to_string();
        all.push(json.trim_matches('"').to_owned());
        all.push(super::template::encoded(mask));
        all.push(mask.clone());
    }
    all.sort_by_key(|mask| std::cmp::Reverse(mask.len()));
    all.iter().fold(text.to_owned(), |text, mask| text.replace(mask.as_str(), "***"))
}

/// Statuses that say: not now.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// How long the other side wants to be left alone: seconds, or a date in any of HTTP's three forms.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // What is too long for a number is bounded as well.
        return Some(text.parse().map_or(MOST_WAIT, Duration::from_secs).min(MOST_WAIT));
    }
    let old = |format| NaiveDateTime::parse_from_str(text, format).ok().map(|at| at.and_utc());
    let at = DateTime::parse_from_rfc2822(text)
        .map(|at| at.with_timezone(&Utc))
        .ok()
        .or_else(|| old("%A, %d-%b-%y %H:%M:%S GMT"))
        .or_else(|| old("%a %b %e %H:%M:%S %Y"))?;
    Some((at - now).to_std().unwrap_or_default().min(MOST_WAIT))
}

fn headers_of(headers: &HeaderMap) -> Map<String, Value> {
    let mut found: Map<String, Value> = Map::new();
    for (name, value) in headers {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match found.get_mut(name.as_str()) {
            Some(Value::String(all)) => {
                all.push_str(", ");
                all.push_str(&text);
            }
            _ => {
                found.insert(name.as_str().to_owned(), Value::from(text));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_every_form_and_bounded() {
        let now = DateTime::parse_from_rfc3339("2026-11-20T12:00:00Z").unwrap().with_timezone(&Utc);
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|after| after.as_secs())
        };
        assert_eq!(after("0"), Some(0));
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("86400"), Some(3600));
        assert_eq!(after("99999999999999999999999"), Some(3600));
        assert_eq!(after("Fri, 20 Nov 2026 12:00:30 GMT"), Some(30));
        assert_eq!(after("Friday, 20-Nov-26 12:00:30 GMT"), Some(30));
        assert_eq!(after("Fri Nov 20 12:00:30 2026"), Some(30));
        assert_eq!(after("Fri, 20 Nov 2026 11:00:00 GMT"), Some(0));
        assert_eq!(after("Sat, 21 Nov 2026 12:00:00 GMT"), Some(3600));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-5"), None);
        assert_eq!(after(""), None);
    }

    #[test]
    fn excerpts_are_bounded_and_hold_no_secret() {
        let masks = vec!["hunter22hunter22".to_owned(), "a\"b c".to_owned()];
        assert_eq!(shortened("got hunter22hunter22\n", false, &masks), "got ***");
        assert_eq!(shortened(r#"{"x": "a\"b c", "y": "a%22b%20c"}"#, false, &masks), r#"{"x": "***", "y": "***"}"#);
        let long = shortened(&"ü".repeat(2000), false, &masks);
        assert_eq!(long.chars().count(), EXCERPT_CHARS);
        let cut = "hunter22hunter22".repeat(300);
        let cut = shortened(&cut[..EXCERPT_BYTES - 5], true, &masks);
        assert!(!cut.contains("hunter"), "{cut}");
        let straddling = format!("{}hunter22hunter22", " ".repeat(490));
        assert!(!shortened(&straddling, false, &masks).contains("hunt"));
    }
}
