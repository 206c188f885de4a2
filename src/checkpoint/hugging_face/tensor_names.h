// Which tensor of transformers' LlamaForCausalLM is which part of which of ours.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"

namespace checkpoint {

struct HuggingFaceTensor {
  std::string name;  // "model.layers.3.self_attn.q_proj.weight"
  backend::Shape shape;
  std::string native;  // "blocks.3.qkv"
  int64_t first = 0;   // Where its elements begin in that one.
};

inline constexpr const char* kEmbeddingName = "model.embed_tokens.weight";
inline constexpr const char* kHeadName = "lm_head.weight";

// In the order in which they are written; parts of one native tensor follow each other. The last
// one is the head.
std::vector<HuggingFaceTensor> hugging_face_tensors(const model::ModelConfig& config);

}  // namespace checkpoint
