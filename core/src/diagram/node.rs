//! The box of one node, as an HTML-like label.
//!
//! Must never put a text of a user into it but through `escape`.

use super::color::status_color;
use super::escape::{html, wrapped};
use super::{DiagramNode, StepCounts, INK};

/// The longest name, target or routine that is shown, in characters.
const LONGEST: usize = 48;
/// The width of the bar that shows how far the steps are, in points.
const BAR: u128 = 132;

/// The label of a node.
pub(super) fn label(node: &DiagramNode) -> String {
    let color = node.status.as_deref().map_or("white", status_color);
    let style = if node.empty { "ROUNDED,DASHED" } else { "ROUNDED" };
    let mut rows = vec![row(format!("<FONT POINT-SIZE=\"13\"><B>{}</B></FONT>", html(&node.name, LONGEST)))];
    rows.extend(place(node).map(small));
    rows.extend(status(node).map(row));
    if let Some(steps) = node.steps.filter(|steps| steps.total > 0) {
        rows.push(small(counts(&steps)));
        rows.extend(Some(bar(&steps)).filter(|bar| !bar.is_empty()).map(row));
    }
    if let Some(note) = node.note.as_deref().filter(|note| !note.trim().is_empty()) {
        let lines: Vec<String> = wrapped(note, 36, 3).iter().map(|line| html(line, LONGEST)).collect();
        rows.push(small(format!("<I>{}</I><BR ALIGN=\"LEFT\"/>", lines.join("<BR ALIGN=\"LEFT\"/>"))));
    }
    format!(
        "<TABLE BORDER=\"1\" CELLBORDER=\"0\" CELLSPACING=\"0\" CELLPADDING=\"5\" STYLE=\"{style}\" COLOR=\"{INK}\" \
         BGCOLOR=\"{color}\"><TR><TD><TABLE BORDER=\"0\" CELLSPACING=\"0\" CELLPADDING=\"2\">{}</TABLE></TD></TR></TABLE>",
        rows.concat()
    )
}

fn row(content: String) -> String {
    format!("<TR><TD ALIGN=\"LEFT\" BALIGN=\"LEFT\">{content}</TD></TR>")
}

fn small(content: String) -> String {
    row(format!("<FONT POINT-SIZE=\"9\">{content}</FONT>"))
}

/// Where it runs and what it calls, as far as that says more than its name.
fn place(node: &DiagramNode) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(target) = &node.target {
        parts.push(format!("on {}", html(target, LONGEST)));
    }
    if let Some(routine) = node.routine.as_ref().filter(|routine| **routine != node.name && !node.empty) {
        parts.push(format!("calls {}", html(routine, LONGEST)));
    }
    if node.empty {
        parts.push("empty".into());
    }
    if let Some(flow) = &node.steps_to_flow {
        parts.push(format!("steps start {}", html(flow, LONGEST)));
    }
    (!parts.is_empty()).then(|| parts.join(" · "))
}

fn status(node: &DiagramNode) -> Option<String> {
    let parts = [node.status.as_deref(), node.run_time.as_deref()];
    let parts: Vec<String> = parts.into_iter().flatten().map(|part| html(part, LONGEST)).collect();
    (!parts.is_empty()).then(|| parts.join(" · "))
}

fn counts(steps: &StepCounts) -> String {
    let mut parts = vec![format!("steps {} of {}", steps.finished, steps.total)];
    for (count, word) in [(steps.failed, "failed"), (steps.running, "running"), (steps.pending, "pending")] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    parts.join(" · ")
}

/// One piece for each kind of step that there is, as wide as its share, but always to be seen.
pub(super) fn bar(steps: &StepCounts) -> String {
    let all = [
        (steps.finished, "forestgreen"),
        (steps.failed, "firebrick"),
        (steps.running, "gold"),
        (steps.pending, "white"),
    ];
    let some: Vec<(u64, &str)> = all.into_iter().filter(|(count, _)| *count > 0).collect();
    let total: u128 = some.iter().map(|(count, _)| u128::from(*count)).sum();
    let widths: Vec<u128> = some.iter().map(|(count, _)| (BAR * u128::from(*count) / total).max(3)).collect();
    let cells: String = some
        .iter()
        .zip(&widths)
        .map(|((_, color), width)| {
            format!("<TD BGCOLOR=\"{color}\" FIXEDSIZE=\"TRUE\" WIDTH=\"{width}\" HEIGHT=\"6\"></TD>")
        })
        .collect();
    if cells.is_empty() {
        return String::new();
    }
    format!(
        "<TABLE BORDER=\"0\" CELLBORDER=\"1\" CELLSPACING=\"0\" CELLPADDING=\"0\" COLOR=\"{INK}\" ALIGN=\"LEFT\" \
         FIXEDSIZE=\"TRUE\" WIDTH=\"{}\" HEIGHT=\"8\"><TR>{cells}</TR></TABLE>",
        widths.iter().sum::<u128>() + 2
    )
}
