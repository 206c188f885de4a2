#include "cli/dry_run.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>

#include "base/json.h"
#include "base/math.h"

namespace cli {
namespace {

using train::DryRunReport;

// A value that was parsed, written again inside of another text.
void write_value(base::JsonWriter& out, const base::JsonValue& value) {
  if (value.is_object()) {
    out.begin_object();
    for (const std::string& key : value.keys()) write_value(out.key(key), *value.get(key));
    out.end_object();
  } else if (value.is_array()) {
    out.begin_array();
    for (int64_t i = 0; i < value.count(); ++i) write_value(out, *value.at(i));
    out.end_array();
  } else if (const auto truth = value.as_boolean()) {
    out.value(*truth);
  } else if (const auto integer = value.as_integer()) {
    out.value(*integer);
  } else if (const auto number = value.as_number()) {
    out.value(*number);
  } else if (const auto text = value.as_string()) {
    out.value(*text);
  } else {
    out.null();
  }
}

void write_config_and_start(base::JsonWriter& out, const train::RunConfig& config,
                            const DryRunReport& report) {
  write_value(out.key("config"), *base::JsonValue::parse(train::to_json(config)));
  out.field("parameters", report.parameters).key("resumed_step");
  report.resumed_step < 0 ? out.null() : out.value(report.resumed_step);
  out.key("time_outs").begin_array();
  for (const auto& one : report.time_outs) {
    out.begin_object()
        .field("key", one.key)
        .field("seconds", one.seconds)
        .field("from", one.from)
        .end_object();
  }
  out.end_array();
  out.key("data")
      .begin_object()
      .field("documents", report.data.documents)
      .field("tokens", report.data.tokens)
      .field("tokenizer", report.data.tokenizer)
      .field("samples_per_pass", report.data.samples_per_pass)
      .field("passes", report.data.passes)
      .end_object();
}

void write_memory(base::JsonWriter& out, const DryRunReport& report) {
  out.key("memory")
      .begin_object()
      .field("machine", report.machine)
      .field("devices", report.memory.machine.gpus)
      .field("policy", report.memory.policy())
      .field("fits", report.refusal.empty())
      .field("bytes_per_device", report.memory.bytes_per_gpu())
      .field("device_bytes", report.memory.machine.bytes_per_gpu)
      .field("host_bytes", report.node_memory_bytes);
  out.key("parts").begin_object();
  for (const auto& part : report.memory.parts) out.field(part.name, part.bytes);
  out.end_object().end_object();
}

void write_price(base::JsonWriter& out, std::string_view name, double price) {
  out.key(name);
  price < 0 ? out.null() : out.value(price);
}

void write_estimate(base::JsonWriter& out, const DryRunReport& report) {
  const train::RunEstimate& estimate = report.estimate;
  out.key("step")
      .begin_object()
      .field("seconds", report.step_seconds)
      .field("tokens", report.tokens_per_step)
      .field("tokens_per_second", report.tokens_per_step / report.step_seconds)
      .field("basis", report.step_basis)
      .end_object();
  out.key("estimate")
      .begin_object()
      .field("nodes", report.nodes)
      .field("rate_mbit", report.rate_mbit)
      .field("utilisation", estimate.utilisation)
      .field("steps_per_day", estimate.steps_per_day)
      .field("hours", estimate.hours)
      .field("gigabytes_per_day", estimate.gigabytes_per_day)
      .field("floor_mbit", estimate.floor_mbit)
      .field("longest_round_seconds", estimate.longest_round_seconds);
  write_price(out, "traffic_price_per_day", estimate.traffic_price_per_day);
  write_price(out, "machine_price_per_day", estimate.machine_price_per_day);
  write_price(out, "price", estimate.price);
  out.end_object();
  out.key("disk")
      .begin_object()
      .field("checkpoint_bytes", report.disk.checkpoint_bytes)
      .field("hugging_face_bytes", report.disk.hugging_face_bytes)
      .field("needed_bytes", report.disk.needed_bytes)
      .key("free_bytes");
  report.disk_free_bytes < 0 ? out.null() : out.value(report.disk_free_bytes);
  out.end_object();
}

void print_json(const train::RunConfig& config, const DryRunReport& report) {
  base::JsonWriter out;
  out.begin_object();
  write_config_and_start(out, config, report);
  write_memory(out, report);
  write_estimate(out, report);
  out.key("warnings").begin_array();
  for (const std::string& text : report.warnings) out.value(text);
  out.end_array().key("refusal");
  report.refusal.empty() ? out.null() : out.value(report.refusal);
  out.end_object();
  std::cout << out.text() << std::endl;
}

double gigabytes(int64_t bytes) {
  return double(bytes) / 1e9;
}

std::string time_text(double hours) {
  if (hours >= 48) return fmt::format("{:.1f} days", hours / 24);
  return hours >= 1 ? fmt::format("{:.1f} hours", hours)
                    : fmt::format("{:.1f} minutes", hours * 60);
}

void print_swarm(const DryRunReport& report) {
  const train::RunEstimate& estimate = report.estimate;
  if (report.nodes < 2) return;
  std::cout << fmt::format(
      "swarm     {} nodes at {:.0f} Mbit/s: {:.1f} % of the time is training, {:.1f} GB a day and "
      "node each way, the longest round {:.1f} s\n",
      report.nodes, report.rate_mbit, 100 * estimate.utilisation, estimate.gigabytes_per_day,
      estimate.longest_round_seconds);
}

void print_prices(const DryRunReport& report) {
  const train::RunEstimate& estimate = report.estimate;
  if (estimate.price < 0) {
    std::cout << "price     --price-per-gb and --price-per-gpu-hour tell it\n";
    return;
  }
  std::string parts;
  if (estimate.traffic_price_per_day >= 0)
    parts += fmt::format(" {:.2f} for traffic", estimate.traffic_price_per_day);
  if (estimate.machine_price_per_day >= 0)
    parts += fmt::format("{} {:.2f} for the machine", parts.empty() ? "" : " and",
                         estimate.machine_price_per_day);
  std::cout << fmt::format("price     a node costs{} a day; the run {:.2f}\n", parts,
                           estimate.price);
}

void print_text(const train::RunConfig& config, const DryRunReport& report) {
  std::cout << train::to_json(config) << "\n\n"
            << fmt::format("run       {}: {} parameters, {} steps, {}\n", config.name,
                           report.parameters, config.training.steps,
                           report.resumed_step < 0
                               ? "from the beginning"
                               : fmt::format("from the checkpoint of step {}", report.resumed_step))
            << fmt::format(
                   "data      {} documents, {} tokens ({}); all nodes go through it {:.2f} "
                   "times\n",
                   report.data.documents, report.data.tokens,
                   report.data.tokenizer.empty() ? "tokenizer unknown" : report.data.tokenizer,
                   report.data.passes);
  std::cout << fmt::format("memory    {}\n{}", report.machine, report.memory.text());
  std::cout << fmt::format("step      {:.3g} s, {:.0f} tokens/s ({})\n", report.step_seconds,
                           report.tokens_per_step / report.step_seconds, report.step_basis);
  print_swarm(report);
  std::cout << fmt::format("time      {} until the last step\n", time_text(report.estimate.hours));
  print_prices(report);
  std::cout << fmt::format(
      "disk      {:.3g} GB a checkpoint, {:.3g} GB in all{}\n",
      gigabytes(report.disk.checkpoint_bytes), gigabytes(report.disk.needed_bytes),
      report.disk_free_bytes < 0
          ? ""
          : fmt::format("; {:.3g} GB free", gigabytes(report.disk_free_bytes)));
  for (const auto& one : report.time_outs)
    std::cout << fmt::format("time-out  {:<36}{:>8.4g} s  {}\n", one.key, one.seconds, one.from);
  for (const std::string& text : report.warnings) std::cout << "WARNING   " << text << "\n";
  std::cout << std::flush;
}

}  // namespace

void add_dry_run_options(CLI::App& train, DryRunCommand& command) {
  train::DryRunOptions& options = command.options;
  auto* dry_run = train.add_flag(
      "--dry-run", command.is_wanted,
      "Start nothing: print the config as resolved, and what memory, time, traffic and disk the "
      "run would take; refuse what a start would refuse");
  std::vector<CLI::Option*> needing = {
      train
          .add_option("--nodes", options.nodes, "Nodes of the run; by default swarm.start_members")
          ->check(CLI::Range(1, 64)),
      train
          .add_option("--rate-mbit", options.rate_mbit,
                      "What a node's line carries, in the direction that has less")
          ->check(CLI::PositiveNumber)
          ->capture_default_str(),
      train.add_option("--rtt-ms", options.round_trip_ms, "Round trip between two nodes")
          ->check(CLI::NonNegativeNumber),
      train.add_option("--step-seconds", options.step_seconds, "What a step takes a node")
          ->check(CLI::PositiveNumber),
      train.add_option("--tokens-per-second", options.tokens_per_second, "What a node trains on")
          ->check(CLI::PositiveNumber),
      train
          .add_option("--measure-steps", options.measured_steps,
                      "Time so many steps on this machine instead of guessing")
          ->check(CLI::Range(1, 1000)),
      train
          .add_option("--gpus", options.gpus,
                      "Plan for a node of so many GPUs instead of this machine")
          ->check(CLI::Range(1, 64)),
      train.add_option("--gib-per-gpu", options.gib_per_gpu, "Memory of each of them")
          ->check(CLI::PositiveNumber)
          ->capture_default_str(),
      train.add_option("--price-per-gb", options.price_per_gb, "Of what a node sends")
          ->check(CLI::NonNegativeNumber),
      train
          .add_option("--price-per-gpu-hour", options.price_per_gpu_hour,
                      "Of a GPU; of the node where it has none")
          ->check(CLI::NonNegativeNumber)};
  for (CLI::Option* option : needing) option->needs(dry_run)->group("With --dry-run");
}

void print_dry_run(const train::RunConfig& config, const DryRunReport& report, bool json) {
  json ? print_json(config, report) : print_text(config, report);
  if (!report.refusal.empty())
    throw base::bad_input(report.refusal, "change the config, or take larger machines");
}

}  // namespace cli
