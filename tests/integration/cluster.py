"""Real processes for the integration tests: a corpus, a config, a coordinator and nodes in a temporary folder.

Nothing here waits for a fixed time: it waits for a line in metrics.jsonl or for a process, with a generous deadline that only a
defect can reach. Ports are picked by the system. The path of the atoll executable comes from the environment (ATOLL).
"""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

ATOLL = os.environ["ATOLL"]
# Every process finds the secret of its run here, unless a test says otherwise.
os.environ["ATOLL_RUN_SECRET"] = "5" * 64
DEADLINE_SECONDS = float(os.environ.get("ATOLL_TEST_DEADLINE", 240))

# Small enough that a step takes some ten milliseconds, and large enough that a round is not over before a joiner has its state.
TINY = {
    "name": "tiny",
    "model": {"vocabulary": 272, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_size": 8, "feed_forward": 64,
              "sequence_length": 32},
    "data": {"sources": [], "validation_fraction": 0.05},
    "training": {"steps": 40, "batch_rows": 192, "micro_batch_rows": 64},
    "optimizer": {"learning_rate": 3e-3, "schedule": {"kind": "constant", "warmup_steps": 5}},
    "outer": {"inner_steps": 5},
    "swarm": {"start_members": 1, "members_min": 1, "ready_grace_seconds": 20, "heartbeat_seconds": 0.2, "dead_seconds": 4,
              "stall_seconds": 4, "coordinator_patience_seconds": 20},
    "evaluation": {"rows": 8},
    "node": {"threads": 1, "listen": "127.0.0.1:0", "device": "cpu"},
}


def wait_until(condition, what):
    """The first true value of `condition`; fails after the deadline. `what` is a text, or a function that makes it then."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)  # Polling a file; the condition decides, not the time.
    raise AssertionError(f"waited {DEADLINE_SECONDS:.0f} s in vain for: {what() if callable(what) else what}")


def run_atoll(*arguments, timeout=DEADLINE_SECONDS):
    return subprocess.run([ATOLL, *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=timeout)


class Node:
    def __init__(self, config, directory, settings, changes=(), **popen):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.output = self.directory / "output.txt"
        command = [ATOLL, "train", "--config", str(config), "--json"]
        for key, value in {"node.name": self.directory.name, "node.run_directory": self.directory, **settings}.items():
            command += ["--set", f"{key}={value}"]
        for change in changes:
            command += ["--change", change]
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, **popen)

    def lines(self, event=None):
        try:
            data = (self.directory / "metrics.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        lines = [json.loads(line) for line in data[:data.rfind(b"\n") + 1].splitlines() if line.strip().startswith(b"{")
                 and line.strip().endswith(b"}")]
        return [line for line in lines if event is None or line["event"] == event]

    def wait_for_step(self, step):
        return wait_until(lambda: self.is_over() or any(line["step"] >= step for line in self.lines("inner_step")),
                          f"step {step} of {self.directory.name}")

    def wait_for_round(self, number, fragment=0):
        def found():
            rounds = [line for line in self.lines("round") if line["round"] >= number and line["fragment"] == fragment]
            if not rounds and self.is_over():
                raise AssertionError(f"{self.directory.name} ended before round {number}; its output:\n{self.tail()}")
            return rounds

        return wait_until(found, lambda: f"round {number} of {self.directory.name}; its output:\n{self.tail()}")

    def is_over(self):
        return self.process.poll() is not None

    def finish(self):
        try:
            return self.process.wait(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.directory.name} does not end; its output:\n{self.tail()}")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.wait()

    def tail(self):
        return self.output.read_text(errors="replace")[-3000:]

    def digests(self):
        return {(line["fragment"], line["round"]): line["digest"] for line in self.lines("round")}


class Coordinator:
    def __init__(self, config, log, settings, listen="127.0.0.1:0", changes=(), **popen):
        command = [ATOLL, "coordinate", "--config", str(config), "--listen", listen, "--json"]
        for key, value in {"node.run_directory": tempfile.mkdtemp(prefix="coordinator-", dir=log.parent), **settings}.items():
            command += ["--set", f"{key}={value}"]
        for change in changes:
            command += ["--change", change]
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, **popen)
        self.address = json.loads(self.process.stdout.readline())["listening"]

    def finish(self):
        out, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        return json.loads(out.splitlines()[-1])


CORPUS = "".join(f"int function_{i}(int x) {{ return x * {i} + {i % 7}; }}\n" for i in range(4000))


def prepare_run(folder, corpus=CORPUS, settings=None):
    """Writes the corpus and a config into the folder, TINY with these sections' keys replaced, and returns the config's path."""
    texts = folder / "texts"
    texts.mkdir()
    for part in range(40):
        (texts / f"{part:02}.c").write_text(corpus[part * 4000:(part + 1) * 4000])
    prepared = run_atoll("prepare", "--input", texts, "--output", folder / "corpus")
    if prepared.returncode != 0:
        raise AssertionError(prepared.stderr)
    config = json.loads(json.dumps(TINY))
    config["data"]["sources"] = [{"prefix": str(folder / "corpus")}]
    for section, values in (settings or {}).items():
        config[section].update(values)
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


class ClusterTest(unittest.TestCase):
    """A test with a temporary folder that holds a corpus and a config; what it starts is stopped at its end."""

    CORPUS = CORPUS

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.children = []
        self.config = prepare_run(self.folder, self.CORPUS)

    def tearDown(self):
        for child in self.children:
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait()
            if child.process.stdout:
                child.process.stdout.close()

    if not hasattr(unittest.TestCase, "enterContext"):  # Python before 3.11.
        def enterContext(self, context):
            value = context.__enter__()
            self.addCleanup(context.__exit__, None, None, None)
            return value

    def start_coordinator(self, listen="127.0.0.1:0", changes=(), **settings):
        coordinator = Coordinator(self.config, self.folder / "coordinator.txt", dotted(settings), listen, changes)
        self.children.append(coordinator)
        self.address = coordinator.address
        return coordinator

    def start_node(self, name, solo=False, changes=(), popen=None, **settings):
        values = dotted(settings)
        if not solo:
            values.setdefault("swarm.coordinator", self.address)
        node = Node(self.config, self.folder / name, values, changes, **(popen or {}))
        self.children.append(node)
        return node

    def assert_finished(self, *nodes):
        for node in nodes:
            self.assertEqual(node.finish(), 0, node.tail() + self.coordinator_log())

    def coordinator_log(self):
        log = self.folder / "coordinator.txt"
        return "\nThe coordinator:\n" + log.read_text()[-3000:] if log.exists() else ""

    def coordinators_incidents(self):
        """What the coordinator's own metrics say went wrong, and why."""
        lines = (line for file in self.folder.glob("coordinator-*/coordinator.jsonl") for line in file.read_text().splitlines())
        return [(line["what"], line.get("reason")) for line in map(json.loads, lines)]

    def assert_digests_agree(self, nodes, at_least):
        """Equal digests for equal rounds, and at least so many rounds that several nodes applied."""
        seen, compared = {}, 0
        for node in nodes:
            for key, digest in node.digests().items():
                compared += key in seen
                self.assertEqual(seen.setdefault(key, digest), digest, f"fragment and round {key} of {node.directory.name}")
        self.assertGreaterEqual(compared, at_least)


def dotted(settings):
    """training__steps=3 stands for training.steps=3."""
    return {key.replace("__", "."): value for key, value in settings.items()}


def checkpoint_files(run_directory, step=None):
    """Bytes of every tensor file of the newest checkpoint, or of that of a step."""
    pattern = "step-*" if step is None else f"step-{step:08}"
    found = sorted(pathlib.Path(run_directory, "checkpoints").glob(pattern))[-1]
    return found.name, {path.name: path.read_bytes() for path in found.glob("*.safetensors")}
