#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace model {

using backend::Shape;
using shard::Initializer;
using shard::Unit;

namespace {

void describe_scaling(base::ConfigVisitor& v, RopeScaling& c) {
  v.choice("kind", c.kind, {{"none", "linear", "llama3"}},
           "linear: all wave lengths times factor; llama3: only the long ones.");
  v.number("factor", c.factor, {1, 1e6}, "How much longer waves become.");
  v.number(
      "low_frequency_factor", c.low_frequency_factor, {1e-3, 1e6},
      "Only llama3: waves longer than original_sequence_length over it are stretched in full.");
  v.number("high_frequency_factor", c.high_frequency_factor, {1e-3, 1e6},
           "Only llama3: waves shorter than original_sequence_length over it stay.");
  v.integer("original_sequence_length", c.original_sequence_length, {1, 1 << 24},
            "Only llama3: tokens of the rows before.");
}

}  // namespace

void describe(base::ConfigVisitor& v, ModelConfig& c, bool only_used) {
  v.integer("vocabulary", c.vocabulary, {1, 1 << 24},
            "Tokens that the embedding and the head know.");
  v.integer("width", c.width, {1, 1 << 20}, "Width of the residual stream.");
  v.integer("layers", c.layers, {1, 4096}, "Transformer blocks.");
  v.integer("heads", c.heads, {1, 4096}, "Query heads of a block.");
  v.integer("kv_heads", c.kv_heads, {1, 4096}, "Key/value heads of a block; divides heads.");
  v.integer("head_size", c.head_size, {2, 4096}, "Width of one head; even.");
  v.integer("feed_forward", c.feed_forward, {1, 1 << 22},
            "Width of the SwiGLU between gate, up and down.");
  v.integer("sequence_length", c.sequence_length, {1, 1 << 24}, "Tokens of a row.");
  v.number("rope_base", c.rope_base, {1, 1e12},
           "Base of the rotary position embedding's wave lengths.");
  if (!only_used || c.rope_scaling.is_used()) {
    v.section("rope_scaling", "Longer waves, for longer rows than a model was trained with before.",
              [&] { describe_scaling(v, c.rope_scaling); });
  }
  v.number("norm_epsilon", c.norm_epsilon, {1e-12, 1}, "Added to the mean square in RMSNorm.");
  v.number("z_loss_weight", c.z_loss_weight, {0, 1},
           "Weight of the squared largest logit in the loss; 0 switches it off.");
}

void validate(const ModelConfig& c) {
  if (c.heads % c.kv_heads != 0) {
    throw base::bad_input(
        fmt::format("model: kv_heads = {} does not divide heads = {}", c.kv_heads, c.heads),
        "Every key/value head serves the same number of query heads.");
  }
  if (c.head_size % 2 != 0) {
    throw base::bad_input(fmt::format("model: head_size = {} is odd", c.head_size),
                          "Rotary embedding turns pairs of channels.");
  }
  const RopeScaling& scaling = c.rope_scaling;
  if (scaling.kind == "llama3" && scaling.high_frequency_factor <= scaling.low_frequency_factor) {
    throw base::bad_input(
        fmt::format("model.rope_scaling: high_frequency_factor = {} is not above "
                    "low_frequency_factor = {}",
                    scaling.high_frequency_factor, scaling.low_frequency_factor));
  }
}

// As the rope types "linear" and "llama3" of transformers.
double rope_frequency(const ModelConfig& c, int64_t pair) {
  const double frequency = std::pow(c.rope_base, -2.0 * double(pair) / double(c.head_size));
  const RopeScaling& scaling = c.rope_scaling;
  if (!scaling.is_used()) return frequency;
  const double stretched = frequency / scaling.factor;
  if (scaling.kind == "linear") return stretched;
  const double wave_length = 2 * std::numbers::pi / frequency;
  const double waves = double(scaling.original_sequence_length) / wave_length;
  const double low = scaling.low_frequency_factor, high = scaling.high_frequency_factor;
  const double share = std::clamp((waves - low) / (high - low), 0.0, 1.0);
  return (1 - share) * stretched + share * frequency;
}

shard::Layout make_layout(const ModelConfig& c) {
  constexpr double kDeviation = 0.02;
  shard::Layout layout;

  Unit embedding{.name = "embedding"};
  shard::add_tensor(embedding, "embedding", {c.vocabulary, c.width}, {.standard_deviation = 1});
  layout.units.push_back(std::move(embedding));

  for (int64_t i = 0; i < c.layers; ++i) {
    // What writes into the residual stream, and the up projection, start smaller the deeper they
    // are.
    const Initializer plain{.standard_deviation = kDeviation};
    const Initializer by_depth{.standard_deviation = kDeviation / std::sqrt(2.0 * double(i + 1))};
    Unit block{.name = fmt::format("blocks.{}", i)};
    shard::add_tensor(block, "norm1", {c.width}, {});
    shard::add_tensor(block, "qkv", {c.qkv_width(), c.width}, plain);
    shard::add_tensor(block, "out", {c.width, c.query_width()}, by_depth);
    shard::add_tensor(block, "norm2", {c.width}, {});
    shard::add_tensor(block, "gate", {c.feed_forward, c.width}, plain);
    shard::add_tensor(block, "up", {c.feed_forward, c.width}, by_depth);
    shard::add_tensor(block, "down", {c.width, c.feed_forward}, by_depth);
    layout.units.push_back(std::move(block));
  }

  Unit head{.name = "head"};
  shard::add_tensor(head, "norm", {c.width}, {});
  shard::add_tensor(head, "head", {c.vocabulary, c.width},
                    {.standard_deviation = 1 / std::sqrt(double(c.width)), .cut = 3});
  layout.units.push_back(std::move(head));
  return layout;
}

int64_t parameter_count(const ModelConfig& c) {
  return make_layout(c).element_count();
}

int64_t parameter_count_without_embedding(const ModelConfig& c) {
  return parameter_count(c) - c.vocabulary * c.width;
}

double flops_per_token_palm(const ModelConfig& c) {
  return 6.0 * double(parameter_count_without_embedding(c)) +
         12.0 * double(c.layers * c.query_width() * c.sequence_length);
}

double flops_per_token_causal(const ModelConfig& c) {
  return 6.0 * double(parameter_count_without_embedding(c)) +
         6.0 * double(c.layers * c.query_width() * c.sequence_length);
}

}  // namespace model
