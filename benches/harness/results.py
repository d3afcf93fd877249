"""Results as JSON lines: one line a family, written when that family is whole, so that a run can be cut and resumed."""

import json
from pathlib import Path


def read(path: Path):
    """Family → its record."""
    if not path.exists():
        return {}
    return {record["family"]: record for record in map(json.loads, path.read_text().splitlines())}


def write(path: Path, record, order):
    """Puts a family's record in the place of the one that may be there."""
    _write(path, {**read(path), record["family"]: record}, order)


def forget(path: Path, family, order):
    """A family that failed has no results, also where it had some."""
    _write(path, {name: record for name, record in read(path).items() if name != family}, order)


def _write(path, records, order):
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text("".join(json.dumps(records[name]) + "\n" for name in order if name in records))
    fresh.replace(path)
