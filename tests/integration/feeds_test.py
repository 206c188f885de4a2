"""tools/feed_tensorboard and tools/feed_wandb: what other programs get of a run's metrics."""

import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))
import feed_tensorboard  # noqa: E402

LINES = [{"event": "start", "time": "2026-01-31T12:00:00.500Z", "node": "left", "run": "r", "steps": 9},
         {"event": "inner_step", "time": "2026-01-31T12:00:01.500Z", "node": "left", "step": 1, "loss": 2.5, "lr": 0.001},
         {"event": "inner_step", "time": "2026-01-31T12:00:02.500Z", "node": "left", "step": 2, "loss": None, "lr": 0.001},
         {"event": "round", "time": "2026-01-31T12:00:03.500Z", "node": "left", "step": 2, "seconds": 4, "members": [0, 1]},
         {"event": "evaluation", "time": "2026-01-31T12:00:04.500Z", "node": "left", "step": 300, "validation_loss": 1.5}]
SCALARS = [("train/loss", 1, 2.5), ("train/lr", 1, 0.001), ("train/lr", 2, 0.001), ("round/seconds", 2, 4), ("round/members", 2, 2),
           ("validation/loss", 300, 1.5)]
FAKE_WANDB = """
import json, os, sys
told = []
class Config:
    def update(self, values, allow_val_change): told.append(["config", values["run"]])
class Run:
    config = Config()
    def define_metric(self, *a, **k): pass
    def log(self, values): told.append(values)
    def finish(self): json.dump(told, open(os.environ["TOLD"], "w"))
def init(project, name):
    told.append([project, name])
    return Run()
"""


def fields_of(data):
    """Number and value of each field of a protocol buffer, with what it takes for the wire types that occur."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        yield key >> 3, data[at:at + size]
        at += size


def records_of(data):
    while data:
        length, = struct.unpack("<Q", data[:8])
        body = data[12:12 + length]
        assert feed_tensorboard.masked(data[:8]) == data[8:12] and feed_tensorboard.masked(body) == data[12 + length:16 + length]
        yield dict(fields_of(body))
        data = data[16 + length:]


class FeedsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        text = "".join(json.dumps(line) + "\n" for line in LINES)
        (self.folder / "metrics.jsonl").write_text(text + 'torn\n[]\n{"event":"inner_step","step":9,"loss":')

    def run_tool(self, name, *arguments, **environment):
        return subprocess.run([sys.executable, str(TOOLS / name), *map(str, arguments)], capture_output=True, text=True, timeout=120,
                              env={**os.environ, **environment})

    def test_checksum(self):
        self.assertEqual(feed_tensorboard.crc32c(b"123456789"), 0xE3069283)  # RFC 3720's check value.
        self.assertEqual(feed_tensorboard.varint(300), b"\xac\x02")

    def test_tensorboard(self):
        done = self.run_tool("feed_tensorboard.py", self.folder, "--output", self.folder / "board")
        self.assertEqual(done.returncode, 0, done.stderr)
        file, = (self.folder / "board").iterdir()
        first, *events = records_of(file.read_bytes())
        self.assertEqual(first[3], b"brain.Event:2")
        found = []
        for event in events:
            for _, value in fields_of(event[5]):
                parts = dict(fields_of(value))
                found.append((parts[1].decode(), event[2], struct.unpack("<f", parts[2])[0]))
        self.assertEqual([one[:2] for one in found], [one[:2] for one in SCALARS])
        for one, wanted in zip(found, SCALARS):
            self.assertAlmostEqual(one[2], wanted[2])
        self.assertEqual(struct.unpack("<d", events[0][1])[0], 1769860801.5)
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError:
            self.skipTest("read back by this test alone: there is no tensorboard package")
        board = EventAccumulator(str(file.parent))
        board.Reload()
        self.assertEqual([(one.step, one.value) for one in board.Scalars("validation/loss")], [(300, 1.5)])
        self.assertEqual([one.step for one in board.Scalars("train/lr")], [1, 2])

    def test_wandb(self):
        (self.folder / "wandb.py").write_text(FAKE_WANDB)
        told = self.folder / "told.json"
        done = self.run_tool("feed_wandb.py", self.folder, "--project", "p", TOLD=str(told), PYTHONPATH=str(self.folder))
        self.assertEqual(done.returncode, 0, done.stderr)
        first, config, *logged = json.loads(told.read_text())
        self.assertEqual((first, config), (["p", "left"], ["config", "r"]))
        self.assertEqual([(name, line["step"], value) for line in logged for name, value in line.items() if name != "step"], SCALARS)

    def test_what_is_not_there(self):
        for tool, *more in (("feed_tensorboard.py", "--output", self.folder / "board"), ("feed_wandb.py",)):
            done = self.run_tool(tool, self.folder / "none", *more)
            self.assertEqual(done.returncode, 2)
            self.assertIn("no metrics.jsonl", done.stderr)
        self.assertFalse((self.folder / "board").exists())


if __name__ == "__main__":
    unittest.main()
