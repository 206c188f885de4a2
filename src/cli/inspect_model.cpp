// inspect model and inspect logits: what a checkpoint, or a folder of transformers, is and says.
#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "cli/commands.h"
#include "train/convert.h"
#include "train/use_checkpoint.h"

namespace cli {
namespace {

void print_logits(const train::LogitsOptions& options, bool json) {
  const auto storage = base::make_disk_storage();
  const std::vector<float> logits = train::logits_after(*storage, options);
  if (!json) {
    for (size_t id = 0; id < logits.size(); ++id)
      std::cout << fmt::format("{:>8} {:.9g}\n", id, logits[id]);
    return;
  }
  base::JsonWriter out;
  out.begin_object().key("logits").begin_array();
  for (const float logit : logits) out.value(double(logit));
  out.end_array().end_object();
  std::cout << out.text() << std::endl;
}

}  // namespace

void add_inspect_model(CLI::App& inspect) {
  auto* model = inspect.add_subcommand(
      "model",
      "The model section of a run's config that fits a checkpoint or a folder of "
      "Hugging Face's transformers");
  auto path = std::make_shared<std::string>();
  model->add_option("directory", *path)->required();
  model->callback([path] {
    std::cout << train::model_section(*base::make_disk_storage(), *path) << std::endl;
  });

  auto* logits = inspect.add_subcommand(
      "logits",
      "What a checkpoint's model says comes after these tokens, to compare it with others");
  auto options = std::make_shared<train::LogitsOptions>();
  auto json = std::make_shared<bool>(false);
  logits->add_option("directory", options->checkpoint, "A checkpoint's folder or a run directory")
      ->required();
  logits->add_option("--ids", options->ids, "Tokens of one document, from its begin: 1,2,3")
      ->delimiter(',')
      ->required();
  logits->add_option("--threads", options->threads, "CPU threads; 0: all")
      ->check(CLI::NonNegativeNumber);
  logits->add_option("--device", options->device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  logits->add_flag("--json", *json, "Print as JSON");
  logits->callback([options, json] { print_logits(*options, *json); });
}

}  // namespace cli
