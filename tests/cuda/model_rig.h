// A tiny model with its optimiser on one rank of any backend, and text that it can learn.
#pragma once

#include <random>

#include "cuda/device_under_test.h"
#include "model/fixture.h"
#include "optim/optimizer.h"

namespace cuda_test {

using model_test::Batch;
using shard::Parameters;

inline model::ModelConfig tiny_config() {
  return {.vocabulary = 72,
          .width = 64,
          .layers = 3,
          .heads = 4,
          .kv_heads = 2,
          .head_size = 16,
          .feed_forward = 96,
          .sequence_length = 32,
          .rope_base = 1000,
          .z_loss_weight = 1e-3};
}

struct Setup {
  model::TransformerOptions options = {.rows = 2, .head_chunk_tokens = 24};
  Parameters::Memory memory = Parameters::Memory::kStandard;
  shard::Sharding sharding = shard::Sharding::kFull;
  optim::MomentPlace place = optim::MomentPlace::kDevice;
};

// Parameters, transformer and optimiser on one backend.
class Rig {
 public:
  explicit Rig(backend::Backend chosen, const Setup& setup = {})
      : backend_(std::move(chosen)),
        parameters_(layout_, backend_, {.memory = setup.memory, .sharding = setup.sharding}),
        transformer_(config_, setup.options, parameters_, backend_),
        optimizer_({.learning_rate = 3e-3,
                    .gradient_norm_max = 1,
                    .schedule = {.kind = "constant", .warmup_steps = 4}},
                   parameters_, backend_, setup.place) {
    parameters_.initialize(5);
  }

  model::LossSums forward_backward(const Batch& batch) {
    transformer_.forward_backward(batch.view(), 1.0f / float(batch.counted()));
    return transformer_.take_losses();
  }
  // A micro-batch of a step in which `counted` targets count over all micro-batches and ranks.
  void accumulate(const Batch& batch, int64_t counted, bool is_last) {
    parameters_.expect_more_micro_batches(!is_last);
    transformer_.forward_backward(batch.view(), 1.0f / float(counted));
  }
  model::LossSums evaluate(const Batch& batch) { return transformer_.evaluate(batch.view()); }
  // Mean loss before the update.
  double train(int64_t step, const Batch& batch) {
    optimizer_.begin_step(step);
    const double loss = forward_backward(batch).loss / double(batch.counted());
    optimizer_.end_step();
    REQUIRE_FALSE(optimizer_.take_report().skipped);
    return loss;
  }

  void begin_step(int64_t step) { optimizer_.begin_step(step); }
  struct StepEnd {
    model::LossSums losses;  // Of this rank.
    optim::Optimizer::StepReport report;
  };
  StepEnd end_step() {
    optimizer_.end_step();
    return {transformer_.take_losses(), optimizer_.take_report()};
  }

  backend::Backend& backend() { return backend_; }
  // Of one tensor: "blocks.1.qkv" and so on.
  model_test::Values gradients() const {
    return read([&](int64_t unit, std::span<float> out) {
      parameters_.copy_shard_to_host(parameters_.gradient_shard(unit), unit, 0, out);
    });
  }
  // Writes what this rank has into `all`.
  void copy_masters(model_test::Values& all) const {
    for (size_t u = 0; u < layout_.units.size(); ++u) {
      for (const shard::TensorSpec& tensor : layout_.units[u].tensors)
        parameters_.copy_masters_to_host(int64_t(u), tensor.offset, all.at(tensor.name));
    }
  }
  // All of them the same number.
  void fill_masters(float value) {
    for (size_t u = 0; u < layout_.units.size(); ++u) {
      const std::vector<float> all(size_t(layout_.units[u].element_count), value);
      parameters_.copy_masters_from_host(int64_t(u), 0, all);
    }
    parameters_.masters_changed();
  }
  model_test::Values masters() const {
    return read([&](int64_t unit, std::span<float> out) {
      parameters_.copy_masters_to_host(unit, 0, out);
    });
  }

 private:
  model_test::Values read(const auto& copy) const {
    model_test::Values values;
    for (size_t u = 0; u < layout_.units.size(); ++u) {
      const shard::Unit& unit = layout_.units[u];
      std::vector<float> all(size_t(unit.element_count));
      copy(int64_t(u), all);
      for (const shard::TensorSpec& tensor : unit.tensors) {
        const auto begin = all.begin() + tensor.offset;
        values[tensor.name].assign(begin, begin + tensor.shape.element_count());
      }
    }
    return values;
  }

  const model::ModelConfig config_ = tiny_config();
  const shard::Layout layout_ = model::make_layout(config_);
  backend::Backend backend_;
  Parameters parameters_;
  model::Transformer transformer_;
  optim::Optimizer optimizer_;
};

// Rows of a periodic text, which can be learned, cut at random places.
inline Batch periodic_batch(uint64_t seed, int rows = 2) {
  const model::ModelConfig config = tiny_config();
  std::mt19937_64 random(seed);
  Batch batch;
  for (int row = 0; row < rows; ++row) {
    const auto shift = int32_t(random() % 24);
    for (int32_t t = 0; t < config.sequence_length; ++t) {
      const auto token_at = [&](int32_t position) { return 3 * (position % 24); };
      batch.tokens.push_back(token_at(shift + t));
      batch.targets.push_back(token_at(shift + t + 1));
      batch.document_starts.push_back(t >= 20 ? 20 : 0);
    }
  }
  return batch;
}

// The length of the difference as a part of b's.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0, length = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    squares += std::pow(double(a[i]) - double(b[i]), 2);
    length += std::pow(double(b[i]), 2);
  }
  return std::sqrt(squares / length);
}

}  // namespace cuda_test
