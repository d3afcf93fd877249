//! What the colours and the arrows mean.
//!
//! Must never take part in the layout of the flow itself.

use super::color::status_color;
use super::node::bar;
use super::{line, Diagram, StepCounts, INK};

/// The colours that are told apart, with the statuses that have them.
const COLORS: &[&[&str]] = &[
    &["Pending"],
    &["Running", "Running Steps", "Running Async"],
    &["Deferred"],
    &["Finished"],
    &["Failed", "Timed Out", "Cancelled"],
    &["Skipped"],
];

/// A cluster that explains the diagram; the colours only if anything has one. `id` is quoted already.
pub(super) fn legend(out: &mut String, id: &str, diagram: &Diagram) {
    let swatch = |statuses: &&[&str]| {
        let color = statuses.first().map_or("white", |status| status_color(status));
        format!(
            "<TR><TD BGCOLOR=\"{color}\" BORDER=\"1\" COLOR=\"{INK}\" WIDTH=\"18\"></TD><TD ALIGN=\"LEFT\">{}</TD></TR>",
            statuses.join(", ")
        )
    };
    let ran = diagram.nodes.iter().any(|node| node.status.is_some());
    let swatches: Vec<String> = COLORS.iter().filter(|_| ran).map(swatch).collect();
    let steps = if diagram.nodes.iter().any(|node| node.steps.is_some_and(|steps| steps.total > 0)) {
        steps()
    } else {
        String::new()
    };
    line(out, format_args!("  subgraph cluster_legend {{"));
    line(out, format_args!("    label=\"legend\"; fontsize=10; style=rounded; color=\"#b0bec5\";"));
    line(
        out,
        format_args!(
            "    {id} [fontsize=9, label=<<TABLE BORDER=\"0\" CELLSPACING=\"3\" CELLPADDING=\"1\">{}{steps}\
             <TR><TD>▶</TD><TD ALIGN=\"LEFT\">runs if the parent finished</TD></TR>\
             <TR><TD>▷</TD><TD ALIGN=\"LEFT\">runs also if the parent failed</TD></TR></TABLE>>];",
            swatches.concat()
        ),
    );
    line(out, format_args!("  }}"));
}

fn steps() -> String {
    let one_each = StepCounts { total: 4, pending: 1, running: 1, finished: 1, failed: 1 };
    format!(
        "<TR><TD COLSPAN=\"2\" ALIGN=\"LEFT\">{}</TD></TR>\
         <TR><TD COLSPAN=\"2\" ALIGN=\"LEFT\">steps finished, failed, running, pending</TD></TR>",
        bar(&one_each)
    )
}
