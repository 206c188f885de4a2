"""A coordinator and two nodes on the device that ATOLL_TEST_DEVICE names (cpu, if it is not set): rounds, digests, a checkpoint, a node
that stops and goes on. tools/gpu_check runs it with both nodes on one GPU."""

import json
import os
import signal
import unittest

from cluster import ClusterTest, wait_until

DEVICE = os.environ.get("ATOLL_TEST_DEVICE", "cpu")
# Head size 64 is what cuDNN's attention has kernels for.
MODEL = {"vocabulary": 272, "width": 128, "layers": 2, "heads": 2, "kv_heads": 1, "head_size": 64, "feed_forward": 192,
         "sequence_length": 64}


class DeviceSwarm(ClusterTest):
    def setUp(self):
        super().setUp()
        config = json.loads(self.config.read_text())
        config["model"] = MODEL
        config["training"].update(steps=1_000_000, batch_rows=16, micro_batch_rows=8)
        config["checkpoint"] = {"every_steps": 10, "keep": 2}
        config["evaluation"].update(every_steps=40)
        config["swarm"].update(dead_seconds=20, stall_seconds=60, ready_grace_seconds=60)
        config["node"]["device"] = DEVICE
        self.config.write_text(json.dumps(config))

    def test_two_nodes_train_stop_and_go_on(self):
        self.start_coordinator(swarm__start_members=2)
        left, right = self.start_node("left"), self.start_node("right")
        right.wait_for_round(3)
        self.stop(right)
        stopped_at = max(line["step"] for line in right.lines("inner_step"))
        count = len(right.lines("inner_step"))
        # Both go on until they have done rounds together again: however fast the one is meanwhile, it waits for no other's start.
        again = self.start_node("right")
        rounds_before = len(right.lines("round"))
        wait_until(lambda: again.is_over() or left.is_over() or
                   len([line for line in again.lines("round")[rounds_before:] if len(line["members"]) == 2]) >= 3,
                   lambda: f"rounds after a restart; its output:\n{again.tail()}\nThe other's:\n{left.tail()}{self.coordinator_log()}")
        self.stop(again)
        self.stop(left)
        self.assert_digests_agree([left, again], at_least=6)
        went_on = [line["step"] for line in again.lines("inner_step")[count:]]
        self.assertGreater(went_on[0], stopped_at - 11, "it went on from its checkpoint or the swarm's state, not from the start")
        for node in (left, again):
            losses = [line["loss"] for line in node.lines("inner_step")]
            self.assertLess(sum(losses[-5:]), 0.9 * sum(losses[:5]), "the loss falls")
            self.assertTrue(list((node.directory / "checkpoints").glob("step-*")))
        if DEVICE != "cpu":
            self.assertNotIn("attention without cuDNN", left.output.read_text())

    def stop(self, node):
        node.signal(signal.SIGTERM)
        self.assertEqual(node.finish(), 0, node.tail() + self.coordinator_log())


if __name__ == "__main__":
    unittest.main()
