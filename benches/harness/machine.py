"""What the figures were measured on and with: machine, versions, load."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

from harness.cluster import ROOT


def _first(pattern, text, otherwise):
    found = re.search(pattern, text, re.M)
    return found.group(1) if found else otherwise


def _git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _commit():
    """The commit of this checkout; the page and its results may differ from it, what the extension is made of may not."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", "src", "core", "executor", "sql", "Cargo.toml", "Cargo.lock")
    return (commit or "unknown") + (" with changes" if changed else "")


def describe(cluster):
    """Plain values for the record of a family."""
    return {
        "processor": _first(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), "unknown"),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": _first(r'^PRETTY_NAME="(.*)"$', Path("/etc/os-release").read_text(), "unknown"),
        "kernel": os.uname().release,
        "postgres": cluster.one("SHOW server_version"),
        "pgflow": cluster.one("SELECT extversion FROM pg_extension WHERE extname = 'pgflow'"),
        "commit": _commit(),
        "library": hashlib.sha256(cluster.library.read_bytes()).hexdigest()[:16]}


def load():
    """Processes that wanted a core, on average over the last minute."""
    return os.getloadavg()[0]
