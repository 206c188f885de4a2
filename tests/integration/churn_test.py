"""tools/churn: a run to which everything happens agrees with the auditor; and what judges it finds what is wrong."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import types
import unittest

from cluster import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from churn_logs import CoordinatorLog, RoundLines
from churn_member import Suspect
from churn_memory import Memory
from churn_verdict import Verdict
from churn_watch import Watch
from swarm_doors import Door, Line, Pipe, message_of
from swarm_links import receive
from swarm_wire import PROTOCOL, frame

SECONDS = os.environ.get("ATOLL_CHURN_SECONDS", "60")
# Twice the usual patience: the machine may be busy with other tests.
COMMAND = [sys.executable, ROOT / "tools/churn.py", "--atoll", os.environ["ATOLL"], "--scale", "2", "--json"]


def children_of(pid):
    found = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It ended meanwhile.
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def is_there(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class ChurnTest(unittest.TestCase):
    def churn(self, *arguments):
        ended = subprocess.run([*COMMAND, "--seconds", SECONDS, *arguments], capture_output=True, text=True)
        self.assertTrue(ended.stdout, ended.stderr)
        report = json.loads(ended.stdout)
        self.assertEqual(report["problems"], [], ended.stderr + ended.stdout)
        self.assertEqual(ended.returncode, 0)
        for key in ("wrong_sums", "unequal_digests", "innocent_excluded"):
            self.assertEqual(report[key], 0)
        for key in ("rounds", "audited_rounds", "audited_chunks"):
            self.assertGreater(report[key], 0, report)
        self.assertEqual(sum(report["faults_by_kind"].values()), report["faults"])
        self.assertGreater(len(report["faults_by_kind"]), 4, report)
        return report

    def test_a_churned_run_agrees_with_the_auditor(self):
        report = self.churn("--fail-over")
        self.assertTrue(report["fail_over"])

    def test_so_does_one_with_one_coordinator(self):
        report = self.churn("--no-fail-over")
        self.assertEqual((report["fail_over"], report["lost_rounds"]), (False, 0))

    def test_everything_dies_with_the_tool(self):
        with tempfile.TemporaryDirectory() as folder:
            command = [*COMMAND, "--seconds", "600", "--members", "3", "--no-fail-over", "--directory", folder]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tool:
                children = wait_until(lambda: [pids for pids in [children_of(tool.pid)] if len(pids) >= 5], "coordinator, nodes and auditor")[0]
                tool.send_signal(signal.SIGKILL)
            wait_until(lambda: not any(map(is_there, children)), "the end of all that it started")

    def test_a_run_that_does_not_go_on_fails_and_keeps_its_logs(self):
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run([*COMMAND, "--seconds", "1", "--patience", "0", "--seed", "7", "--no-fail-over"], capture_output=True, text=True,
                                   env={**os.environ, "TMPDIR": folder})
            report = json.loads(ended.stdout)
            self.assertEqual((ended.returncode, report["seed"]), (1, 7), ended.stderr)
            self.assertIn("no round for", report["problems"][0])
            self.assertTrue((pathlib.Path(report["directory"]) / "coordinator.txt").exists())

    def test_bad_arguments_are_refused(self):
        refused = subprocess.run([*COMMAND, "--seconds", "1", "--members", "64"], capture_output=True, text=True)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("--members", refused.stderr)


class VerdictTest(unittest.TestCase):
    def setUp(self):
        self.verdict = Verdict([re.compile(r"(?P<name>\S+): the coordinator gives it up")], 0.0)

    @staticmethod
    def message(**values):
        return types.SimpleNamespace(**{"fragment": 0, "round": 7, **values})

    def test_states_and_results_of_a_round_are_equal(self):
        for name, digest in (("a", b"one"), ("b", b"one")):
            self.verdict.on_applied((1, 1), name, self.message(digest=digest), 1.0)
            self.verdict.on_commit((1, 1), name, self.message(results=digest), 1.0)
        self.verdict.on_applied((2, 2), "c", self.message(digest=b"two"), 1.5)  # After the coordinator died the run may lose a round.
        self.assertEqual(self.verdict.report()["unequal_digests"], 0)
        self.verdict.on_applied((1, 1), "c", self.message(digest=b"two"), 2.0)
        self.verdict.on_commit((1, 1), "c", self.message(results=b"two"), 2.0)
        self.assertEqual(self.verdict.report()["unequal_digests"], 2)

    def test_no_sample_is_given_twice(self):
        for first, count in ((0, 10), (20, 10), (10, 10), (30, 0)):
            self.verdict.on_samples((1, 1), "a", self.message(first=first, count=count), 1.0)
        self.assertEqual(self.verdict.report()["wrong_sums"], 0)
        for first in (29, 5, 0):
            self.verdict.on_samples((1, 1), "b", self.message(first=first, count=1), 2.0)
        self.assertEqual(self.verdict.report()["wrong_sums"], 3)
        self.verdict.on_samples((2, 2), "a", self.message(first=0, count=10), 9.0)  # Without fail-over the run may go back.
        self.assertEqual(self.verdict.report()["wrong_sums"], 3)

    def test_findings_of_the_auditor_count(self):
        for kind in ("wrong_sum", "wrong_weight", "counted_twice", "damaged", "wrong_digest"):
            self.verdict.on_auditor(json.dumps({"event": "finding", "kind": kind, "text": "x"}))
        self.assertEqual((self.verdict.report()["wrong_sums"], self.verdict.report()["unequal_digests"]), (4, 1))

    def test_only_the_innocent_count_as_excluded(self):
        for name in ("guilty", "innocent"):
            self.verdict.on_log(f"[coordinator] {name}: the coordinator gives it up: silent", lambda name: name == "innocent")
        self.assertEqual(self.verdict.report()["innocent_excluded"], 1)

    def test_pauses_are_between_rounds(self):
        for number, at in ((1, 1.0), (2, 5.0), (2, 9.0), (3, 9.5)):
            self.verdict.on_commit((1, 1), "a", self.message(round=number, results=bytes([number])), at)
        self.assertEqual((self.verdict.report()["rounds"], self.verdict.report()["longest_round_seconds"]), (3, 4.5))

    def test_a_take_over_lasts_from_the_first_death_to_the_next_commit(self):
        self.verdict.on_coordinator_died(10.0)
        self.verdict.on_coordinator_died(11.0)
        for name, number, at in (("a", 1, 13.0), ("b", 1, 14.0)):
            self.verdict.on_commit((2, 2), name, self.message(round=number, results=b"x"), at)
        self.verdict.on_coordinator_died(20.0)
        report = self.verdict.report(21.0)
        self.assertEqual((report["longest_takeover_seconds"], report["takeovers"]["count"], report["takeovers"]["p50"]), (3.0, 1, 3.0))
        self.assertEqual(self.verdict.report(40.0)["longest_takeover_seconds"], 20.0)


class FailOverVerdictTest(unittest.TestCase):
    """Rounds of a run that fails over are those of all terms."""

    message = staticmethod(VerdictTest.message)

    def setUp(self):
        self.memory = Memory(margin_seconds=1.0)
        self.verdict = Verdict([], 0.0, self.memory)
        for key, name in enumerate("abcd"):
            self.memory.on_hello(types.SimpleNamespace(node_key=key), name)
        self.tell(epoch=1, voters=[0, 1, 2, 3], now=0.0)

    def tell(self, epoch, voters, now):
        electorate = {"voters": [{"node_key": key} for key in voters], "tie_breaker": 0}
        self.memory.on_membership(types.SimpleNamespace(term=1, epoch=epoch, electorates=[electorate]), now)

    def commit(self, term, name, results, now, number=7):
        self.verdict.on_commit((term, term), name, self.message(round=number, results=results), now)

    def counts(self):
        report = self.verdict.report()
        return report["unequal_digests"], report["lost_rounds"]

    def test_two_terms_commit_the_same(self):
        self.commit(1, "a", b"one", 5.0)
        self.commit(2, "b", b"one", 6.0)
        self.assertEqual((*self.counts(), self.verdict.rounds), (0, 0, 1))
        self.memory.on_death("a", 7.0)
        self.commit(2, "c", b"two", 8.0)
        self.assertEqual(self.counts(), (2, 0))  # Also by one that had committed something else in the same term.

    def test_one_dead_voter_of_four_loses_nothing(self):
        self.commit(1, "a", b"one", 5.0)
        self.commit(1, "b", b"one", 5.0)
        self.memory.on_death("a", 6.0)
        self.commit(2, "c", b"two", 8.0)
        self.assertEqual(self.counts(), (1, 0))

    def test_with_half_of_the_voters_a_round_may_be_lost(self):
        self.commit(1, "a", b"one", 5.0)
        self.commit(1, "b", b"one", 5.0)
        self.commit(1, "b", b"last", 5.5, number=8)
        self.memory.on_death("a", 4.5)  # It had said Done.
        self.memory.on_death("b", 6.0)
        self.commit(2, "c", b"two", 8.0)
        self.assertEqual((*self.counts(), self.verdict.newest_round()), (0, 1, 7))
        self.commit(1, "d", b"one", 8.5)  # It hears of it late.
        self.assertEqual((*self.counts(), self.verdict.rounds), (0, 1, 3))

    def test_those_who_died_before_it_have_not_lost_it(self):
        for name in "ab":
            self.memory.on_death(name, 3.0)
        self.tell(epoch=2, voters=[0, 1, 2, 3], now=3.5)
        self.commit(1, "c", b"one", 5.0)
        self.commit(1, "d", b"one", 5.0)
        self.commit(2, "c", b"two", 8.0)
        self.assertEqual(self.counts(), (1, 0))

    def test_the_last_list_counts(self):
        self.tell(epoch=2, voters=[0, 1], now=4.0)
        self.commit(1, "a", b"one", 6.0)
        self.commit(1, "b", b"one", 6.0)
        self.memory.on_death("a", 7.0)
        self.commit(2, "c", b"two", 8.0)
        self.assertEqual(self.counts(), (0, 1))

    def test_what_one_member_had_is_lost_with_two(self):
        self.tell(epoch=2, voters=[0, 1, 2, 3, 4, 5], now=4.0)
        self.commit(1, "a", b"one", 6.0)
        for name in "ab":
            self.memory.on_death(name, 7.0)
        self.commit(2, "c", b"two", 8.0)
        self.assertEqual(self.counts(), (0, 1))

    def samples(self, term, first, now):
        self.verdict.on_samples((term, term), "a", self.message(first=first, count=10), now)

    def test_the_next_term_goes_on_with_the_samples(self):
        for first, at in ((0, 1.0), (10, 2.0), (20, 4.5)):
            self.samples(1, first, at)
        self.samples(2, 20, 5.0)  # Of the last ones nobody else may have heard.
        self.assertEqual(self.verdict.report()["wrong_sums"], 0)
        self.samples(3, 0, 8.0)
        self.samples(3, 10, 8.0)
        self.assertEqual((self.verdict.report()["wrong_sums"], self.counts()), (1, (0, 0)))
        for name in "ab":
            self.memory.on_death(name, 12.0)
        self.samples(4, 0, 13.0)
        self.assertEqual((self.verdict.report()["wrong_sums"], self.counts()), (1, (0, 1)))

    def test_what_a_node_writes_down_is_what_others_have(self):
        self.verdict.on_applied((1, 1), "a", self.message(digest=bytes(32)), 1.0)
        self.verdict.on_round_line("b", {"fragment": 0, "round": 7, "digest": "00" * 32}, 2.0)
        self.assertEqual((self.counts(), self.verdict.applied["b"]), ((0, 0), 7))
        self.verdict.on_round_line("c", {"fragment": 0, "round": 7, "digest": "01" * 32}, 2.0)
        self.assertEqual(self.counts(), (1, 0))


class LogTest(unittest.TestCase):
    def test_only_lines_of_who_coordinates_count(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "output.txt")
            log = CoordinatorLog(path)
            path.write_text("x: found another\nthe run starts with 2 members\na: left\nthis is not the run's coordinator any more: x\nb: left\n")
            self.assertEqual(len(log.lines()), 3)
            with open(path, "a") as file:
                file.write("the run starts with 2 members\n")
            self.assertEqual(len(log.restarted()), 1)
            with open(path, "a") as file:
                file.write("c: left\n")
            self.assertEqual(log.lines(), [])

    def test_rounds_are_read_once_and_anew_with_another_disk(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "metrics.jsonl")
            rounds = RoundLines(path)
            path.write_text('{"event":"round","round":1}\n{"event":"inner_step","round":2}\n{"event":"round","ro{"event":"round"}\n{"event":')
            self.assertEqual([line["round"] for line in rounds.new()], [1])
            self.assertEqual(rounds.new(), [])
            rounds.disk_is_lost()
            path.write_text('{"event":"round","round":1}\n')
            self.assertEqual(len(rounds.new()), 1)


class WatchTest(unittest.TestCase):
    """Doors of two members and of the configured address, and what is said in a pipe."""

    def setUp(self):
        self.verdict = Verdict([], 0.0, Memory(1.0))
        self.home, self.members = Suspect("coordinator"), [Suspect("a"), Suspect("b")]
        for port, member in enumerate(self.members, 1):
            member.data = types.SimpleNamespace(address=f"127.0.0.1:{port}")
        self.watch = Watch(self.home, self.members, self.verdict, lambda: 1.0, lambda _text: None)

    def pipe(self, owner, first, lines=(), **values):
        pipe = Pipe(types.SimpleNamespace(owner=owner), 1, None, None)
        pipe.join(lines)
        pipe.is_identified = True
        data = frame(first, 1, **values)
        pipe.join(self.watch.identify(pipe, data))
        self.watch.watch(pipe, False, first, data)
        return pipe

    def hello(self, owner, name, key, lines=()):
        return self.pipe(owner, "Hello", lines, protocol=PROTOCOL, node_key=key, node_name=name, config=bytes(32), listen=("", 0), step=0,
                         samples=0, states=[], last_term=0, last_epoch=0, last_member_count=0, last_electorates=[], remembers=0, coordinator=0,
                         is_home=0, was_reachable=1, held=[])

    def say(self, pipe, name, **values):
        return self.watch.watch(pipe, True, name, frame(name, 1, **values))

    def membership(self):
        seats = [{"peer": number, "node_key": number, "data": ("127.0.0.1", number), "is_reachable": 1} for number in (1, 2)]
        return {"members": seats, "electorates": [{"voters": [{"node_key": 1}, {"node_key": 2}], "tie_breaker": 0}]}

    def test_a_pipe_is_of_who_said_hello_in_it(self):
        pipe = self.hello(self.members[0], "b", 2)
        self.assertEqual((pipe.name, pipe.lines), ("b", [self.members[1].outward]))
        at_home = self.hello(self.home, "b", 2, [self.members[1].outward])
        self.assertEqual(at_home.lines, [self.members[1].outward])
        self.assertEqual(self.hello(self.members[0], "auditor", 3).lines, [])

    def test_numbers_come_from_welcome_and_from_the_list_of_members(self):
        pipe = self.hello(self.members[0], "b", 2)
        self.say(pipe, "Welcome", term=5, peer=7, heartbeat_interval_ms=1, dead_after_ms=1, coordinator=9)
        self.assertEqual(self.pipe(self.members[0], "DataHello", source=7, peer=7).name, "b")
        self.say(pipe, "Membership", term=5, epoch=1, **self.membership())
        names = [self.pipe(self.members[1], "DataHello", source=number, peer=number).name for number in (1, 2, 7)]
        self.assertEqual(names, ["a", "b", ""])

    def test_who_has_members_in_the_newest_term_coordinates(self):
        at_home, elsewhere = self.hello(self.home, "b", 2), self.hello(self.members[0], "b", 2)
        self.say(at_home, "Commit", term=5, round=1, results=bytes(32), step=1)
        self.assertIs(self.watch.coordinating, self.home)
        self.say(elsewhere, "Welcome", term=6, peer=7, heartbeat_interval_ms=1, dead_after_ms=1, coordinator=9)
        self.assertIs(self.watch.coordinating, self.home)
        self.say(elsewhere, "Commit", term=5, round=1, results=bytes(32), step=1)  # One that the last coordinator had not told all.
        self.assertIs(self.watch.coordinating, self.members[0])
        self.say(at_home, "Commit", term=5, round=2, results=bytes(32), step=1)
        self.assertIs(self.watch.coordinating, self.members[0])
        self.assertEqual((self.verdict.rounds, self.verdict.report()["unequal_digests"]), (2, 0))

    def test_who_has_died_coordinates_no_more(self):
        pipe, other = self.hello(self.members[0], "b", 2), self.hello(self.members[1], "a", 1)
        self.say(pipe, "Commit", term=5, round=1, results=bytes(32), step=1)
        self.assertFalse(self.watch.on_death(self.members[1]))
        self.assertTrue(self.watch.on_death(self.members[0]))
        self.say(pipe, "Commit", term=5, round=2, results=bytes(32), step=1)  # It had said so before.
        self.assertTrue(self.watch.is_vacant)
        self.assertFalse(self.watch.on_death(self.members[0]))
        self.say(other, "Start", term=6, step=1, samples_void_below=0)
        self.assertEqual((self.watch.is_vacant, self.watch.coordinating), (False, self.members[1]))

    def test_things_happen_at_a_frame_of_either_end(self):
        pipe, fired = self.hello(self.members[0], "b", 2), []
        for member in (*self.members, None):
            self.watch.at_frame(types.SimpleNamespace(call_later=lambda *_: None), "Abort", 2, member is None,
                                lambda: fired.append(self.watch.fired), member)
        self.assertTrue(self.say(pipe, "Abort"))
        self.assertFalse(self.say(pipe, "Abort"))
        self.assertEqual((fired, self.watch.triggers), ([pipe] * 3, []))


class DoorTest(unittest.TestCase):
    """A program behind a door that says what it hears."""

    def check(self, body):
        self.dialler = Line()

        async def run():
            async def repeat(reader, writer):
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    while data := await reader.read(65536):
                        writer.write(data)
                writer.close()

            server = await asyncio.start_server(repeat, "127.0.0.1", 0)
            names = []
            door = await Door(lambda: server.sockets[0].getsockname()[1], lambda _pipe, _out, name, _data: names.append(name) or True,
                              lambda _pipe, data: [self.dialler] if message_of(data).name == "DataHello" else []).open()
            self.reader, self.writer = await asyncio.open_connection(*self.address(door))
            await body(door)
            door.close()
            self.writer.close()
            server.close()
            return names

        return asyncio.run(run())

    @staticmethod
    def address(door):
        host, port = door.address.split(":")
        return host, int(port)

    def say(self, count=1):
        self.writer.write(frame("NeedSamples", 1, count=count))

    def test_frames_pass_and_are_seen(self):
        async def body(_door):
            self.say(5)
            self.assertEqual((await receive(self.reader)).count, 5)

        self.assertEqual(self.check(body), ["NeedSamples"] * 2)

    def test_a_flipped_bit_is_noticed(self):
        async def body(door):
            self.say()
            sent = (await receive(self.reader)).raw
            next(iter(door.line.pipes)).order = "flip"
            self.say()
            data = await self.reader.readexactly(len(sent))
            self.assertEqual(sum((a ^ b).bit_count() for a, b in zip(data, sent)), 1)
            reader = asyncio.StreamReader()
            reader.feed_data(data)
            reader.feed_eof()
            with self.assertRaises(ValueError):
                await receive(reader)

        self.check(body)

    def test_a_truncated_frame_ends_the_link(self):
        async def body(door):
            self.say()
            sent = (await receive(self.reader)).raw
            next(iter(door.line.pipes)).order = "truncate"
            self.say()
            self.assertLess(len(await self.reader.read()), len(sent))

        self.check(body)

    def test_a_half_open_link_stays_and_passes_nothing(self):
        async def body(door):
            self.say()
            await receive(self.reader)
            door.line.half_open(True)
            self.say()
            late = asyncio.ensure_future(receive(self.reader))
            while not any(pipe.swallowed for pipe in door.line.pipes):
                await asyncio.sleep(0)
            self.assertFalse(late.done() or self.writer.transport.is_closing())
            door.line.heal()
            with self.assertRaises((OSError, EOFError)):
                await late

        self.check(body)

    def test_a_cut_door_lets_nobody_in(self):
        async def body(door):
            self.say()
            await receive(self.reader)
            door.line.cut(True)
            with self.assertRaises((OSError, EOFError)):
                await receive(self.reader)
            with self.assertRaises((OSError, EOFError)):
                reader, _ = await asyncio.open_connection(*self.address(door))
                await receive(reader)

        self.check(body)

    def test_who_is_cut_off_may_not_dial(self):
        async def body(_door):
            self.dialler.cut(True)
            self.writer.write(frame("DataHello", 1, source=13, peer=13))
            with self.assertRaises((OSError, EOFError)):
                await receive(self.reader)

        self.check(body)

    def test_what_happens_to_who_dials_happens_to_his_pipes(self):
        async def body(door):
            self.writer.write(frame("DataHello", 1, source=13, peer=13))
            await receive(self.reader)
            self.assertEqual(self.dialler.pipes, door.line.pipes)
            self.dialler.half_open(True)
            self.say()
            while not any(pipe.swallowed for pipe in door.line.pipes):
                await asyncio.sleep(0)
            self.dialler.heal()
            with self.assertRaises((OSError, EOFError)):
                await receive(self.reader)
            self.assertEqual(door.line.pipes, set())

        self.check(body)


if __name__ == "__main__":
    unittest.main()
