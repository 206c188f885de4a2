"""What one member saw of a round that was committed, and whether it is what docs/formats says that it must be, bit by bit."""

import collections
import hashlib
import struct

from swarm_codecs import check
from swarm_plan import direct, trees_of
from swarm_round import mean_of
from swarm_tree import root_from, without_path
from swarm_wire import RESULT

RESULT_HEADER = struct.Struct("<BQQq")

# `kind`: wrong_sum, wrong_weight, wrong_digest, counted_twice, or damaged: a chunk that a receiver must refuse.
Finding = collections.namedtuple("Finding", "kind text")


class Evidence:
    """`contributors` as in Open, `excluded` peers, `owners` by chunk, `contributions` by chunk and index, encoded; `results` by chunk,
    as they were sent. `digest` is that of Commit."""

    def __init__(self, opened):
        self.fragment, self.round = opened.fragment, opened.round
        self.contributors = opened.contributors
        self.trees = trees_of(opened)
        self.owners = [tree.owner for tree in self.trees]
        self.excluded, self.contributions, self.results, self.unannounced = set(), {}, {}, set()
        self.digest = None

    def move(self, chunk, owner):
        """A chunk that has been moved is summed directly."""
        self.owners[chunk], self.trees[chunk] = owner, direct(owner, len(self.contributors))

    def take_contribution(self, chunk, index, data):
        """As it travels. One that is not what its contributor announced is noted."""
        if root_from(data, chunk, len(self.owners)) != self.contributors[index]["contribution"]:
            self.unannounced.add((chunk, index))
        self.contributions[chunk, index] = without_path(data)

    def results_digest(self):
        whole = b"".join(hashlib.sha256(self.results[chunk]).digest() for chunk in range(len(self.owners)))
        return hashlib.sha256(whole).digest()

    def encoded_results(self):
        return [self.results[chunk][RESULT_HEADER.size:] for chunk in range(len(self.owners))]


class Counted:
    """Which pieces of work are in the run's state: by node, fragment and chunk the hashes of its contributions, with their rounds."""

    def __init__(self):
        self.rounds = collections.defaultdict(dict)

    def add(self, node_key, fragment, chunk, data, number):
        """The earlier round in which the same work was counted, or None."""
        known = self.rounds[node_key, fragment, chunk]
        earlier = known.setdefault(hashlib.sha256(data).digest(), number)
        return earlier if earlier != number else None

    def go_back(self, fragment, version):
        """The run goes on from here; what was counted later is not in it any more."""
        for (_, of, _), known in self.rounds.items():
            for key in [key for key, number in known.items() if of == fragment and number > version]:
                del known[key]


class Audit:
    """Findings about one round. `unchecked`: chunks of which a contribution was not to be had, so that only their headers were."""

    def __init__(self, rules, evidence, state, counted):
        self.rules, self.evidence, self.state, self.counted = rules, evidence, state, counted
        self.findings, self.unchecked = [], 0
        if evidence.results_digest() != evidence.digest:
            self.find("wrong_digest", "Commit names other results than those that the owners gave")
        for chunk in range(len(evidence.owners)):
            self.check_chunk(chunk)

    def find(self, kind, text):
        self.findings.append(Finding(kind, f"round {self.evidence.round} of fragment {self.evidence.fragment}: {text}"))

    def check_chunk(self, chunk):
        evidence = self.evidence
        owner = evidence.contributors[evidence.owners[chunk]]["peer"]
        where = f"chunk {chunk}, which peer {owner} summed"
        kind, inside, judged_out, weight = RESULT_HEADER.unpack_from(evidence.results[chunk])
        encoded = evidence.results[chunk][RESULT_HEADER.size:]
        if not self.is_valid(self.rules.result_codec, chunk, encoded) or kind != RESULT:
            return self.find("damaged", f"{where}: the result cannot be decoded")
        indexes = [index for index in range(64) if (inside | judged_out) >> index & 1]
        if not inside or inside & judged_out or indexes[-1] >= len(evidence.contributors):
            return self.find("wrong_weight", f"{where}: contributors {inside:x}, judged out {judged_out:x}")
        self.check_weight(where, inside, weight)
        for index, contributor in enumerate(evidence.contributors):
            if index not in indexes and contributor["peer"] not in evidence.excluded:
                self.find("wrong_sum", f"{where}: peer {contributor['peer']} is neither in it nor out of the round")
        if any((chunk, index) not in evidence.contributions for index in indexes):
            self.unchecked += 1
            return None
        return self.check_sum(where, chunk, indexes, inside, encoded)

    def is_valid(self, codec, chunk, encoded):
        try:
            check(codec, encoded, self.rules.chunks(self.evidence.fragment)[chunk][1])
        except ValueError:
            return False
        return True

    def check_weight(self, where, inside, weight):
        true = sum(one["weight_tokens"] for index, one in enumerate(self.evidence.contributors) if inside >> index & 1)
        if weight != true:
            self.find("wrong_weight", f"{where}: a weight of {weight} instead of {true}")

    def check_sum(self, where, chunk, indexes, inside, encoded):
        evidence = self.evidence
        for index in indexes:
            data, contributor = evidence.contributions[chunk, index], evidence.contributors[index]
            if (chunk, index) in evidence.unannounced:
                return self.find("damaged", f"{where}: the part of peer {contributor['peer']} is not what it announced")
            if not self.is_valid(self.rules.codec, chunk, data):
                return self.find("damaged", f"{where}: the part of peer {contributor['peer']} cannot be decoded")
            self.check_first_time(where, chunk, contributor, data)
        mean, is_in = self.sum_below(chunk, evidence.owners[chunk], set(indexes))
        if sum(1 << index for index in is_in) != inside:
            self.find("wrong_sum", f"{where}: those in it are {inside:x}, of {indexes} should be {sorted(is_in)}")
        elif mean != encoded:
            self.find("wrong_sum", f"{where}: it is not the mean of its {len(indexes)} parts")
        return None

    def sum_below(self, chunk, at, there):
        """What this contributor makes of what its children bring and of its own, of those that are `there`: the encoded mean, and who is in it.
        Nothing where none is."""
        evidence, parts, members = self.evidence, [], []
        tree = evidence.trees[chunk]
        for index in sorted([*tree.children(at), at]):
            if index != at and tree.children(index):
                data, inside, codec = *self.sum_below(chunk, index, there), self.rules.result_codec
            else:
                data, inside, codec = evidence.contributions.get((chunk, index)), {index} & there, self.rules.codec
            if inside:
                parts.append((sum(evidence.contributors[one]["weight_tokens"] for one in inside), data, codec))
                members.append(inside)
        if not parts:
            return None, set()
        mean, is_in = mean_of(self.rules, evidence.fragment, chunk, parts, self.state)
        return mean, set().union(*(inside for inside, is_one in zip(members, is_in) if is_one))

    def check_first_time(self, where, chunk, contributor, data):
        if not any(data):
            return  # A node that has nothing new says zeros each time.
        earlier = self.counted.add(contributor["node_key"], self.evidence.fragment, chunk, data, self.evidence.round)
        if earlier is not None:
            self.find("counted_twice", f"{where}: the part of peer {contributor['peer']} was counted in round {earlier}")
