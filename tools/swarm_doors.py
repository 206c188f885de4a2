"""Bad lines in front of real processes: doors that pass frames on, count them, and do to them what is asked.

A door keeps its address while the program behind it is killed and started again. It sees whole frames (runs with
`swarm.security none` only), so that what happens can happen at an exact one. A connection is on the lines of both its ends, as anybody
may dial anybody. Runs on asyncio, in one thread.
"""

import asyncio
import random
import socket
import struct

from swarm_links import within
from swarm_wire import HEADER, NAMES, Message

CONNECT_SECONDS = 5


class Line:
    """What pipes share, and what can be done to all of them: that which somebody dials, or by which he is dialled."""

    def __init__(self):
        self.pipes = set()
        self.is_cut = self.is_half_open = False
        self.delay_seconds = 0.0

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


class Pipe:
    """A connection through a door, on the door's lines and on those of whoever dialled, once that is known. `number`: the how manieth of
    the door it is."""

    def __init__(self, door, number, inner, outer):
        self.door, self.number, self.ends = door, number, (inner, outer)
        self.lines = []
        self.is_identified = False
        self.order = None         # For the next frame: "flip" or "truncate".
        self.is_swallowed = False  # Half open: both ends stay, and nothing passes any more.
        self.swallowed = 0         # Frames.

    def join(self, lines):
        for line in lines:
            self.lines.append(line)
            line.pipes.add(self)
            self.is_swallowed |= line.is_half_open

    def is_cut(self):
        return any(line.is_cut for line in self.lines)

    def delay_seconds(self):
        return max((line.delay_seconds for line in self.lines), default=0.0)

    def reset(self):
        """Both ends hear of it at once, with no FIN."""
        for writer in self.ends:
            if not writer.transport.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        self.leave()

    def leave(self):
        for line in self.lines:
            line.pipes.discard(self)


class Door:
    """`target()`: the port behind it, or None. `watch(pipe, is_outward, name, frame)` sees each whole frame before it passes, and may
    return False: it does not. `identify(pipe, frame)` is asked about the first frame of whoever dialled: more lines that the pipe is on.
    `lines`: those that all of its pipes are on; the last one is its own."""

    def __init__(self, target, watch, identify=lambda _pipe, _frame: [], lines=(), rng=None):
        self.target, self.watch, self.identify, self.rng = target, watch, identify, rng or random.Random(0)
        self.lines, self.count = [*lines, Line()], 0
        self.line = self.lines[-1]
        self.tasks = set()  # asyncio keeps only weak references.

    async def open(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, backlog=512)
        self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return self

    async def serve(self, reader, writer):
        port = None if any(line.is_cut for line in self.lines) else self.target()
        try:
            if not port:
                raise ConnectionError("nobody is there")
            inner_reader, inner = await within(CONNECT_SECONDS, asyncio.open_connection("127.0.0.1", port))
        except (OSError, asyncio.CancelledError):  # Cancelled: the program ends.
            writer.transport.abort()
            return
        self.count += 1
        pipe = Pipe(self, self.count, inner, writer)
        pipe.join(self.lines)
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
            pipe.leave()

    async def pass_on(self, pipe, data, sink, is_outward):
        name = NAMES.get(HEADER.unpack(data[:HEADER.size])[3])
        if not is_outward and not pipe.is_identified:
            pipe.is_identified = True
            pipe.join(self.identify(pipe, data))
            if pipe.is_cut():
                pipe.reset()
                return False
        if not self.watch(pipe, is_outward, name, data):
            return True
        if pipe.delay_seconds():
            await asyncio.sleep(pipe.delay_seconds())  # This is what a slow line is.
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

    def close(self):
        self.server.close()
        self.line.reset()


def message_of(data):
    return Message(bytes(data[:HEADER.size]), bytes(data[HEADER.size:]))
