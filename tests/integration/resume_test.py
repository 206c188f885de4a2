"""Stopping and going on is the same as never having stopped: the same bytes in the last checkpoint."""

import json
import signal
import unittest

from cluster import ClusterTest, checkpoint_files, run_atoll


LEAN = {"node__memory": "lean", "training__micro_batch_rows": 192}


class ResumeTest(ClusterTest):
    def straight_run(self, **settings):
        node = self.start_node("straight", solo=True, **settings)
        self.assert_finished(node)
        return checkpoint_files(node.directory)

    def test_a_stopped_solo_run_ends_with_the_same_bits(self):
        expected = self.straight_run()
        node = self.start_node("stopped", solo=True)
        node.wait_for_step(7)
        node.signal(signal.SIGTERM)
        self.assertEqual(node.finish(), 0, node.tail())
        stopped_at = node.lines("summary")[-1]["step"]
        self.assertFalse(node.lines("summary")[-1]["finished"])
        again = self.start_node("stopped", solo=True)
        self.assert_finished(again)
        steps = [line["step"] for line in again.lines("inner_step")]
        self.assertEqual(steps, list(range(1, 41)), f"stopped at {stopped_at}: every step exactly once")
        self.assertEqual(checkpoint_files(again.directory), expected)

    def test_a_killed_solo_run_goes_on_from_its_last_checkpoint_with_the_same_bits(self):
        expected = self.straight_run()
        node = self.start_node("killed", solo=True, checkpoint__every_steps=5)
        node.wait_for_step(13)
        node.kill()
        again = self.start_node("killed", solo=True, checkpoint__every_steps=5)
        self.assert_finished(again)
        self.assertIn("going on from step", again.tail())
        self.assertEqual(checkpoint_files(again.directory), expected)

    def test_a_lean_run_goes_on_with_the_same_bits(self):
        expected = self.straight_run(**LEAN)
        node = self.start_node("killed", solo=True, checkpoint__every_steps=5, **LEAN)
        node.wait_for_step(13)
        node.kill()
        again = self.start_node("killed", solo=True, checkpoint__every_steps=5, **LEAN)
        self.assert_finished(again)
        self.assertIn("going on from step", again.tail())
        self.assertEqual(checkpoint_files(again.directory), expected)

    def test_a_swarm_of_one_goes_on_with_the_same_bits_and_samples(self):
        self.start_coordinator()
        straight = self.start_node("straight")
        self.assert_finished(straight)
        trained = [(line["step"], line["loss"]) for line in straight.lines("inner_step")]
        self.assertEqual([step for step, _ in trained], list(range(1, 41)))
        expected = checkpoint_files(straight.directory)
        for name, number in (("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)):
            with self.subTest(name):
                coordinator = self.start_coordinator()
                # The last checkpoint is between two rounds, and of the samples that were asked for some are left.
                node = self.start_node(name, checkpoint__every_steps=7)
                node.wait_for_step(17)
                node.signal(number)
                node.finish()
                if number == signal.SIGKILL:
                    coordinator.process.kill()
                    coordinator.process.wait()
                    self.start_coordinator()
                again = self.start_node(name, checkpoint__every_steps=7)
                self.assert_finished(again)
                self.assertIn("going on from step", again.tail())
                losses = {line["step"]: line["loss"] for line in again.lines("inner_step")}
                self.assertEqual(sorted(losses.items()), trained)
                self.assertEqual(checkpoint_files(again.directory), expected)

    def test_a_swarm_of_one_goes_on_with_the_same_bits_with_rounds_in_flight(self):
        # Waits for each result where it is merged, so that the order of events is the same in every run.
        settings = {"outer__fragments": 4, "outer__inner_steps": 8, "outer__overlap_steps": 5, "outer__overlap_steps_max": 5,
                    "outer__codec": "int4", "checkpoint__every_steps": 7}
        self.start_coordinator(**settings)
        straight = self.start_node("straight", **settings)
        self.assert_finished(straight)
        expected = checkpoint_files(straight.directory)
        for name, number in (("stopped", signal.SIGTERM), ("killed", signal.SIGKILL)):
            with self.subTest(name):
                coordinator = self.start_coordinator(**settings)
                node = self.start_node(name, **settings)
                node.wait_for_step(17)
                node.signal(number)
                node.finish()
                newest = sorted((node.directory / "checkpoints").glob("step-*"))[-1]
                manifest = json.loads((newest / "manifest.json").read_text())
                self.assertTrue(manifest["in_flight"], manifest)
                coordinator.process.kill()
                coordinator.process.wait()
                self.start_coordinator(**settings)
                again = self.start_node(name, **settings)
                self.assert_finished(again)
                self.assertIn("going on from step", again.tail())
                self.assertEqual(checkpoint_files(again.directory), expected)

    def test_a_changed_batch_moves_no_position(self):
        def run_until(step, rows):
            node = self.start_node("run", solo=True, training__steps=10**6, training__batch_rows=rows, training__micro_batch_rows=32)
            node.wait_for_step(step)
            node.signal(signal.SIGTERM)
            self.assert_finished(node)
            return [line["samples"] for line in node.lines("inner_step")], node

        before, _ = run_until(3, 192)
        self.assertEqual(before, [192 * step for step in range(1, len(before) + 1)])
        samples, node = run_until(len(before) + 3, 32)
        after = samples[len(before):]
        self.assertEqual(after, [before[-1] + 32 * step for step in range(1, len(after) + 1)])
        shown = run_atoll("inspect", "checkpoint", node.directory)
        self.assertIn(f"{after[-1]} samples of the run's data handed out", shown.stdout)
        shown = json.loads(run_atoll("inspect", "checkpoint", node.directory, "--json").stdout)
        self.assertEqual((shown["samples"], shown["samples_left"]), (after[-1], 0))
        self.assertEqual(shown["passes"], node.lines("inner_step")[-1]["passes"])

    def test_data_for_less_than_a_batch_is_enough(self):
        texts = self.folder / "few"
        texts.mkdir()
        (texts / "a.txt").write_text("a few words")
        self.assertEqual(run_atoll("prepare", "--input", texts, "--output", self.folder / "few").returncode, 0)
        node = self.start_node("run", solo=True, data__sources=json.dumps([{"prefix": str(self.folder / "few")}]),
                               data__validation_fraction=0, training__steps=5)
        self.assert_finished(node)
        last = node.lines("inner_step")[-1]
        self.assertEqual(last["samples"], 5 * 192)
        self.assertGreater(last["passes"], 5 * 192)

    def test_another_config_is_refused(self):
        node = self.start_node("run", solo=True, training__steps=5)
        self.assert_finished(node)
        again = self.start_node("run", solo=True, training__steps=5, optimizer__learning_rate=1e-5)
        self.assertEqual(again.finish(), 2)
        self.assertIn("another config", again.tail())


if __name__ == "__main__":
    unittest.main()
