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


def describe(cluster):
    """Plain values for the record of a family."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "processor": _first(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), "unknown"),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": _first(r'^PRETTY_NAME="(.*)"$', Path("/etc/os-release").read_text(), "unknown"),
        "kernel": os.uname().release,
        "postgres": cluster.one("SHOW server_version"),
        "pgflow": cluster.one("SELECT extversion FROM pg_extension WHERE extname = 'pgflow'"),
        "commit": commit.stdout.strip() or "unknown",
        "library": hashlib.sha256(cluster.library.read_bytes()).hexdigest()[:16]}


def load():
    """Processes that wanted a core, on average over the last minute."""
    return os.getloadavg()[0]
