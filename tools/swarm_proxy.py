"""A bad line in front of a real node's data port: what the coordinator asks of the port passes, what other nodes want does not.

Such a node is blameless in everything that it says itself. Only those who wait for its chunks know better.
"""

import pathlib
import socket
import threading
import time

import swarm_wire

CHUNK_BYTES = 1024  # What a slow line passes at once.


def listening_port(pid):
    """The port on which a process listens; None while it does not. Linux tells which sockets are whose."""
    listening = {}
    for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            listening[f"socket:[{fields[9]}]"] = int(fields[1].split(":")[1], 16)
    for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue  # It was closed meanwhile.
        if target in listening:
            return listening[target]
    return None


class Proxy:
    """`bytes_per_second` of what the node sends on data links pass; 0: nothing does. `swallowed` counts the links that suffered."""

    def __init__(self, bytes_per_second):
        self.bytes_per_second = bytes_per_second
        self.node_port = None  # Asked once somebody dials: the node listens before it says its address.
        self.swallowed = 0
        self.sockets = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(connection)
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        try:
            first = swarm_wire.receive(connection)
            upstream = socket.create_connection(("127.0.0.1", self.node_port()))
            self.sockets.append(upstream)
            upstream.sendall(first.raw)
            limited = first.name != "DialBack"
            self.swallowed += limited
            threading.Thread(target=self.relay, args=[connection, upstream, None], daemon=True).start()
            self.relay(upstream, connection, self.bytes_per_second if limited else None)
        except OSError:
            pass

    @staticmethod
    def relay(source, target, bytes_per_second):
        try:
            while data := source.recv(CHUNK_BYTES if bytes_per_second else 65536):
                if bytes_per_second:
                    time.sleep(len(data) / bytes_per_second)  # This is what a slow line is.
                if bytes_per_second != 0:
                    target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        for one in [self.listener, *self.sockets]:
            one.close()
