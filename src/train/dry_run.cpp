#include "train/dry_run.h"

#include <algorithm>
#include <fmt/format.h>
#include <thread>

#include "backend/backend.h"
#include "backend/inspect.h"
#include "base/math.h"
#include "train/bench.h"
#include "train/doctor/host_memory.h"
#include "train/resume.h"
#include "train/run_data.h"
#include "train/run_directory.h"
#include "train/start_model.h"
#include "train/swarm_security.h"
#include "train/time_outs.h"

namespace train {
namespace {

// What a processor core does of a training step's FLOP in a second where nothing better is known:
// about half of what was seen with 25 M parameters on x86 servers (docs/performance.md).
constexpr double kAssumedFlopsPerCore = 2e10;

double gib_of(int64_t bytes) {
  return double(bytes) / double(base::kGiB);
}

KnownTokenizer tokenizer_known(const ResumePoint& point, const StartModel* start) {
  if (point.reader) {
    const checkpoint::Manifest& manifest = point.reader->manifest();
    return known_tokenizer(manifest, fmt::format("the checkpoint of step {}", manifest.step));
  }
  return start ? start->tokenizer() : KnownTokenizer{};
}

// Everything that a start reads before it builds the model.
void look_at_files(const RunConfig& config, base::Storage& storage, DryRunReport& report) {
  const RunDirectory directory(config, storage);
  if (!config.swarm.coordinator.empty()) {
    coordinator_key(config);
    load_security(config, storage, directory.node_key(), std::make_shared<net::AllowedKeys>());
  }
  const ResumePoint point = find_resume_point(storage, config);
  if (point.reader) report.resumed_step = point.reader->manifest().step;
  const auto start = point.reader ? nullptr : StartModel::open(storage, config);
  const RunData data = open_data(config, storage, tokenizer_known(point, start.get()));
  for (const auto& dataset : data.datasets) {
    report.data.documents += dataset->document_count();
    report.data.tokens += dataset->token_count();
  }
  report.data.samples_per_pass = data.sampler->samples_per_pass();
  report.data.passes = double(report.nodes) * double(config.training.steps) *
                       double(config.training.batch_rows) / report.data.samples_per_pass;
  report.data.tokenizer = data.tokenizer.name;
}

void tell_time_outs(const RunConfig& config, DryRunReport& report) {
  report.time_outs.push_back(
      {.key = "swarm.dead_seconds", .seconds = config.swarm.dead_seconds, .from = "set"});
  for (const TimeOut& one : time_outs()) {
    const std::string key = fmt::format("swarm.{}", one.name);
    const bool is_derived = std::ranges::count(config.derived_keys, key) > 0;
    report.time_outs.push_back(
        {.key = key,
         .seconds = config.swarm.*one.value,
         .from = is_derived ? fmt::format("{} swarm.dead_seconds", times_text(one)) : "set"});
  }
}

// As node.device says; nothing: the CPU.
std::vector<backend::CudaDeviceFacts> gpus_of(const NodeConfig& node) {
  if (node.device == "cpu") return {};
  // Throws where there are GPUs that cannot be used, as the start does.
  if (node.device == "auto" && !backend::has_cuda_devices()) return {};
  const backend::CudaFacts facts = backend::inspect_cuda();
  if (facts.devices.empty()) {
    throw base::bad_input(fmt::format("node.device is cuda, but there is no GPU: {}",
                                      facts.is_built ? facts.problem : "this program has no CUDA"),
                          "see `atoll inspect device`, or give --gpus to plan for other machines");
  }
  std::vector<backend::CudaDeviceFacts> devices = facts.devices;
  if (node.ranks > 0 && node.ranks < int64_t(devices.size())) devices.resize(size_t(node.ranks));
  return devices;
}

Machine choose_machine(const RunConfig& config, const DryRunOptions& options,
                       DryRunReport& report) {
  if (options.gpus > 0) {
    report.machine = fmt::format("{} GPU{} of {:.0f} GiB, as given", options.gpus,
                                 options.gpus == 1 ? "" : "s", options.gib_per_gpu);
    report.is_gpu = true;
    return {.gpus = options.gpus,
            .bytes_per_gpu = int64_t(options.gib_per_gpu * double(base::kGiB))};
  }
  const auto devices = gpus_of(config.node);
  report.is_gpu = !devices.empty();
  if (report.is_gpu) {
    const auto least =
        std::ranges::min_element(devices, {}, &backend::CudaDeviceFacts::total_bytes);
    report.machine = fmt::format("this machine: {} x {}", devices.size(), devices.front().name);
    return {.gpus = int64_t(devices.size()), .bytes_per_gpu = least->total_bytes};
  }
  const int64_t ranks = std::max<int64_t>(1, config.node.ranks);
  report.node_memory_limit_bytes = host_memory().usable_bytes();
  report.machine =
      fmt::format("this machine: {} CPU cores, {:.1f} GiB", std::thread::hardware_concurrency(),
                  gib_of(report.node_memory_limit_bytes));
  return {.gpus = ranks,
          .bytes_per_gpu = report.node_memory_limit_bytes / ranks,
          .compute_dtype = backend::DType::kFloat32};
}

void plan_node_memory(const RunConfig& config, const DryRunOptions& options, DryRunReport& report) {
  const Machine machine = choose_machine(config, options, report);
  report.memory = plan_of_node(config, machine);
  report.node_memory_bytes = report.memory.host_bytes;
  if (!report.is_gpu) report.node_memory_bytes += machine.gpus * report.memory.bytes_per_gpu();
  if (report.is_gpu && !report.memory.fits()) {
    report.refusal = "the model does not fit these GPUs, see the memory plan";
  } else if (report.node_memory_limit_bytes > 0 &&
             report.node_memory_bytes > report.node_memory_limit_bytes) {
    report.warnings.push_back(
        fmt::format("the node takes {:.1f} GiB of memory, and there are {:.1f}: the kernel would "
                    "end it",
                    gib_of(report.node_memory_bytes), gib_of(report.node_memory_limit_bytes)));
  }
}

void choose_step(const RunConfig& config, const DryRunOptions& options, DryRunReport& report) {
  // A lean step is one micro-batch; the config says so, too.
  report.tokens_per_step =
      double(config.training.batch_rows) * double(config.model.sequence_length);
  if (options.step_seconds > 0) {
    report.step_seconds = options.step_seconds;
    report.step_basis = "given (--step-seconds)";
  } else if (options.tokens_per_second > 0) {
    report.step_seconds = report.tokens_per_step / options.tokens_per_second;
    report.step_basis = "given (--tokens-per-second)";
  } else if (options.measured_steps > 0 && report.refusal.empty()) {
    report.step_seconds = bench_step(config, {.steps = options.measured_steps}).step_seconds;
    report.step_basis = fmt::format("measured: the median of {} steps on random tokens here",
                                    options.measured_steps);
  } else if (report.is_gpu) {
    report.step_seconds = predict_step_seconds(config, report.memory);
    report.step_basis = "predicted for H100-class GPUs; --measure-steps measures";
  } else {
    const auto cores = double(std::max(1U, std::thread::hardware_concurrency()));
    report.step_seconds = report.tokens_per_step * model::flops_per_token_palm(config.model) /
                          (kAssumedFlopsPerCore * cores);
    report.step_basis = fmt::format(
        "assumed: {:.0f} GFLOP/s on each of {:.0f} cores; "
        "--measure-steps measures",
        kAssumedFlopsPerCore / 1e9, cores);
  }
}

void warn_of_lines(const RunConfig& config, DryRunReport& report) {
  const RunEstimate& estimate = report.estimate;
  if (estimate.longest_round_seconds > config.swarm.round_timeout_seconds) {
    report.warnings.push_back(fmt::format(
        "at {:.0f} Mbit/s the longest round takes {:.0f} s, and swarm.round_timeout_seconds is "
        "{:.0f}: it would never commit; raise it, or use more outer.fragments or fewer bits",
        report.rate_mbit, estimate.longest_round_seconds, config.swarm.round_timeout_seconds));
  }
  if (estimate.floor_mbit > report.rate_mbit) {
    report.warnings.push_back(
        fmt::format("below {:.0f} Mbit/s no overlap helps: rounds would take longer than the steps "
                    "between them",
                    estimate.floor_mbit));
  }
}

void look_at_disk(const RunConfig& config, DryRunReport& report) {
  report.disk = estimate_disk(config);
  const auto space = disk_space(config.node.run_directory);
  if (!space) return;
  report.disk_free_bytes = space->free_bytes;
  if (report.disk.needed_bytes <= space->free_bytes) return;
  report.warnings.push_back(fmt::format(
      "checkpoints need {:.1f} GB, and {} has {:.1f} free: lower checkpoint.keep, or "
      "choose another node.run_directory",
      double(report.disk.needed_bytes) / 1e9, space->folder, double(space->free_bytes) / 1e9));
}

}  // namespace

DryRunReport dry_run(const RunConfig& config, base::Storage& storage,
                     const DryRunOptions& options) {
  DryRunReport report{.parameters = model::parameter_count(config.model)};
  const bool is_solo = config.swarm.coordinator.empty();
  report.nodes = options.nodes > 0 ? options.nodes : is_solo ? 1 : config.swarm.start_members;
  if (is_solo && report.nodes > 1) {
    throw base::bad_input(fmt::format("--nodes {}, but swarm.coordinator is empty: this is a run "
                                      "of one node",
                                      report.nodes),
                          "set swarm.coordinator");
  }
  report.rate_mbit = options.rate_mbit;
  look_at_files(config, storage, report);
  tell_time_outs(config, report);
  plan_node_memory(config, options, report);
  choose_step(config, options, report);
  report.estimate = estimate_run(
      config, {.nodes = report.nodes,
               .rate_mbit = options.rate_mbit,
               .round_trip_ms = options.round_trip_ms,
               .step_seconds = report.step_seconds,
               .steps_left = config.training.steps - std::max<int64_t>(0, report.resumed_step),
               .price_per_gb = options.price_per_gb,
               .price_per_gpu_hour = options.price_per_gpu_hour,
               .gpus_per_node = report.is_gpu ? report.memory.machine.gpus : 1});
  warn_of_lines(config, report);
  look_at_disk(config, report);
  return report;
}

}  // namespace train
