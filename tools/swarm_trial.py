#!/usr/bin/env python3
"""What one bad node costs the others: three healthy nodes and a coordinator, real processes on loopback, and one that is bad.

    ./tools/swarm_trial [--list] [--case NAME ...] [--rounds N] [--seconds S] [--atoll PATH] [--directory DIR]

Prints a JSON line per case; the exit code is 1 if one is not `ok`. `problems` says what was expected in vain. The first case is always
the swarm without a bad node, whose rate and loss stand beside those of the others (`baseline_...`):
  left_out       by name: what the coordinator's log says of those whom it refused, left out of a round, or does not let contribute
  notices        by name: what a node was told of that (`standing` in its metrics.jsonl)
  rounds, seconds, rounds_per_second     of the healthy nodes, from when the bad one began
  stood_still_seconds                    of the healthy node that waited longest (`exposed_seconds`)
  final_loss     mean of the healthy nodes' last ten steps
  digests_equal  all nodes agree on each round that two of them applied
  exit_codes     by name; negative: the signal that ended it; null: it still ran and was killed at the case's end
  facts          what else the case has counted
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILDS = ["build/release", "build/test", "build/w"]


def find_atoll():
    found = [path for path in (ROOT / build / "src/cli/atoll" for build in BUILDS) if path.exists()]
    return str(max(found, key=lambda path: path.stat().st_mtime)) if found else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="names and descriptions of the cases")
    parser.add_argument("--case", action="append", metavar="NAME", help="only this one, and the healthy swarm; may be repeated")
    parser.add_argument("--rounds", type=int, default=20, help="rounds that the healthy nodes must commit beside the bad one")
    parser.add_argument("--seconds", type=float, default=0, help="... for at least so long")
    parser.add_argument("--atoll", default=find_atoll(), help="the executable; default: the newest in a build folder")
    parser.add_argument("--directory", help="keeps run directories and logs there")
    arguments = parser.parse_args()
    if not arguments.atoll and not arguments.list:
        parser.error("there is no executable in a build folder: build one, or say --atoll")
    os.environ["ATOLL"] = os.path.abspath(arguments.atoll or "")
    sys.path.insert(0, str(ROOT / "tests/integration"))
    from swarm_case import Runner  # They need ATOLL.
    from swarm_cases import CASES
    if arguments.list:
        for name, case in CASES.items():
            print(f"{name:<16}{' '.join(case.__doc__.split())}")
        return 0
    unknown = set(arguments.case or []) - set(CASES)
    if unknown:
        parser.error(f"there is no case {', '.join(sorted(unknown))}; --list names them")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(arguments.directory or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        runner = Runner(folder, arguments.rounds, arguments.seconds)
        are_ok = True
        for name in [name for name in CASES if name == "healthy" or name in (arguments.case or CASES)]:
            report = runner.run(name, CASES[name])
            are_ok &= report["ok"]
            print(json.dumps(report), flush=True)
    return 0 if are_ok else 1


if __name__ == "__main__":
    sys.exit(main())
