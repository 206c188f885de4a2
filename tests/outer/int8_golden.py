#!/usr/bin/env python3
"""Prints the SHA-256 that codec_test.cpp expects of the int8 codec's bytes, computed from the definition in codec.h alone.

Every operation is done in double precision and rounded to fp32 once; for one product, quotient or sum of two fp32 numbers that
gives the correctly rounded result.
"""
import hashlib
import struct


def philox(key, counter_low, counter_high):
    c = [counter_low & 0xFFFFFFFF, counter_low >> 32, counter_high & 0xFFFFFFFF, counter_high >> 32]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def fp32(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def value(index):
    words = philox(2024, index, 0)
    word = words[0] | words[1] << 32
    return ((word >> 40) - (1 << 23)) * 2.0 ** -(word % 40)


values = [value(i) for i in range(10_000)]
scales, quantised = b"", b""
for first in range(0, len(values), 512):
    block = values[first:first + 512]
    maximum = max(abs(v) for v in block)
    scales += struct.pack("<f", fp32(maximum / 127))
    inverse = fp32(127 / maximum)
    quantised += b"".join(struct.pack("<b", round(fp32(v * inverse))) for v in block)
print(hashlib.sha256(scales + quantised).hexdigest())
