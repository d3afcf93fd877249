//! What holds of every configuration and of every diagram.

use pgflow_core::definition::{configure, extend_selection, options_faults, ranks};
use pgflow_core::definition::{Definition, Elsewhere, Fault, Needs, Severity, TargetInfo};
use pgflow_core::diagram::{graphviz, Diagram, DiagramEdge, DiagramNode, StepCounts};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::Value;

use crate::fake::Fake;
use crate::generate::{anything, configuration, mangled, nearly_good, text};
use crate::place::{place, Place};
use crate::run::holds;

/// A message is shown in logs and terminals: it is short, and nothing in it turns or hides the rest.
fn is_fit_to_show(fault: &Fault) -> Result<(), TestCaseError> {
    for text in [Some(&fault.path), Some(&fault.message), fault.hint.as_ref()].into_iter().flatten() {
        prop_assert!(!text.is_empty() && text.chars().count() < 2500, "{} characters: {text}", text.chars().count());
        let odd = |c: &char| {
            c.is_control() || matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        };
        prop_assert!(text.chars().find(odd).is_none(), "{text:?}");
    }
    Ok(())
}

/// Reads a configuration; what comes of it must fit together, whatever it is.
fn judged(new: &Value, stored: Option<&Value>, strict: bool) -> Result<Option<Definition>, TestCaseError> {
    let (definition, faults) = configure("f", new, stored, strict, &mut Fake);
    let refused = faults.iter().any(|fault| fault.severity == Severity::Error);
    prop_assert_eq!(definition.is_none(), refused, "{:?}", faults);
    for fault in &faults {
        is_fit_to_show(fault)?;
        let lost = match place(new, &fault.path) {
            Place::Found => None,
            Place::Stored => stored.is_none().then(|| format!("{} speaks of what is not stored", fault.path)),
            // What is wrong with the whole of two documents has its place in the other one.
            Place::Lost(why) => stored.is_none().then_some(why),
        };
        prop_assert!(lost.is_none(), "{}: {}", lost.unwrap_or_default(), fault.message);
    }
    if let Some(definition) = &definition {
        is_sound(definition)?;
    }
    Ok(definition)
}

/// Names are names, parents are there, and every rank is the longest path.
fn is_sound(definition: &Definition) -> Result<(), TestCaseError> {
    prop_assert!(!definition.nodes.is_empty());
    let mut names = std::collections::HashSet::new();
    for (i, node) in definition.nodes.iter().enumerate() {
        prop_assert_eq!(node.node_no, i);
        prop_assert!(names.insert(&node.name), "{} is there twice", node.name);
        prop_assert!(node.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.".contains(&b)));
        prop_assert!(node.parents.iter().all(|(parent, _)| *parent < definition.nodes.len() && *parent != i));
        let longest = node.parents.iter().map(|(parent, _)| definition.nodes[*parent].rank + 1).max();
        prop_assert_eq!(node.rank, longest.unwrap_or(0));
        prop_assert!(node.steps.iter().all(|step| step.as_object().is_some_and(|object| !object.is_empty())));
    }
    Ok(())
}

/// What was accepted is accepted as it is stored, means the same, and changes nothing when it is added to itself.
fn is_kept(definition: &Definition) -> Result<(), TestCaseError> {
    let stored = &definition.configuration;
    let again = judged(stored, None, false)?;
    prop_assert_eq!(again.as_ref(), Some(definition));
    let written: Value = serde_json::from_str(&stored.to_string()).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(&written, stored);
    let added = judged(stored, Some(stored), false)?;
    prop_assert_eq!(added.as_ref(), Some(definition));
    Ok(())
}

#[test]
fn whatever_is_given_is_refused_with_places_or_kept() {
    holds("anything", (prop_oneof![configuration(), anything()], any::<bool>()), |(value, strict)| {
        match judged(&value, None, strict)? {
            Some(definition) => is_kept(&definition),
            None => Ok(()),
        }
    });
}

#[test]
fn what_is_nearly_right_is_refused_with_places_or_kept() {
    holds("nearly good", (nearly_good(), any::<bool>()), |(value, strict)| match judged(&value, None, strict)? {
        Some(definition) => is_kept(&definition),
        None => Ok(()),
    });
}

#[test]
fn anything_may_be_added_to_anything() {
    let either = || prop_oneof![configuration(), nearly_good(), anything()];
    holds("added", (either(), either()), |(stored, new)| {
        // What is stored has been accepted once, but the catalog may have changed: any document can be there.
        judged(&new, Some(&stored), false)?;
        if let Some(accepted) = judged(&stored, None, false)? {
            if let Some(merged) = judged(&new, Some(&accepted.configuration), false)? {
                let kept = |name: &String| merged.nodes.iter().any(|node| node.name == *name);
                prop_assert!(accepted.nodes.iter().all(|node| kept(&node.name)));
                is_kept(&merged)?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_text_that_was_tampered_with_is_no_json_or_is_judged() {
    holds("mangled", mangled(), |text| {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            judged(&value, None, true)?;
        }
        Ok(())
    });
}

#[test]
fn options_and_selections_are_refused_or_taken() {
    let kinds = ["postgres", "clickhouse", "http"].map(|kind| {
        let needs = [Needs::Query, Needs::QueryOrRoutine, Needs::Options];
        needs.map(|needs| (kind, needs))
    });
    let edges = vec((0..9usize, 0..9usize), 0..30);
    let drawn = (anything(), any::<prop::sample::Index>(), edges, vec(text(), 0..5), any::<(bool, bool)>());
    holds("options", drawn, |(options, kind, edges, only, (up, down))| {
        let kinds = kinds.as_flattened();
        let (kind, needs) = kinds[kind.index(kinds.len())];
        let target = Elsewhere { kind: kind.into(), needs, exports: up, tiers: None };
        if let Some(options) = options.as_object() {
            for fault in options_faults(&TargetInfo::Elsewhere(target), options, &mut Fake) {
                is_fit_to_show(&fault)?;
            }
        }
        let names: Vec<String> = (0..8).map(|i| format!("n{i}")).collect();
        if let Ok(selected) = extend_selection(&names, &edges, &only, up, down) {
            prop_assert!(selected.windows(2).all(|pair| pair[0] < pair[1]) && selected.iter().all(|node| *node < 8));
        }
        match ranks(8, &edges) {
            Ok(ranks) => {
                for (parent, child) in
                    edges.iter().filter(|(parent, child)| *parent < 8 && *child < 8 && parent != child)
                {
                    prop_assert!(ranks[*parent] < ranks[*child]);
                }
            }
            Err(cycles) => {
                for cycle in cycles {
                    for (at, node) in cycle.iter().enumerate() {
                        prop_assert!(edges.contains(&(*node, cycle[(at + 1) % cycle.len()])));
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_diagram_of_anything_is_a_diagram() {
    let texts = (text(), text(), text(), text(), text(), text());
    let counts = proptest::option::of(any::<(u64, u64, u64, u64)>());
    let node = (texts, counts, any::<(bool, bool)>()).prop_map(|(texts, counts, (empty, full))| DiagramNode {
        name: texts.0,
        target: full.then_some(texts.1),
        routine: full.then_some(texts.2),
        status: full.then_some(texts.3),
        steps: counts.map(|(pending, running, finished, failed)| StepCounts {
            total: pending.max(finished),
            pending,
            running,
            finished,
            failed,
        }),
        run_time: full.then(|| texts.4.clone()),
        note: full.then_some(texts.5),
        empty,
        steps_to_flow: empty.then_some(texts.4),
    });
    let edge = (0..8usize, 0..8usize, any::<bool>());
    let edge = edge.prop_map(|(parent, child, on)| DiagramEdge { parent, child, continue_on_failure: on });
    holds("diagrams", (text(), vec(node, 0..6), vec(edge, 0..10), any::<bool>()), |(title, nodes, edges, legend)| {
        let diagram = Diagram { title, nodes, edges, legend };
        let drawn = graphviz(&diagram);
        let statements =
            crate::dot::statements(&drawn).map_err(|why| TestCaseError::fail(format!("{why}\n{drawn}")))?;
        // One line a box, whatever its name is; `start` and `end` are two more.
        let boxes = statements.iter().filter(|line| line.contains("label=H, tooltip=S")).count();
        prop_assert_eq!(boxes, diagram.nodes.len(), "{}", drawn);
        prop_assert_eq!(statements.iter().filter(|line| line.contains("circle")).count(), 2, "{}", drawn);
        Ok(())
    });
}

/// The generators reach what they are for: else the properties above would hold of nothing.
#[test]
fn the_generators_make_good_and_bad_ones() {
    let counts = std::cell::RefCell::new([0; 4]);
    holds("generators", (nearly_good(), configuration()), |(good, any)| {
        let accepted = |value| configure("f", value, None, false, &mut Fake).0.is_some();
        let mut counts = counts.borrow_mut();
        counts[usize::from(accepted(&good))] += 1;
        counts[2 + usize::from(accepted(&any))] += 1;
        Ok(())
    });
    let counts = counts.into_inner();
    let enough = |some: i32, all: i32| some * 10 > all;
    assert!(enough(counts[0], counts[0] + counts[1]) && enough(counts[1], counts[0] + counts[1]), "{counts:?}");
    assert!(counts[2] > counts[3] && counts[3] > 0, "{counts:?}");
}
