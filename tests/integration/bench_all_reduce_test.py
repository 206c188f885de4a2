"""`atoll bench allreduce`: real peers, whose mean is checked; over shaped lines where the system allows them."""

import json
import os
import subprocess
import unittest

from cluster import ATOLL, DEADLINE_SECONDS, run_atoll


def bench(*arguments, **popen):
    command = [ATOLL, "bench", "allreduce", "--mib", "1", "--repetitions", "1", *map(str, arguments), "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS, **popen)


class BenchAllReduceTest(unittest.TestCase):
    def report(self, *arguments, **popen):
        result = bench(*arguments, **popen)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_two_peers_over_loopback(self):
        report = self.report("--peers", 2)
        for key in "seconds exposed_seconds plain_tcp_seconds peak_memory_bytes round_memory_bytes".split():
            self.assertGreater(report[key], 0, key)
        self.assertEqual((report["peers"], report["elements"], report["codec"], report["plan"], report["network"]),
                         (2, 1 << 18, "int8", "direct", "loopback"))
        self.assertGreater(report["loop_ns_per_parameter"], 0)
        self.assertGreater(report["worker_ns_per_parameter"], 0)
        # int8 of normal numbers, once on the way up and once down.
        self.assertLess(0.006, report["relative_rms_error"])
        self.assertLess(report["relative_rms_error"], 0.014)
        # Half of the contribution and half of the result, frames and questions included.
        payload = (1 << 18) * 8.0625 / 8
        self.assertLess(payload, report["bytes_sent"])
        self.assertLess(report["bytes_sent"], 1.1 * payload)
        self.assertIsNone(report["ideal_seconds"])
        self.assertIsNone(report["efficiency"])

    def test_three_peers_and_exact_numbers(self):
        report = self.report("--peers", 3, "--codec", "fp32")
        self.assertLess(report["relative_rms_error"], 1e-6)
        self.assertGreater(report["bytes_sent"], 4 / 3 * (1 << 20))

    def test_each_plan_makes_the_same_mean(self):
        for plan in ("direct", "two-level", "ring"):
            report = self.report("--peers", 4, "--codec", "fp32", "--plan", plan)
            self.assertEqual(report["plan"], plan)
            self.assertLess(report["relative_rms_error"], 1e-6)

    def test_a_shaped_line_where_it_is_allowed(self):
        report = self.report("--peers", 2, "--rate-mbit", 80, "--rtt-ms", 2)
        self.assertEqual(report["network"] == "loopback", "network_problem" in report)
        if report["network"] == "namespaces":
            self.assertAlmostEqual(report["ideal_seconds"], (1 << 18) * 8.0625 / 80e6)
            self.assertGreater(report["seconds"], report["ideal_seconds"])  # No line is quicker than its rate.
            self.assertAlmostEqual(report["efficiency"], report["ideal_seconds"] / report["seconds"])

    @unittest.skipUnless(os.geteuid() == 0, "only root can be somebody else")
    def test_without_the_right_to_shape_it_says_so(self):
        report = self.report("--peers", 2, "--rate-mbit", 80, user=65534, cwd="/")
        self.assertEqual(report["network"], "loopback")
        self.assertIn("namespace", report["network_problem"])
        self.assertIsNone(report["ideal_seconds"])

    def test_a_command_runs_on_each_node_of_a_lab(self):
        show = ("import os, socket; names = [name for _, name in socket.if_nameindex()]; "
                "os.write(1, f'{os.environ[\"ATOLL_LAB_NODE\"]} {names}\\n'.encode())")
        result = run_atoll("bench", "lab", "--nodes", 3, "--", "python3", "-c", show)
        if "no lab can be made here" in result.stderr:
            self.skipTest(result.stderr)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sorted(result.stdout.splitlines()), [f"{node} ['lo', 'lab']" for node in range(3)])
        failed = run_atoll("bench", "lab", "--nodes", 2, "--", "false")
        self.assertEqual(failed.returncode, 3, failed.stderr)
        self.assertIn("failed", failed.stderr)
        self.assertEqual(run_atoll("bench", "lab", "--nodes", 1, "--", "no-such-program").returncode, 3)

    def test_nonsense_is_refused(self):
        for arguments in (["--peers", 1], ["--peers", 65], ["--codec", "int9"], ["--repetitions", 0]):
            result = run_atoll("bench", "allreduce", *arguments)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn("atoll: ", result.stderr)


if __name__ == "__main__":
    unittest.main()
