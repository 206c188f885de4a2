#include "model/pass.h"

namespace model {

using backend::Tensor;

namespace {

void embed(const Pass& pass) {
  const int64_t unit = pass.embedding_unit();
  pass.parameters.gather(unit);
  pass.parameters.prefetch(pass.block_unit(0));
  pass.ops.embedding_forward({.out = pass.block(0).input,
                              .weight = pass.parameters.weight(unit, "embedding"),
                              .tokens = pass.activations.tokens},
                             pass.stream);
  pass.parameters.release(unit);
}

// norm1 = rmsnorm(input), where input is already complete.
void normalize_input(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  pass.ops.rmsnorm_forward({.out = block.norm1,
                            .rstd = block.rstd1,
                            .in = block.input,
                            .weight = pass.parameters.weight(pass.block_unit(i), "norm1"),
                            .epsilon = float(pass.config.norm_epsilon)},
                           pass.stream);
}

// input = middle of the block before + its feed-forward branch;  norm1 = rmsnorm(input).
void add_and_normalize_input(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  pass.ops.rmsnorm_forward({.out = block.norm1,
                            .residual_out = block.input,
                            .rstd = block.rstd1,
                            .in = pass.block(i - 1).middle,
                            .delta = pass.activations.branch,
                            .weight = pass.parameters.weight(pass.block_unit(i), "norm1"),
                            .epsilon = float(pass.config.norm_epsilon)},
                           pass.stream);
}

// attention = attention(rope(qkv)), of whole rows.
void attend_rows(const Pass& pass, const BlockActivations& block) {
  const ModelConfig& c = pass.config;
  pass.ops.rope({.qkv = block.qkv,
                 .table = pass.activations.rope_table,
                 .sequence_length = c.sequence_length,
                 .heads = c.heads,
                 .kv_heads = c.kv_heads,
                 .head_size = c.head_size},
                pass.stream);
  pass.ops.attention_forward({.out = block.attention,
                              .lse = block.lse,
                              .qkv = block.qkv,
                              .document_start = pass.activations.document_starts,
                              .document_count = pass.documents.count,
                              .longest_document = pass.documents.longest,
                              .sequence_length = c.sequence_length,
                              .heads = c.heads,
                              .kv_heads = c.kv_heads,
                              .head_size = c.head_size},
                             pass.stream);
}

// The same of rows that continue sequences.
void attend_cache(const Pass& pass, const BlockActivations& block,
                  const backend::KeyValueCache& cache) {
  const ModelConfig& c = pass.config;
  pass.ops.cache_append({.cache = cache,
                         .qkv = block.qkv,
                         .table = pass.activations.rope_table,
                         .heads = c.heads,
                         .kv_heads = c.kv_heads,
                         .head_size = c.head_size},
                        pass.stream);
  pass.ops.cache_attention({.cache = cache,
                            .out = block.attention,
                            .qkv = block.qkv,
                            .heads = c.heads,
                            .kv_heads = c.kv_heads,
                            .head_size = c.head_size},
                           pass.stream);
}

// branch = out attention(rope(qkv norm1)).
void attention_branch(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  const int64_t unit = pass.block_unit(i);
  pass.ops.matmul({.out = block.qkv,
                   .a = block.norm1,
                   .b = pass.parameters.weight(unit, "qkv"),
                   .transpose_b = true},
                  pass.stream);
  if (pass.cache) {
    attend_cache(pass, block, pass.cache->of_block(i));
  } else {
    attend_rows(pass, block);
  }
  pass.ops.matmul({.out = pass.activations.branch,
                   .a = block.attention,
                   .b = pass.parameters.weight(unit, "out"),
                   .transpose_b = true},
                  pass.stream);
}

// middle = input + branch;  norm2 = rmsnorm(middle).
void add_and_normalize_middle(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  pass.ops.rmsnorm_forward({.out = block.norm2,
                            .residual_out = block.middle,
                            .rstd = block.rstd2,
                            .in = block.input,
                            .delta = pass.activations.branch,
                            .weight = pass.parameters.weight(pass.block_unit(i), "norm2"),
                            .epsilon = float(pass.config.norm_epsilon)},
                           pass.stream);
}

// gate_up = gate norm2, up norm2.
void project_gate_up(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  pass.ops.matmul(
      {.out = block.gate_up, .a = block.norm2, .b = gate_up_weight(pass, i), .transpose_b = true},
      pass.stream);
}

// swiglu = silu(gate norm2) * up norm2.
void expand(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  project_gate_up(pass, i);
  pass.ops.swiglu_forward({.out = block.swiglu, .gate_up = block.gate_up}, pass.stream);
}

// branch = down swiglu.
void contract(const Pass& pass, int64_t i) {
  pass.ops.matmul({.out = pass.activations.branch,
                   .a = pass.block(i).swiglu,
                   .b = pass.parameters.weight(pass.block_unit(i), "down"),
                   .transpose_b = true},
                  pass.stream);
}

// `gate` and `up` of a block's unit, seen as one (2F, C).
Tensor joined(const Tensor& gate, const Tensor& up) {
  CHECK(up.data == static_cast<char*>(gate.data) + gate.byte_count());
  return {gate.data, gate.dtype, {gate.shape[0] + up.shape[0], gate.shape[1]}};
}

}  // namespace

Tensor gate_up_weight(const Pass& pass, int64_t i) {
  const int64_t unit = pass.block_unit(i);
  return joined(pass.parameters.weight(unit, "gate"), pass.parameters.weight(unit, "up"));
}

GradientTarget gate_up_gradient(const Pass& pass, int64_t i) {
  const int64_t unit = pass.block_unit(i);
  const GradientTarget gate = pass.parameters.gradient_target(unit, "gate");
  const GradientTarget up = pass.parameters.gradient_target(unit, "up");
  CHECK(gate.accumulate == up.accumulate);
  return {joined(gate.tensor, up.tensor), gate.accumulate};
}

void forward_blocks(const Pass& pass) {
  embed(pass);
  for (int64_t i = 0; i < pass.config.layers; ++i) {
    pass.parameters.gather(pass.block_unit(i));
    pass.parameters.prefetch(pass.block_unit(i) + 1);  // After the last block, the head.
    if (i == 0) {
      normalize_input(pass, i);
    } else {
      add_and_normalize_input(pass, i);
    }
    attention_branch(pass, i);
    add_and_normalize_middle(pass, i);
    expand(pass, i);
    contract(pass, i);
    pass.parameters.release(pass.block_unit(i));
  }
}

void recompute_block(const Pass& pass, int64_t i) {
  normalize_input(pass, i);
  attention_branch(pass, i);
  add_and_normalize_middle(pass, i);
  project_gate_up(pass, i);
}

void recompute_gate_up(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  pass.ops.rmsnorm_forward({.out = block.norm2,
                            .in = block.middle,
                            .weight = pass.parameters.weight(pass.block_unit(i), "norm2"),
                            .epsilon = float(pass.config.norm_epsilon)},
                           pass.stream);
  project_gate_up(pass, i);
}

}  // namespace model
