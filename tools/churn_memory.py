"""Whether a run that fails over may have lost a round that was committed: who could know of it, and who has forgotten (docs/rounds.md)."""

LOST_BY_TWO = 2  # A round committed at one member only is lost if that one and the next coordinator die.


class Memory:
    """Times are those of `now` elsewhere. Names are the nodes'; node keys become names as soon as a Hello says whose they are."""

    def __init__(self, margin_seconds):
        self.margin_seconds = margin_seconds  # So long may a commit be on its way from somebody who is dead already.
        self.quorum_seconds = 2 * margin_seconds  # Who coordinated for so long since was followed by a quorum when it spoke.
        self.names = {}   # By node key.
        self.deaths = []  # When, and whose.
        self.lists = []   # When, the coordinator's order, and who votes: names, by electorate.

    def on_hello(self, message, name):
        self.names[message.node_key] = name

    def on_death(self, name, now):
        self.deaths.append((now, name))

    def on_membership(self, message, now):
        """All lists that were told: whoever has one may bring it to the next coordinator."""
        electorates = [frozenset(self.names.get(one["node_key"], "") for one in electorate["voters"]) for electorate in message.electorates]
        order = (message.term, message.epoch)
        if not self.lists or order > self.lists[-1][1]:
            self.lists.append((now, order, electorates))

    def may_have_lost(self, first_at, now, witnesses):
        """In words, why what these had at `first_at` may be gone now; None if it may not."""
        began = first_at - self.margin_seconds
        dead = {name for at, name in self.deaths if began <= at <= now}
        before = [one for one in self.lists if one[0] < began][-1:]
        for _, _, electorates in before + [one for one in self.lists if began <= one[0] <= now]:
            for voters in electorates:
                if 2 * len(voters & dead) >= len(voters) > 0:
                    return (f"of the voters {' '.join(sorted(voters))} these had died: {' '.join(sorted(voters & dead))}; "
                            f"of those who had it these had not: {' '.join(sorted(set(witnesses) - dead))}")
        if len(witnesses) <= 1 and len(dead) >= LOST_BY_TWO:
            return f"one member had it, and these had died: {' '.join(sorted(dead))}"
        return None
