#include "train/bench_decode.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "model/decoder.h"
#include "train/decoding_engine.h"
#include "train/sampling.h"
#include "train/timing.h"

namespace train {
namespace {

using Clock = std::chrono::steady_clock;

// Appends to every sequence, and chooses what comes next in each.
void grow(model::Decoder& decoder, const std::vector<std::vector<int32_t>>& growth,
          std::vector<std::vector<int32_t>>& next) {
  std::vector<model::Decoder::Piece> pieces;
  for (size_t i = 0; i < growth.size(); ++i)
    pieces.push_back({.sequence = int64_t(i), .tokens = growth[i]});
  base::Random random(0);
  decoder.append(pieces, [&](int64_t sequence, int64_t, std::span<const float> logits) {
    next[size_t(sequence)] = {choose_token(logits, {.temperature = 0}, random)};
  });
}

std::vector<std::vector<int32_t>> random_prompts(const model::ModelConfig& model,
                                                 const DecodeBenchOptions& options) {
  base::Random random(1);
  std::vector<std::vector<int32_t>> prompts(size_t(options.sequences));
  for (auto& prompt : prompts) {
    for (int64_t i = 0; i < options.prompt_tokens; ++i)
      prompt.push_back(int32_t(random.below(uint64_t(model.vocabulary))));
  }
  return prompts;
}

}  // namespace

DecodeBenchReport bench_decode(const RunConfig& config, const DecodeBenchOptions& options) {
  const int64_t context = options.prompt_tokens + options.tokens;
  if (context > config.model.sequence_length) {
    throw base::bad_input(
        fmt::format("{} tokens of prompt and {} more do not fit the model's rows "
                    "of {}",
                    options.prompt_tokens, options.tokens, config.model.sequence_length),
        "use a shorter --prompt-tokens or --tokens, or --set "
        "model.sequence_length=N");
  }
  backend::Backend backend = make_one_backend(config.node.device, config.node.threads);
  const shard::Layout layout = model::make_layout(config.model);
  shard::Parameters parameters(layout, backend);
  parameters.initialize(uint64_t(config.seed));
  const model::DecoderOptions decoder_options{
      .sequences = options.sequences, .context = context, .batch_rows = options.batch_rows};
  model::Decoder decoder(config.model, decoder_options, parameters, backend);

  const auto prompts = random_prompts(config.model, options);
  auto next = prompts;
  grow(decoder, prompts, next);  // Once for nothing: memory is touched for the first time.
  for (int64_t i = 0; i < options.sequences; ++i) decoder.truncate(i, 0);

  const Clock::time_point begin = Clock::now();
  grow(decoder, prompts, next);
  const double prompt_seconds = seconds_since(begin);
  std::vector<double> steps;
  for (int64_t i = 0; i < options.tokens; ++i) {
    const Clock::time_point step = Clock::now();
    auto growth = next;
    grow(decoder, growth, next);
    steps.push_back(seconds_since(step));
  }
  double total = 0;
  for (const double step : steps) total += step;
  std::ranges::nth_element(steps, steps.begin() + int64_t(steps.size() / 2));
  const auto sequences = double(options.sequences);
  return {.device = backend.device->name(),
          .model = config.name,
          .parameters = model::parameter_count(config.model),
          .prompt_tokens_per_second = sequences * double(options.prompt_tokens) / prompt_seconds,
          .tokens_per_second = sequences * double(options.tokens) / total,
          .token_seconds = steps[steps.size() / 2],
          .cache_bytes = model::planned_cache_bytes(config.model, decoder_options,
                                                    backend.device->compute_dtype())};
}

}  // namespace train
