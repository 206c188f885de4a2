"""`atoll train --supervise`: what is started again and what is not, with real processes."""

import os
import pathlib
import re
import signal
import subprocess
import unittest

from cluster import ATOLL, ClusterTest, wait_until

FOREVER = ("training.steps=1000000", "checkpoint.every_steps=5")


class SuperviseTest(ClusterTest):
    def supervise(self, *settings, options=(), command="train", pause=0.01):
        self.directory = self.folder / "run"
        self.output = self.folder / "supervised.txt"
        words = [ATOLL, command, "--config", str(self.config), "--supervise", f"--restart-pause-seconds={pause}", *map(str, options)]
        for setting in (f"node.run_directory={self.directory}", *settings):
            words += ["--set", setting]
        with open(self.output, "wb") as output:
            process = subprocess.Popen(words, stdout=output, stderr=output)
        self.addCleanup(process.wait)
        self.addCleanup(lambda: process.poll() is None and process.terminate())
        return process

    def text(self):
        return self.output.read_text(errors="replace")

    def nodes(self):
        return [int(pid) for pid in re.findall(r"atoll train runs as process (\d+)", self.text())]

    def wait_for_checkpoint(self, after=-1):
        def newest():
            steps = [int(path.name[5:]) for path in self.directory.glob("checkpoints/step-*") if path.name[5:].isdigit()]
            return max(steps, default=-1) > after and max(steps)
        return wait_until(newest, lambda: f"a checkpoint after step {after}\n{self.text()}")

    def test_a_killed_node_goes_on_and_the_signal_to_stop_is_passed_on(self):
        supervisor = self.supervise(*FOREVER)
        step = self.wait_for_checkpoint()
        os.kill(self.nodes()[0], signal.SIGKILL)
        self.wait_for_checkpoint(after=step)
        self.assertEqual(len(self.nodes()), 2)
        self.assertIn("signal 9 (Killed); it is started again in 0.0 s (restart 1 in all, 1 of at most 20 in a row)", self.text())
        self.assertIn("going on from step", self.text())
        supervisor.send_signal(signal.SIGTERM)
        self.assertEqual(supervisor.wait(60), 0, self.text())
        self.assertIn("Terminated is passed on to atoll train", self.text())
        self.assertIn("stopped by a signal", self.text())
        self.assertEqual(len(self.nodes()), 2)

    def test_a_lost_resource_is_tried_again_but_not_for_ever(self):
        lost = ("swarm.coordinator=127.0.0.1:1", "swarm.coordinator_patience_seconds=0.2", "swarm.dead_seconds=0.2",
                "swarm.heartbeat_seconds=0.05")
        supervisor = self.supervise(*lost, options=("--restarts-max", 2))
        self.assertEqual(supervisor.wait(60), 3, self.text())
        self.assertEqual(len(self.nodes()), 3)
        self.assertIn("it was started again 2 times in a row", self.text())

    def test_bad_input_is_not_tried_again(self):
        supervisor = self.supervise("optimizer.lr=1")
        self.assertEqual(supervisor.wait(60), 2, self.text())
        self.assertEqual(len(self.nodes()), 1)
        self.assertIn("did you mean optimizer.learning_rate?", self.text())

    def test_who_is_done_is_done(self):
        supervisor = self.supervise("training.steps=3")
        self.assertEqual(supervisor.wait(60), 0, self.text())
        self.assertEqual(len(self.nodes()), 1)

    def test_a_stop_in_a_pause_ends_it(self):
        lost = ("swarm.coordinator=127.0.0.1:1", "swarm.coordinator_patience_seconds=0.2", "swarm.dead_seconds=0.2",
                "swarm.heartbeat_seconds=0.05")
        supervisor = self.supervise(*lost, pause=60)
        wait_until(lambda: "it is started again in 60.0 s" in self.text(), self.text)
        supervisor.send_signal(signal.SIGINT)
        self.assertEqual(supervisor.wait(30), 3)
        self.assertIn("Interrupt: atoll train is not started again", self.text())

    def test_a_node_does_not_outlive_its_supervisor(self):
        supervisor = self.supervise(*FOREVER)
        self.wait_for_checkpoint()
        node, = self.nodes()
        supervisor.kill()
        wait_until(lambda: not pathlib.Path(f"/proc/{node}").exists() or "State:\tZ" in pathlib.Path(f"/proc/{node}/status").read_text(),
                   "the node's end")
        self.assertIn("stopped by a signal", self.text())

    def test_a_coordinator_too(self):
        supervisor = self.supervise(command="coordinate", options=("--listen", "127.0.0.1:0"))
        wait_until(lambda: "coordinator listening on" in self.text(), self.text)
        supervisor.send_signal(signal.SIGTERM)
        self.assertEqual(supervisor.wait(60), 0, self.text())


if __name__ == "__main__":
    unittest.main()
