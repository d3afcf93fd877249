//! JSON as ClickHouse writes it, cut into its elements without reading their values: numbers of any size keep every digit.

/// The elements of an array, as they are written.
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let inside = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    Some(split(inside, ','))
}

/// The members of an object: (name as written, value as written).
pub fn members(text: &str) -> Option<Vec<(&str, &str)>> {
    let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    split(inside, ',')
        .into_iter()
        .map(|member| match split(member, ':').as_slice() {
            [name, value] => Some((*name, *value)),
            _ => None,
        })
        .collect()
}

/// Splits outside strings and brackets.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut from, mut depth, mut string, mut escaped) = (0, 0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if string => escaped = true,
            b'"' => string = !string,
            _ if string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ if depth == 0 && byte == separator as u8 => {
                found.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    let last = text[from..].trim();
    if !last.is_empty() || !found.is_empty() {
        found.push(last);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_keep_what_is_written() {
        let text = r#" [1, "a,]\"b", [2,3], {"x":"}"}, 170141183460469231731687303715884105727, null] "#;
        let expected = ["1", r#""a,]\"b""#, "[2,3]", r#"{"x":"}"}"#, "170141183460469231731687303715884105727", "null"];
        assert_eq!(elements(text).unwrap(), expected);
        assert_eq!(elements("[]").unwrap(), Vec::<&str>::new());
        assert_eq!(members(r#"{"a:b": 1, "c": {"d": 2}}"#).unwrap(), [(r#""a:b""#, "1"), (r#""c""#, r#"{"d": 2}"#)]);
        assert_eq!(elements("{}"), None);
    }
}
