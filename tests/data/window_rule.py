#!/usr/bin/env python3
"""The window rule of docs/formats/token-dataset.md, written a second time from the page alone.

Prints the constants of sampler_golden_test.cpp, for which the sampler in C++ must give the same rows:

    python3 tests/data/window_rule.py
"""

MASK32, MASK64 = 2**32 - 1, 2**64 - 1
HOLD_OUT, PASS_ORDER, MIXING, VALIDATION_ORDER, WINDOW_ORDER = 1, 2, 3, 4, 5
BLOCK = 1024


def philox(key, low, high=0):
    c = [low & MASK32, low >> 32, high & MASK32, high >> 32]
    k0, k1 = key & MASK32, key >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & MASK32, (p0 >> 32) ^ c[3] ^ k1, p0 & MASK32]
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c[0] | c[1] << 32


def crc32c(data):
    crc = MASK32
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ MASK32


def name_of(document):
    return len(document) << 32 | crc32c(b"".join((t & MASK32).to_bytes(4, "little") for t in document))


def shuffle(items, key, stream):
    for step, i in enumerate(range(len(items) - 1, 0, -1)):
        j = philox(key, step, stream) * (i + 1) >> 64
        items[i], items[j] = items[j], items[i]
    return items


class Sampler:
    def __init__(self, datasets, seed, length, fraction, weights):
        self.seed, self.length = seed, length
        self.training, held_out = [], []
        key = philox(seed, HOLD_OUT, 0)
        for d, documents in enumerate(datasets):
            self.training.append([])
            for document in documents:
                if len(document) < 2:
                    continue
                is_held_out = (philox(key, 0, name_of(document)) >> 11) * 2.0**-53 < fraction
                (held_out if is_held_out else self.training[d]).append(document)
        self.validation = self.pairs_of(shuffle(held_out, philox(seed, VALIDATION_ORDER, 0), 0))
        shares = [w / sum(weights) * BLOCK for w in weights]
        self.slots = [int(s) for s in shares]
        by_remainder = sorted(range(len(weights)), key=lambda d: self.slots[d] - shares[d])
        for d in by_remainder[: BLOCK - sum(self.slots)]:
            self.slots[d] += 1
        for d, w in enumerate(weights):
            if w > 0 and self.slots[d] == 0:
                self.slots[self.slots.index(max(self.slots))] -= 1
                self.slots[d] = 1

    @staticmethod
    def pairs_of(documents):
        return [(n, i, a, b) for n, t in enumerate(documents) for i, (a, b) in enumerate(zip(t, t[1:]))]

    def pass_pairs(self, d, number):
        return self.pairs_of(shuffle(list(self.training[d]), philox(self.seed, PASS_ORDER, d), number))

    @staticmethod
    def as_row(pairs):
        """pairs: (pass, document in the pass, position in the document, input, target)"""
        starts = []
        for at, pair in enumerate(pairs):
            starts.append(starts[-1] if at and pair[:2] == pairs[at - 1][:2] else at)
        return [p[3] for p in pairs], [p[4] for p in pairs], starts

    def window_at(self, d, place, per_pass):
        number = place * self.length // per_pass
        first = -(-number * per_pass // self.length)
        behind = -(-(number + 1) * per_pass // self.length)
        order = shuffle(list(range(behind - first)), philox(self.seed, WINDOW_ORDER, d), number)
        return first + order[place - first]

    def training_row(self, sample):
        block, slot = divmod(sample, BLOCK)
        owners = [d for d, n in enumerate(self.slots) for _ in range(n)]
        shuffle(owners, philox(self.seed, MIXING, 0), block)
        d = owners[slot]
        per_pass = sum(len(t) - 1 for t in self.training[d])
        window = self.window_at(d, block * self.slots[d] + owners[:slot].count(d), per_pass)
        pairs = []
        for pair in range(window * self.length, (window + 1) * self.length):
            number, offset = divmod(pair, per_pass)
            pairs.append((number, *self.pass_pairs(d, number)[offset]))
        return self.as_row(pairs)

    def validation_row(self, row):
        pairs = [(0, *p) for p in self.validation[row * self.length : (row + 1) * self.length]]
        tokens, targets, starts = self.as_row(pairs)
        pad = self.length - len(pairs)
        return tokens + [0] * pad, targets + [-1] * pad, starts + [len(pairs)] * pad


def fnv1a(rows):
    value = 0xCBF29CE484222325
    for row in rows:
        for number in (n for part in row for n in part):
            for byte in (number & MASK32).to_bytes(4, "little"):
                value = (value ^ byte) * 0x100000001B3 & MASK64
    return value


def main():
    datasets = [[[(d * 2000 + i * 31 + j * 5) % 4096 for j in range((i * 7 + d * 3) % 11)]
                 for i in range(40)] for d in range(2)]
    sampler = Sampler(datasets, seed=2**63 + 42, length=8, fraction=0.2, weights=[3, 1])
    print("sample 17:", sampler.training_row(17))
    rows = [sampler.training_row(sample) for sample in [*range(180), 1200, 1201, 1202]]
    print(f"training rows:   0x{fnv1a(rows):016x}")
    count = -(-len(sampler.validation) // sampler.length)
    print(f"validation rows: {count}, 0x{fnv1a([sampler.validation_row(r) for r in range(count)]):016x}")


if __name__ == "__main__":
    main()
