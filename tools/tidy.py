#!/usr/bin/env python3
"""Checks the rules of the tree that no compiler knows: floors, doors, banned words, lines, lists.

A path names its floor, and a floor includes only floors of a lower rank. Every foreign library has one door.
Prints `path:line: what is wrong`; the exit code is 1 if anything is. Long functions and files are only warned about.
"""
import os
import re
import shutil
import subprocess
import sys

RANKS = {"base": 0, "backend": 1, "data": 1, "http": 1, "net": 1, "cpu": 2, "cuda": 2, "observe": 2, "shard": 3, "model": 4,
         "optim": 4, "outer": 4, "checkpoint": 5, "train": 6, "cli": 7}
# Inside a floor: a room includes itself, rooms of a lower rank, and what lies beside the rooms.
ROOMS = {"net": {"wire": 0, "security": 0, "transport": 1, "exchange": 1, "coordinator": 2, "member": 2}}
DOORS = [  # (header, where it may be included); tests may include what they test against.
    (r"nlohmann/", ("src/base/json.cpp", "tests/")),
    (r"spdlog/", ("src/base/log.cpp", "tests/")),
    (r"httplib\.h$", ("src/http/",)),
    (r"uv\.h$", ("src/net/transport/", "tests/")),
    (r"numa(if)?\.h$", ("src/base/numa.cpp", "tests/")),
    (r"openssl/", ("src/base/hash.cpp", "src/net/security/", "tests/")),
    (r"(openblas/)?cblas", ("src/cpu/", "tests/")),
    (r"(cuda|cublas|cudnn|nccl|curand|nvml|nvtx|cooperative_groups|cub/)", ("cuda/", "tests/")),
    (r"pcre2\.h$", ("src/data/tokenizer/pattern.cpp",)),
    (r"utf8proc\.h$", ("src/data/tokenizer/nfc.cpp", "tests/")),
    (r"(zlib|zstd)\.h$", ("src/data/unpacked_source.cpp", "tests/")),
    (r"CLI/", ("src/cli/",)),
    (r"catch2/", ("tests/support/",)),
]
BANNED = [  # (pattern, where it is allowed, why not)
    (r"\bsleep_(for|until)\b|\bu?sleep\s*\(", (), "nothing sleeps: wait for an event with a deadline"),
    (r"std::cout\b|\bf?printf\s*\(|\bputs\s*\(", ("src/cli/", "tests/"), "output goes through base/log.h or src/cli"),
]
CODE = (".cpp", ".h", ".cu", ".cuh")
TEXT = CODE + (".md", ".py", ".json", "meson.build", "meson_options.txt")
NOT_FUNCTIONS = r"(namespace|class|struct|enum|union|extern|if|for|while|switch|do|else|try|case|default)\b"


def floor_of(path):
    parts = path.split("/")
    if parts[0] in ("include", "src"):
        parts = parts[1:]
    return parts[0] if len(parts) > 1 and parts[0] in RANKS else None


def room_of(path):
    """Floor and room, if the path is in one: both src/net/wire/frame.h and net/wire/frame.h are in (net, wire)."""
    parts = path.removeprefix("src/").split("/")
    return parts[:2] if len(parts) == 3 and parts[1] in ROOMS.get(parts[0], {}) else (None, None)


def allowed(path, places):
    return any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)


def check_include(path, quote, header):
    for pattern, places in DOORS:
        if (quote == "<" or floor_of(header) is None) and re.match(pattern, header) and not allowed(path, places):
            yield f"{header} may be included only in {', '.join(places)}"
    (floor, room), (other, other_room) = room_of(path), room_of(header)
    if room and floor == other and room != other_room and ROOMS[floor][other_room] >= ROOMS[floor][room]:
        yield f"room {room} must not include room {other_room}, which is not below it"
    floor, other = floor_of(path), floor_of(header)
    if quote == "<" or path.startswith("tests/") or other is None or other == floor:
        return
    if floor is None or RANKS[other] >= RANKS[floor]:
        yield f"floor {floor} must not include floor {other}, which is not below it"
    if not header.startswith("model/") and not os.path.exists(f"include/{header}"):
        yield f"{header} is private to floor {other}: it is not under include/"


def check_line(path, line):
    if line != line.rstrip():
        yield "space at the end of the line"
    if "\t" in line:
        yield "a tab"
    if not path.endswith(CODE):
        return
    limit = 120 if line.lstrip().startswith("//") else 100
    if len(line) > limit and "://" not in line:
        yield f"{len(line)} columns; at most {limit}"
    if re.search(r"\bFIXME\b", line):
        yield "fix it or leave it, but do not mark it"
    for pattern, places, reason in BANNED:
        if re.search(pattern, line.split("//")[0]) and not allowed(path, places):
            yield reason
    include = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
    if include:
        yield from check_include(path, *include.groups())


def check_build_lists(texts):
    """Every source must be named in a meson.build; one that is not is dead, or a test that never runs."""
    named = set()
    for path, text in texts.items():
        if os.path.basename(path) == "meson.build":
            for name in re.findall(r"'([^']+\.(?:cpp|cu))'", text):
                named.add(os.path.normpath(os.path.join(os.path.dirname(path), name)))
    for path in texts:
        if path.endswith((".cpp", ".cu")) and path not in named:
            yield path, 1, "no meson.build names this file"


def check_links(path, text):
    fences = False
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("```"):
            fences = not fences
        elif not fences:
            for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", line)):
                target = os.path.join(os.path.dirname(path), link.split("#")[0])
                if "://" not in link and link[0] != "#" and not link.startswith("mailto:") and not os.path.exists(target):
                    yield path, number, f"the link leads nowhere: {link}"


def long_parts(path, lines):
    """Relies on clang-format: a function's first line and its closing brace stand in the same column."""
    if len(lines) > 500:
        yield path, 1, f"a file of {len(lines)} lines; one idea, about 400 lines"
    for end, line in enumerate(lines):
        if not re.fullmatch(r"( {0,4})}", line):
            continue
        first = re.compile(line[:-1] + r"[^\s}#/:]")
        begin = next((i for i in range(end - 1, -1, -1) if first.match(lines[i])), end)
        # The words before a definition (template <...>, __global__) may have lines of their own.
        head = " ".join(lines[max(0, begin - 1):begin + 1])
        limit = 120 if "__global__" in head else 70
        if "(" in head and not re.match(r"\s*" + NOT_FUNCTIONS, lines[begin]) and end - begin + 1 > limit:
            yield path, begin + 1, f"a function of {end - begin + 1} lines; about {limit} fit"


def project_files():
    """What git knows or would add; without git or a checkout, everything but build folders and runs."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git") and os.path.exists(".git"):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    found = (os.path.join(folder, name)[2:] for folder, _, names in os.walk(".") for name in names)
    return [path for path in found if not path.startswith(("build", "runs/", ".git/"))]


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    paths = project_files()
    texts = {}
    for path in sorted(set(paths)):
        if path.endswith(TEXT) and os.path.isfile(path):
            with open(path, encoding="utf-8") as file:
                texts[path] = file.read()

    errors, warnings = list(check_build_lists(texts)), []
    for path, text in texts.items():
        lines = text.rstrip("\n").split("\n")
        errors += [(path, number, what) for number, line in enumerate(lines, 1) for what in check_line(path, line)]
        if path.endswith(".md"):
            errors += check_links(path, text)
        if path.endswith(CODE):
            warnings += long_parts(path, lines)
    for path, number, what in sorted(warnings):
        print(f"{path}:{number}: warning: {what}")
    for path, number, what in sorted(errors):
        print(f"{path}:{number}: {what}")
    print(f"tidy: {len(texts)} files, {len(errors)} errors, {len(warnings)} warnings")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
