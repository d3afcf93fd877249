//! The words of a ClickHouse query: enough to find parameters and the clauses at its end, never mistaking what stands in
//! strings, quoted names, comments or inline data.
//!
//! Must never change a query: it only says where things are.

use std::ops::Range;

/// What a piece of text is. Comments and spaces are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Word,
    /// A string, a quoted name, a heredoc.
    Quoted,
    /// Any other character.
    Sign(char),
    /// `{name:Type}`.
    Parameter {
        name: String,
        type_name: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub what: What,
    pub at: Range<usize>,
    /// How many brackets are open around it.
    pub depth: usize,
}

/// The pieces of a query, in order.
pub fn pieces(text: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let from = at;
        if let Some(end) = blank_end(text, at) {
            at = end;
            continue;
        }
        let mut own_depth = depth;
        let what = if let Some(end) = quoted_end(text, at) {
            at = end;
            What::Quoted
        } else if is_word(c) {
            at += text[at..].find(|c: char| !is_word(c)).unwrap_or(text.len() - at);
            What::Word
        } else if let Some((parameter, end)) = (c == '{').then(|| parameter(text, at)).flatten() {
            at = end;
            parameter
        } else {
            at += c.len_utf8();
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => {
                    depth = depth.saturating_sub(1);
                    own_depth = depth;
                }
                _ => {}
            }
            What::Sign(c)
        };
        found.push(Piece { what, at: from..at, depth: own_depth });
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The end of the space or comment that begins here.
fn blank_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let line = |rest: &str| rest.find('\n').map_or(text.len(), |end| at + end + 1);
    if rest.starts_with("--") || rest.starts_with("#!") || rest.starts_with("# ") {
        return Some(line(rest));
    }
    if let Some(inside) = rest.strip_prefix("/*") {
        return Some(inside.find("*/").map_or(text.len(), |end| at + 2 + end + 2));
    }
    let c = rest.chars().next().filter(|c| c.is_whitespace())?;
    Some(at + c.len_utf8())
}

/// The end of the string or quoted name that begins here.
fn quoted_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    let quote = rest.chars().next()?;
    if quote == '$' {
        // A heredoc: $tag$ … $tag$.
        let tag_end = 1 + rest[1..].find('$')?;
        let tag = &rest[..=tag_end];
        if !tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_') {
            return None;
        }
        let body = at + tag.len();
        return text[body..].find(tag).map(|end| body + end + tag.len());
    }
    if !matches!(quote, '\'' | '"' | '`') {
        return None;
    }
    let mut escaped = false;
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((offset, c)) = chars.next() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                return Some(at + offset + c.len_utf8());
            }
        }
    }
    Some(text.len())
}

/// The parameter that begins with this brace, and where it ends.
fn parameter(text: &str, at: usize) -> Option<(What, usize)> {
    let inside = &text[at + 1..];
    let (name, rest) = inside.split_once(':')?;
    let name = name.trim();
    let first = name.chars().next()?;
    if !(first.is_ascii_alphabetic() || first == '_') || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    let type_at = text.len() - rest.len();
    if !rest.trim_start().starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let mut end = type_at;
    while let Some(c) = text[end..].chars().next() {
        if let Some(after) = quoted_end(text, end) {
            end = after;
        } else if c == '}' {
            let type_name = text[type_at..end].trim().to_owned();
            return Some((What::Parameter { name: name.to_owned(), type_name }, end + 1));
        } else if c == '{' || c == ';' {
            return None;
        } else {
            end += c.len_utf8();
        }
    }
    None
}

/// Where the clauses at the end of a query are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// `FORMAT name`; not that of an INSERT, which says what comes in.
    pub format: Option<Range<usize>>,
    /// `SETTINGS a = 1, b = 'x'`, and the pairs as (name, value as written).
    pub settings: Option<Range<usize>>,
    pub pairs: Vec<(String, String)>,
    /// Semicolons after the last word; not those of an INSERT, where they may be data.
    pub semicolons: Option<Range<usize>>,
}

/// The first word of a query, in capitals.
pub fn first_word(text: &str, pieces: &[Piece]) -> String {
    let first = pieces.iter().find(|p| p.what != What::Sign('('));
    first.map(|p| text[p.at.clone()].to_ascii_uppercase()).unwrap_or_default()
}

/// How many pieces stand before the inline data of an INSERT; all of them if there is none.
pub fn before_data(text: &str, pieces: &[Piece]) -> usize {
    if first_word(text, pieces) != "INSERT" {
        return pieces.len();
    }
    let top = |p: &Piece, word: &str| p.depth == 0 && is(text, p, word);
    if pieces.iter().any(|p| p.depth == 0 && (is(text, p, "SELECT") || is(text, p, "WITH"))) {
        return pieces.len();
    }
    // Rows of VALUES are expressions: parameters may stand in them.
    match pieces.iter().position(|p| top(p, "FORMAT")) {
        Some(at) if pieces.get(at + 1).is_some_and(|p| !is(text, p, "VALUES")) => (at + 2).min(pieces.len()),
        _ => pieces.len(),
    }
}

fn is(text: &str, piece: &Piece, word: &str) -> bool {
    piece.what == What::Word && text[piece.at.clone()].eq_ignore_ascii_case(word)
}

/// Finds the clauses at the end of a query that returns rows.
pub fn tail(text: &str, pieces: &[Piece]) -> Tail {
    let mut tail = Tail::default();
    // What stands at the end of an INSERT may be data.
    if first_word(text, pieces) == "INSERT" {
        return tail;
    }
    let mut end = pieces.len();
    while end > 0 && pieces[end - 1].what == What::Sign(';') {
        end -= 1;
    }
    if end < pieces.len() {
        tail.semicolons = Some(pieces[end].at.start..pieces[pieces.len() - 1].at.end);
    }
    // Either order: FORMAT … SETTINGS …, SETTINGS … FORMAT ….
    for _ in 0..2 {
        if tail.format.is_none() && end >= 3 && is_top(text, &pieces[end - 2], "FORMAT") {
            let name = &pieces[end - 1];
            if name.what == What::Word || name.what == What::Quoted {
                tail.format = Some(pieces[end - 2].at.start..name.at.end);
                end -= 2;
                continue;
            }
        }
        if tail.settings.is_none() {
            if let Some((from, pairs)) = settings_clause(text, &pieces[..end]) {
                tail.settings = Some(pieces[from].at.start..pieces[end - 1].at.end);
                tail.pairs = pairs;
                end = from;
            }
        }
    }
    tail
}

fn is_top(text: &str, piece: &Piece, word: &str) -> bool {
    piece.depth == 0 && is(text, piece, word)
}

/// `SETTINGS name = value, …` up to the end of these pieces: where it begins, and its pairs.
fn settings_clause(text: &str, pieces: &[Piece]) -> Option<(usize, Vec<(String, String)>)> {
    let from = pieces.iter().rposition(|p| is_top(text, p, "SETTINGS")).filter(|from| *from > 0)?;
    let mut pairs = Vec::new();
    let mut at = from + 1;
    loop {
        let name = pieces.get(at).filter(|p| p.what == What::Word)?;
        let equals = pieces.get(at + 1)?;
        if equals.what != What::Sign('=') {
            return None;
        }
        let mut last = at + 2;
        // A value is one piece, pieces without space between them (`-1.5`), or something in brackets.
        while let Some(next) = pieces.get(last + 1).filter(|p| p.what != What::Sign(',') || p.depth > 0) {
            let before = pieces.get(last)?;
            if before.depth == 0 && next.depth == 0 && before.at.end != next.at.start {
                return None;
            }
            last += 1;
        }
        let value = pieces.get(at + 2)?.at.start..pieces.get(last)?.at.end;
        pairs.push((text[name.at.clone()].to_owned(), text[value].to_owned()));
        match pieces.get(last + 1) {
            None => return Some((from, pairs)),
            Some(_) => at = last + 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(text: &str) -> Vec<(String, String)> {
        let found = pieces(text).into_iter().filter_map(|p| match p.what {
            What::Parameter { name, type_name } => Some((name, type_name)),
            _ => None,
        });
        found.collect()
    }

    fn clauses(text: &str) -> (Option<&str>, Option<&str>, Vec<(String, String)>) {
        let tail = tail(text, &pieces(text));
        (tail.format.map(|r| &text[r]), tail.settings.map(|r| &text[r]), tail.pairs)
    }

    #[test]
    fn parameters_are_found_outside_strings_names_and_comments() {
        let text = "select {a:UInt8}, '{b:String} \\' {c:Int8}', `{d:Int8}`, \"{e:Int8}\" -- {f:Int8}\n \
                    /* {g:Int8} */, { h : Array(Enum8('}'=1)) }, $x${i:Int8}$x$, {'k':1}, {k:1} # {j:Int8}\n, 'it''s {l:Int8}'";
        let found = parameters(text);
        assert_eq!(found, [("a".into(), "UInt8".into()), ("h".into(), "Array(Enum8('}'=1))".to_string())]);
    }

    #[test]
    fn clauses_at_the_end_are_found_in_either_order() {
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(clauses("select 1 format CSV"), (Some("format CSV"), None, vec![]));
        assert_eq!(clauses("select 1 FORMAT JSON -- so\n ;;"), (Some("FORMAT JSON"), None, vec![]));
        assert_eq!(
            clauses("select 1 settings a = 1, b='x, y', c = -1.5, d = {'k':'v', 'l':'w'} format TSV;"),
            (
                Some("format TSV"),
                Some("settings a = 1, b='x, y', c = -1.5, d = {'k':'v', 'l':'w'}"),
                vec![pair("a", "1"), pair("b", "'x, y'"), pair("c", "-1.5"), pair("d", "{'k':'v', 'l':'w'}")]
            )
        );
        let other = clauses("select 1 format TSV settings a = 1");
        assert_eq!(other, (Some("format TSV"), Some("settings a = 1"), vec![pair("a", "1")]));
    }

    #[test]
    fn what_only_looks_like_a_clause_is_none() {
        for text in [
            "select 'x format CSV'",
            "select 1 as format",
            "select format from t",
            "select a from (select 1 format CSV)",
            "select a from t settings",
            "select settings from t",
            "select 1 /* format CSV */",
            "select 1 settings a=1 union all select 2",
            "insert into t format CSV",
            "format x",
        ] {
            assert_eq!(clauses(text), (None, None, vec![]), "{text}");
        }
        assert_eq!(tail("insert into t format CSV\n1;", &pieces("insert into t format CSV\n1;")), Tail::default());
        assert_eq!(tail("select 1 ; ", &pieces("select 1 ; ")).semicolons, Some(9..10));
    }

    #[test]
    fn data_of_an_insert_is_not_read() {
        for (text, expected) in [
            ("insert into t format JSONEachRow {a:String}", 0),
            ("insert into t values ({a:String})", 1),
            ("insert into t select {a:String} format CSV", 1),
            ("insert into t format Values ({a:String})", 1),
        ] {
            let all = pieces(text);
            let count = all[..before_data(text, &all)].iter().filter(|p| matches!(p.what, What::Parameter { .. }));
            assert_eq!(count.count(), expected, "{text}");
        }
    }

    #[test]
    fn nothing_breaks_on_odd_text() {
        for text in [
            "",
            "'",
            "\"",
            "`",
            "$",
            "$a",
            "{",
            "{a",
            "{a:",
            "{a:b",
            "/*",
            "--",
            "}",
            ")",
            "ß{ä:B}",
            "\\",
            "select '\\",
        ] {
            let all = pieces(text);
            tail(text, &all);
            before_data(text, &all);
        }
    }
}
