#!/usr/bin/env python3
"""Everything that only a GPU can show, in one call of under eight minutes. Called by ./tools/gpu_check.

    ./tools/gpu_check --output DIR [--build build/gpu] [--quick]

Runs from a built tree and installs nothing. If the build folder is not there, it is made first.
  1. the operations on the GPU against the CPU, cuDNN attention against plain attention, the whole model's loss and gradients, 200
     training steps against the CPU's curve, two runs with the same bits;
  2. compute-sanitizer (memcheck, racecheck) over the operations, where it is installed;
  3. several ranks: NCCL with one rank; 2 and 4 ranks that share the GPU, through the in-process communicator, against 1;
  4. `atoll bench step`: 8 blocks of the 10B shape at sequence 8192, with one document per row and with packed ones;
  5. the same with a small model and 1, 2 and 4 ranks on the GPU: bytes moved, and the share of the step that waits for them;
  6. the 8 blocks in PyTorch, without and with recomputation, where PyTorch is installed.
Writes gpu_check.json and gpu_check.md into DIR. The exit code is 1 if a check failed; a part that could not run is named, and
does not fail.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPE = "configs/intellect-1-10b.json"
BLOCKS = 8  # What 80 GB hold at full width with 18 bytes per parameter; the time of a block is the same as in 42.
ALL_BLOCKS = 42
MICRO_BATCHES = 4
SANITIZED = "~[slow]~[model]~[ranks]~[benchmark]"
RANKS_SHAPE = "configs/prime-150m.json"
RANK_CASES = ((1, "full"), (2, "replicated"), (2, "gradients"), (2, "full"), (4, "full"))


class Checks:
    def __init__(self, deadline):
        self.deadline = deadline
        self.entries = []

    def run(self, name, command, limit, environment=None):
        """Runs a command within its own limit and what is left of the whole; returns (passed, output)."""
        limit = min(limit, self.deadline - time.monotonic())
        print(f"== {name}: {' '.join(map(str, command))}", flush=True)
        if limit < 5:
            self.add(name, None, "no time was left")
            return None, ""
        begin = time.monotonic()
        try:
            done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=limit,
                                  env={**os.environ, **(environment or {})})
            output, passed = done.stdout + done.stderr, done.returncode == 0
        except subprocess.TimeoutExpired as error:
            output = "".join(part.decode(errors="replace") if isinstance(part, bytes) else part or ""
                             for part in (error.stdout, error.stderr))
            output, passed = output + f"\nstopped after {limit:.0f} s", False
        seconds = time.monotonic() - begin
        print(output[-6000:] if not passed else output[-1500:], flush=True)
        print(f"== {name}: {'passed' if passed else 'FAILED'} in {seconds:.1f} s", flush=True)
        self.add(name, passed, output[-4000:] if not passed else "", seconds)
        return passed, output

    def add(self, name, passed, text, seconds=0.0):
        self.entries.append({"name": name, "passed": passed, "seconds": round(seconds, 1), "text": text})

    def failed(self):
        return [entry["name"] for entry in self.entries if entry["passed"] is False]


def last_json(output):
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                continue
    return None


def device_facts():
    fields = "name,driver_version,memory.total,power.limit,clocks.max.sm,compute_cap"
    try:
        line = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], text=True,
                              capture_output=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None
    return dict(zip(fields.split(","), (value.strip() for value in line.split(","))))


def build(folder):
    if not (folder / "build.ninja").exists():
        subprocess.run(["meson", "setup", folder, "--buildtype=release", "-Dcuda=enabled"], cwd=ROOT, check=True)
    subprocess.run(["ninja", "-C", folder, "src/cli/atoll", "tests/cuda/test_cuda"], cwd=ROOT, check=True)


def check_operations(checks, tests):
    checks.run("operations and model against the CPU", [tests], 240)
    checks.run("cuDNN attention against the CPU", [tests, "[.gpu]"], 120)
    checks.run("NCCL with one rank, in-process collectives", [tests, "[communicator]"], 60)
    checks.run("2 and 4 ranks on one GPU against 1", [tests, "[ranks]"], 120)


def check_sanitizer(checks, tests):
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not pathlib.Path(sanitizer).exists():
        return checks.add("compute-sanitizer", None, "it is not installed")
    for tool in ("memcheck", "racecheck"):
        checks.run(f"compute-sanitizer {tool}", [sanitizer, "--tool", tool, "--error-exitcode", "1", tests, SANITIZED], 90)


def bench_atoll(checks, atoll, name, document_tokens, extra=()):
    command = [atoll, "bench", "step", "--json", "--config", SHAPE, "--steps", "5", "--document-tokens", str(document_tokens),
               "--set", "node.device=cuda", "--set", f"model.layers={BLOCKS}", "--set", f"training.batch_rows={MICRO_BATCHES}"]
    for override in extra:
        command += ["--set", override]
    passed, output = checks.run(name, command, 150)
    return last_json(output) if passed else None


def bench_ranks(checks, atoll):
    """They share the GPU, so their speed says little; how long they wait for each other says more."""
    reports = []
    for ranks, sharding in RANK_CASES:
        command = [atoll, "bench", "step", "--json", "--config", RANKS_SHAPE, "--steps", "5", "--ranks", str(ranks),
                   "--set", "node.device=cuda", "--set", f"node.sharding={sharding}",
                   "--set", f"training.batch_rows={4 * MICRO_BATCHES}", "--set", "training.micro_batch_rows=4"]
        passed, output = checks.run(f"step, {ranks} ranks on one GPU, sharding {sharding}", command, 60)
        report = last_json(output) if passed else None
        if report:
            reports.append({"sharding": sharding, **report})
    return reports


def bench_pytorch(checks, shape_file, recompute):
    try:
        subprocess.run([sys.executable, "-c", "import torch; assert torch.cuda.is_available()"], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        checks.add("PyTorch", None, "it is not installed, or sees no GPU")
        return None
    command = [sys.executable, "tools/bench_pytorch_cuda.py", "--shape", shape_file, "--micro-batches", str(MICRO_BATCHES),
               "--steps", "5"] + (["--recompute"] if recompute else [])
    name = "PyTorch with recomputation" if recompute else "PyTorch"
    passed, output = checks.run(name, command, 150)
    return last_json(output) if passed else None


def extrapolate(report):
    """Seconds of a micro-batch of all blocks: the parts of one block 42 times, the rest once."""
    per_micro = report["step_seconds"] / MICRO_BATCHES
    ends = ("embedding", "cross-entropy", "adamw", "gradient norm", "zero", "sum", "add", "cast")
    vocabulary = json.loads((ROOT / SHAPE).read_text())["model"]["vocabulary"]
    rest = sum(part["seconds"] for part in report["parts"]
               if part["name"].startswith(ends) or str(vocabulary) in part["name"]) / MICRO_BATCHES
    return (per_micro - rest) / BLOCKS * ALL_BLOCKS + rest


def step_lines(title, report):
    if not report:
        return [f"## {title}", "", "not measured", ""]
    lines = [f"## {title}", "",
             f"{report['tokens_per_second']:.0f} tokens/s; model FLOPS utilisation {100 * report['mfu_palm']:.1f} % (PaLM), "
             f"{100 * report['mfu_causal']:.1f} % (causal) of {report['peak_tflops_per_second']:.0f} TFLOP/s; recompute "
             f"{report['policy']}; {report['bytes_per_rank'] / 2**30:.1f} GiB on the device.",
             f"Ceilings in the same call: products {report['gemm_tflops_per_second']:.0f} TFLOP/s, copies "
             f"{report['copy_gigabytes_per_second']:.0f} GB/s. Step {1e3 * report['step_seconds']:.1f} ms.", "",
             "| part | calls | ms | share | rate |", "|---|---|---|---|---|"]
    total = sum(part["seconds"] for part in report["parts"])
    for part in report["parts"]:
        rate = (f"{part['tflops_per_second']:.0f} TFLOP/s" if part["tflops_per_second"] > 0
                else f"{part['gigabytes_per_second']:.0f} GB/s")
        lines.append(f"| {part['name']} | {part['calls']} | {1e3 * part['seconds']:.2f} | "
                     f"{100 * part['seconds'] / total:.1f} % | {rate} |")
    return lines + [""]


def rank_lines(reports):
    lines = ["## Ranks that share the GPU", "", f"{RANKS_SHAPE}; in-process communicator.", "",
             "| ranks | sharding | tokens/s | gathered MiB | reduced MiB | exposed ms | share of the step | GiB per rank | planned |",
             "|---|---|---|---|---|---|---|---|---|"]
    for report in reports:
        exposed = report["exposed_communication_seconds"]
        lines.append(f"| {report['ranks']} | {report['sharding']} | {report['tokens_per_second']:.0f} | "
                     f"{report['gathered_bytes'] / 2**20:.0f} | {report['reduced_bytes'] / 2**20:.0f} | {1e3 * exposed:.2f} | "
                     f"{100 * exposed / report['step_seconds']:.1f} % | {report['bytes_per_rank'] / 2**30:.2f} | "
                     f"{report['planned_bytes_per_rank'] / 2**30:.2f} |")
    return lines + [""]


def markdown(result):
    lines = ["# GPU check", "", f"{result['date']}, {json.dumps(result['device'])}, `{result['command']}`", "",
             "| check | result | seconds |", "|---|---|---|"]
    for entry in result["checks"]:
        state = {True: "passed", False: "FAILED", None: f"not run: {entry['text']}"}[entry["passed"]]
        lines.append(f"| {entry['name']} | {state} | {entry['seconds']} |")
    lines.append("")
    lines += step_lines(f"{BLOCKS} blocks of the 10B shape, sequence 8192, one document per row", result["bench"])
    lines += step_lines("The same with packed documents of about 1000 tokens", result["bench_packed"])
    lines += rank_lines(result["bench_ranks"])
    if result["bench"]:
        lines += [f"Extrapolated to {ALL_BLOCKS} blocks: {8192 / extrapolate(result['bench']):.0f} tokens/s.", ""]
    lines += ["## PyTorch on the same shape", "", "| | tokens/s | Atoll is faster by |", "|---|---|---|"]
    for key, name in (("pytorch", "without recomputation"), ("pytorch_recompute", "with recomputation")):
        report = result[key]
        if report and "tokens_per_second" in report and result["bench"]:
            ratio = result["bench"]["tokens_per_second"] / report["tokens_per_second"]
            lines.append(f"| {name} ({report['torch']}) | {report['tokens_per_second']:.0f} | {ratio:.2f} x |")
        else:
            lines.append(f"| {name} | not measured{': ' + report['error'] if report and 'error' in report else ''} | |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--build", default=ROOT / "build" / "gpu", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=470, help="for everything but the build")
    parser.add_argument("--quick", action="store_true", help="only the checks, no benchmarks")
    arguments = parser.parse_args()
    facts = device_facts()
    if facts is None:
        print("gpu_check: no NVIDIA GPU (nvidia-smi finds none)", file=sys.stderr)
        return 2
    folder = arguments.build.resolve()
    if not (folder / "tests/cuda/test_cuda").exists():
        build(folder)
    atoll, tests = folder / "src/cli/atoll", folder / "tests/cuda/test_cuda"
    arguments.output.mkdir(parents=True, exist_ok=True)

    checks = Checks(time.monotonic() + arguments.seconds)
    result = {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "device": facts,
              "command": "tools/gpu_check " + re.sub(r"--output \S+", "--output DIR", " ".join(sys.argv[1:])),
              "bench": None, "bench_packed": None, "bench_ranks": [], "pytorch": None, "pytorch_recompute": None}
    check_operations(checks, tests)
    if not arguments.quick:
        result["bench"] = bench_atoll(checks, atoll, "step, one document per row", 0)
        result["bench_packed"] = bench_atoll(checks, atoll, "step, packed documents", 1000)
        shape_file = arguments.output / "shape.json"
        config = json.loads((ROOT / SHAPE).read_text())
        shape_file.write_text(json.dumps({**config["model"], "layers": BLOCKS,
                                          "micro_batch_rows": config["training"]["micro_batch_rows"]}))
        result["bench_ranks"] = bench_ranks(checks, atoll)
        result["pytorch"] = bench_pytorch(checks, shape_file, recompute=False)
        result["pytorch_recompute"] = bench_pytorch(checks, shape_file, recompute=True)
    check_sanitizer(checks, tests)
    result["checks"] = checks.entries
    (arguments.output / "gpu_check.json").write_text(json.dumps(result, indent=1) + "\n")
    text = markdown(result)
    (arguments.output / "gpu_check.md").write_text(text)
    print(text)
    failed = checks.failed()
    print(f"gpu_check: {len(failed)} failed" + (f": {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
