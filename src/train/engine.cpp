#include "train/engine.h"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>

#include "base/log.h"
#include "base/math.h"

namespace train {

namespace {

// Where the choices of product kernels are kept between starts.
std::string cache_folder() {
  if (const char* const cache = std::getenv("XDG_CACHE_HOME"); cache && *cache)
    return fmt::format("{}/atoll", cache);
  if (const char* const home = std::getenv("HOME"); home && *home)
    return fmt::format("{}/.cache/atoll", home);
  return "";
}

MemoryPlan require_plan(const RunConfig& config, const backend::Device& device) {
  const Machine machine{
      .gpus = 1, .bytes_per_gpu = device.total_bytes(), .compute_dtype = device.compute_dtype()};
  const bool is_gpu = device.compute_dtype() == backend::DType::kBfloat16;
  if (!is_gpu) {
    // A machine's memory is shared with whoever else works on it: no reason to take all of it.
    RunConfig modest = config;
    if (config.training.recompute == "auto") modest.training.recompute = "cheap";
    return choose_plan(modest, machine);
  }
  const MemoryPlan plan = choose_plan(config, machine);
  base::log_info("memory plan of {}:\n{}", device.name(), plan.text());
  if (!plan.fits()) {
    throw base::bad_input(
        fmt::format("{} parameters do not fit this GPU with recompute {}:\n{}",
                    model::parameter_count(config.model), plan.policy(), plan.text()),
        "see the plan above");
  }
  return plan;
}

model::TransformerOptions transformer_options(const TrainingConfig& config,
                                              const MemoryPlan& plan) {
  return {.rows = config.micro_batch_rows,
          .recompute = plan.recompute,
          .head_chunk_tokens = config.head_chunk_tokens};
}

}  // namespace

backend::Backend choose_backend(const NodeConfig& node) {
  const bool use_cuda =
      node.device == "cuda" || (node.device == "auto" && backend::count_cuda_devices() > 0);
  auto backends =
      use_cuda ? backend::make_cuda_backends({.ranks = 1,
                                              .deterministic = node.deterministic,
                                              .attention = node.attention,
                                              .cache_folder = cache_folder()})
               : backend::make_cpu_backends({.ranks = 1, .threads_per_rank = int(node.threads)});
  return std::move(backends.front());
}

optim::MomentPlace moment_place(const NodeConfig& node) {
  return node.offload_moments ? optim::MomentPlace::kHost : optim::MomentPlace::kDevice;
}

Engine::Engine(backend::Backend chosen, const model::ModelConfig& model,
               const model::TransformerOptions& options, shard::Parameters::Memory memory)
    : config(model),
      backend(std::move(chosen)),
      layout(model::make_layout(config)),
      parameters(layout, backend, memory),
      transformer(config, options, parameters, backend),
      policy(policy_name(memory, options.recompute)) {}

Engine::Engine(backend::Backend chosen, const RunConfig& run)
    : Engine(std::move(chosen), run, require_plan(run, *chosen.device)) {}

Engine::Engine(backend::Backend&& chosen, const RunConfig& run, const MemoryPlan& plan)
    : Engine(std::move(chosen), run.model, transformer_options(run.training, plan), plan.memory) {}

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
