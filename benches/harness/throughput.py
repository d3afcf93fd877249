"""How the families that are a rate beside pgbench's show themselves."""

from harness.figures import Chart, Table, Verdict, counted, number


def table(figures):
    rows = []
    for figure in figures["rates"]:
        ratios = [own / other for own, other in figure["pairs"]]
        rows.append([figure["workers"], number(figure["ours"], 0), number(figure["pgbench"], 0),
                     f"**{figure['ratio']:.2f}**", f"{min(ratios):.2f} to {max(ratios):.2f}"])
    return Table(["workers", "steps/s", "pgbench, transactions/s", "ratio (median of pairs)", "pairs"], rows)


def chart(title, figures):
    rates = figures["rates"]
    return Chart(title, "a second", [counted(figure["workers"], "worker") for figure in rates], {
        "pgflow": [figure["ours"] for figure in rates], "pgbench": [figure["pgbench"] for figure in rates]})


def verdict(what, figure, share, of):
    """met: at least this share of pgbench's rate, in the median of the pairs."""
    return Verdict(
        what, f"≥ {share} × {of}", f"{figure['ratio']:.2f} × ({number(figure['ours'], 0)} steps/s)",
        f"pgbench {number(figure['pgbench'], 0)}/s", figure["ratio"] >= share)


def unsupported(what, bar, option):
    return Verdict(what, bar, f"node option `{option}` is unknown", "", None)
