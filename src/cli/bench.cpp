// bench: how fast this machine is.
#include "train/bench.h"

#include <CLI/CLI.hpp>
#include <cmath>
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

// "-": there is no ceiling to compare with.
std::string milliseconds(double seconds) {
  return std::isfinite(seconds) ? fmt::format("{:.3f}", 1e3 * seconds) : "-";
}

void print_parts(const train::BenchStepReport& report) {
  std::cout << fmt::format("\nOne step, part by part:\n  {:<44}{:>8}{:>12}{:>18}{:>12}\n", "",
                           "calls", "ms", "rate", "lost ms");
  for (const train::BenchPart& part : report.parts) {
    const std::string speed = part.tflops_per_second > 0
                                  ? fmt::format("{:.4g} TFLOP/s", part.tflops_per_second)
                                  : fmt::format("{:.4g} GB/s", part.gigabytes_per_second);
    std::cout << fmt::format("  {:<44}{:>8}{:>12.3f}{:>18}{:>12}\n", part.name, part.calls,
                             1e3 * part.seconds, speed, milliseconds(part.lost_seconds));
  }
  std::cout << fmt::format("  {:<44}{:>8}{:>12.3f}\n", "in no part", "",
                           1e3 * report.unattributed_seconds);
  std::cout << fmt::format("  {:<44}{:>8}{:>12.3f}\n", "that step", "",
                           1e3 * report.timed_step_seconds);
}

void print_utilisation(const train::BenchStepReport& report) {
  const std::string shares =
      report.document_tokens > 0
          ? fmt::format("{:.1f} % (inside documents)", 100 * report.mfu_inside_documents)
          : fmt::format("{:.1f} % (PaLM), {:.1f} % (causal)", 100 * report.mfu_palm,
                        100 * report.mfu_causal);
  std::cout << fmt::format(
      "model FLOPS utilisation {} of {:.4g} TFLOP/s; recompute {}; copies {:.0f} GB/s\n", shares,
      report.peak_tflops_per_second, report.policy, report.copy_gigabytes_per_second);
  if (!report.ceiling_error.empty())
    std::cout << fmt::format("not measured: {}\n", report.ceiling_error);
}

void print_memory(const train::BenchStepReport& report) {
  std::cout << fmt::format("memory per rank: {:.1f} MiB held, {:.1f} planned",
                           mib(report.bytes_per_rank), mib(report.planned_bytes_per_rank));
  if (report.device_used_bytes > 0) {
    std::cout << fmt::format("; {:.1f} in use on the device by its driver's count",
                             mib(report.device_used_bytes));
  }
  std::cout << fmt::format("\nset-up {:.1f} s, of which ceilings {:.1f} s\n", report.setup_seconds,
                           report.ceiling_seconds);
}

void print_extrapolation(const train::BenchStepReport& report) {
  const train::Extrapolation& other = report.extrapolation;
  if (other.blocks == 0) return;
  std::cout << fmt::format(
      "extrapolated to {} blocks: {:.3f} s a step, {:.0f} tokens/s, utilisation {:.1f} % ({})\n",
      other.blocks, other.step_seconds, other.tokens_per_second, 100 * other.utilisation,
      report.document_tokens > 0 ? "inside documents" : "PaLM");
}

void print_text(const train::BenchStepReport& report) {
  std::cout << fmt::format(
      "{}: {} parameters on {}\n{:.0f} tokens/s; {:.4f} TFLOP/s, {:.1f} % of the {:.4f} TFLOP/s "
      "that its matrix "
      "products reach alone\npeak memory {:.0f} MiB\n",
      report.model, report.parameters, report.device, report.tokens_per_second,
      report.tflops_per_second, 100 * report.fraction_of_gemm_rate, report.gemm_tflops_per_second,
      mib(report.peak_memory_bytes));
  print_utilisation(report);
  print_memory(report);
  if (report.ranks > 1) {
    std::cout << fmt::format(
        "{} ranks: gathers {:.1f} MiB and reduces {:.1f} MiB per step and rank; compute waits "
        "{:.1f} ms for it ({:.1f} % of the step)\n",
        report.ranks, mib(report.gathered_bytes), mib(report.reduced_bytes),
        1e3 * report.exposed_communication_seconds,
        100 * report.exposed_communication_seconds / report.step_seconds);
  }
  print_extrapolation(report);
  print_parts(report);
}

const char* name_of(train::PartOf part_of) {
  switch (part_of) {
    case train::PartOf::kBlocks:
      return "blocks";
    case train::PartOf::kBlocksAndHead:
      return "blocks and head";
    case train::PartOf::kOnce:
      return "once";
    case train::PartOf::kParameters:
      return "parameters";
  }
  return "";
}

void write_parts(base::JsonWriter& out, const train::BenchStepReport& report) {
  out.key("parts").begin_array();
  for (const train::BenchPart& part : report.parts) {
    out.begin_object()
        .field("name", part.name)
        .field("part_of", name_of(part.part_of))
        .field("calls", part.calls)
        .field("seconds", part.seconds)
        .field("bytes", part.bytes)
        .field("tflops_per_second", part.tflops_per_second)
        .field("gigabytes_per_second", part.gigabytes_per_second)
        .field("lost_seconds", part.lost_seconds)
        .end_object();
  }
  out.end_array()
      .field("timed_step_seconds", report.timed_step_seconds)
      .field("unattributed_seconds", report.unattributed_seconds);
}

void write_ceilings(base::JsonWriter& out, const train::BenchStepReport& report) {
  out.field("gemm_tflops_per_second", report.gemm_tflops_per_second)
      .key("gemm_shapes")
      .begin_array();
  for (const train::ShapeRate& rate : report.gemm_shapes) {
    out.begin_object()
        .field("shape", rate.shape)
        .field("tflops_per_second", rate.tflops_per_second)
        .end_object();
  }
  out.end_array()
      .field("copy_gigabytes_per_second", report.copy_gigabytes_per_second)
      .field("fraction_of_gemm_rate", report.fraction_of_gemm_rate)
      .field("peak_tflops_per_second", report.peak_tflops_per_second);
  if (!report.ceiling_error.empty()) out.field("ceiling_error", report.ceiling_error);
}

void write_utilisation(base::JsonWriter& out, const train::BenchStepReport& report) {
  if (report.document_tokens > 0) {
    out.field("mfu_inside_documents", report.mfu_inside_documents);
  } else {
    out.field("mfu_palm", report.mfu_palm).field("mfu_causal", report.mfu_causal);
  }
}

void write_extrapolation(base::JsonWriter& out, const train::BenchStepReport& report) {
  const train::Extrapolation& other = report.extrapolation;
  if (other.blocks == 0) return;
  out.key("extrapolation")
      .begin_object()
      .field("blocks", other.blocks)
      .field("step_seconds", other.step_seconds)
      .field("tokens_per_second", other.tokens_per_second)
      .field(report.document_tokens > 0 ? "mfu_inside_documents" : "mfu_palm", other.utilisation)
      .end_object();
}

void print_json(const train::BenchStepReport& report) {
  base::JsonWriter out;
  out.begin_object()
      .field("device", report.device)
      .field("model", report.model)
      .field("parameters", report.parameters)
      .field("policy", report.policy)
      .field("tokens_per_second", report.tokens_per_second)
      .field("step_seconds", report.step_seconds)
      .field("micro_batches", report.micro_batches)
      .field("document_tokens", report.document_tokens)
      .field("tflops_per_second", report.tflops_per_second);
  write_ceilings(out, report);
  write_utilisation(out, report);
  out.field("peak_memory_bytes", report.peak_memory_bytes)
      .field("ranks", report.ranks)
      .field("gathered_bytes", report.gathered_bytes)
      .field("reduced_bytes", report.reduced_bytes)
      .field("exposed_communication_seconds", report.exposed_communication_seconds)
      .field("bytes_per_rank", report.bytes_per_rank)
      .field("planned_bytes_per_rank", report.planned_bytes_per_rank)
      .field("device_used_bytes", report.device_used_bytes)
      .field("steps", report.steps)
      .field("setup_seconds", report.setup_seconds)
      .field("ceiling_seconds", report.ceiling_seconds);
  write_extrapolation(out, report);
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
  step->add_option("--extrapolate-blocks", options->options.extrapolate_blocks,
                   "Also a step with so many blocks, from the parts of the measured one: what a "
                   "block does times their number, the embedding and the head once, the "
                   "optimiser by parameters; what is in no part grows like the rest")
      ->check(CLI::PositiveNumber);
  step->add_flag("--json", options->json, "Print the report as JSON");
  step->callback([options] {
    const auto storage = base::make_disk_storage();
    if (options->ranks > 0)
      options->overrides.push_back(fmt::format("node.ranks={}", options->ranks));
    const auto config = train::load_run_config(*storage, options->config, options->overrides);
    const auto report = train::bench_step(config, options->options);
    options->json ? print_json(report) : print_text(report);
  });
  add_bench_all_reduce(*bench);
  add_bench_decode(*bench);
  add_bench_lab(*bench);
}

}  // namespace cli
