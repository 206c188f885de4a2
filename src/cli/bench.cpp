// bench: how fast this machine is.
#include "train/bench.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/math.h"
#include "cli/commands.h"

namespace cli {
namespace {

struct BenchCommand {
  std::string config;
  std::vector<std::string> overrides;
  train::BenchOptions options;
  int ranks = 0;  // 0: as the config says.
  bool json = false;
};

double mib(int64_t bytes) {
  return double(bytes) / double(base::kMiB);
}

void print_parts(const train::BenchStepReport& report) {
  std::cout << "\nOne step, part by part:\n";
  for (const train::BenchPart& part : report.parts) {
    const std::string speed = part.tflops_per_second > 0
                                  ? fmt::format("{:.4g} TFLOP/s", part.tflops_per_second)
                                  : fmt::format("{:.4g} GB/s", part.gigabytes_per_second);
    std::cout << fmt::format("  {:<44}{:>6} x {:>12.6f} s {:>18}\n", part.name, part.calls,
                             part.seconds, speed);
  }
}

void write_parts(base::JsonWriter& out, const train::BenchStepReport& report) {
  out.key("parts").begin_array();
  for (const train::BenchPart& part : report.parts) {
    out.begin_object()
        .field("name", part.name)
        .field("calls", part.calls)
        .field("seconds", part.seconds)
        .field("tflops_per_second", part.tflops_per_second)
        .field("gigabytes_per_second", part.gigabytes_per_second)
        .end_object();
  }
  out.end_array();
}

void print_report(const train::BenchStepReport& report, bool json) {
  if (!json) {
    std::cout << fmt::format(
        "{}: {} parameters on {}\n{:.0f} tokens/s; {:.4f} TFLOP/s, {:.1f} % of the {:.4f} TFLOP/s "
        "that its matrix "
        "products reach alone\npeak memory {:.0f} MiB\n",
        report.model, report.parameters, report.device, report.tokens_per_second,
        report.tflops_per_second, 100 * report.fraction_of_gemm_rate, report.gemm_tflops_per_second,
        mib(report.peak_memory_bytes));
    std::cout << fmt::format(
        "model FLOPS utilisation {:.1f} % (PaLM), {:.1f} % (causal) of {:.4g} TFLOP/s; recompute "
        "{}; copies {:.0f} GB/s\n",
        100 * report.mfu_palm, 100 * report.mfu_causal, report.peak_tflops_per_second,
        report.policy, report.copy_gigabytes_per_second);
    if (report.ranks > 1) {
      std::cout << fmt::format(
          "{} ranks: gathers {:.1f} MiB and reduces {:.1f} MiB per step and rank; compute waits "
          "{:.1f} ms for it ({:.1f} % of the step); {:.1f} MiB per rank, {:.1f} planned\n",
          report.ranks, mib(report.gathered_bytes), mib(report.reduced_bytes),
          1e3 * report.exposed_communication_seconds,
          100 * report.exposed_communication_seconds / report.step_seconds,
          mib(report.bytes_per_rank), mib(report.planned_bytes_per_rank));
    }
    print_parts(report);
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("device", report.device)
      .field("model", report.model)
      .field("parameters", report.parameters)
      .field("policy", report.policy)
      .field("tokens_per_second", report.tokens_per_second)
      .field("step_seconds", report.step_seconds)
      .field("tflops_per_second", report.tflops_per_second)
      .field("gemm_tflops_per_second", report.gemm_tflops_per_second)
      .field("copy_gigabytes_per_second", report.copy_gigabytes_per_second)
      .field("fraction_of_gemm_rate", report.fraction_of_gemm_rate)
      .field("peak_tflops_per_second", report.peak_tflops_per_second)
      .field("mfu_palm", report.mfu_palm)
      .field("mfu_causal", report.mfu_causal)
      .field("peak_memory_bytes", report.peak_memory_bytes)
      .field("ranks", report.ranks)
      .field("gathered_bytes", report.gathered_bytes)
      .field("reduced_bytes", report.reduced_bytes)
      .field("exposed_communication_seconds", report.exposed_communication_seconds)
      .field("bytes_per_rank", report.bytes_per_rank)
      .field("planned_bytes_per_rank", report.planned_bytes_per_rank)
      .field("steps", report.steps);
  write_parts(out, report);
  out.end_object();
  std::cout << out.text() << std::endl;
}

}  // namespace

void add_bench(CLI::App& app) {
  auto* bench = app.add_subcommand("bench", "Measure this machine");
  bench->require_subcommand(1);
  auto* step = bench->add_subcommand(
      "step",
      "Training steps of a config's model on random tokens, next to its matrix products alone");
  auto options = std::make_shared<BenchCommand>();
  step->add_option("--config", options->config, "The run's JSON config")->required();
  step->add_option("--set", options->overrides, "Override one key")->allow_extra_args(false);
  step->add_option("--ranks", options->ranks, "Devices that share each step, as node.ranks")
      ->check(CLI::Range(1, backend::kRanksMax));
  step->add_option("--steps", options->options.steps, "Timed steps; the median counts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  step->add_option("--document-tokens", options->options.document_tokens,
                   "Mean length of the documents in a row; 0: one document per row")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  step->add_flag("--json", options->json, "Print the report as JSON");
  step->callback([options] {
    const auto storage = base::make_disk_storage();
    if (options->ranks > 0)
      options->overrides.push_back(fmt::format("node.ranks={}", options->ranks));
    const auto config = train::load_run_config(*storage, options->config, options->overrides);
    print_report(train::bench_step(config, options->options), options->json);
  });
}

}  // namespace cli
