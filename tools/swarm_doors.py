"""Bad lines in front of real processes: doors that pass frames on, count them, and do to them what is asked.

A door keeps its address while the program behind it is killed and started again. It sees whole frames (runs with
`swarm.security none` only), so that what happens can happen at an exact one. Runs on asyncio, in one thread.
"""

import asyncio
import random
import socket
import struct

from swarm_links import within
from swarm_wire import HEADER, MESSAGES, NAMES, Message

CONNECT_SECONDS = 5
DATA_HELLO = MESSAGES["DataHello"][0]


class Pipe:
    """A connection through a door. `dialler`: the peer number that whoever came says that it has; `number`: the how manieth it is."""

    def __init__(self, door, number, inner, outer):
        self.door, self.number, self.ends = door, number, (inner, outer)
        self.dialler = None
        self.order = None         # For the next frame: "flip" or "truncate".
        self.is_swallowed = False  # Half open: both ends stay, and nothing passes any more.
        self.swallowed = 0         # Frames.

    def reset(self):
        """Both ends hear of it at once, with no FIN."""
        for writer in self.ends:
            if not writer.transport.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        self.door.pipes.discard(self)


class Door:
    """`target()`: the port behind it, or None. `watch(door, pipe, is_outward, name, frame)` sees each whole frame before it passes,
    and may return False: it does not. `may_pass(dialler)` is asked about each dialler of a data link."""

    def __init__(self, target, watch, may_pass, rng=None):
        self.target, self.watch, self.may_pass, self.rng = target, watch, may_pass, rng or random.Random(0)
        self.pipes, self.count = set(), 0
        self.tasks = set()  # asyncio keeps only weak references.
        self.is_cut = self.is_half_open = False
        self.delay_seconds = 0.0

    async def open(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=512)
        self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader, writer):
        port = None if self.is_cut else self.target()
        try:
            if not port:
                raise ConnectionError("nobody is there")
            inner_reader, inner = await within(CONNECT_SECONDS, asyncio.open_connection("127.0.0.1", port))
        except (OSError, asyncio.CancelledError):  # Cancelled: the program ends.
            writer.transport.abort()
            return
        self.count += 1
        pipe = Pipe(self, self.count, inner, writer)
        pipe.is_swallowed = self.is_half_open
        self.pipes.add(pipe)
        for ends in ((reader, inner, False), (inner_reader, writer, True)):
            task = asyncio.ensure_future(self.pump(pipe, *ends))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def pump(self, pipe, source, sink, is_outward):
        try:
            while True:
                data = await source.readexactly(HEADER.size)
                data += await source.readexactly(HEADER.unpack(data)[5])
                if not await self.pass_on(pipe, data, sink, is_outward):
                    return
        except (OSError, EOFError, struct.error):
            pass
        finally:
            pipe.reset() if pipe.is_swallowed else self.end(pipe, sink)

    def end(self, pipe, sink):
        """One end closed its side: what was passed on still arrives."""
        if not sink.transport.is_closing():
            sink.close()
        if all(writer.transport.is_closing() for writer in pipe.ends):
            self.pipes.discard(pipe)

    async def pass_on(self, pipe, data, sink, is_outward):
        number = HEADER.unpack(data[:HEADER.size])[3]
        if number == DATA_HELLO and not is_outward:
            pipe.dialler = HEADER.unpack(data[:HEADER.size])[13]
            if not self.may_pass(pipe.dialler):
                pipe.reset()
                return False
        if not self.watch(self, pipe, is_outward, NAMES.get(number), data):
            return True
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)  # This is what a slow line is.
        if pipe.is_swallowed:
            pipe.swallowed += 1
            return True
        order, pipe.order = pipe.order, None
        if order == "flip":
            data = bytearray(data)
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        if order == "truncate":
            sink.write(data[:self.rng.randrange(1, len(data))])
            return False
        sink.write(data)
        await sink.drain()
        return True

    # -- What can be done to it.

    def cut(self, is_cut):
        self.is_cut = is_cut
        if is_cut:
            self.reset()

    def half_open(self, is_half_open):
        """What is there stays half open for ever; what is dialled meanwhile is, too."""
        self.is_half_open = is_half_open
        if is_half_open:
            for pipe in self.pipes:
                pipe.is_swallowed = True

    def reset(self):
        for pipe in list(self.pipes):
            pipe.reset()

    def heal(self):
        self.is_cut = self.is_half_open = False
        self.delay_seconds = 0.0
        for pipe in list(self.pipes):
            pipe.order = None
            if pipe.is_swallowed:
                pipe.reset()

    def close(self):
        self.server.close()
        self.reset()


def message_of(data):
    return Message(bytes(data[:HEADER.size]), bytes(data[HEADER.size:]))
