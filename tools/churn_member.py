"""The processes of a churned run: nodes behind two doors each, and the coordinator of the configured address."""

import ctypes
import os
import shutil
import signal

from churn_logs import CoordinatorLog, RoundLines
from swarm_doors import Line
from swarm_proxy import listening_port

CROWD = 16  # Members that a machine of a few cores carries without being slow.
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def be_in_a_crowd():
    """Many processes leave little to each: what trains gets what the doors and the auditor need not."""
    die_with_parent()
    os.nice(10)


def end(process):
    """Whether it was there."""
    was_there = process.poll() is None
    if was_there:
        process.kill()
    process.wait()
    return was_there


class Suspect:
    """Whoever something is done to. Its lines: what it dials, and what dials it."""

    def __init__(self, name):
        self.name = name
        self.outward, self.inward = Line(), Line()
        self.lines = [self.outward, self.inward]
        self.busy = 0  # Faults that are not over.
        self.touched_at = float("-inf")
        self.loses_disk, self.down_seconds = False, 1.0
        self.log = None

    def touch(self):
        self.busy += 1
        self.touched_at = float("inf")

    def cut(self, is_cut):
        for line in self.lines:
            line.cut(is_cut)

    def heal(self):
        for line in self.lines:
            line.heal()


class Member(Suspect):
    """A node. `home`: the door by which it dials the configured address; `data`: the one by which others dial it."""

    def __init__(self, name, directory):
        super().__init__(name)
        self.directory = directory
        self.home, self.data = None, None
        self.node, self.port = None, None
        self.is_expected_dead = False
        self.log, self.rounds = CoordinatorLog(directory / "output.txt"), RoundLines(directory / "metrics.jsonl")

    def is_up(self):
        return self.node is not None and self.node.process.poll() is None

    def signal(self, number):
        if self.is_up():
            self.node.process.send_signal(number)

    def start(self, config, is_in_crowd):
        from cluster import Node  # It needs ATOLL.
        if self.loses_disk:
            self.lose_disk()
        self.loses_disk, self.is_expected_dead, self.port = False, False, None
        self.node = Node(config, self.directory, {"swarm.coordinator": self.home.address, "node.advertise": self.data.address},
                         preexec_fn=be_in_a_crowd if is_in_crowd else die_with_parent)

    def lose_disk(self):
        """All but its log, which is for people."""
        for one in self.directory.iterdir():
            if one.is_dir():
                shutil.rmtree(one)
            elif one.name != "output.txt":
                one.unlink()
        self.rounds.disk_is_lost()

    def listens_on(self):
        if self.port is None and self.is_up():
            self.port = listening_port(self.node.process.pid)
        return self.port


class Home(Suspect):
    """`atoll coordinate`, at the configured address. In a run that fails over it need not be there."""

    def __init__(self, folder):
        super().__init__("coordinator")
        self.folder, self.path = folder, folder / "coordinator.txt"
        self.log = CoordinatorLog(self.path)
        self.coordinator, self.port = None, None

    def is_up(self):
        return self.port is not None

    def signal(self, number):
        if self.is_up() and self.coordinator.process.poll() is None:
            self.coordinator.process.send_signal(number)

    def start(self, config):
        from cluster import Coordinator
        directory = self.folder / "coordinator"
        if self.loses_disk:
            shutil.rmtree(directory, ignore_errors=True)
        self.loses_disk = False
        self.coordinator = Coordinator(config, self.path, {"node.run_directory": directory}, preexec_fn=die_with_parent)
        self.port = int(self.coordinator.address.rsplit(":", 1)[1])

    def listens_on(self):
        return self.port

    def end(self):
        self.port = None
        was_there = end(self.coordinator.process)
        if self.coordinator.process.stdout and not self.coordinator.process.stdout.closed:
            self.coordinator.process.stdout.close()
        return was_there

    def has_ended(self):
        return self.is_up() and self.coordinator.process.poll() is not None
