#!/usr/bin/env python3
"""Measured against simulated: what share of the time nodes train over lines of several shares of the floor.

Trains a config on nodes in a lab (`atoll bench lab`: needs root) once without a limit, for the time of a step, and then twice per
share, with lines of that share of the floor that `atoll simulate` gives for this step time: as the config says, and blocking, without
any overlap. Prints a JSON line per run; with --svg it draws both curves, measured and simulated. All nodes share this machine's
processors, so that steps take as long as with all of them at work; they stand still together, too.
"""

import argparse
import json
import os
import pathlib
import secrets
import statistics
import subprocess
import sys
import tempfile

import svg_plot

MODES = {"streaming": [], "blocking": ["outer.overlap_steps=0", "outer.overlap_steps_max=0"]}

NODE = """
if [ "$ATOLL_LAB_NODE" = 0 ]; then exec "$0" coordinate --listen 10.77.0.1:29500 "$@"; fi
exec "$0" train --set node.name=node-$ATOLL_LAB_NODE --set node.run_directory=node-$ATOLL_LAB_NODE \
  --set swarm.coordinator=10.77.0.1:29500 --set node.listen=0.0.0.0:0 --set node.threads=1 "$@"
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoll", default="build/src/cli/atoll")
    parser.add_argument("--config", default="configs/quickstart.json")
    parser.add_argument("--data", required=True, help="a prefix that `atoll prepare` has made")
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="override one key of the config")
    parser.add_argument("--nodes", default=4, type=int)
    parser.add_argument("--rounds", default=5, type=int, help="that are measured; one before and one after them are not")
    parser.add_argument("--shares", default=[0.5, 1, 2, 3], type=float, nargs="+", help="of the floor")
    parser.add_argument("--svg", help="draw the curves into this file")
    return parser.parse_args()


# Of the nodes of each run.
os.environ.setdefault("ATOLL_RUN_SECRET", secrets.token_hex(32))


def overrides_of(options, mode):
    return [argument for override in [*options.overrides, *MODES[mode]] for argument in ("--set", override)]


def inner_steps(options):
    shown = subprocess.run([options.atoll, "inspect", "config", options.config, *overrides_of(options, "streaming")], check=True,
                           capture_output=True, text=True).stdout
    return json.JSONDecoder().raw_decode(shown)[0]["outer"]["inner_steps"]


def train(options, mode, steps, lab_options):
    """Of each node: seconds of a step, and what shares of the time it was at steps and waited for commits. Without the end of the run, where
    all that is in flight is waited for, however it streams."""
    with tempfile.TemporaryDirectory() as folder:
        config = ["--config", pathlib.Path(options.config).resolve(), *overrides_of(options, mode),
                  "--set", f'data.sources=[{{"prefix": "{pathlib.Path(options.data).resolve()}"}}]',
                  "--set", f"training.steps={steps}", "--set", "optimizer.schedule.kind=constant", "--set", f"swarm.start_members={options.nodes}"]
        atoll = pathlib.Path(options.atoll).resolve()
        command = [atoll, "bench", "lab", "--nodes", options.nodes + 1, *lab_options, "--", "sh", "-c", NODE, atoll, *config]
        result = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            sys.exit(result.stderr)
        return [shares_of(pathlib.Path(folder, f"node-{node}", "metrics.jsonl")) for node in range(1, options.nodes + 1)]


def shares_of(metrics):
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    rounds = [line for line in lines if line["event"] == "round"]
    end = max(line["applied_step"] for line in rounds)
    rounds = [line for line in rounds if line["applied_step"] < end]
    first, last = rounds[0]["applied_step"], rounds[-1]["applied_step"]
    steps = [line["seconds"] for line in lines if line["event"] == "inner_step" and first < line["step"] <= last]
    exposed, waited = (sum(line[kind] for line in rounds[1:]) for kind in ("exposed_seconds", "wait_seconds"))
    total = sum(steps) + exposed
    return statistics.mean(steps), sum(steps) / total, waited / total


def simulate(options, mode, step_seconds, rate):
    command = [options.atoll, "simulate", "--config", options.config, *overrides_of(options, mode), "--nodes", options.nodes, "--rate-mbit",
               rate, "--step-seconds", *step_seconds, "--json"]
    return json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)


def measure(options, mode, steps, share, floor):
    nodes = train(options, mode, steps, ["--rate-mbit", share * floor])
    simulated = simulate(options, mode, [node[0] for node in nodes], share * floor)
    step_seconds, measured, waited = (statistics.mean(column) for column in zip(*nodes, strict=True))
    return {"mode": mode, "share_of_floor": share, "rate_mbit": share * floor, "step_seconds": step_seconds, "measured": measured,
            "waited": waited, "simulated": simulated["utilisation"]}


def draw(runs, nodes):
    series = []
    for colour, mode in enumerate(MODES):
        for what in ("measured", "simulated"):
            points = [(run["share_of_floor"], 100 * run[what]) for run in runs if run["mode"] == mode]
            is_simulated = what == "simulated"
            series.append(svg_plot.Series(f"{mode}, {what}", points, is_dashed=is_simulated, has_marks=not is_simulated, colour=colour))
    return svg_plot.line_chart(f"Share of the time at inner steps, {nodes} nodes", svg_plot.Axis("rate of the lines, in floors"),
                               svg_plot.Axis("%", ticks=[0, 20, 40, 60, 80, 100]), series)


def main():
    options = arguments()
    steps = inner_steps(options) * (options.rounds + 2)
    step_seconds = [node[0] for node in train(options, "streaming", steps, [])]
    floor = simulate(options, "streaming", step_seconds, 1)["floor_mbit"]
    runs = []
    for share in options.shares:
        for mode in MODES:
            runs.append(measure(options, mode, steps, share, floor))
            print(json.dumps(runs[-1]), flush=True)
    if options.svg:
        pathlib.Path(options.svg).write_text(draw(runs, options.nodes), encoding="utf-8")


if __name__ == "__main__":
    main()
