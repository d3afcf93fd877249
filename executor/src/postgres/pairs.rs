//! The texts of connection strings, cut into keys and values: `key='value'` and URIs, as libpq reads them.
//!
//! Pure. A message never holds a part of the string: it may be a password.

/// Keys and values in their order.
pub fn of(string: &str) -> Result<Vec<(String, String)>, String> {
    match string.strip_prefix("postgresql://").or_else(|| string.strip_prefix("postgres://")) {
        Some(rest) => of_uri(rest),
        None => of_words(string),
    }
}

fn of_words(string: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut chars = string.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err(format!("entry {} lacks its \"=\"", pairs.len() + 1));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => return Err(format!("the value of {key} lacks its closing quote")),
                None => break,
            }
        }
        pairs.push((key, value));
    }
}

/// What follows the scheme: `[user[:password]@][host[:port],…][/database][?key=value&…]`.
fn of_uri(rest: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let hosts = match authority.rsplit_once('@') {
        Some((credentials, hosts)) => {
            let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
            pairs.push(("user".to_owned(), decoded(user)?));
            pairs.push(("password".to_owned(), decoded(password)?));
            hosts
        }
        None => authority,
    };
    if !hosts.is_empty() {
        let mut names = Vec::new();
        let mut ports = Vec::new();
        for host in hosts.split(',') {
            let (name, port) = match host.strip_prefix('[') {
                Some(inner) => {
                    let (name, after) = inner.split_once(']').ok_or("an address lacks its closing bracket")?;
                    let port = match after {
                        "" => "",
                        _ => after.strip_prefix(':').ok_or("after an address in brackets only a port may follow")?,
                    };
                    (name.to_owned(), port)
                }
                None => {
                    let (name, port) = host.split_once(':').unwrap_or((host, ""));
                    (decoded(name)?, port)
                }
            };
            names.push(name);
            ports.push(if port.is_empty() { "5432" } else { port }.to_owned());
        }
        if names.iter().any(|name| !name.is_empty()) {
            pairs.push(("host".to_owned(), names.join(",")));
        }
        if hosts.contains(':') {
            pairs.push(("port".to_owned(), ports.join(",")));
        }
    }
    pairs.push(("dbname".to_owned(), decoded(database)?));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("an option after \"?\" lacks its \"=\"")?;
        match (decoded(key)?, decoded(value)?) {
            // A word of JDBC's that libpq takes too.
            (key, value) if key == "ssl" && value == "true" => pairs.push(("sslmode".into(), "require".into())),
            pair => pairs.push(pair),
        }
    }
    pairs.retain(|(_, value)| !value.is_empty());
    Ok(pairs)
}

fn decoded(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let digits = text.get(at + 1..at + 3).and_then(|d| u8::from_str_radix(d, 16).ok());
            out.push(digits.ok_or("a \"%\" is not followed by two hexadecimal digits")?);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8(out).map_err(|_| "what the \"%\" stand for is no UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_with_quotes_and_backslashes() {
        let pairs = of(r"host = h  password='it\'s \\ me' dbname=a\ b x=").unwrap();
        let texts: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}:{v}")).collect();
        assert_eq!(texts, ["host:h", r"password:it's \ me", "dbname:a b", "x:"]);
        assert!(of("host").is_err());
        assert!(of("host='x").unwrap_err().contains("closing quote"));
    }

    #[test]
    fn faults_of_uris_hold_nothing_of_them() {
        for uri in ["postgres://u:hunter%2@h/d", "postgres://u@[::1/d", "postgres://h/d?hunter", "postgres://u:%ff@h"] {
            let fault = of(uri).expect_err(uri);
            assert!(!fault.contains("hunter"), "{fault}");
        }
    }
}
