#include "train/engine.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/math.h"

namespace train {

backend::Backend choose_backend(const std::string& device, int64_t threads) {
  const bool use_cuda = device == "cuda" || (device == "auto" && backend::count_cuda_devices() > 0);
  auto backends = use_cuda
                      ? backend::make_cuda_backends({.ranks = 1})
                      : backend::make_cpu_backends({.ranks = 1, .threads_per_rank = int(threads)});
  return std::move(backends.front());
}

Engine::Engine(backend::Backend chosen, const model::ModelConfig& model,
               const model::TransformerOptions& options)
    : config(model),
      backend(std::move(chosen)),
      layout(model::make_layout(config)),
      parameters(layout, backend),
      transformer(config, options, parameters, backend) {}

Validation validate(Engine& engine, const data::Sampler& sampler, int64_t micro_batch_rows,
                    int64_t rows) {
  const int64_t length = engine.config.sequence_length;
  const int64_t all_rows = sampler.validation_row_count();
  const int64_t row_count = std::min(rows, all_rows);
  std::vector<int32_t> tokens(size_t(micro_batch_rows * length));
  std::vector<int32_t> targets(tokens.size());
  std::vector<int32_t> starts(tokens.size());
  model::LossSums total;
  for (int64_t first = 0; first < row_count; first += micro_batch_rows) {
    for (int64_t i = 0; i < micro_batch_rows; ++i) {
      const auto at = [&](std::vector<int32_t>& all) {
        return std::span(all).subspan(size_t(i * length), size_t(length));
      };
      // Spread over all that is held out: neighbouring rows are of one document.
      const int64_t row = std::min(first + i, row_count - 1) * all_rows / row_count;
      sampler.validation_row(row, {at(tokens), at(targets), at(starts)});
      // A batch that is not full is filled up with rows that do not count.
      if (first + i >= row_count) std::ranges::fill(at(targets), -1);
    }
    const model::LossSums sums = engine.transformer.evaluate({tokens, targets, starts});
    total.loss += sums.loss;
    total.count += sums.count;
  }
  return {.loss = total.count > 0 ? total.loss / double(total.count) : 0, .tokens = total.count};
}

}  // namespace train
