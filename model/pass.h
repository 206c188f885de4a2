// The stages of one pass over a micro-batch, in the order in which the mathematics has them.
// Internal to model/.
//
//   x = embedding[tokens]
//   per block:  x += out attention(rope(qkv norm1(x)))       the attention branch
//               x += down (silu(gate norm2(x)) * up norm2(x))  the feed-forward branch
//   loss = cross_entropy(head norm(x)) + z-loss
//
// The one idea to know: a branch's output is not added to the residual stream by itself. It lies in
// `branch` until the next norm, which adds it in the same pass over memory. Backward, the gradient
// of the residual stream lies in `residual_gradient` (inside a block, `middle_gradient`), and every
// norm's backward adds its part there.
#pragma once

#include "model/activations.h"
#include "model/side_stream.h"

namespace model {

using GradientTarget = shard::Parameters::GradientTarget;

// The documents of a micro-batch: how many, and the positions of the longest.
struct Documents {
  int64_t count = 0, longest = 0;
};
// Of rows of `sequence_length` positions each, from HostBatch::document_starts.
Documents documents_of(std::span<const int32_t> document_starts, int64_t sequence_length);

// Of decoding: what is kept of running sequences, and where the batch's rows stand in them.
struct PassCache {
  std::vector<backend::Tensor> keys, values;  // Of each block; see backend::KeyValueCache.
  backend::Tensor sequences, positions;       // (N)

  backend::KeyValueCache of_block(int64_t i) const {
    return {keys[size_t(i)], values[size_t(i)], sequences, positions};
  }
};

struct Pass {
  const ModelConfig& config;
  const TransformerOptions& options;
  shard::Parameters& parameters;
  backend::Ops& ops;
  backend::Stream& stream;
  SideStream& side;
  const Activations& activations;
  Documents documents;               // In the micro-batch in work.
  const PassCache* cache = nullptr;  // Decoding: rows continue sequences instead of being whole.

  int64_t embedding_unit() const { return 0; }
  int64_t block_unit(int64_t i) const { return 1 + i; }
  int64_t head_unit() const { return 1 + config.layers; }
  int64_t token_count() const { return options.rows * config.sequence_length; }
  const BlockActivations& block(int64_t i) const { return activations.blocks[size_t(i)]; }
};

// The gate and the up projection as one matrix (2F, C): they lie next to each other.
backend::Tensor gate_up_weight(const Pass& pass, int64_t i);
GradientTarget gate_up_gradient(const Pass& pass, int64_t i);

// forward.cpp: tokens to output_norm. Gathers and releases every unit but the head.
void forward_blocks(const Pass& pass);
// Once more, for the backward, which makes the SwiGLU again itself. REQUIRES: the block's unit is
// gathered.
void recompute_block(const Pass& pass, int64_t i);    // From its input up to gate_up.
void recompute_gate_up(const Pass& pass, int64_t i);  // From `middle`: norm2 and gate_up.

// loss.cpp. REQUIRES for all: the head's unit is gathered.
void normalize_output(const Pass& pass);
// Fills loss and z_loss of the micro-batch.
void evaluate_loss(const Pass& pass);
// The same; also the head's gradients and residual_gradient, times gradient_scale.
void differentiate_loss(const Pass& pass, float gradient_scale);
// logits = output_norm head' of the tokens [begin, begin + count) of the batch, which it returns.
backend::Tensor compute_logits(const Pass& pass, int64_t begin, int64_t count);
// next_logits of the token at `position` of the micro-batch.
void compute_next_logits(const Pass& pass, int64_t position);

// For y = x W':  dW = dy' x, written or added.
void differentiate_weight(const Pass& pass, backend::Stream& stream, const GradientTarget& target,
                          const backend::Tensor& out_gradient, const backend::Tensor& in);
// backward.cpp: residual_gradient after the last block to all gradients of blocks and embedding,
// which it reduces. The compute stream has waited for the side stream at its end.
void backward_blocks(const Pass& pass);

}  // namespace model
