"""Each case of tools/swarm_trial in a short form: one bad node, and what the healthy ones have of it."""

import json
import os
import pathlib
import subprocess
import sys
import unittest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools/swarm_trial.py"


def trial(*arguments):
    return subprocess.run([sys.executable, TOOL, "--atoll", os.environ["ATOLL"], *arguments], capture_output=True, text=True)


CASES = [line.split()[0] for line in trial("--list").stdout.splitlines()]


class SwarmTrialTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.ended = trial("--rounds", "4")
        cls.reports = {report["case"]: report for report in map(json.loads, cls.ended.stdout.splitlines())}

    def test_all_cases_are_reported(self):
        self.assertEqual(list(self.reports), CASES, self.ended.stderr)
        self.assertEqual(self.ended.returncode, 0 if all(report["ok"] for report in self.reports.values()) else 1)
        self.assertGreater(self.reports["healthy"]["rounds_per_second"], 0)

    def test_unknown_cases_are_refused(self):
        refused = trial("--case", "nonsense")
        self.assertEqual(refused.returncode, 2)
        self.assertIn("nonsense", refused.stderr)


def case_test(name):
    def test(self):
        self.assertIn(name, self.reports, self.ended.stderr)
        self.assertEqual(self.reports[name]["problems"], [], json.dumps(self.reports[name], indent=1))
        self.assertGreaterEqual(self.reports[name]["rounds"], 4)

    return test


for case_name in CASES:
    setattr(SwarmTrialTest, f"test_{case_name}", case_test(case_name))


if __name__ == "__main__":
    unittest.main()
