#!/usr/bin/env python3
"""Makes TensorBoard event files of a run's metrics; no other package is needed.

    python3 tools/feed_tensorboard.py runs/atoll --output boards/atoll [--follow]
    tensorboard --logdir boards
"""

import argparse
import calendar
import pathlib
import struct
import sys
import time

from metrics_scalars import lines_of, scalars_of


def crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


TABLE = crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def masked(data):
    """As TFRecord files have it."""
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data):
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value):
    value &= (1 << 64) - 1
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def field(number, data):
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def event(wall_time, step=None, scalars=None):
    """tensorflow.Event: wall_time 1, step 2, file_version 3, summary 5 of values 1 with tag 1 and simple_value 2."""
    data = b"\x09" + struct.pack("<d", wall_time)
    if scalars is None:
        return data + field(3, b"brain.Event:2")
    values = b"".join(field(1, field(1, name.encode()) + b"\x15" + struct.pack("<f", value)) for name, value in scalars.items())
    return data + b"\x10" + varint(step) + field(5, values)


def wall_time_of(line):
    text, _, fraction = line.get("time", "").rstrip("Z").partition(".")
    try:
        return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) + float("0." + (fraction or "0"))
    except ValueError:
        return time.time()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the run directory of a node")
    parser.add_argument("--output", required=True, help="a folder, which gets one event file more")
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    arguments = parser.parse_args()
    if not arguments.follow and not (pathlib.Path(arguments.run) / "metrics.jsonl").exists():
        print(f"{arguments.run}: there is no metrics.jsonl", file=sys.stderr)
        return 2
    folder = pathlib.Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"events.out.tfevents.{time.time_ns()}.atoll", "xb") as file:
        file.write(record(event(time.time())))
        try:
            for line in lines_of(arguments.run, arguments.follow):
                if line is None:
                    file.flush()
                    continue
                step, scalars = scalars_of(line)
                if scalars:
                    file.write(record(event(wall_time_of(line), step, scalars)))
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
