// The head. With a vocabulary of 128256 the logits of all tokens would be the largest tensor by
// far, so they exist for a chunk of tokens at a time: logits, their gradient in the same place, and
// its share of dX and dW, then the next chunk.
#include <algorithm>

#include "model/pass.h"

namespace model {

using backend::Tensor;

namespace {

struct Chunk {
  int64_t begin = 0;  // Tokens of the micro-batch.
  int64_t count = 0;

  Tensor rows(const Tensor& matrix) const {
    const int64_t width = matrix.shape[1];
    return matrix.slice(begin * width, {count, width});
  }
  Tensor entries(const Tensor& vector) const { return vector.slice(begin, {count}); }
};

Chunk chunk_at(const Pass& pass, int64_t begin) {
  return {begin, std::min(pass.options.head_chunk_tokens, pass.token_count() - begin)};
}

Tensor head_weight(const Pass& pass) {
  return pass.parameters.weight(pass.head_unit(), "head");
}

// logits = output_norm head', and their losses. Returns the logits, or if `compute_gradient` their
// gradient.
Tensor chunk_loss(const Pass& pass, const Chunk& chunk, bool compute_gradient,
                  float gradient_scale) {
  const Activations& a = pass.activations;
  const Tensor logits = compute_logits(pass, chunk.begin, chunk.count);
  pass.ops.cross_entropy({.loss = chunk.entries(a.loss),
                          .z_loss = chunk.entries(a.z_loss),
                          .logits = logits,
                          .targets = chunk.entries(a.targets),
                          .z_weight = float(pass.config.z_loss_weight),
                          .gradient_scale = gradient_scale,
                          .compute_gradient = compute_gradient},
                         pass.stream);
  return logits;
}

void chunk_backward(const Pass& pass, const Chunk& chunk, const Tensor& logits_gradient) {
  const Activations& a = pass.activations;
  pass.ops.matmul(
      {.out = chunk.rows(a.norm_gradient), .a = logits_gradient, .b = head_weight(pass)},
      pass.stream);
  // Not on the side stream: the next chunk's logits take the place of what it reads.
  differentiate_weight(pass, pass.stream, pass.parameters.gradient_target(pass.head_unit(), "head"),
                       logits_gradient, chunk.rows(a.output_norm));
}

}  // namespace

Tensor compute_logits(const Pass& pass, int64_t begin, int64_t count) {
  const Activations& a = pass.activations;
  const Tensor logits = a.logits.slice(0, {count, pass.config.vocabulary});
  const Chunk chunk{begin, count};
  pass.ops.matmul(
      {.out = logits, .a = chunk.rows(a.output_norm), .b = head_weight(pass), .transpose_b = true},
      pass.stream);
  return logits;
}

void normalize_output(const Pass& pass) {
  const Activations& a = pass.activations;
  pass.ops.rmsnorm_forward({.out = a.output_norm,
                            .residual_out = a.output,
                            .rstd = a.output_rstd,
                            .in = pass.block(pass.config.layers - 1).middle,
                            .delta = a.branch,
                            .weight = pass.parameters.weight(pass.head_unit(), "norm"),
                            .epsilon = float(pass.config.norm_epsilon)},
                           pass.stream);
}

void evaluate_loss(const Pass& pass) {
  for (int64_t begin = 0; begin < pass.token_count(); begin += pass.options.head_chunk_tokens) {
    chunk_loss(pass, chunk_at(pass, begin), /*compute_gradient=*/false, /*gradient_scale=*/0);
  }
}

void differentiate_loss(const Pass& pass, float gradient_scale) {
  const Activations& a = pass.activations;
  for (int64_t begin = 0; begin < pass.token_count(); begin += pass.options.head_chunk_tokens) {
    const Chunk chunk = chunk_at(pass, begin);
    const Tensor logits_gradient =
        chunk_loss(pass, chunk, /*compute_gradient=*/true, gradient_scale);
    chunk_backward(pass, chunk, logits_gradient);
  }
  pass.ops.rmsnorm_backward({.in_gradient = a.residual_gradient,
                             .weight_gradient = pass.parameters.gradient(pass.head_unit(), "norm"),
                             .out_gradient = a.norm_gradient,
                             .in = a.output,
                             .weight = pass.parameters.weight(pass.head_unit(), "norm"),
                             .rstd = a.output_rstd},
                            pass.stream);
}

void compute_next_logits(const Pass& pass, int64_t position) {
  const Tensor logits = compute_logits(pass, position, 1);
  pass.ops.cast(
      {.out = pass.activations.next_logits, .in = logits.reshape({pass.config.vocabulary})},
      pass.stream);
}

}  // namespace model
