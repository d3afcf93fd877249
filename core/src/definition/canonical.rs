//! One text for all JSON values that jsonb holds equal: keys in order, numbers without idle zeros or exponents.
//!
//! Must never be stored or shown: it only tells whether two steps are the same.

use std::fmt::Write;

use serde_json::Value;

/// The text that equal values share.
pub(super) fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => number(&n.to_string(), out),
        Value::String(s) => string(s, out),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in entries {
                string(key, out);
                out.push(':');
                write(value, out);
                out.push(',');
            }
            out.push('}');
        }
    }
}

/// Its length tells where a string ends, so nothing in it needs an escape.
fn string(text: &str, out: &mut String) {
    // Writing into a String cannot fail.
    let _ = write!(out, "{}\"{text}", text.len());
}

/// `1.50`, `15e-1` and `1.5` → `15e-1`; every zero → `0`.
fn number(text: &str, out: &mut String) {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let zeros = digits.len() - significant.len();
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        out.push('0');
        return;
    }
    // No number of jsonb has an exponent near these bounds; whoever else asks must not end in an overflow.
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX).saturating_add(zeros as i64 - fraction.len() as i64);
    let _ = write!(out, "{sign}{significant}e{exponent}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> String {
        canonical(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn values_that_jsonb_holds_equal_share_a_text() {
        for (a, b) in [
            (r#"{"a":1,"b":[2,{"c":3,"d":4}]}"#, r#"{"b":[2,{"d":4,"c":3}],"a":1}"#),
            ("1", "1.0"),
            ("1.50", "15e-1"),
            ("1200", "1.2E+3"),
            ("0", "-0.00"),
            ("-10", "-1e1"),
        ] {
            assert_eq!(of(a), of(b), "{a} {b}");
        }
    }

    #[test]
    fn an_exponent_beyond_all_bounds_is_one() {
        for text in ["10e9223372036854775807", "1.5e-9223372036854775808", "1e99999999999999999999"] {
            assert_eq!(of(text), of(text));
        }
    }

    #[test]
    fn values_that_differ_have_texts_that_differ() {
        for (a, b) in [
            ("1", "10"),
            ("1", "-1"),
            ("0.1", "1"),
            ("1", "\"1\""),
            ("[1,2]", "[2,1]"),
            ("[]", "{}"),
            ("null", "\"null\""),
            (r#"["a","b"]"#, r#"["a\",\"b"]"#),
            (r#"{"a":null}"#, "{}"),
            ("12345678901234567890123", "12345678901234567890124"),
            ("0.1000000000000000055", "0.1"),
        ] {
            assert_ne!(of(a), of(b), "{a} {b}");
        }
    }
}
