#!/usr/bin/env python3
"""A table of what streaming and few bits do to the loss, from the lines of tests/train/streaming_benchmark.cpp.

    for seed in 42 43 44; do ATOLL_SEED=$seed ATOLL_CORPUS=CORPUS build/test/tests/train/test_train "[streaming]"; done > lines.txt
    python3 tools/learning_table.py lines.txt

Each loss is held against blocking fp32 of the same seed: another seed has other documents to be judged by.
"""

import collections
import fileinput
import json
import statistics

REFERENCE = ("blocking", 1, 0, "fp32", "same", "rebase")


def main():
    losses = collections.defaultdict(dict)
    for line in fileinput.input():
        if line.startswith("{"):
            run = json.loads(line)
            key = tuple(run[name] for name in ("run", "fragments", "overlap", "codec", "results", "merge"))
            losses[key][run["seed"]] = run["loss"]
    reference = losses[REFERENCE]
    print("| run | fragments | tau / H | contributions | results | merge | loss | above blocking fp32, by seed | mean |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (name, fragments, overlap, codec, results, merge), by_seed in losses.items():
        above = [loss - reference[seed] for seed, loss in sorted(by_seed.items()) if seed in reference]
        cells = [name, fragments, f"{overlap}/16" if overlap else "", codec, codec if results == "same" else results,
                 merge if overlap else "", f"{statistics.mean(by_seed.values()):.3f}",
                 ", ".join(f"{difference:+.3f}" for difference in above), f"{statistics.mean(above):+.3f}"]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
