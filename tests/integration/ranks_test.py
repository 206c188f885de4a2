"""Nodes with several ranks: they train like nodes with one, go on from each other's checkpoints, and lose a rank with a message."""

import pathlib
import resource
import shutil
import signal
import subprocess
import unittest

from cluster import ATOLL, DEADLINE_SECONDS, ClusterTest, checkpoint_files, wait_until
from stopped_thread import stopped_thread

QUICKSTART = pathlib.Path(__file__).parents[2] / "configs" / "quickstart.json"


class RanksTest(ClusterTest):
    def test_nodes_with_different_ranks_and_shardings_train_together(self):
        self.start_coordinator(swarm__start_members=4)
        nodes = [
            self.start_node("one"),
            self.start_node("two", node__ranks=2, node__sharding="replicated"),
            # 43 rows for each, of which one of the last rank's is nobody's.
            self.start_node("three", node__ranks=3, node__sharding="gradients", training__batch_rows=128),
            self.start_node("four", node__ranks=4, node__sharding="full"),
        ]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=3 * 8)
        for node in nodes:
            rounds = node.lines("round")
            self.assertEqual([line["round"] for line in rounds], list(range(1, 9)))
            self.assertTrue(all(line["members"] == [0, 1, 2, 3] and line["contributed"] for line in rounds))
            self.assertTrue(all(line["weight_tokens"] == (3 * 192 + 128) * 5 * 32 for line in rounds))
            summary = node.lines("summary")[-1]
            self.assertLess(summary["validation_loss_after"], summary["validation_loss_before"] - 0.3)
        # The last step is a round, so that all have the same model; each computes the loss with its own ranks.
        losses = [node.lines("summary")[-1]["validation_loss_after"] for node in nodes]
        for loss in losses:
            self.assertAlmostEqual(loss, losses[0], delta=1e-5 * losses[0])
        for node, ranks in zip(nodes, ("", ", 2 ranks", ", 3 ranks", ", 4 ranks")):
            self.assertRegex(node.tail(), f"36000 parameters on .* threads?{ranks}\n")
        self.assertIn("3 ranks compute 129 rows per step, of which 128 count", nodes[2].tail())

    def test_the_quickstart_with_two_ranks_per_node(self):
        self.config = QUICKSTART
        shared = {"data.sources": f'[{{"prefix": "{self.folder / "corpus"}"}}]', "data.validation_fraction": 0.1,
                  "training.steps": 12, "outer.inner_steps": 3, "outer.overlap_steps": 1, "outer.overlap_steps_max": 2,
                  "optimizer.schedule.warmup_steps": 3,
                  "optimizer.schedule.stable_steps": 8, "swarm.start_members": 2}
        self.start_coordinator(**shared)
        nodes = [self.start_node(name, node__device="cpu", node__ranks=2, node__threads=2, node__listen="127.0.0.1:0", **shared)
                 for name in "ab"]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=4)
        for node in nodes:
            self.assertTrue(all(line["contributed"] and line["members"] == [0, 1] for line in node.lines("round")))
            summary = node.lines("summary")[-1]
            self.assertLess(summary["validation_loss_after"], 0.8 * summary["validation_loss_before"])
            self.assertIn(", 2 ranks", node.tail())

    def test_a_stopped_run_goes_on_with_other_ranks(self):
        # No run ends by itself: each is stopped once it has what is compared, however slow the machine is.
        settings = {"solo": True, "training__steps": 10**6, "checkpoint__every_steps": 5, "checkpoint__keep": 10**6}
        same = {"node__ranks": 2, "node__sharding": "gradients"}

        def run_until(step, name, **others):
            node = self.start_node(name, **settings, **others)
            node.wait_for_step(step)
            node.signal(signal.SIGTERM)
            self.assert_finished(node)
            return node

        stopped = run_until(7, "stopped", **same)
        stopped_at = stopped.lines("summary")[-1]["step"]
        compared = stopped_at - stopped_at % 5 + 10  # A step with a checkpoint.
        straight = run_until(compared + 1, "straight", **same)
        expected = {line["step"]: line["loss"] for line in straight.lines("inner_step")}
        for ranks, sharding in ((2, "gradients"), (1, "auto"), (2, "full"), (3, "full"), (4, "replicated")):
            with self.subTest(ranks=ranks, sharding=sharding):
                name = f"{ranks}-{sharding}"
                shutil.copytree(stopped.directory, self.folder / name)
                again = run_until(compared + 1, name, node__ranks=ranks, node__sharding=sharding)
                self.assertIn(f"going on from step {stopped_at}\n", again.tail())
                steps = [line for line in again.lines("inner_step") if stopped_at < line["step"] <= compared]
                self.assertEqual([line["step"] for line in steps], list(range(stopped_at + 1, compared + 1)))
                if same == {"node__ranks": ranks, "node__sharding": sharding}:
                    self.assertEqual([line["loss"] for line in steps], [expected[line["step"]] for line in steps])
                    self.assertEqual(checkpoint_files(again.directory, compared), checkpoint_files(straight.directory, compared))
                for line in steps:
                    self.assertAlmostEqual(line["loss"], expected[line["step"]], delta=1e-4 * expected[line["step"]])

    def test_out_of_memory_names_the_rank(self):
        limit = 8 << 30  # Many times what the process needs before it makes its model.
        # Activations of one rank that are many times the limit; and of all ranks together, but perhaps not of one.
        for rows in (1_000_000, 100_000):
            settings = {"node.run_directory": self.folder / "run", "node.ranks": 3, "training.batch_rows": rows,
                        "training.micro_batch_rows": rows}
            command = [ATOLL, "train", "--config", self.config, *(f"--set={key}={value}" for key, value in settings.items())]
            with self.subTest(rows=rows):
                result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS,
                                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
                self.assertEqual(result.returncode, 3, result.stderr)
                self.assertRegex(result.stderr, "atoll: rank [012] of 3: (cannot allocate|out of memory)")
                self.assertIn("Hint", result.stderr)

    def test_a_stopped_rank_ends_its_node_which_comes_back(self):
        shared = {"training__steps": 10**6, "swarm__ready_grace_seconds": 1}
        self.start_coordinator(swarm__start_members=2, **shared)
        steady = self.start_node("steady", **shared)
        settings = {"node__ranks": 3, "node__sharding": "gradients", "node__rank_timeout_seconds": 2,
                    "checkpoint__every_steps": 5, **shared}
        node = self.start_node("node", **settings)
        node.wait_for_round(2)
        with stopped_thread(node.process.pid, "rank-1") as is_dead:
            wait_until(is_dead, "the end of the node")
        self.assertEqual(node.finish(), 3, node.tail())
        self.assertRegex(node.tail(), r"atoll: rank [02] of 3: \w+: rank 1 did not (arrive|finish) within 2000 ms; rank 1 did not come back ")
        self.assertIn("rank 1 did not come back", (node.directory / "log.txt").read_text())

        last = node.lines("round")[-1]["round"]
        alone = steady.wait_for_round(last + 2)[0]
        again = self.start_node("node", **settings)
        back = wait_until(lambda: again.is_over() or [line for line in again.lines("round") if line["contributed"]
                                                      and line["round"] > alone["round"]], "a round after the restart")
        self.assertIsNot(back, True, again.tail())
        together = steady.wait_for_round(back[0]["round"])[0]
        for child in (again, steady):
            child.signal(signal.SIGTERM)
        self.assert_finished(again, steady)
        self.assertIn("going on from step", again.tail())
        self.assertEqual([len(line["members"]) for line in (alone, together)], [1, 2])
        self.assert_digests_agree([again, steady], at_least=3)


if __name__ == "__main__":
    unittest.main()
