// Decoding on CUDA: prompts and single tokens of several sequences, against the device's own whole
// rows. Both round to bf16, at other places, so that logits are off by some 2^-8 of their length.
#include "model/decoder.h"

#include <array>

#include "cuda/model_rig.h"
#include "ops/rig.h"

using cuda_test::distance;
using cuda_test::tiny_config;

namespace {

// A model on the device, decoder and whole rows side by side.
struct DecodingRig {
  explicit DecodingRig(backend::Backend chosen)
      : backend(std::move(chosen)),
        parameters(layout, backend),
        transformer(config, {.rows = 1}, parameters, backend),
        decoder(config, {.sequences = 3, .batch_rows = 8}, parameters, backend) {
    parameters.initialize(5);
  }

  // Appends to sequences 0, 1, ... and compares what follows the last token of each.
  void append(std::vector<std::vector<int32_t>> growth) {
    std::vector<model::Decoder::Piece> pieces;
    for (size_t i = 0; i < growth.size(); ++i) {
      texts[i].insert(texts[i].end(), growth[i].begin(), growth[i].end());
      pieces.push_back({.sequence = int64_t(i), .tokens = growth[i]});
    }
    std::vector<std::vector<float>> found;
    decoder.append(pieces, [&](int64_t, int64_t, std::span<const float> logits) {
      found.emplace_back(logits.begin(), logits.end());
    });
    REQUIRE(found.size() == growth.size());
    for (size_t i = 0; i < found.size(); ++i) {
      std::vector<float> expected(found[i].size());
      transformer.next_logits(texts[i], expected);
      INFO("sequence " << i << " of " << texts[i].size());
      REQUIRE(distance(found[i], expected) < 0.02);
    }
  }

  const model::ModelConfig config = tiny_config();
  const shard::Layout layout = model::make_layout(config);
  backend::Backend backend;
  shard::Parameters parameters;
  model::Transformer transformer;
  model::Decoder decoder;
  std::array<std::vector<int32_t>, 3> texts;
};

std::vector<int32_t> some_tokens(int64_t count, uint64_t seed) {
  return ops_test::random_integers(count, seed, int32_t(tiny_config().vocabulary));
}

}  // namespace

TEST_CASE("cuda model: decoding says what whole rows say", "[model]") {
  DecodingRig rig(cuda_test::make_device_under_test());
  rig.append({some_tokens(11, 1), some_tokens(1, 2), some_tokens(5, 3)});
  for (uint64_t step = 0; step < 3; ++step)
    rig.append({some_tokens(1, 10 + step), some_tokens(1, 20 + step), some_tokens(1, 30 + step)});
  rig.append({some_tokens(tiny_config().sequence_length - 14, 4)});
}
