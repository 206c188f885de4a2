"""tools/gpu_check against stand-ins for the programs: every part is run once, and one that fails, throws or hangs costs no other."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import gpu_check  # noqa: E402
import gpu_report  # noqa: E402

REPORT = {
    "device": "Stand-in", "model": "m", "parameters": 1, "policy": "none", "tokens_per_second": 1000.0, "step_seconds": 0.5,
    "gemm_tflops_per_second": 700.0, "copy_gigabytes_per_second": 2600.0, "peak_tflops_per_second": 989.0, "mfu_palm": 0.65,
    "mfu_causal": 0.6, "bytes_per_rank": 2**30, "planned_bytes_per_rank": 2**31, "ranks": 1, "gathered_bytes": 1, "reduced_bytes": 1,
    "exposed_communication_seconds": 0.0,
    "parts": [{"name": "product", "calls": 1, "seconds": 0.1, "tflops_per_second": 700.0, "gigabytes_per_second": 0.0}]}
FACTS = {"cuda": True, "runtime_version": "13.0", "driver_version": "13.0", "problem": "", "devices": [],
         "libraries": [{"name": "libcudnn.so.9", "purpose": "", "path": "/x/libcudnn.so.9", "version": "9.12.0", "problem": ""}]}

# Each writes its command line down, and then behaves as the file `behaviour` beside it says for the first word that matches.
STAND_IN = """#!{python}
import json, os, pathlib, subprocess, sys, time
folder = pathlib.Path({folder!r})
line = os.path.basename(sys.argv[0]) + " " + " ".join(sys.argv[1:])
with open(folder / "calls.txt", "a") as calls:
    calls.write(line + "\\n")
for word, behaviour in json.loads((folder / "behaviour.json").read_text()).items():
    if word in line:
        print("about to " + behaviour, flush=True)
        if behaviour == "hang":
            child = subprocess.Popen(["sleep", "1000"])
            (folder / "child.txt").write_text(str(child.pid))
            time.sleep(1000)
        sys.exit(3)
if "inspect device" in line:
    print(json.dumps({facts!r}))
elif "bench step" in line:
    print(json.dumps({report!r}))
"""
SMI = """#!/bin/sh
case "$*" in
  *-lms*) while true; do echo "1980, 2619, 690.1, 61, 0x0000000000000004"; sleep 0.05; done ;;
  *) echo "Stand-in, 580.1, 81559 MiB, 700 W, 1980 MHz, 9.0" ;;
esac
"""


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class GpuCheck(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.build = self.folder / "build"
        text = STAND_IN.format(python=sys.executable, folder=str(self.folder), facts=FACTS, report=REPORT)
        for name in ("build/src/cli/atoll", "build/tests/cuda/test_cuda", "bin/compute-sanitizer"):
            self.write_program(name, text)
        self.write_program("bin/nvidia-smi", SMI)
        self.behave({})

    def write_program(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def behave(self, behaviour):
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))

    def command(self, *arguments, build=None):
        return [sys.executable, ROOT / "tools/gpu_check.py", "--output", self.folder / "out", "--build", build or self.build,
                *map(str, arguments)]

    def environment(self, path=True):
        return dict(os.environ, PATH=f"{self.folder}/bin:{os.environ['PATH']}" if path else "/nonexistent")

    def check(self, *arguments, build=None, path=True):
        # The integration test of two nodes needs a real program; here it fails at once, which is one of the cases.
        done = subprocess.run(self.command(*arguments, build=build), env=self.environment(path), text=True, capture_output=True,
                              timeout=300)
        results = self.folder / "out/gpu_check.json"
        return done, json.loads(results.read_text()) if results.exists() else None

    def calls(self):
        return (self.folder / "calls.txt").read_text().splitlines()

    def test_all_parts_run_once(self):
        done, results = self.check()
        self.assertIn("two nodes and a coordinator", done.stdout)
        calls = self.calls()
        self.assertEqual(len(calls), len(set(calls)), "no part runs twice")
        specs = [line.split("-d yes ")[1] for line in calls if line.startswith("test_cuda")]
        self.assertEqual(specs, ["[products]", gpu_check.KERNELS, "[model]", "[.gpu]", "[communicator]", "[ranks]"])
        bench = [line for line in calls if "bench step" in line]
        self.assertEqual(len(bench), 5 + len(gpu_check.RANK_CASES))
        self.assertTrue(all("node.attention=cudnn" in line for line in bench if gpu_check.SHAPE in line))
        states = {entry["name"]: entry["passed"] for entry in results["checks"]}
        self.assertIs(states["products"], True)
        self.assertIs(states["compute-sanitizer memcheck"], True)
        self.assertEqual(results["bench"]["gpu"]["throttle_reasons"], ["power cap"])
        self.assertEqual(results["libraries"]["driver_version"], "13.0")
        table = (self.folder / "out/gpu_check.md").read_text()
        for text in ("1000 tokens/s", "65.0 % (PaLM)", "libcudnn.so.9", "Ranks that share the GPU", "lean memory", "SM clock 1980 MHz"):
            self.assertIn(text, table)

    def test_parts_that_fail_or_hang_cost_no_other(self):
        self.behave({"[products]": "fail", "batch_rows=16": "hang"})
        begin = time.monotonic()
        done, results = self.check("--only", "bench,model,products", "--seconds", 14)
        self.assertLess(time.monotonic() - begin, 120)
        self.assertEqual(done.returncode, 1)
        states = {entry["name"]: entry for entry in results["checks"]}
        self.assertIs(states["products"]["passed"], False)
        self.assertIs(states["the whole model against the CPU"]["passed"], True)
        hung = states["step, 16 micro-batches"]
        self.assertIsNone(hung["passed"], "time was over is not failed")
        self.assertIn("about to hang", hung["text"], "what it said before is known")
        self.assertIsNone(states["step, 4 micro-batches"]["passed"])
        self.assertIn("gpu_check: 1 failed: products; 3 not run: ", done.stdout)
        child = int((self.folder / "child.txt").read_text())
        self.assertFalse(is_running(child), "what it started is ended, too")

    def test_stopping_the_check_stops_its_programs(self):
        self.behave({"batch_rows=16": "hang"})
        for number in (signal.SIGINT, signal.SIGTERM):
            (self.folder / "child.txt").unlink(missing_ok=True)
            process = subprocess.Popen(self.command("--only", "bench"), env=self.environment(), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while not (self.folder / "child.txt").exists() or not (self.folder / "child.txt").read_text():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)  # Polling a file; the condition decides.
            process.send_signal(number)
            process.wait(timeout=120)
            self.assertFalse(is_running(int((self.folder / "child.txt").read_text())), f"after signal {number}")

    def test_the_same_folder_again_and_a_broken_archive(self):
        (self.folder / "out/cache").mkdir(parents=True)
        done, results = self.check("--only", " products, model", "--cache", self.folder / "out/cache")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(results["checks"]), 2)
        archive = self.folder / "broken.tar.xz"
        archive.write_bytes(b"\xfd7zXZ\x00\x00")
        done, _ = self.check("--only", "products", build=archive)
        self.assertEqual(done.returncode, 2)
        self.assertIn("cannot be unpacked", done.stderr)

    def test_folders_that_the_user_names_come_first(self):
        os.environ["ATOLL_CUDA_LIBRARIES"] = "/mine"
        self.addCleanup(os.environ.pop, "ATOLL_CUDA_LIBRARIES")
        parts = gpu_check.Parts(self.build, self.folder, 60, {})
        self.assertEqual(parts.checks.environment["ATOLL_CUDA_LIBRARIES"].split(":")[0], "/mine")

    def test_a_part_that_throws_is_a_failure_of_its_own(self):
        parts = gpu_check.Parts(self.build, self.folder, 60, {"date": "", "device": {}, "command": "", "bench_ranks": []})
        parts.products = lambda: {}["missing"]
        parts.run("products")
        parts.run("model")
        self.assertEqual([(e["name"], e["passed"]) for e in parts.checks.entries],
                         [("products", False), ("the whole model against the CPU", True)])
        self.assertIn("KeyError", parts.checks.entries[0]["text"])

    def test_missing_figures_leave_a_table(self):
        report = {key: REPORT[key] for key in ("tokens_per_second", "step_seconds", "peak_tflops_per_second", "policy", "bytes_per_rank",
                                               "planned_bytes_per_rank", "parts")}
        broken = {**report, "tokens_per_second": None}
        text = gpu_report.markdown({"date": "d", "device": {}, "command": "c", "bench": report, "bench_4": broken,
                                    "pytorch": {"error": "out of memory"}})
        self.assertIn("its table failed", text)
        self.assertIn("utilisation unknown", text)
        self.assertIn("out of memory", text)

    def test_an_archive_and_the_choices_of_an_earlier_call(self):
        archive = self.folder / "pack.tar.xz"
        with tarfile.open(archive, "w:xz") as file:
            for name in ("src", "tests"):
                file.add(self.build / name, arcname=name)
        earlier = self.folder / "earlier/atoll"
        earlier.mkdir(parents=True)
        (earlier / "products-x.txt").write_text("choices")
        done, _ = self.check("--only", "products", "--cache", self.folder / "earlier", build=archive)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual((self.folder / "out/cache/atoll/products-x.txt").read_text(), "choices")

    def test_no_gpu_and_unknown_parts(self):
        done, results = self.check(path=False)
        self.assertEqual(done.returncode, 2)
        self.assertIsNone(results)
        done, _ = self.check("--only", "products,nonsense")
        self.assertEqual(done.returncode, 2)
        self.assertIn("nonsense", done.stderr)


if __name__ == "__main__":
    unittest.main()
