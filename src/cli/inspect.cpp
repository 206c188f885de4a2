// inspect: what is in a config, a checkpoint or a dataset, without running anything.
#include "backend/inspect.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/log.h"
#include "base/math.h"
#include "checkpoint/checkpoint.h"
#include "cli/commands.h"
#include "cli/swarm_forecast.h"
#include "data/dataset_content.h"
#include "train/memory_plan.h"
#include "train/run_config.h"

namespace cli {
namespace {

struct InspectCommand {
  std::string path;
  std::vector<std::string> overrides;
  bool json = false;
};

// What can be rented: one H100, one H200, a machine of eight H100. Bytes are what a program finds.
std::vector<train::MemoryPlan> plans_of(const train::RunConfig& config) {
  constexpr int64_t k80Gb = 78 * base::kGiB, k141Gb = 139 * base::kGiB;
  std::vector<train::MemoryPlan> plans;
  for (const train::Machine& machine : {train::Machine{.gpus = 1, .bytes_per_gpu = k80Gb},
                                        train::Machine{.gpus = 1, .bytes_per_gpu = k141Gb},
                                        train::Machine{.gpus = 8, .bytes_per_gpu = k80Gb}}) {
    plans.push_back(train::best_plan(config, machine));
  }
  return plans;
}

// A run as people would try it on the internet: 14 nodes of the plan's machine at 100 Mbit/s, which
// need nothing else than what is predicted for a step.
SwarmCase typical_swarm(double step_seconds) {
  return {.nodes = 14, .rate_mbit = {100}, .step_seconds = {step_seconds}};
}

void write_plan(base::JsonWriter& out, const train::RunConfig& config,
                const train::MemoryPlan& plan) {
  out.begin_object()
      .field("gpus", plan.machine.gpus)
      .field("gib_per_gpu", double(plan.machine.bytes_per_gpu) / double(base::kGiB))
      .field("policy", plan.policy())
      .field("fits", plan.fits())
      .field("bytes_per_gpu", plan.bytes_per_gpu())
      .field("host_bytes", plan.host_bytes)
      .field("predicted_step_seconds", train::predict_step_seconds(config, plan));
  out.key("parts").begin_object();
  for (const auto& part : plan.parts) out.field(part.name, part.bytes);
  out.end_object();
  const SwarmCase swarm = typical_swarm(train::predict_step_seconds(config, plan));
  const SwarmForecast forecast = forecast_swarm(config, swarm);
  out.key("swarm")
      .begin_object()
      .field("nodes", swarm.nodes)
      .field("rate_mbit", swarm.rate_mbit.front())
      .field("utilisation", forecast.result.utilisation)
      .field("exposed_seconds_per_round", forecast.result.exposed_seconds_per_round)
      .field("gigabytes_per_day", forecast.gigabytes_per_day)
      .field("floor_mbit", forecast.floor_mbit)
      .end_object()
      .end_object();
}

void print_plan(const train::RunConfig& config, const train::MemoryPlan& plan) {
  const double seconds = train::predict_step_seconds(config, plan);
  // A lean step is one micro-batch.
  const bool is_lean = plan.memory == shard::Parameters::Memory::kLean;
  const auto rows = double(is_lean ? config.training.micro_batch_rows : config.training.batch_rows);
  const double tokens = rows * double(config.model.sequence_length);
  std::cout << fmt::format("\n{} GPU{} of {:.0f} GiB\n{}", plan.machine.gpus,
                           plan.machine.gpus == 1 ? "" : "s",
                           double(plan.machine.bytes_per_gpu) / double(base::kGiB), plan.text());
  if (plan.fits()) {
    std::cout << fmt::format(
        "  predicted for H100-class GPUs: {:.2f} s per step of {:.0f} tokens, {:.0f} tokens/s\n",
        seconds, tokens, tokens / seconds);
    const SwarmCase swarm = typical_swarm(seconds);
    std::cout << fmt::format("  {} such nodes at {:.0f} Mbit/s: {}\n", swarm.nodes,
                             swarm.rate_mbit.front(), text_of(forecast_swarm(config, swarm)));
  }
}

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
    for (const auto& plan : plans_of(config)) print_plan(config, plan);
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("name", config.name)
      .field("parameters", model::parameter_count(model))
      .field("parameters_without_embedding", model::parameter_count_without_embedding(model))
      .field("flops_per_token_palm", model::flops_per_token_palm(model))
      .field("flops_per_token_causal", model::flops_per_token_causal(model));
  out.key("memory_plans").begin_array();
  for (const auto& plan : plans_of(config)) write_plan(out, config, plan);
  out.end_array().end_object();
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
  // An imported model has seen none.
  const bool has_data = manifest.samples_per_pass > 0;
  const double passes = has_data ? double(manifest.samples) / manifest.samples_per_pass : 0;
  int64_t left = 0;
  for (const auto& range : manifest.samples_left) left += range.count;
  if (!command.json) {
    std::cout << fmt::format("step {}, {} tokens, saved {}; all hashes match\n", manifest.step,
                             manifest.tokens_trained, manifest.wall_time)
              << fmt::format(
                     "{} samples of the run's data handed out ({:.2f} passes), {} of them "
                     "left to this node\n",
                     manifest.samples, passes, left);
    for (size_t f = 0; f < manifest.outer.size(); ++f)
      std::cout << fmt::format("outer fragment {}: round {}, digest {}\n", f,
                               manifest.outer[f].version, manifest.outer[f].digest.hex());
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("step", manifest.step)
      .field("tokens", manifest.tokens_trained)
      .field("samples", manifest.samples)
      .field("passes", passes)
      .field("samples_left", left)
      .field("wall_time", manifest.wall_time)
      .field("tokenizer", manifest.tokenizer.name);
  out.key("outer").begin_array();
  for (const auto& state : manifest.outer)
    out.begin_object()
        .field("round", state.version)
        .field("digest", state.digest.hex())
        .end_object();
  out.end_array().end_object();
  std::cout << out.text() << std::endl;
}

void write_place(base::JsonWriter& out, const std::string& name, const data::TokenPlace& place) {
  out.key(name);
  place.document < 0 ? out.null() : out.value(place.id);
}

void inspect_data(const InspectCommand& command) {
  const auto storage = base::make_disk_storage();
  const auto dataset = data::TokenDataset::open(*storage, command.path);
  const data::DatasetContent content = data::read_content(*dataset);
  if (!command.json) {
    std::cout << fmt::format(
        "{}: {} documents, {} tokens, tokenizer {}, vocabulary {}\n", command.path,
        dataset->document_count(), dataset->token_count(),
        dataset->tokenizer_name().empty() ? "unknown" : dataset->tokenizer_name(),
        dataset->vocabulary() == 0 ? "unknown" : fmt::format("{}", dataset->vocabulary()));
    const data::TokenPlace& largest = content.largest;
    if (largest.document >= 0)
      std::cout << fmt::format(
          "ids from {} to {}; the largest is first in document {} at position {}\n",
          content.smallest.id, largest.id, largest.document, largest.position);
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("documents", dataset->document_count())
      .field("tokens", dataset->token_count())
      .field("tokenizer", dataset->tokenizer_name())
      .field("vocabulary", dataset->vocabulary());
  write_place(out, "smallest_id", content.smallest);
  write_place(out, "largest_id", content.largest);
  out.field("content", content.digest.hex()).end_object();
  std::cout << out.text() << std::endl;
}

double gib(int64_t bytes) {
  return double(bytes) / double(base::kGiB);
}

void print_cuda(const backend::CudaFacts& facts) {
  if (!facts.is_built) {
    std::cout << "This program was built without the CUDA backend: it runs on the CPU.\n";
    return;
  }
  std::cout << fmt::format(
      "Built with CUDA {}; the driver knows CUDA {}\n", facts.runtime_version,
      facts.driver_version.empty() ? "nothing: there is none" : facts.driver_version);
  if (!facts.problem.empty()) std::cout << fmt::format("No GPU: {}\n", facts.problem);
  for (size_t i = 0; i < facts.devices.size(); ++i) {
    const auto& device = facts.devices[i];
    std::cout << fmt::format("GPU {}: {}, compute capability {}, {:.1f} of {:.1f} GiB free\n", i,
                             device.name, device.compute_capability, gib(device.free_bytes),
                             gib(device.total_bytes));
  }
  for (const auto& library : facts.libraries) {
    std::cout << fmt::format(
        "{:<20} {:<24} {}\n", library.name, library.purpose,
        library.path.empty() ? library.problem
                             : fmt::format("{} {}{}", library.version, library.path,
                                           library.problem.empty() ? "" : ": " + library.problem));
  }
}

void inspect_device(const InspectCommand& command) {
  const backend::CudaFacts facts = backend::inspect_cuda();
  if (!command.json) return print_cuda(facts);
  base::JsonWriter out;
  out.begin_object()
      .field("cuda", facts.is_built)
      .field("runtime_version", facts.runtime_version)
      .field("driver_version", facts.driver_version)
      .field("problem", facts.problem);
  out.key("devices").begin_array();
  for (const auto& device : facts.devices) {
    out.begin_object()
        .field("name", device.name)
        .field("compute_capability", device.compute_capability)
        .field("total_bytes", device.total_bytes)
        .field("free_bytes", device.free_bytes)
        .end_object();
  }
  out.end_array().key("libraries").begin_array();
  for (const auto& library : facts.libraries) {
    out.begin_object()
        .field("name", library.name)
        .field("purpose", library.purpose)
        .field("path", library.path)
        .field("version", library.version)
        .field("problem", library.problem)
        .end_object();
  }
  out.end_array().end_object();
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
  auto* inspect = app.add_subcommand(
      "inspect",
      "Show a config, a checkpoint, a model, a dataset, this machine's GPUs, or all config keys");
  inspect->require_subcommand(1);
  add(*inspect, "config", "The config as resolved, parameter and FLOP counts", "file",
      inspect_config);
  add(*inspect, "device", "The GPUs of this machine, and where each library of theirs was found",
      "", inspect_device);
  add(*inspect, "keys", "Every config key with its type, default, range and meaning", "",
      inspect_keys);
  add(*inspect, "checkpoint", "Verify and show a checkpoint or a run directory's newest",
      "directory", inspect_checkpoint);
  add(*inspect, "data", "Verify and show a dataset", "prefix", inspect_data);
  add_inspect_model(*inspect);
}

}  // namespace cli
