"""Encoded chunks in Python, as docs/formats/codecs.md tells it, and sums of squares, as docs/formats/round.md does.

Numbers are fp32 in arrays of type "f". Every operation is done in double precision and rounded once, when it is stored in
one; for a product, quotient or sum of two fp32 numbers that gives the correctly rounded result.
"""

import functools
import math
import operator
import struct
from array import array

BLOCKS = {"int8": 512, "int4": 128, "lut2": 4096}
HEADER_BYTES = {"int8": 4, "int4": 2, "lut2": 16}
BITS = {"int8": 8, "int4": 4, "lut2": 2}
LARGEST = struct.unpack("<f", bytes.fromhex("ffff7f7f"))[0]


def add_up(numbers):
    """One after the other: what sum() does with floats depends on Python's version."""
    return functools.reduce(operator.add, numbers, 0.0)


def squares_of(values):
    """In eight lanes; what is left over goes into the first."""
    whole = len(values) - len(values) % 8
    lanes = [add_up(x * x for x in values[lane:whole:8]) for lane in range(8)]
    lanes[0] = functools.reduce(operator.add, (x * x for x in values[whole:]), lanes[0])
    return add_up(lanes)


def fp32(number):
    return array("f", [number])[0]


def blocks_of(codec, count):
    return [(first, min(BLOCKS[codec], count - first)) for first in range(0, count, BLOCKS[codec])]


def encoded_bytes(codec, count):
    if codec == "fp32":
        return 4 * count
    return HEADER_BYTES[codec] * len(blocks_of(codec, count)) + -(-count * BITS[codec] // 8)


def to_bf16(number):
    [bits] = struct.unpack("<I", struct.pack("<f", number))
    low = bits & 0xFFFF
    return (bits >> 16) + (low > 0x8000 or (low == 0x8000 and bits >> 16 & 1))


def from_bf16(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def headers_of(codec, data, count):
    number = len(blocks_of(codec, count))
    if codec == "int4":
        return [from_bf16(bits) for bits in struct.unpack_from(f"<{number}H", data)]
    if codec == "int8":
        return struct.unpack_from(f"<{number}f", data)
    flat = struct.unpack_from(f"<{4 * number}f", data)
    return [flat[4 * i:4 * i + 4] for i in range(number)]


def codes_of(codec, data, count):
    """Numbers, the padding left out. Raises ValueError where bits behind the last code are set."""
    packed = data[HEADER_BYTES[codec] * len(blocks_of(codec, count)):]
    if codec == "int8":
        return array("b", packed)
    bits = BITS[codec]
    codes = [byte >> shift & (1 << bits) - 1 for byte in packed for shift in range(0, 8, bits)]
    if any(codes[count:]):
        raise ValueError("bits behind the last code")
    del codes[count:]
    return [(code ^ 8) - 8 for code in codes] if codec == "int4" else codes


def check(codec, data, count):
    """Raises ValueError for what a receiver refuses."""
    if len(data) != encoded_bytes(codec, count):
        raise ValueError(f"{len(data)} bytes of {codec} for {count} elements")
    if codec == "fp32":
        if not all(map(math.isfinite, array("f", data))):
            raise ValueError("a value is not finite")
        return
    codes = codes_of(codec, data, count)
    for (first, length), header in zip(blocks_of(codec, count), headers_of(codec, data, count)):
        check_block(codec, header, codes[first:first + length])


def check_block(codec, header, codes):
    if codec == "lut2":
        for code, mean in enumerate(header):
            is_fine = math.copysign(1, mean) > 0 if mean == 0 else math.isfinite(mean) and abs(mean) >= 2.0**-120 and (mean < 0) == (code > 1)
            if not is_fine:
                raise ValueError("a mean that cannot be")
        if any(header[outer] and abs(header[outer]) < abs(header[outer - 1]) for outer in (1, 3)):
            raise ValueError("an outer mean inside")
        return
    least = fp32(2.0**-100 / 127) if codec == "int8" else 2.0**-100
    most = 0x810203 * 2.0**98 if codec == "int8" else float.fromhex("0x1.24p125")
    if not (math.copysign(1, header) > 0 and (header == 0 or least <= header <= most)):
        raise ValueError("a scale that cannot be")
    if min(codes) < (-127 if codec == "int8" else -7):
        raise ValueError("a code that cannot be")
    if codec == "int4" and max(map(abs, codes)) != (7 if header else 0):
        raise ValueError("a block whose largest code is not 7")


def decode(codec, data, count):
    if codec == "fp32":
        return array("f", data)
    values, codes = array("f"), codes_of(codec, data, count)
    for (first, length), header in zip(blocks_of(codec, count), headers_of(codec, data, count)):
        of_block = codes[first:first + length]
        values.extend([header[code] for code in of_block] if codec == "lut2" else [code * header for code in of_block])
    return values


def squares(codec, data, count):
    """Of the decoded numbers, in double precision and in one order."""
    if codec == "fp32":
        return add_up(squares_of(array("f", data[4 * first:4 * first + 4 * 4096])) for first in range(0, count, 4096))
    if codec == "lut2":
        values = decode(codec, data, count)
        return add_up(squares_of(values[first:first + length]) for first, length in blocks_of(codec, count))
    codes = codes_of(codec, data, count)
    return add_up(float(sum(code * code for code in codes[first:first + length])) * (scale * scale)
                  for (first, length), scale in zip(blocks_of(codec, count), headers_of(codec, data, count)))


def encode(codec, values):
    """For results: int8, int4 and fp32."""
    if codec == "fp32":
        return values.tobytes()
    headers, codes = b"", []
    for first, length in blocks_of(codec, len(values)):
        block = values[first:first + length]
        header, factor = scale_of(codec, max(map(abs, block)))
        headers += header
        codes += map(round, array("f", [x * factor for x in block])) if factor else [0] * length
    if codec == "int8":
        return headers + array("b", codes).tobytes()
    codes += [0] * (len(codes) % 2)
    return headers + bytes(first & 15 | (second & 15) << 4 for first, second in zip(codes[::2], codes[1::2]))


def scale_of(codec, largest):
    """A block's header, and by what its numbers are multiplied; 0 where they become zeros."""
    if codec == "int8":
        if largest < 2.0**-100:
            return bytes(4), 0
        return struct.pack("<f", min(fp32(largest / 127), 0x810203 * 2.0**98)), fp32(127 / largest)
    bits = to_bf16(fp32(largest / 7))
    if from_bf16(bits) < 2.0**-100:
        return bytes(2), 0
    return struct.pack("<H", bits), fp32(1 / from_bf16(bits))
