#!/usr/bin/env python3
"""The training step of a config's model in PyTorch on one GPU: torch.compile, bf16, fused AdamW, its fastest attention.

    tools/bench_pytorch_cuda.py --shape shape.json --micro-batches 4 [--steps 10] [--recompute]

`shape.json` is what `atoll inspect config FILE --json` and the config itself say of the model: the keys of a config's "model"
section and "micro_batch_rows". Parameters, gradients and moments are bf16, which is less memory to move than Atoll's fp32 masters;
rows hold one document each, so that attention needs no mask. Prints one JSON object.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


def rotate(x, cos, sin):
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


class Block(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.head_size = c["heads"], c["kv_heads"], c["head_size"]
        width, queries = c["width"], c["heads"] * c["head_size"]
        linear = lambda inputs, outputs: torch.nn.Linear(inputs, outputs, bias=False)
        self.norm1, self.norm2 = torch.nn.RMSNorm(width, eps=1e-5), torch.nn.RMSNorm(width, eps=1e-5)
        self.qkv = linear(width, queries + 2 * c["kv_heads"] * c["head_size"])
        self.out = linear(queries, width)
        self.gate_up = linear(width, 2 * c["feed_forward"])
        self.down = linear(c["feed_forward"], width)

    def forward(self, x, cos, sin):
        rows, length, _ = x.shape
        qkv = self.qkv(self.norm1(x)).view(rows, length, -1, self.head_size).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        x = x + self.out(attended.transpose(1, 2).reshape(rows, length, -1))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Model(torch.nn.Module):
    def __init__(self, c, recompute):
        super().__init__()
        self.embedding = torch.nn.Embedding(c["vocabulary"], c["width"])
        self.blocks = torch.nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = torch.nn.RMSNorm(c["width"], eps=1e-5)
        self.head = torch.nn.Linear(c["width"], c["vocabulary"], bias=False)
        self.recompute = recompute
        angles = torch.outer(torch.arange(c["sequence_length"]).float(),
                             500_000.0 ** (-torch.arange(0, c["head_size"], 2).float() / c["head_size"]))
        angles = torch.cat([angles, angles], 1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        for block in self.blocks:
            x = checkpoint(block, x, cos, sin, use_reentrant=False) if self.recompute else block(x, cos, sin)
        logits = self.head(self.norm(x)).flatten(0, 1).float()
        return F.cross_entropy(logits, targets.flatten())


def bench(c, micro_batches, steps, recompute):
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Model(c, recompute).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    step_loss = torch.compile(model)
    shape = (c["micro_batch_rows"], c["sequence_length"])

    def step():
        for _ in range(micro_batches):
            tokens = torch.randint(c["vocabulary"], shape, device="cuda")
            targets = torch.randint(c["vocabulary"], shape, device="cuda")
            (step_loss(tokens, targets) / micro_batches).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    for _ in range(3):
        step()
    seconds = []
    for _ in range(steps):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return micro_batches * shape[0] * shape[1] / statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--micro-batches", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--recompute", action="store_true", help="make each block's activations again in the backward")
    arguments = parser.parse_args()
    with open(arguments.shape, encoding="utf-8") as file:
        c = json.load(file)
    torch.set_float32_matmul_precision("high")
    result = {"torch": torch.__version__, "device": torch.cuda.get_device_name(), "recompute": arguments.recompute}
    try:
        result["tokens_per_second"] = bench(c, arguments.micro_batches, arguments.steps, arguments.recompute)
    except torch.OutOfMemoryError as error:
        result["error"] = str(error).split("\n")[0]
    result["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
