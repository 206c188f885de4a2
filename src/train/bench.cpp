#include "train/bench.h"

#include <algorithm>
#include <chrono>
#include <fmt/format.h>
#include <functional>
#include <sys/resource.h>
#include <vector>

#include "base/hash.h"
#include "base/numa.h"
#include "train/ceilings.h"
#include "train/engine.h"
#include "train/rank_threads.h"
#include "train/row_share.h"
#include "train/step_parts.h"
#include "train/timed_ops.h"
#include "train/timing.h"
#include "train/trainer.h"

namespace train {
namespace {

using Clock = std::chrono::steady_clock;

// The products of one block and of the head for N tokens.
std::vector<ProductShape> model_products(const model::ModelConfig& config, int64_t tokens) {
  return {{tokens, config.qkv_width(), config.width},
          {tokens, config.width, config.query_width()},
          {tokens, 2 * config.feed_forward, config.width},
          {tokens, config.width, config.feed_forward},
          {tokens, config.vocabulary, config.width}};
}

data::Batch random_batch(const model::ModelConfig& config, int64_t rows, int64_t step,
                         int64_t document_tokens) {
  data::Batch batch{.step = step,
                    .tokens = {},
                    .targets = {},
                    .document_starts = {},
                    .target_count = rows * config.sequence_length};
  base::Random random(uint64_t(step) + 1);
  for (int64_t row = 0; row < rows; ++row) {
    int64_t start = 0;
    for (int64_t position = 0; position < config.sequence_length; ++position) {
      const bool is_start = document_tokens > 0 && random.below(uint64_t(document_tokens)) == 0;
      if (is_start) start = position;
      batch.tokens.push_back(int32_t(random.below(uint64_t(config.vocabulary))));
      batch.targets.push_back(int32_t(random.below(uint64_t(config.vocabulary))));
      batch.document_starts.push_back(int32_t(start));
    }
  }
  return batch;
}

int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

}  // namespace

double peak_flops(backend::Backend& backend) {
  const double data_sheet = backend.device->peak_flops();
  if (data_sheet > 0) return data_sheet;
  const Ceilings measured = measure_ceilings(backend, {{1024, 1024, 1024}, {2048, 512, 1024}},
                                             {.headline_seconds = 0.1, .shape_seconds = 0.1});
  if (measured.flops > 0) return measured.flops;
  throw base::resource_lost(fmt::format("cannot measure a product: {}", measured.error),
                            "use a smaller model, or a machine with more memory");
}

namespace {

struct PeakMemory {
  int64_t held = 0;  // On the device of the rank that holds most.
  int64_t used = 0;
};

PeakMemory measure_memory(RankTeam& ranks) {
  std::vector<PeakMemory> all(size_t(ranks.count()));
  ranks.run([&](Rank& rank) {
    const backend::Device& device = *rank.engine.backend.device;
    all[size_t(rank.number())] = {device.allocated_bytes(), device.used_bytes()};
  });
  PeakMemory most;
  for (const PeakMemory& one : all)
    most = {std::max(most.held, one.held), std::max(most.used, one.used)};
  return most;
}

// What one step, which `train` does, moves: of the rank that waited longest; all move the same.
shard::Traffic measure_traffic(RankTeam& ranks, const std::function<void()>& train) {
  ranks.run([](Rank& rank) { rank.engine.parameters.start_traffic(); });
  train();
  std::vector<shard::Traffic> all(size_t(ranks.count()));
  ranks.run(
      [&](Rank& rank) { all[size_t(rank.number())] = rank.engine.parameters.stop_traffic(); });
  return *std::ranges::max_element(all, {}, &shard::Traffic::exposed_seconds);
}

// Of each rank, all at the same time: those of one machine share it. Before the model's memory is
// allocated, so that large products find room.
std::vector<Ceilings> ceilings_of_all(std::vector<backend::Backend>& backends,
                                      const RunConfig& config) {
  const auto count = int(backends.size());
  const bool is_gpu = backends.front().device->compute_dtype() == backend::DType::kBfloat16;
  // A big square first: the rate of the machine, not of what the model happens to need.
  std::vector<ProductShape> shapes = {is_gpu ? ProductShape{8192, 8192, 8192}
                                             : ProductShape{2048, 2048, 2048}};
  const int64_t rows = RowShare::of(config.training, count).micro_batch_rows;
  for (const ProductShape& shape :
       model_products(config.model, rows * config.model.sequence_length))
    shapes.push_back(shape);
  const CeilingTimes times =
      is_gpu ? CeilingTimes{.headline_seconds = 1.2, .shape_seconds = 0.4, .copy_seconds = 0.5}
             : CeilingTimes{.headline_seconds = 0.4, .shape_seconds = 0.3, .copy_seconds = 0.3};
  std::vector<Ceilings> ceilings(backends.size());
  const auto enter = [&](int rank) {
    backend::Device& device = *backends[size_t(rank)].device;
    device.enter_thread();
    if (device.numa_node() >= 0) base::pin_thread_to_numa_node(device.numa_node());
  };
  RankThreads threads({.ranks = count, .enter = enter});
  threads.run([&](int rank) {
    ceilings[size_t(rank)] = measure_ceilings(backends[size_t(rank)], shapes, times);
  });
  return ceilings;
}

// Forward and backward, with attention as long as documents let it be.
double flops_per_token(const model::ModelConfig& config, double keys) {
  const double masked = 0.5 * double(config.sequence_length) - keys;
  return model::flops_per_token_causal(config) -
         12.0 * double(config.layers * config.query_width()) * masked;
}

// A convention of whole rows says nothing of packed ones.
double convention_flops(const model::ModelConfig& config, double keys, bool is_packed) {
  return is_packed ? flops_per_token(config, keys) : model::flops_per_token_palm(config);
}

class StepBench {
 public:
  StepBench(const RunConfig& config, const BenchOptions& options)
      : config_(config), options_(options) {}
  BenchStepReport run();

 private:
  struct Timed {
    double seconds = 0;
    double keys = 0;
  };
  Timed train_step(Trainer& trainer);
  void measure_steps(Trainer& trainer);
  void measure_parts(Trainer& trainer, RankTeam& ranks, TimedOps& stopwatch);
  void report_ceilings(const std::vector<Ceilings>& ceilings);
  void report_rates(double data_sheet);
  Extrapolation extrapolate() const;

  const RunConfig& config_;
  const BenchOptions& options_;
  int64_t steps_done_ = 0;
  double keys_ = 0;  // A token's, on average over the timed steps.
  // Of one rank.
  double product_flops_ = 0, copy_bytes_per_second_ = 0;
  BenchStepReport report_;
};

StepBench::Timed StepBench::train_step(Trainer& trainer) {
  const data::Batch batch = random_batch(config_.model, config_.training.batch_rows, steps_done_++,
                                         options_.document_tokens);
  const double keys = mean_keys(batch, config_.model.sequence_length);
  return {.seconds = trainer.step(batch).seconds, .keys = keys};
}

void StepBench::measure_steps(Trainer& trainer) {
  constexpr int64_t kWarmUpSteps = 2;
  for (int64_t step = 0; step < kWarmUpSteps; ++step) train_step(trainer);
  std::vector<double> seconds;
  for (int64_t step = 0; step < options_.steps; ++step) {
    const Timed timed = train_step(trainer);
    seconds.push_back(timed.seconds);
    keys_ += timed.keys / double(options_.steps);
  }
  report_.step_seconds = median(std::move(seconds));
  const double tokens = double(config_.training.batch_rows * config_.model.sequence_length);
  report_.tokens_per_second = tokens / report_.step_seconds;
}

void StepBench::measure_parts(Trainer& trainer, RankTeam& ranks, TimedOps& stopwatch) {
  // The batch of the step that comes: what it asks of attention is counted before it runs.
  const double keys = mean_keys(random_batch(config_.model, config_.training.batch_rows,
                                             steps_done_, options_.document_tokens),
                                config_.model.sequence_length);
  stopwatch.start(keys);
  report_.timed_step_seconds = train_step(trainer).seconds;
  ranks.run([&](Rank& rank) {
    if (rank.number() != 0) return;
    for (const TimedPart& part : stopwatch.stop())
      report_.parts.push_back(bench_part(part, product_flops_, copy_bytes_per_second_));
  });
  report_.unattributed_seconds = report_.timed_step_seconds - seconds_of(report_.parts);
}

void StepBench::report_ceilings(const std::vector<Ceilings>& ceilings) {
  double flops = 0;
  for (const Ceilings& one : ceilings) {
    flops += one.flops;
    if (report_.ceiling_error.empty()) report_.ceiling_error = one.error;
  }
  for (const Ceilings::Rate& rate : ceilings.front().products)
    report_.gemm_shapes.push_back({name_of(rate.shape), rate.flops * 1e-12});
  product_flops_ = ceilings.front().flops;
  copy_bytes_per_second_ = ceilings.front().bytes_per_second;
  report_.gemm_tflops_per_second = flops * 1e-12;
  report_.copy_gigabytes_per_second = copy_bytes_per_second_ * 1e-9;
}

// `data_sheet` is the peak of all ranks by it; 0: unknown. A measured one is no less than what the
// steps reach: nothing is used by more than all of it.
void StepBench::report_rates(double data_sheet) {
  const double flops = report_.tokens_per_second * flops_per_token(config_.model, keys_);
  const double products = report_.gemm_tflops_per_second * 1e12;
  const double conventional = report_.tokens_per_second *
                              convention_flops(config_.model, keys_, options_.document_tokens > 0);
  const double peak = data_sheet > 0 ? data_sheet : std::max({products, flops, conventional});
  report_.tflops_per_second = flops * 1e-12;
  report_.peak_tflops_per_second = peak * 1e-12;
  if (products > 0) report_.fraction_of_gemm_rate = flops / products;
  if (peak <= 0) return;
  if (options_.document_tokens > 0) {
    report_.mfu_inside_documents = flops / peak;
  } else {
    report_.mfu_causal = flops / peak;
    report_.mfu_palm =
        report_.tokens_per_second * model::flops_per_token_palm(config_.model) / peak;
  }
}

Extrapolation StepBench::extrapolate() const {
  model::ModelConfig model = config_.model;
  model.layers = options_.extrapolate_blocks;
  const double seconds =
      extrapolated_step_seconds(report_.parts, config_.model, report_.micro_batches,
                                report_.step_seconds, options_.extrapolate_blocks);
  const double rate = report_.tokens_per_second * report_.step_seconds / seconds;
  const double flops = rate * convention_flops(model, keys_, options_.document_tokens > 0);
  const double peak = report_.peak_tflops_per_second * 1e12;
  return {.blocks = options_.extrapolate_blocks,
          .step_seconds = seconds,
          .tokens_per_second = rate,
          .utilisation = peak > 0 ? flops / peak : 0};
}

BenchStepReport StepBench::run() {
  const auto start = Clock::now();
  auto backends = choose_backends(config_.node);
  backend::Backend& timed_rank = backends.front();
  auto timed =
      TimedOps::create(std::move(timed_rank.ops), *timed_rank.device, config_.model.vocabulary);
  TimedOps& stopwatch = *timed;
  timed_rank.ops = std::move(timed);

  const auto ceilings_start = Clock::now();
  report_ceilings(ceilings_of_all(backends, config_));
  report_.ceiling_seconds = seconds_since(ceilings_start);
  RankTeam ranks(std::move(backends), config_);
  Trainer trainer(config_.training, ranks);
  report_.setup_seconds = seconds_since(start);
  report_.micro_batches = RowShare::of(config_.training, ranks.count()).turns;
  measure_steps(trainer);
  const shard::Traffic traffic = measure_traffic(ranks, [&] { train_step(trainer); });
  const PeakMemory memory = measure_memory(ranks);
  measure_parts(trainer, ranks, stopwatch);

  const backend::Device& device = *ranks.first().engine.backend.device;
  report_rates(device.peak_flops() * double(ranks.count()));
  if (options_.extrapolate_blocks > 0) report_.extrapolation = extrapolate();
  report_.device = device.name();
  report_.model = config_.name;
  report_.parameters = model::parameter_count(config_.model);
  report_.policy = ranks.plan().policy();
  report_.document_tokens = options_.document_tokens;
  report_.peak_memory_bytes = peak_memory_bytes();
  report_.ranks = ranks.count();
  report_.gathered_bytes = traffic.gathered_bytes;
  report_.reduced_bytes = traffic.reduced_bytes;
  report_.exposed_communication_seconds = traffic.exposed_seconds;
  report_.bytes_per_rank = memory.held;
  report_.planned_bytes_per_rank = ranks.plan().bytes_per_gpu();
  report_.device_used_bytes = memory.used;
  report_.steps = options_.steps;
  return std::move(report_);
}

}  // namespace

BenchStepReport bench_step(const RunConfig& config, const BenchOptions& options) {
  return StepBench(config, options).run();
}

}  // namespace train
