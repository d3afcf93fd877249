//! The keys that a configuration may have, the type of each, and which of them a misspelt one was meant to be.
//!
//! Must never guess silently: a resemblance becomes a fault that names the nearest key, it is never taken for that key.

use serde_json::Value;
use strsim::damerau_levenshtein;

use super::fault::described;

/// Which object of a configuration a key is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Top,
    Flow,
    Node,
    Dependency,
}

/// The type of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string that is not empty.
    Text,
    /// Any string.
    Prose,
    Bool,
    Priority,
    /// A whole number between two.
    Whole(i64, i64),
    /// A string, or a number of seconds. What the string means is for the catalog to say.
    Interval,
    OneOf(&'static [&'static str]),
    Array,
    Object,
    /// An object that is kept as it is; what its keys mean is checked by itself.
    Options,
    /// A string or an object, kept as it is.
    TextOrOptions,
}

/// The most steps that share a transaction: beyond, the subtransactions of one transaction slow every other session down.
pub(super) const MAX_STEPS_PER_TRANSACTION: i64 = 64;

type Key = (&'static str, Kind);

const TOP: &[Key] = &[
    ("nodes", Kind::Array),
    ("flow", Kind::Object),
    ("concurrency_group_routine", Kind::Text),
    ("description", Kind::Prose),
];

const FLOW: &[Key] = &[
    ("concurrency_group_routine", Kind::Text),
    ("priority", Kind::Priority),
    ("run_as", Kind::Text),
    ("description", Kind::Prose),
];

const NODE: &[Key] = &[
    ("node", Kind::Text),
    ("target", Kind::Text),
    ("routine", Kind::Text),
    ("node_routine", Kind::Text),
    ("step_routine", Kind::Text),
    ("query", Kind::Text),
    ("node_query", Kind::Text),
    ("step_query", Kind::Text),
    ("query_routine", Kind::Text),
    ("parameters", Kind::Options),
    ("settings", Kind::Options),
    ("tier", Kind::Text),
    ("request", Kind::Options),
    ("result", Kind::TextOrOptions),
    ("priority", Kind::Priority),
    ("all_steps_must_complete", Kind::Bool),
    ("empty", Kind::Bool),
    ("steps_to_flow", Kind::Text),
    ("synchronous", Kind::Bool),
    ("synchronous_commit", Kind::OneOf(&["inherit", "off"])),
    ("steps_per_transaction", Kind::Whole(1, MAX_STEPS_PER_TRANSACTION)),
    ("node_timeout", Kind::Interval),
    ("step_timeout", Kind::Interval),
    ("dependencies", Kind::Array),
    ("steps", Kind::Array),
    ("on_partial", Kind::OneOf(&["rerun", "fail"])),
    ("description", Kind::Prose),
];

const DEPENDENCY: &[Key] = &[("parent", Kind::Text), ("continue_on_failure", Kind::Bool)];

/// Words that people use for a key and that its spelling does not resemble.
const SYNONYMS: &[(Level, &str, &str)] = &[
    (Level::Node, "deps", "dependencies"),
    (Level::Node, "parent", "dependencies"),
    (Level::Node, "parents", "dependencies"),
    (Level::Node, "params", "parameters"),
    (Level::Node, "queries", "query"),
];

impl Level {
    fn keys(self) -> &'static [Key] {
        match self {
            Level::Top => TOP,
            Level::Flow => FLOW,
            Level::Node => NODE,
            Level::Dependency => DEPENDENCY,
        }
    }

    /// What a message calls an object of this level.
    pub fn noun(self) -> &'static str {
        match self {
            Level::Top => "a configuration",
            Level::Flow => "\"flow\"",
            Level::Node => "a node",
            Level::Dependency => "a dependency",
        }
    }

    /// The type of a known key.
    pub fn kind(self, key: &str) -> Option<Kind> {
        self.keys().iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
    }

    /// The known keys, as a hint lists them.
    pub fn listed(self) -> String {
        let keys: Vec<&str> = self.keys().iter().map(|(name, _)| *name).collect();
        format!("{} has {}", self.noun(), keys.join(", "))
    }

    /// The level that an unknown key is a known one of, when leaving it here would silently lose what it says.
    pub fn belongs(self, key: &str) -> Option<Level> {
        let levels: &[Level] = match self {
            Level::Top => &[Level::Flow, Level::Node],
            Level::Flow => &[Level::Node],
            Level::Node => &[Level::Flow, Level::Dependency],
            Level::Dependency => &[],
        };
        // Both mean the same at the top.
        if key == "node" {
            return None;
        }
        levels.iter().copied().find(|level| level.kind(key).is_some())
    }

    /// The known key that an unknown one resembles. `given` says which keys the object has beside it.
    pub fn nearest(self, unknown: &str, given: impl Fn(&str) -> bool) -> Option<&'static str> {
        let unknown = snake(unknown);
        let names = || self.keys().iter().map(|(name, _)| *name);
        if let Some((_, _, meant)) = SYNONYMS.iter().find(|(level, word, _)| *level == self && *word == unknown) {
            return Some(meant);
        }
        // A short word beside the key it resembles (`note` beside `node`) is a word of its own.
        let near = names()
            .filter(|name| name.len() > 5 || !given(name))
            .map(|name| (distance(&unknown, name), name))
            .filter(|(d, name)| *d <= if name.len() <= 5 { 1 } else { 2 })
            .min_by_key(|(d, _)| *d);
        near.map(|(_, name)| name).or_else(|| names().find(|name| same_stem(&unknown, name)))
    }
}

impl Kind {
    /// Whether a value is of this type; if not, what it should be.
    pub fn check(self, value: &Value) -> Result<(), String> {
        let (right, wanted) = match self {
            Kind::Text => {
                (value.as_str().is_some_and(|s| !s.trim().is_empty()), "a string that is not empty".to_owned())
            }
            Kind::Prose => (value.is_string(), "a string".into()),
            Kind::Bool => (value.is_boolean(), "true or false".into()),
            Kind::Priority => return Kind::Whole(-99, 99).check(value),
            Kind::Whole(from, to) => (
                value.as_i64().is_some_and(|n| (from..=to).contains(&n)),
                format!("a whole number from {from} to {to}"),
            ),
            Kind::Interval => (
                value.as_f64().map_or(value.is_string(), |n| n > 0.0 && n.is_finite()),
                "an interval: a string such as \"5 minutes\", or a positive number of seconds".into(),
            ),
            Kind::OneOf(words) => (value.as_str().is_some_and(|s| words.contains(&s)), {
                let words: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
                words.join(" or ")
            }),
            Kind::Array => (value.is_array(), "an array".into()),
            Kind::Object | Kind::Options => (value.is_object(), "an object".into()),
            Kind::TextOrOptions => (value.is_object() || value.is_string(), "an object or a word".into()),
        };
        if right {
            Ok(())
        } else {
            Err(format!("must be {wanted}, not {}", described(value)))
        }
    }
}

/// `stepTimeout`, `Step-Timeout` → `step_timeout`. Never longer than a key needs to be compared.
fn snake(key: &str) -> String {
    let mut out = String::new();
    for c in key.trim().chars().take(64) {
        if c.is_uppercase() && out.ends_with(|p: char| p.is_lowercase() || p.is_ascii_digit()) {
            out.push('_');
        }
        match c {
            '-' | ' ' | '.' => out.push('_'),
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

fn squash(key: &str) -> String {
    key.replace('_', "")
}

fn distance(unknown: &str, known: &str) -> usize {
    damerau_levenshtein(unknown, known).min(damerau_levenshtein(&squash(unknown), &squash(known)))
}

/// Whether an unknown key is the beginning (`depends`, `sync`, `steps_to`) or the end (`timeout`) of a known one.
fn same_stem(unknown: &str, known: &str) -> bool {
    is_beginning(unknown, known) || is_end(unknown, known) || is_end(unknown.trim_end_matches('s'), known)
}

fn is_beginning(unknown: &str, known: &str) -> bool {
    let (unknown, known) = (unknown.strip_suffix("_on").unwrap_or(unknown), known);
    let common = unknown.bytes().zip(known.bytes()).take_while(|(a, b)| a == b).count();
    // The word in which they part must begin alike too: `node_type` is not `node_timeout`.
    let word = known.as_bytes()[..common].iter().rposition(|b| *b == b'_').map_or(common, |at| common - at - 1);
    let rest = unknown.len() - common;
    common >= 4 && (rest == 0 || (rest <= 2 && word >= 4))
}

fn is_end(unknown: &str, known: &str) -> bool {
    unknown.len() >= 5 && known.strip_suffix(unknown).is_some_and(|start| start.ends_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nearest(level: Level, key: &str) -> Option<&'static str> {
        level.nearest(key, |_| false)
    }

    #[test]
    fn a_misspelt_key_names_the_nearest() {
        for (key, meant) in [
            ("depends", "dependencies"),
            ("depends_on", "dependencies"),
            ("dependsOn", "dependencies"),
            ("dependency", "dependencies"),
            ("depend", "dependencies"),
            ("dependancies", "dependencies"),
            ("deps", "dependencies"),
            ("parents", "dependencies"),
            ("rutine", "routine"),
            ("routines", "routine"),
            ("Routine", "routine"),
            ("nodeRoutine", "node_routine"),
            ("step-routine", "step_routine"),
            ("timeout", "node_timeout"),
            ("timeouts", "node_timeout"),
            ("step_time_out", "step_timeout"),
            ("steptimeout", "step_timeout"),
            ("step", "steps"),
            ("targets", "target"),
            ("taregt", "target"),
            ("emtpy", "empty"),
            ("prio", "priority"),
            ("sync", "synchronous"),
            ("synchronus", "synchronous"),
            ("all_steps", "all_steps_must_complete"),
            ("must_complete", "all_steps_must_complete"),
            ("steps_to", "steps_to_flow"),
            ("partial", "on_partial"),
            ("nod", "node"),
            ("desc", "description"),
            ("queries", "query"),
            ("stepQuery", "step_query"),
            ("params", "parameters"),
            ("paramters", "parameters"),
            ("setting", "settings"),
            ("results", "result"),
            ("reqest", "request"),
            ("teir", "tier"),
        ] {
            assert_eq!(nearest(Level::Node, key), Some(meant), "{key}");
        }
        assert_eq!(nearest(Level::Top, "node"), Some("nodes"));
        assert_eq!(nearest(Level::Top, "flows"), Some("flow"));
        assert_eq!(nearest(Level::Top, "concurrency_group"), Some("concurrency_group_routine"));
        assert_eq!(nearest(Level::Flow, "runas"), Some("run_as"));
        assert_eq!(nearest(Level::Dependency, "parents"), Some("parent"));
        assert_eq!(nearest(Level::Dependency, "on_failure"), Some("continue_on_failure"));
        assert_eq!(nearest(Level::Dependency, "continue"), Some("continue_on_failure"));
    }

    #[test]
    fn a_key_of_its_own_resembles_none() {
        for key in [
            "owner",
            "version",
            "comment",
            "name",
            "label",
            "id",
            "node_id",
            "node_type",
            "node_tag",
            "step_id",
            "step_args",
            "tags",
            "type",
            "order",
            "group",
            "meta",
            "metadata",
            "notes",
            "x",
            "",
            "создано",
            "sla",
            "cost",
            "flow",
            "color",
            "concurrency_pool",
            "target_schema",
            "state",
            "stage",
            "retry",
        ] {
            assert_eq!(nearest(Level::Node, key), None, "{key}");
        }
        for key in ["owner", "version", "name", "id", "meta", "concurrency_pool", "created_at"] {
            assert_eq!(nearest(Level::Top, key), None, "{key}");
        }
    }

    #[test]
    fn a_short_word_beside_the_key_it_resembles_is_its_own() {
        assert_eq!(Level::Node.nearest("note", |key| key == "node"), None);
        assert_eq!(Level::Top.nearest("notes", |key| key == "nodes"), None);
        assert_eq!(Level::Node.nearest("rutine", |key| key == "routine"), Some("routine"));
    }

    #[test]
    fn a_key_of_another_level_is_sent_there() {
        assert_eq!(Level::Top.belongs("run_as"), Some(Level::Flow));
        assert_eq!(Level::Top.belongs("target"), Some(Level::Node));
        assert_eq!(Level::Node.belongs("run_as"), Some(Level::Flow));
        assert_eq!(Level::Node.belongs("continue_on_failure"), Some(Level::Dependency));
        assert_eq!(Level::Node.belongs("flow"), None);
        assert_eq!(Level::Top.belongs("owner"), None);
    }

    #[test]
    fn a_value_of_the_wrong_type_says_what_it_should_be() {
        let fault = |kind: Kind, value: Value| kind.check(&value).err();
        assert_eq!(fault(Kind::Text, json!("x")), None);
        assert_eq!(
            fault(Kind::Text, json!("")).as_deref(),
            Some("must be a string that is not empty, not the string \"\"")
        );
        assert_eq!(fault(Kind::Prose, json!("")), None);
        assert_eq!(fault(Kind::Bool, json!("true")).as_deref(), Some("must be true or false, not the string \"true\""));
        assert_eq!(fault(Kind::Priority, json!(-99)), None);
        assert_eq!(
            fault(Kind::Priority, json!(100)).as_deref(),
            Some("must be a whole number from -99 to 99, not the number 100")
        );
        assert!(fault(Kind::Priority, json!(1.5)).is_some());
        assert_eq!(fault(Kind::Whole(1, 64), json!(64)), None);
        assert_eq!(
            fault(Kind::Whole(1, 64), json!(0)).as_deref(),
            Some("must be a whole number from 1 to 64, not the number 0")
        );
        assert_eq!(fault(Kind::Interval, json!(1.5)), None);
        assert_eq!(fault(Kind::Interval, json!("5 minutes")), None);
        assert!(fault(Kind::Interval, json!(0)).is_some());
        assert!(fault(Kind::Interval, json!(true)).is_some());
        assert_eq!(
            fault(Kind::OneOf(&["rerun", "fail"]), json!("x")).as_deref(),
            Some("must be \"rerun\" or \"fail\", not the string \"x\"")
        );
        assert_eq!(fault(Kind::Array, json!({})).as_deref(), Some("must be an array, not an object"));
        assert_eq!(fault(Kind::Object, json!([])).as_deref(), Some("must be an object, not an array"));
    }
}
