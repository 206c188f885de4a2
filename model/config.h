// The shape of a Llama-3-family model, and what follows from it: parameters, FLOP per token.
//
// Shape letters, used in model/ and by the operations: B rows of the batch, T positions of a row, N
// = B*T tokens, C model width, L blocks, H query heads, K key/value heads, D head size, F
// feed-forward width, V vocabulary.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "shard/layout.h"

namespace model {

// How the rotary embedding's wave lengths are stretched, so that a model takes longer rows than it
// was first trained with; as Hugging Face's rope types of these names.
struct RopeScaling {
  std::string kind = "none";  // none | linear | llama3
  double factor = 8;
  // Of llama3: waves longer than original / low are stretched by factor, those shorter than
  // original / high not at all, those between by something between.
  double low_frequency_factor = 1;
  double high_frequency_factor = 4;
  int64_t original_sequence_length = 8192;

  bool is_used() const { return kind != "none"; }
  bool operator==(const RopeScaling&) const = default;
};

struct ModelConfig {
  int64_t vocabulary = 320;       // V
  int64_t width = 256;            // C
  int64_t layers = 4;             // L
  int64_t heads = 4;              // H
  int64_t kv_heads = 2;           // K, divides H
  int64_t head_size = 64;         // D, even
  int64_t feed_forward = 704;     // F
  int64_t sequence_length = 256;  // T
  double rope_base = 500'000;
  RopeScaling rope_scaling;
  double norm_epsilon = 1e-5;
  double z_loss_weight = 2e-4;  // w of w * max_logit^2; 0 switches it off.

  int64_t query_width() const { return heads * head_size; }                 // H*D
  int64_t qkv_width() const { return (heads + 2 * kv_heads) * head_size; }  // (H+2K)*D
};

// `only_used`: without what is as always and came later than the first runs: what nodes compare
// must not change under them.
void describe(base::ConfigVisitor& v, ModelConfig& config, bool only_used = false);
// Throws bad_input when fields do not fit each other (kv_heads does not divide heads, an odd head
// size, ...).
void validate(const ModelConfig& config);

// Units in order, with the local names of their tensors; weights are (outputs, inputs), as in
// Hugging Face. Initial values as INTELLECT-1 (PRIME's model.py), N(mean, deviation):
//
//   "embedding"  embedding (V, C)             N(0, 1)
//   "blocks.i"   norm1 (C), norm2 (C)         1
//                qkv ((H+2K)*D, C)            N(0, 0.02)
//                gate (F, C)                  N(0, 0.02)
//                up (F, C)                    N(0, 0.02 / sqrt(2*(i+1)))
//                out (C, H*D), down (C, F)    N(0, 0.02 / sqrt(2*(i+1)))
//   "head"       norm (C)                     1
//                head (V, C)                  N(0, C^-0.5) cut at 3 deviations
//
// In memory a block is norm1, qkv, out, norm2, gate, up, down: gate and up lie next to each other
// and are used as one matrix (2F, C).
shard::Layout make_layout(const ModelConfig& config);

// The angle, in radians, by which one position turns pair j of a head's channels, 0 <= j < D / 2.
double rope_frequency(const ModelConfig& config, int64_t pair);

int64_t parameter_count(const ModelConfig& config);
int64_t parameter_count_without_embedding(const ModelConfig& config);
// Forward and backward. PaLM convention: 6*N + 12*L*H*D*T (Chowdhery et al. 2022, appendix B), N
// without the embedding. Causal: the attention term halved, as half the scores are masked.
double flops_per_token_palm(const ModelConfig& config);
double flops_per_token_causal(const ModelConfig& config);

}  // namespace model
