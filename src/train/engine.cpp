#include "train/engine.h"

#include <algorithm>
#include <chrono>
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

}  // namespace

std::vector<backend::Backend> choose_backends(const NodeConfig& node) {
  const std::chrono::milliseconds timeout(int64_t(node.rank_timeout_seconds * 1e3));
  if (node.device != "cpu") backend::prepare_cuda(int(node.ranks));
  const bool use_cuda =
      node.device == "cuda" || (node.device == "auto" && backend::has_cuda_devices());
  if (use_cuda) {
    return backend::make_cuda_backends(
        {.ranks = int(node.ranks),
         .collective_timeout = timeout,
         .deterministic = node.deterministic,
         .attention = node.attention,
         .communication_multiprocessors = int(node.communication_multiprocessors),
         .cache_folder = cache_folder()});
  }
  const int ranks = std::max(1, int(node.ranks));
  const int threads_per_rank = node.threads == 0 ? 0 : std::max(1, int(node.threads) / ranks);
  return backend::make_cpu_backends(
      {.ranks = ranks, .threads_per_rank = threads_per_rank, .collective_timeout = timeout});
}

optim::MomentPlace moment_place(const NodeConfig& node) {
  return node.offload_moments ? optim::MomentPlace::kHost : optim::MomentPlace::kDevice;
}

MemoryPlan require_plan(const RunConfig& config, const std::vector<backend::Backend>& backends) {
  const backend::Device& device = *backends.front().device;
  Machine machine{.gpus = int64_t(backends.size()),
                  .bytes_per_gpu = device.total_bytes(),
                  .compute_dtype = device.compute_dtype()};
  for (const backend::Backend& backend : backends)
    machine.bytes_per_gpu = std::min(machine.bytes_per_gpu, backend.device->total_bytes());
  if (device.compute_dtype() != backend::DType::kBfloat16) return plan_of_node(config, machine);
  if (config.node.memory == "lean" && machine.gpus > 1) {
    throw base::bad_input(fmt::format("node.memory is lean, but there are {} GPUs", machine.gpus),
                          "set node.ranks to 1, or node.memory to standard");
  }
  const MemoryPlan plan = plan_of_node(config, machine);
  base::log_info("memory plan of {}:\n{}", device.name(), plan.text());
  if (!plan.fits()) {
    throw base::bad_input(
        fmt::format("{} parameters do not fit {} with recompute {}:\n{}",
                    model::parameter_count(config.model),
                    machine.gpus == 1 ? "this GPU" : "these GPUs", plan.policy(), plan.text()),
        "see the plan above");
  }
  return plan;
}

Engine::Engine(backend::Backend& chosen, const model::ModelConfig& model,
               const model::TransformerOptions& options, const shard::Parameters::Options& memory)
    : config(model),
      backend(chosen),
      layout(model::make_layout(config)),
      parameters(layout, backend, memory),
      transformer(config, options, parameters, backend) {}

Engine::Engine(backend::Backend& chosen, const RunConfig& run, const MemoryPlan& plan)
    : Engine(chosen, run.model, transformer_options(run, plan), parameter_options(plan)) {}

int64_t validation_turns(const Engine& engine, const data::Sampler& sampler,
                         int64_t micro_batch_rows, int64_t rows) {
  const int64_t row_count = std::min(rows, sampler.validation_row_count());
  return base::div_ceil(row_count, micro_batch_rows * engine.backend.communicator->rank_count());
}

model::LossSums validate_turn(Engine& engine, const data::Sampler& sampler,
                              int64_t micro_batch_rows, int64_t rows, int64_t turn) {
  const int64_t length = engine.config.sequence_length;
  const int64_t all_rows = sampler.validation_row_count();
  const int64_t row_count = std::min(rows, all_rows);
  const backend::Communicator& communicator = *engine.backend.communicator;
  std::vector<int32_t> tokens(size_t(micro_batch_rows * length));
  std::vector<int32_t> targets(tokens.size());
  std::vector<int32_t> starts(tokens.size());
  const int64_t first = (turn * communicator.rank_count() + communicator.rank()) * micro_batch_rows;
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
  return engine.transformer.evaluate({tokens, targets, starts});
}

model::LossSums validate(Engine& engine, const data::Sampler& sampler, int64_t micro_batch_rows,
                         int64_t rows) {
  model::LossSums total;
  const int64_t turns = validation_turns(engine, sampler, micro_batch_rows, rows);
  for (int64_t turn = 0; turn < turns; ++turn)
    add(total, validate_turn(engine, sampler, micro_batch_rows, rows, turn));
  return total;
}

}  // namespace train
