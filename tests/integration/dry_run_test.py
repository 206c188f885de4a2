"""`atoll train --dry-run`: says what a start would do, refuses what it would refuse, and changes nothing."""

import json
import os
import pathlib
import unittest

from cluster import ClusterTest, run_atoll

TEN_B = pathlib.Path(__file__).parents[2] / "configs" / "intellect-1-10b.json"


class DryRunTest(ClusterTest):
    def dry_run(self, *options, settings=(), code=0):
        command = ["train", "--config", self.config, "--dry-run", "--json"]
        for setting in (f"node.run_directory={self.folder / 'run'}", "swarm.coordinator=127.0.0.1:1", *settings):
            command += ["--set", setting]
        result = run_atoll(*command, *options)
        self.assertEqual(result.returncode, code, result.stderr)
        self.error = result.stderr
        return json.loads(result.stdout) if result.stdout else None

    def files(self):
        return sorted((str(path), path.stat().st_mtime_ns) for path in self.folder.rglob("*"))

    def test_it_tells_the_whole_run_and_changes_nothing(self):
        before = self.files()
        report = self.dry_run("--nodes", 4, "--price-per-gb", 0.1, "--price-per-gpu-hour", 2, "--step-seconds", 0.5)
        self.assertEqual(self.files(), before)
        self.assertEqual(report["config"]["model"]["width"], 32)
        self.assertIsNone(report["resumed_step"])
        self.assertIsNone(report["refusal"])
        self.assertEqual(report["estimate"]["nodes"], 4)
        self.assertAlmostEqual(report["estimate"]["traffic_price_per_day"], 0.1 * report["estimate"]["gigabytes_per_day"])
        self.assertAlmostEqual(report["estimate"]["machine_price_per_day"], 48)
        self.assertIn("given", report["step"]["basis"])
        self.assertAlmostEqual(report["estimate"]["hours"] * 3600, 40 * 0.5, delta=1)
        sources = {one["key"]: (one["seconds"], one["from"]) for one in report["time_outs"]}
        self.assertEqual(sources["swarm.stall_seconds"], (4, "set"))
        self.assertEqual(sources["swarm.round_timeout_seconds"], (80, "20 times swarm.dead_seconds"))
        inspected = json.loads(run_atoll("inspect", "data", self.folder / "corpus", "--json").stdout)
        self.assertEqual(report["data"]["tokens"], inspected["tokens"])

    def test_where_the_time_of_a_step_comes_from(self):
        self.assertIn("assumed", self.dry_run()["step"]["basis"])
        self.assertIn("measured: the median of 2 steps", self.dry_run("--measure-steps", 2)["step"]["basis"])
        report = self.dry_run("--tokens-per-second", 1024)
        self.assertEqual(report["step"]["seconds"], 192 * 32 / 1024)
        self.assertIn("H100", self.dry_run("--gpus", 8)["step"]["basis"])

    def test_a_checkpoint_is_as_large_as_it_said(self):
        said = self.dry_run()["disk"]["checkpoint_bytes"]
        self.start_coordinator()
        node = self.start_node("run")
        self.assert_finished(node)
        newest = sorted(node.directory.glob("checkpoints/step-*"))[-1]
        written = sum(path.stat().st_size for path in newest.glob("*.safetensors"))
        self.assertAlmostEqual(written / said, 1, delta=0.1)  # Headers, which weigh in so small a model.
        self.assertEqual(self.dry_run()["resumed_step"], 40)
        self.assertEqual(self.dry_run()["estimate"]["hours"], 0)

    def test_it_refuses_what_a_start_would(self):
        self.dry_run(settings=["data.sources.0.prefix=/nowhere"], code=2)
        self.assertIn("/nowhere", self.error)
        self.dry_run(settings=["swarm.heartbeat_seconds=9"], code=2)
        self.assertIn("3 times swarm.heartbeat_seconds (9)", self.error)
        self.dry_run(settings=["swarm.security=keys"], code=2)
        self.assertIn("swarm.coordinator_key", self.error)
        if not os.path.exists("/dev/nvidiactl"):
            self.dry_run(settings=["node.device=cuda"], code=2)
            self.assertIn("there is no GPU", self.error)
        report = self.dry_run("--gpus", 1, "--gib-per-gpu", 0.5, code=2)
        self.assertFalse(report["memory"]["fits"])
        self.assertIn("does not fit", report["refusal"])
        self.dry_run("--nodes", 2, settings=["swarm.coordinator="], code=2)
        self.assertIn("swarm.coordinator is empty", self.error)
        self.assertEqual(run_atoll("train", "--config", self.config, "--nodes", 2).returncode, 2)

    def test_it_warns_of_lines_and_disks(self):
        text = " ".join(self.dry_run("--nodes", 8, "--rate-mbit", 0.001, "--step-seconds", 0.1)["warnings"])
        self.assertIn("swarm.round_timeout_seconds is 80", text)
        self.assertIn("no overlap helps", text)
        text = " ".join(self.dry_run(settings=["checkpoint.keep=1000000"])["warnings"])
        self.assertIn("lower checkpoint.keep", text)

    def test_people_can_read_it(self):
        result = run_atoll("train", "--config", TEN_B, "--set", f"data.sources.0.prefix={self.folder / 'corpus'}", "--set",
                           "swarm.coordinator=127.0.0.1:1", "--dry-run", "--gpus", 8, "--nodes", 14, "--price-per-gpu-hour", 2)
        self.assertEqual(result.returncode, 0, result.stderr)
        for expected in ("10211381248 parameters", "8 GPUs of 78 GiB, as given", "14 nodes at 100 Mbit/s", "days until the last step",
                         "384.00 for the machine", "204 GB a checkpoint", "20 times swarm.dead_seconds"):
            self.assertIn(expected, result.stdout)


if __name__ == "__main__":
    unittest.main()
