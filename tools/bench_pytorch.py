#!/usr/bin/env python3
"""The training step of a config's model in PyTorch and in Atoll, one after the other on the same processors.

    tools/bench_pytorch.py --atoll build/release/src/cli/atoll --config configs/llama-25m.json [--steps 4]

PyTorch runs the same shape in fp32: eager mode, fused matrices for qkv and gate/up, its own cross-entropy and AdamW, causal
attention without a document mask (which is less work than Atoll does). Prints one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F


class Block(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        width, queries = c["width"], c["heads"] * c["head_size"]
        linear = lambda inputs, outputs: torch.nn.Linear(inputs, outputs, bias=False)
        self.norm1, self.norm2 = torch.nn.Parameter(torch.ones(width)), torch.nn.Parameter(torch.ones(width))
        self.qkv = linear(width, queries + 2 * c["kv_heads"] * c["head_size"])
        self.out = linear(queries, width)
        self.gate_up = linear(width, 2 * c["feed_forward"])
        self.down = linear(c["feed_forward"], width)

    def forward(self, x, cos, sin, mask):
        c, (rows, length, _) = self.c, x.shape
        qkv = self.qkv(norm(x, self.norm1)).view(rows, length, -1, c["head_size"]).transpose(1, 2)
        q, k, v = qkv.split([c["heads"], c["kv_heads"], c["kv_heads"]], dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = c["heads"] // c["kv_heads"]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = (q @ k.transpose(2, 3)) / c["head_size"] ** 0.5 + mask
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, length, -1))
        gate, up = self.gate_up(norm(x, self.norm2)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Model(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embedding = torch.nn.Embedding(c["vocabulary"], c["width"])
        self.blocks = torch.nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = torch.nn.Parameter(torch.ones(c["width"]))
        self.head = torch.nn.Linear(c["width"], c["vocabulary"], bias=False)
        length, size = c["sequence_length"], c["head_size"]
        angles = torch.outer(torch.arange(length), 500_000.0 ** (-torch.arange(0, size, 2) / size))
        self.cos, self.sin = torch.cat([angles, angles], 1).cos(), torch.cat([angles, angles], 1).sin()
        self.mask = torch.full((length, length), float("-inf")).triu(1)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin, self.mask)
        return self.head(norm(x, self.norm))


def norm(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


def bench_torch(config, steps):
    c, rows = config["model"], config["training"]["batch_rows"]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model = Model(c)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    seconds = []
    for _ in range(2 + steps):
        tokens = torch.randint(c["vocabulary"], (rows, c["sequence_length"] + 1))
        begin = time.perf_counter()
        logits = model(tokens[:, :-1]).flatten(0, 1)
        loss = F.cross_entropy(logits, tokens[:, 1:].flatten()) + 2e-4 * logits.amax(1).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
    parameters = sum(p.numel() for p in model.parameters())
    return rows * c["sequence_length"] / statistics.median(seconds[2:]), parameters


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoll", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    config = json.load(open(arguments.config))
    output = subprocess.run([arguments.atoll, "bench", "step", "--config", arguments.config, "--steps", str(arguments.steps),
                             "--json"], check=True, capture_output=True, text=True).stdout
    atoll = json.loads(output.splitlines()[-1])
    tokens_per_second, parameters = bench_torch(config, arguments.steps)
    assert parameters == atoll["parameters"], (parameters, atoll["parameters"])
    print(json.dumps({"atoll": atoll, "pytorch_version": torch.__version__, "pytorch_threads": torch.get_num_threads(),
                      "pytorch_tokens_per_second": tokens_per_second,
                      "atoll_over_pytorch": atoll["tokens_per_second"] / tokens_per_second}, indent=2))


if __name__ == "__main__":
    main()
