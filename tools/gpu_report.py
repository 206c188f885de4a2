"""The table of a GPU check: what gpu_check.py measured, as Markdown."""

import json

# Bits of nvidia-smi's clocks_event_reasons.active (NVML, nvmlClocksEventReasons).
THROTTLE = {0x1: "idle", 0x2: "application clocks", 0x4: "power cap", 0x8: "hardware slowdown", 0x10: "sync boost",
            0x20: "thermal (software)", 0x40: "thermal (hardware)", 0x80: "power brake", 0x100: "display clocks"}
STATES = {True: "passed", False: "FAILED", None: "not run"}


def throttle_names(bits):
    return [name for bit, name in THROTTLE.items() if bits & bit]


def number(value, digits=0, scale=1.0, unit=""):
    return "?" if value is None else f"{scale * value:.{digits}f}{unit}"


def check_lines(entries):
    lines = ["| check | result | seconds |", "|---|---|---|"]
    for entry in entries:
        state = STATES[entry["passed"]]
        first = entry["text"].strip().split("\n")[0][:120].replace("|", "/") if entry["passed"] is None else ""
        lines.append(f"| {entry['name']} | {state}{': ' + first if first else ''} | {entry['seconds']} |")
    return lines + [""]


def library_lines(facts):
    if not facts:
        return []
    lines = [f"Built with CUDA {facts['runtime_version']}, the driver knows {facts['driver_version']}.", "",
             "| library | version | path |", "|---|---|---|"]
    for library in facts["libraries"]:
        lines.append(f"| {library['name']} | {library['version']} | {library['path'] or library['problem'][:160]} |")
    return lines + [""]


def utilisation(report):
    if report.get("mfu_palm") is not None:
        causal = f", {100 * report['mfu_causal']:.1f} % (causal)" if report.get("mfu_causal") is not None else ""
        return f"model FLOPS utilisation {100 * report['mfu_palm']:.1f} % (PaLM){causal}"
    if report.get("mfu_inside_documents") is not None:
        return f"{100 * report['mfu_inside_documents']:.1f} % utilisation by the work inside documents"
    return "utilisation unknown"


def step_lines(title, report):
    if not report:
        return []
    lines = [f"## {title}", "",
             f"**{report['tokens_per_second']:.0f} tokens/s**; {utilisation(report)} of {number(report.get('peak_tflops_per_second'))} TFLOP/s; "
             f"step {1e3 * report['step_seconds']:.1f} ms; recompute {report['policy']}.",
             f"Ceilings in the same call, sustained on random data: products {number(report.get('gemm_tflops_per_second'))} TFLOP/s, "
             f"copies {number(report.get('copy_gigabytes_per_second'))} GB/s. Memory: {report['bytes_per_rank'] / 2**30:.2f} GiB "
             f"allocated, {report['planned_bytes_per_rank'] / 2**30:.2f} planned with the libraries', "
             f"{number(report.get('device_used_bytes'), 2, 2**-30)} in use by the driver's count. Set-up "
             f"{number(report.get('setup_seconds'), 1)} s."]
    if report.get("ceiling_error"):
        lines.append(f"Ceilings: {report['ceiling_error']}")
    gpu = report.get("gpu")
    if gpu:
        lines.append(f"During the steps: SM clock {number(gpu['sm_mhz_mean'])} MHz (least {number(gpu['sm_mhz_min'])}), "
                     f"{number(gpu['power_watts_mean'])} W (most {number(gpu['power_watts_max'])}), "
                     f"{number(gpu['temperature_max'])} °C, throttled by: {', '.join(gpu['throttle_reasons']) or 'nothing'}.")
    return lines + [""] + part_lines(report)


def part_lines(report):
    lines = ["| part | calls | ms | share | rate | GB | lost ms |", "|---|---|---|---|---|---|---|"]
    for part in report["parts"]:
        rate = (f"{part['tflops_per_second']:.0f} TFLOP/s" if part["tflops_per_second"] > 0
                else f"{part['gigabytes_per_second']:.0f} GB/s")
        lines.append(f"| {part['name']} | {part['calls']} | {1e3 * part['seconds']:.2f} | "
                     f"{100 * part['seconds'] / report['step_seconds']:.1f} % | {rate} | {number(part.get('bytes'), 1, 1e-9)} | "
                     f"{number(part.get('lost_seconds'), 2, 1e3)} |")
    if report.get("unattributed_seconds") is not None:
        seconds = report["unattributed_seconds"]
        # Parts that run beside others count twice, so that the sum may be more than the step.
        name = "in no part" if seconds >= 0 else "beside other parts"
        lines.append(f"| {name} | | {1e3 * seconds:.2f} | {100 * seconds / report['step_seconds']:.1f} % | | | {1e3 * seconds:.2f} |")
    other = report.get("extrapolation")
    if other:
        lines += ["", f"With {other['blocks']} blocks, by the parts: {other['tokens_per_second']:.0f} tokens/s, {utilisation(other)}."]
    return lines + [""]


def rank_lines(reports):
    if not reports:
        return []
    lines = ["## Ranks that share the GPU", "", "PRIME's 150M shape; in-process communicator.", "",
             "| ranks | sharding | tokens/s | gathered MiB | reduced MiB | exposed ms | share of the step | GiB per rank | planned |",
             "|---|---|---|---|---|---|---|---|---|"]
    for report in reports:
        exposed = report["exposed_communication_seconds"]
        lines.append(f"| {report['ranks']} | {report['sharding']} | {report['tokens_per_second']:.0f} | "
                     f"{report['gathered_bytes'] / 2**20:.0f} | {report['reduced_bytes'] / 2**20:.0f} | {1e3 * exposed:.2f} | "
                     f"{100 * exposed / report['step_seconds']:.1f} % | {report['bytes_per_rank'] / 2**30:.2f} | "
                     f"{report['planned_bytes_per_rank'] / 2**30:.2f} |")
    return lines + [""]


def pytorch_lines(result):
    rows = [(key, name) for key, name in (("pytorch", "no recomputation"), ("pytorch_recompute", "recomputation"),
                                          ("pytorch_autotune", "no recomputation, max-autotune-no-cudagraphs")) if result.get(key)]
    if not rows:
        return []
    lines = ["## PyTorch on the same shape", "", "| | tokens/s | attention | compile s | GiB | Atoll is faster by |", "|---|---|---|---|---|---|"]
    for key, name in rows:
        report = result[key]
        if "tokens_per_second" not in report:
            lines.append(f"| {name} | {report.get('error', 'no figure')[:160]} | | | | |")
            continue
        bench = result.get("bench")
        ratio = f"{bench['tokens_per_second'] / report['tokens_per_second']:.3f} x" if bench else "not in this call"
        lines.append(f"| {name} ({report['torch']}) | {report['tokens_per_second']:.0f} | {report.get('attention', '?')} | "
                     f"{number(report.get('compile_seconds'))} | {number(report.get('peak_memory_bytes'), 1, 2**-30)} | {ratio} |")
    return lines + [""]


def section(make, *arguments):
    """A figure that is missing costs its own section only."""
    try:
        return make(*arguments)
    except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
        return [f"gpu_check.json has the figures of this section; its table failed: {error!r}", ""]


def markdown(result):
    lines = ["# GPU check", "", f"{result['date']}, {json.dumps(result['device'])}, `{result['command']}`", ""]
    lines += section(check_lines, result.get("checks", []))
    lines += section(library_lines, result.get("libraries"))
    shape = "8 blocks of the 10B shape, sequence 8192"
    lines += section(step_lines, f"{shape}, one document per row, 16 micro-batches a step", result.get("bench"))
    lines += section(step_lines, f"{shape}, one document per row, 4 micro-batches a step", result.get("bench_4"))
    lines += section(step_lines, f"{shape}, 4 micro-batches a step, weight gradients on a stream of their own", result.get("bench_stream"))
    lines += section(step_lines, f"{shape}, packed documents of about 1000 tokens", result.get("bench_packed"))
    lines += section(step_lines, "All 42 blocks in lean memory in 80 GB, one micro-batch a step", result.get("bench_lean"))
    lines += section(step_lines, "All 42 blocks in lean memory, what this GPU's memory allows", result.get("bench_lean_free"))
    lines += section(pytorch_lines, result)
    lines += section(rank_lines, result.get("bench_ranks"))
    return "\n".join(lines) + "\n"
