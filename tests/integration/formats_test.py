"""The pages under docs/formats/ are enough: a reader that knows nothing else computes what Atoll computes.

Names, shapes and the order of things are read out of the pages' tables; the formulas are written here a second time, in
plain Python, so that no library is needed.
"""

import array
import hashlib
import itertools
import json
import math
import operator
import pathlib
import re
import signal
import struct
import sys
import unittest

from cluster import ClusterTest, run_atoll

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "data"))
import window_rule  # noqa: E402: the random numbers of token-dataset.md

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "formats" / "checkpoint.md").read_text()


def table(*heading):
    """Rows of the page's table with this heading, without the marks of code."""
    lines = iter(PAGE.splitlines())
    wanted = "| " + " | ".join(heading) + " |"
    if wanted not in lines:  # Goes on behind the heading.
        raise AssertionError(f"there is no table {wanted}")
    rows = itertools.takewhile(lambda line: line.startswith("|"), itertools.islice(lines, 1, None))
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def calculate(expression, letters):
    if not re.fullmatch(r"[A-Zi0-9 ()+*%,-]+", expression):
        raise AssertionError(f"not a formula: {expression}")
    return eval(expression, {"__builtins__": {}}, letters)


class Checkpoint:
    def __init__(self, folder):
        self.folder = folder
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.model = json.loads(self.manifest["model_config"])
        self.letters = {letter: self.model[key] for letter, key in table("letter", "key of `model_config`")}
        self.shapes, self.units = {}, {}
        for block in range(self.letters["L"]):
            for unit, name, shape in table("unit", "tensor", "shape"):
                if "{i}" not in unit and block > 0:
                    continue
                name = name.format(i=block)
                shape = calculate(shape, self.letters)
                self.shapes[name] = shape if isinstance(shape, tuple) else (shape,)
                self.units.setdefault(unit.format(i=block), []).append(name)

    def tensors(self, file):
        """By name: the flat fp32 numbers."""
        data = (self.folder / file).read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:begin])
        header.pop("__metadata__")
        result = {}
        for name, entry in header.items():
            assert entry["dtype"] == "F32" and tuple(entry["shape"]) == self.shapes[name], name
            result[name] = array.array("f", data[begin + entry["data_offsets"][0]:begin + entry["data_offsets"][1]])
        assert result.keys() == self.shapes.keys()
        return result

    def trained_tensors(self):
        is_swarm = (self.folder / "outer_parameters.safetensors").exists()
        return self.tensors("outer_parameters.safetensors" if is_swarm else "parameters.safetensors")


def multiply(matrix, vector):
    return [sum(map(operator.mul, row, vector)) for row in matrix]


def softmax(scores):
    largest = max(scores)
    powers = [math.exp(score - largest) for score in scores]
    return [power / sum(powers) for power in powers]


class Model:
    def __init__(self, checkpoint):
        self.config, self.letters = checkpoint.model, checkpoint.letters
        self.weights = {}
        for name, values in checkpoint.trained_tensors().items():
            width = checkpoint.shapes[name][-1]
            rows = [values[at:at + width].tolist() for at in range(0, len(values), width)]
            self.weights[name] = rows if len(checkpoint.shapes[name]) == 2 else rows[0]
        self.parts = {part: range(calculate(first, self.letters), calculate(f"({first}) + {count}", self.letters))
                      for part, first, count in table("part", "first row", "rows")}

    def norm(self, x, weight):
        scale = 1 / math.sqrt(sum(value * value for value in x) / len(x) + self.config["norm_epsilon"])
        return [value * scale * w for value, w in zip(x, weight)]

    def turn(self, head, position):
        half = len(head) // 2
        low, high = [], []
        for j, (x, y) in enumerate(zip(head[:half], head[half:])):
            angle = position * self.config["rope_base"] ** (-2 * j / len(head))
            low.append(x * math.cos(angle) - y * math.sin(angle))
            high.append(y * math.cos(angle) + x * math.sin(angle))
        return low + high

    def heads(self, qkv, part):
        rows, size = self.parts[part], self.letters["D"]
        return [qkv[at:at + size] for at in range(rows.start, rows.stop, size)]

    def attention(self, inputs, starts, prefix):
        H, K, D = (self.letters[letter] for letter in "HKD")
        qkv = [multiply(self.weights[prefix + "qkv"], x) for x in inputs]
        queries = [[self.turn(head, t) for head in self.heads(row, "queries")] for t, row in enumerate(qkv)]
        keys = [[self.turn(head, t) for head in self.heads(row, "keys")] for t, row in enumerate(qkv)]
        values = [self.heads(row, "values") for row in qkv]
        for t, start in enumerate(starts):
            mixed = []
            for h in range(H):
                group = h * K // H
                seen = range(start, t + 1)
                shares = softmax([sum(map(operator.mul, queries[t][h], keys[s][group])) / math.sqrt(D) for s in seen])
                mixed += [sum(share * values[s][group][d] for share, s in zip(shares, seen)) for d in range(D)]
            yield multiply(self.weights[prefix + "out"], mixed)

    def feed_forward(self, x, prefix):
        gate, up = (multiply(self.weights[prefix + name], x) for name in ("gate", "up"))
        return multiply(self.weights[prefix + "down"], [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)])

    def logits(self, tokens, starts, positions):
        """Of a row, at these positions."""
        xs = [self.weights["embedding.embedding"][token] for token in tokens]
        add = lambda x, y: [a + b for a, b in zip(x, y)]
        for i in range(self.letters["L"]):
            prefix = f"blocks.{i}."
            normed = [self.norm(x, self.weights[prefix + "norm1"]) for x in xs]
            xs = [add(x, y) for x, y in zip(xs, self.attention(normed, starts, prefix))]
            xs = [add(x, self.feed_forward(self.norm(x, self.weights[prefix + "norm2"]), prefix)) for x in xs]
        return [multiply(self.weights["head.head"], self.norm(xs[t], self.weights["head.norm"])) for t in positions]


def read_documents(prefix):
    """Of a dataset, as token-dataset.md describes PREFIX.idx and PREFIX.bin."""
    index, tokens = (pathlib.Path(f"{prefix}.{ending}").read_bytes() for ending in ("idx", "bin"))
    assert index[:18] == b"MMIDIDX\0\0" + struct.pack("<Q", 1) + b"\x08", "uint16 tokens"
    count, = struct.unpack_from("<Q", index, 18)
    lengths = struct.unpack_from(f"<{count}i", index, 34)
    starts = struct.unpack_from(f"<{count}q", index, 34 + 4 * count)
    return [list(struct.unpack_from(f"<{length}H", tokens, start)) for length, start in zip(lengths, starts)]


def validation_rows(documents, seed, fraction, length):
    """Lists of (document, input, target)."""
    key = window_rule.philox(seed, window_rule.HOLD_OUT, 0)
    held_out = [document for document in documents
                if (window_rule.philox(key, 0, window_rule.name_of(document)) >> 11) * 2.0**-53 < fraction]
    window_rule.shuffle(held_out, window_rule.philox(seed, window_rule.VALIDATION_ORDER, 0), 0)
    pairs = [(number, *pair) for number, document in enumerate(held_out) for pair in zip(document, document[1:])]
    return [pairs[at:at + length] for at in range(0, len(pairs), length)]


class FormatsTest(ClusterTest):
    def checkpoint_of(self, node):
        self.assert_finished(node)
        checkpoint = Checkpoint(sorted((node.directory / "checkpoints").glob("step-*"))[-1])
        conditions = {"always", "with AdamW"} | ({"in a swarm"} if checkpoint.manifest["outer"] else set())
        if checkpoint.manifest["in_flight"]:  # A stop while a round is open leaves some.
            conditions.add("where there are some")
        expected = {file for file, _, condition in table("file", "what", "is there") if condition in conditions}
        self.assertEqual({path.name for path in checkpoint.folder.glob("*.safetensors")}, expected)
        self.assertEqual(set(checkpoint.manifest["files"]), expected)
        for file in expected - {"in_flight.safetensors"}:  # That one has bytes under names of its own.
            checkpoint.tensors(file)
        return checkpoint

    def json_of(self, *arguments):
        result = run_atoll(*arguments, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout.splitlines()[-1])

    def check_loss(self, checkpoint, rows):
        data = json.loads(checkpoint.manifest["data_config"])
        documents = read_documents(data["data"]["sources"][0]["prefix"])
        every = validation_rows(documents, data["seed"], data["data"]["validation_fraction"], checkpoint.letters["T"])
        self.assertGreater(len(every), 2 * rows)  # So that it matters which ones.
        model, losses = Model(checkpoint), []
        for row in (every[i * len(every) // rows] for i in range(rows)):
            starts = [next(s for s in range(len(row)) if row[s][0] == pair[0]) for pair in row]
            all_logits = model.logits([pair[1] for pair in row], starts, range(len(row)))
            losses += [-math.log(softmax(logits)[pair[2]]) for logits, pair in zip(all_logits, row)]
        report = self.json_of("evaluate", "--checkpoint", checkpoint.folder, "--rows", rows)
        self.assertEqual(report["tokens"], len(losses))
        self.assertAlmostEqual(report["loss"], sum(losses) / len(losses), places=4)

    def check_text(self, checkpoint, count):
        model, tokens = Model(checkpoint), [256, *b"int f"]
        for _ in range(count):
            row = tokens[-checkpoint.letters["T"]:]
            logits, = model.logits(row, [0] * len(row), [len(row) - 1])
            tokens.append(logits.index(max(logits)))
        report = self.json_of("generate", "--checkpoint", checkpoint.folder, "--prompt", "int f", "--tokens", count,
                              "--temperature", 0)
        self.assertEqual(report["text"].encode(), bytes(token for token in tokens[6:] if token < 256))

    def test_a_solo_checkpoint_from_the_page_alone(self):
        node = self.start_node("run", solo=True, seed=11, training__steps=150, optimizer__learning_rate=2e-2)
        checkpoint = self.checkpoint_of(node)
        self.check_loss(checkpoint, rows=5)
        self.check_text(checkpoint, count=40)

    def test_a_swarms_checkpoint_and_its_fragments(self):
        for fragments in (2, 3, 4):  # Without fragments of their own for embedding and head, and with them.
            self.start_coordinator(training__steps=100000, outer__fragments=fragments)
            node = self.start_node(f"of_{fragments}", training__steps=100000, outer__fragments=fragments)
            for fragment in range(fragments):
                node.wait_for_round(2, fragment)
            node.signal(signal.SIGTERM)  # At the end of a run inner and outer parameters are the same.
            checkpoint = self.checkpoint_of(node)
            self.assertEqual(len(checkpoint.manifest["outer"]), fragments)
            letters = {**checkpoint.letters, "P": fragments}
            column = 2 if fragments > 2 else 1
            rules = {row[0]: row[column] for row in table("unit", "if P < 3", "if P > 2")}
            members = [[] for _ in range(fragments)]
            numbers = {"embedding": 0, "head": letters["L"] + 1}
            number_of = lambda unit: numbers[unit] if unit in numbers else int(unit.split(".")[1]) + 1  # noqa: E731
            for unit in sorted(checkpoint.units, key=number_of):
                number = int(unit.split(".")[1]) if "." in unit else 0
                rule = rules[re.sub(r"\d+", "{i}", unit)]
                members[calculate(rule, {**letters, "i": number})].append(unit)
            files = [checkpoint.tensors(f"outer_{name}.safetensors") for name in ("parameters", "momentum")]
            for number, (state, units) in enumerate(zip(checkpoint.manifest["outer"], members)):
                self.assertGreater(state["version"], 0)
                text = struct.pack("<QQ", state["version"], number)
                for tensors in files:
                    data = b"".join(tensors[name].tobytes() for unit in units
                                    for name in checkpoint.units[unit])
                    text += b"".join(hashlib.sha256(data[at:at + 2**20]).digest() for at in range(0, len(data), 2**20))
                self.assertEqual(hashlib.sha256(text).hexdigest(), state["digest"], f"fragment {number} of {fragments}")
        self.check_loss(checkpoint, rows=2)


if __name__ == "__main__":
    unittest.main()
