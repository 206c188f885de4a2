"""Stopping and going on is the same as never having stopped: the same bytes in the last checkpoint."""

import signal
import unittest

from cluster import ClusterTest, checkpoint_files


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

    def test_another_config_is_refused(self):
        node = self.start_node("run", solo=True, training__steps=5)
        self.assert_finished(node)
        again = self.start_node("run", solo=True, training__steps=5, optimizer__learning_rate=1e-5)
        self.assertEqual(again.finish(), 2)
        self.assertIn("another config", again.tail())


if __name__ == "__main__":
    unittest.main()
