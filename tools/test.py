#!/usr/bin/env python3
"""Builds and runs the tests in each build folder and adds up what their programs report. Called by ./tools/test."""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

# Folder, Meson options, and which tests (all if none are named). Sanitizers run over what handles bytes from outside and threads;
# their instrumentation makes GCC 12 warn of uninitialised values inside std::function and std::regex, hence no werror there. They
# compile six files at a time: six test files together take less than twice the time of one. That each compiles alone is shown by the release build.
SANITIZED = ["--buildtype=plain", "-Doptimization=g", "-Db_lundef=false", "-Dwerror=false", "-Dcuda=disabled", "-Dunity=on", "-Dunity_size=6"]
BUILDS = [
    ("build/test", ["--buildtype=release"], []),
    ("build/asan", [*SANITIZED, "-Db_sanitize=address,undefined"],
     ["base", "backend", "ops", "cuda_emulated", "data", "net", "fuzz_net_corpus", "fuzz_handshake_corpus", "fuzz_machine_corpus", "shard", "outer",
      "checkpoint", "fuzz_manifest_corpus", "observe", "model", "http", "serve", "status", "train"]),
    ("build/tsan", [*SANITIZED, "-Db_sanitize=thread"],
     ["base", "backend", "data", "net", "shard", "outer", "observe", "http", "serve", "status", "train"]),
]
SKIPPED = 77  # Exit code of a test that cannot run here.


def run(command):
    print("$", " ".join(command), flush=True)
    return subprocess.run(command).returncode


def prepare_cuda():
    """Fetches cudnn-frontend's headers where there is a CUDA compiler and they are not there. Returns how many parts of the tests
    cannot run here."""
    if not shutil.which("nvcc") and not pathlib.Path("/usr/local/cuda/bin/nvcc").exists():
        print("skipped: the CUDA build and cuDNN's graphs, because there is no nvcc", flush=True)
        return 2
    finder = ["python3", "cuda/find_cudnn_frontend.py"]
    if pathlib.Path("/usr/include/cudnn_frontend.h").exists() or subprocess.run(finder, capture_output=True).stdout.strip():
        return 0
    environment = pathlib.Path("build/python").resolve()
    if run(["python3", "-m", "venv", str(environment)]) == 0:
        os.environ["PATH"] = f"{environment}/bin:{os.environ['PATH']}"
        if run(["python3", "-m", "pip", "install", "--quiet", "nvidia-cudnn-frontend"]) == 0:
            return 0
    print("skipped: cuDNN's graphs, because cudnn-frontend cannot be had", flush=True)
    return 1


def count_cases(output, returncode):
    """Passed and failed cases of one program: Catch2's and unittest's closing lines; otherwise the program is one case."""
    catch = re.search(r"All tests passed \(.* in (\d+) test cases?\)", output)
    if catch and returncode == 0:
        return int(catch[1]), 0
    catch = re.search(r"test cases:\s*(\d+)\s*\|(?:\s*(\d+) passed\s*\|)?\s*(\d+) failed", output)
    if catch:
        return int(catch[2] or 0), int(catch[3])
    unit = re.search(r"^Ran (\d+) tests? in", output, re.M)
    if unit:
        bad = sum(int(count) for count in re.findall(r"(?:failures|errors)=(\d+)", output))
        bad = max(bad, 1 if returncode != 0 else 0)
        return int(unit[1]) - bad, bad
    return (1, 0) if returncode == 0 else (0, 1)


def test(folder, options, names, failures):
    """Passed, failed, skipped. Adds a line for each program that failed to `failures`."""
    if not pathlib.Path(folder, "build.ninja").exists() and run(["meson", "setup", folder, *options]) != 0:
        failures.append(f"{folder}: meson setup")
        return 0, 1, 0
    targets = [name if name.startswith("fuzz") else "test_" + name for name in names]
    if run(["meson", "compile", "-C", folder, *targets]) != 0:
        failures.append(f"{folder}: it does not build")
        return 0, 1, 0
    # A busy machine or a sanitizer may make a program slow; only one that hangs shall run into its limit.
    run(["meson", "test", "-C", folder, "--no-rebuild", "--print-errorlogs", "--timeout-multiplier", "5", *names])
    passed = failed = skipped = 0
    log = pathlib.Path(folder, "meson-logs", "testlog.json")
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry["returncode"] == SKIPPED:
            skipped += 1
            continue
        good, bad = count_cases(entry.get("stdout", "") + entry.get("stderr", ""), entry["returncode"])
        if entry["result"] not in ("OK", "EXPECTEDFAIL") and bad == 0:
            bad = 1  # A crash or a time-out.
        if bad:
            failures.append(f"{folder}: {entry['name']}: {bad} failed ({entry['result']}, exit code {entry['returncode']})")
        passed, failed = passed + good, failed + bad
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the sanitizer builds")
    quick = parser.parse_args().quick
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=1")
    failures = []
    totals = [0, 0, prepare_cuda()]
    for folder, options, arguments in BUILDS[: 1 if quick else None]:
        totals = [a + b for a, b in zip(totals, test(folder, options, arguments, failures))]
    for failure in failures:  # Once more at the end: whoever reads only that shall know where to look.
        print("failed:", failure, flush=True)
    print("{} passed, {} failed, {} skipped".format(*totals), flush=True)
    return 1 if totals[1] or not totals[0] else 0


if __name__ == "__main__":
    sys.exit(main())
