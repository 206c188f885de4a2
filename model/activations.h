// The device buffers of a Transformer: what the forward pass keeps for the backward, and scratch.
// Two tables in activations.cpp list them with their shapes; both the allocation and the plan of
// its size walk those tables.
#pragma once

#include <memory>
#include <vector>

#include "model/config.h"
#include "model/transformer.h"

namespace model {

// What block i computes on its way forward. A tensor that the recompute policy does not keep is one
// buffer that all blocks share.
struct BlockActivations {
  backend::Tensor input;      // (N, C) the residual stream as it enters the block.
  backend::Tensor rstd1;      // (N)
  backend::Tensor norm1;      // (N, C)
  backend::Tensor qkv;        // (N, (H+2K)*D) after the rotation.
  backend::Tensor attention;  // (N, H*D)
  backend::Tensor lse;        // (B, H, T)
  backend::Tensor middle;     // (N, C) the residual stream between attention and feed-forward.
  backend::Tensor rstd2;      // (N)
  backend::Tensor norm2;      // (N, C)
  backend::Tensor gate_up;    // (N, 2F) the backward overwrites it with its gradient.
  backend::Tensor swiglu;     // (N, F)
};

struct Activations {
  backend::Tensor tokens, targets, document_starts;  // (N) of the micro-batch in work.
  backend::Tensor rope_table;                        // (T, D) fp32

  std::vector<BlockActivations> blocks;
  backend::Tensor branch;  // (N, C) output of attention or feed-forward before it is added to the
                           // residual stream.

  backend::Tensor output, output_rstd,
      output_norm;                       // The residual stream after the last block, and its norm.
  backend::Tensor logits;                // (head_chunk_tokens, V)
  backend::Tensor loss, z_loss;          // (N) of the micro-batch in work.
  backend::Tensor loss_sum, z_loss_sum;  // (N) over micro-batches, token by token.
  backend::Tensor loss_totals;           // (2) of loss and z-loss, over all tokens.
  backend::Tensor next_logits;           // (V) fp32

  backend::Tensor residual_gradient;  // (N, C) where blocks begin and end.
  backend::Tensor middle_gradient;    // (N, C) of a block's `middle`. The same memory, but where
                                      // products on the side stream still read the former.
  backend::Tensor
      norm_gradient;  // (N, C) of a norm's output. The same memory as branch, idle by then.
  backend::Tensor qkv_gradient;        // (N, (H+2K)*D)
  backend::Tensor attention_gradient;  // (N, H*D)
  backend::Tensor swiglu_gradient;     // (N, F)

  std::vector<std::unique_ptr<backend::Buffer>> storage;
};

// What there is to be room for. Decoding keeps nothing for a backward: one set of tensors for all
// blocks, no losses and no gradients; its rope_table is the decoder's.
enum class Purpose { kTraining, kDecoding };

Activations allocate_activations(const ModelConfig& config, const TransformerOptions& options,
                                 backend::Device& device, Purpose purpose = Purpose::kTraining);
// Of decoding: the same memory, seen as a batch of `rows` rows. `all` outlives it.
Activations first_rows(const Activations& all, int64_t rows);

// Row t: cos(t * rope_frequency(j)) for j < D/2, then the sines. (T, D)
std::vector<float> make_rope_table(const ModelConfig& config);

}  // namespace model
