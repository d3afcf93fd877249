"""Statistics and what families hand to the page: tables, charts, verdicts. Pure."""

from dataclasses import dataclass, field


def median(values):
    """The middle value; the mean of the two in the middle."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a median of nothing")
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values, share):
    """The value that this share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a percentile of nothing")
    return ordered[min(len(ordered) - 1, max(0, -(-round(share * 1_000_000) * len(ordered) // 1_000_000) - 1))]


def spread(values):
    """p50, p99 and p99.9, in the unit of the values."""
    return {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99), "p999": percentile(values, 0.999),
            "count": len(values)}


def number(value, digits=None):
    """As a person reads it: 12,345; 0.83; 1.2."""
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def counted(count, thing):
    """1 worker, 2 workers."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


@dataclass
class Table:
    """Rows of text under headers."""

    headers: list
    rows: list

    def markdown(self):
        lines = [self.headers, ["---"] * len(self.headers), *self.rows]
        return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


@dataclass
class Chart:
    """Bars: for each label of the x axis one bar a series. A value of None leaves a gap."""

    title: str
    unit: str
    labels: list
    series: dict = field(default_factory=dict)
    logarithmic: bool = False


@dataclass
class Verdict:
    """One line of the budgets. met None: this version cannot be asked for it."""

    what: str
    bar: str
    ours: str
    beside: str
    met: bool | None

    @property
    def word(self):
        return {True: "met", False: "**not met**", None: "not supported by this version"}[self.met]
