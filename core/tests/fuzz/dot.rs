//! Reads a diagram as `dot` would, as far as it takes to see that no name has become a statement.

/// The statements of a diagram, each as its tokens with strings replaced; or what is wrong with it.
pub fn statements(diagram: &str) -> Result<Vec<String>, String> {
    let mut chars = diagram.chars().peekable();
    let (mut out, mut now) = (Vec::new(), String::new());
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                let mut closed = false;
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => {
                            closed = true;
                            break;
                        }
                        c if odd(c) => return Err(format!("{c:?} in a string")),
                        _ => {}
                    }
                }
                if !closed {
                    return Err("a string does not end".into());
                }
                now.push('S');
            }
            '<' => {
                markup(&mut chars)?;
                now.push('H');
            }
            '\n' => {
                if !now.trim().is_empty() {
                    out.push(now.trim().to_owned());
                }
                now.clear();
            }
            c if odd(c) => return Err(format!("{c:?} outside of a string")),
            c => now.push(c),
        }
    }
    if now.trim().is_empty() {
        Ok(out)
    } else {
        Err(format!("the last line does not end: {now}"))
    }
}

/// An HTML-like label, from behind its first `<` to its last `>`: tags nest, and are ours.
fn markup(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(), String> {
    let mut open: Vec<String> = Vec::new();
    while let Some(c) = chars.next() {
        match c {
            '>' if open.is_empty() => return Ok(()),
            '>' => return Err("a > in a text".into()),
            '<' => {
                let mut tag = String::new();
                let mut quoted = false;
                for c in chars.by_ref() {
                    match c {
                        '"' => quoted = !quoted,
                        '>' if !quoted => break,
                        '<' => return Err(format!("a < in tag {tag}")),
                        _ => {}
                    }
                    tag.push(c);
                }
                let name = tag.trim_matches('/').split_whitespace().next().unwrap_or("").to_owned();
                if !["TABLE", "TR", "TD", "FONT", "B", "I", "BR"].contains(&name.as_str()) {
                    return Err(format!("tag {tag:?} is none of ours"));
                }
                if tag.starts_with('/') {
                    if open.pop().as_ref() != Some(&name) {
                        return Err(format!("{tag} closes something else"));
                    }
                } else if !tag.ends_with('/') {
                    open.push(name);
                }
            }
            '"' | '\'' | '\n' => return Err(format!("{c:?} in a text")),
            c if odd(c) => return Err(format!("{c:?} in a text")),
            '&' => {
                let entity: String = chars.clone().take_while(|c| *c != ';').take(6).collect();
                if !["amp", "lt", "gt", "quot", "#39"].contains(&entity.as_str()) {
                    return Err(format!("entity {entity:?}"));
                }
            }
            _ => {}
        }
    }
    Err("a label does not end".into())
}

/// Control and bidirectional characters.
fn odd(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
