//! Every diagram is rendered by the real `dot`, which must have nothing to say about it.

use std::io::Write;
use std::process::{Command, Stdio};

use pgflow_core::diagram::{graphviz, Diagram, DiagramEdge, DiagramNode, StepCounts};

/// The SVG of a diagram. `dot` must be installed, succeed, and print no warning.
fn rendered(diagram: &Diagram) -> String {
    let text = graphviz(diagram);
    if let Ok(folder) = std::env::var("PGFLOW_DIAGRAMS") {
        let name: String = diagram.title.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        std::fs::write(format!("{folder}/{name}.dot"), &text).expect("the folder of PGFLOW_DIAGRAMS must be there");
    }
    let mut dot = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this test needs Graphviz: install the package graphviz, so that `dot` is in the PATH");
    let mut input = dot.stdin.take().expect("a pipe was asked for");
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).map(|()| text));
    let output = dot.wait_with_output().expect("dot must end");
    let text = writer.join().expect("the writer must end").expect("dot must read all");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "dot complained about:\n{text}");
    assert!(output.status.success(), "dot failed on:\n{text}");
    String::from_utf8(output.stdout).expect("an SVG is UTF-8")
}

fn node(name: &str) -> DiagramNode {
    DiagramNode { name: name.into(), ..DiagramNode::default() }
}

fn ran(name: &str, status: &str, run_time: &str) -> DiagramNode {
    let run_time = (!run_time.is_empty()).then(|| run_time.to_owned());
    DiagramNode { status: Some(status.into()), run_time, ..node(name) }
}

fn edge(parent: usize, child: usize) -> DiagramEdge {
    DiagramEdge { parent, child, continue_on_failure: false }
}

fn steps(pending: u64, running: u64, finished: u64, failed: u64) -> Option<StepCounts> {
    Some(StepCounts { total: pending + running + finished + failed, pending, running, finished, failed })
}

/// Twelve nodes in every status there is.
fn nightly() -> Diagram {
    let some = |text: &str| Some(text.to_owned());
    let nodes = vec![
        DiagramNode {
            target: some("crm"),
            routine: some("crm.export_customers"),
            ..ran("extract_customers", "Finished", "00:01:12")
        },
        DiagramNode {
            target: some("shop"),
            steps: steps(0, 0, 48, 0),
            ..ran("extract_orders", "Finished", "00:04:31")
        },
        DiagramNode { target: some("shop"), ..ran("extract_stock", "Failed", "00:00:09") },
        DiagramNode { empty: true, ..ran("extracted", "Finished", "") },
        DiagramNode { steps: steps(310, 8, 1204, 2), ..ran("load_orders", "Running Steps", "00:02:55") },
        DiagramNode { ..ran("load_customers", "Running", "00:00:41") },
        DiagramNode { target: some("lambda"), ..ran("score_customers", "Running Async", "00:00:12") },
        DiagramNode { ..ran("load_stock", "Skipped", "") },
        DiagramNode { ..ran("refresh_rates", "Deferred", "00:10:00") },
        DiagramNode { ..ran("reindex", "Timed Out", "00:30:00") },
        DiagramNode { steps_to_flow: some("report_per_region"), ..ran("reports", "Pending", "") },
        DiagramNode { target: some("http"), ..ran("notify", "Pending", "") },
    ];
    let mut diagram = Diagram {
        title: "nightly_load #4711: running, 5 of 12 nodes ended".into(),
        nodes,
        edges: vec![
            edge(0, 3),
            edge(1, 3),
            edge(2, 7),
            edge(3, 4),
            edge(3, 5),
            edge(5, 6),
            edge(4, 9),
            edge(4, 10),
            edge(6, 10),
            edge(8, 10),
            edge(10, 11),
            DiagramEdge { continue_on_failure: true, ..edge(9, 11) },
            DiagramEdge { continue_on_failure: true, ..edge(7, 11) },
        ],
        legend: true,
    };
    diagram.nodes[2].note = some("could not connect to server \"shop\": connection refused (10.0.3.17, port 5432)");
    diagram.nodes[7].note = some("because of extract_stock");
    diagram.nodes[9].note = some("canceling statement due to time-out after 30 min");
    diagram
}

#[test]
fn a_flow_in_every_status_renders() {
    let svg = rendered(&nightly());
    for text in
        ["extract_customers", "steps 1204 of 1524", "2 failed", "Running Async", "because of extract_stock", "legend"]
    {
        assert!(svg.contains(text), "{text}");
    }
}

#[test]
fn a_configured_flow_that_never_ran_renders() {
    let diagram = Diagram {
        title: "configured".into(),
        nodes: vec![node("a"), DiagramNode { empty: true, ..node("b") }, node("c")],
        edges: vec![edge(0, 1), edge(0, 2)],
        legend: false,
    };
    let svg = rendered(&diagram);
    assert!(!svg.contains("legend"));
}

#[test]
fn no_nodes_and_no_edges_render() {
    rendered(&Diagram::default());
    rendered(&Diagram { title: "empty".into(), legend: true, ..Diagram::default() });
    rendered(&Diagram { title: "one".into(), nodes: vec![node("a")], legend: true, ..Diagram::default() });
}

#[test]
fn odd_characters_render_and_stay_text() {
    let odd = [
        "",
        " ",
        "a\"b",
        "a\\",
        "\\N\\G",
        "a\\\"",
        "<b>x</b>",
        "&amp;",
        "&x;",
        "a&b",
        "]]>",
        "-->",
        "a\nb",
        "a\r\tb",
        "{a|b}",
        "a:b:c",
        "start",
        "end",
        "legend",
        "node",
        "graph",
        "日本語",
        "é",
        "😀",
        "\u{202e}abc",
        "\u{0}\u{1}\u{7f}\u{ffff}",
        "'; DROP TABLE",
        "%s%n",
        "/* x */",
        "// x",
        "# x",
        "<",
        ">",
        "\"",
        "\\",
        "&",
    ];
    let nodes: Vec<DiagramNode> = odd
        .iter()
        .map(|text| {
            let text = Some((*text).to_owned());
            DiagramNode {
                target: text.clone(),
                routine: text.clone(),
                status: text.clone(),
                run_time: text.clone(),
                note: text.clone(),
                steps_to_flow: text.clone(),
                steps: steps(1, 0, u64::from(u32::MAX), 1),
                ..node(text.as_deref().unwrap_or_default())
            }
        })
        .collect();
    let edges = (1..nodes.len()).map(|child| edge(child - 1, child)).collect();
    let svg = rendered(&Diagram { title: "odd \"<&>\\\n\u{202e}".into(), nodes, edges, legend: true });
    // Two nodes have names that look alike once they are shown; each is a box of its own, besides start, end and legend.
    assert_eq!(svg.matches("class=\"node\"").count(), odd.len() + 3);
    assert_eq!(svg.matches("class=\"edge\"").count(), odd.len() + 1);
    assert!(!svg.contains("<b>") && !svg.contains('\u{202e}') && !svg.contains('\u{0}'));
    for (at, _) in svg.match_indices('&') {
        let entity = svg[at + 1..].split(';').next().unwrap_or_default();
        assert!(
            ["amp", "lt", "gt", "quot"].contains(&entity) || entity.starts_with('#'),
            "&{entity} is no entity of XML"
        );
    }
}

#[test]
fn long_texts_render_shortened() {
    let long = "long ".repeat(10_000);
    let nodes = vec![DiagramNode {
        target: Some(long.clone()),
        routine: Some("x".repeat(10_000)),
        status: Some("Failed".into()),
        note: Some(long.clone()),
        ..node(&"n".repeat(10_000))
    }];
    let svg = rendered(&Diagram { title: long, nodes, edges: vec![], legend: true });
    assert!(svg.len() < 20_000, "{}", svg.len());
}

#[test]
fn every_share_of_steps_renders() {
    let counts = [
        steps(0, 0, 0, 0),
        steps(1, 0, 0, 0),
        steps(0, 1, 0, 0),
        steps(0, 0, 1, 0),
        steps(0, 0, 0, 1),
        steps(1, 1, 1, 1),
        steps(1, 1, 1_000_000, 1),
        steps(u64::MAX / 4, u64::MAX / 4, u64::MAX / 4, u64::MAX / 4),
        Some(StepCounts { total: 3, ..StepCounts::default() }),
    ];
    let nodes =
        counts.into_iter().enumerate().map(|(i, steps)| DiagramNode { steps, ..node(&format!("n{i}")) }).collect();
    rendered(&Diagram { title: "shares".into(), nodes, edges: vec![], legend: true });
}

#[test]
fn a_diagram_of_hundreds_of_nodes_renders() {
    let nodes = (0..300).map(|i| ran(&format!("n{i}"), "Pending", "")).collect();
    let edges = (1..300).map(|child| edge((child - 1) / 3, child)).collect();
    let svg = rendered(&Diagram { title: "many".into(), nodes, edges, legend: true });
    assert!(svg.contains("n299"));
}
