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
  int64_t steps = 8;
  bool json = false;
};

void print_report(const train::BenchStepReport& report, bool json) {
  if (!json) {
    std::cout << fmt::format(
        "{}: {} parameters on {}\n{:.0f} tokens/s; {:.4f} TFLOP/s, {:.1f} % of the {:.4f} TFLOP/s "
        "that its matrix "
        "products reach alone\npeak memory {:.0f} MiB\n",
        report.model, report.parameters, report.device, report.tokens_per_second,
        report.tflops_per_second, 100 * report.fraction_of_gemm_rate, report.gemm_tflops_per_second,
        double(report.peak_memory_bytes) / double(base::kMiB));
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("device", report.device)
      .field("model", report.model)
      .field("parameters", report.parameters)
      .field("tokens_per_second", report.tokens_per_second)
      .field("tflops_per_second", report.tflops_per_second)
      .field("gemm_tflops_per_second", report.gemm_tflops_per_second)
      .field("fraction_of_gemm_rate", report.fraction_of_gemm_rate)
      .field("mfu_palm", report.mfu_palm)
      .field("mfu_causal", report.mfu_causal)
      .field("peak_memory_bytes", report.peak_memory_bytes)
      .field("steps", report.steps)
      .end_object();
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
  step->add_option("--steps", options->steps, "Timed steps; the median counts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  step->add_flag("--json", options->json, "Print the report as JSON");
  step->callback([options] {
    const auto storage = base::make_disk_storage();
    const auto config = train::load_run_config(*storage, options->config, options->overrides);
    print_report(train::bench_step(config, options->steps), options->json);
  });
}

}  // namespace cli
