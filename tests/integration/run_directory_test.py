"""The run directory: one process at a time, untouched by a start that is refused, and on a disk that may be full."""

import os
import pathlib
import resource
import signal
import unittest

from cluster import ClusterTest, run_atoll, wait_until

FOREVER = {"training__steps": 1000000}


def contents(folder):
    """Every file with its bytes, and every time of change: equal before and after means that nothing was touched."""
    folder = pathlib.Path(folder)
    paths = [folder, *sorted(folder.rglob("*"))]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


class RunDirectoryTest(ClusterTest):
    def refused(self, run, *arguments):
        """Starts a node that is refused; returns what it says."""
        result = run_atoll("train", "--config", self.config, "--set", f"node.run_directory={run}", *arguments)
        self.assertEqual(result.returncode, 2, result.stderr)
        return result.stderr

    def finished_run(self, **settings):
        node = self.start_node("run", solo=True, training__steps=5, **settings)
        self.assert_finished(node)
        return node.directory

    def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(self):
        node = self.start_node("run", solo=True, **FOREVER, checkpoint__every_steps=1)
        node.wait_for_step(3)
        text = self.refused(node.directory)
        self.assertIn(f"in use by process {node.process.pid}\n", text)
        node.wait_for_step(node.lines("inner_step")[-1]["step"] + 1)  # It is as it was.
        node.kill()
        again = self.start_node("run", solo=True, **FOREVER)
        wait_until(lambda: again.is_over() or "going on from step" in again.tail(), "the second start")
        self.assertFalse(again.is_over(), again.tail())

    def test_a_start_that_a_checkpoint_refuses_touches_nothing_and_says_what_differs(self):
        run = self.finished_run()
        before = contents(run)
        text = self.refused(run, "--set", "training.steps=5", "--set", "optimizer.learning_rate=1e-05", "--set", "seed=7")
        self.assertIn("optimizer.learning_rate: here 1e-05, there 0.003", text)
        self.assertIn("seed: here 7, there 42", text)
        self.assertIn("seed may not change", text)
        self.assertEqual(contents(run), before)
        text = self.refused(run, "--set", "training.steps=9")
        self.assertIn("training.steps: here 9, there 5", text)
        self.assertIn("--change training.steps=9", text)
        self.assertEqual(contents(run), before)

    def test_a_start_that_its_data_refuses_makes_no_directory(self):
        for setting in ['data.sources=[{"prefix": "nowhere"}]', "model.vocabulary=128", "node.memory=lean"]:
            self.refused(self.folder / "new" / "run", "--set", setting)
            self.assertFalse((self.folder / "new").exists(), setting)

    def test_a_start_that_the_coordinator_refuses_touches_nothing(self):
        run = self.finished_run()
        before = contents(run)
        self.start_coordinator(training__steps=6)
        arguments = ["--set", f"swarm.coordinator={self.address}", "--set", "training.steps=5"]
        self.refused(self.folder / "new", *arguments)
        self.assertFalse((self.folder / "new").exists())
        # The outer state of a solo run is none: another run in the swarm, then refused for its config.
        (run / "checkpoints").rename(self.folder / "elsewhere")
        before = contents(run)
        self.refused(run, *arguments)
        self.assertEqual(contents(run), before)

    def test_a_disk_that_is_full_for_a_while_costs_no_step(self):
        limit = 20000  # Bytes of a file: less than any tensor file has, and more than the metrics have at first.
        full = (limit, resource.RLIM_INFINITY)
        node = self.start_node("run", solo=True, **FOREVER, checkpoint__every_steps=20, model__width=128,
                               model__head_size=32, training__batch_rows=8, training__micro_batch_rows=8,
                               popen={"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, full)})
        # The metrics soon fill their own file; the log says it, too.
        wait_until(lambda: node.is_over() or node.tail().count("no checkpoint") >= 2, "two failed attempts")
        self.assertFalse(node.is_over(), node.tail())
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, unlimited)
        saved = wait_until(lambda: node.is_over() or node.lines("checkpoint"), "a checkpoint")
        self.assertFalse(node.is_over(), node.tail())
        first = node.lines("checkpoint_failed")[0]
        self.assertEqual((first["step"], first["next_attempt"]), (20, 22))
        self.assertIn("File too large", first["reason"])
        self.assertEqual(saved[0]["step"] % 2, 0)
        node.signal(signal.SIGTERM)
        self.assertEqual(node.finish(), 0, node.tail())
        self.assertEqual(os.listdir(node.directory / "checkpoints")[0][:5], "step-")


if __name__ == "__main__":
    unittest.main()
