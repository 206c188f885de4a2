#include "train/bench.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <numeric>
#include <sys/resource.h>
#include <vector>

#include "base/hash.h"
#include "base/math.h"
#include "train/engine.h"
#include "train/timed_ops.h"
#include "train/trainer.h"

namespace train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct ProductShape {
  int64_t m, n, k;
};

// FLOP/s of one product, the best of several repetitions that together take about `seconds`.
double product_rate(backend::Backend& backend, const ProductShape& shape, double seconds) {
  const auto dtype = backend.device->compute_dtype();
  const auto bytes = [&](int64_t count) { return count * backend::bytes_per_element(dtype); };
  const auto a = backend.device->allocate(bytes(shape.m * shape.k), "bench a");
  const auto b = backend.device->allocate(bytes(shape.n * shape.k), "bench b");
  const auto out = backend.device->allocate(bytes(shape.m * shape.n), "bench out");
  const backend::MatmulArgs args = {.out = out->tensor(dtype, {shape.m, shape.n}),
                                    .a = a->tensor(dtype, {shape.m, shape.k}),
                                    .b = b->tensor(dtype, {shape.n, shape.k}),
                                    .transpose_b = true};
  auto& stream = backend.device->compute_stream();
  double best = 0;
  const auto start = Clock::now();
  // The first repetition warms caches and pages up; it cannot be the best.
  while (best == 0 || seconds_since(start) < seconds) {
    const auto begin = Clock::now();
    backend.ops->matmul(args, stream);
    backend.device->synchronize(stream);
    best = std::max(
        best, 2.0 * double(shape.m) * double(shape.n) * double(shape.k) / seconds_since(begin));
  }
  return best;
}

double best_rate(backend::Backend& backend, const std::vector<ProductShape>& shapes,
                 double seconds) {
  double best = 0;
  for (const ProductShape& shape : shapes)
    best = std::max(best, product_rate(backend, shape, seconds / double(shapes.size())));
  return best;
}

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

// Bytes read plus bytes written per second, the best of several copies.
double copy_rate(backend::Device& device) {
  constexpr int64_t kBytes = 256 * base::kMiB;
  constexpr int kCopies = 8;
  const auto from = device.allocate(kBytes, "bench copy");
  const auto to = device.allocate(kBytes, "bench copy");
  auto& stream = device.compute_stream();
  double best = 0;
  for (int i = 0; i < kCopies; ++i) {
    const auto begin = device.record(stream);
    device.copy(to->data(), from->data(), kBytes, stream);
    const auto end = device.record(stream);
    device.synchronize(*end);
    best = std::max(best, 2.0 * double(kBytes) / device.seconds_between(*begin, *end));
  }
  return best;
}

BenchPart bench_part(const TimedPart& part) {
  return {.name = part.name,
          .calls = part.calls,
          .seconds = part.seconds,
          .tflops_per_second = part.flop / part.seconds * 1e-12,
          .gigabytes_per_second = part.bytes / part.seconds * 1e-9};
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
  return best_rate(backend, {{1024, 1024, 1024}, {2048, 512, 1024}}, 0.2);
}

namespace {

struct Communication {
  shard::Traffic traffic;  // Of the rank that waited longest; all move the same.
  int64_t bytes_per_rank = 0;
};

// Of one step, which `train` does.
Communication measure_communication(RankTeam& ranks, const std::function<void()>& train) {
  ranks.run([](Rank& rank) { rank.engine.parameters.start_traffic(); });
  train();
  std::vector<Communication> all(size_t(ranks.count()));
  ranks.run([&](Rank& rank) {
    all[size_t(rank.number())] = {rank.engine.parameters.stop_traffic(),
                                  rank.engine.backend.device->allocated_bytes()};
  });
  Communication worst = all.front();
  for (const Communication& one : all) {
    if (one.traffic.exposed_seconds > worst.traffic.exposed_seconds) worst.traffic = one.traffic;
    worst.bytes_per_rank = std::max(worst.bytes_per_rank, one.bytes_per_rank);
  }
  return worst;
}

// All ranks at the same time: on a CPU they share it.
double best_rate_of_all(RankTeam& ranks, const std::vector<ProductShape>& shapes, double seconds) {
  std::vector<double> rates(size_t(ranks.count()));
  ranks.run([&](Rank& rank) {
    rank.engine.backend.device->set_steady(false);
    rates[size_t(rank.number())] = best_rate(rank.engine.backend, shapes, seconds);
  });
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + int64_t(values.size()) / 2;
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace

BenchStepReport bench_step(const RunConfig& config, const BenchOptions& options) {
  constexpr int64_t kWarmUpSteps = 2;
  auto backends = choose_backends(config.node);
  backend::Backend& timed_rank = backends.front();
  auto timed = TimedOps::create(std::move(timed_rank.ops), *timed_rank.device);
  TimedOps& stopwatch = *timed;
  timed_rank.ops = std::move(timed);
  RankTeam ranks(std::move(backends), config);
  Trainer trainer(config.training, ranks);
  int64_t steps_done = 0;
  const auto train = [&] {
    return trainer.step(random_batch(config.model, config.training.batch_rows, steps_done++,
                                     options.document_tokens));
  };

  for (int64_t step = 0; step < kWarmUpSteps; ++step) train();
  std::vector<double> seconds;
  for (int64_t step = 0; step < options.steps; ++step) seconds.push_back(train().seconds);
  const double step_seconds = median(std::move(seconds));
  const double tokens = double(config.training.batch_rows * config.model.sequence_length);
  const double rate = tokens / step_seconds;

  const Communication communication = measure_communication(ranks, train);
  stopwatch.start();
  train();
  std::vector<BenchPart> parts;
  ranks.run([&](Rank& rank) {
    if (rank.number() != 0) return;
    for (const TimedPart& part : stopwatch.stop()) parts.push_back(bench_part(part));
  });

  // Big squares next to the model's own shapes: the rate of the machine, not of what the model
  // happens to need.
  const int64_t micro_batch_rows = RowShare::of(config.training, ranks.count()).micro_batch_rows;
  auto shapes = model_products(config.model, micro_batch_rows * config.model.sequence_length);
  shapes.insert(shapes.end(), {{1024, 1024, 1024}, {2048, 2048, 2048}});
  const double gemm_rate = best_rate_of_all(ranks, shapes, 3.0);
  double copies = 0;
  ranks.run([&](Rank& rank) {
    if (rank.number() == 0) copies = copy_rate(*rank.engine.backend.device);
  });
  const double causal = rate * model::flops_per_token_causal(config.model);
  const double palm = rate * model::flops_per_token_palm(config.model);
  const backend::Device& device = *ranks.first().engine.backend.device;
  const double data_sheet = device.peak_flops() * double(ranks.count());
  const double peak = data_sheet > 0 ? data_sheet : gemm_rate;
  return {.device = device.name(),
          .model = config.name,
          .parameters = model::parameter_count(config.model),
          .policy = ranks.plan().policy(),
          .tokens_per_second = rate,
          .step_seconds = step_seconds,
          .tflops_per_second = causal * 1e-12,
          .gemm_tflops_per_second = gemm_rate * 1e-12,
          .copy_gigabytes_per_second = copies * 1e-9,
          .fraction_of_gemm_rate = causal / gemm_rate,
          .peak_tflops_per_second = peak * 1e-12,
          .mfu_palm = palm / peak,
          .mfu_causal = causal / peak,
          .peak_memory_bytes = peak_memory_bytes(),
          .ranks = ranks.count(),
          .gathered_bytes = communication.traffic.gathered_bytes,
          .reduced_bytes = communication.traffic.reduced_bytes,
          .exposed_communication_seconds = communication.traffic.exposed_seconds,
          .bytes_per_rank = communication.bytes_per_rank,
          .planned_bytes_per_rank = ranks.plan().bytes_per_gpu(),
          .steps = options.steps,
          .parts = std::move(parts)};
}

}  // namespace train
