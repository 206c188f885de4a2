#!/usr/bin/env python3
"""lm-evaluation-harness on a checkpoint, two ways that must agree: through `atoll serve`, and through transformers.

    pip install 'lm-eval[api]' torch transformers accelerate
    python3 tools/harness.py --atoll build/release/src/cli/atoll --checkpoint runs/RUN/north

Needs no download: the tasks are made of this repository's own sources, one of each kind that the harness has: choosing the line that
comes next among three with its letters shuffled (loglikelihood), the likelihood of whole texts (loglikelihood_rolling), and writing a
line to its end (generate_until). The same checkpoint is served, and converted and loaded by the harness's `hf` model in fp32. Prints
both tables of results, and one JSON line with how far apart the two ways are, document by document; the exit code is 1 where
likelihoods differ by more than --tolerance, or more texts than --texts-apart.
"""
import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TASKS = ["atoll_choose_line", "atoll_whole_texts", "atoll_write_line"]
CHOOSE = """\
task: atoll_choose_line
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: gold
target_delimiter: ""
metric_list: [{metric: acc}, {metric: acc_norm}]
metadata: {version: 1}
"""
WHOLE = """\
task: atoll_whole_texts
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
metadata: {version: 1}
"""
WRITE = """\
task: atoll_write_line
dataset_path: json
dataset_kwargs: {data_files: {test: %s}}
test_split: test
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{rest}}"
target_delimiter: ""
generation_kwargs: {until: ["\\n"], max_gen_toks: 16, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match}]
metadata: {version: 1}
"""


def sources():
    return [path.read_text(encoding="utf8") for path in sorted((ROOT / "src").rglob("*.cpp"))]


def make_tasks(folder, count):
    """Three tasks of `count` documents each; the same for the same sources."""
    dice = random.Random(1)
    texts = sources()
    choose, write = [], []
    while len(choose) < count:
        text = dice.choice(texts).splitlines()
        at = dice.randrange(len(text))
        right = text[at]
        # The harness moves white space from the end of a context on, and must have some left.
        if at == 0 or not text[at - 1].strip() or not 20 <= len(right) <= 60 or not (right + text[at - 1]).isascii():
            continue
        choices = ["".join(dice.sample(right, len(right))) for _ in range(3)] + [right]
        dice.shuffle(choices)
        choose.append({"context": text[at - 1][-60:] + "\n", "choices": choices, "gold": choices.index(right)})
        cut = dice.randrange(10, len(right) - 3)
        write.append({"context": text[at - 1][-40:] + "\n" + right[:cut], "rest": right[cut:]})
    # Longer than the context of a small model, so that the harness cuts them into windows.
    whole = [{"text": text[:1500]} for text in dice.sample(texts, max(2, count // 10))]
    for name, definition, documents in [("choose", CHOOSE, choose), ("whole", WHOLE, whole), ("write", WRITE, write)]:
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(document) + "\n" for document in documents))
        (folder / f"{name}.yaml").write_text(definition % data)


def run_harness(model, arguments, tasks, output):
    """The scores by task and metric, and the answers by task and document."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", model, "--model_args",
               ",".join(f"{key}={value}" for key, value in arguments.items()), "--include_path", str(tasks),
               "--tasks", ",".join(TASKS), "--batch_size", "4", "--device", "cpu", "--log_samples", "--output_path", str(output)]
    environment = {**os.environ, "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tasks / "cache"),
                   "TOKENIZERS_PARALLELISM": "false"}
    print(" ".join(command), flush=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    print(done.stdout[done.stdout.find("|"):], flush=True)
    path, = output.rglob("results_*.json")
    results = json.loads(path.read_text())["results"]
    scores = {task: {key.split(",")[0]: value for key, value in found.items()
                     if isinstance(value, float) and "stderr" not in key} for task, found in results.items()}
    answers = {}
    for task in TASKS:
        path, = output.rglob(f"samples_{task}_*.jsonl")
        answers[task] = {line["doc_id"]: line["resps"] for line in map(json.loads, path.read_text().splitlines())}
    return scores, answers


def serve_and_run(options, tasks, output):
    server = subprocess.Popen([options.atoll, "serve", "--checkpoint", options.checkpoint, "--port", "0", "--json"],
                              stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        if not line:
            sys.exit("atoll serve did not start")
        url = json.loads(line)["url"]
        results = run_harness("local-completions", {
            "base_url": url + "/v1/completions", "model": "atoll", "tokenizer_backend": "remote", "max_length": options.context,
            "num_concurrent": 1, "max_retries": 1}, tasks, output)
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=60)
    if code:
        sys.exit(f"atoll serve ended with {code}")
    return results


def convert_and_run(options, tasks, output):
    folder = output / "hf"
    subprocess.run([options.atoll, "convert", options.checkpoint, "--to", "hf", str(folder)], check=True, capture_output=True)
    # With a server's tokenizer the harness puts no begin token before texts. It takes a token away from a server's context for what
    # it must write, and one more from windows.
    return run_harness("hf", {"pretrained": folder, "dtype": "float32", "add_bos_token": False, "max_length": options.context - 2},
                       tasks, output)


def model_context(options):
    shown = subprocess.run([options.atoll, "inspect", "model", options.checkpoint], check=True, capture_output=True, text=True)
    model = json.loads(shown.stdout)
    return model.get("model", model)["sequence_length"]


def numbers_in(answer):
    if isinstance(answer, list):
        return [number for part in answer for number in numbers_in(part)]
    try:
        return [float(answer)]
    except ValueError:
        return []  # Whether it was greedy.


def compare(served, loaded):
    """The largest relative distance of any likelihood, and how many of the written texts differ."""
    farthest = 0.0
    for task in TASKS[:2]:
        for document, answer in loaded[task].items():
            pairs = zip(numbers_in(served[task][document]), numbers_in(answer), strict=True)
            farthest = max([farthest] + [abs(a - b) / abs(b) for a, b in pairs])
    texts = [served[TASKS[2]][document] != answer for document, answer in loaded[TASKS[2]].items()]
    return {"likelihoods_apart": farthest, "texts": len(texts), "texts_apart": sum(texts)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoll", required=True, help="the executable")
    parser.add_argument("--checkpoint", required=True, help="a checkpoint's folder or a run directory")
    parser.add_argument("--documents", type=int, default=60, help="of each task (%(default)s)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of likelihoods, relative (%(default)s)")
    parser.add_argument("--texts-apart", type=int, default=1, help="texts that may differ: two tokens as likely (%(default)s)")
    options = parser.parse_args()
    options.context = model_context(options)
    with tempfile.TemporaryDirectory() as folder:
        tasks = pathlib.Path(folder) / "tasks"
        tasks.mkdir()
        make_tasks(tasks, options.documents)
        served, served_answers = serve_and_run(options, tasks, pathlib.Path(folder) / "served")
        loaded, loaded_answers = convert_and_run(options, tasks, pathlib.Path(folder) / "loaded")
    distance = compare(served_answers, loaded_answers)
    print(json.dumps({"served": served, "transformers": loaded, **distance}))
    return 1 if distance["likelihoods_apart"] > options.tolerance or distance["texts_apart"] > options.texts_apart else 0


if __name__ == "__main__":
    sys.exit(main())
