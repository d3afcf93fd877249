"""Writes the page and its pictures from the results: the prose is the template's, every figure a family's."""

import re
from datetime import datetime, timezone
from pathlib import Path

import pygal
from pygal.style import Style

from harness.figures import Table

STYLE = Style(
    background="white", plot_background="white", foreground="#333", foreground_strong="#111", foreground_subtle="#777",
    colors=("#2b6cb0", "#b7791f", "#2f855a", "#9b2c2c", "#6b46c1"), font_family="sans-serif", label_font_size=13,
    major_label_font_size=13, legend_font_size=13, value_font_size=12, title_font_size=16)


def draw(chart, path: Path):
    """One picture: horizontal bars, their values beside them. No script and nothing from elsewhere in it."""
    bars = sum(len(values) for values in chart.series.values())
    picture = pygal.HorizontalBar(
        style=STYLE, js=[], print_values=True, print_values_position="top", logarithmic=chart.logarithmic, width=900,
        height=160 + 26 * bars, legend_at_bottom=True, legend_at_bottom_columns=1, title=f"{chart.title} ({chart.unit})",
        value_formatter=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:,.2f}", disable_xml_declaration=True,
        no_prefix=True, margin=12, truncate_legend=-1, truncate_label=-1, x_labels_major_count=5, show_minor_x_labels=False)
    picture.uuid = path.stem  # else a random one: the same figures shall give the same picture
    picture.x_labels = list(reversed(chart.labels))
    for label, values in chart.series.items():
        picture.add(label, list(reversed(values)))
    # Without the script that shows tips, the empty id, and the comments, which have today's date in them.
    text = re.sub(r"<script.*?</script>|<!--.*?-->| id=\"\"", "", picture.render(is_unicode=True), flags=re.S)
    path.write_text(re.sub(r"[ \t]+$", "", text, flags=re.M).rstrip() + "\n")


def budgets(families, records):
    """All verdicts, those that are not met first."""
    verdicts = [verdict for name, record in records.items() for verdict in families[name].verdicts(record["figures"])]
    order = {False: 0, None: 1, True: 2}
    return Table(["budget", "bar", "pgflow", "beside it, in the same run", "verdict"], [
        [v.what, v.bar, v.ours, v.beside, v.word] for v in sorted(verdicts, key=lambda v: order[v.met])]), verdicts


def provenance(records):
    """Machine and versions; a warning where families do not belong to one run."""
    if not records:
        return "**Nothing has been measured for this page yet: `make bench` does.**"
    lines, machines = [], []
    for record in records.values():
        if record["machine"] not in machines:
            machines.append(record["machine"])
    sizes = sorted({record["sizes"] for record in records.values()})
    for machine in machines:
        lines.append(
            f"- {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB; {machine['system']}, "
            f"kernel {machine['kernel']}; PostgreSQL {machine['postgres']}; pgflow {machine['pgflow']} "
            f"(commit {machine['commit']}).")
    at = sorted(record["at"] for record in records.values())
    lines.append(f"- Measured from {at[0]} to {at[-1]} UTC; {sum(r['seconds'] for r in records.values()) / 60:.0f} minutes. "
                 f"Load of the machine as a family began: {min(r['load'] for r in records.values()):.1f} to "
                 f"{max(r['load'] for r in records.values()):.1f}.")
    if sizes != ["full"]:
        lines.append(f"- **Not the sizes of a full run: {'; '.join(sizes)}.** These figures are for a first look only.")
    if len(machines) > 1:
        lines.append("- **The families below were not all measured with the same library or machine.** Only what stands in "
                     "one table can be compared.")
    return "\n".join(lines)


def render(template: str, families, records, directory: Path, page: Path):
    """Writes the page and one picture a chart; returns the verdicts."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.svg"):
        old.unlink()
    tables, charts = {}, {}
    for name, record in records.items():
        tables.update({key: table.markdown() for key, table in families[name].tables(record["figures"]).items()})
        for key, chart in families[name].charts(record["figures"]).items():
            draw(chart, directory / f"{key}.svg")
            charts[key] = f"![{chart.title}]({directory.name}/{key}.svg)"
    budget, verdicts = budgets(families, records)
    values = {"budgets": budget.markdown(), "machine": provenance(records)}

    def fill(match):
        kind, _, key = match.group(1).partition(":")
        if kind == "table":
            return tables.get(key, "Not measured in this run.")
        if kind == "chart":
            return charts.get(key, "")
        return values[kind]

    keys = set(re.findall(r"\{\{table:(\w+)\}\}", template))
    if missing := set(tables) - keys:
        raise RuntimeError(f"the template has no place for the tables: {', '.join(sorted(missing))}")
    text = re.sub(r"\{\{([\w:]+)\}\}", fill, template)
    page.write_text(re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n")
    return verdicts


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M")
