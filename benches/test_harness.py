"""What the benchmarks reckon and write, without a server: benches/run.sh --self-test."""

import tempfile
import unittest
from pathlib import Path

import families
from harness import page, results, shapes, sizes
from harness.figures import Chart, Table, Verdict, counted, median, number, percentile, spread
from harness.pairs import alternate


class Figures(unittest.TestCase):
    def test_the_median_of_an_even_number_lies_between(self):
        self.assertEqual(median([4, 1, 3]), 3)
        self.assertEqual(median([4, 1, 3, 2]), 2.5)
        with self.assertRaises(ValueError):
            median([])

    def test_percentiles_are_the_nearest_rank(self):
        hundred = list(range(100, 0, -1))
        self.assertEqual([percentile(hundred, share) for share in (0.5, 0.99, 0.999)], [50, 99, 100])
        self.assertEqual(percentile(range(1, 3001), 0.999), 2997)
        self.assertEqual(spread([7.0]), {"p50": 7.0, "p99": 7.0, "p999": 7.0, "count": 1})

    def test_numbers_are_rounded_to_what_they_are_worth(self):
        self.assertEqual([number(value) for value in (12345.6, 12.34, 0.834)], ["12,346", "12.3", "0.83"])

    def test_one_is_singular(self):
        self.assertEqual([counted(count, "worker") for count in (1, 2)], ["1 worker", "2 workers"])

    def test_who_goes_first_changes_and_pairs_keep_their_order(self):
        called = []
        pairs = alternate(3, lambda: called.append("ours") or 1, lambda: called.append("theirs") or 2)
        self.assertEqual(pairs, [(1, 2)] * 3)
        self.assertEqual(called, ["ours", "theirs", "theirs", "ours", "ours", "theirs"])


class Shapes(unittest.TestCase):
    def test_parents_come_before_their_children(self):
        for configuration in (shapes.chain(100), shapes.layered(1000), shapes.dense(14), shapes.fan(50)):
            seen = set()
            for node in configuration["nodes"]:
                self.assertLessEqual({edge["parent"] for edge in node["dependencies"]}, seen)
                seen.add(node["node"])

    def test_sizes_are_what_is_asked_for(self):
        self.assertEqual([len(shape(50)["nodes"]) for shape in (shapes.chain, shapes.layered, shapes.fan)], [50] * 3)
        self.assertEqual(len(shapes.dense(14)["nodes"]), 28)
        self.assertEqual(len(shapes.fan(50)["nodes"][-1]["dependencies"]), 48)
        self.assertEqual(shapes.layered(500), shapes.layered(500))


class Sizes(unittest.TestCase):
    def test_a_changed_size_shows_in_the_name(self):
        changed = sizes.chosen("full", "pairs=3 pgbench_seconds=1.5")
        self.assertEqual((changed.pairs, changed.pgbench_seconds, changed.steps), (3, 1.5, sizes.FULL.steps))
        self.assertNotEqual(changed.name, "full")
        with self.assertRaises(SystemExit):
            sizes.chosen("full", "peers=3")


class Family:
    """Stands for a module of families/."""

    @staticmethod
    def tables(figures):
        return {"steps": Table(["a"], [[figures["a"]]])}

    @staticmethod
    def charts(figures):
        return {"steps": Chart("Things", "a second", ["x"], {"ours": [figures["a"]], "theirs": [2]})}

    @staticmethod
    def verdicts(figures):
        return [Verdict("kept", "≥ 1", "2", "1", True), Verdict("missed", "≥ 1", "0", "1", False),
                Verdict("unknown", "≥ 1", "", "", None)]


class Page(unittest.TestCase):
    machine = {"processor": "P", "cores": 2, "memory_gb": 8, "system": "S", "kernel": "K", "postgres": "15", "pgflow": "0",
               "commit": "c", "library": "l"}

    def record(self, **changes):
        return {"family": "steps", "sizes": "full", "at": "2026-01-01 00:00", "seconds": 60, "load": 0.1,
                "machine": self.machine, "figures": {"a": 1}, **changes}

    def render(self, records, template):
        with tempfile.TemporaryDirectory() as directory:
            out = Path(directory)
            page.render(template, {name: Family for name in records}, records, out / "bench", out / "page.md")
            return (out / "page.md").read_text(), [path.name for path in (out / "bench").iterdir()]

    def test_what_is_not_met_stands_first(self):
        text, _ = self.render({"steps": self.record()}, "{{budgets}}{{table:steps}}")
        self.assertLess(text.index("missed"), text.index("unknown"))
        self.assertLess(text.index("unknown"), text.index("kept"))
        self.assertIn("**not met**", text)

    def test_tables_and_pictures_are_in_their_places(self):
        text, pictures = self.render({"steps": self.record()}, "{{table:steps}}\n{{chart:steps}}\n{{table:idle}}")
        self.assertEqual(text, "| a |\n| --- |\n| 1 |\n![Things](bench/steps.svg)\nNot measured in this run.\n")
        self.assertEqual(pictures, ["steps.svg"])

    def test_the_same_figures_give_the_same_picture(self):
        with tempfile.TemporaryDirectory() as directory:
            paths = [Path(directory) / name / "steps.svg" for name in "ab"]
            for path in paths:
                path.parent.mkdir()
                page.draw(Family.charts({"a": 1})["steps"], path)
            self.assertEqual(paths[0].read_text(), paths[1].read_text())
            self.assertNotIn("<script", paths[0].read_text())

    def test_a_table_without_a_place_is_a_mistake(self):
        with self.assertRaisesRegex(RuntimeError, "no place for the tables: steps"):
            self.render({"steps": self.record()}, "{{budgets}}")

    def test_the_page_says_what_it_is_not(self):
        other = self.record(family="idle", machine={**self.machine, "library": "m"}, sizes="smoke")
        text, _ = self.render({"steps": self.record(), "idle": other}, "{{machine}}{{table:steps}}")
        self.assertIn("Not the sizes of a full run", text)
        self.assertIn("not all measured with the same library", text)
        text, _ = self.render({"steps": self.record()}, "{{machine}}{{table:steps}}")
        self.assertNotIn("**", text)

    def test_results_are_replaced_family_by_family(self):
        with tempfile.TemporaryDirectory() as directory:
            store = Path(directory) / "bench" / "results.jsonl"
            for family, load in (("idle", 1), ("steps", 2), ("idle", 3)):
                results.write(store, self.record(family=family, load=load), families.NAMES)
            self.assertEqual([(name, record["load"]) for name, record in results.read(store).items()],
                             [("steps", 2), ("idle", 3)])
            results.forget(store, "steps", families.NAMES)
            self.assertEqual(list(results.read(store)), ["idle"])

    def test_every_family_has_what_it_must(self):
        for name in families.NAMES:
            module = families.load(name)
            self.assertTrue(module.__doc__ and module.ABOUT and module.SECONDS, name)
            for function in ("measure", "tables", "charts", "verdicts"):
                self.assertTrue(callable(getattr(module, function)), f"{name}.{function}")
        self.assertLess(sum(families.load(name).SECONDS for name in families.NAMES), 20 * 60)


if __name__ == "__main__":
    unittest.main()
