"""What the processes of a churned run write while it runs: whole new lines of their logs, and whether a process coordinates."""

import json

BEGINS = "the run starts with"
ENDS = ("this is not the run's coordinator any more", "the run starts over")


class Tail:
    """Whole lines that a file has got since the last time."""

    def __init__(self, path):
        self.path, self.offset = path, 0

    def lines(self):
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        return data[:whole].decode(errors="replace").splitlines()


class CoordinatorLog:
    """Of a process that may coordinate: lines that it writes while it does. Who only stands by gives up all who found another."""

    def __init__(self, path):
        self.tail, self.coordinates = Tail(path), False

    def restarted(self):
        """Reads what the process before has left; call it before the next one writes."""
        lines = self.lines()
        self.coordinates = False
        return lines

    def lines(self):
        said = []
        for line in self.tail.lines():
            if BEGINS in line:
                self.coordinates = True
            if self.coordinates:
                said.append(line)
            if any(text in line for text in ENDS):
                self.coordinates = False
        return said


class RoundLines:
    """Of a node's metrics.jsonl: those about rounds. Begins anew where the node does with an empty disk."""

    def __init__(self, path):
        self.path, self.tail = path, Tail(path)

    def disk_is_lost(self):
        self.tail = Tail(self.path)

    def new(self):
        lines = [line for line in self.tail.lines() if '"round"' in line]
        return [one for one in map(self.parsed, lines) if one.get("event") == "round"]

    @staticmethod
    def parsed(line):
        try:
            return json.loads(line)
        except ValueError:
            return {}  # A node was killed while it wrote: the next one's line stands behind half of another.
