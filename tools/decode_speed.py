#!/usr/bin/env python3
"""Tokens per second that a model of a config's shape writes: Atoll beside `transformers` with its cache, in turn on the same processors.

    pip install torch transformers
    python3 tools/decode_speed.py --atoll build/release/src/cli/atoll --config configs/llama-25m.json

Both have random weights, get a random prompt and write the likeliest token each time; one token waits for the one before it.
transformers is measured in fp32 and bf16, with both of its attentions (sdpa, eager), and the best counts; Atoll computes in fp32 on
processors. Runs alternate, so that both meet the same machine; medians count. Prints one JSON line; `ratio` is Atoll's over the best of
transformers.
"""
import argparse
import json
import statistics
import subprocess
import time

import torch
import transformers


def make_model(shape, dtype, attention):
    config = transformers.LlamaConfig(
        vocab_size=shape["vocabulary"], hidden_size=shape["width"], num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"], num_key_value_heads=shape["kv_heads"], head_dim=shape["head_size"],
        intermediate_size=shape["feed_forward"], max_position_embeddings=shape["sequence_length"], tie_word_embeddings=False,
        attn_implementation=attention)
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


def write(model, shape, options):
    """Seconds of the prompt and `tokens` more tokens."""
    prompt = torch.randint(0, shape["vocabulary"], (options.sequences, options.prompt_tokens))
    mask = torch.ones_like(prompt)
    begin = time.perf_counter()
    with torch.inference_mode():
        out = model.generate(prompt, attention_mask=mask, max_new_tokens=options.tokens, min_new_tokens=options.tokens,
                             do_sample=False, use_cache=True, pad_token_id=0)
    seconds = time.perf_counter() - begin
    assert out.shape[1] == options.prompt_tokens + options.tokens
    return seconds


def run_atoll(options):
    command = [options.atoll, "bench", "decode", "--config", options.config, "--json", "--prompt-tokens", str(options.prompt_tokens),
               "--tokens", str(options.tokens), "--sequences", str(options.sequences),
               "--set", f"node.threads={torch.get_num_threads()}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report = json.loads(done.stdout.splitlines()[-1])
    # With the prompt, as the other side is timed.
    written = options.sequences * options.tokens
    prompt_seconds = options.sequences * options.prompt_tokens / report["prompt_tokens_per_second"]
    return prompt_seconds + written / report["tokens_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoll", required=True, help="the executable")
    parser.add_argument("--config", default="configs/llama-25m.json")
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--sequences", type=int, default=1, help="written side by side")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of both (all processors)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with open(options.config, encoding="utf8") as file:
        shape = json.load(file)["model"]
    models = {f"{name} {attention}": make_model(shape, dtype, attention)
              for name, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16)] for attention in ("sdpa", "eager")}
    for model in models.values():
        write(model, shape, options)  # The first is always slower.
    seconds = {"atoll": [], **{name: [] for name in models}}
    for _ in range(options.repetitions):
        seconds["atoll"].append(run_atoll(options))
        for name, model in models.items():
            seconds[name].append(write(model, shape, options))
    written = options.sequences * options.tokens
    rates = {name: written / statistics.median(times) for name, times in seconds.items()}
    best = max(models, key=rates.get)
    print(json.dumps({"config": options.config, "sequences": options.sequences, "prompt_tokens": options.prompt_tokens,
                      "tokens": options.tokens, "threads": torch.get_num_threads(), "torch": torch.__version__,
                      "transformers": transformers.__version__, "tokens_per_second": {k: round(v, 1) for k, v in rates.items()},
                      "best_of_transformers": best, "ratio": round(rates["atoll"] / rates[best], 2)}))


if __name__ == "__main__":
    main()
