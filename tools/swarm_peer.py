"""A member of the swarm that lies: it speaks the protocol well enough to be taken for a node, and trains nothing.

What a node of the run says of itself is learnt from a real one (`overhear_hello`); a lie replaces parts of that. A fake that
contributes sends other nodes' work as its own, that of an earlier round and with other scales, and what it owns it sums up by taking
one part for the mean.
"""

import hashlib
import random
import socket
import struct
import threading
import time

import swarm_wire
from swarm_tree import root_over, with_path, without_path
from swarm_wire import CONTRIBUTION, NO_VERSION, PROOF, RESULT, frame, receive

INT8_BLOCK = 512  # Elements that share a scale.


def overhear_hello(start_node):
    """What a node says first. `start_node` starts one with the coordinator's address that it is given, and returns its process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = start_node("127.0.0.1:%d" % listener.getsockname()[1])
        try:
            listener.settimeout(60)
            connection, _ = listener.accept()
            with connection:
                return receive(connection)
        finally:
            process.kill()
            process.wait()


def scale_contribution(encoded, scale):
    """The same int8 codes with another scale in every block."""
    blocks = -(-len(encoded) // (INT8_BLOCK + 4))
    return struct.pack("<f", scale) * blocks + encoded[4 * blocks:]


class Round:
    """What a fake knows of an open round."""

    def __init__(self, opened, templates):
        self.authority = opened.authority()
        self.contributors = opened.contributors
        self.owners = [owner["index"] for owner in opened.owners]
        self.attempts = [opened.attempt] * len(self.owners)
        self.excluded = set()
        self.templates = templates  # By chunk: a healthy node's contribution, from an earlier round.
        self.results = {}           # By chunk and attempt: what was said once stands.

    def reown(self, message):
        self.excluded |= {entry["peer"] for entry in message.excluded}
        for chunk, owner in enumerate(message.owners):
            if owner["index"] != 255:
                self.owners[chunk], self.attempts[chunk] = owner["index"], message.attempt
        self.authority["attempt"] = message.attempt

    def owner(self, chunk):
        return self.contributors[self.owners[chunk]]

    def result(self, chunk):
        key = (chunk, self.attempts[chunk])
        if key not in self.results:
            self.results[key] = self.sum_up(chunk)
        return self.results[key]

    def sum_up(self, chunk):
        members = [(index, entry) for index, entry in enumerate(self.contributors) if entry["peer"] not in self.excluded]
        return struct.pack("<QQq", sum(1 << index for index, _ in members), 0,
                           sum(entry["weight_tokens"] for _, entry in members)) + self.templates[chunk]


class FakePeer:
    """`hello`, and `ready`: values that replace the honest ones; `scale`: of its contributions; `digest`: of its states after a
    commit; `crowd`: the peer numbers of its accomplices, shared."""

    def __init__(self, name, coordinator, overheard, hello=None, ready=None, scale=None, digest=None, crowd=None):
        self.name = name
        self.ready, self.scale, self.digest = ready or {}, scale, digest
        self.crowd = crowd if crowd is not None else set()
        self.run = overheard.run
        self.lock = threading.RLock()
        self.rounds = {}     # By fragment.
        self.templates = {}  # By fragment: a healthy node's contribution, chunk by chunk.
        self.heard = []      # Names of what came from the coordinator; for Reject and Notice with the reason.
        self.peer, self.step, self.states, self.served, self.is_over = None, 0, [], 0, False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.hello = {**overheard.values, "node_key": random.getrandbits(63) | 1, "node_name": name, "step": 0,
                      "listen": self.server.getsockname(), **(hello or {})}
        if not (hello or {}).get("states"):
            self.hello["states"] = [{"version": NO_VERSION, "digest": bytes(32)} for _ in self.hello["states"]]
        host, port = coordinator.rsplit(":", 1)
        self.control = socket.create_connection((host, int(port)))
        self.sockets = [self.server, self.control]
        for body in (self.accept, self.listen, self.beat):
            threading.Thread(target=self.until_closed, args=[body], daemon=True).start()

    def until_closed(self, body, *arguments):
        try:
            body(*arguments)
        except (OSError, ValueError):
            pass
        if body == self.listen:
            self.is_over = True

    def close(self):
        self.is_over = True
        for one in list(self.sockets):
            one.close()

    def reasons(self):
        return [reason for _, reason in self.heard if reason]

    # -- Control.

    def tell(self, message, **values):
        with self.lock:
            source = swarm_wire.NOBODY if self.peer is None else self.peer
            self.control.sendall(frame(message, self.run, **{"source": source, **values}))

    def beat(self):
        progress = 0
        while not self.is_over:
            if self.peer is not None:
                progress += 1
                self.tell("Heartbeat", step=self.step, loss=1.0, progress=progress, owes_contribution=0, owes_result=0, silent=0,
                          unreachable=0, lacks=0)
            time.sleep(0.2)  # A heartbeat has an interval.

    def listen(self):
        self.tell("Hello", **self.hello)
        while True:
            message = receive(self.control)
            self.heard.append((message.name, message.values.get("reason", "")))
            with self.lock:
                getattr(self, "on_" + str(message.name), lambda _: None)(message)

    def on_Redirect(self, message):
        """The run goes on there."""
        self.control.close()
        self.control = socket.create_connection(message.coordinator)
        self.sockets.append(self.control)
        self.peer = None
        self.tell("Hello", **self.hello)

    def on_Welcome(self, message):
        self.peer = message.peer
        self.crowd.add(message.peer)

    def on_CatchUp(self, message):
        self.rounds.clear()
        self.states = message.states
        self.tell("Synced", states=self.states)

    def on_Start(self, message):
        self.step = message.step
        for fragment in range(len(self.states)):
            self.tell_ready(fragment, message)

    def contribution(self, fragment):
        """The encoded chunks; none before it has seen somebody else's."""
        templates = self.templates.get(fragment, [])
        return templates if self.scale is None else [scale_contribution(template, self.scale) for template in templates]

    def tell_ready(self, fragment, message):
        chunks = self.contribution(fragment)
        honest = {"weight_tokens": 1000, "step": self.step + 1, "contribution": root_over(chunks) if chunks else bytes(32)}
        self.tell("Ready", fragment=fragment, round=self.states[fragment]["version"] + 1, term=message.term,
                  **{**honest, **self.ready})

    def on_Open(self, message):
        self.rounds[message.fragment] = one = Round(message, self.templates.get(message.fragment))
        threading.Thread(target=self.until_closed, args=[self.exchange, one], daemon=True).start()

    def on_Reown(self, message):
        one = self.rounds.get(message.fragment)
        if one:
            one.reown(message)
            threading.Thread(target=self.until_closed, args=[self.exchange, one], daemon=True).start()

    def on_Abort(self, message):
        self.rounds.pop(message.fragment, None)

    def on_Commit(self, message):
        self.rounds.pop(message.fragment, None)
        self.step = message.step
        self.states[message.fragment] = {"version": message.round, "digest": self.digest or bytes(32)}
        if self.digest:
            self.tell("Applied", fragment=message.fragment, round=message.round, term=message.term, digest=self.digest)
        self.tell_ready(message.fragment, message)

    # -- A round, by one thread for each attempt.

    def exchange(self, one):
        attempt = one.authority["attempt"]
        victim = next((entry for entry in one.contributors if entry["peer"] not in self.crowd), None)
        if not victim:
            return  # Only liars are left.
        links, results = {}, {}
        try:
            if not one.templates:
                return self.look_at(victim, one, attempt, links)
            for chunk in range(len(one.owners)):
                owner = one.owner(chunk)
                results[chunk] = (one.result(chunk) if owner["peer"] == self.peer else
                                  self.fetch(links, one, attempt, RESULT, chunk, owner))
        finally:
            for link in links.values():
                link.close()
        digests = [hashlib.sha256(bytes([RESULT]) + results[chunk]).digest() for chunk in sorted(results)]
        digest = hashlib.sha256(b"".join(digests)).digest()
        if self.is_current(one, attempt):
            self.tell("Done", results=digest, **{**one.authority, "attempt": attempt})

    def look_at(self, victim, one, attempt, links):
        """It had to announce its contribution before it saw another's: out of this round, and into the next one."""
        self.templates[one.authority["fragment"]] = [
            without_path(self.fetch(links, one, attempt, CONTRIBUTION, chunk, victim)) for chunk in range(len(one.owners))]
        self.tell("Ready", fragment=one.authority["fragment"], round=one.authority["round"], term=one.authority["term"],
                  weight_tokens=-1, step=self.step + 1, contribution=bytes(32))

    def is_current(self, one, attempt):
        return self.rounds.get(one.authority["fragment"]) is one and one.authority["attempt"] == attempt and not self.is_over

    def fetch(self, links, one, attempt, kind, chunk, provider):
        if provider["peer"] not in links:
            links[provider["peer"]] = link = socket.create_connection(provider["data"], timeout=30)
            link.sendall(frame("DataHello", self.run, source=self.peer, peer=self.peer))
        link = links[provider["peer"]]
        while self.is_current(one, attempt):
            link.sendall(frame("Want", self.run, source=self.peer, kind=kind,
                               **{**one.authority, "attempt": one.attempts[chunk], "chunk": chunk}))
            answer = receive(link)
            if answer.name == "Chunk":
                return answer.bytes
            time.sleep(0.05)  # It said Gone: it may not know of the round yet.
        raise ConnectionError("the round is over")

    # -- Its data port.

    def accept(self):
        while True:
            connection, _ = self.server.accept()
            self.sockets.append(connection)
            threading.Thread(target=self.until_closed, args=[self.serve, connection], daemon=True).start()

    def serve(self, connection):
        while True:
            message = receive(connection)
            if message.name == "DialBack":
                proof = swarm_wire.dial_back_proof(self.hello["node_key"], message.nonce)
                connection.sendall(frame("DialBackReply", self.run, source=self.peer or 0, proof=proof))
            elif message.name == "Want":
                data = self.answer_to(message)
                answer = {"bytes": data} if data else {}
                connection.sendall(frame("Chunk" if data else "Gone", self.run, source=self.peer, kind=message.kind, **answer,
                                         **message.authority()))
                self.served += bool(data)

    def answer_to(self, want):
        """The bytes of a contribution or a result; None where there will be none."""
        chunks = self.contribution(want.fragment)
        one = self.rounds.get(want.fragment)
        if want.kind in (CONTRIBUTION, PROOF):
            is_announced = want.chunk < len(chunks) and (one is None or one.templates)
            return with_path(chunks, want.chunk) if is_announced else None
        is_there = one and one.templates and one.authority["round"] == want.round
        return one.result(want.chunk) if want.kind == RESULT and is_there else None
