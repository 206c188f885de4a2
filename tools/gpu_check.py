#!/usr/bin/env python3
"""What only a GPU can show, in parts. Called by ./tools/gpu_check.

    ./tools/gpu_check --output DIR [--build FOLDER|ARCHIVE] [--only PART,PART,...] [--seconds N] [--cache FOLDER]

Runs from what is built (src/cli/atoll and tests/cuda/test_cuda of a build folder, or the archive of ./tools/gpu_pack) and installs
nothing; a build folder that is not there is made first. cuDNN, NCCL and cuBLASLt may be the Python packages that came with PyTorch.
The parts, in this order:

    libraries    what is loaded from where
    products     every layout of a product against the CPU's
    operations   every other operation against the CPU's
    model        loss, gradients, 200 training steps, two runs with the same bits
    attention    cuDNN's attention against the CPU's
    bench        8 blocks of the 10B shape at sequence 8192, 16 micro-batches a step, then 4, then 4 with the weight gradients on a stream of
                 their own; clocks and power meanwhile
    packed       the same with documents of about 1000 tokens
    lean         all 42 blocks in lean memory, with the recomputation that 80 GB need, and without where there is more
    pytorch      the 8 blocks in PyTorch: without and with recomputation, and tuned by max-autotune
    end_to_end   a coordinator and two nodes on the GPU: rounds, digests, checkpoint, resume
    nccl         NCCL with one rank, and collectives within the process
    ranks        2 and 4 ranks that share the GPU: the same training as 1; bytes moved and time waited
    sanitizer    compute-sanitizer over the operations

gpu_check.json and gpu_check.md in DIR are written after every part, so that a call that is cut off keeps what it has. DIR/cache holds
the choices of product kernels, which a later call may begin with (--cache). The exit code is 1 if a check failed, 2 if there is no
GPU; what could not run, or was not over in time, is named and is no failure.
"""

import argparse
import json
import lzma
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

import gpu_report

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPE = "configs/intellect-1-10b.json"
BLOCKS = 8  # What 80 GB hold at full width with 18 bytes per parameter; the time of a block is the same as in 42.
ALL_BLOCKS = 42
RANKS_SHAPE = "configs/prime-150m.json"
RANK_CASES = ((1, "full"), (2, "replicated"), (2, "gradients"), (2, "full"), (4, "full"))
# Only exclusions take Catch2's hidden tests in, so those are excluded too; each test belongs to one part.
KERNELS = "~[products]~[model]~[ranks]~[communicator]~[gpu]~[.]"
LEAST_SECONDS = 5  # With less time left nothing is begun.
FACTS = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "compute_cap")


class Checks:
    """Runs commands within their limits and remembers how they went."""

    def __init__(self, deadline, environment, save):
        self.deadline = deadline
        self.environment = environment
        self.save = save  # Called after every check.
        self.entries = []

    def run(self, name, command, limit, environment=None):
        """Returns (passed, output); passed is None if the command was not over in its time, or was not begun."""
        limit = min(limit, self.deadline - time.monotonic())
        print(f"== {name}: {' '.join(map(str, command))}", flush=True)
        if limit < LEAST_SECONDS:
            self.add(name, None, "no time was left")
            return None, ""
        begin = time.monotonic()
        try:
            # A group of its own, so that what it starts ends with it.
            process = subprocess.Popen(list(map(str, command)), cwd=ROOT, text=True, errors="replace", stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, start_new_session=True,
                                       env={**os.environ, **self.environment, **(environment or {})})
        except OSError as error:
            self.add(name, False, str(error))
            return False, ""
        output, is_over = collect(process, limit)
        passed = process.returncode == 0 if is_over else None
        seconds = time.monotonic() - begin
        text = "" if passed else output[-4000:] if is_over else f"not over after {limit:.0f} s; it said:\n{output[-4000:]}"
        print(output[-1500:] if passed else output[-5000:], flush=True)
        print(f"== {name}: { {True: 'passed', False: 'FAILED', None: 'not over'}[passed]} in {seconds:.1f} s", flush=True)
        self.add(name, passed, text, seconds)
        return passed, output

    def add(self, name, passed, text, seconds=0.0):
        self.entries.append({"name": name, "passed": passed, "seconds": round(seconds, 1), "text": text})
        self.save()

    def named(self, passed):
        return [entry["name"] for entry in self.entries if entry["passed"] is passed]


def collect(process, limit):
    """What the process says, line by line so that a hanging one's words are known, and whether it ended by itself."""
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    is_over = False
    try:
        process.wait(timeout=limit)
        is_over = True
    except subprocess.TimeoutExpired:
        pass
    finally:  # Also when this check itself is stopped.
        try:
            os.killpg(process.pid, signal.SIGKILL)  # Also what a finished one left behind.
        except ProcessLookupError:
            pass
        process.wait()
    reader.join(timeout=5)
    if not reader.is_alive():  # Else somebody outside the group still holds the other end.
        process.stdout.close()
    return "".join(lines), is_over


class Watch:
    """Clocks, power and reasons of throttling while a command runs."""

    FIELDS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "clocks_event_reasons.active")

    def __enter__(self):
        self.samples = []
        self.begun = threading.Event()
        self.process = None
        try:
            self.process = subprocess.Popen(["nvidia-smi", "-i", first_gpu(), f"--query-gpu={','.join(self.FIELDS)}", "--format=csv,noheader,nounits",
                                             "-lms", "200"], text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.reader = threading.Thread(target=self.read, daemon=True)
            self.reader.start()
            self.begun.wait(timeout=5)
        except OSError:
            pass
        return self

    def read(self):
        for line in self.process.stdout:
            values = [value.strip() for value in line.split(",")]
            if len(values) == len(self.FIELDS):
                self.samples.append((time.monotonic(), values))
                self.begun.set()

    def __exit__(self, *_):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.reader.join(timeout=5)
            self.process.stdout.close()

    def summary(self, begin, end):
        """Of the samples between two times; None if there are none."""
        samples = [values for when, values in self.samples if begin <= when <= end]
        numbers = [[to_number(values[i]) for values in samples if to_number(values[i]) is not None] for i in range(4)]
        if not samples or not numbers[0]:
            return None
        reasons = 0
        for values in samples:
            reasons |= int(values[4], 16) if re.fullmatch(r"0x[0-9a-fA-F]+", values[4]) else 0
        return {"samples": len(samples), "sm_mhz_min": min(numbers[0]), "sm_mhz_mean": mean(numbers[0]),
                "memory_mhz_mean": mean(numbers[1]), "power_watts_mean": mean(numbers[2]), "power_watts_max": max(numbers[2], default=None),
                "temperature_max": max(numbers[3], default=None), "throttle_reasons": gpu_report.throttle_names(reasons)}


def first_gpu():
    """What Atoll's GPU 0 is for nvidia-smi."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"


def to_number(text):
    try:
        return float(text)
    except ValueError:
        return None


def mean(values):
    return sum(values) / len(values) if values else None


def last_json(output):
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                continue
    return None


def device_facts():
    try:
        line = subprocess.run(["nvidia-smi", "-i", first_gpu(), f"--query-gpu={','.join(FACTS)}", "--format=csv,noheader"], text=True,
                              capture_output=True, check=True, timeout=60).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None
    return dict(zip(FACTS, (value.strip() for value in line.split(","))))


def wheel_folders():
    """Where the Python packages of this interpreter have NVIDIA's libraries."""
    finder = "import glob, nvidia; print(':'.join(sorted(f for p in nvidia.__path__ for f in glob.glob(p + '/*/lib'))))"
    return subprocess.run([sys.executable, "-c", finder], text=True, capture_output=True).stdout.strip()


def build(folder):
    if not (folder / "build.ninja").exists():
        subprocess.run(["meson", "setup", folder, "--buildtype=release", "-Dcuda=enabled"], cwd=ROOT, check=True)
    subprocess.run(["ninja", "-C", folder, "src/cli/atoll", "tests/cuda/test_cuda"], cwd=ROOT, check=True)


def unpack(archive, folder):
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as file:
        file.extractall(folder)
    return folder


def write_whole(path, text):
    """So that the last one written stays if this one cannot be."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    os.replace(temporary, path)


class Parts:
    """One method a part. `results` is what the report shows, and is written after every check."""

    def __init__(self, folder, output, seconds, results):
        self.atoll, self.tests = folder / "src/cli/atoll", folder / "tests/cuda/test_cuda"
        self.output = output
        self.results = results
        # Only Atoll's own processes get them: a path to CUDA's libraries would shadow those that PyTorch brings.
        wheels = wheel_folders()
        environment = {"XDG_CACHE_HOME": str(output / "cache")}
        folders = [part for part in (os.environ.get("ATOLL_CUDA_LIBRARIES"), wheels) if part]
        if folders:
            environment["ATOLL_CUDA_LIBRARIES"] = ":".join(folders)
        self.checks = Checks(time.monotonic() + seconds, environment, self.save)

    def save(self):
        self.results["checks"] = self.checks.entries
        try:
            write_whole(self.output / "gpu_check.json", json.dumps(self.results, indent=1) + "\n")
            write_whole(self.output / "gpu_check.md", gpu_report.markdown(self.results))
        except OSError as error:  # A full disk: what is measured is printed at the end all the same.
            print(f"gpu_check: {error}", file=sys.stderr)

    def run(self, part):
        try:
            getattr(self, part)()
        except Exception as error:  # One part must not cost the others.
            self.checks.add(part, False, repr(error))
        self.save()

    def test(self, name, spec, limit):
        self.checks.run(name, [self.tests, "-d", "yes", spec], limit)

    # -- The parts.

    def libraries(self):
        passed, output = self.checks.run("libraries", [self.atoll, "inspect", "device", "--json"], 60)
        facts = last_json(output) if passed else None
        self.results["libraries"] = facts
        missing = [library["name"] for library in facts["libraries"] if library["problem"]] if facts else []
        if missing:
            self.checks.add("all libraries found", False, ", ".join(missing))
        if facts and facts["problem"]:
            self.checks.add("the GPU answers", False, facts["problem"])

    def products(self):
        self.test("products", "[products]", 60)

    def operations(self):
        self.test("operations against the CPU", KERNELS, 120)

    def model(self):
        self.test("the whole model against the CPU", "[model]", 90)

    def attention(self):
        self.test("cuDNN attention against the CPU", "[.gpu]", 90)

    def bench(self):
        self.step("bench", "step, 16 micro-batches", 16, steps=3, extra=["--extrapolate-blocks", ALL_BLOCKS])
        self.step("bench_4", "step, 4 micro-batches", 4, steps=5)
        self.step("bench_stream", "step, 4 micro-batches, weight gradients on a stream of their own", 4, steps=5,
                  overrides=(f"model.layers={BLOCKS}", "node.weight_gradient_stream=true"))

    def packed(self):
        self.step("bench_packed", "step, packed documents", 16, steps=2, document_tokens=1000)

    def lean(self):
        lean = ("node.memory=lean", f"model.layers={ALL_BLOCKS}")
        # What fits 80 GB, on a larger GPU too; then what the GPU's memory allows.
        self.step("bench_lean", "step of all 42 blocks, lean memory, in 80 GB", 1, steps=4, overrides=(*lean, "training.recompute=cheap"))
        if (to_number(self.results["device"].get("memory.total", "0").split()[0]) or 0) > 100_000:
            self.step("bench_lean_free", "step of all 42 blocks, lean memory", 1, steps=4, overrides=lean)

    def pytorch(self):
        try:
            subprocess.run([sys.executable, "-c", "import torch; assert torch.cuda.is_available()"], check=True, capture_output=True,
                           timeout=120)
        except subprocess.SubprocessError:
            return self.checks.add("PyTorch", None, "it is not installed, or sees no GPU")
        config = json.loads((ROOT / SHAPE).read_text())
        shape = self.output / "shape.json"
        shape.write_text(json.dumps({**config["model"], "layers": BLOCKS, "micro_batch_rows": config["training"]["micro_batch_rows"]}))
        for key, name, options in (("pytorch", "PyTorch", []), ("pytorch_recompute", "PyTorch with recomputation", ["--recompute"]),
                                   ("pytorch_autotune", "PyTorch, max-autotune", ["--mode", "max-autotune-no-cudagraphs"])):
            command = [sys.executable, "tools/bench_pytorch_cuda.py", "--shape", shape, "--micro-batches", 16, "--steps", 2, *options]
            # What Atoll's processes are told of libraries is none of PyTorch's business.
            _, output = self.checks.run(name, command, 120, {"ATOLL_CUDA_LIBRARIES": ""})
            self.results[key] = last_json(output)

    def end_to_end(self):
        self.checks.run("two nodes and a coordinator", [sys.executable, "tests/integration/device_swarm_test.py", "-v"], 120,
                        {"ATOLL": str(self.atoll), "ATOLL_TEST_DEVICE": "cuda", "ATOLL_TEST_DEADLINE": "50"})

    def nccl(self):
        self.test("NCCL with one rank, in-process collectives", "[communicator]", 60)

    def ranks(self):
        self.test("2 and 4 ranks on one GPU against 1", "[ranks]", 120)
        # They share the GPU, so their speed says little; how long they wait for each other says more.
        for ranks, sharding in RANK_CASES:
            command = [self.atoll, "bench", "step", "--json", "--config", RANKS_SHAPE, "--steps", 5, "--ranks", ranks,
                       "--set", "node.device=cuda", "--set", f"node.sharding={sharding}",
                       "--set", "training.batch_rows=16", "--set", "training.micro_batch_rows=4"]
            passed, output = self.checks.run(f"step, {ranks} ranks on one GPU, sharding {sharding}", command, 60)
            report = last_json(output) if passed else None
            if report:
                self.results["bench_ranks"].append({"sharding": sharding, **report})

    def sanitizer(self):
        sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        if not pathlib.Path(sanitizer).exists():
            return self.checks.add("compute-sanitizer", None, "it is not installed")
        for tool, spec in (("memcheck", KERNELS), ("racecheck", "norm*,vocab*,attention of packed*")):
            self.checks.run(f"compute-sanitizer {tool}", [sanitizer, "--tool", tool, "--error-exitcode", "1", self.tests, spec], 90)

    def step(self, key, name, micro_batches, steps, document_tokens=0, overrides=(f"model.layers={BLOCKS}",), extra=(), limit=120):
        """One `atoll bench step` of the 10B shape, one row of 8192 tokens per micro-batch, with what the GPU said meanwhile."""
        command = [self.atoll, "bench", "step", "--json", "--config", SHAPE, "--steps", steps, "--document-tokens", document_tokens, *extra]
        # Rather no figure than one of plain attention.
        for setting in ("node.device=cuda", "node.attention=cudnn", f"training.batch_rows={micro_batches}", *overrides):
            command += ["--set", setting]
        with Watch() as watch:
            passed, output = self.checks.run(name, command, limit)
        report = last_json(output) if passed else None
        if report:
            end = time.monotonic()
            report["gpu"] = watch.summary(end - (steps + 2) * report["step_seconds"] - 1, end)
        self.results[key] = report


PARTS = ("libraries", "products", "operations", "model", "attention", "bench", "packed", "lean", "pytorch", "end_to_end", "nccl", "ranks",
         "sanitizer")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, type=pathlib.Path)
    parser.add_argument("--build", default=ROOT / "build" / "gpu", type=pathlib.Path, help="a build folder, or an archive of gpu_pack")
    parser.add_argument("--seconds", type=float, default=470, help="for everything but the build")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, divided by commas")
    parser.add_argument("--cache", type=pathlib.Path, help="the cache folder of an earlier call's DIR, to begin with")
    arguments = parser.parse_args()
    arguments.parts = [part.strip() for part in arguments.only.split(",") if part.strip()]
    unknown = sorted(set(arguments.parts) - set(PARTS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if not arguments.parts:
        parser.error("no part was asked for")
    if arguments.cache and not arguments.cache.is_dir():
        parser.error(f"{arguments.cache} is no folder")
    if arguments.output.exists() and not arguments.output.is_dir():
        parser.error(f"{arguments.output} is no folder")
    return arguments


def prepare(arguments):
    """The folder with the programs."""
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    folder = arguments.build.resolve()
    if folder.is_file():
        folder = unpack(folder, ROOT / "build" / "gpu-unpacked")
    elif not (folder / "tests/cuda/test_cuda").exists():
        build(folder)
    for cache in (folder / "cache", arguments.cache):
        if cache and cache.is_dir() and cache.resolve() != output / "cache":
            shutil.copytree(cache, output / "cache", dirs_exist_ok=True)
    return folder, output


def main():
    arguments = parse_arguments()
    facts = device_facts()
    if facts is None:
        print("gpu_check: no NVIDIA GPU (nvidia-smi finds none)", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):  # So that what runs is ended, too.
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        folder, output = prepare(arguments)
    except (tarfile.TarError, EOFError, lzma.LZMAError) as error:
        print(f"gpu_check: {arguments.build} cannot be unpacked: {error}", file=sys.stderr)
        return 2
    results = {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "device": facts,
               "command": f"tools/gpu_check --output DIR --seconds {arguments.seconds:g} --only {','.join(arguments.parts)}",
               "bench_ranks": []}
    parts = Parts(folder, output, arguments.seconds, results)
    for part in PARTS:
        if part in arguments.parts:
            parts.run(part)
    print(gpu_report.markdown(results))
    failed, not_run = parts.checks.named(False), parts.checks.named(None)
    print(f"gpu_check: {len(failed)} failed" + (f": {', '.join(failed)}" if failed else "") + f"; {len(not_run)} not run" +
          (f": {', '.join(not_run)}" if not_run else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
