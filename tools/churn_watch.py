"""What passes the doors of a churned run: who speaks in each pipe, who coordinates, and what happens at which frame."""

import collections

from swarm_doors import message_of
from swarm_wire import HEADER

FRAME_SECONDS = 8  # For a frame that does not come: what waits for it happens without.
HEARD = {"Hello", "Welcome", "Membership", "Start", "Open", "Commit", "Applied", "Samples"}
OF_WHO_COORDINATES = {"Membership", "Start", "Open", "Commit"}  # Who only calls members up says Welcome, too.


class Watch:
    """`home` and `members`: churn_member.py. Those who stand behind a data door may coordinate; a pipe belongs to whoever said Hello in
    it, by whatever door he came."""

    def __init__(self, home, members, verdict, now, note):
        self.home, self.members, self.verdict, self.now, self.note = home, members, verdict, now, note
        self.by_name = {member.name: member for member in members}
        self.numbers = {}  # Of peers, and their names.
        self.coordinating, self.term, self.is_vacant = home, 0, False
        self.triggers, self.frames = [], collections.Counter()
        self.fired = None  # The pipe at whose frame something happens just now.

    # -- Who speaks.

    def identify(self, pipe, data):
        """The lines of who dialled. (Of a link that only leads home they are known.)"""
        fields = HEADER.unpack(data[:HEADER.size])
        message = message_of(data) if fields[3] in (1, 32, 38) else None
        pipe.speaker, pipe.name, pipe.coordinator, pipe.term = None, "", 0, 0
        if message is None:
            return []  # A coordinator dials back, or says where it is.
        pipe.name = message.node_name if message.name == "Hello" else self.numbers.get(message.source, "")
        pipe.speaker = self.by_name.get(pipe.name)
        is_known = pipe.speaker is None or pipe.speaker.outward in pipe.lines
        return [] if is_known else [pipe.speaker.outward]

    def owner(self, pipe):
        """Whose process is behind the door."""
        return pipe.door.owner

    def number_of(self, name):
        return next((number for number, of in self.numbers.items() if of == name), None)

    def take_number(self, name, number):
        """Numbers are given again, and by another coordinator anew."""
        self.numbers = {**{one: of for one, of in self.numbers.items() if of != name}, number: name}

    def take_numbers(self, message):
        """What a node that coordinates gives itself passes no door, but all are told of it."""
        by_address = {one.data.address: one.name for one in self.members}
        for seat in message.members:
            name = by_address.get("%s:%d" % seat["data"])
            if name and self.numbers.get(seat["peer"]) != name:
                self.take_number(name, seat["peer"])

    # -- What is said.

    def watch(self, pipe, is_outward, name, data):
        if not pipe.is_identified:
            return True
        self.frames[name, pipe.name, is_outward] += 1
        if name in HEARD:
            self.hear(pipe, message_of(data))
        return self.fire(pipe, name)

    def hear(self, pipe, message):
        pipe.term = max(pipe.term, message.term) if message.name != "Hello" else 0
        reign, now = (pipe.coordinator, pipe.term), self.now()
        if message.name == "Hello" and self.verdict.memory:
            self.verdict.memory.on_hello(message, pipe.name)
        elif message.name == "Welcome":
            pipe.coordinator = message.coordinator
            self.take_number(pipe.name, message.peer)
        elif message.name == "Membership":
            self.take_numbers(message)
            if self.verdict.memory:
                self.verdict.memory.on_membership(message, now)
        elif message.name == "Commit":
            self.verdict.on_commit(reign, pipe.name, message, now)
        elif message.name == "Applied":
            self.verdict.on_applied(reign, pipe.name, message, now)
        elif message.name == "Samples":
            self.verdict.on_samples(reign, pipe.name, message, now)
        if message.name in OF_WHO_COORDINATES:
            self.look_who_coordinates(pipe)

    def look_who_coordinates(self, pipe):
        if pipe.term < self.term or (pipe.term == self.term and self.is_vacant):
            return  # One that was, and does not know it yet, or what it had said before it died.
        self.term, self.is_vacant = pipe.term, False
        if self.coordinating is not self.owner(pipe):
            self.coordinating = self.owner(pipe)
            self.note(f"{self.coordinating.name} coordinates, in term {self.term}")

    def on_death(self, suspect):
        """Whether it coordinated. Nobody does until there is a newer term."""
        did = suspect is self.coordinating and not self.is_vacant
        self.is_vacant |= did
        return did

    # -- What happens at a frame.

    def at_frame(self, loop, name, count, passes, act, member=None):
        """When so many frames have come, of a member's links or of all; or without, if they do not come."""
        trigger = {"name": name, "left": count, "passes": passes, "act": act, "member": member}
        self.triggers.append(trigger)
        self.note(f"... at the {count}. {name}")

        def give_up():
            if any(one is trigger for one in self.triggers):
                self.triggers.remove(trigger)
                act()

        loop.call_later(FRAME_SECONDS, give_up)

    @property
    def is_death_due(self):
        """Of whoever coordinates."""
        return any(trigger["member"] is None for trigger in self.triggers)

    def fire(self, pipe, name):
        """Whether the frame passes."""
        passes = True
        for trigger in [one for one in self.triggers if one["name"] == name and one["member"] in (None, pipe.speaker, self.owner(pipe))]:
            trigger["left"] -= 1
            if trigger["left"] == 0:
                self.triggers.remove(trigger)
                self.note(f"... at a {name} of {pipe.name}, which {'passes' if trigger['passes'] else 'is lost'}")
                self.fired = pipe
                trigger["act"]()
                self.fired = None
                passes &= trigger["passes"]
        return passes

    def frames_total(self):
        return sum(self.frames.values())

