//! Names of people's: identifiers quoted anew, and keys that resemble known ones.
//!
//! Pure. What is returned as SQL cannot be anything but the identifier or the literal that was meant.

/// A possibly schema-qualified name as SQL reads it (unquoted parts in lower case), every part quoted: `"ops"."load"`.
pub fn quoted_name(text: &str) -> Option<String> {
    let mut parts = Vec::new();
    let mut chars = text.trim().chars().peekable();
    loop {
        let mut part = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next()? {
                    '"' if chars.next_if_eq(&'"').is_some() => part.push('"'),
                    '"' => break,
                    '\0' => return None,
                    c => part.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| is_of_identifier(*c)) {
                part.push(c.to_ascii_lowercase());
            }
            if part.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
                return None;
            }
        }
        if part.is_empty() {
            return None;
        }
        parts.push(format!("\"{}\"", part.replace('"', "\"\"")));
        match chars.next() {
            None => break,
            Some('.') => {}
            Some(_) => return None,
        }
    }
    // Schema and name; a database before them may be said only where it is the same, which is not known here.
    (parts.len() <= 2).then(|| parts.join("."))
}

/// Whether a character may stand in an unquoted identifier (after the first).
pub fn is_of_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

/// A literal, whatever `standard_conforming_strings` says.
pub fn quoted_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// What to say of an unknown key: with the known one that it resembles, else all of them.
pub fn unknown_key(what: &str, key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|k| (distance(key, k), *k)).min().filter(|(d, k)| *d <= 1 + k.len() / 4);
    match near {
        Some((_, near)) => format!("unknown {what} {key}: is {near} meant?"),
        None => format!("unknown {what} {key}: known are {}", known.join(", ")),
    }
}

/// How many letters must be changed, added, left out or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_part_by_part() {
        assert_eq!(quoted_name("Ops.load").as_deref(), Some(r#""ops"."load""#));
        assert_eq!(quoted_name(r#""Odd ""x"" name""#).as_deref(), Some(r#""Odd ""x"" name""#));
        for wrong in ["", "a.b.c", "a b", "a;b", "a()", "1a", "a.", r#""a"#, "a--", "a'b"] {
            assert_eq!(quoted_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn literals_hold_whatever_they_are_given() {
        assert_eq!(quoted_literal("it's"), "'it''s'");
        assert_eq!(quoted_literal(r"\'"), r"E'\\'''");
    }

    #[test]
    fn the_nearest_key_is_named() {
        assert!(unknown_key("option", "idel_time", &["inbox", "idle_time"]).ends_with("is idle_time meant?"));
        assert!(unknown_key("option", "colour", &["inbox", "role"]).contains("known are"));
    }
}
