#include "checkpoint/hugging_face/tensor_names.h"

#include <fmt/format.h>

namespace checkpoint {
namespace {

void add_block(std::vector<HuggingFaceTensor>& tensors, const model::ModelConfig& c, int64_t i) {
  const std::string theirs = fmt::format("model.layers.{}.", i),
                    ours = fmt::format("blocks.{}.", i);
  const auto add = [&](const char* name, const backend::Shape& shape, const char* native,
                       int64_t first = 0) {
    tensors.push_back({.name = theirs + name + ".weight",
                       .shape = shape,
                       .native = ours + native,
                       .first = first});
  };
  const int64_t queries = c.query_width(), keys = c.kv_heads * c.head_size;
  add("input_layernorm", {c.width}, "norm1");
  // Rows of our qkv: queries, keys, values, head after head.
  add("self_attn.q_proj", {queries, c.width}, "qkv");
  add("self_attn.k_proj", {keys, c.width}, "qkv", queries * c.width);
  add("self_attn.v_proj", {keys, c.width}, "qkv", (queries + keys) * c.width);
  add("self_attn.o_proj", {c.width, queries}, "out");
  add("post_attention_layernorm", {c.width}, "norm2");
  add("mlp.gate_proj", {c.feed_forward, c.width}, "gate");
  add("mlp.up_proj", {c.feed_forward, c.width}, "up");
  add("mlp.down_proj", {c.width, c.feed_forward}, "down");
}

}  // namespace

std::vector<HuggingFaceTensor> hugging_face_tensors(const model::ModelConfig& c) {
  std::vector<HuggingFaceTensor> tensors = {
      {.name = kEmbeddingName, .shape = {c.vocabulary, c.width}, .native = "embedding.embedding"}};
  for (int64_t i = 0; i < c.layers; ++i) add_block(tensors, c, i);
  tensors.push_back({.name = "model.norm.weight", .shape = {c.width}, .native = "head.norm"});
  tensors.push_back({.name = kHeadName, .shape = {c.vocabulary, c.width}, .native = "head.head"});
  return tensors;
}

}  // namespace checkpoint
