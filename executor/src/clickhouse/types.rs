//! ClickHouse's type names, read as far as values need: a name and what stands in its brackets.

/// `Name(argument, …)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    pub name: String,
    pub arguments: Vec<String>,
}

/// How deep types may be nested before the rest is taken as text.
const DEPTH: usize = 50;

impl Type {
    /// Reads a type; wrappers that do not change the text form of a value are taken off: Nullable, LowCardinality,
    /// SimpleAggregateFunction.
    pub fn read(text: &str) -> Type {
        let mut text = text.trim().to_owned();
        for _ in 0..DEPTH {
            let plain = Type::read_plain(&text);
            let inner = match (plain.name.as_str(), plain.arguments.as_slice()) {
                ("Nullable" | "LowCardinality", [inner]) => inner.clone(),
                ("SimpleAggregateFunction", [_, inner]) => inner.clone(),
                _ => return plain,
            };
            text = inner;
        }
        Type { name: "String".into(), arguments: Vec::new() }
    }

    fn read_plain(text: &str) -> Type {
        match text.split_once('(') {
            Some((name, rest)) => {
                let inside = rest.trim_end().strip_suffix(')').unwrap_or(rest);
                Type { name: name.trim().to_owned(), arguments: split(inside, ',') }
            }
            None => Type { name: text.trim().to_owned(), arguments: Vec::new() },
        }
    }

    /// An argument as a type: `Int8`, or the `Int8` of a tuple's `a Int8`; with the name, if it has one.
    pub fn element(&self, index: usize) -> Option<(Option<String>, Type)> {
        let text = self.arguments.get(index)?;
        let parts = split(text, ' ');
        match parts.as_slice() {
            [name, rest @ ..] if !rest.is_empty() && !name.contains('(') => {
                let name = name.trim_matches(['`', '"']).replace("\\`", "`");
                Some((Some(name), Type::read(&rest.join(" "))))
            }
            _ => Some((None, Type::read(text))),
        }
    }

    /// The digits behind the point of a decimal.
    pub fn scale(&self) -> Option<u8> {
        self.arguments.last().and_then(|scale| scale.trim().parse().ok())
    }
}

/// Splits at a separator outside brackets and quotes; empty pieces are left out.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut found = Vec::new();
    let mut piece = String::new();
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for c in text.chars() {
        let blank = separator == ' ' && c.is_whitespace();
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if matches!(c, '\'' | '`' | '"') => quote = Some(c),
            None if c == '(' => depth += 1,
            None if c == ')' => depth = depth.saturating_sub(1),
            None if depth == 0 && (c == separator || blank) => {
                found.push(std::mem::take(&mut piece));
                continue;
            }
            None => {}
        }
        piece.push(c);
    }
    found.push(piece);
    found.iter().map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read() {
        let decimal = Type::read("LowCardinality(Nullable(Decimal(20, 3)))");
        assert_eq!((decimal.name.as_str(), decimal.scale()), ("Decimal", Some(3)));
        let tuple = Type::read("Tuple(a UInt8, `b c` Array(Nullable(String)), DateTime64(3, 'Asia/Tokyo'))");
        assert_eq!(tuple.element(0).map(|(n, t)| (n, t.name)), Some((Some("a".into()), "UInt8".into())));
        let (name, array) = tuple.element(1).unwrap();
        assert_eq!((name.as_deref(), array.name.as_str()), (Some("b c"), "Array"));
        assert_eq!(array.element(0).unwrap().1.name, "String");
        assert_eq!(tuple.element(2).map(|(n, t)| (n, t.name)), Some((None, "DateTime64".into())));
        assert_eq!(Type::read("Enum8('a, (' = 1, 'b' = 2)").arguments.len(), 2);
        assert_eq!(Type::read("SimpleAggregateFunction(sum, UInt64)").name, "UInt64");
    }
}
