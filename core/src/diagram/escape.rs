//! A user's text → what may stand in a diagram.
//!
//! Must never let through a quote, a bracket, a line break, or a character that hides or turns others.

use crate::text::is_odd;

/// The longest id, in characters; every name that a node may have is shorter.
const ID: usize = 300;

/// An id, or an attribute's text, with its quotes. `dot` looks for escapes and entities in both.
pub(super) fn quoted(name: &str) -> String {
    let mut out = String::from("\"");
    for c in shown(name, ID).chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '&' => out.push_str("&amp;"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A text inside an HTML-like label, shortened. Never empty, which `dot` refuses.
pub(super) fn html(text: &str, longest: usize) -> String {
    let mut out = String::new();
    for c in shown(text, longest).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A text without odd characters, of at most `longest` characters.
pub(super) fn shown(text: &str, longest: usize) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == longest {
            out.pop();
            out.push('…');
            break;
        }
        out.push(match c {
            '\n' | '\r' | '\t' => ' ',
            c if is_odd(c) => '\u{fffd}',
            c => c,
        });
    }
    if out.trim().is_empty() {
        return "(none)".into();
    }
    out
}

/// A text broken into at most `lines` lines of at most `width` characters, at spaces where there are any.
pub(super) fn wrapped(text: &str, width: usize, lines: usize) -> Vec<String> {
    let mut out = vec![String::new()];
    let limit = width * lines;
    let text = shown(text, limit * 2);
    for word in text.split_whitespace().flat_map(|word| pieces(word, width)) {
        let full = out.len() == lines;
        let here = out.last().map_or(0, |line| line.chars().count());
        match out.last_mut() {
            Some(line) if here == 0 => line.push_str(&word),
            Some(line) if here + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ if full => {
                if let Some(line) = out.last_mut() {
                    line.push('…');
                }
                break;
            }
            _ => out.push(word),
        }
    }
    out
}

fn pieces(word: &str, width: usize) -> Vec<String> {
    let chars: Vec<char> = word.chars().collect();
    chars.chunks(width).map(|piece| piece.iter().collect()).collect()
}
