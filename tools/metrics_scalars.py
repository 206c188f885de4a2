"""The numbers in metrics.jsonl that curves are made of, for programs that draw curves."""

import json
import pathlib
import time

# Of each event: what its numbers are named, by its keys. Each is drawn over the line's `step`.
SCALARS = {
    "inner_step": {"loss": "train/loss", "z_loss": "train/z_loss", "grad_norm": "train/grad_norm", "lr": "train/lr",
                   "tokens_per_second": "train/tokens_per_second", "mfu": "train/mfu", "seconds": "train/step_seconds",
                   "passes": "train/passes"},
    "evaluation": {"validation_loss": "validation/loss"},
    "round": {"seconds": "round/seconds", "exposed_seconds": "round/exposed_seconds", "wait_seconds": "round/wait_seconds",
              "bytes_sent": "round/bytes_sent", "bytes_received": "round/bytes_received"},
}
POLL_SECONDS = 1.0


def scalars_of(line):
    """The names and numbers of a line, and its step; nothing of other events and of numbers that are unknown."""
    names = SCALARS.get(line.get("event"), {})
    found = {name: float(line[key]) for key, name in names.items() if isinstance(line.get(key), (int, float))}
    if line.get("event") == "round" and isinstance(line.get("members"), list):
        found["round/members"] = float(len(line["members"]))
    return line.get("step", 0), found


def lines_of(run_directory, is_followed):
    """The whole lines of a run directory's metrics, and, if followed, those that come, until the program is ended.

    Lines that are torn are left out. With nothing new a follower gets None, now and then, so that it can write out what it has."""
    path = pathlib.Path(run_directory) / "metrics.jsonl"
    offset, begun = 0, b""
    while True:
        if path.exists() or not is_followed:
            with open(path, "rb") as file:
                file.seek(offset)
                bytes_read = file.read(1 << 20)
            offset += len(bytes_read)
            *whole, begun = (begun + bytes_read).split(b"\n")
            for text in whole:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    yield line
            if bytes_read:
                continue
        if not is_followed:
            return
        yield None
        time.sleep(POLL_SECONDS)
