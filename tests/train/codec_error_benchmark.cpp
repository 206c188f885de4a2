// What each codec loses of real pseudo-gradients: a run of a few nodes is trained in one process,
// and before some of its rounds what its nodes would send is encoded by each codec and compared.
// One JSON line per round and codec: the relative root mean square error over all parameters of all
// nodes. ATOLL_CORPUS is the prefix of the token dataset: test_train "[codec-errors]".
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "outer/codec.h"
#include "support/catch.h"
#include "train/outer_rig.h"

namespace {

using train_test::OuterNode;

constexpr int64_t kNodes = 2, kInnerSteps = 20, kRounds = 6;

struct Kind {
  const char* codec;
  double sigmas;  // Of int8-codebook.
};
constexpr Kind kKinds[] = {{"int8", 0},           {"int8-codebook", 3}, {"int8-codebook", 6},
                           {"int8-codebook", 12}, {"int4", 0},          {"lut2", 0}};

// Chunks as a round would cut them.
double squared_error(const outer::Codec& codec, std::span<const float> values) {
  double error = 0;
  const int64_t chunk = outer::chunk_elements(int64_t(values.size()));
  for (int64_t first = 0; first < int64_t(values.size()); first += chunk) {
    const auto count = std::min(chunk, int64_t(values.size()) - first);
    const auto part = values.subspan(size_t(first), size_t(count));
    std::vector<std::byte> encoded(size_t(codec.encoded_bytes(count)));
    REQUIRE(codec.encode(part, encoded).ok());
    std::vector<float> decoded(part.size());
    codec.decode(encoded, decoded);
    for (size_t i = 0; i < part.size(); ++i)
      error += std::pow(double(decoded[i]) - double(part[i]), 2);
  }
  return error;
}

// Outer minus own parameters, of the one fragment.
std::vector<float> pseudo_gradient(OuterNode& node) {
  std::vector<float> values = node.rig.parameters();
  const auto outer = node.state->outer_parameters(0);
  REQUIRE(outer.size() == values.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = outer[i] - values[i];
  return values;
}

void print_errors(int64_t round, const std::vector<std::vector<float>>& gradients) {
  double squares = 0;
  for (const auto& gradient : gradients) squares += outer::sum_of_squares(gradient);
  for (const Kind& kind : kKinds) {
    const auto codec = outer::make_codec(kind.codec, kind.sigmas);
    double error = 0;
    for (const auto& gradient : gradients) error += squared_error(*codec, gradient);
    const int64_t million = 1 << 20;
    std::printf(
        "{\"round\":%d,\"codec\":\"%s\",\"sigmas\":%.0f,\"bits_per_element\":%.3f,"
        "\"relative_rms_error\":%.5f}\n",
        int(round), kind.codec, kind.sigmas,
        8 * double(codec->encoded_bytes(million)) / double(million), std::sqrt(error / squares));
  }
  std::fflush(stdout);
}

}  // namespace

TEST_CASE("what codecs lose of pseudo-gradients", "[.benchmark][codec-errors]") {
  const char* const corpus = std::getenv("ATOLL_CORPUS");
  REQUIRE(corpus != nullptr);
  const auto storage = base::make_disk_storage();
  const auto dataset = data::TokenDataset::open(*storage, corpus);
  const data::Sampler sampler({dataset.get()}, {.seed = 42,
                                                .sequence_length = train_test::kSmallSequence,
                                                .validation_fraction = 0.01,
                                                .weights = {},
                                                .vocabulary = train_test::kSmallVocabulary});
  train::RunConfig config = train_test::small_run(kRounds * kInnerSteps);
  config.outer.inner_steps = kInnerSteps;
  std::vector<std::unique_ptr<OuterNode>> nodes;
  for (int64_t part = 0; part < kNodes; ++part)
    nodes.push_back(std::make_unique<OuterNode>(config, sampler, part));
  for (int64_t round = 1; round <= kRounds; ++round) {
    for (auto& node : nodes) {
      for (int64_t step = 1; step <= kInnerSteps; ++step)
        node->step((round - 1) * kInnerSteps + step);
    }
    if (round % 2 == 0) {
      std::vector<std::vector<float>> gradients;
      for (auto& node : nodes) gradients.push_back(pseudo_gradient(*node));
      print_errors(round, gradients);
    }
    const net::Committed commit = train_test::make_round(nodes, 0, round * kInnerSteps);
    for (auto& node : nodes) {
      node->state->step(commit);
      node->state->merge(0, outer::Merge::kReplace);
      node->masters_changed();
    }
  }
}
