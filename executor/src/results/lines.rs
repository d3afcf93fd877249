//! CSV and JSON lines, taken apart as they arrive in pieces. Pure; holds one row.

use serde_json::{Map, Value};

/// The longest row that is read, in bytes.
const LONGEST: usize = 64 * 1024 * 1024;

fn too_long(line: u64) -> String {
    format!("row {line} is longer than {} MiB", LONGEST / 1024 / 1024)
}

/// Rows of CSV with a header. Values are texts; nothing and `\N` without quotes are NULL.
#[derive(Default)]
pub(super) struct Csv {
    header: Option<Vec<String>>,
    fields: Vec<Option<String>>,
    field: Vec<u8>,
    size: usize,
    state: State,
    /// The field began with a quote.
    quoted: bool,
    rows: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    Quoted,
    /// A quote inside quotes: the end, or half of one that is meant.
    Quote,
}

impl Csv {
    pub fn push(&mut self, bytes: &[u8], rows: &mut Vec<Map<String, Value>>) -> Result<(), String> {
        for &byte in bytes {
            self.size += 1;
            if self.size > LONGEST {
                return Err(too_long(self.rows + 1));
            }
            match (self.state, byte) {
                (State::Quoted, b'"') => self.state = State::Quote,
                (State::Quoted, _) => self.field.push(byte),
                (State::Quote, b'"') => {
                    self.field.push(b'"');
                    self.state = State::Quoted;
                }
                (_, b',') => self.end_field()?,
                (_, b'\n') => self.end_row(rows)?,
                // Before the end of a line; alone it is not quoted by every program.
                (State::Quote, b'\r') => {}
                (State::Plain, b'"') if self.field.is_empty() && !self.quoted => {
                    self.quoted = true;
                    self.state = State::Quoted;
                }
                _ => self.field.push(byte),
            }
        }
        Ok(())
    }

    /// The last row, if no end of line follows it.
    pub fn finish(&mut self, rows: &mut Vec<Map<String, Value>>) -> Result<(), String> {
        match self.state {
            State::Quoted => Err(format!("row {} ends inside quotes", self.rows + 1)),
            _ if self.size > 0 => self.end_row(rows),
            _ => Ok(()),
        }
    }

    fn end_field(&mut self) -> Result<(), String> {
        let field = std::mem::take(&mut self.field);
        let quoted = std::mem::take(&mut self.quoted);
        self.state = State::Plain;
        let text = String::from_utf8(field).map_err(|_| format!("row {} is not UTF-8", self.rows + 1))?;
        let is_null = !quoted && (text.is_empty() || text == "\\N");
        self.fields.push((!is_null).then_some(text));
        Ok(())
    }

    fn end_row(&mut self, rows: &mut Vec<Map<String, Value>>) -> Result<(), String> {
        if self.state == State::Plain && !self.quoted && self.field.last() == Some(&b'\r') {
            self.field.pop();
        }
        self.end_field()?;
        self.size = 0;
        let fields = std::mem::take(&mut self.fields);
        let blank = fields.len() == 1 && fields[0].is_none();
        let Some(header) = &self.header else {
            // A header of nothing: no columns.
            let names = fields.into_iter().map(Option::unwrap_or_default);
            self.header = Some(if blank { Vec::new() } else { names.collect() });
            return Ok(());
        };
        if blank && header.len() > 1 {
            return Ok(());
        }
        self.rows += 1;
        if blank && header.is_empty() {
            rows.push(Map::new());
            return Ok(());
        }
        if fields.len() != header.len() {
            return Err(format!("row {} has {} values and not {}", self.rows, fields.len(), header.len()));
        }
        rows.push(header.iter().cloned().zip(fields.into_iter().map(Value::from)).collect());
        Ok(())
    }
}

/// An object a line.
#[derive(Default)]
pub(super) struct Json {
    line: Vec<u8>,
    rows: u64,
}

impl Json {
    pub fn push(&mut self, mut bytes: &[u8], rows: &mut Vec<Map<String, Value>>) -> Result<(), String> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.end_line(rows)?;
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > LONGEST {
            return Err(too_long(self.rows + 1));
        }
        Ok(())
    }

    pub fn finish(&mut self, rows: &mut Vec<Map<String, Value>>) -> Result<(), String> {
        self.end_line(rows)
    }

    fn end_line(&mut self, rows: &mut Vec<Map<String, Value>>) -> Result<(), String> {
        let line = std::mem::take(&mut self.line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        self.rows += 1;
        let row =
            serde_json::from_slice(&line).map_err(|error| format!("row {} is no JSON object: {error}", self.rows))?;
        rows.push(row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// However the pieces fall.
    fn csv(text: &str) -> Result<Value, String> {
        let mut answers = Vec::new();
        for size in [1, 2, 3, 7, 1000] {
            let (mut csv, mut rows) = (Csv::default(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                csv.push(piece, &mut rows)?;
            }
            csv.finish(&mut rows)?;
            answers.push(Value::Array(rows.into_iter().map(Value::Object).collect()));
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        answers.pop().ok_or_else(String::new)
    }

    #[test]
    fn csv_tells_null_from_an_empty_text() {
        let rows = csv("a,\"b,\"\"c\"\r\n1,\r\n\"\",\"x\r\ny\"\"\"\r\n\\N,\"\\N\"\n\nlast,ö");
        assert_eq!(
            rows.unwrap(),
            json!([
                {"a": "1", "b,\"c": null},
                {"a": "", "b,\"c": "x\r\ny\""},
                {"a": null, "b,\"c": "\\N"},
                {"a": "last", "b,\"c": "ö"},
            ])
        );
    }

    #[test]
    fn csv_of_one_column_or_none() {
        assert_eq!(csv("a\n\n\"\"\nx\n").unwrap(), json!([{"a": null}, {"a": ""}, {"a": "x"}]));
        assert_eq!(csv("\r\n\r\n\r\n").unwrap(), json!([{}, {}]));
        assert_eq!(csv("a,b\n").unwrap(), json!([]));
        assert_eq!(csv("").unwrap(), json!([]));
    }

    #[test]
    fn csv_that_is_cut_or_broken_is_an_error() {
        for (text, expected) in [("a\n\"x", "row 1 ends inside quotes"), ("a,b\n1\n", "row 1 has 1 values and not 2")] {
            assert_eq!(csv(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn json_lines_are_objects() {
        let (mut json, mut rows) = (Json::default(), Vec::new());
        for piece in "{\"a\":1}\n\n{\"b\":\"\\n\"}".as_bytes().chunks(3) {
            json.push(piece, &mut rows).unwrap();
        }
        json.finish(&mut rows).unwrap();
        assert_eq!(Value::from_iter(rows.into_iter().map(Value::Object)), json!([{"a": 1}, {"b": "\n"}]));
        assert!(json.push(b"[1]\n", &mut Vec::new()).unwrap_err().starts_with("row 3 is no JSON object"));
    }
}
