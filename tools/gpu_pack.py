#!/usr/bin/env python3
"""Packs the programs of a GPU check into one archive. Called by ./tools/gpu_pack.

    ./tools/gpu_pack [--archive build/gpu-pack.tar.xz] [--cache FOLDER] [--targets 90a]

Needs nvcc, the packages of tools/install_packages and cudnn-frontend's headers (pip install nvidia-cudnn-frontend). The archive holds
src/cli/atoll and tests/cuda/test_cuda of a build with static libraries, stripped, and what an earlier check learnt (--cache: its
DIR/cache). It is refused if it is larger than 40 MiB, if a program needs a library that a bare Ubuntu 24.04 lacks, or a newer glibc.
Prints the three calls to make with it.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ("src/cli/atoll", "tests/cuda/test_cuda")
BYTES_MAX = 40 * 2**20
# Of glibc, the only libraries that a program of the archive may need.
ALLOWED = ("linux-vdso", "ld-linux", "libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so")
GLIBC_MAX = (2, 39)  # Ubuntu 24.04.
CALLS = (("first look", 190, "libraries,products,operations,model,attention,bench,packed"),
         ("what broke, and the whole model", 200, "libraries,lean,end_to_end,nccl"),
         ("final figures", 180, "libraries,bench,pytorch,ranks"))


def run(*command, **options):
    return subprocess.run(list(map(str, command)), cwd=ROOT, check=True, text=True, **options)


def build(targets):
    folder = ROOT / "build" / "gpu-static"
    if not (folder / "build.ninja").exists():
        run("meson", "setup", folder, "--buildtype=release", "-Dcuda=enabled", "-Dstatic_libraries=true", f"-Dgpu_targets={targets}",
            "-Dcpp_link_args=-static-libstdc++ -static-libgcc")
    run("ninja", "-C", folder, *PROGRAMS)
    return folder


def problems_of(program):
    """Why it would not start on a bare Ubuntu 24.04."""
    problems = []
    for line in run("ldd", program, capture_output=True).stdout.splitlines():
        library = line.split()[0].split("/")[-1]
        if not library.startswith(ALLOWED):
            problems.append(f"{program.name} needs {library}")
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", run("objdump", "-T", program, capture_output=True).stdout)
    newest = max((int(major), int(minor)) for major, minor in versions)
    if newest > GLIBC_MAX:
        problems.append(f"{program.name} needs glibc {newest[0]}.{newest[1]}")
    return problems


def pack(folder, archive, cache):
    stage = ROOT / "build" / "gpu-stage"
    shutil.rmtree(stage, ignore_errors=True)
    problems = []
    for name in PROGRAMS:
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        run("strip", "-o", stage / name, folder / name)
        problems += problems_of(stage / name)
    if cache:
        shutil.copytree(cache, stage / "cache")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:xz", preset=6) as file:
        for path in sorted(stage.iterdir()):
            file.add(path, arcname=path.name)
    size = archive.stat().st_size
    if size > BYTES_MAX:
        problems.append(f"the archive has {size / 2**20:.1f} MiB, more than {BYTES_MAX / 2**20:.0f}")
    return size, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", default=ROOT / "build" / "gpu-pack.tar.xz", type=pathlib.Path)
    parser.add_argument("--cache", type=pathlib.Path, help="the cache folder that an earlier check wrote")
    parser.add_argument("--targets", default="90a", help="compute capabilities, divided by commas")
    arguments = parser.parse_args()
    archive = arguments.archive.resolve()
    size, problems = pack(build(arguments.targets), archive, arguments.cache)
    for problem in problems:
        print(f"gpu_pack: {problem}", file=sys.stderr)
    if problems:
        return 1
    name = archive.relative_to(ROOT) if archive.is_relative_to(ROOT) else archive
    print(f"{name}: {size / 2**20:.1f} MiB. On the GPU machine, in this folder:")
    for title, seconds, parts in CALLS:
        print(f"  {title}:\n    ./tools/gpu_check --build {name} --output DIR --seconds {seconds} --only {parts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
