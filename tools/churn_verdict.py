"""What a churned run is judged by: what passed on the wire, what nodes wrote down, what the auditor found, and whom coordinators name."""

import bisect
import collections
import json

from churn_memory import Memory

PATIENCE_SECONDS = 60  # A node is innocent if nothing was done to it for so long.
NOTED_PAUSE_SECONDS = 10  # Between two commits.
WRONG_SUMS = {"wrong_sum", "wrong_weight", "counted_twice", "damaged"}


class Verdict:
    """A *reign* is which coordinator, and its term. In one of them nothing is ever lost, and no sample given twice. From one to the next a
    run that fails over loses a committed round only if too many of those who could know of it forgot it: `memory` (churn_memory.py) tells.
    Where `memory` is None the run does not fail over, and may lose its last rounds with its coordinator."""

    def __init__(self, left_out_patterns, now, memory=None, note=lambda _text: None):
        self.left_out_patterns, self.memory, self.note = left_out_patterns, memory, note
        self.digests = {}   # By what, reign, fragment and round: the digest, and who said it first.
        self.history = collections.defaultdict(dict)  # By what, fragment and round: by digest when it was first seen, and at whom.
        self.told, self.reigns_of_samples = [], set()  # When so many were handed out, rising; and whose first word was heard.
        self.handed_out = collections.defaultdict(list)  # By reign: ranges of samples.
        self.rounds = 0     # That were committed, those that were lost among them.
        self.committed = {}  # By fragment and round: the results that were committed last.
        self.applied = collections.defaultdict(int)  # By name: the last round.
        self.auditor = {"audited": 0, "unaudited": 0, "chunks": 0, "unchecked": 0}
        self.wrong_sums, self.unequal_digests, self.innocent_excluded, self.lost_rounds = [], [], [], []
        self.last_commit_at, self.longest_pause = now, 0.0
        self.died_at, self.takeovers = None, []

    # -- The wire.

    def same(self, what, reign, name, message, digest):
        key = (what, reign, message.fragment, message.round)
        first, who = self.digests.setdefault(key, (digest, name))
        if first != digest:
            self.unequal_digests.append(f"{what} of round {message.round} of fragment {message.fragment}: {who} has {first.hex()[:12]}, "
                                        f"{name} has {digest.hex()[:12]}")

    def same_in_all_reigns(self, what, name, fragment, number, digest, now):
        """The same of a round, unless the run has lost it meanwhile and made it again."""
        if self.memory is None:
            return
        known = self.history[what, fragment, number]
        if digest not in known and known:
            self.on_second(what, name, (fragment, number), digest, now)
        known.setdefault(digest, (now, set()))[1].add(name)

    def on_second(self, what, name, key, digest, now):
        first, (first_at, names) = max(self.history[what, *key].items(), key=lambda item: item[1][0])
        text = (f"{what} of round {key[1]} of fragment {key[0]}: {' '.join(sorted(names))} had {first.hex()[:12]} at {first_at:.1f} s, "
                f"{name} has {digest.hex()[:12]} at {now:.1f} s")
        why = self.memory.may_have_lost(first_at, now, names)
        if why:
            self.lost_rounds.append(f"{text}: {why}")
        else:
            self.unequal_digests.append(f"{text}, in another term, and too few had forgotten it")
        self.note("lost: " + self.lost_rounds[-1] if why else "unequal: " + self.unequal_digests[-1])

    def on_commit(self, reign, name, message, now):
        key = (message.fragment, message.round)
        was_known = message.results in self.history["results", *key]
        self.same("results", reign, name, message, message.results)
        self.same_in_all_reigns("results", name, *key, message.results, now)
        if was_known or self.committed.get(key) == message.results:
            return  # Or it was lost since, and somebody hears of it late.
        self.forget_after(*key)
        self.committed[key] = message.results
        self.rounds += 1
        if now - self.last_commit_at > NOTED_PAUSE_SECONDS:
            self.note(f"there was no commit for {now - self.last_commit_at:.1f} s")
        self.note_pause(now)
        self.last_commit_at = now
        if self.died_at is not None:
            self.takeovers.append(now - self.died_at)
            self.note(f"the next commit, {self.takeovers[-1]:.1f} s after who coordinated had died")
            self.died_at = None

    def forget_after(self, fragment, number):
        """A run that goes back has no later rounds any more."""
        if (fragment, number) in self.committed:
            for key in [key for key in self.committed if key[0] == fragment and key[1] > number]:
                del self.committed[key]

    def note_pause(self, now):
        self.longest_pause = max(self.longest_pause, now - self.last_commit_at)

    def on_applied(self, reign, name, message, now):
        self.same("state", reign, name, message, message.digest)
        self.same_in_all_reigns("state", name, message.fragment, message.round, message.digest, now)
        self.applied[name] = message.round

    def on_samples(self, reign, name, message, now):
        end = message.first + message.count
        if self.memory and reign not in self.reigns_of_samples:
            self.reigns_of_samples.add(reign)
            self.memory_of_samples(name, end, now)
        if end > (self.told[-1][1] if self.told else -1):
            self.told.append((now, end))
        if message.count == 0:
            return
        ranges, new = self.handed_out[reign], (message.first, end)
        at = bisect.bisect(ranges, new)
        if any(one[0] < new[1] and new[0] < one[1] for one in ranges[max(at - 1, 0):at + 1]):
            self.wrong_sums.append(f"samples {new[0]} to {new[1]} are given to {name}, and were given to somebody before")
        ranges.insert(at, new)

    def memory_of_samples(self, name, end, now):
        """A coordinator goes on behind the largest number that those have heard who hold the state. (What was handed out just before
        perhaps nobody else has heard of.)"""
        heard = [one for one in self.told if one[0] <= now - self.memory.quorum_seconds]
        if not heard or end >= heard[-1][1]:
            return
        why = self.memory.may_have_lost(heard[-1][0], now, (name, "others"))
        text = f"samples begin again at {end}, and {heard[-1][1]} were handed out at {heard[-1][0]:.1f} s, as {name} hears"
        (self.lost_rounds if why else self.wrong_sums).append(f"{text}: {why}" if why else text)
        self.note(f"{'lost' if why else 'wrong'}: {text}")
        self.told = [one for one in self.told if one[1] <= end]

    # -- What nodes and the auditor wrote down.

    def on_round_line(self, name, line, now):
        """Of metrics.jsonl: what a node that coordinates tells itself passes no door."""
        self.same_in_all_reigns("state", name, line["fragment"], line["round"], bytes.fromhex(line["digest"]), now)
        self.applied[name] = line["round"]

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

    # -- Take-overs.

    def on_coordinator_died(self, now):
        """Until the next commit; of several deaths in a row from the first."""
        self.died_at = now if self.died_at is None else self.died_at

    def longest_takeover(self, now):
        return max([*self.takeovers, *([now - self.died_at] if self.died_at is not None else [])], default=0.0)

    # -- The end.

    def newest_round(self):
        return max((number for _, number in self.committed), default=0)

    def report(self, now=0.0):
        ordered = sorted(self.takeovers)
        distribution = {f"p{share}": round(ordered[min(len(ordered) * share // 100, len(ordered) - 1)], 2) for share in (50, 75, 90)} \
            if ordered else {}
        return {"rounds": self.rounds, "wrong_sums": len(self.wrong_sums), "unequal_digests": len(self.unequal_digests),
                "lost_rounds": len(self.lost_rounds), "innocent_excluded": len(self.innocent_excluded),
                "longest_round_seconds": round(self.longest_pause, 2), "longest_takeover_seconds": round(self.longest_takeover(now), 2),
                "takeovers": {"count": len(ordered), **distribution},
                "audited_rounds": self.auditor["audited"], "unaudited_rounds": self.auditor["unaudited"],
                "audited_chunks": self.auditor["chunks"] - self.auditor["unchecked"], "unchecked_chunks": self.auditor["unchecked"]}
