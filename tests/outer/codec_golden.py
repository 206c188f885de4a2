#!/usr/bin/env python3
"""Prints the SHA-256 that codec_test.cpp expects of the codecs' bytes, computed from docs/formats/codecs.md alone.

Every operation is done in double precision and rounded to fp32 once; for one product, quotient or sum of two fp32 numbers that
gives the correctly rounded result.
"""
import hashlib
import math
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


def int8():
    scales, codes = b"", b""
    for first in range(0, len(values), 512):
        block = values[first:first + 512]
        maximum = max(abs(v) for v in block)
        scales += struct.pack("<f", fp32(maximum / 127))
        inverse = fp32(127 / maximum)
        codes += b"".join(struct.pack("<b", round(fp32(v * inverse))) for v in block)
    return scales + codes


def packed(codes, bits):
    """Codes of so many bits as bytes, the first of a byte in its lowest bits."""
    per_byte = 8 // bits
    codes = codes + [0] * (-len(codes) % per_byte)
    mask = (1 << bits) - 1
    return bytes(sum((code & mask) << bits * i for i, code in enumerate(codes[first:first + per_byte]))
                 for first in range(0, len(codes), per_byte))


def int4():
    scales, codes = b"", []
    for first in range(0, len(values), 128):
        block = values[first:first + 128]
        bits = struct.unpack("<I", struct.pack("<f", fp32(max(abs(v) for v in block) / 7)))[0]
        low = bits & 0xFFFF
        bits = (bits >> 16) + (low > 0x8000 or (low == 0x8000 and bits >> 16 & 1))
        scales += struct.pack("<H", bits)
        scale = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
        inverse = fp32(1 / scale)
        codes += [round(fp32(v * inverse)) for v in block]
    return scales + packed(codes, 4)


def lut2():
    headers, codes = b"", []
    for first in range(0, len(values), 4096):
        block = values[first:first + 4096]
        maximum = max(abs(v) for v in block)
        inverse = fp32(2**18 / maximum)
        numbers = [round(fp32(v * inverse)) for v in block]
        threshold = math.isqrt(9 * sum(n * n for n in numbers) // (4 * len(numbers)))
        bins = [2 * (n < 0) + (abs(n) > threshold) for n in numbers]
        for code in range(4):
            of_bin = [n for n, b in zip(numbers, bins) if b == code]
            mean = fp32(fp32(sum(of_bin)) / len(of_bin)) if of_bin else 0.0
            headers += struct.pack("<f", fp32(mean * maximum * 2.0 ** -18))
        codes += bins
    return headers + packed(codes, 2)


def int8_codebook(sigmas=6):
    headers, codes = b"", b""
    for first in range(0, len(values), 4096):
        block = values[first:first + 4096]
        maximum = max(abs(v) for v in block)
        numbers = [round(fp32(v * fp32(2**18 / maximum))) for v in block]
        rms = math.sqrt(sum(n * n for n in numbers) / len(numbers))
        inverse = fp32(256 / (2 * sigmas * rms))
        buckets = [min(max(round(fp32(n * inverse)) + 128, 0), 255) for n in numbers]
        for code in range(256):
            of_bucket = [n for n, b in zip(numbers, buckets) if b == code]
            mean = fp32(fp32(sum(of_bucket)) / len(of_bucket)) if of_bucket else 0.0
            headers += struct.pack("<f", fp32(mean * maximum * 2.0 ** -18))
        codes += bytes(buckets)
    return headers + codes


for codec in (int8, int4, lut2, int8_codebook):
    print(codec.__name__, hashlib.sha256(codec()).hexdigest())
