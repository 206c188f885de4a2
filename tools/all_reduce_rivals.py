#!/usr/bin/env python3
"""One all-reduce over the same shaped lines by others, beside `atoll bench allreduce`: iperf3's raw stream and PyTorch's gloo.

    tools/all_reduce_rivals.py --atoll build/src/cli/atoll --peers 4 --rate-mbit 200 --rtt-ms 0 --mib 64

Everything runs in a lab (`atoll bench lab`: needs root). gloo reduces as many bytes as Atoll's codec makes of the parameters, as uint8
(its sums mean nothing then, their time does), and the parameters themselves as fp32. What is not installed is left out: iperf3, or
torch in the Python that runs this. Prints a JSON object; an efficiency is the time that the line needs for the payload over the time
that was taken, medians over the repetitions after a first one.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PORT = 29600


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoll", default="build/src/cli/atoll")
    parser.add_argument("--peers", default=4, type=int)
    parser.add_argument("--rate-mbit", default=200, type=float)
    parser.add_argument("--rtt-ms", default=0, type=float)
    parser.add_argument("--mib", default=64, type=float, help="fp32 parameters")
    parser.add_argument("--codec", default="int8", help="Atoll's")
    parser.add_argument("--repetitions", default=5, type=int)
    parser.add_argument("--gloo-bytes", default=0, type=int, help=argparse.SUPPRESS)  # Of a node in the lab: what it reduces.
    parser.add_argument("--gloo-type", default="uint8", help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    return parser.parse_args()


def run(command):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{result.stderr}")
    return result.stdout


def in_lab(options, nodes, command):
    return run([options.atoll, "bench", "lab", "--nodes", nodes, "--rate-mbit", options.rate_mbit, "--rtt-ms", options.rtt_ms, "--", *command])


def atoll(options):
    return json.loads(run([options.atoll, "bench", "allreduce", "--peers", options.peers, "--rate-mbit", options.rate_mbit, "--rtt-ms",
                           options.rtt_ms, "--mib", options.mib, "--codec", options.codec, "--repetitions", options.repetitions, "--json"]))


def iperf(options, folder):
    """Mbit/s of one stream, without its first second."""
    report = pathlib.Path(folder, "iperf.json")
    script = f"""
if [ "$ATOLL_LAB_NODE" = 0 ]; then exec iperf3 --server --one-off; fi
until iperf3 --client 10.77.0.1 --time 6 --omit 1 --json > {report} 2>/dev/null; do sleep 0.2; done
"""
    in_lab(options, 2, ["sh", "-c", script])
    return json.loads(report.read_text())["end"]["sum_received"]["bits_per_second"] / 1e6


def gloo(options, folder, byte_count, kind):
    report = pathlib.Path(folder, f"gloo-{kind}.json")
    in_lab(options, options.peers, [sys.executable, os.path.abspath(__file__), "--peers", options.peers, "--repetitions", options.repetitions,
                                    "--gloo-bytes", byte_count, "--gloo-type", kind, "--out", report])
    return statistics.median(json.loads(report.read_text()))


def gloo_node(options):
    import torch
    import torch.distributed as dist

    rank = int(os.environ["ATOLL_LAB_NODE"])
    os.environ["GLOO_SOCKET_IFNAME"] = "lab"
    dist.init_process_group("gloo", init_method=f"tcp://10.77.0.1:{PORT}", rank=rank, world_size=options.peers)
    dtype = getattr(torch, options.gloo_type)
    values = torch.ones(options.gloo_bytes // dtype.itemsize, dtype=dtype)
    seconds = []
    for _ in range(options.repetitions + 1):
        dist.barrier()
        start = time.monotonic()
        dist.all_reduce(values)
        seconds.append(time.monotonic() - start)
    worst = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(worst, op=dist.ReduceOp.MAX)
    if rank == 0:
        pathlib.Path(options.out).write_text(json.dumps(worst.tolist()[1:]))
    dist.destroy_process_group()


def main():
    options = arguments()
    if options.gloo_bytes:
        return gloo_node(options)
    mine = atoll(options)
    report = {name: mine[name] for name in ("peers", "rate_mbit", "rtt_ms", "codec", "seconds", "plain_tcp_seconds", "ideal_seconds", "efficiency")}
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("iperf3"):
            report["iperf3_mbit"] = iperf(options, folder)
        if subprocess.run([sys.executable, "-c", "import torch.distributed as d; assert d.is_gloo_available()"], capture_output=True, check=False).returncode == 0:
            share = 2 * (options.peers - 1) / options.peers
            encoded = int(mine["ideal_seconds"] * options.rate_mbit * 1e6 / 8 / share)
            for name, byte_count, kind in [("gloo_same_bytes", encoded, "uint8"), ("gloo_fp32", int(options.mib * 2**20), "float32")]:
                seconds = gloo(options, folder, byte_count, kind)
                ideal = share * byte_count / (options.rate_mbit * 1e6 / 8)
                report |= {f"{name}_seconds": seconds, f"{name}_efficiency": ideal / seconds}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
