"""The auditor (tools/swarm_auditor.py): what honest nodes do is bit by bit what docs/formats says, and each lie is found."""

import asyncio
import copy
import json
import pathlib
import socket
import struct
import sys
import unittest

from cluster import DEADLINE_SECONDS, TINY, ClusterTest, wait_until

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import swarm_auditor
import swarm_wire
from swarm_codecs import decode, encode
from swarm_evidence import RESULT_HEADER, Audit, Counted
from swarm_peer import FakePeer, overhear_hello
from swarm_links import receive
from swarm_round import State
from swarm_search import Search
from swarm_wire import HEADER, PROTOCOL, Message, frame

SETTINGS = {"swarm__security": "none", "training__steps": 1_000_000, "training__batch_rows": 16, "training__micro_batch_rows": 16,
            "swarm__start_members": 3, "swarm__heartbeat_seconds": 0.5}


def follow(address, is_enough):
    """Audits until `is_enough` of the auditor and what it said; returns the auditor, that, and all that was audited."""
    said, audits = [], []

    class Recorded(Audit):
        def __init__(self, rules, evidence, state, counted):
            super().__init__(rules, evidence, state, counted)
            audits.append(self)

    async def run():
        auditor = swarm_auditor.Auditor(address, TINY["name"], "auditor", lambda **values: said.append(values))
        life = asyncio.ensure_future(auditor.live())
        deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
        while not is_enough(said) and asyncio.get_running_loop().time() < deadline and not life.done():
            await asyncio.sleep(0.05)  # Polling what was said; the condition decides.
        life.cancel()
        await asyncio.wait([life])
        return auditor

    original, swarm_auditor.Audit = swarm_auditor.Audit, Recorded
    try:
        return asyncio.run(run()), said, audits
    finally:
        swarm_auditor.Audit = original


def events(said, event):
    return [line for line in said if line["event"] == event]


class SwarmAuditorTest(ClusterTest):
    def start_run(self, **settings):
        settings = {**SETTINGS, **settings}
        self.start_coordinator(**settings)
        return [self.start_node(name, **settings) for name in "abc"]

    def assert_honest(self, rounds, **settings):
        nodes = self.start_run(**settings)
        _, said, audits = follow(self.address, lambda said: len(events(said, "audited")) >= rounds)
        audited = events(said, "audited")
        self.assertGreaterEqual(len(audited), rounds, said)
        self.assertEqual(events(said, "finding"), [])
        self.assertEqual(sum(line["unchecked"] for line in audited), 0)
        digests = {}
        for node in nodes:
            digests.update(node.digests())
        compared = [line for line in audited if (line["fragment"], line["round"]) in digests]
        self.assertGreaterEqual(len(compared), rounds - 2)
        for line in compared:
            self.assertEqual(line["digest"], digests[line["fragment"], line["round"]], line)
        return audits

    def test_honest_nodes_do_what_the_documents_say(self):
        audits = self.assert_honest(6, outer__overlap_steps=1, outer__overlap_steps_max=2)
        for lie in (self.a_wrong_sum, self.a_wrong_weight, self.a_wrong_digest, self.a_part_left_out, self.a_damaged_result,
                    self.work_that_was_counted_before, self.a_part_of_somebody_else):
            with self.subTest(lie.__name__):
                true = audits[-1]
                evidence, counted = copy.deepcopy(true.evidence), Counted()
                state = State(true.state.version, true.state.parameters, true.state.momentum)
                kinds = lie(true.rules, evidence, counted)
                self.assertEqual({finding.kind for finding in Audit(true.rules, evidence, state, counted).findings}, kinds)

    def test_other_codecs_and_fragments(self):
        self.assert_honest(6, outer__codec="lut2", outer__result_codec="int4", outer__fragments=3)

    def assert_trees(self, plan):
        audits = self.assert_honest(4, swarm__plan=plan, outer__result_codec="int4")
        self.assertTrue(any(len(set(tree.parents)) > 1 for tree in audits[-1].evidence.trees))

    def test_subtotals_on_a_ring(self):
        self.assert_trees("ring")

    def test_subtotals_of_regions(self):
        self.assert_trees("two-level")

    def test_a_state_that_is_not_the_majoritys_is_found(self):
        self.start_run()
        auditor, _, _ = follow(self.address, lambda said: events(said, "audited"))
        version = auditor.states[0].version
        self.assertIsNone(auditor.judge_own(0, {"version": version, "digest": bytes([1] * 32)}, auditor.terms[0]))
        self.assertEqual(auditor.totals["findings"], 1)

    def test_a_round_that_was_committed_without_it_is_judged_by_what_others_keep(self):
        self.start_run()
        auditor, said, audits = follow(self.address, lambda said: len(events(said, "audited")) >= 2)
        true = audits[-1]
        step = max(auditor.step, 1)

        async def keep(_donors, _kind, chunk, **_name):
            return step.to_bytes(8, "little") + b"\0" + true.evidence.encoded_results()[chunk]

        auditor.from_any, auditor.counted = keep, Counted()
        for is_true in (True, False):
            evidence = copy.deepcopy(true.evidence)
            if not is_true:
                self.a_wrong_sum(true.rules, evidence, auditor.counted)
            auditor.undecided[0] = (evidence, True)
            state = asyncio.run(auditor.replay(0, true.state, []))
            self.assertEqual(state.version, true.evidence.round)
            self.assertEqual([finding["kind"] for finding in events(said, "finding")], [] if is_true else ["wrong_digest"])

    def test_it_follows_whoever_coordinates(self):
        nodes = self.start_run(swarm__fail_over="true", swarm__start_members=4)  # All of them, so that nobody coordinates who has not met the others.
        coordinator, killed_after = self.children[0], []

        def is_enough(said):
            audited = events(said, "audited")
            if len(audited) >= 2 and not killed_after:
                coordinator.process.kill()
                killed_after.append(len(audited))
            return killed_after and len(audited) >= killed_after[0] + 4

        auditor, said, _ = follow(self.address, is_enough)
        audited = events(said, "audited")
        self.assertGreaterEqual(len(audited), killed_after[0] + 4, (said, nodes[0].tail()))
        self.assertEqual(events(said, "finding"), [])
        log = json.loads((nodes[0].directory / "swarm.json").read_text())
        self.assertIn(auditor.coordinator, [int(one["node_key"], 16) for one in log["members"]])

    def test_a_lying_owner_is_found_and_named(self):
        nodes = self.start_run(swarm__start_members=3, swarm__stall_seconds=30)
        overheard = overhear_hello(lambda address: self.start_node("overheard", **{**SETTINGS, "swarm__coordinator": address}).process)
        fake = FakePeer("liar", self.address, overheard, scale=1.0)
        self.addCleanup(fake.close)
        wait_until(lambda: fake.peer is not None, "a number for the liar")
        _, said, audits = follow(self.address, lambda said: events(said, "finding"))
        findings = events(said, "finding")
        self.assertTrue(findings, nodes[0].tail() + self.coordinator_log())
        for finding in findings:
            self.assertEqual(finding["kind"], "wrong_sum")
            self.assertIn(f"which peer {fake.peer} summed: ", finding["text"])
        # Its parts are far too long, and what honest owners made of that is what the rule says. (From its first round it withdraws.)
        def has_its_parts(evidence):
            return any(evidence.contributors[index]["peer"] == fake.peer for _, index in evidence.contributions)
        outliers = [audit for audit in audits if has_its_parts(audit.evidence)]
        self.assertTrue(outliers and all(audit.unchecked == 0 for audit in outliers))

    # -- Lies: each changes what was seen, and says what must be found.

    @staticmethod
    def a_wrong_sum(rules, evidence, counted):
        """Every number of a chunk a little larger."""
        count = rules.chunks(0)[1][1]
        values = decode(rules.result_codec, evidence.encoded_results()[1], count)
        for index, value in enumerate(values):
            values[index] = value * 1.0001
        evidence.results[1] = evidence.results[1][:RESULT_HEADER.size] + encode(rules.result_codec, values)
        evidence.digest = evidence.results_digest()
        return {"wrong_sum"}

    @staticmethod
    def a_wrong_weight(rules, evidence, counted):
        kind, inside, judged_out, weight = RESULT_HEADER.unpack_from(evidence.results[0])
        evidence.results[0] = RESULT_HEADER.pack(kind, inside, judged_out, weight + 1) + evidence.results[0][RESULT_HEADER.size:]
        evidence.digest = evidence.results_digest()
        return {"wrong_weight"}

    @staticmethod
    def a_wrong_digest(rules, evidence, counted):
        evidence.digest = bytes(31) + b"x"
        return {"wrong_digest"}

    @staticmethod
    def a_part_left_out(rules, evidence, counted):
        """The header says that somebody is not in it who is."""
        kind, inside, judged_out, weight = RESULT_HEADER.unpack_from(evidence.results[2])
        last = inside.bit_length() - 1
        header = RESULT_HEADER.pack(kind, inside & ~(1 << last), judged_out, weight - evidence.contributors[last]["weight_tokens"])
        evidence.results[2] = header + evidence.results[2][RESULT_HEADER.size:]
        evidence.digest = evidence.results_digest()
        return {"wrong_sum"}

    @staticmethod
    def a_damaged_result(rules, evidence, counted):
        evidence.results[0] = evidence.results[0][:RESULT_HEADER.size] + struct.pack("<f", -1.0) + evidence.results[0][RESULT_HEADER.size + 4:]
        evidence.digest = evidence.results_digest()
        return {"damaged"}

    @staticmethod
    def work_that_was_counted_before(rules, evidence, counted):
        counted.add(evidence.contributors[0]["node_key"], 0, 1, evidence.contributions[1, 0], evidence.round - 1)
        return {"counted_twice"}

    @staticmethod
    def a_part_of_somebody_else(rules, evidence, counted):
        evidence.contributions[0, 1] = evidence.contributions[0, 0]
        return {"wrong_sum"}


class SearchTest(unittest.TestCase):
    """Places that answer Hello with frames, one after another, and then wait or close."""

    @staticmethod
    def welcome(term):
        return frame("Welcome", 1, term=term, peer=0, heartbeat_interval_ms=1, dead_after_ms=1, coordinator=9)

    @staticmethod
    def redirect(address):
        return frame("Redirect", 1, coordinator=address, node_key=0)

    def find(self, make_answers, newest=5, places=lambda addresses: []):
        """What a search that begins at the first place finds, and how often it greeted each. `make_answers(addresses)`: by place its answers,
        one per Hello (the last again and again), or None: it closes the link."""
        async def run():
            greeted, servers, answers, writers = [0, 0, 0], [], [], []

            async def serve(index, reader, writer):
                writers.append(writer)
                await receive(reader)
                greeted[index] += 1
                frames = answers[index][min(greeted[index], len(answers[index])) - 1]
                for data in frames or []:
                    writer.write(data)
                if frames is None:
                    writer.close()

            for index in range(3):
                servers.append(await asyncio.start_server(lambda reader, writer, index=index: serve(index, reader, writer), "127.0.0.1", 0))
            addresses = [server.sockets[0].getsockname() for server in servers]
            answers += make_answers(addresses)
            search = Search(addresses[0], lambda is_home: frame("Leave", 1, reason=str(is_home)), lambda message: message.term >= newest)
            search.places = places(addresses)
            found = await asyncio.wait_for(search.find(), DEADLINE_SECONDS)
            where = addresses.index(found.writer.get_extra_info("peername"))
            for one in [found.writer, *writers, *servers]:
                one.close()
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
            return found.message, greeted, where

        return asyncio.run(run())

    def test_it_goes_where_it_is_sent(self):
        message, greeted, where = self.find(lambda addresses: [[[self.redirect(addresses[1])]], [[self.redirect(addresses[2])]], [[self.welcome(5)]]])
        self.assertEqual((message.name, greeted, where), ("Welcome", [1, 1, 1], 2))

    def test_it_waits_where_somebody_stands_by_and_looks_elsewhere_meanwhile(self):
        stand_by = frame("StandBy", 1, coordinator=9)
        _, greeted, where = self.find(lambda _: [[[stand_by, stand_by]], [[self.welcome(6)]], [[]]], places=lambda addresses: addresses[1:2])
        self.assertEqual((greeted, where), ([1, 1, 0], 1))
        _, _, where = self.find(lambda _: [[[stand_by, self.welcome(6)]], [[stand_by]], [[]]], places=lambda addresses: addresses[1:2])
        self.assertEqual(where, 0)

    def test_it_never_goes_back_to_an_older_coordinator_and_dials_again(self):
        message, greeted, _ = self.find(lambda _: [[[self.welcome(4)], None, [self.welcome(5)]], [[]], [[]]])
        self.assertEqual((message.term, greeted[0]), (5, 3))

    def test_a_reject_is_an_answer(self):
        rejected = frame("Reject", 1, reason="no", restart_makes_sense=0, shared_config="")
        self.assertEqual(self.find(lambda _: [[[rejected]], [[]], [[]]])[0].reason, "no")


class FakePeerTest(unittest.TestCase):
    def test_it_goes_where_the_run_goes_on(self):
        hello = {"protocol": PROTOCOL, "node_key": 1, "node_name": "real", "config": bytes(32), "listen": ("", 0), "step": 0, "samples": 0,
                 "states": [], "last_term": 0, "last_epoch": 0, "last_member_count": 0, "last_electorates": [], "remembers": 0,
                 "coordinator": 0, "is_home": 0, "was_reachable": 1, "held": []}
        overheard = Message(*split(frame("Hello", 1, **hello)))
        with socket.create_server(("127.0.0.1", 0)) as home, socket.create_server(("127.0.0.1", 0)) as elsewhere:
            fake = FakePeer("fake", "127.0.0.1:%d" % home.getsockname()[1], overheard)
            for place, answer in ((home, SearchTest.redirect(elsewhere.getsockname())), (elsewhere, SearchTest.welcome(1))):
                place.settimeout(DEADLINE_SECONDS)
                link, _ = place.accept()
                self.addCleanup(link.close)
                self.assertEqual(swarm_wire.receive(link).node_name, "fake")
                link.sendall(answer)
            wait_until(lambda: fake.peer == 0, "its number")
            fake.close()


def split(data):
    return data[:HEADER.size], data[HEADER.size:]


if __name__ == "__main__":
    unittest.main()
