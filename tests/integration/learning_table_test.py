"""tools/learning_table: a run is held against the reference of its own seed, in the tables and in the pictures."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools/learning_table.py"
BLOCKING = {"run": "blocking", "nodes": 3, "rows": 12, "steps": 256, "inner_steps": 16, "fragments": 1, "overlap": 0, "codec": "fp32",
            "results": "same", "merge": "rebase"}
STREAMING = BLOCKING | {"run": "streaming", "codec": "int4", "overlap": 4}
DATA_PARALLEL = BLOCKING | {"run": "data parallel", "nodes": 1, "inner_steps": 0}


def run(lines):
    """The tables, and the pictures by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "lines.txt").write_text("Filters: [streaming]\n" + "\n".join(json.dumps(line) for line in lines), encoding="utf-8")
        ended = subprocess.run([sys.executable, TOOL, path / "lines.txt", "--pictures", path / "pictures"], check=True, capture_output=True, text=True)
        return ended.stdout, {file.stem: xml.etree.ElementTree.parse(file) for file in (path / "pictures").iterdir()}


def marks(picture, kind):
    return [one for one in picture.iter("{http://www.w3.org/2000/svg}g") if kind in one.get("class", "")]


class LearningTableTest(unittest.TestCase):
    def test_a_run_is_held_against_its_own_seed(self):
        tables, pictures = run([BLOCKING | {"seed": 1, "loss": 2.0}, STREAMING | {"seed": 2, "loss": 3.2}, STREAMING | {"seed": 1, "loss": 2.1},
                                BLOCKING | {"seed": 2, "loss": 3.0}, STREAMING | {"seed": 3, "loss": 9.0}])
        self.assertIn("| 1/4 | +0.150 (+0.100, +0.200) |  |  |", tables)
        self.assertEqual(len(marks(pictures["learning-merges"], "sample")), 2)
        self.assertEqual(set(pictures), {"learning-codecs", "learning-merges"})  # Nothing is known of nodes and rounds.

    def test_runs_of_another_shape_have_their_own_reference(self):
        lines = [DATA_PARALLEL | {"rows": 8, "seed": 1, "loss": 2.0}, DATA_PARALLEL | {"steps": 512, "seed": 1, "loss": 1.0}]
        lines += [STREAMING | {"nodes": nodes, "rows": 8, "overlap": 1, "seed": 1, "loss": 2 + nodes / 10} for nodes in (1, 2, 4, 8)]
        lines += [BLOCKING | {"steps": 512, "inner_steps": steps, "seed": 1, "loss": 1 + steps / 100} for steps in (16, 64, 128)]
        lines += [STREAMING | {"steps": 512, "inner_steps": 64, "overlap": 4, "seed": 1, "loss": 1.7}]
        tables, pictures = run(lines)
        self.assertIn("| 8 | 2.800 | +0.800 |", tables)
        self.assertIn("| 64 | 1.640 | +0.640 | 1.700 | +0.060 |", tables)
        self.assertEqual(len(marks(pictures["learning-nodes"], "mean")), 4 + 2)  # Two in the legend.
        self.assertEqual(len(marks(pictures["learning-rounds"], "mean")), 4 + 4)


if __name__ == "__main__":
    unittest.main()
