#!/usr/bin/env python3
"""How long a newcomer takes to get in while the run goes on, and what that costs those who train.

Trains a model on nodes in a lab (`atoll bench lab`: needs root) over lines of one rate, and starts one more node when the run is some rounds
old. Prints a JSON line: the seconds from the first block that the newcomer wants until it is a member, beside those that the bytes of the
state alone take on its line, and the medians of the members' seconds per step before and meanwhile, standing still for rounds included.
All nodes share this machine's processors, so that the newcomer's own work slows the others' steps, too: steps while it trains, afterwards,
stand beside them.
"""

import argparse
import datetime
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

# 4.3 million parameters: 34 MB of outer state.
MODEL = ["model.width=256", "model.layers=6", "model.feed_forward=768", "training.batch_rows=1", "training.micro_batch_rows=1",
         "evaluation.every_steps=0", "checkpoint.every_steps=0", "optimizer.schedule.kind=constant"]

NODE = """
if [ "$ATOLL_LAB_NODE" = 0 ]; then exec "$0" coordinate --listen 10.77.0.1:29500 "$@"; fi
if [ "$ATOLL_LAB_NODE" = "$NEWCOMER" ]; then
  while [ "$(grep -c '"event":"round"\\|"event": "round"' node-1/metrics.jsonl 2>/dev/null || true)" -lt "$ROUNDS_BEFORE" ] 2>/dev/null; do sleep 0.2; done
fi
exec "$0" train --set node.name=node-$ATOLL_LAB_NODE --set node.run_directory=node-$ATOLL_LAB_NODE \
  --set swarm.coordinator=10.77.0.1:29500 --set node.listen=0.0.0.0:0 --set node.threads=1 "$@"
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoll", default="build/src/cli/atoll")
    parser.add_argument("--config", default="configs/quickstart.json")
    parser.add_argument("--data", required=True, help="a prefix that `atoll prepare` has made")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="override one key of the config")
    parser.add_argument("--nodes", default=3, type=int, help="that are there from the start")
    parser.add_argument("--rate-mbit", default=20, type=float)
    parser.add_argument("--rounds-before", default=9, type=int, help="so many, then the newcomer starts")
    parser.add_argument("--rounds", default=16, type=int, help="of the whole run")
    parser.add_argument("--inner-steps", default=20, type=int)
    return parser.parse_args()


def train(options, folder):
    overrides = [*MODEL, f"outer.inner_steps={options.inner_steps}", f"training.steps={options.rounds * options.inner_steps}",
                 f"swarm.start_members={options.nodes}", *options.overrides,
                 f'data.sources=[{{"prefix": "{pathlib.Path(options.data).resolve()}"}}]']
    atoll = pathlib.Path(options.atoll).resolve()
    environment = ["env", f"NEWCOMER={options.nodes + 1}", f"ROUNDS_BEFORE={options.rounds_before}"]
    command = [atoll, "bench", "lab", "--nodes", options.nodes + 2, "--rate-mbit", options.rate_mbit, "--", *environment, "sh", "-c", NODE, atoll,
               "--config", pathlib.Path(options.config).resolve(), *[argument for override in overrides for argument in ("--set", override)]]
    result = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(result.stdout + result.stderr)


def time_of(log, pattern):
    for line in log.splitlines():
        if re.search(pattern, line):
            return datetime.datetime.fromisoformat(line[:23])
    sys.exit(f"the newcomer's log has no line with {pattern!r}:\n{log}")


def lines_of(folder, node):
    lines = [json.loads(line) for line in pathlib.Path(folder, f"node-{node}", "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["time"] = datetime.datetime.fromisoformat(line["time"].rstrip("Z"))
    return lines


def step_seconds(folder, nodes, since, until):
    """From the end of a step to the end of the next: rounds that are waited for are in it."""
    seconds = []
    for node in nodes:
        times = [line["time"] for line in lines_of(folder, node) if line["event"] == "inner_step"]
        seconds += [(b - a).total_seconds() for a, b in zip(times, times[1:], strict=False) if since <= a and b <= until]
    return statistics.median(seconds), statistics.mean(seconds)


def main():
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        train(options, folder)
        log = pathlib.Path(folder, f"node-{options.nodes + 1}", "log.txt").read_text(encoding="utf-8")
        begin, end = time_of(log, "fetching the state in force"), time_of(log, "member .* of the swarm, at step")
        parameters = int(re.search(r": (\d+) parameters", log).group(1))
        members = range(1, options.nodes + 1)
        rounds = sorted(line["time"] for line in lines_of(folder, 1) if line["event"] == "round")
        meanwhile = (begin, end)
        before = (rounds[1], begin)
        after = (end, rounds[-1])
        report = {"state_mb": 8e-6 * parameters, "rate_mbit": options.rate_mbit, "seconds": (end - begin).total_seconds(),
                  "line_seconds": 64e-6 * parameters / options.rate_mbit,
                  "round_seconds": (rounds[-2] - rounds[1]).total_seconds() / (len(rounds) - 3),
                  "rounds_meanwhile": sum(begin <= time <= end for time in rounds)}
        report["times_line"] = report["seconds"] / report["line_seconds"]
        for name, (since, until) in (("before", before), ("meanwhile", meanwhile), ("after", after)):
            report[f"step_median_{name}"], report[f"step_mean_{name}"] = step_seconds(folder, members, since, until)
        print(json.dumps(report))


if __name__ == "__main__":
    main()
