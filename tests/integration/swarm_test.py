"""Real nodes over loopback: they join, leave, crash, freeze and come back, and all agree on every round."""

import signal
import unittest

from cluster import ClusterTest, wait_until


# Four fragments (the model has two blocks), at most two in flight; rounds of a step or two beside steps of milliseconds.
STREAMING = {"outer__fragments": 4, "outer__inner_steps": 8, "outer__overlap_steps": 2, "outer__overlap_steps_max": 5}

# Rounds enough for somebody to come, go or be found dead in the middle. What the nodes learn is not asked, so a third of the
# rows will do.
CHUNK_BYTES = 8192 + 64  # A frame in int8, about.
LONG = {"training__steps": 400, "training__batch_rows": 64}


class SwarmTest(ClusterTest):
    def test_three_nodes_train_and_agree(self):
        coordinator = self.start_coordinator(swarm__start_members=3)
        nodes = [self.start_node(name) for name in "abc"]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=16)
        for node in nodes:
            rounds = node.lines("round")
            self.assertEqual([line["round"] for line in rounds], list(range(1, 9)))
            self.assertTrue(all(line["members"] == [0, 1, 2] and line["contributed"] for line in rounds))
            self.assertTrue(all(line["weight_tokens"] == 3 * 5 * 192 * 32 for line in rounds))
            summary = node.lines("summary")[-1]
            self.assertLess(summary["validation_loss_after"], summary["validation_loss_before"] - 0.3)
        report = coordinator.finish()
        self.assertTrue(report["finished"])
        self.assertEqual(report["rounds_committed"], 8)
        trained, asked = 3 * 40 * 192, 5 * 192
        self.assertEqual(report["samples"] % asked, 0)
        self.assertGreaterEqual(report["samples"], trained)
        self.assertLessEqual(report["samples"], trained + 3 * 2 * asked, "what is left in the nodes' hands")
        self.assertEqual(max(node.lines("inner_step")[-1]["samples"] for node in nodes), report["samples"])

    def test_several_fragments(self):
        self.start_coordinator(swarm__start_members=2, outer__fragments=3, outer__inner_steps=6)
        nodes = [self.start_node(name, outer__fragments=3, outer__inner_steps=6) for name in "ab"]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=18)
        self.assertEqual({line["fragment"] for line in nodes[0].lines("round")}, {0, 1, 2})

    def test_rounds_beside_training(self):
        for codecs in ({"outer__codec": "int4"}, {"outer__codec": "lut2", "outer__result_codec": "int4"}):
            settings = {**STREAMING, **codecs, "training__steps": 80}
            self.start_coordinator(swarm__start_members=3, **settings)
            names = [f"{name}-{codecs['outer__codec']}" for name in "abc"]
            nodes = [self.start_node(name, **settings) for name in names]
            self.assert_finished(*nodes)
            self.assert_digests_agree(nodes, at_least=80)
            rounds = [line for line in nodes[0].lines("round") if line["contributed"]]
            self.assertTrue(all(2 <= line["overlap_steps"] <= 5 for line in rounds if line["applied_step"] < 80), rounds)
            self.assertEqual({line["overlap_steps"] for line in rounds if line["begun_step"] == 80}, {0})
            summaries = [node.lines("summary")[-1] for node in nodes]
            self.assertEqual(len({summary["validation_loss_after"] for summary in summaries}), 1, "all end at one model")
            self.assertLess(summaries[0]["validation_loss_after"], summaries[0]["validation_loss_before"] - 0.5)

    def test_rounds_beside_training_through_a_join_a_crash_and_a_stop(self):
        settings = {**STREAMING, "outer__codec": "int4", **LONG}
        self.start_coordinator(swarm__start_members=3, **settings)
        nodes = [self.start_node(name, checkpoint__every_steps=37, **settings) for name in "abc"]
        nodes[0].wait_for_round(3, 1)
        late = self.start_node("late", **settings)
        wait_until(lambda: any(line["contributed"] for line in late.lines("round")), "the late node's first contribution")
        nodes[2].kill()
        again = self.start_node("c", **settings)
        wait_until(lambda: any(line["contributed"] for line in again.lines("round")[-3:]), "its return")
        late.signal(signal.SIGTERM)
        self.assertEqual(late.finish(), 0, late.tail())
        self.assert_finished(nodes[0], nodes[1], again)
        self.assert_digests_agree([*nodes, late, again], at_least=250)

    def test_nodes_rehearse_a_slow_line(self):
        self.start_coordinator(swarm__start_members=2)
        slow = {"node__rehearse__rate_mbit": 4, "node__rehearse__delay_ms": 5}
        nodes = [self.start_node("a", **slow), self.start_node("b")]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=8)
        for line in nodes[0].lines("round"):
            # Never quicker than its rate in one direction.
            self.assertGreater(line["seconds"], line["bytes_sent"] * 8 / 4e6 + 0.005)

    def test_a_capped_uplink_is_not_exceeded(self):
        self.start_coordinator(swarm__start_members=2)
        nodes = [self.start_node("a", node__uplink_mbit=0.25), self.start_node("b")]
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=8)
        rounds = nodes[0].lines("round")
        for line in rounds:
            # A chunk of each link may go before the next one waits.
            self.assertGreater(line["seconds"], (line["bytes_sent"] - 2 * CHUNK_BYTES) * 8 / 0.25e6)
        self.assertGreater(max(line["bytes_sent"] for line in rounds), 4 * CHUNK_BYTES, "else nothing was tested")

    def test_a_node_rehearses_cuts(self):
        self.start_coordinator(swarm__start_members=2, training__steps=1000000)
        nodes = [self.start_node("a", training__steps=1000000, node__rehearse__cut_seconds=5),
                 self.start_node("b", training__steps=1000000)]
        wait_until(lambda: "cut by node.rehearse" in nodes[0].tail() or nodes[0].is_over(), "a cut")
        before = max((line["round"] for line in nodes[0].lines("round")), default=0)
        nodes[0].wait_for_round(before + 2)
        for node in nodes:
            node.signal(signal.SIGTERM)
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=2)

    def test_a_lean_node_trains_with_others(self):
        self.start_coordinator(swarm__start_members=2)
        standard = self.start_node("standard")
        lean = self.start_node("lean", node__memory="lean", training__micro_batch_rows=192)
        self.assert_finished(standard, lean)
        self.assert_digests_agree([standard, lean], at_least=8)
        loss = [node.lines("summary")[-1]["validation_loss_after"] for node in (standard, lean)]
        self.assertLess(abs(loss[0] - loss[1]), 0.02, "the last step of both is a round")

    def test_a_late_node_joins_and_a_crashed_one_is_survived(self):
        self.start_coordinator(swarm__start_members=3, **LONG)
        nodes = [self.start_node(name, **LONG) for name in "abc"]
        nodes[0].wait_for_round(5)
        late = self.start_node("late", **LONG)
        wait_until(lambda: any(line["contributed"] for line in late.lines("round")), "the late node's first contribution")
        nodes[2].kill()
        self.assert_finished(nodes[0], nodes[1], late)
        self.assert_digests_agree([*nodes, late], at_least=40)
        sizes = [len(line["members"]) for line in nodes[0].lines("round")]
        self.assertIn(4, sizes)
        self.assertEqual(sizes[-1], 3)
        self.assertGreater(late.lines("inner_step")[0]["step"], 20, "the late node starts at the swarm's step")

    def test_a_node_that_was_stopped_comes_back_with_its_checkpoint(self):
        self.start_coordinator(swarm__start_members=2, **LONG)
        steady = self.start_node("steady", **LONG)
        other = self.start_node("other", **LONG)
        other.wait_for_round(4)
        other.signal(signal.SIGTERM)
        self.assertEqual(other.finish(), 0, other.tail())
        left_at = other.lines("round")[-1]["round"]
        steady.wait_for_round(left_at + 3)
        again = self.start_node("other", **LONG)
        self.assert_finished(steady, again)
        self.assertIn("going on from step", again.tail())
        self.assertRegex(again.tail(), r"\d+ samples that the checkpoint had left are left out")
        self.assert_digests_agree([steady, again], at_least=10)
        self.assertEqual(steady.lines("round")[-1]["round"], 80)
        self.assertEqual(len(steady.lines("round")[-1]["members"]), 2)

    def test_a_frozen_node_does_not_stop_the_others_and_catches_up(self):
        self.start_coordinator(swarm__start_members=3, **LONG, swarm__ready_grace_seconds=3)
        nodes = [self.start_node(name, **LONG) for name in "abc"]
        nodes[2].wait_for_round(3)
        nodes[2].signal(signal.SIGSTOP)
        frozen_at = nodes[2].lines("round")[-1]["round"]
        nodes[0].wait_for_round(frozen_at + 4)
        nodes[2].signal(signal.SIGCONT)
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=110)
        self.assertEqual({len(line["members"]) for line in nodes[0].lines("round")} & {2, 3}, {2, 3})
        self.assertEqual(nodes[2].lines("round")[-1]["digest"], nodes[0].lines("round")[-1]["digest"])

    def test_the_whole_swarm_stops_and_goes_on(self):
        self.start_coordinator(swarm__start_members=2, **LONG)
        nodes = [self.start_node(name, checkpoint__every_steps=10, **LONG) for name in "ab"]
        for node in nodes:
            node.wait_for_round(6)
        for child in self.children:
            child.process.kill()
            child.process.wait()
        reached = max(line["round"] for node in nodes for line in node.lines("round"))
        self.start_coordinator(swarm__start_members=3, **LONG)
        nodes = [self.start_node(name, checkpoint__every_steps=10, **LONG) for name in "ab"]
        fresh = self.start_node("fresh", **LONG)
        self.assert_finished(*nodes, fresh)
        first = fresh.lines("round")[0]["round"]
        self.assertGreater(first, reached - 4, "the fresh node took the others' state, not they its")
        self.assertEqual({node.lines("round")[-1]["digest"] for node in [*nodes, fresh]},
                         {fresh.lines("round")[-1]["digest"]})

    def test_the_coordinator_may_be_restarted(self):
        settings = {**LONG, "training__steps": 250, "swarm__fail_over": "false"}
        coordinator = self.start_coordinator(swarm__start_members=2, **settings)
        nodes = [self.start_node(name, **settings) for name in "ab"]
        nodes[0].wait_for_round(4)
        coordinator.process.kill()
        coordinator.process.wait()
        self.start_coordinator(listen=self.address, swarm__start_members=2, **settings)
        self.assert_finished(*nodes)
        self.assert_digests_agree(nodes, at_least=40)
        self.assertEqual(nodes[0].lines("round")[-1]["round"], 50)


if __name__ == "__main__":
    unittest.main()
