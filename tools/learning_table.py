#!/usr/bin/env python3
"""Tables and pictures of what few rounds, few bits and overlap do to the loss, from the lines of tests/train/streaming_benchmark.cpp.

    python3 tools/learning_table.py lines.txt --pictures docs/pictures

Each loss is held against another run's of the same seed: another seed has other documents to be judged by.
"""

import argparse
import collections
import fractions
import json
import pathlib
import statistics

from svg_plot import Axis, Row, Series, category_chart, line_chart

Case = collections.namedtuple("Case", "run nodes rows steps inner_steps fragments overlap codec results merge")
DATA_PARALLEL = Case("data parallel", nodes=1, rows=12, steps=256, inner_steps=0, fragments=1, overlap=0, codec="fp32", results="same",
                     merge="rebase")
BLOCKING = DATA_PARALLEL._replace(run="blocking", nodes=3, inner_steps=16)
STREAMING = BLOCKING._replace(run="streaming", overlap=1, codec="int4")
OF_NODES, OF_ROUNDS = DATA_PARALLEL._replace(rows=8), DATA_PARALLEL._replace(steps=512)
RUNS = ("data parallel", "blocking", "streaming")
CODECS = ("fp32", "int8", "int4", "lut2")
MERGES = ("rebase", "overwrite", "lerp")


class Losses:
    """By case and seed."""

    def __init__(self, files):
        self.by_case = collections.defaultdict(dict)
        for path in files:
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith("{"):
                    run = json.loads(line)
                    self.by_case[Case(*(run[name] for name in Case._fields))][run["seed"]] = run["loss"]

    def mean(self, case):
        return f"{statistics.mean(self.by_case[case].values()):.3f}" if case in self.by_case else ""

    def above(self, case, reference):
        """By seed: how far the case's loss is above the reference's."""
        other = self.by_case.get(reference, {})
        return [loss - other[seed] for seed, loss in sorted(self.by_case.get(case, {}).items()) if seed in other]

    def series(self, name, reference, cases):
        """How far above the reference each of the cases (x, case) is, over x."""
        found = [(x, self.above(case, reference)) for x, case in cases]
        return Series(name, [(x, statistics.mean(above)) for x, above in found if above],
                      samples=[(x, one) for x, above in found if len(above) > 1 for one in above])


def signed(differences):
    """Their mean, and by seed where there are several."""
    if not differences:
        return ""
    each = ", ".join(f"{one:+.3f}" for one in differences)
    return f"{statistics.mean(differences):+.3f}" + (f" ({each})" if len(differences) > 1 else "")


def table(title, head, rows):
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


def overlap_of(case):
    return str(fractions.Fraction(case.overlap, case.inner_steps)) if case.overlap else ""


def position(case):
    """Of its row."""
    return (RUNS.index(case.run), case.overlap, case.fragments, MERGES.index(case.merge), CODECS.index(case.codec))


def codecs(losses):
    of_shape = sorted((case for case in losses.by_case if case[2:4] == BLOCKING[2:4] and case.inner_steps in (0, 16)), key=position)
    table("All runs of three nodes", ["run", "fragments", "tau / H", "contributions", "results", "merge", "above blocking fp32 (by seed)"],
          [[case.run, case.fragments, overlap_of(case), case.codec, case.codec if case.results == "same" else case.results,
            case.merge if case.overlap else "", signed(losses.above(case, BLOCKING))] for case in of_shape])
    print("\nBlocking fp32 itself:", ", ".join(f"{loss:.3f} (seed {seed})" for seed, loss in sorted(losses.by_case[BLOCKING].items())))
    results = {"lut2": "int4"}
    rows = [Row("data parallel", losses.above(DATA_PARALLEL, BLOCKING), colour=5)]
    for title, base in (("blocking", BLOCKING), ("overlap 1/16, rebase", STREAMING), ("overlap 1/16, overwrite", STREAMING._replace(merge="overwrite"))):
        cases = [(codec, base._replace(codec=codec, results=results.get(codec, "same"))) for codec in CODECS]
        rows.append(Row(title, []))
        rows += [Row(codec, losses.above(case, BLOCKING), colour) for colour, (codec, case) in enumerate(cases) if losses.above(case, BLOCKING)]
    return category_chart("What the codec of contributions costs: loss above blocking fp32", Axis("nats per byte; a point per seed", tick_text="{:+.2f}"), rows)


def merges(losses):
    def cases(merge):
        return [(overlap / 16, STREAMING._replace(overlap=overlap, merge=merge)) for overlap in (1, 4, 8, 12)]

    table("By overlap and merge rule: int4, above blocking fp32", ["tau / H", *MERGES],
          [[overlap_of(case), *(signed(losses.above(case._replace(merge=merge), BLOCKING)) for merge in MERGES)] for _, case in cases("rebase")])
    return line_chart("What overlap costs by merge rule: loss above blocking fp32",
                      Axis("tau / H", ticks=[0, 1 / 16, 1 / 4, 1 / 2, 3 / 4], tick_text=["0", "1/16", "1/4", "1/2", "3/4"]),
                      Axis("nats per byte", tick_text="{:+.2f}"), [losses.series(merge, BLOCKING, cases(merge)) for merge in MERGES])


def nodes(losses):
    cases = [(count, STREAMING._replace(nodes=count, rows=8)) for count in (1, 2, 4, 8)]
    table("By nodes: streaming int4, overlap 1/16, eight rows of each step dealt out", ["nodes", "loss", "above data parallel"],
          [["data parallel", losses.mean(OF_NODES), ""], *([count, losses.mean(case), signed(losses.above(case, OF_NODES))] for count, case in cases)])
    return line_chart("What more nodes cost at equal tokens: loss above data parallel", Axis("nodes", ticks=[1, 2, 4, 8], is_log=True),
                      Axis("nats per byte", tick_text="{:+.2f}"), [losses.series("streaming int4", OF_NODES, cases)])


def rounds(losses):
    blocking = [(steps, BLOCKING._replace(steps=512, inner_steps=steps)) for steps in (16, 64, 128)]
    streaming = [(steps, STREAMING._replace(steps=512, inner_steps=steps, overlap=steps // 16)) for steps, _ in blocking]
    table("By H: 512 steps, overlap 1/16", ["H", "blocking fp32", "above data parallel", "streaming int4", "above blocking of the same H"],
          [[steps, losses.mean(base), signed(losses.above(base, OF_ROUNDS)), losses.mean(case), signed(losses.above(case, base))]
           for (steps, base), (_, case) in zip(blocking, streaming)])
    return line_chart("What fewer rounds cost: loss above data parallel", Axis("H, steps between rounds", ticks=[16, 64, 128], is_log=True),
                      Axis("nats per byte", tick_text="{:+.2f}"),
                      [losses.series("blocking fp32", OF_ROUNDS, blocking), losses.series("streaming int4", OF_ROUNDS, streaming)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", type=pathlib.Path)
    parser.add_argument("--pictures", type=pathlib.Path, help="a folder for SVGs")
    options = parser.parse_args()
    losses = Losses(options.lines)
    for draw, reference in ((codecs, BLOCKING), (merges, BLOCKING), (nodes, OF_NODES), (rounds, OF_ROUNDS)):
        if reference not in losses.by_case:
            continue
        picture = draw(losses)
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            (options.pictures / f"learning-{draw.__name__}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
