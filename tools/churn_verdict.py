"""What a churned run is judged by: what passed on the wire, what the auditor found, and whom the coordinator's log names."""

import bisect
import collections
import json

PATIENCE_SECONDS = 60  # A node is innocent if nothing was done to it for so long.
WRONG_SUMS = {"wrong_sum", "wrong_weight", "counted_twice", "damaged"}


class Tail:
    """Whole lines that a file has got since the last time."""

    def __init__(self, path):
        self.path, self.offset = path, 0

    def lines(self):
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        return data[:whole].decode(errors="replace").splitlines()


class Verdict:
    """A *reign* is a coordinator's life and term: the run may lose its last rounds only between two of them."""

    def __init__(self, left_out_patterns, now):
        self.left_out_patterns = left_out_patterns
        self.digests = {}   # By what, reign, fragment and round: the digest, and who said it first.
        self.handed_out = collections.defaultdict(list)  # By reign: ranges of samples.
        self.committed = {}  # By fragment and round: when it was first seen.
        self.applied = collections.defaultdict(int)  # By name: the newest round.
        self.auditor = {"audited": 0, "unaudited": 0, "chunks": 0, "unchecked": 0}
        self.wrong_sums, self.unequal_digests, self.innocent_excluded = [], [], []
        self.last_commit_at, self.longest_pause = now, 0.0

    # -- The wire.

    def same(self, what, reign, name, message, digest):
        key = (what, reign, message.fragment, message.round)
        first, who = self.digests.setdefault(key, (digest, name))
        if first != digest:
            self.unequal_digests.append(f"{what} of round {message.round} of fragment {message.fragment}: {who} has {first.hex()[:12]}, "
                                        f"{name} has {digest.hex()[:12]}")

    def on_commit(self, reign, name, message, now):
        self.same("results", reign, name, message, message.results)
        if self.committed.setdefault((message.fragment, message.round), now) == now:
            self.note_pause(now)
            self.last_commit_at = now

    def note_pause(self, now):
        self.longest_pause = max(self.longest_pause, now - self.last_commit_at)

    def on_applied(self, reign, name, message):
        self.same("state", reign, name, message, message.digest)
        self.applied[name] = max(self.applied[name], message.round)

    def on_samples(self, reign, name, message):
        if message.count == 0:
            return
        ranges, new = self.handed_out[reign], (message.first, message.first + message.count)
        at = bisect.bisect(ranges, new)
        if any(one[0] < new[1] and new[0] < one[1] for one in ranges[max(at - 1, 0):at + 1]):
            self.wrong_sums.append(f"samples {new[0]} to {new[1]} are given to {name}, and were given to somebody before")
        ranges.insert(at, new)

    # -- The auditor and the log.

    def on_auditor(self, line):
        event = json.loads(line)
        if event["event"] == "audited":
            self.auditor["audited"] += 1
            self.auditor["chunks"] += event["chunks"]
            self.auditor["unchecked"] += event["unchecked"]
        elif event["event"] == "unaudited":
            self.auditor["unaudited"] += 1
        elif event["event"] == "finding":
            (self.wrong_sums if event["kind"] in WRONG_SUMS else self.unequal_digests).append(event["text"])

    def on_log(self, line, is_innocent):
        for pattern in self.left_out_patterns:
            match = pattern.search(line)
            if match and is_innocent(match["name"]):
                self.innocent_excluded.append(line)
                return

    # -- The end.

    def newest_round(self):
        return max((number for _, number in self.committed), default=0)

    def report(self):
        return {"rounds": len(self.committed), "wrong_sums": len(self.wrong_sums), "unequal_digests": len(self.unequal_digests),
                "innocent_excluded": len(self.innocent_excluded), "longest_round_seconds": round(self.longest_pause, 2),
                "audited_rounds": self.auditor["audited"], "unaudited_rounds": self.auditor["unaudited"],
                "audited_chunks": self.auditor["chunks"] - self.auditor["unchecked"], "unchecked_chunks": self.auditor["unchecked"]}
