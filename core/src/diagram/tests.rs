//! D1, D2: what is in a diagram. That `dot` takes it is tested in `tests/dot.rs`.

use super::escape::{html, quoted, shown, wrapped};
use super::*;

fn node(name: &str) -> DiagramNode {
    DiagramNode { name: name.into(), ..DiagramNode::default() }
}

fn edge(parent: usize, child: usize, continue_on_failure: bool) -> DiagramEdge {
    DiagramEdge { parent, child, continue_on_failure }
}

/// The lines that are edges.
fn arrows(diagram: &Diagram) -> Vec<String> {
    graphviz(diagram).lines().filter(|line| line.contains(" -> ")).map(|line| line.trim().to_owned()).collect()
}

/// The label of a node.
fn label(node: DiagramNode) -> String {
    node::label(&node)
}

#[test]
fn each_status_has_its_colour() {
    for (status, color) in [
        ("Pending", "beige"),
        ("Running", "orange"),
        ("Running Steps", "orange"),
        ("Running Async", "orange"),
        ("Deferred", "khaki"),
        ("Finished", "palegreen"),
        ("Failed", "indianred"),
        ("Cancelled", "indianred"),
        ("Timed Out", "indianred"),
        ("Skipped", "lightgrey"),
        ("whatever", "white"),
    ] {
        assert_eq!(status_color(status), color);
        assert!(
            label(DiagramNode { status: Some(status.into()), ..node("a") }).contains(&format!("BGCOLOR=\"{color}\""))
        );
    }
    assert!(label(node("a")).contains("BGCOLOR=\"white\""));
}

#[test]
fn start_leads_to_roots_and_leaves_lead_to_end() {
    let diagram = Diagram {
        nodes: vec![node("a"), node("b"), node("c")],
        edges: vec![edge(0, 1, false), edge(0, 2, true)],
        ..Diagram::default()
    };
    assert_eq!(
        arrows(&diagram),
        [
            "\"a\" -> \"b\";",
            "\"a\" -> \"c\" [arrowhead=empty];",
            "\"start\" -> \"a\";",
            "\"b\" -> \"end\";",
            "\"c\" -> \"end\";",
        ]
    );
    assert_eq!(arrows(&Diagram::default()), ["\"start\" -> \"end\";"]);
}

#[test]
fn an_edge_to_a_box_that_is_not_there_is_left_out() {
    let diagram =
        Diagram { nodes: vec![node("a")], edges: vec![edge(0, 5, false), edge(5, 0, false)], ..Diagram::default() };
    assert_eq!(arrows(&diagram), ["\"start\" -> \"a\";", "\"a\" -> \"end\";"]);
}

#[test]
fn every_box_has_an_id_of_its_own() {
    let diagram = Diagram {
        nodes: vec![node("start"), node("end"), node("start"), node("x\u{1}"), node("x\u{2}")],
        ..Diagram::default()
    };
    assert_eq!(
        arrows(&diagram)[..5],
        [
            "\"start (3)\" -> \"start\";",
            "\"start (3)\" -> \"end\";",
            "\"start (3)\" -> \"start (2)\";",
            "\"start (3)\" -> \"x\u{fffd}\";",
            "\"start (3)\" -> \"x\u{fffd} (2)\";",
        ]
    );
}

#[test]
fn the_shapes_of_start_and_end_keep_their_words() {
    let text = graphviz(&Diagram { nodes: vec![node("start")], ..Diagram::default() });
    assert!(text.contains("\"start (2)\" [label=\"start\", shape=circle"), "{text}");
    assert!(text.contains("\"end\" [label=\"end\", shape=doublecircle"), "{text}");
}

#[test]
fn a_box_says_what_is_known_and_nothing_else() {
    let bare = label(node("load"));
    assert!(bare.contains("<B>load</B>"));
    assert_eq!(bare.matches("<TR>").count(), 2, "{bare}");
    let full = label(DiagramNode {
        target: Some("shop".into()),
        routine: Some("s.load".into()),
        status: Some("Running Steps".into()),
        steps: Some(StepCounts { total: 10, pending: 4, running: 3, finished: 2, failed: 1 }),
        run_time: Some("00:00:07".into()),
        note: Some("step 3: <boom>".into()),
        steps_to_flow: Some("other & more".into()),
        ..node("load")
    });
    for text in [
        "on shop · calls s.load · steps start other &amp; more",
        "Running Steps · 00:00:07",
        "steps 2 of 10 · 1 failed · 3 running · 4 pending",
        "<I>step 3: &lt;boom&gt;</I>",
    ] {
        assert!(full.contains(text), "{text} in {full}");
    }
}

#[test]
fn a_routine_of_the_node_s_name_is_not_repeated() {
    assert!(!label(DiagramNode { routine: Some("load".into()), ..node("load") }).contains("calls"));
}

#[test]
fn an_empty_node_is_dashed_and_calls_nothing() {
    let label = label(DiagramNode { empty: true, routine: Some("r".into()), ..node("a") });
    assert!(label.contains("STYLE=\"ROUNDED,DASHED\""));
    assert!(label.contains(">empty<"));
    assert!(!label.contains("calls"));
}

#[test]
fn a_node_without_steps_has_no_bar() {
    assert!(!label(DiagramNode { steps: Some(StepCounts::default()), ..node("a") }).contains("steps"));
    let uncounted = label(DiagramNode { steps: Some(StepCounts { total: 3, ..StepCounts::default() }), ..node("a") });
    assert!(uncounted.contains("steps 0 of 3"));
    assert!(!uncounted.contains("FIXEDSIZE"));
}

#[test]
fn the_smallest_share_of_a_bar_can_be_seen() {
    let bar = node::bar(&StepCounts { total: u64::MAX, pending: 0, running: 0, finished: u64::MAX - 1, failed: 1 });
    assert!(bar.contains("BGCOLOR=\"forestgreen\" FIXEDSIZE=\"TRUE\" WIDTH=\"131\""), "{bar}");
    assert!(bar.contains("BGCOLOR=\"firebrick\" FIXEDSIZE=\"TRUE\" WIDTH=\"3\""), "{bar}");
}

#[test]
fn the_legend_explains_colours_only_when_there_are_any() {
    let configured = Diagram { nodes: vec![node("a")], legend: true, ..Diagram::default() };
    let text = graphviz(&configured);
    assert!(text.contains("subgraph cluster_legend"));
    assert!(text.contains("runs also if the parent failed"));
    assert!(!text.contains("palegreen"));
    let ran = Diagram {
        nodes: vec![DiagramNode { status: Some("Pending".into()), ..node("a") }],
        legend: true,
        ..Diagram::default()
    };
    assert!(graphviz(&ran).contains("BGCOLOR=\"palegreen\""));
    assert!(!graphviz(&Diagram { legend: false, ..ran }).contains("legend"));
}

#[test]
fn a_quoted_text_cannot_be_left() {
    assert_eq!(quoted("a\"b\\c\nd&e"), "\"a\\\"b\\\\c d&amp;e\"");
    assert_eq!(quoted("a\\"), "\"a\\\\\"");
    assert_eq!(quoted("\u{202e}x\0"), "\"\u{fffd}x\u{fffd}\"");
    assert_eq!(quoted(""), "\"(none)\"");
}

#[test]
fn a_label_cannot_be_left() {
    assert_eq!(html("</B>&amp;\"'", 50), "&lt;/B&gt;&amp;amp;&quot;&#39;");
    assert_eq!(html(" \n", 50), "(none)");
    assert_eq!(html("日本 é", 50), "日本 é");
}

#[test]
fn a_text_is_shortened_to_its_length() {
    assert_eq!(shown("abcdef", 6), "abcdef");
    assert_eq!(shown("abcdefg", 6), "abcde…");
}

#[test]
fn a_note_is_broken_at_spaces_and_cut_after_its_lines() {
    assert_eq!(wrapped("one two three", 7, 3), ["one two", "three"]);
    assert_eq!(wrapped("abcdefghij", 4, 3), ["abcd", "efgh", "ij"]);
    assert_eq!(wrapped("a b c d e f", 3, 2), ["a b", "c d…"]);
    assert_eq!(wrapped("x\ny", 10, 3), ["x y"]);
    let long = wrapped(&"word ".repeat(1000), 36, 3);
    assert_eq!(long.len(), 3);
    assert!(long[2].ends_with("word…"));
}
