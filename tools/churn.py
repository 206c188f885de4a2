#!/usr/bin/env python3
"""A run of real processes to which everything happens that happens on the internet, and an auditor that computes each round again.

    ./tools/churn --seconds N [--seed S] [--members M] [--no-fail-over] [--json] [--directory DIR] [--atoll PATH]

From the seed: kill, stop, cut, half_open, delay, reset, truncate and flip, of members and several at once; whoever coordinates is killed at
an exact frame, alone or with whoever comes next, stands still, or is cut off; `atoll coordinate` stays away for long, and comes back without its disk;
all are killed at once. Now and then a node listens at the configured address instead. Some members, never fewer than two, are let alone, for minutes at a time, unless they coordinate. Then
everything heals, and all must get on. One seed in five, or with --no-fail-over, has a run with one coordinator. The last line is a JSON object;
without --json, a few lines for people:
  rounds                  that were committed
  wrong_sums              sums, weights or judgements that are not what the documents say; work or samples that count twice
  unequal_digests         results or states of a round of which two members, or a member and the auditor, have different ones, in one term or in two
  lost_rounds             rounds that were committed and later made again, as the documents say: most of those who could know of them had died
  faults                  that were done, also by kind
  longest_round_seconds   between two commits
  longest_takeover_seconds  from the death of who coordinates to the next commit; `takeovers`: how many, and half, three quarters and nine
                          tenths of them were quicker than
  innocent_excluded       times that a node was left out or lost, or ended, to which nothing was done in the last minute
  audited_rounds, unaudited_rounds, audited_chunks, unchecked_chunks    by the auditor; unchecked: a part died before it had it
  problems                what is not right, in words; if it is not empty the exit code is 1, and the logs are kept in `directory`
The order in which processes run is not in the seed: a run that failed need not fail again.
"""

import argparse
import asyncio
import collections
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
LET_ALONE_MIN = 2
NODE_AT_HOME = 0.25  # Of the runs that fail over.
AFTER_ROUNDS = 3     # That everybody must apply when the faults are over.


class Churn:
    def __init__(self, arguments, folder):
        from swarm_case import LEFT_OUT  # It needs ATOLL.
        from churn_logs import Tail
        from churn_member import CROWD, Home, Member
        from churn_memory import Memory
        from churn_verdict import Verdict
        from churn_watch import Watch
        self.rng = random.Random(arguments.seed)
        self.arguments, self.folder = arguments, folder
        self.is_crowd = arguments.members > CROWD
        # Many members share the cores of one machine: all patience grows, and rounds are over fewer steps.
        self.scale = arguments.scale or (3 if self.is_crowd else 1)
        self.dead_seconds = 6 * self.scale
        is_drawn = self.rng.random() < 0.8
        self.fails_over = is_drawn if arguments.fail_over is None else arguments.fail_over
        self.members = [Member(f"node{i:02}", folder / f"node{i:02}") for i in range(arguments.members)]
        # Who listens at the configured address: `atoll coordinate`, or a node.
        self.home = self.members[0] if self.fails_over and self.rng.random() < NODE_AT_HOME else Home(folder)
        self.suspects = list(dict.fromkeys([self.home, *self.members]))
        self.faults, self.problems = collections.Counter(), []
        self.let_alone, self.healing, self.is_over = set(), False, False
        self.began = time.monotonic()
        self.events = open(folder / "faults.txt", "a")
        self.verdict = Verdict(LEFT_OUT, self.now(), Memory(self.dead_seconds) if self.fails_over else None, self.note)
        self.watch = Watch(self.home, self.members, self.verdict, self.now, self.note)
        self.said = Tail(folder / "auditor.jsonl")

    def now(self):
        return time.monotonic() - self.began

    def note(self, text):
        stamp = time.strftime("%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03}"
        print(stamp, f"{self.now():.1f}", text, file=self.events, flush=True)

    # -- Processes.

    def prepare(self):
        from cluster import prepare_run
        count = len(self.members)
        outer = {"inner_steps": 8 if self.is_crowd else 20, "overlap_steps": 2, "overlap_steps_max": 6,
                 "codec": self.rng.choice(["int8", "int8", "int4", "fp32"]), "fragments": self.rng.choice([1, 1, 2])}
        self.plan = self.rng.choice(["auto", "direct", "two-level", "ring"])
        self.config = prepare_run(self.folder, settings={
            "training": {"steps": 10_000_000, "batch_rows": 16, "micro_batch_rows": 16},
            "outer": outer,
            # Longer than it takes a run to tell the configured address where it is: some with empty disks must not begin anew there.
            "swarm": {"security": "none", "plan": self.plan, "fail_over": self.fails_over, "start_members": count if self.fails_over else min(3, count),
                      "members_min": 2, "start_grace_seconds": (20 if self.fails_over else 10) * self.scale,
                      "ready_grace_seconds": 4 * self.scale, "round_timeout_seconds": 20 * self.scale,
                      "heartbeat_seconds": 0.5 * self.scale, "dead_seconds": self.dead_seconds, "stall_seconds": 6 * self.scale,
                      "coordinator_patience_seconds": 120}})
        config = json.loads(self.config.read_text())
        config["checkpoint"] = {"every_steps": 40, "keep": 2}
        self.config.write_text(json.dumps(config))
        self.note(f"seed {self.arguments.seed}: fail_over {self.fails_over}, {self.home.name} is at home, {outer}, plan {self.plan}")

    def start_home(self):
        if self.home not in self.members and not self.is_over and not self.home.is_up():
            self.home.start(self.config)

    def start(self, member):
        if not self.is_over and not member.is_up():  # It may have ended by itself, and been started, when it was to be killed.
            member.start(self.config, self.is_crowd)

    def kill(self, member):
        from churn_member import end
        if not member.is_expected_dead:
            end(member.node.process)
            self.on_death(member)
        member.is_expected_dead = True
        self.later(0 if self.healing else member.down_seconds, member, lambda: self.start(member))

    def kill_home(self):
        self.kill_now(self.home)

    def kill_who_coordinates(self, victim=None):
        """Or somebody whom a frame has shown to be the next one."""
        if victim or not self.watch.is_vacant:
            self.kill_now(victim or self.watch.coordinating)

    def kill_now(self, victim):
        if not victim.is_up():
            return
        self.note(f"{victim.name} is killed" + (", which coordinates" if victim is self.watch.coordinating and not self.watch.is_vacant else ""))
        if victim in self.members:
            self.touch(victim)
            return self.kill(victim)
        victim.end()
        self.on_death(victim)
        self.loop.call_later(0 if self.healing else victim.down_seconds, self.start_home)

    def on_death(self, suspect):
        for line in suspect.log.restarted():
            self.verdict.on_log(line, self.innocence_for(suspect))
        if suspect in self.members and self.verdict.memory:
            self.verdict.memory.on_death(suspect.name, self.now())
        if self.watch.on_death(suspect):
            self.verdict.on_coordinator_died(self.now())

    def start_auditor(self):
        from churn_member import die_with_parent
        with open(self.folder / "auditor.jsonl", "ab") as out, open(self.folder / "auditor.txt", "ab") as errors:
            command = [sys.executable, TOOLS / "swarm_auditor.py", "--coordinator", self.auditor_door.address, "--run", "tiny"]
            self.auditor = subprocess.Popen(command, stdout=out, stderr=errors, preexec_fn=die_with_parent)

    async def open_doors(self):
        for member in self.members:
            member.data = await self.open_door(member, [member.inward])
            lines = [self.home.inward, member.outward]
            member.home = await self.open_door(self.home, lines) if member is not self.home else member.data
        self.auditor_door = await self.open_door(self.home, [self.home.inward])

    async def open_door(self, owner, lines):
        from swarm_doors import Door
        door = Door(owner.listens_on, self.watch.watch, self.watch.identify, lines, self.rng)
        door.owner = owner
        return await door.open()

    def doors(self):
        return [door for member in self.members for door in {member.home, member.data}] + [self.auditor_door]

    # -- Faults.

    def at_frame(self, name, count, passes, act, member=None):
        self.watch.at_frame(self.loop, name, count, passes, act, member)

    def touch(self, suspect):
        """Something begins to be done to it."""
        suspect.touch()
        self.let_alone.discard(suspect.name)

    def fill_let_alone(self):
        """Others for those who came to coordinate, and to whom something was done then."""
        free = [one.name for one in self.members if not one.busy and one.name not in self.let_alone]
        if free and len(self.let_alone) < LET_ALONE_MIN:
            self.let_alone.add(self.rng.choice(free))
            self.note(f"let alone from now on: {' '.join(sorted(self.let_alone))}")

    def later(self, seconds, suspect, act):
        """The end of a fault."""
        def end():
            act()
            suspect.busy -= 1
            suspect.touched_at = self.now()

        self.loop.call_later(seconds, end)

    def do_something(self):
        from churn_faults import KINDS
        if self.rng.random() < self.arguments.coordinator_share:
            return self.do_to_who_coordinates()
        free = [one for one in self.members if one.name not in self.let_alone and not one.busy and one.is_up()]
        if not free:
            return None
        kind, member = self.rng.choice(sorted(KINDS)), self.rng.choice(free)
        self.note(f"{kind} {member.name} (peer {self.watch.number_of(member.name)})")
        self.faults[kind] += 1
        self.touch(member)
        return KINDS[kind](self, self.rng, member)

    def do_to_who_coordinates(self):
        from churn_faults import COORDINATOR_KINDS, FAIL_OVER_KINDS, SELDOM
        kinds = {**COORDINATOR_KINDS, **(FAIL_OVER_KINDS if self.fails_over else {})}
        kind, = self.rng.choices(sorted(kinds), [SELDOM.get(kind, 1.0) for kind in sorted(kinds)])
        if self.watch.is_vacant or self.watch.is_death_due:
            return
        self.note(f"{kind} ({self.watch.coordinating.name} coordinates)")
        self.faults[kind] += 1
        kinds[kind](self, self.rng)

    def choose_let_alone(self):
        count = max(LET_ALONE_MIN, len(self.members) // 3)
        self.let_alone = {member.name for member in self.rng.sample(self.members, count)}
        self.note(f"let alone: {' '.join(sorted(self.let_alone))}")

    # -- Watching.

    def is_innocent(self, name):
        from churn_verdict import PATIENCE_SECONDS
        suspect = next((one for one in self.suspects if one.name == name), None)
        return suspect is not None and self.now() - suspect.touched_at > PATIENCE_SECONDS

    def innocence_for(self, judge):
        """Who is cut off himself says of all others that they are silent."""
        return lambda name: self.is_innocent(judge.name) and self.is_innocent(name)

    def look(self):
        for suspect in self.suspects:
            for line in suspect.log.lines():
                self.verdict.on_log(line, self.innocence_for(suspect))
        for line in self.said.lines():
            self.verdict.on_auditor(line)
        for member in self.members:
            for line in member.rounds.new():
                self.verdict.on_round_line(member.name, line, self.now())
            if member.node and not member.is_up() and not member.is_expected_dead:
                self.on_ended(member)
        if self.auditor.poll() is not None:
            raise RuntimeError("the auditor ended: " + (self.folder / "auditor.txt").read_text()[-2000:])
        if self.home not in self.members and self.home.has_ended():
            raise RuntimeError("the coordinator ended: " + self.home.path.read_text()[-2000:])

    def on_ended(self, member):
        code = member.node.process.returncode
        self.note(f"{member.name} ended with {code}")
        if self.is_innocent(member.name) or code not in (0, 3):
            self.verdict.innocent_excluded.append(f"{member.name} ended with {code}: {member.node.tail()[-300:]}")
        self.on_death(member)
        member.is_expected_dead = True
        self.touch(member)
        self.later(1, member, lambda: self.start(member))

    def progress(self):
        verdict = self.verdict
        print(f"{self.now():7.1f} s  {verdict.rounds} rounds, {sum(self.faults.values())} faults, {self.watch.frames_total()} frames, "
              f"audited {verdict.auditor['audited']}, wrong {len(verdict.wrong_sums)}, unequal {len(verdict.unequal_digests)}, "
              f"lost {len(verdict.lost_rounds)}, innocent {len(verdict.innocent_excluded)}, takeovers {len(verdict.takeovers)} up to "
              f"{verdict.longest_takeover(self.now()):.1f} s, coordinates {self.watch.coordinating.name}", file=sys.stderr, flush=True)

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
        self.loop = asyncio.get_running_loop()
        self.prepare()
        await self.open_doors()
        try:
            self.start_home()
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
            self.fill_let_alone()
            if self.now() >= next_at:
                next_at = self.now() + self.rng.expovariate(1 / self.arguments.pause)
                for _ in range(self.rng.choice([1, 1, 1, 1, 1, 4])):
                    self.do_something()

        await self.wait(self.arguments.seconds, lambda: False, act)

    async def calm(self, names):
        """Nothing is done any more: everybody must get on."""
        self.note("everything heals")
        self.healing, self.watch.triggers = True, []
        self.start_home()
        for suspect in self.suspects:
            suspect.signal(signal.SIGCONT)
            suspect.heal()
        goal = self.verdict.newest_round() + AFTER_ROUNDS
        if not await self.wait(self.arguments.patience, lambda: all(self.verdict.applied[name] >= goal for name in names)):
            late = {name: self.verdict.applied[name] for name in sorted(names) if self.verdict.applied[name] < goal}
            self.problems.append(f"when the faults were over, these did not get to round {goal} in {self.arguments.patience:.0f} s: {late}")
        self.verdict.note_pause(self.now())

    def stop(self):
        from churn_member import end
        self.is_over = True
        self.note("most frames, by name, member, and whether it sent them to who dialled: "
                  + ", ".join(f"{count} {' '.join(map(str, key))}" for key, count in self.watch.frames.most_common(12)))
        self.note("take-overs, in seconds: " + " ".join(f"{seconds:.1f}" for seconds in self.verdict.takeovers))
        self.auditor.send_signal(signal.SIGTERM)
        for member in self.members:
            if member.node:
                end(member.node.process)
        if self.home not in self.members:
            self.home.end()
        try:
            self.auditor.wait(10)
        except subprocess.TimeoutExpired:
            end(self.auditor)
        for door in self.doors():
            door.close()
        for line in self.said.lines():
            self.verdict.on_auditor(line)

    def report(self):
        for what in ("wrong_sums", "unequal_digests", "innocent_excluded"):
            self.problems += [f"{what}: {text}" for text in getattr(self.verdict, what)[:10]]
        if not self.verdict.auditor["audited"]:
            self.problems.append("no round was audited")
        if self.verdict.longest_takeover(self.now()) > self.arguments.patience:
            self.problems.append(f"no round for {self.verdict.longest_takeover(self.now()):.0f} s after who coordinated had died")
        return {**self.verdict.report(self.now()), "faults": sum(self.faults.values()), "faults_by_kind": dict(sorted(self.faults.items())),
                "seed": self.arguments.seed, "members": len(self.members), "fail_over": self.fails_over, "home": self.home.name,
                "frames": self.watch.frames_total(), "problems": self.problems, "directory": str(self.folder)}


def parse():
    from swarm_trial import find_atoll
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True, help="for which things happen")
    parser.add_argument("--seed", type=int, help="default: another one each time; it is printed")
    parser.add_argument("--fail-over", action=argparse.BooleanOptionalAction, help="another one coordinates when who does is lost; default: by the seed")
    parser.add_argument("--members", type=int, default=6, help="nodes, from 3 to 63: the auditor is a member, too")
    parser.add_argument("--json", action="store_true", help="nothing but the report on standard output, as one line of JSON")
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between two faults")
    parser.add_argument("--coordinator-share", type=float, default=0.12, help="of all faults: those that are done to whoever coordinates")
    parser.add_argument("--scale", type=float, help="of all times after which somebody is given up; default: 1, from 17 members on 3")
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
