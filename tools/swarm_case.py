"""One case of a swarm trial: starts what it needs, waits for what must happen, and sums up what that cost the healthy nodes.

Nothing waits for a time: the attack has begun when somebody has been seen to suffer it, and the case is over when the healthy nodes
have committed enough rounds beside it.
"""

import datetime
import json
import re
import signal
import time

from cluster import DEADLINE_SECONDS, Coordinator, Node, dotted, prepare_run, wait_until

HEALTHY = ["a", "b", "c"]
SETTINGS = {  # The healthy nodes are stopped when the case is over, long before their steps are.
    "training": {"steps": 1_000_000, "batch_rows": 16, "micro_batch_rows": 16},
    # The false peers speak plain TCP: what they do is what somebody could do who is let in.
    "swarm": {"security": "none", "start_members": 3, "stall_seconds": 3, "ready_grace_seconds": 5, "round_timeout_seconds": 20},
}
LEFT_OUT = [re.compile(pattern) for pattern in (
    r"round \d+ of fragment \d+ goes on without (?P<name>\S+): it (?P<why>.*)",
    r"(?P<name>\S+): (?P<why>it receives results and contributes nothing.*)",
    r"(?P<name>\S+): the coordinator gives it up: (?P<why>.*)",
    r"(?P<name>\S+) (?P<why>says that it trained on .*)",
    r"rejected (?P<name>.+?) \([^)]*\): (?P<why>.*)",
)]
REASONS_MAX = 4  # Of each name, in a report.


class WatchedNode(Node):
    """Reads of its metrics only what has come since the last time."""

    def __init__(self, *arguments):
        self.offset, self.seen = 0, []
        super().__init__(*arguments)

    def lines(self, event=None):
        path = self.directory / "metrics.jsonl"
        if path.exists():
            with open(path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
            whole = data.rfind(b"\n") + 1
            self.offset += whole
            self.seen += [json.loads(line) for line in data[:whole].splitlines() if line.strip()]
        return [line for line in self.seen if event is None or line["event"] == event]

    def last_round(self):
        return max((line["round"] for line in self.lines("round")), default=0)

    def log(self):
        return self.output.read_text(errors="replace") if self.output.exists() else ""


class Trial:
    def __init__(self, name, folder, config, rounds, seconds):
        self.name, self.folder, self.config, self.rounds_wanted, self.seconds_wanted = name, folder, config, rounds, seconds
        self.healthy, self.bad, self.fakes, self.proxies = [], [], [], []
        self.coordinators, self.problems, self.facts = [], [], {}
        self.began_at, self.mark, self.log_text = None, 0, ""
        folder.mkdir(parents=True)

    # -- What a case is made of.

    def start(self, healthy=HEALTHY, **coordinator_settings):
        """A coordinator, and healthy nodes."""
        self.start_coordinator(**coordinator_settings)
        self.start_healthy(healthy)

    def start_coordinator(self, listen="127.0.0.1:0", **settings):
        coordinator = Coordinator(self.config, self.folder / "coordinator.txt", dotted(settings), listen)
        self.coordinators.append(coordinator)
        self.address = coordinator.address

    def start_healthy(self, names=HEALTHY, **settings):
        self.healthy += [self.start_node(name, **settings) for name in names]

    def start_bad(self, name, **settings):
        self.bad.append(self.start_node(name, **settings))
        return self.bad[-1]

    def start_node(self, name, **settings):
        return WatchedNode(self.config, self.folder / name, {"swarm.coordinator": self.address, **dotted(settings)})

    def start_fake(self, fake):
        self.fakes.append(fake)
        return fake

    def wait(self, condition, what):
        """For something that only a defect can prevent; the case is over then. It is also over if a healthy node ends meanwhile."""
        def is_there():
            for node in self.healthy:
                if node.is_over():
                    raise AssertionError(f"{node.directory.name} ended, while waiting for {what}: {node.tail()[-300:]}")
            return condition()

        return wait_until(is_there, what)

    def wait_for_rounds(self, count):
        """Every healthy node has committed the round so many after the mark."""
        self.wait(lambda: all(node.last_round() >= self.mark + count for node in self.healthy), f"{self.mark + count} rounds")

    def wait_for_log(self, pattern):
        self.wait(lambda: re.search(pattern, self.log()), f"'{pattern}' in the coordinator's log")

    def begin(self, after_rounds=2):
        """From here on the healthy nodes are watched: all run, and now comes the bad one."""
        self.wait_for_rounds(after_rounds)
        self.mark = max(node.last_round() for node in self.healthy)
        self.began_at = time.time()

    def go_on(self):
        began = time.monotonic()
        self.mark = max(node.last_round() for node in self.healthy)
        self.wait_for_rounds(self.rounds_wanted)
        self.wait(lambda: time.monotonic() - began >= self.seconds_wanted, f"{self.seconds_wanted} s")

    def expect(self, condition, what):
        if not condition:
            self.problems.append(f"expected in vain: {what}")

    def expect_left_out(self, name, pattern):
        whys = self.left_out().get(name, {}).get("why", [])
        self.expect(any(re.search(pattern, why) for why in whys), f"that {name} is left out with '{pattern}'")

    def log(self):
        path = self.folder / "coordinator.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- What came out.

    def run(self, case):
        try:
            case(self)
        except Exception as error:  # Also of a case that is wrong itself: its nodes would train on for ever.
            self.problems.append(str(error) or repr(error))
        self.log_text = self.log_text or self.log()
        self.expect_that_the_healthy_are_well()
        exit_codes = self.stop()
        self.expect(all(exit_codes[node.directory.name] == 0 for node in self.healthy), "exit code 0 of the healthy nodes")
        self.expect(self.digests_equal(), "equal digests")
        return self.report(exit_codes)

    def expect_that_the_healthy_are_well(self):
        for node in self.healthy:
            bad = [line["reason"] for line in node.lines("standing") if not line["contributes"]]
            self.expect(not bad, f"that {node.directory.name} always contributes: {bad[:2]}")
            losses = [line["loss"] for line in node.lines("inner_step")]
            self.expect(losses and sum(losses[-10:]) < sum(losses[:10]), f"that {node.directory.name} learns")

    def stop(self):
        """Exit codes by name. Healthy nodes leave as if asked by their user; the others are of no interest any more."""
        for node in self.healthy:
            if not node.is_over():
                node.signal(signal.SIGTERM)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while any(not node.is_over() for node in self.healthy) and time.monotonic() < deadline:
            time.sleep(0.02)  # Until they have saved.
        codes = {node.directory.name: node.process.poll() for node in [*self.healthy, *self.bad]}
        for one in [*self.fakes, *self.proxies]:
            one.close()
        for child in [*self.healthy, *self.bad, *self.coordinators]:
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait()
            if child.process.stdout:
                child.process.stdout.close()
        return codes

    def left_out(self):
        found = {}
        for line in (self.log_text or self.log()).splitlines():
            for pattern in LEFT_OUT:
                match = pattern.search(line)
                if not match:
                    continue
                entry = found.setdefault(match["name"] or "a node", {"times": 0, "why": []})
                entry["times"] += 1
                if match["why"] not in entry["why"] and len(entry["why"]) < REASONS_MAX:
                    entry["why"].append(match["why"])
                break
        return found

    def notices(self):
        told = {node.directory.name: [line["reason"] for line in node.lines("standing")][:REASONS_MAX] for node in
                [*self.healthy, *self.bad]}
        told.update({fake.name: fake.reasons()[:REASONS_MAX] for fake in self.fakes})
        return {name: reasons for name, reasons in told.items() if reasons}

    def digests_equal(self):
        seen, compared = {}, 0
        for node in [*self.healthy, *self.bad]:
            for key, digest in node.digests().items():
                compared += key in seen
                if seen.setdefault(key, digest) != digest:
                    return False
        return compared > 0

    def report(self, exit_codes):
        rounds, seconds, waited = self.counted_rounds()
        losses = [line["loss"] for node in self.healthy for line in node.lines("inner_step")[-10:]]
        return {"case": self.name, "ok": not self.problems, "problems": self.problems, "left_out": self.left_out(),
                "notices": self.notices(), "rounds": rounds, "seconds": round(seconds, 2),
                "rounds_per_second": round(rounds / seconds, 3) if seconds else 0, "stood_still_seconds": round(waited, 2),
                "final_loss": round(sum(losses) / len(losses), 4) if losses else None, "digests_equal": self.digests_equal(),
                "exit_codes": exit_codes, "facts": self.facts}

    def counted_rounds(self):
        """Of the healthy nodes since the beginning: the fewest rounds, their seconds, and the longest wait."""
        counted = []
        for node in self.healthy:
            lines = [(datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00")).timestamp(), line)
                     for line in node.lines("round")]
            lines = [(at, line) for at, line in lines if self.began_at is not None and at >= self.began_at]
            if not lines:
                return 0, 0.0, 0.0
            counted.append((len(lines), lines[-1][0] - self.began_at, sum(line["exposed_seconds"] for _, line in lines)))
        return min(entry[0] for entry in counted), max(entry[1] for entry in counted), max(entry[2] for entry in counted)


class Runner:
    """Runs cases one after another in a folder of each, with one corpus for all."""

    def __init__(self, folder, rounds, seconds):
        self.folder, self.rounds, self.seconds = folder, rounds, seconds
        self.config = prepare_run(folder, settings=SETTINGS)
        self.baseline = {}

    def run(self, name, case):
        report = Trial(name, self.folder / name, self.config, self.rounds, self.seconds).run(case)
        self.baseline = self.baseline or report
        for key in ("rounds_per_second", "stood_still_seconds", "final_loss"):
            report["baseline_" + key] = self.baseline[key]
        return report
