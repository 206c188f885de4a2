#include "train/run_estimate.h"

#include <algorithm>

#include "model/transformer.h"
#include "outer/simulation.h"

namespace train {
namespace {

constexpr double kHoursPerDay = 24, kSecondsPerHour = 3600;
constexpr int64_t kFloat32Bytes = 4;

void add_swarm(RunEstimate& estimate, const RunConfig& config, const EstimateCase& one) {
  outer::SimulationOptions options =
      outer::simulation_of(config.outer, model::make_layout(config.model));
  options.round_trip_seconds = one.round_trip_ms / 1e3;
  const double bytes_per_second = one.rate_mbit * 1e6 / 8;
  options.nodes.assign(size_t(one.nodes), {one.step_seconds, bytes_per_second});
  const outer::SimulationResult result = outer::simulate(options);
  estimate.utilisation = result.utilisation;
  estimate.steps_per_day = result.steps_per_day;
  estimate.gigabytes_per_day = result.bytes_per_day / 1e9;
  estimate.floor_mbit = result.floor_bytes_per_second * 8 / 1e6;
  estimate.exposed_seconds_per_round = result.exposed_seconds_per_round;
  const double others = double(one.nodes - 1) / double(one.nodes);
  for (size_t f = 0; f < options.contribution_bytes.size(); ++f) {
    const auto bytes = double(options.contribution_bytes[f] + options.result_bytes[f]);
    estimate.longest_round_seconds =
        std::max(estimate.longest_round_seconds, others * bytes / bytes_per_second);
  }
}

void add_prices(RunEstimate& estimate, const EstimateCase& one) {
  if (one.price_per_gb >= 0)
    estimate.traffic_price_per_day = one.price_per_gb * estimate.gigabytes_per_day;
  if (one.price_per_gpu_hour >= 0) {
    estimate.machine_price_per_day =
        one.price_per_gpu_hour * double(std::max<int64_t>(1, one.gpus_per_node)) * kHoursPerDay;
  }
  if (one.price_per_gb < 0 && one.price_per_gpu_hour < 0) return;
  const double per_day =
      std::max(0.0, estimate.traffic_price_per_day) + std::max(0.0, estimate.machine_price_per_day);
  estimate.price = per_day * double(one.nodes) * estimate.hours / kHoursPerDay;
}

}  // namespace

RunEstimate estimate_run(const RunConfig& config, const EstimateCase& one) {
  RunEstimate estimate{.steps_per_day = kHoursPerDay * kSecondsPerHour / one.step_seconds};
  if (!config.swarm.coordinator.empty() && one.nodes > 1) add_swarm(estimate, config, one);
  estimate.hours = kHoursPerDay * double(one.steps_left) / estimate.steps_per_day;
  add_prices(estimate, one);
  return estimate;
}

// Everything in a checkpoint is fp32: parameters, AdamW's two moments, and of a node in a swarm the
// outer parameters and momentum.
DiskEstimate estimate_disk(const RunConfig& config) {
  const int64_t parameters = model::parameter_count(config.model);
  const int64_t copies =
      1 + (config.optimizer.kind == "adamw" ? 2 : 0) + (config.swarm.coordinator.empty() ? 0 : 2);
  DiskEstimate disk{.checkpoint_bytes = parameters * kFloat32Bytes * copies};
  if (config.checkpoint.also_hugging_face > 0) {
    const int64_t width = config.checkpoint.hugging_face_dtype == "fp32" ? 4 : 2;
    disk.hugging_face_bytes = parameters * width;
  }
  disk.needed_bytes =
      (config.checkpoint.keep + 1) * (disk.checkpoint_bytes + disk.hugging_face_bytes);
  return disk;
}

}  // namespace train
