// bench decode: how fast a model writes.
#include "train/bench_decode.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/math.h"
#include "cli/commands.h"

namespace cli {
namespace {

struct DecodeBenchCommand {
  std::string config;
  std::vector<std::string> overrides;
  train::DecodeBenchOptions options;
  bool json = false;
};

void print_json(const DecodeBenchCommand& command, const train::DecodeBenchReport& report) {
  base::JsonWriter out;
  out.begin_object()
      .field("device", report.device)
      .field("model", report.model)
      .field("parameters", report.parameters)
      .field("prompt_tokens", command.options.prompt_tokens)
      .field("tokens", command.options.tokens)
      .field("sequences", command.options.sequences)
      .field("prompt_tokens_per_second", report.prompt_tokens_per_second)
      .field("tokens_per_second", report.tokens_per_second)
      .field("token_seconds", report.token_seconds)
      .field("cache_bytes", report.cache_bytes)
      .end_object();
  std::cout << out.text() << std::endl;
}

void print_text(const DecodeBenchCommand& command, const train::DecodeBenchReport& report) {
  std::cout << fmt::format(
      "{}: {} parameters on {}\n{} x {} tokens of prompt: {:.0f} tokens/s\nthen {} x {} tokens: "
      "{:.1f} tokens/s, {:.2f} ms from one to the next; {:.1f} MiB of keys and values\n",
      report.model, report.parameters, report.device, command.options.sequences,
      command.options.prompt_tokens, report.prompt_tokens_per_second, command.options.sequences,
      command.options.tokens, report.tokens_per_second, 1e3 * report.token_seconds,
      double(report.cache_bytes) / double(base::kMiB));
}

}  // namespace

void add_bench_decode(CLI::App& bench) {
  auto* decode = bench.add_subcommand(
      "decode", "A config's model, with initial weights, writes after a random prompt");
  auto command = std::make_shared<DecodeBenchCommand>();
  auto& options = command->options;
  decode->add_option("--config", command->config, "The run's JSON config")->required();
  decode->add_option("--set", command->overrides, "Override one key")->allow_extra_args(false);
  decode->add_option("--prompt-tokens", options.prompt_tokens, "Of each sequence")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  decode->add_option("--tokens", options.tokens, "Written after the prompt")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  decode->add_option("--sequences", options.sequences, "That write side by side")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  decode->add_option("--batch-rows", options.batch_rows, "Tokens of prompts computed together")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  decode->add_flag("--json", command->json, "Print the report as JSON");
  decode->callback([command] {
    const auto storage = base::make_disk_storage();
    const auto config = train::load_run_config(*storage, command->config, command->overrides);
    const auto report = train::bench_decode(config, command->options);
    command->json ? print_json(*command, report) : print_text(*command, report);
  });
}

}  // namespace cli
