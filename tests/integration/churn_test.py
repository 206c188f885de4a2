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
from churn_verdict import Verdict
from swarm_doors import Door
from swarm_links import receive
from swarm_wire import frame

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
    def test_a_churned_run_agrees_with_the_auditor(self):
        ended = subprocess.run([*COMMAND, "--seconds", SECONDS], capture_output=True, text=True)
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

    def test_everything_dies_with_the_tool(self):
        with tempfile.TemporaryDirectory() as folder:
            command = [*COMMAND, "--seconds", "600", "--members", "3", "--directory", folder]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tool:
                children = wait_until(lambda: [pids for pids in [children_of(tool.pid)] if len(pids) >= 5], "coordinator, nodes and auditor")[0]
                tool.send_signal(signal.SIGKILL)
            wait_until(lambda: not any(map(is_there, children)), "the end of all that it started")

    def test_a_run_that_does_not_go_on_fails_and_keeps_its_logs(self):
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run([*COMMAND, "--seconds", "1", "--patience", "0", "--seed", "7"], capture_output=True, text=True,
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
            self.verdict.on_applied((1, 1), name, self.message(digest=digest))
            self.verdict.on_commit((1, 1), name, self.message(results=digest), 1.0)
        self.verdict.on_applied((2, 2), "c", self.message(digest=b"two"))  # After the coordinator died the run may lose a round.
        self.assertEqual(self.verdict.report()["unequal_digests"], 0)
        self.verdict.on_applied((1, 1), "c", self.message(digest=b"two"))
        self.verdict.on_commit((1, 1), "c", self.message(results=b"two"), 2.0)
        self.assertEqual(self.verdict.report()["unequal_digests"], 2)

    def test_no_sample_is_given_twice(self):
        for first, count in ((0, 10), (20, 10), (10, 10), (30, 0)):
            self.verdict.on_samples((1, 1), "a", self.message(first=first, count=count))
        self.assertEqual(self.verdict.report()["wrong_sums"], 0)
        for first in (29, 5, 0):
            self.verdict.on_samples((1, 1), "b", self.message(first=first, count=1))
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


class DoorTest(unittest.TestCase):
    """A program behind a door that says what it hears."""

    def check(self, body):
        async def run():
            async def repeat(reader, writer):
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    while data := await reader.read(65536):
                        writer.write(data)
                writer.close()

            server = await asyncio.start_server(repeat, "127.0.0.1", 0)
            names = []
            door = await Door(lambda: server.sockets[0].getsockname()[1], lambda _door, _pipe, _out, name, _data: names.append(name) or True,
                              lambda dialler: dialler != 13).open()
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
            next(iter(door.pipes)).order = "flip"
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
            next(iter(door.pipes)).order = "truncate"
            self.say()
            self.assertLess(len(await self.reader.read()), len(sent))

        self.check(body)

    def test_a_half_open_link_stays_and_passes_nothing(self):
        async def body(door):
            self.say()
            await receive(self.reader)
            door.half_open(True)
            self.say()
            late = asyncio.ensure_future(receive(self.reader))
            while not any(pipe.swallowed for pipe in door.pipes):
                await asyncio.sleep(0)
            self.assertFalse(late.done() or self.writer.transport.is_closing())
            door.heal()
            with self.assertRaises((OSError, EOFError)):
                await late

        self.check(body)

    def test_a_cut_door_lets_nobody_in(self):
        async def body(door):
            self.say()
            await receive(self.reader)
            door.cut(True)
            with self.assertRaises((OSError, EOFError)):
                await receive(self.reader)
            with self.assertRaises((OSError, EOFError)):
                reader, _ = await asyncio.open_connection(*self.address(door))
                await receive(reader)

        self.check(body)

    def test_who_may_not_pass_is_sent_away(self):
        async def body(_door):
            self.writer.write(frame("DataHello", 1, source=13, peer=13))
            with self.assertRaises((OSError, EOFError)):
                await receive(self.reader)

        self.check(body)


if __name__ == "__main__":
    unittest.main()
