// Every function here is one stage of forward.cpp, turned round: same names, opposite order. For y
// = x W' (W is (outputs, inputs)):  dx = dy W  and  dW += dy' x.
#include "model/pass.h"

namespace model {

using backend::Tensor;

namespace {

// For y = x W' in a block: dW, on the side stream if there is one.
void differentiate_beside(const Pass& pass, WeightProduct product, const GradientTarget& target,
                          const Tensor& out_gradient, const Tensor& in) {
  pass.side.run(product, [&](backend::Stream& stream) {
    differentiate_weight(pass, stream, target, out_gradient, in);
  });
}

// Hands on the gradient of block i, which is whole with its last product.
void reduce_block(const Pass& pass, int64_t i) {
  pass.side.await(WeightProduct::kQkv);
  pass.parameters.reduce(pass.block_unit(i));
}

// What a block makes again takes the place of what the block after it made, which products on the
// side stream may still read.
void recompute(const Pass& pass, int64_t i) {
  if (pass.options.recompute == Recompute::kFull) {
    pass.side.await(WeightProduct::kQkv);
    recompute_block(pass, i);
  } else if (pass.options.recompute == Recompute::kGateUp) {
    pass.side.await(WeightProduct::kGateUp);
    recompute_gate_up(pass, i);
  }
}

// For branch = down swiglu. In: residual_gradient, which is the branch's gradient too. Out:
// swiglu_gradient.
void contract_backward(const Pass& pass, int64_t i) {
  pass.ops.matmul({.out = pass.activations.swiglu_gradient,
                   .a = pass.activations.residual_gradient,
                   .b = pass.parameters.weight(pass.block_unit(i), "down")},
                  pass.stream);
}

// For swiglu = silu(gate norm2) * up norm2. Out: norm_gradient, gate_up as its own gradient, down's
// weight gradient, which had to wait for swiglu. With a side stream, the block after this one is
// reduced here, late enough for its last products to have run beside this block's first: from here
// on nothing reads that block's activations, and this block may take the place of its gradient.
void expand_backward(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  const bool is_swiglu_lost = pass.options.recompute != Recompute::kNone;
  pass.ops.swiglu_backward({.gate_up = block.gate_up,
                            .out = is_swiglu_lost ? block.swiglu : Tensor{},
                            .out_gradient = pass.activations.swiglu_gradient},
                           pass.stream);
  if (pass.side.is_used() && i + 1 < pass.config.layers) reduce_block(pass, i + 1);
  differentiate_beside(pass, WeightProduct::kDown,
                       pass.parameters.gradient_target(pass.block_unit(i), "down"),
                       pass.activations.residual_gradient, block.swiglu);
  pass.ops.matmul(
      {.out = pass.activations.norm_gradient, .a = block.gate_up, .b = gate_up_weight(pass, i)},
      pass.stream);
}

// For norm2 = rmsnorm(middle). Adds to residual_gradient; out: middle_gradient. Then gate and up's
// weight gradients, which had to wait for norm2.
void normalize_middle_backward(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  const int64_t unit = pass.block_unit(i);
  const bool is_norm_lost = pass.options.recompute == Recompute::kCheap;
  pass.ops.rmsnorm_backward({.in_gradient = pass.activations.middle_gradient,
                             .weight_gradient = pass.parameters.gradient(unit, "norm2"),
                             .out = is_norm_lost ? block.norm2 : Tensor{},
                             .out_gradient = pass.activations.norm_gradient,
                             .residual_gradient = pass.activations.residual_gradient,
                             .in = block.middle,
                             .weight = pass.parameters.weight(unit, "norm2"),
                             .rstd = block.rstd2},
                            pass.stream);
  differentiate_beside(pass, WeightProduct::kGateUp, gate_up_gradient(pass, i), block.gate_up,
                       block.norm2);
}

// For branch = out attention(rope(qkv norm1)). In: middle_gradient. Out: qkv_gradient,
// norm_gradient.
void attention_branch_backward(const Pass& pass, int64_t i) {
  const ModelConfig& c = pass.config;
  const Activations& a = pass.activations;
  const BlockActivations& block = pass.block(i);
  const int64_t unit = pass.block_unit(i);
  pass.ops.matmul({.out = a.attention_gradient,
                   .a = a.middle_gradient,
                   .b = pass.parameters.weight(unit, "out")},
                  pass.stream);
  differentiate_beside(pass, WeightProduct::kOut, pass.parameters.gradient_target(unit, "out"),
                       a.middle_gradient, block.attention);
  pass.ops.attention_backward({.qkv_gradient = a.qkv_gradient,
                               .out_gradient = a.attention_gradient,
                               .out = block.attention,
                               .lse = block.lse,
                               .qkv = block.qkv,
                               .document_start = a.document_starts,
                               .document_count = pass.documents.count,
                               .longest_document = pass.documents.longest,
                               .sequence_length = c.sequence_length,
                               .heads = c.heads,
                               .kv_heads = c.kv_heads,
                               .head_size = c.head_size},
                              pass.stream);
  pass.ops.rope({.qkv = a.qkv_gradient,
                 .table = a.rope_table,
                 .sequence_length = c.sequence_length,
                 .heads = c.heads,
                 .kv_heads = c.kv_heads,
                 .head_size = c.head_size,
                 .inverse = true},
                pass.stream);
  pass.ops.matmul(
      {.out = a.norm_gradient, .a = a.qkv_gradient, .b = pass.parameters.weight(unit, "qkv")},
      pass.stream);
}

// For norm1 = rmsnorm(input). Adds to middle_gradient; out: residual_gradient, which down's weight
// gradient has read by then. Then qkv's weight gradient, which had to wait for norm1.
void normalize_input_backward(const Pass& pass, int64_t i) {
  const BlockActivations& block = pass.block(i);
  const int64_t unit = pass.block_unit(i);
  const bool is_norm_lost =
      pass.options.recompute == Recompute::kCheap || pass.options.recompute == Recompute::kGateUp;
  pass.side.await(WeightProduct::kDown);
  pass.ops.rmsnorm_backward({.in_gradient = pass.activations.residual_gradient,
                             .weight_gradient = pass.parameters.gradient(unit, "norm1"),
                             .out = is_norm_lost ? block.norm1 : Tensor{},
                             .out_gradient = pass.activations.norm_gradient,
                             .residual_gradient = pass.activations.middle_gradient,
                             .in = block.input,
                             .weight = pass.parameters.weight(unit, "norm1"),
                             .rstd = block.rstd1},
                            pass.stream);
  differentiate_beside(pass, WeightProduct::kQkv, pass.parameters.gradient_target(unit, "qkv"),
                       pass.activations.qkv_gradient, block.norm1);
}

void embed_backward(const Pass& pass) {
  const int64_t unit = pass.embedding_unit();
  pass.ops.embedding_backward({.weight_gradient = pass.parameters.gradient(unit, "embedding"),
                               .out_gradient = pass.activations.residual_gradient,
                               .tokens = pass.activations.tokens},
                              pass.stream);
  pass.parameters.reduce(unit);
}

}  // namespace

void differentiate_weight(const Pass& pass, backend::Stream& stream, const GradientTarget& target,
                          const Tensor& out_gradient, const Tensor& in) {
  pass.ops.matmul({.out = target.tensor,
                   .a = out_gradient,
                   .b = in,
                   .transpose_a = true,
                   .accumulate = target.accumulate},
                  stream);
}

void backward_blocks(const Pass& pass) {
  for (int64_t i = pass.config.layers - 1; i >= 0; --i) {
    pass.parameters.gather(pass.block_unit(i));
    if (i > 0) pass.parameters.prefetch(pass.block_unit(i - 1));
    // What the last block computed is still where it was: no other block has come after it.
    const bool is_lost = i + 1 < pass.config.layers;
    if (is_lost) recompute(pass, i);
    contract_backward(pass, i);
    expand_backward(pass, i);
    normalize_middle_backward(pass, i);
    attention_branch_backward(pass, i);
    normalize_input_backward(pass, i);
    pass.parameters.release(pass.block_unit(i));
    if (!pass.side.is_used()) reduce_block(pass, i);
  }
  if (pass.side.is_used()) reduce_block(pass, 0);
  embed_backward(pass);
}

}  // namespace model
