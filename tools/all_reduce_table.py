#!/usr/bin/env python3
"""Rounds over lines of many rates and lengths, as a table in Markdown: `atoll bench allreduce` for each.

A cell is seconds from open to commit, the line's efficiency, and in brackets what the same bytes over plain TCP reach.
Fast lines come first, so that an interrupted run has what needs a quiet machine. Needs root; see docs/architecture.md.
"""

import argparse
import json
import subprocess
import sys


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoll", default="build/src/cli/atoll")
    parser.add_argument("--rates", default=[1000, 500, 100, 20], type=float, nargs="+", help="Mbit/s")
    parser.add_argument("--round-trips", default=[1, 50, 150], type=float, nargs="+", help="ms")
    parser.add_argument("--peers", default=[2, 4, 8], type=int, nargs="+")
    parser.add_argument("--mib", default=64, type=float)
    parser.add_argument("--codec", default="int8")
    parser.add_argument("--repetitions", default=3, type=int)
    parser.add_argument("--loss", default=0, type=float)
    parser.add_argument("--jsonl", help="also write each report as a line of this file")
    return parser.parse_args()


def measure(options, rate, round_trip, peers):
    command = [options.atoll, "bench", "allreduce", "--peers", peers, "--rate-mbit", rate, "--rtt-ms", round_trip, "--mib",
               options.mib, "--codec", options.codec, "--repetitions", options.repetitions, "--loss", options.loss, "--json"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stderr}")
    report = json.loads(result.stdout)
    if report["network"] != "namespaces":
        sys.exit(f"no line can be shaped here: {report['network_problem']}")
    if options.jsonl:
        with open(options.jsonl, "a", encoding="utf-8") as file:
            file.write(result.stdout)
    return report


def cell(report):
    plain = report["ideal_seconds"] / report["plain_tcp_seconds"]
    return f"{report['seconds']:.2f} s, {100 * report['efficiency']:.0f} % ({100 * plain:.0f} %)"


def main():
    options = arguments()
    columns = [f"{peers} peers" for peers in options.peers]
    print("| Mbit/s | round trip |", " | ".join(columns), "|")
    print("|---|---|" + "---|" * len(columns))
    for rate in options.rates:
        for round_trip in options.round_trips:
            cells = [cell(measure(options, rate, round_trip, peers)) for peers in options.peers]
            print(f"| {rate:g} | {round_trip:g} ms |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
