// inspect: what is in a config, a checkpoint or a dataset, without running anything.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/log.h"
#include "checkpoint/checkpoint.h"
#include "cli/commands.h"
#include "data/token_dataset.h"
#include "train/run_config.h"

namespace cli {
namespace {

struct InspectCommand {
  std::string path;
  std::vector<std::string> overrides;
  bool json = false;
};

void inspect_config(const InspectCommand& command) {
  const auto storage = base::make_disk_storage();
  const auto config = train::load_run_config(*storage, command.path, command.overrides);
  const auto& model = config.model;
  if (!command.json) {
    std::cout << train::to_json(config) << "\n"
              << fmt::format("{} parameters ({} without the embedding)\n",
                             model::parameter_count(model),
                             model::parameter_count_without_embedding(model))
              << fmt::format("{:.2f} GFLOP per token (PaLM), {:.2f} (causal)\n",
                             model::flops_per_token_palm(model) * 1e-9,
                             model::flops_per_token_causal(model) * 1e-9);
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("name", config.name)
      .field("parameters", model::parameter_count(model))
      .field("parameters_without_embedding", model::parameter_count_without_embedding(model))
      .field("flops_per_token_palm", model::flops_per_token_palm(model))
      .field("flops_per_token_causal", model::flops_per_token_causal(model))
      .end_object();
  std::cout << out.text() << std::endl;
}

// Markdown between two headings of configs/README.md comes from here.
void inspect_keys(const InspectCommand& command) {
  train::RunConfig defaults;
  const auto keys =
      base::list_config_keys([&](base::ConfigVisitor& v) { train::describe(v, defaults); });
  if (command.json) {
    base::JsonWriter out;
    out.begin_array();
    for (const auto& key : keys) {
      out.begin_object()
          .field("key", key.path)
          .field("type", key.type)
          .field("default", key.default_value)
          .field("range", key.range)
          .field("help", key.help)
          .end_object();
    }
    out.end_array();
    std::cout << out.text() << std::endl;
    return;
  }
  std::cout << "| key | type | default | range | meaning |\n|---|---|---|---|---|\n";
  for (const auto& key : keys)
    std::cout << fmt::format("| `{}` | {} | {} | {} | {} |\n", key.path, key.type,
                             key.default_value, key.range, key.help);
}

void inspect_checkpoint(const InspectCommand& command) {
  const auto storage = base::make_disk_storage();
  const auto reader =
      storage->exists(command.path + "/manifest.json")
          ? checkpoint::Reader::open(*storage, command.path)
          : checkpoint::open_newest(*storage, command.path,
                                    [](const std::string& text) { base::log_warning("{}", text); });
  if (!reader)
    throw base::bad_input(fmt::format("{}: no checkpoint", command.path),
                          "name a checkpoint or a run directory");
  const auto& manifest = reader->manifest();
  if (!command.json) {
    std::cout << fmt::format("step {}, {} tokens, saved {}; all hashes match\n", manifest.step,
                             manifest.tokens_trained, manifest.wall_time);
    for (size_t f = 0; f < manifest.outer.size(); ++f)
      std::cout << fmt::format("outer fragment {}: round {}, digest {}\n", f,
                               manifest.outer[f].version, manifest.outer[f].digest.hex());
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("step", manifest.step)
      .field("tokens", manifest.tokens_trained)
      .field("wall_time", manifest.wall_time)
      .field("tokenizer", manifest.tokenizer);
  out.key("outer").begin_array();
  for (const auto& state : manifest.outer)
    out.begin_object()
        .field("round", state.version)
        .field("digest", state.digest.hex())
        .end_object();
  out.end_array().end_object();
  std::cout << out.text() << std::endl;
}

void inspect_data(const InspectCommand& command) {
  const auto storage = base::make_disk_storage();
  const auto dataset = data::TokenDataset::open(*storage, command.path);
  if (!command.json) {
    std::cout << fmt::format(
        "{}: {} documents, {} tokens, tokenizer {}, vocabulary {}\n", command.path,
        dataset->document_count(), dataset->token_count(),
        dataset->tokenizer_name().empty() ? "unknown" : dataset->tokenizer_name(),
        dataset->vocabulary());
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("documents", dataset->document_count())
      .field("tokens", dataset->token_count())
      .field("tokenizer", dataset->tokenizer_name())
      .field("vocabulary", dataset->vocabulary())
      .end_object();
  std::cout << out.text() << std::endl;
}

void add(CLI::App& parent, const std::string& name, const std::string& help,
         const std::string& argument, void (*run)(const InspectCommand&)) {
  auto* command = parent.add_subcommand(name, help);
  auto options = std::make_shared<InspectCommand>();
  if (!argument.empty()) command->add_option(argument, options->path)->required();
  if (name == "config")
    command->add_option("--set", options->overrides, "Override one key")->allow_extra_args(false);
  command->add_flag("--json", options->json, "Print as JSON");
  command->callback([options, run] { run(*options); });
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto* inspect =
      app.add_subcommand("inspect", "Show a config, a checkpoint, a dataset, or all config keys");
  inspect->require_subcommand(1);
  add(*inspect, "config", "The config as resolved, parameter and FLOP counts", "file",
      inspect_config);
  add(*inspect, "keys", "Every config key with its type, default, range and meaning", "",
      inspect_keys);
  add(*inspect, "checkpoint", "Verify and show a checkpoint or a run directory's newest",
      "directory", inspect_checkpoint);
  add(*inspect, "data", "Verify and show a dataset", "prefix", inspect_data);
}

}  // namespace cli
