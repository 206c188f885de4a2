#!/usr/bin/env python3
"""The training step of a config's model in PyTorch on one GPU: torch.compile, bf16, fused AdamW, cuDNN's attention.

    tools/bench_pytorch_cuda.py --shape shape.json [--micro-batches 16] [--steps 10] [--recompute]
                                [--mode max-autotune-no-cudagraphs] [--peak FLOPS]

`shape.json` is what `atoll inspect config FILE --json` and the config itself say of the model: the keys of a config's "model"
section and "micro_batch_rows". Parameters, gradients and moments are bf16, which is less memory to move than Atoll's fp32 masters;
rows hold one document each, so that attention needs no mask. A block and the head's loss are compiled once each: all blocks have
the same shapes and share one graph. Prints one JSON object, with "error" in it if something failed.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend, sdpa_kernel
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


class Head(torch.nn.Module):
    """Mean loss over a chunk of tokens, times its share of the whole."""

    def __init__(self, c):
        super().__init__()
        self.norm = torch.nn.RMSNorm(c["width"], eps=1e-5)
        self.linear = torch.nn.Linear(c["width"], c["vocabulary"], bias=False)

    def forward(self, x, targets, share: float):
        return F.cross_entropy(self.linear(self.norm(x)).float(), targets) * share


class Model(torch.nn.Module):
    def __init__(self, c, recompute, head_chunks):
        super().__init__()
        self.embedding = torch.nn.Embedding(c["vocabulary"], c["width"])
        self.blocks = torch.nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.head = Head(c)
        self.recompute, self.head_chunks = recompute, head_chunks
        angles = torch.outer(torch.arange(c["sequence_length"]).float(),
                             500_000.0 ** (-torch.arange(0, c["head_size"], 2).float() / c["head_size"]))
        angles = torch.cat([angles, angles], 1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def compile_parts(self, mode):
        # The instances share the code of their class's forward, and with it the graph.
        for part in [*self.blocks, self.head]:
            part.compile(mode=mode, dynamic=False)

    def hidden(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = checkpoint(block, x, self.cos, self.sin, use_reentrant=False) if self.recompute else block(x, self.cos, self.sin)
        return x.flatten(0, 1)

    def backward(self, tokens, targets, share):
        """Forward and backward; each chunk's logits are gone before the next ones are made."""
        x = self.hidden(tokens)
        if self.head_chunks == 1:
            self.head(x, targets, share).backward()
            return
        cut = x.detach().requires_grad_()
        for rows, wanted in zip(cut.chunk(self.head_chunks), targets.chunk(self.head_chunks)):
            self.head(rows, wanted, share / self.head_chunks).backward()
        x.backward(cut.grad)


def parameter_count(c):
    """Without the embedding, as PaLM's convention wants it."""
    queries, keys = c["heads"] * c["head_size"], c["kv_heads"] * c["head_size"]
    block = c["width"] * (2 * queries + 2 * keys + 3 * c["feed_forward"] + 2)
    return c["layers"] * block + c["width"] * (c["vocabulary"] + 1)


def palm_flops_per_token(c):
    return 6 * parameter_count(c) + 12 * c["layers"] * c["heads"] * c["head_size"] * c["sequence_length"]


def head_chunk_count(c):
    """Logits in bf16 and fp32 and the gradients of both: 12 bytes each. At most 8 GiB of them."""
    tokens = c["micro_batch_rows"] * c["sequence_length"]
    chunks = 1
    while 12 * tokens * c["vocabulary"] // chunks > 8 * 2**30 and tokens % (2 * chunks) == 0:
        chunks *= 2
    return chunks


def choose_attention(c):
    """cuDNN's, or where it refuses this shape flash attention; and why."""
    def tensor(heads):
        return torch.randn(c["micro_batch_rows"], heads, c["sequence_length"], c["head_size"], device="cuda",
                           dtype=torch.bfloat16, requires_grad=True)

    try:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            F.scaled_dot_product_attention(tensor(c["heads"]), tensor(c["kv_heads"]), tensor(c["kv_heads"]), is_causal=True,
                                           enable_gqa=c["heads"] != c["kv_heads"]).sum().backward()
        torch.cuda.synchronize()
        return SDPBackend.CUDNN_ATTENTION, None
    except RuntimeError as error:
        return SDPBackend.FLASH_ATTENTION, str(error).split("\n")[0]


def timed(body):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    body()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def bench(c, arguments, result):
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    backend, refusal = choose_attention(c)
    result["attention"] = backend.name
    if refusal:
        result["cudnn_refused"] = refusal
    chunks = head_chunk_count(c)
    result["head_chunks"] = chunks
    with torch.device("cuda"):
        model = Model(c, arguments.recompute, chunks).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    model.compile_parts(arguments.mode)
    rows, length = c["micro_batch_rows"], c["sequence_length"]
    tokens = torch.randint(c["vocabulary"], (arguments.micro_batches, rows, length), device="cuda")
    targets = torch.randint(c["vocabulary"], (arguments.micro_batches, rows * length), device="cuda")

    def step():
        with sdpa_kernel(backend):
            for micro in range(arguments.micro_batches):
                model.backward(tokens[micro], targets[micro], 1 / arguments.micro_batches)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    result["compile_seconds"] = timed(step)  # The first step, which compiles.
    step()
    # 2: the block's and the head's. More would mean that blocks were compiled again, or not at all.
    result["compiled_graphs"] = counters["stats"]["unique_graphs"]
    seconds = statistics.median(timed(step) for _ in range(arguments.steps))
    result["step_seconds"] = seconds
    result["tokens_per_second"] = arguments.micro_batches * rows * length / seconds
    result["mfu_palm"] = result["tokens_per_second"] * palm_flops_per_token(c) / arguments.peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--micro-batches", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--recompute", action="store_true", help="make each block's activations again in the backward")
    parser.add_argument("--mode", default="default", choices=("default", "max-autotune-no-cudagraphs"), help="of torch.compile")
    parser.add_argument("--peak", type=float, default=989e12, help="FLOP/s that mfu_palm is a share of (H100 SXM, bf16)")
    arguments = parser.parse_args()
    result = {"torch": torch.__version__, "recompute": arguments.recompute, "mode": arguments.mode,
              "micro_batches": arguments.micro_batches}
    try:
        with open(arguments.shape, encoding="utf-8") as file:
            c = json.load(file)
        result["device"] = torch.cuda.get_device_name()
        bench(c, arguments, result)
    except Exception as error:  # Whatever it is, the report says so.
        result["error"] = f"{type(error).__name__}: {error}".split("\n")[0]
    if torch.cuda.is_initialized():
        result["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
