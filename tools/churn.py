#!/usr/bin/env python3
"""A run of real processes to which everything happens that happens on the internet, and an auditor that computes each round again.

    ./tools/churn --seconds N [--seed S] [--members M] [--json] [--directory DIR] [--atoll PATH]

From the seed: kill, stop, cut, half_open, delay, reset, truncate and flip, of members and several at once; the coordinator is killed at an
exact frame and started again. Some members, never fewer than two, are let alone, for minutes at a time. Then everything heals, and all must get
on. The last line is a JSON object; without --json, a few lines for people:
  rounds                  that were committed
  wrong_sums              sums, weights or judgements that are not what the documents say; work or samples that count twice
  unequal_digests         results or states of a round of which two members, or a member and the auditor, have different ones
  faults                  that were done, also by kind
  longest_round_seconds   between two commits
  innocent_excluded       times that a node was left out or lost, or ended, to which nothing was done in the last minute
  audited_rounds, unaudited_rounds, audited_chunks, unchecked_chunks    by the auditor; unchecked: a part died before it had it
  problems                what is not right, in words; if it is not empty the exit code is 1, and the logs are kept in `directory`
The order in which processes run is not in the seed: a run that failed need not fail again.
"""

import argparse
import asyncio
import collections
import ctypes
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
POLL_SECONDS = 0.1
PROGRESS_SECONDS = 10
LET_ALONE_SECONDS = 180
FRAME_SECONDS = 8    # For a frame that does not come: what waits for it happens without.
CROWD = 16           # Members that a machine of a few cores carries without being slow.
AFTER_ROUNDS = 3     # That everybody must apply when the faults are over.
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def be_in_a_crowd():
    """Many processes leave little to each: what trains gets what the doors and the auditor need not."""
    die_with_parent()
    os.nice(10)


class Member:
    """A node behind two doors: one between it and the coordinator, one before its data port."""

    def __init__(self, name, directory):
        self.name, self.directory = name, directory
        self.doors = []
        self.process, self.peer, self.port = None, None, None
        self.busy = 0  # Faults that are not over.
        self.touched_at = float("-inf")
        self.loses_disk, self.down_seconds = False, 1.0
        self.is_expected_dead = False

    def is_up(self):
        return self.process is not None and self.process.process.poll() is None

    def signal(self, number):
        if self.is_up():
            self.process.process.send_signal(number)


class Churn:
    def __init__(self, arguments, folder):
        from swarm_case import LEFT_OUT  # It needs ATOLL.
        from churn_verdict import Tail, Verdict
        self.rng = random.Random(arguments.seed)
        self.arguments, self.folder = arguments, folder
        # Many members share the cores of one machine: all patience grows, and rounds are over fewer steps.
        self.scale = arguments.scale or (1 if arguments.members <= CROWD else 3)
        self.dead_seconds = 6 * self.scale
        self.members = [Member(f"node{i:02}", folder / f"node{i:02}") for i in range(arguments.members)]
        self.by_door = {}
        self.faults, self.problems = collections.Counter(), []
        self.reign, self.coordinator, self.coordinator_down_seconds = 0, None, 1.0
        self.cut_off, self.triggers, self.frames = set(), [], collections.Counter()
        self.let_alone, self.healing = set(), False
        self.began = time.monotonic()
        self.verdict = Verdict(LEFT_OUT, self.now())
        self.log, self.said = Tail(folder / "coordinator.txt"), Tail(folder / "auditor.jsonl")
        self.events = open(folder / "faults.txt", "a")

    def now(self):
        return time.monotonic() - self.began

    def note(self, text):
        stamp = time.strftime("%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03}"
        print(stamp, text, file=self.events, flush=True)

    # -- Processes.

    def prepare(self):
        from cluster import prepare_run
        outer = {"inner_steps": 20 if len(self.members) <= CROWD else 8, "overlap_steps": 2, "overlap_steps_max": 6,
                 "codec": self.rng.choice(["int8", "int8", "int4", "fp32"]), "fragments": self.rng.choice([1, 1, 2])}
        self.config = prepare_run(self.folder, settings={
            "training": {"steps": 10_000_000, "batch_rows": 16, "micro_batch_rows": 16},
            "outer": outer,
            "swarm": {"security": "none", "fail_over": False, "start_members": min(3, len(self.members)), "members_min": 2,
                      "start_grace_seconds": 10 * self.scale, "ready_grace_seconds": 4 * self.scale,
                      "round_timeout_seconds": 20 * self.scale, "heartbeat_seconds": 0.5 * self.scale,
                      "dead_seconds": self.dead_seconds, "stall_seconds": 6 * self.scale, "coordinator_patience_seconds": 120}})
        config = json.loads(self.config.read_text())
        config["checkpoint"] = {"every_steps": 40, "keep": 2}
        self.config.write_text(json.dumps(config))
        self.note(f"seed {self.arguments.seed}: {outer}")

    def start_coordinator(self):
        from cluster import Coordinator
        self.reign += 1
        self.coordinator = Coordinator(self.config, self.folder / "coordinator.txt", {}, preexec_fn=die_with_parent)
        self.coordinator_port = int(self.coordinator.address.rsplit(":", 1)[1])

    def kill_coordinator(self):
        self.note("the coordinator is killed")
        self.coordinator_port = None
        self.end(self.coordinator.process)
        self.coordinator.process.stdout.close()
        for member in self.members:
            member.peer = None
        self.loop.call_later(0 if self.healing else self.coordinator_down_seconds, self.start_coordinator)

    def stop_coordinator(self, seconds):
        process = self.coordinator.process
        process.send_signal(signal.SIGSTOP)
        self.loop.call_later(seconds, lambda: process.poll() is None and process.send_signal(signal.SIGCONT))

    def start(self, member):
        from cluster import Node
        if self.is_over or member.is_up():  # It may have ended by itself, and been started, when it was to be killed.
            return
        if member.loses_disk:
            shutil.rmtree(member.directory, ignore_errors=True)
        member.loses_disk, member.is_expected_dead, member.port = False, False, None
        control, data = member.doors
        member.process = Node(self.config, member.directory, {"swarm.coordinator": control.address, "node.advertise": data.address},
                              preexec_fn=die_with_parent if len(self.members) <= CROWD else be_in_a_crowd)

    def kill(self, member):
        member.is_expected_dead = True
        self.end(member.process.process)
        self.later(0 if self.healing else member.down_seconds, member, lambda: self.start(member))

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
        process.wait()

    def start_auditor(self):
        with open(self.folder / "auditor.jsonl", "ab") as out, open(self.folder / "auditor.txt", "ab") as errors:
            command = [sys.executable, TOOLS / "swarm_auditor.py", "--coordinator", self.auditor_door.address, "--run", "tiny"]
            self.auditor = subprocess.Popen(command, stdout=out, stderr=errors, preexec_fn=die_with_parent)

    def port_of(self, member):
        from swarm_proxy import listening_port
        if member.port is None and member.is_up():
            member.port = listening_port(member.process.process.pid)
        return member.port

    async def open_doors(self):
        from swarm_doors import Door
        for member in self.members:
            for target in (lambda: self.coordinator_port, lambda member=member: self.port_of(member)):
                door = await Door(target, self.watch, self.may_pass, self.rng).open()
                member.doors.append(door)
                self.by_door[door] = member
        self.auditor_door = await Door(lambda: self.coordinator_port, self.watch, self.may_pass, self.rng).open()

    # -- What passes the doors.

    def may_pass(self, dialler):
        return not any(member.peer == dialler for member in self.cut_off)

    def watch(self, door, pipe, is_outward, name, data):
        from swarm_doors import message_of
        member = self.by_door.get(door)
        self.frames[name, member.name if member else "auditor", is_outward] += 1
        if not hasattr(pipe, "reign"):
            pipe.reign, pipe.term = self.reign, 0
        if name in ("Welcome", "Commit", "Applied", "Samples"):
            message = message_of(data)
            pipe.term = max(pipe.term, message.term)
            self.hear(member, (pipe.reign, pipe.term), message)
        passes = True
        for trigger in [one for one in self.triggers if one["name"] == name and one["member"] in (None, member)]:
            trigger["left"] -= 1
            if trigger["left"] == 0:
                self.triggers.remove(trigger)
                self.note(f"... at a {name} of {member.name if member else 'the auditor'}, which {'passes' if trigger['passes'] else 'is lost'}")
                trigger["act"]()
                passes &= trigger["passes"]
        return passes

    def take_number(self, member, peer):
        """Numbers are given again, and by another coordinator anew."""
        for other in self.members:
            if other.peer == peer:
                other.peer = None
        if member:
            member.peer = peer

    def hear(self, member, reign, message):
        name = member.name if member else "auditor"
        if message.name == "Welcome":
            self.take_number(member, message.peer)
        elif message.name == "Commit":
            self.verdict.on_commit(reign, name, message, self.now())
        elif message.name == "Applied":
            self.verdict.on_applied(reign, name, message)
        elif message.name == "Samples":
            self.verdict.on_samples(reign, name, message)

    # -- Faults.

    def at_frame(self, name, count, passes, act, member=None):
        """When so many frames have come, of a member or of all; or without, if they do not come."""
        trigger = {"name": name, "left": count, "passes": passes, "act": act, "member": member}
        self.triggers.append(trigger)
        self.note(f"... at the {count}. {name}")

        def give_up():
            if any(one is trigger for one in self.triggers):
                self.triggers.remove(trigger)
                act()

        self.loop.call_later(FRAME_SECONDS, give_up)

    def later(self, seconds, member, act):
        """The end of a fault."""
        def end():
            act()
            member.busy -= 1
            member.touched_at = self.now()

        self.loop.call_later(seconds, end)

    def cut(self, member, is_cut):
        (self.cut_off.add if is_cut else self.cut_off.discard)(member)
        for door in member.doors:
            door.cut(is_cut)
        for other in self.by_door:
            for pipe in [pipe for pipe in other.pipes if is_cut and pipe.dialler is not None and pipe.dialler == member.peer]:
                pipe.reset()

    def do_something(self):
        from churn_faults import COORDINATOR_KINDS, KINDS
        if self.rng.random() < 0.08:
            if self.coordinator_port and not any(one["act"] == self.kill_coordinator for one in self.triggers):
                kind = self.rng.choice(sorted(COORDINATOR_KINDS))
                self.note(kind)
                self.faults[kind] += 1
                COORDINATOR_KINDS[kind](self, self.rng)
            return
        free = [one for one in self.members if one.name not in self.let_alone and not one.busy and one.is_up()]
        if not free:
            return
        kind, member = self.rng.choice(sorted(KINDS)), self.rng.choice(free)
        self.note(f"{kind} {member.name} (peer {member.peer})")
        self.faults[kind] += 1
        member.busy += 1
        member.touched_at = float("inf")
        KINDS[kind](self, self.rng, member)

    def frames_total(self):
        return sum(self.frames.values())

    def choose_let_alone(self):
        count = max(2, len(self.members) // 3)
        self.let_alone = {member.name for member in self.rng.sample(self.members, count)}
        self.note(f"let alone: {' '.join(sorted(self.let_alone))}")

    # -- Watching.

    def is_innocent(self, name):
        from churn_verdict import PATIENCE_SECONDS
        member = next((one for one in self.members if one.name == name), None)
        return member is not None and self.now() - member.touched_at > PATIENCE_SECONDS

    def look(self):
        for line in self.log.lines():
            self.verdict.on_log(line, self.is_innocent)
        for line in self.said.lines():
            self.verdict.on_auditor(line)
        for member in self.members:
            if member.process and member.process.process.poll() is not None and not member.is_expected_dead:
                self.on_ended(member)
        if self.auditor.poll() is not None:
            raise RuntimeError("the auditor ended: " + (self.folder / "auditor.txt").read_text()[-2000:])
        if self.coordinator_port and self.coordinator.process.poll() is not None:
            raise RuntimeError("the coordinator ended: " + (self.folder / "coordinator.txt").read_text()[-2000:])

    def on_ended(self, member):
        code = member.process.process.returncode
        self.note(f"{member.name} ended with {code}")
        if self.is_innocent(member.name) or code not in (0, 3):
            self.verdict.innocent_excluded.append(f"{member.name} ended with {code}: {member.process.tail()[-300:]}")
        member.is_expected_dead = True
        member.busy += 1
        self.later(1, member, lambda: self.start(member))

    def progress(self):
        print(f"{self.now():7.1f} s  {len(self.verdict.committed)} rounds, {sum(self.faults.values())} faults, {self.frames_total()} frames, "
              f"audited {self.verdict.auditor['audited']}, wrong {len(self.verdict.wrong_sums)}, unequal {len(self.verdict.unequal_digests)}, "
              f"innocent {len(self.verdict.innocent_excluded)}", file=sys.stderr, flush=True)

    async def wait(self, seconds, condition, act=lambda: None):
        """Until it holds or the time is over; the value of the condition."""
        deadline, told = self.now() + seconds, self.now()
        while self.now() < deadline and not condition():
            await asyncio.sleep(POLL_SECONDS)
            self.look()
            act()
            if self.now() - told > PROGRESS_SECONDS:
                told = self.now()
                self.progress()
        return condition()

    # -- The whole.

    async def run(self):
        self.loop, self.is_over = asyncio.get_running_loop(), False
        self.prepare()
        await self.open_doors()
        try:
            self.start_coordinator()
            self.start_auditor()
            for member in self.members:
                self.start(member)
                await asyncio.sleep(0)  # The doors of the others are served meanwhile.
            names = {member.name for member in self.members} | {"auditor"}
            if not await self.wait(self.arguments.patience, lambda: names <= set(self.verdict.applied)):
                self.problems.append(f"no round for {sorted(names - set(self.verdict.applied))} before anything was done to them")
                return
            await self.disturb()
            await self.calm(names)
        finally:
            self.stop()

    async def disturb(self):
        self.choose_let_alone()
        self.verdict.longest_pause, self.verdict.last_commit_at = 0.0, self.now()
        chosen_at = next_at = self.now()

        def act():
            nonlocal chosen_at, next_at
            if self.now() - chosen_at > LET_ALONE_SECONDS:
                chosen_at = self.now()
                self.choose_let_alone()
            if self.now() >= next_at:
                next_at = self.now() + self.rng.expovariate(1 / self.arguments.pause)
                for _ in range(self.rng.choice([1, 1, 1, 1, 1, 4])):
                    self.do_something()

        await self.wait(self.arguments.seconds, lambda: False, act)

    async def calm(self, names):
        """Nothing is done any more: everybody must get on."""
        self.note("everything heals")
        self.healing, self.triggers = True, []
        self.cut_off.clear()
        for member in self.members:
            member.signal(signal.SIGCONT)
            for door in member.doors:
                door.heal()
        goal = self.verdict.newest_round() + AFTER_ROUNDS
        if not await self.wait(self.arguments.patience, lambda: all(self.verdict.applied[name] >= goal for name in names)):
            late = {name: self.verdict.applied[name] for name in sorted(names) if self.verdict.applied[name] < goal}
            self.problems.append(f"when the faults were over, these did not get to round {goal} in {self.arguments.patience:.0f} s: {late}")
        self.verdict.note_pause(self.now())

    def stop(self):
        self.is_over = True
        self.note("most frames, by name, member, and whether it sent them to who dialled: "
                  + ", ".join(f"{count} {' '.join(map(str, key))}" for key, count in self.frames.most_common(12)))
        self.auditor.send_signal(signal.SIGTERM)
        for process in [member.process.process for member in self.members if member.process] + [self.coordinator.process]:
            self.end(process)
        try:
            self.auditor.wait(10)
        except subprocess.TimeoutExpired:
            self.end(self.auditor)
        if self.coordinator.process.stdout and not self.coordinator.process.stdout.closed:
            self.coordinator.process.stdout.close()
        for door in [*self.by_door, self.auditor_door]:
            door.close()
        for line in self.said.lines():
            self.verdict.on_auditor(line)

    def report(self):
        for what in ("wrong_sums", "unequal_digests", "innocent_excluded"):
            self.problems += [f"{what}: {text}" for text in getattr(self.verdict, what)[:10]]
        if not self.verdict.auditor["audited"]:
            self.problems.append("no round was audited")
        report = self.verdict.report()
        return {**report, "faults": sum(self.faults.values()), "faults_by_kind": dict(sorted(self.faults.items())), "seed": self.arguments.seed,
                "members": len(self.members), "frames": self.frames_total(), "problems": self.problems, "directory": str(self.folder)}


def parse():
    from swarm_trial import find_atoll
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True, help="for which things happen")
    parser.add_argument("--seed", type=int, help="default: another one each time; it is printed")
    parser.add_argument("--members", type=int, default=6, help="nodes, from 3 to 63: the auditor is a member, too")
    parser.add_argument("--json", action="store_true", help="nothing but the report on standard output, as one line of JSON")
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between two faults")
    parser.add_argument("--scale", type=float, help=f"of all times after which somebody is given up; default: 1, from {CROWD + 1} members on 3")
    parser.add_argument("--patience", type=float, default=180, help="seconds for everybody to get on, before and after")
    parser.add_argument("--directory", help="for run directories and logs, which are kept")
    parser.add_argument("--atoll", default=find_atoll(), help="the executable; default: the newest in a build folder")
    arguments = parser.parse_args()
    if not arguments.atoll:
        parser.error("there is no executable in a build folder: build one, or say --atoll")
    if not 3 <= arguments.members <= 63:
        parser.error("--members: from 3 to 63")
    if arguments.seed is None:
        arguments.seed = random.randrange(1 << 31)
    return arguments


def raise_descriptors():
    """A door has two for each link."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main():
    arguments = parse()
    os.environ["ATOLL"] = os.path.abspath(arguments.atoll)
    sys.path.insert(0, str(ROOT / "tests/integration"))
    folder = pathlib.Path(arguments.directory or tempfile.mkdtemp(prefix="churn-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    raise_descriptors()
    print(f"seed {arguments.seed}, logs in {folder}", file=sys.stderr, flush=True)
    churn = Churn(arguments, folder)
    try:
        asyncio.run(churn.run())
    except RuntimeError as error:
        churn.problems.append(str(error))
    report = churn.report()
    if not report["problems"] and not arguments.directory:
        shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(report))
    else:
        print("\n".join(f"{key:24}{value}" for key, value in report.items()))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
