#!/usr/bin/env python3
"""Four nodes train one model on this computer: one joins late, one is killed.

Called by ./tools/quickstart. The nodes are ordinary `atoll train` processes over loopback; everything shown here is read from
their metrics.jsonl, as any other tool would. The last line printed is one JSON object, whose keys are stable.
"""

import argparse
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

CONFIG = "configs/quickstart.json"
CORPUS_BYTES_MAX = 40_000_000
NODES = ["north", "east", "south", "west"]
LATE, VICTIM = "west", "south"  # Joins after a third of the steps; is killed after two thirds.
PROMPT = "#include <"


class Metrics:
    """The lines of one node's metrics.jsonl, read as they come."""

    def __init__(self, path):
        self.path = path
        self.offset = 0
        self.lines = []

    def read(self):
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        self.lines += [json.loads(line) for line in data[:whole].splitlines() if line.strip()]

    def of(self, event):
        return [line for line in self.lines if line["event"] == event]

    def last(self, event):
        return next((line for line in reversed(self.lines) if line["event"] == event), None)


class Node:
    def __init__(self, run, name):
        self.name = name
        self.directory = run.directory / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.metrics = Metrics(self.directory / "metrics.jsonl")
        self.killed = False
        command = [run.atoll, "train", "--config", CONFIG] + run.settings()
        for key, value in {"node.name": name, "node.run_directory": self.directory,
                           "node.listen": "127.0.0.1:0"}.items():
            command += ["--set", f"{key}={value}"]
        with open(self.directory / "output.txt", "wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output)

    def step(self):
        line = self.metrics.last("inner_step")
        return line["step"] if line else 0

    def kill(self):
        self.killed = True
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def state(self):
        if self.killed:
            return "killed (SIGKILL)"
        if self.process.poll() is None:
            return "running" if self.metrics.last("inner_step") else "joining"
        return "done" if self.process.returncode == 0 else f"exit code {self.process.returncode}"


class Run:
    def __init__(self, arguments):
        self.atoll = arguments.atoll
        self.seconds = arguments.seconds
        self.ranks = arguments.ranks
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        self.directory = pathlib.Path(arguments.directory or f"runs/quickstart-{stamp}").resolve()
        self.nodes = {}
        self.coordinator = None
        self.address = ""
        self.threads = max(1, len(os.sched_getaffinity(0)) // len(NODES))
        self.drawn_lines = 0
        self.drawn_at = 0.0

    def settings(self):
        values = {
            "training.steps": self.steps,
            "outer.inner_steps": self.inner_steps,
            "outer.overlap_steps": max(1, self.inner_steps // 12),
            "outer.overlap_steps_max": max(1, self.inner_steps // 3),
            "optimizer.schedule.warmup_steps": min(30, self.steps // 10),
            "optimizer.schedule.stable_steps": self.steps * 2 // 3,
            "evaluation.every_steps": max(self.inner_steps, self.steps // 6 // self.inner_steps * self.inner_steps),
            "checkpoint.every_steps": max(self.inner_steps, self.steps // 6 // self.inner_steps * self.inner_steps),
            "data.sources": json.dumps([{"prefix": str(self.corpus)}]),
            "swarm.coordinator": self.address or "127.0.0.1:1",
            "node.run_secret_file": self.directory / "run.secret",
            "node.ranks": self.ranks,
            "node.threads": self.threads,
        }
        return [argument for key, value in values.items() for argument in ("--set", f"{key}={value}")]

    # -- Steps of the demonstration, in order.

    def prepare_corpus(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.corpus = self.directory / "corpus"
        print("Preparing a corpus from the C and C++ headers under /usr/include")
        report = self.json_of(["prepare", "--input", "/usr/include", "--output", self.corpus, "--json-as-text", "--max-bytes",
                               CORPUS_BYTES_MAX, "--json"])
        print(f"  {report['documents']} files, {report['tokens'] / 1e6:.1f} M tokens (bytes)")

    def plan_steps(self):
        """As many steps as fit into the time, by what this machine does when all nodes share it."""
        bench = self.json_of(["bench", "step", "--config", CONFIG, "--steps", 5, "--ranks", self.ranks, "--set",
                              f"node.threads={self.threads}", "--json"])
        config = json.loads(pathlib.Path(CONFIG).read_text())
        self.parameters = bench["parameters"]
        tokens_per_step = config["training"]["batch_rows"] * config["model"]["sequence_length"]
        processors = len(os.sched_getaffinity(0))
        busy = min(processors, max(self.threads, self.ranks))  # By one node; a rank has at least one thread.
        share = min(1.0, processors / (busy * (len(NODES) - 0.67)))  # 3, then 4, then 3 nodes run.
        wanted = int(0.85 * self.seconds * share * bench["tokens_per_second"] / tokens_per_step)
        self.inner_steps = min(25, max(4, wanted // 24))
        self.steps = max(12, round(wanted / self.inner_steps)) * self.inner_steps
        print(f"  {self.parameters / 1e6:.2f} M parameters; {self.steps} inner steps of {tokens_per_step} tokens per node, "
              f"a round every {self.inner_steps}; {self.ranks} rank(s) and {max(self.threads, self.ranks)} thread(s) per node")

    def start_coordinator(self):
        subprocess.run([self.atoll, "keys", "new-run", self.directory / "run.secret"], check=True, stdout=subprocess.DEVNULL)
        with open(self.directory / "coordinator.txt", "wb") as log:
            self.coordinator = subprocess.Popen(
                [self.atoll, "coordinate", "--config", CONFIG, "--listen", "127.0.0.1:0", "--json"] + self.settings() +
                ["--set", f"node.run_directory={self.directory / 'coordinator'}"],
                stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.coordinator.stdout.readline()
        if not line:
            raise SystemExit(f"the coordinator did not start; see {self.directory}/coordinator.txt")
        self.address = json.loads(line)["listening"]

    def train(self):
        begin = time.monotonic()
        for name in NODES:
            if name != LATE:
                self.nodes[name] = Node(self, name)
        deadline = begin + 6 * self.seconds + 120
        while any(node.process.poll() is None for node in self.nodes.values()):
            time.sleep(0.2)
            for node in self.nodes.values():
                node.metrics.read()
            front = max(node.step() for node in self.nodes.values())
            if LATE not in self.nodes and front >= self.steps / 3:
                self.say(f"{LATE} joins the run")
                self.nodes[LATE] = Node(self, LATE)
            if not self.nodes[VICTIM].killed and front >= self.steps * 2 / 3:
                self.say(f"{VICTIM} is killed with SIGKILL")
                self.nodes[VICTIM].kill()
            self.draw(begin)
            if time.monotonic() > deadline:
                self.say("the run takes far longer than planned: stopping it")
                break
        for node in self.nodes.values():
            node.metrics.read()
        self.draw(begin, force=True)
        return time.monotonic() - begin

    def stop_everything(self):
        for process in [node.process for node in self.nodes.values()] + [self.coordinator]:
            if process and process.poll() is None:
                process.terminate()
        for process in [node.process for node in self.nodes.values()] + [self.coordinator]:
            if process:
                try:
                    process.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    process.kill()

    # -- The display.

    def row(self, node):
        last, last_round = node.metrics.last("inner_step"), node.metrics.last("round")
        done = node.step() / self.steps
        bar = ("#" * int(done * 24)).ljust(24, ".")
        text = f"  {node.name:<6}[{bar}] step {node.step():>5}/{self.steps}"
        if last:
            text += f"  loss {last['loss']:.3f}  {last['tokens_per_second']:>6.0f} tokens/s"
        if last_round:
            sent = sum(line["bytes_sent"] for line in node.metrics.of("round"))
            text += f"  round {last_round['round']:>3}  {len(last_round['members'])} members  {sent / 1e6:>6.1f} MB sent"
        return text + f"  {node.state()}"

    def draw(self, begin, force=False):
        live = sys.stdout.isatty()
        now = time.monotonic()
        if not force and now - self.drawn_at < (0.4 if live else 15):
            return
        self.drawn_at = now
        rows = [f"  {now - begin:5.0f} s"] + [self.row(node) for node in self.nodes.values()]
        if live and self.drawn_lines:
            sys.stdout.write(f"\x1b[{self.drawn_lines}A")
        columns = os.get_terminal_size().columns if live else 1000
        for text in rows:
            sys.stdout.write(("\x1b[2K" if live else "") + text[:columns - 1] + "\n")
        sys.stdout.flush()
        self.drawn_lines = len(rows) if live else 0

    def say(self, text):
        print(f"  --- {text}")
        self.drawn_lines = 0

    # -- What came out.

    def survivors(self):
        return [node for node in self.nodes.values() if not node.killed]

    def digests_equal(self):
        """True if all nodes, the killed one included, agree on every round that more than one of them applied."""
        seen, compared = {}, 0
        for node in self.nodes.values():
            for line in node.metrics.of("round"):
                key = (line["fragment"], line["round"])
                compared += key in seen
                if seen.setdefault(key, line["digest"]) != line["digest"]:
                    return False
        final = {(line["round"], line["digest"]) for node in self.survivors()
                 for line in [node.metrics.last("round")] if line}
        return compared > 0 and len(final) == 1

    def has_joined(self):
        """The late node's work is in a committed round."""
        return LATE in self.nodes and any(line["contributed"] for line in self.nodes[LATE].metrics.of("round"))

    def crash_survived(self):
        """Survivors committed rounds together after the victim's last one, and all of them finished."""
        last = max((line["round"] for line in self.nodes[VICTIM].metrics.of("round")), default=0)
        later = all(any(line["round"] > last and len(line["members"]) > 1 for line in node.metrics.of("round"))
                    for node in self.survivors())
        return self.nodes[VICTIM].killed and later and all(node.process.returncode == 0 for node in self.survivors())

    def plain_data_parallel_bytes(self, node):
        """What one node sends with a ring all-reduce of fp32 gradients in every step, with the members it really had."""
        total, before = 0.0, 0
        for line in node.metrics.of("round"):
            members = max(1, len(line["members"]))
            total += (line["step"] - before) * 2 * (members - 1) / members * 4 * self.parameters
            before = line["step"]
        return int(total)

    def exposed_share(self):
        """Of the training time, in which a round stood in the way: the worst of the nodes that came to the end."""
        summaries = [summary for node in self.nodes.values() for summary in node.metrics.of("summary")]
        return max((1 - summary["utilisation"] for summary in summaries), default=None)

    def report(self, seconds):
        first = self.nodes[NODES[0]]
        evaluations = first.metrics.of("evaluation")
        rounds = first.metrics.of("round")
        return {
            "validation_loss_before": evaluations[0]["validation_loss"] if evaluations else None,
            "validation_loss_after": evaluations[-1]["validation_loss"] if evaluations else None,
            "rounds": len(rounds),
            "bytes_sent_per_node": sum(line["bytes_sent"] for line in rounds),
            "bytes_plain_data_parallel": self.plain_data_parallel_bytes(first),
            "exposed_share": self.exposed_share(),
            "digests_equal": self.digests_equal(),
            "joined": self.has_joined(),
            "crashed": self.crash_survived(),
            "seconds": round(seconds, 1),
            "run_directory": str(self.directory),
        }

    def sample(self):
        process = subprocess.run([self.atoll, "generate", "--checkpoint", str(self.nodes[NODES[0]].directory), "--prompt",
                                  PROMPT, "--tokens", "300", "--temperature", "0.7"], capture_output=True)
        return process.stdout.decode("utf-8", "replace")

    def json_of(self, arguments):
        process = subprocess.run([self.atoll] + [str(argument) for argument in arguments], capture_output=True, text=True)
        if process.returncode != 0:
            sys.stderr.write(process.stderr)
            raise SystemExit(process.returncode)
        return json.loads(process.stdout.splitlines()[-1])


def explain(report):
    before, after = report["validation_loss_before"], report["validation_loss_after"]
    ratio = report["bytes_plain_data_parallel"] / max(1, report["bytes_sent_per_node"])
    yes_no = {True: "yes", False: "NO"}
    print(f"\nValidation loss       {before:.3f} -> {after:.3f} nats per byte")
    print(f"Sent by one node      {report['bytes_sent_per_node'] / 1e6:.1f} MB in {report['rounds']} rounds; fp32 data "
          f"parallelism: {report['bytes_plain_data_parallel'] / 1e6:.0f} MB ({ratio:.0f} times as much)")
    if report["exposed_share"] is not None:
        print(f"Stood still for it    {report['exposed_share']:.1%} of the time: training goes on while a round runs")
    print(f"Outer digests equal   {yes_no[report['digests_equal']]}, on every round of every node")
    print(f"Join survived         {yes_no[report['joined']]}")
    print(f"Crash survived        {yes_no[report['crashed']]}")


def main():
    parser = argparse.ArgumentParser(prog="./tools/quickstart", description=__doc__.splitlines()[0])
    parser.add_argument("--atoll", required=True, help=argparse.SUPPRESS)  # ./tools/quickstart builds one and names it.
    parser.add_argument("--seconds", type=float, default=150, help="length of the training run, about (%(default)s)")
    parser.add_argument("--directory", help="where everything goes (runs/quickstart-DATE-TIME)")
    parser.add_argument("--ranks", type=int, default=1, metavar="N",
                        help="workers that share the work of each node, as GPUs would: node.ranks, 1 to 64 (%(default)s)")
    arguments = parser.parse_args()
    if not 1 <= arguments.ranks <= 64:
        parser.error(f"--ranks: expected 1 to 64, found {arguments.ranks}")
    run = Run(arguments)
    run.prepare_corpus()
    run.plan_steps()
    try:
        run.start_coordinator()
        print(f"Training: {len(NODES) - 1} nodes start, {LATE} joins after a third, {VICTIM} is killed after two thirds")
        seconds = run.train()
    finally:
        run.stop_everything()
    report = run.report(seconds)
    if report["validation_loss_before"] is None:
        print(f"No node got as far as an evaluation; see {run.directory}/*/log.txt", file=sys.stderr)
        print(json.dumps(report))
        return 1
    explain(report)
    print(f"\nThe model writes, after {PROMPT!r}:\n")
    print("    " + run.sample().replace("\n", "\n    "))
    print(f"Run directory         {run.directory}")
    print(json.dumps(report))
    learned = report["validation_loss_after"] < 0.75 * report["validation_loss_before"]
    return 0 if learned and report["digests_equal"] and report["joined"] and report["crashed"] else 1


if __name__ == "__main__":
    sys.exit(main())
