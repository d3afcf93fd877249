"""Starts the programs in benches/peers: each does what one other system needs for the same work, and answers in JSON."""

import json
import os
import subprocess
from pathlib import Path

from harness.cluster import ROOT

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pgflow/bench"


class Peer:
    """One other system: its name, the program, how it is started, what its two settings are called."""

    def __init__(self, name, program, tuned):
        self.name, self.tuned = name, tuned
        self.program = ROOT / "benches/peers" / program
        if program.endswith(".mjs"):
            # The packages are found from where the program lies: it is copied beside them.
            self.directory = CACHE / "peers-node"
            self.command = [self.directory / "node_modules/.bin/node", self.directory / program]
        else:
            self.directory = CACHE / "peers-python"
            self.command = [self.directory / "bin/python", self.program]

    def installed(self):
        return (self.directory / "complete").exists()

    def version(self):
        if self.directory.name == "peers-node":
            return json.loads((self.directory / f"node_modules/{self.name}/package.json").read_text())["version"]
        return subprocess.check_output(
            [self.command[0], "-c", f"import importlib.metadata as m; print(m.version('{self.name}'))"], text=True).strip()

    def ask(self, action, jobs, concurrency, batched=False, seconds=0.0):
        """Runs the program; its answer."""
        spec = {"action": action, "jobs": jobs, "concurrency": concurrency, "batched": batched, "seconds": seconds}
        if self.directory.name == "peers-node":
            for file in (self.program, self.program.with_name("node_peer.mjs")):
                (self.directory / file.name).write_bytes(file.read_bytes())
        done = subprocess.run([*self.command, json.dumps(spec)], cwd=self.directory, capture_output=True, text=True,
                              timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name}, {spec}: {(done.stderr or done.stdout)[-2000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


PEERS = [
    Peer("graphile-worker", "graphile_worker.mjs", "its benchmark preset: 24 at a time, local queue of 500, completions batched"),
    Peer("pg-boss", "pg_boss.mjs", "batches of 500, run side by side over 25 connections"),
    Peer("procrastinate", "procrastinate_peer.py", "24 at a time"),
    Peer("dbos", "dbos_peer.py", "100 workflows at a time, 25 connections")]
