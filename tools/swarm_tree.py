"""The hash tree over the chunks of a contribution, as docs/formats/wire.md tells it."""

import hashlib

PATH_LENGTH = 16  # Digests of a path as it travels; those above the root are zero.


def levels_over(chunks):
    """Of the encoded chunks: the leaves first, the root last."""
    leaves = [hashlib.sha256(chunk).digest() for chunk in chunks]
    leaves += [bytes(32)] * ((1 << (len(leaves) - 1).bit_length()) - len(leaves))
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([hashlib.sha256(below[i] + below[i + 1]).digest() for i in range(0, len(below), 2)])
    return levels


def root_over(chunks):
    return levels_over(chunks)[-1][0]


def with_path(chunks, index):
    """A chunk as its sender gives it: the path, then the encoded numbers."""
    path = [level[(index >> depth) ^ 1] for depth, level in enumerate(levels_over(chunks)[:-1])]
    return b"".join(path).ljust(32 * PATH_LENGTH, b"\0") + chunks[index]


def root_from(data, index, count):
    """That to which the path of a chunk of `count` leads, as it was sent."""
    node = hashlib.sha256(without_path(data)).digest()
    for depth in range((count - 1).bit_length()):
        other = data[32 * depth:32 * (depth + 1)]
        node = hashlib.sha256(other + node if (index >> depth) & 1 else node + other).digest()
    return node


def without_path(data):
    return data[32 * PATH_LENGTH:]
