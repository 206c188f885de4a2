// A small model on one rank of the CPU backend, batches for it, and comparisons of its gradients.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "model/transformer.h"
#include "support/catch.h"

namespace model_test {

// Everything differs from everything else, so that no two widths can be mixed up unseen.
inline model::ModelConfig small_config() {
  return {.vocabulary = 37,
          .width = 24,
          .layers = 3,
          .heads = 4,
          .kv_heads = 2,
          .head_size = 10,
          .feed_forward = 28,
          .sequence_length = 16,
          .rope_base = 1000,
          .z_loss_weight = 1e-3};
}

// A batch that owns its memory.
struct Batch {
  std::vector<int32_t> tokens, targets, document_starts;

  model::HostBatch view() const { return {tokens, targets, document_starts}; }
  int64_t counted() const {
    return int64_t(targets.size()) - std::count(targets.begin(), targets.end(), -1);
  }
  // Rows [first, first + count) as a batch of their own.
  Batch rows(int64_t first, int64_t count, int64_t sequence_length) const {
    const auto cut = [&](const std::vector<int32_t>& all) {
      return std::vector<int32_t>(all.begin() + first * sequence_length,
                                  all.begin() + (first + count) * sequence_length);
    };
    return {cut(tokens), cut(targets), cut(document_starts)};
  }
};

// Random tokens; a tenth of the targets is not counted, and each row has a second document from
// some place on.
inline Batch random_batch(const model::ModelConfig& config, int64_t rows, uint64_t seed) {
  std::mt19937_64 generator(seed);
  const auto below = [&](int64_t bound) { return int32_t(generator() % uint64_t(bound)); };
  Batch batch;
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t second_document = below(config.sequence_length);
    for (int32_t t = 0; t < config.sequence_length; ++t) {
      batch.tokens.push_back(below(config.vocabulary));
      batch.targets.push_back(below(10) == 0 ? -1 : below(config.vocabulary));
      batch.document_starts.push_back(t >= second_document ? second_document : 0);
    }
  }
  return batch;
}

inline std::unique_ptr<backend::Backend> make_backend(int threads = 1) {
  return std::make_unique<backend::Backend>(
      std::move(backend::make_cpu_backends({.threads_per_rank = threads}).front()));
}

using Values = std::map<std::string, std::vector<float>>;  // By the tensor's full name.

// One rank's parameters and transformer.
class Rig {
 public:
  Rig(const model::ModelConfig& model_config, const model::TransformerOptions& options,
      uint64_t seed = 11)
      : config(model_config),
        layout(model::make_layout(config)),
        backend(make_backend()),
        parameters(layout, *backend) {
    parameters.initialize(seed);
    transformer.emplace(config, options, parameters, *backend);
  }

  void set_weights(const Values& weights) {
    for_tensors([&](int64_t unit, const shard::TensorSpec& spec) {
      parameters.copy_masters_from_host(unit, spec.offset, weights.at(spec.name));
    });
  }
  Values weights() {
    return read([&](int64_t unit) { return parameters.master_shard(unit); });
  }
  Values gradients() {
    return read([&](int64_t unit) { return parameters.gradient_shard(unit); });
  }

  const model::ModelConfig config;
  const shard::Layout layout;
  std::unique_ptr<backend::Backend> backend;
  shard::Parameters parameters;
  std::optional<model::Transformer> transformer;

 private:
  template <class Body>
  void for_tensors(const Body& body) const {
    for (size_t unit = 0; unit < layout.units.size(); ++unit) {
      for (const shard::TensorSpec& spec : layout.units[unit].tensors) body(int64_t(unit), spec);
    }
  }
  template <class Shard>
  Values read(const Shard& shard) {
    Values values;
    for_tensors([&](int64_t unit, const shard::TensorSpec& spec) {
      std::vector<float>& target = values[spec.name];
      target.resize(size_t(spec.shape.element_count()));
      parameters.copy_shard_to_host(shard(unit), unit, spec.offset, target);
    });
    return values;
  }
};

// Of two tensors: the norm of the difference, and its largest element, over those of `expected`.
struct Distance {
  double norm = 0;
  double maximum = 0;
};

template <class Actual, class Expected>
Distance relative_distance(const Actual& actual, const Expected& expected) {
  REQUIRE(actual.size() == expected.size());
  double square = 0, difference_square = 0, largest = 0, largest_difference = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double value = double(expected[i]), difference = double(actual[i]) - value;
    REQUIRE(std::isfinite(difference));
    square += value * value;
    difference_square += difference * difference;
    largest = std::max(largest, std::abs(value));
    largest_difference = std::max(largest_difference, std::abs(difference));
  }
  REQUIRE(square > 0);  // A tensor of zeros would agree with anything that is left out.
  return {std::sqrt(difference_square / square), largest_difference / largest};
}

inline void require_close(const Values& actual, const Values& expected, double tolerance) {
  REQUIRE(actual.size() == expected.size());
  for (const auto& [name, values] : expected) {
    INFO(name);
    const Distance distance = relative_distance(actual.at(name), values);
    REQUIRE(distance.norm < tolerance);
    REQUIRE(distance.maximum < tolerance);
  }
}

}  // namespace model_test
