#!/usr/bin/env python3
"""The benchmarks: measures families one after the other in a fresh cluster, keeps each one's results as a line of JSON, and
writes docs/benchmarks.md with its pictures from them.

    benches/run.py                        everything, anew: docs/benchmarks.md, docs/bench/
    benches/run.py --families steps idle  these anew, the others as they stand in docs/bench/results.jsonl
    benches/run.py --resume               what is not there yet of this library in these sizes
    benches/run.py --page                 measures nothing, writes the page
    benches/run.py --profile smoke --out DIR   everything in seconds: shows that it works, its figures say nothing
"""

import argparse
import os
import signal
import sys
import time
import traceback
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import families  # noqa: E402  (the path comes first)
from harness import machine, page, results, sizes  # noqa: E402
from harness.cluster import ROOT, Cluster  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="leave these families out")
    parser.add_argument("--profile", choices=sizes.PROFILES, default="full")
    parser.add_argument("--sizes", default="", help='changes of single sizes: "pairs=3 steps=20000"')
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="where benchmarks.md and bench/ go")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--list", action="store_true", help="names the families")
    parser.add_argument("--self-test", action="store_true", help="tests what needs no server")
    return parser.parse_args()


def measure_all(names, modules, chosen, store, resume):
    """Runs the families one after the other; what is done is kept whatever becomes of the rest. Names those that failed."""
    failed = []
    with Cluster(f"bench-{os.getpid()}", connections=2 * chosen.remote + 150) as cluster:
        cluster.fresh_database()
        machine_here = machine.describe(cluster)
        known = results.read(store)
        left = [name for name in names if not (
            resume and name in known and known[name]["machine"]["library"] == machine_here["library"]
            and known[name]["sizes"] == chosen.name)]
        rest = sum(modules[name].SECONDS for name in left)
        for number, name in enumerate(left, 1):
            estimate = f", about {modules[name].SECONDS} s; all that is left {rest / 60:.0f} min" if chosen.name == "full" else ""
            print(f"[{number}/{len(left)}] {name}: {modules[name].ABOUT}{estimate}", flush=True)
            load, began, at = machine.load(), time.monotonic(), page.now()
            rest -= modules[name].SECONDS
            try:
                cluster.fresh_database()
                figures = modules[name].measure(cluster, chosen, lambda text: print(f"    {text}", flush=True))
            except Exception:  # pylint: disable=broad-except  (the other families shall be measured all the same)
                traceback.print_exc()
                print("    FAILED", flush=True)
                failed.append(name)
                results.forget(store, name, families.NAMES)
                continue
            record = {"family": name, "sizes": chosen.name, "at": at, "seconds": round(time.monotonic() - began, 1),
                      "load": load, "machine": machine_here, "figures": figures}
            results.write(store, record, families.NAMES)
            print(f"    took {record['seconds']} s", flush=True)
    return failed


def leave(*_):
    """However it is ended, the cluster is removed on the way out; who asks twice does not stop that."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sys.exit(130)


def main():
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    options = arguments()
    if options.self_test:
        tests = unittest.defaultTestLoader.loadTestsFromName("test_harness")
        sys.exit(not unittest.TextTestRunner().run(tests).wasSuccessful())
    names = [name for name in (options.families or families.NAMES) if name not in options.without]
    modules = {name: families.load(name) for name in families.NAMES}
    for name in names:
        families.load(name)  # says which there are
    if options.list:
        for name in families.NAMES:
            print(f"{name:10} {modules[name].SECONDS:4} s  {modules[name].ABOUT}")
        return
    chosen = sizes.chosen(options.profile, options.sizes)
    failed = []
    store = options.out / "bench" / "results.jsonl"
    if not options.page:
        if not options.families and not options.resume:
            store.unlink(missing_ok=True)
        failed = measure_all(names, modules, chosen, store, options.resume)
    template = (ROOT / "benches/page.md").read_text()
    verdicts = page.render(template, modules, results.read(store), options.out / "bench", options.out / "benchmarks.md")
    print()
    for verdict in verdicts:
        print(f"{verdict.word.strip('*'):10}  {verdict.what}: {verdict.ours}, bar {verdict.bar}; {verdict.beside}")
    print(f"written: {options.out / 'benchmarks.md'}")
    if failed:
        sys.exit(f"failed: {' '.join(failed)}")


if __name__ == "__main__":
    main()
