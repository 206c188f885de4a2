"""What may change when a run goes on: longer runs, other schedules and learning rates, on purpose and on record."""

import json
import signal
import unittest

from cluster import ClusterTest, checkpoint_files, run_atoll, wait_until

WSD = {"optimizer__schedule__kind": "wsd", "optimizer__schedule__stable_steps": 12, "optimizer__schedule__total_steps": 16}
SMALL = {"training__batch_rows": 8, "training__micro_batch_rows": 8}
# SGD with such a rate and without clipping explodes within a few steps.
EXPLODE = {"optimizer__kind": "sgd", "optimizer__learning_rate": 10, "optimizer__gradient_norm_max": 0,
           "optimizer__schedule__warmup_steps": 0, "checkpoint__every_steps": 1, **SMALL}


class RunChangeTest(ClusterTest):
    def test_a_wsd_run_is_prolonged_and_annealed(self):
        changes = ["training.steps=20", "optimizer.schedule.stable_steps=16", "optimizer.schedule.total_steps=20"]
        node = self.start_node("run", solo=True, training__steps=12, **WSD, **SMALL)
        self.assert_finished(node)
        refused = self.start_node("run", solo=True, training__steps=20, **{**WSD, "optimizer__schedule__total_steps": 20}, **SMALL)
        self.assertEqual(refused.finish(), 2)
        self.assertIn("--change optimizer.schedule.total_steps=20 --change training.steps=20", refused.tail())
        node = self.start_node("run", solo=True, training__steps=12, **WSD, **SMALL, changes=changes)
        self.assert_finished(node)
        self.assertEqual([(line["step"], line["key"], line["before"], line["after"]) for line in node.lines("change")],
                         [(12, "optimizer.schedule.stable_steps", "12", "16"),
                          (12, "optimizer.schedule.total_steps", "16", "20"), (12, "training.steps", "12", "20")])
        rates = [line["lr"] for line in node.lines("inner_step")]
        self.assertEqual(len(rates), 20)
        self.assertEqual(rates[5:17], [3e-3] * 12, "the peak until the decay starts")
        self.assertTrue(all(a > b for a, b in zip(rates[16:], rates[17:])), rates)
        # The same bits as a run that was planned so from the start.
        straight = self.start_node("straight", solo=True, training__steps=20, **SMALL, optimizer__schedule__kind="wsd",
                                   optimizer__schedule__stable_steps=16, optimizer__schedule__total_steps=20)
        self.assert_finished(straight)
        self.assertEqual(checkpoint_files(node.directory), checkpoint_files(straight.directory))
        manifest = json.loads((node.directory / "checkpoints" / "step-00000020" / "manifest.json").read_text())
        self.assertEqual([change["key"] for change in manifest["changes"]],
                         ["optimizer.schedule.stable_steps", "optimizer.schedule.total_steps", "training.steps"])
        # The change is made: the same command goes on, the old config does not.
        again = self.start_node("run", solo=True, training__steps=12, **WSD, **SMALL, changes=changes)
        self.assert_finished(again)
        self.assertEqual(len(again.lines("change")), 3)

    def test_what_may_not_change_is_refused(self):
        result = run_atoll("train", "--config", self.config, "--change", "seed=3")
        self.assertEqual(result.returncode, 2)
        self.assertIn("seed may not change", result.stderr)
        self.assertIn("training.steps, optimizer.learning_rate", result.stderr)

    def test_a_swarm_goes_on_with_a_change_that_all_agree_on(self):
        change = ["training.steps=20"]
        self.start_coordinator(training__steps=10, swarm__start_members=2)
        self.assert_finished(*[self.start_node(name, training__steps=10, **SMALL) for name in "ab"])
        self.start_coordinator(training__steps=10, swarm__start_members=2, changes=change)
        nodes = [self.start_node(name, training__steps=10, **SMALL, changes=change) for name in "ab"]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=3)
        for node in nodes:
            self.assertEqual([line["step"] for line in node.lines("inner_step")], list(range(1, 21)))
            self.assertEqual([(line["key"], line["after"]) for line in node.lines("change")], [("training.steps", "20")])

    def test_a_node_that_is_stopped_in_a_streak_keeps_the_checkpoint_before(self):
        node = self.start_node("run", solo=True, **EXPLODE, training__nonfinite_steps_max=1000000,
                               training__steps=1000000)
        skipped = wait_until(lambda: [line for line in node.lines("inner_step") if line.get("skipped")] or node.is_over(),
                             "a step that is not finite")
        node.signal(signal.SIGTERM)
        self.assertEqual(node.finish(), 0, node.tail())
        self.assertEqual(checkpoint_files(node.directory)[0], f"step-{skipped[0]['step'] - 1:08}")
        self.assertIn("not saved", (node.directory / "log.txt").read_text())

    def test_the_same_divergence_twice_goes_back_one_checkpoint(self):
        explode = {**EXPLODE, "training__nonfinite_steps_max": 3}
        steps = []
        for _ in range(2):
            node = self.start_node("run", solo=True, **explode)
            self.assertEqual(node.finish(), 2, node.tail())
            skipped = [line["step"] for line in node.lines("inner_step") if line.get("skipped")]
            steps.append(skipped[0])
            newest = checkpoint_files(node.directory)[0]
            self.assertEqual(newest, f"step-{steps[0] - 1:08}", "no checkpoint inside the streak")
            self.assertIn("not finite", (node.directory / "log.txt").read_text())
        last_whole = steps[0] - 1
        node = self.start_node("run", solo=True, **explode, changes=["optimizer.learning_rate=0.001"])
        self.assert_finished_or_diverged(node)
        log = (node.directory / "log.txt").read_text()
        self.assertIn(f"going back to the one of step {last_whole - 1}", log)
        self.assertIn(f"going on from step {last_whole - 1}", log)
        self.assertTrue((node.directory / "checkpoints" / f"step-{last_whole:08}.aside-1").is_dir())

    def assert_finished_or_diverged(self, node):
        self.assertIn(node.finish(), [0, 2], node.tail())


if __name__ == "__main__":
    unittest.main()
