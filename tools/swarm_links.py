"""The wire for programs that run on asyncio: frames whose checksums are looked at, and data links to members from which things are wanted."""

import asyncio

from swarm_wire import HEADER, Message, crc32c, frame

SILENCE_SECONDS = 3  # Of an answer, before the link is given up and the question is asked on a new one.
BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024


class NotThere(Exception):
    """The other side says Gone."""


async def within(seconds, awaitable):
    """Its result; ConnectionError where it takes longer. Unlike asyncio.wait_for() it never swallows a cancellation."""
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            raise ConnectionError("the other side is silent")
    finally:
        task.cancel()
    return task.result()


async def receive(reader):
    """The next message; ValueError for what is no frame, OSError or EOFError at the link's end."""
    header = await reader.readexactly(HEADER.size)
    magic, version, _, _, checksum, length, *_, payload_checksum = HEADER.unpack(header)
    if magic != b"ATL1" or version != 1 or crc32c(header[:8] + bytes(4) + header[12:]) != checksum or length > BYTES_MAX:
        raise ValueError("this is no frame")
    payload = await reader.readexactly(length)
    if crc32c(payload) != payload_checksum:
        raise ValueError("a payload has another checksum")
    return Message(header, payload)


class Link:
    """To one member. Whoever waits for an answer is told of its end."""

    def __init__(self, reader, writer, run, peer):
        self.reader, self.writer, self.run, self.peer = reader, writer, run, peer
        self.pending = {}
        self.is_open = True
        self.task = asyncio.ensure_future(self.read())
        self.writer.write(frame("DataHello", run, source=peer, peer=peer))

    async def read(self):
        try:
            while True:
                message = await receive(self.reader)
                waiting = self.pending.pop((message.values.get("kind"), *message.authority().values()), None)
                if waiting and not waiting.done():
                    waiting.set_result(message)
        except (OSError, EOFError, ValueError):
            self.close()

    def ask(self, kind, name):
        key = (kind, *name.values())
        if key not in self.pending:
            self.pending[key] = asyncio.get_running_loop().create_future()
            self.writer.write(frame("Want", self.run, source=self.peer, kind=kind, **name))
        return self.pending[key]

    def close(self):
        self.is_open = False
        self.task.cancel()
        self.writer.transport.abort()
        for waiting in self.pending.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("the link broke"))
                waiting.exception()  # Nobody may have waited any more.
        self.pending.clear()


class Links:
    """`peer` is our number."""

    def __init__(self, run):
        self.run, self.peer = run, 0
        self.links, self.dialling = {}, {}

    async def link_to(self, address):
        link = self.links.get(address)
        if not link or not link.is_open:
            async with self.dialling.setdefault(address, asyncio.Lock()):
                link = self.links.get(address)
                if not link or not link.is_open:
                    reader, writer = await within(SILENCE_SECONDS, asyncio.open_connection(*address))
                    link = self.links[address] = Link(reader, writer, self.run, self.peer)
        return link

    async def fetch(self, address, kind, epoch=0, round=0, term=0, attempt=0, fragment=0, chunk=0):
        """The payload of the answer, without its kind. NotThere, or OSError where the link breaks or is silent."""
        link = await self.link_to(address)
        name = {"epoch": epoch, "round": round, "term": term, "attempt": attempt, "fragment": fragment, "chunk": chunk}
        try:
            message = await within(SILENCE_SECONDS, asyncio.shield(link.ask(kind, name)))
        except ConnectionError:
            link.close()
            raise
        if message.name != "Chunk":
            raise NotThere
        return message.bytes

    def close(self):
        for link in self.links.values():
            link.close()
        self.links.clear()


async def insist(fetch, *arguments, pause=0.05, **name):
    """Asks until there is an answer; whoever does not need it any more cancels."""
    while True:
        try:
            return await fetch(*arguments, **name)
        except (NotThere, OSError):
            await asyncio.sleep(pause)  # It may not know of the round yet, or be gone for a moment.
