"""The families, in the order in which they are measured and shown. One file each; what a file must have:

ABOUT      what it is, for the list of `benches/run.py --list`
SECONDS    about how long a full run of it takes on 2 cores
measure(cluster, sizes, say)   figures: plain values that JSON can hold. Every figure of ours stands beside one that was
                               measured in the same call
tables(figures), charts(figures), verdicts(figures)   what the page shows of them. Nothing is measured there
"""

import importlib

NAMES = [
    "steps", "relaxed", "batched", "latency", "chain", "graphs", "million", "flows", "push", "cancel", "configure",
    "snapshot", "storage", "remote", "idle", "peers"]


def load(name):
    """The module of a family."""
    if name not in NAMES:
        raise SystemExit(f"there is no family '{name}'; there are: {' '.join(NAMES)}")
    return importlib.import_module(f"families.{name}")
