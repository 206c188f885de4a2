#!/usr/bin/env python3
"""Runs simulated swarms with random faults, one per seed, on all cores; shrinks those that fail. Called by ./tools/simulate.

    ./tools/simulate --seeds 20000                 the usual run: it also fails when a rare branch (a probe) was never reached
    ./tools/simulate --first 17 --seeds 1 --log    one seed, with the log of its machines

What a run is stands in tests/net/simulation/. A seed that fails is run again with ever less of it, as long as it fails: without
whole kinds of faults, then without halves, quarters, ... of those that are left, with fewer nodes, and with an earlier end. Then the
smallest scenario is printed, and the command that shows its log.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHUNK = 200  # Seeds of one process.
DEATHS = ("Bug: ", "the process died", "it hangs")
HANGS_AFTER = 600  # Seconds, for such a process; one seed takes milliseconds.
SEEDS_FOR_PROBES = 20000
SHRUNK_MAX = 5  # Of the seeds that fail.


def find_program(folder):
    program = ROOT / folder / "tests" / "net" / "simulate"
    if not (ROOT / folder / "build.ninja").exists():
        subprocess.run(["meson", "setup", folder, "--buildtype=release"], cwd=ROOT, check=True, stdout=sys.stderr)
    subprocess.run(["ninja", "-C", folder, "tests/net/simulate"], cwd=ROOT, check=True, stdout=sys.stderr)
    return str(program)


class Result:
    """What processes said: failures by seed, hits by probe, and counts."""

    def __init__(self):
        self.failures, self.probes, self.seeds, self.events, self.rounds = {}, {}, 0, 0, 0

    def add(self, other):
        self.failures.update(other.failures)
        for text, hits in other.probes.items():
            self.probes[text] = self.probes.get(text, 0) + hits
        self.seeds, self.events, self.rounds = self.seeds + other.seeds, self.events + other.events, self.rounds + other.rounds


def run_process(command):
    """Standard output, and how it ended if not by itself."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER)
    except subprocess.TimeoutExpired as expired:
        return (expired.stdout or b"").decode(), "it hangs"
    bug = re.search(r"Bug: .*", done.stderr)
    died = None if done.returncode in (0, 1) else bug[0] if bug else f"the process died ({done.returncode})"
    return done.stdout, died


def run_seeds(program, first, count):
    """Goes on behind a seed that ends the process; what that had reached before is run again, for its probes."""
    result, end = Result(), first + count
    while first < end:
        output, died = run_process([program, "--first", str(first), "--seeds", str(end - first)])
        lines = [line.split(" ", 2) for line in output.splitlines()]
        result.failures.update({int(words[1]): words[2] for words in lines if words[0] == "failed"})
        if not died:
            result.probes = {words[2]: result.probes.get(words[2], 0) + int(words[1]) for words in lines if words[0] == "probe"}
            numbers = output.splitlines()[-1].split()
            result.seeds, result.events, result.rounds = count, result.events + int(numbers[2]), result.rounds + int(numbers[3])
            return result
        dead = max((int(words[1]) for words in lines if words[0] == "at"), default=first)
        result.failures[dead] = died
        if dead > first:
            result.add(run_seeds(program, first, dead - first))
        first = dead + 1
    result.seeds = count
    return result


class Shrinker:
    """Finds a small part of a scenario that fails still."""

    def __init__(self, program, seed, is_death):
        self.program, self.seed, self.is_death = program, seed, is_death
        text = subprocess.run([program, "--first", str(seed), "--show", "--end-ms", "0", "--faults", ""],
                              capture_output=True, text=True).stdout
        self.nodes = int(re.search(r": (\d+) nodes", text)[1])
        text = self.show({})
        self.kinds = re.findall(r"^ +[\d.]+ s  (\S+) ", text, re.M)
        self.times = [float(time) for time in re.findall(r"^ +([\d.]+) s  \S+ ", text, re.M)]
        self.part = {"faults": list(range(len(self.kinds)))}

    def arguments(self, part):
        words = ["--first", str(self.seed), "--seeds", "1"]
        for name, value in part.items():
            words += ["--" + name, ",".join(map(str, value)) if name == "faults" else str(value)]
        return words

    def show(self, part):
        # Nothing runs after the scenario was printed, if its process is not read any further.
        process = subprocess.Popen([self.program, *self.arguments(part), "--show"], stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.DEVNULL)
        lines = []
        for line in process.stdout:
            if line.startswith("at "):
                break
            lines.append(line)
        process.kill()
        process.communicate()
        return "".join(lines)

    def fails(self, part):
        """In the same way as the whole: by what it says, or by an end of its process."""
        output, died = run_process([self.program, *self.arguments(part)])
        return died is not None if self.is_death else "\nfailed " in "\n" + output

    def try_part(self, **change):
        part = {**self.part, **change}
        if not self.fails(part):
            return False
        self.part = part
        return True

    def shrink(self):
        for kind in sorted(set(self.kinds)):
            self.try_part(faults=[fault for fault in self.part["faults"] if self.kinds[fault] != kind])
        size = max(len(self.part["faults"]) // 2, 1)
        while self.part["faults"]:
            faults, start, is_smaller = self.part["faults"], 0, False
            while start < len(self.part["faults"]):
                faults = self.part["faults"]
                if self.try_part(faults=faults[:start] + faults[start + size:]):
                    is_smaller = True
                else:
                    start += size
            if size == 1 and not is_smaller:
                break
            size = max(size // 2, 1)
        for nodes in range(2, self.nodes):
            if self.try_part(nodes=nodes):
                break
        last = max((self.times[fault] for fault in self.part["faults"]), default=0)
        for seconds in (last + 0.001, last + 1, last + 5):
            if self.try_part(**{"end-ms": int(1000 * seconds) + 1}):
                break
        return self.part


def report_failure(program, seed, reason, out):
    print(f"seed {seed}: {reason}", file=out)
    shrinker = Shrinker(program, seed, reason.startswith(DEATHS))
    if not shrinker.fails(shrinker.part):
        print("  alone it does not fail", file=out)
        return
    part = shrinker.shrink()
    print("the smallest part that fails:\n" + shrinker.show(part).rstrip(), file=out)
    print("its log: " + " ".join([os.path.relpath(program), *shrinker.arguments(part), "--show", "--log"]) + "\n", file=out, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS_FOR_PROBES)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="the last line is one of JSON, everything else goes to stderr")
    parser.add_argument("--log", action="store_true", help="with the machines' log, on one core; nothing is shrunk")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--program", help="a built tests/net/simulate; it is built in build/test if none is named")
    arguments = parser.parse_args()
    program = arguments.program or find_program("build/test")
    out = sys.stderr if arguments.json else sys.stdout
    if arguments.log:
        words = ["--first", str(arguments.first), "--seeds", str(arguments.seeds), "--show", "--log"]
        return subprocess.run([program, *words]).returncode

    end, total = arguments.first + arguments.seeds, Result()
    chunks = [(first, min(CHUNK, end - first)) for first in range(arguments.first, end, CHUNK)]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(lambda chunk: run_seeds(program, *chunk), chunks):
            total.add(result)
    unhit = sorted(text for text, hits in total.probes.items() if hits == 0)
    for seed, reason in sorted(total.failures.items())[:SHRUNK_MAX]:
        report_failure(program, seed, reason, out)
    for text in unhit if arguments.seeds >= SEEDS_FOR_PROBES else []:
        print(f"never reached: {text}", file=out)
    print(f"{total.seeds} seeds, {len(total.failures)} failures, {total.rounds} rounds, {total.events} events, "
          f"{len(total.probes) - len(unhit)} of {len(total.probes)} probes reached", file=out)
    if arguments.json:
        print(json.dumps({"seeds": total.seeds, "failures": len(total.failures), "failing_seeds": sorted(total.failures),
                          "events": total.events, "probes_unhit": unhit}))
    return 1 if total.failures or (unhit and arguments.seeds >= SEEDS_FOR_PROBES) else 0


if __name__ == "__main__":
    sys.exit(main())
