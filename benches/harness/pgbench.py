"""pgbench as the measure: single-row INSERT transactions, as many clients as we have workers."""

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

INSERT = "\\set i random(1, 1000000)\nINSERT INTO bench.by_pgbench (i) VALUES (:i);\n"


def _run(cluster, clients, seconds, options, script, environment):
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "script.sql").write_text(script)
        # pgbench counts whole seconds only: shorter ones as transactions.
        length = ["-T", str(int(seconds))] if seconds >= 1 else ["-t", "200"]
        done = subprocess.run(
            [cluster.bin / "pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 4)), *length,
             *options, "-f", "script.sql"],
            cwd=directory, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pgbench: {done.stderr[-2000:]}")
        logs = [line.split() for log in Path(directory).glob("pgbench_log.*") for line in log.read_text().splitlines()]
        return done.stdout, logs


def rate(cluster, clients, seconds, synchronous_commit="on"):
    """Transactions a second. The table is emptied and a checkpoint made before, as before each of our runs."""
    cluster.sql("TRUNCATE bench.by_pgbench")
    cluster.sql("CHECKPOINT")
    out, _ = _run(cluster, clients, seconds, [], INSERT, {"PGOPTIONS": f"-c synchronous_commit={synchronous_commit}"})
    return float(re.search(r"^tps = ([0-9.]+) \(without initial", out, re.M).group(1))


def latencies(cluster, seconds):
    """Milliseconds of each INSERT transaction of one client."""
    _, logs = _run(cluster, 1, seconds, ["-l"], INSERT, {})
    return [int(line[2]) / 1000 for line in logs]


def at_once(cluster, clients, script):
    """Seconds that so many clients take for one transaction each, connections included."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "script.sql").write_text(script)
        began = time.monotonic()
        done = subprocess.run(
            [cluster.bin / "pgbench", "-n", "-c", str(clients), "-j", "2", "-t", "1", "-f", "script.sql"],
            cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pgbench: {done.stderr[-2000:]}")
        return time.monotonic() - began
