"""The server under test: a fresh cluster of scripts/scratch.sh, a fresh database for each family, settings, waiting."""

import os
import re
import subprocess
import time
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

ROOT = Path(__file__).resolve().parents[2]
# Full durability, as delivered; memory and checkpoints so that neither side waits for them.
SETTINGS = {
    "shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "max_worker_processes": "32",
    "autovacuum_naptime": "5s"}


class Cluster:
    """Starts in __enter__, is removed in __exit__. Nobody else's server is touched."""

    def __init__(self, name, connections):
        self.name = name
        self.settings = [f"{key}={value}" for key, value in {**SETTINGS, "max_connections": connections}.items()]
        self.changed = set()
        self.connection = None
        pg_config = os.environ.get("PG_CONFIG", f"/usr/lib/postgresql/{os.environ.get('PG_MAJOR', '15')}/bin/pg_config")
        self.bin = Path(subprocess.check_output([pg_config, "--bindir"], text=True).strip())
        self.library = Path(subprocess.check_output([pg_config, "--pkglibdir"], text=True).strip()) / "pgflow.so"

    def __enter__(self):
        lines = subprocess.check_output([ROOT / "scripts/scratch.sh", "start", self.name, *self.settings], text=True)
        os.environ.update(re.findall(r"(PG[A-Z]+)=(\S+)", lines))
        with psycopg.connect(autocommit=True) as first:
            os.environ["PGHOST"] = first.execute("SHOW unix_socket_directories").fetchone()[0]
        return self

    def __exit__(self, *_exception):
        if self.connection:
            self.connection.close()
        subprocess.run([ROOT / "scripts/scratch.sh", "stop", self.name], check=False, stderr=subprocess.DEVNULL)

    def fresh_database(self):
        """Database pgflow with the extension and what benches/bench.sql makes, nothing else; settings as delivered."""
        if self.connection:
            self.connection.close()
        with psycopg.connect(dbname="postgres", autocommit=True) as server:
            server.execute("DROP DATABASE IF EXISTS pgflow WITH (FORCE)")
            server.execute("CREATE DATABASE pgflow")
        self.connection = psycopg.connect(autocommit=True)
        self.reset(*list(self.changed))
        self.sql("CREATE EXTENSION pgflow")
        self.sql((ROOT / "benches/bench.sql").read_text())
        self.run("bench_nothing")

    def sql(self, query, *parameters):
        """The rows of a query; none of one that gives none."""
        cursor = self.connection.execute(query, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def one(self, query, *parameters):
        """The only value of a query."""
        return self.sql(query, *parameters)[0][0]

    def set(self, **settings):
        """Settings of the whole server, at once: set(pgflow__workers=2) is pgflow.workers."""
        for name, value in settings.items():
            self.connection.execute(f"ALTER SYSTEM SET {name.replace('__', '.')} = '{value}'")
            self.changed.add(name)
        self.reload()

    def reset(self, *names):
        """Back to what the cluster was made with."""
        for name in names:
            self.connection.execute(f"ALTER SYSTEM RESET {name.replace('__', '.')}")
            self.changed.discard(name)
        self.reload()

    def reload(self):
        self.connection.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)  # the postmaster tells everybody; nobody says when it has

    def workers(self, count):
        """So many local workers, warm."""
        self.set(pgflow__workers=count, pgflow__workers_per_role=count)
        self.run("bench_steps", {"steps": 100 * count})

    def start(self, flow, arguments=None):
        return self.one("SELECT flow.run_flow(%s, %s)", flow, Jsonb(arguments or {}))

    def wait(self, run, timeout=900):
        """Until a run has ended; fails if anything in it did."""
        self.connection.execute(f"SET statement_timeout = '{timeout}s'")
        self.connection.execute("CALL bench.wait_for(%s)", (run,))
        self.connection.execute("RESET statement_timeout")
        failed, error = self.sql(
            "SELECT processed IS NULL OR count_failed_nodes > 0, first_error FROM flow.flow WHERE flow_id = %s", run)[0]
        if failed:
            raise RuntimeError(f"run {run} did not end well: {error}")
        return run

    def run(self, flow, arguments=None):
        """Starts a run and waits for its good end."""
        return self.wait(self.start(flow, arguments))

    def push(self, run, low, high):
        """Pushes the steps low … high to the node "work" in one call."""
        self.sql("CALL bench.push_range(%s, %s, %s)", run, low, high)

    def configure(self, flow, configuration):
        self.sql("SELECT flow.configure_flow(%s, %s)", flow, Jsonb(configuration))

    def accepts(self, node_option, value):
        """Whether this version knows an option of nodes."""
        configuration = {"nodes": [{"node": "n", "routine": "bench.nothing", node_option: value}]}
        rows = self.sql("SELECT severity, message FROM flow.validate(%s)", Jsonb(configuration))
        unknown = [("warning", f'unknown key "{node_option}"')]
        if rows not in ([], unknown):
            raise RuntimeError(f"flow.validate says of {node_option}: {rows}")
        return not rows

    def process(self, kind):
        """The only process of a kind (pg_stat_activity.backend_type) in this database."""
        return Process(self.one(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = %s AND datname = current_database()", kind))


class Process:
    """What the kernel knows of a process."""

    def __init__(self, pid):
        self.pid = pid

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, name):
        return sum(int(n) for n in re.findall(rf"{name}:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text()))

    def switches(self):
        return self._status("ctxt_switches")

    def private_bytes(self):
        """Its own memory: the buffers that it shares with others do not count."""
        return self._status("RssAnon") * 1024


def milliseconds(action):
    """How long a call takes."""
    began = time.monotonic()
    action()
    return (time.monotonic() - began) * 1000
