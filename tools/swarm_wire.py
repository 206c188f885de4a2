"""The swarm's protocol in Python, as docs/formats/wire.md tells it: frames, and messages as tables of their fields.

A message that gets a field more, or a new message, is a line in MESSAGES.
"""

import hashlib
import struct

HEADER = struct.Struct("<4sBBHIIQQQIIIIII")
NOBODY = 0xFFFFFFFF
NO_VERSION = (1 << 64) - 1
PROTOCOL = 7
CONTRIBUTION, RESULT, STATE, PAST, DIGESTS, PROOF = 1, 2, 3, 4, 5, 6
DIGEST_UNKNOWN = bytes(32)

STATE_OF_FRAGMENT = [("version", "Q"), ("digest", "digest")]
ELECTORATE = [("voters", [("node_key", "Q")]), ("tie_breaker", "Q")]
MESSAGES = {  # Name: (type, fields). A field is a name and what it is: a number, a part, or a list of entries with fields.
    "Hello": (1, [("protocol", "I"), ("node_key", "Q"), ("node_name", "text"), ("config", "digest"), ("listen", "endpoint"),
                  ("step", "Q"), ("samples", "Q"), ("states", STATE_OF_FRAGMENT), ("last_term", "I"), ("last_epoch", "Q"),
                  ("last_member_count", "I"), ("last_electorates", ELECTORATE), ("remembers", "B"), ("coordinator", "Q"), ("is_home", "B"),
                  ("was_reachable", "B"),
                  ("held", [("fragment", "I"), ("term", "I"), ("attempt", "I"), ("round", "Q"), ("results", "digest"), ("step", "Q")])]),
    "Synced": (2, [("states", STATE_OF_FRAGMENT)]),
    "Heartbeat": (3, [("step", "Q"), ("loss", "f"), ("progress", "Q"), ("owes_contribution", "Q"), ("owes_result", "Q"),
                      ("silent", "Q"), ("unreachable", "Q"), ("lacks", "I")]),
    "Ready": (4, [("weight_tokens", "q"), ("step", "Q"), ("contribution", "digest")]),
    "Done": (5, [("results", "digest")]),
    "Applied": (6, [("digest", "digest")]),
    "Leave": (7, [("reason", "text")]),
    "NeedSamples": (8, [("count", "Q")]),
    "Audited": (9, [("published", "digest"), ("remade", "digest"), ("withheld", "Q")]),
    "Welcome": (16, [("peer", "I"), ("heartbeat_interval_ms", "I"), ("dead_after_ms", "I"), ("coordinator", "Q")]),
    "Reject": (17, [("reason", "text"), ("restart_makes_sense", "B"), ("shared_config", "text")]),
    "CatchUp": (18, [("states", STATE_OF_FRAGMENT), ("donors", [("peer", "I"), ("data", "endpoint"), ("node_key", "Q")]), ("step", "Q")]),
    "Start": (19, [("step", "Q"), ("samples_void_below", "Q")]),
    "Membership": (20, [("members", [("peer", "I"), ("node_key", "Q"), ("data", "endpoint"), ("is_reachable", "B")]),
                        ("electorates", ELECTORATE)]),
    "Measured": (10, [("ways", [("peer", "I"), ("round_trip_us", "I"), ("bytes_per_second", "Q")])]),
    "Open": (21, [("contributors", [("peer", "I"), ("weight_tokens", "q"), ("data", "endpoint"), ("node_key", "Q"),
                                    ("contribution", "digest")]),
                  ("owners", [("index", "B")]), ("step", "Q"), ("plan", "B"), ("places", [("place", "B")]), ("estimated_ms", "I")]),
    "Reown": (22, [("excluded", [("peer", "I")]), ("owners", [("index", "B")])]),
    "Commit": (23, [("results", "digest"), ("step", "Q")]),
    "Abort": (24, []),
    "HeartbeatReply": (25, []),
    "Notice": (26, [("contributes", "B"), ("reason", "text")]),
    "Samples": (27, [("first", "Q"), ("count", "Q")]),
    "Redirect": (29, [("coordinator", "endpoint"), ("node_key", "Q")]),
    "Audit": (30, []),
    "StandBy": (31, [("coordinator", "Q")]),
    "DataHello": (32, [("peer", "I")]),
    "Want": (33, [("kind", "B")]),
    "Chunk": (34, [("kind", "B"), ("bytes", "rest")]),
    "Gone": (35, [("kind", "B")]),
    "DialBack": (36, [("nonce", "Q")]),
    "DialBackReply": (37, [("proof", "Q")]),
    "Offer": (38, [("peer", "I"), ("round_trip_us", "I")]),
    "Invite": (39, [("links", "I")]),
    "Visits": (40, [("peers", [("peer", "I"), ("data", "endpoint"), ("node_key", "Q")])]),
}
NAMES = {number: name for name, (number, _) in MESSAGES.items()}


def crc32c_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC32C = crc32c_table()


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = CRC32C[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def encode_field(kind, value):
    if isinstance(kind, list):
        return struct.pack("<I", len(value)) + b"".join(encode_fields(kind, entry) for entry in value)
    if kind == "text":
        data = value.encode()
        return struct.pack("<H", len(data)) + data
    if kind == "endpoint":
        return encode_field("text", value[0]) + struct.pack("<H", value[1])
    return value if kind in ("digest", "rest") else struct.pack("<" + kind, value)


def encode_fields(fields, values):
    return b"".join(encode_field(kind, values[name]) for name, kind in fields)


def decode_field(kind, data, at):
    """The value, and where the next one begins."""
    if isinstance(kind, list):
        [count], at = struct.unpack_from("<I", data, at), at + 4
        entries = []
        for _ in range(count):
            entry, at = decode_fields(kind, data, at)
            entries.append(entry)
        return entries, at
    if kind == "text":
        end = at + 2 + struct.unpack_from("<H", data, at)[0]
        return data[at + 2:end].decode(), end
    if kind == "endpoint":
        host, at = decode_field("text", data, at)
        return (host, struct.unpack_from("<H", data, at)[0]), at + 2
    if kind == "digest":
        return data[at:at + 32], at + 32
    if kind == "rest":
        return data[at:], len(data)
    return struct.unpack_from("<" + kind, data, at)[0], at + struct.calcsize("<" + kind)


def decode_fields(fields, data, at=0):
    values = {}
    for name, kind in fields:
        values[name], at = decode_field(kind, data, at)
    return values, at


def first_number(data):
    return struct.unpack("<Q", hashlib.sha256(data).digest()[:8])[0]


def run_hash(name):
    return first_number(name.encode())


def dial_back_proof(node_key, nonce):
    return first_number(struct.pack("<QQ", node_key, nonce))


def frame(name, run, source=NOBODY, epoch=0, round=0, term=0, attempt=0, fragment=0, chunk=0, **values):
    """A whole frame: the message's values, and of its header what is not 0."""
    number, fields = MESSAGES[name]
    payload = encode_fields(fields, values)

    def header(checksum):
        return HEADER.pack(b"ATL1", 1, 0, number, checksum, len(payload), run, epoch, round, term, attempt, fragment, chunk, source,
                           crc32c(payload))

    return header(crc32c(header(0))) + payload


class Message:
    """A frame that came in: `name` (or None if it is in no table), the header's fields and the payload's as attributes."""

    def __init__(self, header, payload):
        (_, _, _, number, _, _, self.run, self.epoch, self.round, self.term, self.attempt, self.fragment, self.chunk, self.source,
         _) = HEADER.unpack(header)
        self.name = NAMES.get(number)
        self.raw = header + payload
        self.values = decode_fields(MESSAGES[self.name][1], payload)[0] if self.name else {}

    def __getattr__(self, name):
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def authority(self):
        return {key: getattr(self, key) for key in ("epoch", "round", "term", "attempt", "fragment", "chunk")}


def receive_bytes(connection, count):
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("the other side has closed the link")
        data += part
    return bytes(data)


def receive(connection):
    """The next message; ConnectionError or another OSError at the link's end."""
    header = receive_bytes(connection, HEADER.size)
    return Message(header, receive_bytes(connection, HEADER.unpack(header)[5]))
