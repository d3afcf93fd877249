//! Values that look like configurations, nearly like them, or like nothing at all.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Number, Value};

const KEYS: &[&str] = &[
    "nodes",
    "flow",
    "concurrency_group_routine",
    "description",
    "priority",
    "run_as",
    "node",
    "target",
    "routine",
    "node_routine",
    "step_routine",
    "query",
    "node_query",
    "step_query",
    "query_routine",
    "parameters",
    "settings",
    "tier",
    "request",
    "result",
    "all_steps_must_complete",
    "empty",
    "steps_to_flow",
    "synchronous",
    "node_timeout",
    "step_timeout",
    "dependencies",
    "steps",
    "on_partial",
    "parent",
    "continue_on_failure",
    "depends",
    "rutine",
    "to",
    "store",
    "format",
    "wrong",
];

const WORDS: &[&str] = &[
    "local",
    "queue",
    "far",
    "house",
    "web",
    "results",
    "fast",
    "daily",
    "f",
    "rerun",
    "fail",
    "none",
    "inline",
    "object",
    "table",
    "csv",
    "parquet",
    "5 minutes",
    "-1 s",
    "a",
    "b",
    "a.b",
    "n1",
    "n2",
    "n3",
    "n4",
    "",
];

/// What breaks quoting, lines, directions, escapes and terminals.
const ODD: &[&str] = &[
    "\0",
    "\n",
    "\r\n",
    "\t",
    "\u{1b}[31m",
    "\u{202e}",
    "\u{2066}x\u{2069}",
    "\u{200b}",
    "\u{feff}",
    "\u{e0041}",
    "\"",
    "'",
    "\\",
    "\\\"",
    "\"];\n  evil [label=\"x\"",
    "<B>",
    "</TABLE>>",
    "&amp;",
    "]]>",
    "--",
    "$$",
    "%s",
    "{}",
    "名前",
    "🚀",
    "e\u{301}",
];

/// Numbers that jsonb has and that a parser may stumble over.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "99",
    "-99",
    "100",
    "1.0",
    "1e2",
    "0.1e-3",
    "1e308",
    "1e400",
    "-1e-400",
    "9223372036854775807",
    "9223372036854775808",
    "10e9223372036854775807",
    "1e99999999999999999999",
    "0.00000000000000000000000000000000000000000001",
    "123456789012345678901234567890.123456789",
];

pub fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => proptest::sample::select(WORDS).prop_map(str::to_owned),
        3 => proptest::sample::select(ODD).prop_map(str::to_owned),
        2 => "[a-z_0-9.]{0,12}",
        1 => any::<String>(),
    ];
    prop_oneof![
        4 => piece.clone(),
        2 => vec(piece, 0..4).prop_map(|pieces| pieces.concat()),
        1 => ("[a-zé名\u{202e}\"]", 1..400usize).prop_map(|(c, times)| c.repeat(times)),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![8 => proptest::sample::select(KEYS).prop_map(str::to_owned), 1 => text()]
}

fn number() -> impl Strategy<Value = Value> {
    let written = proptest::sample::select(NUMBERS);
    prop_oneof![
        written.prop_map(|text| serde_json::from_str(text).unwrap_or(Value::Null)),
        any::<f64>().prop_map(|n| Number::from_f64(n).map_or(Value::Null, Value::Number)),
        (-120..120i64).prop_map(Value::from),
    ]
}

/// Any JSON.
pub fn anything() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::Bool), number(), text().prop_map(Value::String)];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec((key(), inner), 0..6).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// A name that a node may have.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![6 => (0..8usize).prop_map(|i| format!("n{i}")), 1 => "[a-z][a-z_0-9]{0,5}(\\.[a-z]{1,3})?", 1 => text()]
}

fn dependency() -> impl Strategy<Value = Value> {
    let good = (name(), any::<bool>())
        .prop_map(|(parent, on)| serde_json::json!({"parent": parent, "continue_on_failure": on}));
    prop_oneof![12 => good, 1 => anything()]
}

fn node() -> impl Strategy<Value = Value> {
    let extras = vec((key(), prop_oneof![3 => text().prop_map(Value::String), 2 => anything()]), 0..3);
    let good = (
        name(),
        proptest::option::of(vec(dependency(), 0..4)),
        proptest::option::of(vec(
            prop_oneof![5 => (0..5i64).prop_map(|i| serde_json::json!({"i": i})), 1 => anything()],
            0..4,
        )),
        extras,
    );
    let good = good.prop_map(|(name, dependencies, steps, extras)| {
        let mut node = Map::new();
        node.extend(extras);
        node.insert("node".into(), Value::String(name));
        node.extend(dependencies.map(|list| ("dependencies".to_owned(), Value::Array(list))));
        node.extend(steps.map(|list| ("steps".to_owned(), Value::Array(list))));
        Value::Object(node)
    });
    prop_oneof![15 => good, 1 => anything()]
}

/// Something that resembles a configuration.
pub fn configuration() -> impl Strategy<Value = Value> {
    let top = (vec(node(), 0..8), vec((key(), anything()), 0..2)).prop_map(|(nodes, extras)| {
        let mut top = Map::new();
        top.extend(extras);
        top.insert("nodes".into(), Value::Array(nodes));
        Value::Object(top)
    });
    prop_oneof![15 => top, 1 => anything()]
}

/// A configuration without faults but for those that the catalog finds: nodes have distinct names, parents come before.
pub fn nearly_good() -> impl Strategy<Value = Value> {
    let parents = vec((any::<prop::sample::Index>(), any::<bool>()), 0..3);
    let odd = proptest::option::weighted(0.2, (key(), text().prop_map(Value::String)));
    let steps = proptest::option::of(vec(anything().prop_map(|value| serde_json::json!({"given": value})), 0..3));
    vec((parents, odd, steps), 1..10).prop_map(|drawn| {
        let mut nodes = Vec::new();
        for (i, (parents, odd, steps)) in drawn.into_iter().enumerate() {
            let mut node = Map::new();
            node.insert("node".into(), Value::String(format!("n{i}")));
            node.extend(odd.filter(|(key, _)| key != "node" && key != "dependencies"));
            let mut named = std::collections::BTreeMap::new();
            named.extend(parents.iter().filter(|_| i > 0).map(|(index, on)| (index.index(i), *on)));
            let list = named
                .iter()
                .map(|(parent, on)| serde_json::json!({"parent": format!("n{parent}"), "continue_on_failure": on}));
            node.insert("dependencies".into(), list.collect());
            node.extend(steps.map(|list| ("steps".to_owned(), Value::Array(list))));
            nodes.push(Value::Object(node));
        }
        serde_json::json!({ "nodes": nodes })
    })
}

/// The text of a configuration in which some bytes were replaced, taken away, doubled or cut off.
pub fn mangled() -> impl Strategy<Value = String> {
    let edits = vec((any::<prop::sample::Index>(), 0..5u8, any::<char>()), 0..6);
    (prop_oneof![configuration(), nearly_good()], edits).prop_map(|(value, edits)| {
        let mut chars: Vec<char> = value.to_string().chars().collect();
        for (index, kind, c) in edits {
            if chars.is_empty() {
                break;
            }
            let at = index.index(chars.len());
            match kind {
                0 => chars[at] = c,
                1 => drop(chars.remove(at)),
                2 => chars.insert(at, c),
                3 => chars.truncate(at),
                _ => {
                    let piece: Vec<char> = chars[at..].iter().take(20).copied().collect();
                    chars.splice(at..at, piece);
                }
            }
        }
        chars.into_iter().collect()
    })
}
