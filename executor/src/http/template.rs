//! Texts with places for values: `{name}` for an argument, `${name}` for a secret.
//!
//! Must never put a value in that was not looked up by exactly the name that stands there, nor look into values again.

/// Which references a text may hold; anything else stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `{name}`; `{{` and `}}` are braces.
    Arguments,
    /// `${name}`; braces elsewhere stand for themselves.
    Secrets,
    /// Both; `{{` and `}}` are braces.
    Both,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Argument(String),
    Secret(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(pub Vec<Piece>);

impl Template {
    pub fn parse(text: &str, takes: Takes) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let secret = rest.starts_with("${") && !rest.starts_with("${{");
            let brace = c == '{' || c == '}';
            if secret && takes == Takes::Arguments {
                return Err("a secret (${…}) does not belong into a URL; {name} is an argument".into());
            }
            if !secret && (takes == Takes::Secrets || !brace) {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
            if !secret && (rest.starts_with("{{") || rest.starts_with("}}")) {
                plain.push(c);
                rest = &rest[2..];
                continue;
            }
            let inner = &rest[if secret { 2 } else { 1 }..];
            let end = inner.find(['{', '}']).filter(|end| c != '}' && inner[*end..].starts_with('}'));
            let Some(end) = end.filter(|end| *end > 0) else {
                return Err("a brace stands alone: {name} is a value, {{ and }} are braces".into());
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            let name = inner[..end].to_owned();
            pieces.push(if secret { Piece::Secret(name) } else { Piece::Argument(name) });
            rest = &inner[end + 1..];
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Template(pieces))
    }

    pub fn has_secret(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Secret(_)))
    }
}

/// A text as part of a URL: everything but letters, digits and `-._~` as `%XX`.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(t: &str) -> Piece {
        Piece::Text(t.into())
    }

    fn argument(t: &str) -> Piece {
        Piece::Argument(t.into())
    }

    #[test]
    fn references_and_braces() {
        let parse = |t, takes| Template::parse(t, takes).map(|t| t.0);
        assert_eq!(parse("/a/{id}/b", Takes::Arguments), Ok(vec![text("/a/"), argument("id"), text("/b")]));
        assert_eq!(parse("{a}{b c}", Takes::Arguments), Ok(vec![argument("a"), argument("b c")]));
        assert_eq!(parse("{{a}} $5 ü", Takes::Arguments), Ok(vec![text("{a} $5 ü")]));
        assert_eq!(parse("", Takes::Both), Ok(vec![]));
        assert_eq!(
            parse("Bearer ${t} {x} $${{", Takes::Both),
            Ok(vec![text("Bearer "), Piece::Secret("t".into()), text(" "), argument("x"), text(" $${")])
        );
        assert_eq!(parse("{\"a\": ${t}}", Takes::Secrets).unwrap().len(), 3);
        for wrong in ["{", "}", "{a", "a}", "{}", "{a{b}}", "${a}"] {
            assert!(parse(wrong, Takes::Arguments).is_err(), "{wrong}");
        }
        assert!(parse("${", Takes::Secrets).is_err());
        assert!(parse("${}", Takes::Secrets).is_err());
    }

    #[test]
    fn what_means_something_in_a_url_is_encoded() {
        assert_eq!(encoded("a/b?c#d%e f&ü\r\n\\"), "a%2Fb%3Fc%23d%25e%20f%26%C3%BC%0D%0A%5C");
        assert_eq!(encoded("A-z._~9"), "A-z._~9");
    }
}
