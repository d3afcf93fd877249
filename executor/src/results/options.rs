//! What an administrator may say about a store: its URL and its options, and what is wrong with them. Pure.
//!
//! The options are a list of our own and not everything that `object_store` knows: among that are options that read files of
//! the server, start programs or ask other addresses for credentials. Credentials come from the options and from nowhere
//! else, unless `credentials` is `environment`.

use std::collections::BTreeMap;

use super::Store;
use crate::job::Secret;
use crate::kind::Fault;

/// What kind of store a URL names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    File,
    S3,
    Azure,
    Google,
}

/// A store's URL taken apart: `s3://bucket/prefix`. Of `file://` there is only the directory, absolute.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub scheme: Scheme,
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
}

/// Options by their canonical name, as text.
pub(super) type Options = BTreeMap<&'static str, String>;

/// (canonical name, other names), prefixes such as `aws_` left out.
type Names = &'static [(&'static str, &'static [&'static str])];

const COMMON: Names = &[
    ("allow_http", &[]),
    ("ca_file", &[]),
    ("connect_timeout", &[]),
    ("credentials", &[]),
    // Of ClickHouse, which then has the credentials for exports itself.
    ("named_collection", &[]),
    ("proxy_url", &[]),
    ("timeout", &[]),
    ("verify", &[]),
];
const S3: Names = &[
    ("access_key_id", &[]),
    ("checksum_algorithm", &[]),
    ("endpoint", &["endpoint_url"]),
    ("region", &["default_region"]),
    ("request_payer", &[]),
    ("s3_express", &[]),
    ("secret_access_key", &[]),
    ("server_side_encryption", &[]),
    ("session_token", &["token"]),
    ("skip_signature", &[]),
    ("sse_bucket_key_enabled", &[]),
    ("sse_customer_key_base64", &[]),
    ("sse_kms_key_id", &[]),
    ("unsigned_payload", &[]),
    ("virtual_hosted_style_request", &["virtual_hosted_style"]),
];
const AZURE: Names = &[
    ("account_key", &["access_key", "master_key"]),
    ("account_name", &["account"]),
    ("authority_host", &[]),
    ("bearer_token", &["token"]),
    ("client_id", &[]),
    ("client_secret", &[]),
    ("encryption_key", &[]),
    ("endpoint", &[]),
    ("sas_token", &["sas_key"]),
    ("skip_signature", &[]),
    ("tenant_id", &["authority_id"]),
];
const GOOGLE: Names =
    &[("base_url", &["endpoint"]), ("bearer_token", &["token"]), ("service_account_key", &[]), ("skip_signature", &[])];

const BOOLEANS: &[&str] = &[
    "allow_http",
    "request_payer",
    "s3_express",
    "skip_signature",
    "sse_bucket_key_enabled",
    "unsigned_payload",
    "virtual_hosted_style_request",
];

impl Scheme {
    fn names(self) -> Names {
        match self {
            Scheme::File => &[],
            Scheme::S3 => S3,
            Scheme::Azure => AZURE,
            Scheme::Google => GOOGLE,
        }
    }

    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Scheme::File => &[],
            Scheme::S3 => &["aws_"],
            Scheme::Azure => &["azure_storage_", "azure_"],
            Scheme::Google => &["google_"],
        }
    }

    /// The canonical name of an option, if there is such an option.
    fn canonical(self, key: &str) -> Option<&'static str> {
        let key = key.to_ascii_lowercase();
        let bare = self.prefixes().iter().find_map(|prefix| key.strip_prefix(prefix)).unwrap_or(&key);
        let common = if self == Scheme::File { &[] } else { COMMON };
        self.names()
            .iter()
            .chain(common)
            .find(|(name, others)| *name == bare || others.contains(&bare))
            .map(|(name, _)| *name)
    }

    fn known(self) -> String {
        let common = if self == Scheme::File { &[] } else { COMMON };
        self.names().iter().chain(common).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// Takes a store's URL apart.
pub(super) fn address(url: &str) -> Result<Address, String> {
    let (scheme, rest) = url.split_once("://").ok_or("it must be file://, s3://, az:// or gs://")?;
    let scheme = match scheme {
        "file" => Scheme::File,
        "s3" => Scheme::S3,
        "az" => Scheme::Azure,
        "gs" => Scheme::Google,
        other => return Err(format!("stores of {other}:// are not known: use file://, s3://, az:// or gs://")),
    };
    if rest.contains(['?', '#', '%']) {
        return Err("it must not have a ?, a # or a % in it: credentials and settings are options".into());
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    if bucket.contains('@') {
        return Err(
            "it must not hold credentials: they are options of the store or of its server's user mapping".into()
        );
    }
    if scheme == Scheme::File {
        if !bucket.is_empty() {
            return Err("it must be an absolute directory of this server: file:///directory".into());
        }
        if prefix.is_empty() {
            return Err("it must name a directory, not the root of the file system".into());
        }
    } else if bucket.is_empty() || bucket.contains(|c: char| c.is_control() || c.is_whitespace() || "\\:\"".contains(c))
    {
        return Err("it must name a bucket or container: s3://bucket/prefix".into());
    }
    if !prefix.is_empty() {
        check_path(prefix)?;
    }
    Ok(Address { scheme, bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// What is wrong with a path below a store's prefix. It must stay there, mean the same to every store, file system and
/// program that it is handed to, and hold nothing that some of them take for a pattern or an escape.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("the path is empty".into());
    }
    if path.len() > 900 {
        return Err("the path is longer than 900 bytes".into());
    }
    for segment in path.split('/') {
        if segment.is_empty() {
            return Err("the path must be relative and must not have an empty part".into());
        }
        if segment == "." || segment == ".." {
            return Err("the path must not have . or .. as a part".into());
        }
        if segment.len() > 240 {
            return Err("a part of the path is longer than 240 bytes".into());
        }
        if let Some(c) = segment.chars().find(|c| c.is_control() || "\\#?%*\"<>|{}".contains(*c)) {
            return Err(format!("the path must not have {c:?} in it"));
        }
    }
    Ok(())
}

/// The options by their canonical names, and what is wrong with them.
pub(super) fn options(scheme: Scheme, store: &Store) -> (Options, Vec<Fault>) {
    let mut options = Options::new();
    let mut faults = Vec::new();
    for (key, value) in &store.options {
        let place = format!(".options.{key}");
        match scheme.canonical(key) {
            None if scheme == Scheme::File => {
                faults.push(Fault::new(place, "a store in the file system has no options"))
            }
            None => faults.push(Fault::new(
                place,
                format!("there is no option {key} for such a store; there are: {}", scheme.known()),
            )),
            Some(name) => {
                let value = value.expose().trim();
                if let Err(message) = check_value(name, value) {
                    faults.push(Fault::new(place, message));
                } else if options.insert(name, value.to_owned()).is_some() {
                    faults.push(Fault::new(place, format!("{name} is given twice, under two names")));
                }
            }
        }
    }
    (options, faults)
}

impl Store {
    /// An option by its bare name (`access_key_id`, `endpoint`, `account_key`), however it was written.
    pub fn option(&self, name: &str) -> Option<&Secret> {
        let scheme = address(&self.url).ok()?.scheme;
        self.options.iter().find(|(key, _)| scheme.canonical(key) == Some(name)).map(|(_, value)| value)
    }
}

/// As Postgres reads a boolean.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" | "t" => Some(true),
        "false" | "off" | "no" | "0" | "f" | "" => Some(false),
        _ => None,
    }
}

/// Must not repeat the value: it may be a secret that was given under a wrong name.
fn check_value(name: &str, value: &str) -> Result<(), String> {
    if BOOLEANS.contains(&name) && boolean(value).is_none() {
        return Err("it must be true or false".into());
    }
    let wrong = match name {
        "connect_timeout" | "timeout" if !value.parse::<u32>().is_ok_and(|s| (1..=3600).contains(&s)) => {
            "it must be a number of seconds from 1 to 3600"
        }
        "verify" if !["full", "ca", "none"].contains(&value) => "it must be full, ca or none",
        "credentials" if !["options", "environment"].contains(&value) => {
            "it must be options, or environment: then credentials come from the server's environment or its cloud"
        }
        "endpoint" | "base_url" | "proxy_url" | "authority_host" => match url::Url::parse(value) {
            Ok(url) if !["http", "https"].contains(&url.scheme()) || !url.has_host() => {
                "it must be a URL that begins with http:// or https://"
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => "it must not hold credentials",
            Ok(url) if url.query().is_some() || url.fragment().is_some() => "it must not have a ? or a # in it",
            Ok(_) => return Ok(()),
            Err(_) => "it must be a URL that begins with http:// or https://",
        },
        _ if value.contains(|c: char| c.is_control()) && name != "service_account_key" => {
            "it must not have control characters in it"
        }
        _ => return Ok(()),
    };
    Err(wrong.into())
}

pub(super) fn is_true(options: &Options, name: &str) -> bool {
    options.get(name).and_then(|value| boolean(value)).unwrap_or(false)
}

pub(super) fn from_environment(options: &Options) -> bool {
    options.get("credentials").is_some_and(|value| value == "environment")
}

/// What is wrong with a store as configured, relative to it (`.url`, `.options.endpoint`). Pure: connects nowhere. A store
/// with a `named_collection` needs no credentials: then only ClickHouse can write to it, and nothing here can use it.
pub fn check_store(store: &Store) -> Vec<Fault> {
    let faults = check_use(store);
    let exports = store.options.keys().any(|key| key.eq_ignore_ascii_case("named_collection"));
    if !exports {
        return faults;
    }
    faults.into_iter().filter(|fault| !fault.message.contains(MISSING)).collect()
}

const MISSING: &str = "it is missing";

/// What keeps a store from being used here.
pub(super) fn check_use(store: &Store) -> Vec<Fault> {
    let address = match address(&store.url) {
        Ok(address) => address,
        Err(message) => return vec![Fault::new(".url", message)],
    };
    let (options, mut faults) = options(address.scheme, store);
    for name in ["endpoint", "base_url", "authority_host"] {
        let plain = options.get(name).is_some_and(|url| url.starts_with("http://"));
        if plain && !is_true(&options, "allow_http") {
            faults.push(Fault::new(
                format!(".options.{name}"),
                "it is not encrypted: use https://, or set allow_http to true",
            ));
        }
    }
    let has = |name: &str| options.contains_key(name);
    let missing = |name: &str, what: &str| Fault::new(format!(".options.{name}"), what.to_owned());
    let given = if from_environment(&options) || is_true(&options, "skip_signature") {
        None
    } else {
        match address.scheme {
            Scheme::File => None,
            Scheme::S3 if !has("access_key_id") => Some(missing("access_key_id", MISSING)),
            Scheme::S3 if !has("secret_access_key") => Some(missing("secret_access_key", MISSING)),
            Scheme::S3 => None,
            Scheme::Azure => {
                let application = ["client_id", "client_secret", "tenant_id"];
                let complete = has("account_key")
                    || has("sas_token")
                    || has("bearer_token")
                    || application.iter().all(|name| has(name));
                (!complete).then(|| {
                    missing(
                        "account_key",
                        "it is missing: there must be an account_key, a sas_token, a bearer_token, or client_id, client_secret and tenant_id",
                    )
                })
            }
            Scheme::Google => (!has("service_account_key") && !has("bearer_token")).then(|| {
                missing(
                    "service_account_key",
                    "it is missing: there must be a service_account_key (its JSON) or a bearer_token",
                )
            }),
        }
    };
    faults.extend(given);
    if address.scheme == Scheme::Azure && !has("account_name") && !from_environment(&options) {
        faults.push(missing("account_name", MISSING));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(url: &str, options: &[(&str, &str)]) -> Store {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), Secret::new(*v))).collect();
        Store { name: "results".into(), url: url.into(), options }
    }

    fn faults(url: &str, options: &[(&str, &str)]) -> Vec<String> {
        check_store(&store(url, options)).into_iter().map(|f| format!("{}: {}", f.path, f.message)).collect()
    }

    const KEYS: [(&str, &str); 2] = [("aws_access_key_id", "abcd"), ("SECRET_ACCESS_KEY", "hunter22")];

    #[test]
    fn urls_are_taken_apart() {
        let of = |scheme, bucket: &str, prefix: &str| Address { scheme, bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(address("s3://my_bucket/a/b/"), Ok(of(Scheme::S3, "my_bucket", "a/b")));
        assert_eq!(address("az://box"), Ok(of(Scheme::Azure, "box", "")));
        assert_eq!(address("gs://box/"), Ok(of(Scheme::Google, "box", "")));
        assert_eq!(address("file:///srv/results"), Ok(of(Scheme::File, "", "srv/results")));
        for wrong in [
            "results",
            "ftp://x/y",
            "s3://",
            "s3:///prefix",
            "s3://key:secret@bucket/x",
            "s3://bucket/a/../b",
            "s3://bucket/a//b",
            "s3://bucket/a?x=y",
            "s3://bucket/%2e%2e",
            "file://host/dir",
            "file:///",
            "file:///srv/../etc",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_are_known_by_both_names_and_no_others() {
        assert_eq!(faults("s3://bucket", &KEYS), Vec::<String>::new());
        let mut options = KEYS.to_vec();
        options.extend([
            ("aws_endpoint", "http://127.0.0.1:1"),
            ("virtual_hosted_style", "maybe"),
            ("timeout", "soon"),
        ]);
        options.extend([("metadata_endpoint", "http://x"), ("region", "eu")]);
        let found = faults("s3://bucket", &options);
        assert_eq!(found.len(), 4, "{found:?}");
        for start in [".options.metadata_endpoint: there is no option", ".options.timeout: it must be a number"] {
            assert!(found.iter().any(|f| f.starts_with(start)), "{found:?}");
        }
        assert!(found.iter().any(|f| f.starts_with(".options.endpoint: it is not encrypted")), "{found:?}");
        // What reads files of the server, starts a program or asks another address is no option.
        for key in ["web_identity_token_file", "container_credentials_full_uri", "imdsv1_fallback"] {
            assert_eq!(faults("s3://b-1", &[KEYS[0], KEYS[1], (key, "x")]).len(), 1, "{key}");
        }
        let azure = [("account_name", "a"), ("azure_storage_account_key", "k")];
        assert_eq!(faults("az://box", &azure), Vec::<String>::new());
        for key in ["use_azure_cli", "msi_endpoint", "federated_token_file", "use_emulator"] {
            assert_eq!(faults("az://box", &[azure[0], azure[1], (key, "true")]).len(), 1, "{key}");
        }
        for key in ["service_account", "application_credentials"] {
            assert_eq!(faults("gs://box", &[("bearer_token", "x"), (key, "/etc/passwd")]).len(), 1, "{key}");
        }
        assert_eq!(faults("file:///srv", &[("region", "x")]).len(), 1);
    }

    #[test]
    fn credentials_must_be_given() {
        assert_eq!(faults("s3://bucket", &[]), [".options.access_key_id: it is missing"]);
        assert_eq!(faults("s3://bucket", &KEYS[..1]), [".options.secret_access_key: it is missing"]);
        assert_eq!(faults("s3://bucket", &[("credentials", "environment")]), Vec::<String>::new());
        assert_eq!(faults("s3://bucket", &[("skip_signature", "on")]), Vec::<String>::new());
        assert_eq!(faults("az://box", &[("account", "a"), ("client_id", "x")]).len(), 1);
        assert_eq!(faults("gs://box", &[]).len(), 1);
        assert_eq!(
            faults("s3://b", &[KEYS[0], KEYS[1], ("access_key_id", "x")]),
            [".options.aws_access_key_id: access_key_id is given twice, under two names"]
        );
    }

    #[test]
    fn credentials_may_be_clickhouses() {
        let collection = [("named_collection", "results"), ("endpoint", "http://plain")];
        assert_eq!(faults("s3://bucket", &collection[..1]), Vec::<String>::new());
        assert_eq!(check_use(&store("s3://bucket", &collection[..1])).len(), 1);
        assert_eq!(faults("s3://bucket", &collection).len(), 1, "other faults stay");
        assert_eq!(faults("az://bucket", &collection[..1]), Vec::<String>::new());
    }

    #[test]
    fn an_option_is_found_by_its_bare_name() {
        let store = store("s3://bucket", &KEYS);
        assert_eq!(store.option("secret_access_key").map(Secret::expose), Some("hunter22"));
        assert_eq!(store.option("access_key_id").map(Secret::expose), Some("abcd"));
        assert!(store.option("endpoint").is_none());
    }

    #[test]
    fn no_fault_repeats_a_value() {
        for key in ["endpoint", "timeout", "verify", "allow_http", "credentials", "nonsense"] {
            let found = faults("s3://bucket", &[KEYS[0], KEYS[1], (key, "hunter23\n")]);
            assert!(!found.is_empty() && !format!("{found:?}").contains("hunter"), "{found:?}");
        }
    }

    #[test]
    fn paths_stay_below_the_store() {
        for fine in ["a", "a/b.parquet", "täglich/2026-11-20/x y.csv", "a..b/c.", "k=v/~x"] {
            assert_eq!(check_path(fine), Ok(()), "{fine}");
        }
        let long = "x".repeat(241);
        for wrong in
            ["", "/a", "a//b", "a/", "..", "a/../b", "./a", "a\\..\\b", "a%2e", "a\0", "a\nb", "x#1", "*", &long]
        {
            assert!(check_path(wrong).is_err(), "{wrong}");
        }
    }
}
