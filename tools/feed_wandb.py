#!/usr/bin/env python3
"""Sends a run's metrics to Weights & Biases, beside the run and not in it: what happens to this program costs the node nothing.

    pip install wandb
    python3 tools/feed_wandb.py runs/atoll --project atoll [--follow]
"""

import argparse
import pathlib
import sys

from metrics_scalars import lines_of, scalars_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="the run directory of a node")
    parser.add_argument("--project", default="atoll")
    parser.add_argument("--name", help="of the run there; the node's by default")
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    arguments = parser.parse_args()
    if not arguments.follow and not (pathlib.Path(arguments.run) / "metrics.jsonl").exists():
        print(f"{arguments.run}: there is no metrics.jsonl", file=sys.stderr)
        return 2
    try:
        import wandb
    except ImportError:
        print("there is no wandb here: pip install wandb", file=sys.stderr)
        return 2
    run = None
    try:
        for line in lines_of(arguments.run, arguments.follow):
            if line is None:
                continue
            if run is None:
                run = wandb.init(project=arguments.project, name=arguments.name or line.get("node"))
                # Its own step only grows; a node that goes on from a checkpoint makes steps again.
                run.define_metric("step")
                run.define_metric("*", step_metric="step")
            if line.get("event") == "start":
                run.config.update({key: line.get(key) for key in ("run", "version", "device", "ranks", "parameters", "steps")},
                                  allow_val_change=True)
            step, scalars = scalars_of(line)
            if scalars:
                run.log({"step": step, **scalars})
    except KeyboardInterrupt:
        pass
    if run is not None:
        run.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
