"""What a round computes, bit by bit, in Python, as docs/formats/round.md tells it: chunks, means, the outer step, digests."""

import hashlib
import json
import math
import struct
from array import array

from swarm_codecs import LARGEST, decode, encode, fp32, squares, squares_of

PIECE = 262_144  # Elements that a digest of a state's pieces is about.
BLOCK = 131_072  # Elements of a block of state.


class Rules:
    """What the nodes of a run share, from its shared config as JSON: the model's fragments and the outer loop's numbers."""

    def __init__(self, shared_config):
        config = json.loads(shared_config)
        self.outer = config["outer"]
        self.codec = self.outer["codec"]
        same = self.outer["result_codec"] == "same"
        self.result_codec = self.codec if same else self.outer["result_codec"]
        if self.outer["mean"] == "trimmed":
            raise ValueError("outer.mean trimmed: means of that kind are not made here")
        self.norm_max = 0 if self.outer["mean"] == "mean" else self.outer["contribution_norm_max"]
        units = unit_sizes(config["model"])
        self.embedding = units[0]
        count = self.outer["fragments"]
        self.elements = [0] * count
        for unit, elements in enumerate(units):
            self.elements[fragment_of(unit, len(units), count)] += elements

    def chunks(self, fragment):
        """First element and count of each."""
        elements = self.elements[fragment]
        size = min(max(-(-(elements // 64) // 512) * 512, 8192), 1 << 20)
        return [(first, min(size, elements - first)) for first in range(0, elements, size)]

    def blocks(self, fragment):
        elements = self.elements[fragment]
        return [(first, min(BLOCK, elements - first)) for first in range(0, elements, BLOCK)]

    def is_short(self, fragment, step):
        inner, count = self.outer["inner_steps"], self.outer["fragments"]
        first = (fragment + 1) * inner // count
        return step < inner if step <= first else (step - first) % inner != 0

    def optimizer(self, version):
        """Learning rate and momentum of the round that makes this version."""
        warmup = self.outer["warmup_rounds"]
        share = min(1.0, version / warmup) if warmup > 0 else 1.0
        return fp32(share * self.outer["learning_rate"]), fp32(share * self.outer["momentum"])


def unit_sizes(model):
    v, c, f, d = model["vocabulary"], model["width"], model["feed_forward"], model["head_size"]
    heads, kv = model["heads"], model["kv_heads"]
    block = c + (heads + 2 * kv) * d * c + c * heads * d + c + 3 * f * c
    return [v * c] + [block] * model["layers"] + [c + v * c]


def fragment_of(unit, unit_count, fragments):
    if unit == 0:
        return 0
    if unit == unit_count - 1:
        return fragments - 1
    return (unit - 1) % fragments if fragments < 3 else 1 + (unit - 1) % (fragments - 2)


class State:
    """Of a fragment: outer parameters and momentum."""

    def __init__(self, version, parameters, momentum):
        self.version, self.parameters, self.momentum = version, parameters, momentum

    def digest(self, fragment):
        pieces = b"".join(hashlib.sha256(values[first:first + PIECE].tobytes()).digest() for values in (self.parameters, self.momentum)
                          for first in range(0, len(values), PIECE))
        return hashlib.sha256(struct.pack("<QQ", self.version, fragment) + pieces).digest()


# -- A mean.

def median(values):
    return sorted(values)[(len(values) - 1) // 2]


def reach_factors(norms, weights, norm_max, floor):
    """By part: 1 as it is, below 1 shortened, 0 left out."""
    voices = [(norm, weight) for norm, weight in zip(norms, weights) if norm > 0]
    if norm_max <= 0 or len(voices) < 3:
        return [1.0] * len(norms)
    norm = median([norm for norm, _ in voices])
    weight = float(max(1, median([weight for _, weight in voices])))
    factors = []
    for length, tokens in zip(norms, weights):
        farther = min(max(tokens / weight, 1.0), norm_max)
        reach = max(norm_max * farther * norm, floor)
        factors.append(0.0 if length > norm_max * reach else reach / length if length > reach else 1.0)
    return factors


def mean_of(rules, fragment, chunk, parts, state):
    """Encoded mean, and by part whether it is in it. `parts`: weight, bytes and their codec, by rising peer; `state`: before
    the round."""
    first, count = rules.chunks(fragment)[chunk]
    norms = [math.sqrt(squares(codec, data, count)) for _, data, codec in parts]
    weights = [weight for weight, _, _ in parts]
    is_embedding = fragment == 0 and first < rules.embedding
    floor = math.sqrt(squares_of(state.parameters[first:first + count])) if is_embedding else 0.0
    factors = reach_factors(norms, weights, rules.norm_max, floor)
    total = sum(weight for weight, factor in zip(weights, factors) if factor > 0)
    even = 1.0 / sum(factor > 0 for factor in factors)
    values = array("f", bytes(4 * count))
    for (weight, data, codec), factor in zip(parts, factors):
        if factor > 0:
            share = fp32((weight / total if total > 0 else even) * factor)
            products = array("f", [share * x for x in decode(codec, data, count)])
            values = array("f", map(float.__add__, values, products))
    values = array("f", [min(max(x, -LARGEST), LARGEST) for x in values])
    return encode(rules.result_codec, values), [factor > 0 for factor in factors]


# -- The outer step.

def refusal_bound(rules, fragment, state):
    """The largest RMS that a chunk's mean may have."""
    total = 0.0
    for first, count in rules.chunks(fragment):
        total += squares_of(state.parameters[first:first + count])
    norm_max = rules.outer["contribution_norm_max"]
    bound = norm_max * norm_max * math.sqrt(total / rules.elements[fragment])
    return bound if bound > 0 else math.inf


def stepped(parameters, momentum, mean, is_short, rate, mu):
    """New parameters and momentum."""
    if is_short:
        return array("f", map(float.__sub__, parameters, mean)), momentum
    decayed = array("f", [mu * m for m in momentum])
    velocity = array("f", map(float.__add__, decayed, mean))
    looked_ahead = array("f", [mu * m for m in velocity])
    change = array("f", map(float.__add__, mean, looked_ahead))
    change = array("f", [rate * x for x in change])
    return array("f", map(float.__sub__, parameters, change)), velocity


def outer_step(rules, fragment, state, results, step):
    """The state after the round that these encoded results are of, and by chunk whether it was refused. None as a result: refused,
    as whoever keeps the round says."""
    parameters, momentum, refused = array("f", state.parameters), array("f", state.momentum), []
    rate, mu = rules.optimizer(state.version + 1)
    bound, is_short = refusal_bound(rules, fragment, state), rules.is_short(fragment, step)
    for (first, count), data in zip(rules.chunks(fragment), results):
        part = slice(first, first + count)
        is_refused = data is None or math.sqrt(squares(rules.result_codec, data, count)) > bound * math.sqrt(count)
        if not is_refused:
            new = stepped(parameters[part], momentum[part], decode(rules.result_codec, data, count), is_short, rate, mu)
            is_refused = not all(math.isfinite(x) for values in new for x in values)
            if not is_refused:
                parameters[part], momentum[part] = new
        refused.append(is_refused)
    return State(state.version + 1, parameters, momentum), refused
