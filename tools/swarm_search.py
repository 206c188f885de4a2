"""Who coordinates a run: all who may are greeted side by side, and the first who welcomes is followed (docs/formats/wire.md, docs/rounds.md)."""

import asyncio

from swarm_links import receive, within

CONNECT_SECONDS = 5
ANSWER_SECONDS = 10  # A coordinator that stands by says so once per heartbeat.
PAUSE_MIN, PAUSE_MAX = 0.2, 2.0
PLACES_MAX = 128


class Found:
    """A link whose other side has answered Hello: with Welcome or Reject."""

    def __init__(self, reader, writer, message):
        self.reader, self.writer, self.message = reader, writer, message


class Search:
    """`home`: the run's configured address; `make_hello(is_home)`: a frame; `is_newest(message)`: whether a Welcome is that of a coordinator that
    may be followed. `places`: where others may be, the last members. Whoever sends elsewhere is believed for as long as the search lasts."""

    def __init__(self, home, make_hello, is_newest):
        self.home, self.make_hello, self.is_newest = home, make_hello, is_newest
        self.places, self.tasks, self.answer = [], {}, None

    async def find(self):
        self.answer = asyncio.get_running_loop().create_future()
        try:
            for place in [self.home, *self.places]:
                self.greet(place)
            return await self.answer
        finally:
            for task in self.tasks.values():
                task.cancel()
            self.tasks.clear()

    def greet(self, place):
        if place not in self.tasks and len(self.tasks) < PLACES_MAX:
            self.tasks[place] = asyncio.ensure_future(self.insist(place))

    async def insist(self, place):
        pause = PAUSE_MIN
        while True:
            try:
                await self.ask(place)
            except (OSError, EOFError, ValueError):
                pass
            await asyncio.sleep(pause)  # Before it dials there again.
            pause = min(2 * pause, PAUSE_MAX)

    async def ask(self, place):
        """Until the link ends, or somebody is found."""
        reader, writer = await within(CONNECT_SECONDS, asyncio.open_connection(*place))
        is_kept = False
        try:
            writer.write(self.make_hello(place == self.home))
            while not is_kept:
                message = await within(ANSWER_SECONDS, receive(reader))
                if message.name == "Redirect":
                    self.greet(message.coordinator)
                is_answer = message.name == "Reject" or (message.name == "Welcome" and self.is_newest(message))
                if message.name == "Welcome" and not is_answer:
                    raise ConnectionError("another coordinator has taken the run over")
                if is_answer and not self.answer.done():
                    is_kept = True
                    self.answer.set_result(Found(reader, writer, message))
        finally:
            if not is_kept:
                writer.transport.abort()
