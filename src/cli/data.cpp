// prepare: text to a token dataset.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/log.h"
#include "base/math.h"
#include "cli/commands.h"
#include "data/prepare.h"

namespace cli {
namespace {

struct PrepareCommand {
  data::PrepareOptions options;
  std::string tokenizer = "bytes";
  bool json = false;
};

void print_report(const PrepareCommand& command, const data::PrepareReport& report) {
  if (!command.json) {
    base::log_info("{}: {} documents, {} tokens from {:.1f} MiB of text; {} files skipped",
                   command.options.output_prefix, report.documents, report.tokens,
                   double(report.bytes) / double(base::kMiB), report.skipped_files);
    return;
  }
  base::JsonWriter out;
  out.begin_object()
      .field("output", command.options.output_prefix)
      .field("documents", report.documents)
      .field("tokens", report.tokens)
      .field("bytes", report.bytes)
      .field("skipped_files", report.skipped_files)
      .end_object();
  std::cout << out.text() << std::endl;
}

}  // namespace

void add_prepare(CLI::App& app) {
  auto* command = app.add_subcommand(
      "prepare", "Turn text files into a token dataset (Megatron indexed format)");
  auto options = std::make_shared<PrepareCommand>();
  command->add_option("--input", options->options.inputs, "Text files, .jsonl files, or folders")
      ->required();
  command
      ->add_option("--output", options->options.output_prefix, "Prefix of the .bin and .idx files")
      ->required();
  command->add_option("--tokenizer", options->tokenizer, "bytes")->capture_default_str();
  command->add_option("--field", options->options.jsonl_field, "The text's key in .jsonl lines")
      ->capture_default_str();
  command->add_option("--max-bytes", options->options.input_bytes_max,
                      "Stop after so many bytes of text; 0: no limit");
  command->add_flag("--json", options->json, "Print the report as JSON");
  command->callback([options] {
    const auto storage = base::make_disk_storage();
    const auto tokenizer = data::make_tokenizer(options->tokenizer);
    int64_t reported_bytes = 0;
    const auto progress = [&](int64_t bytes) {
      if (bytes - reported_bytes < 64 * base::kMiB) return;
      reported_bytes = bytes;
      base::log_info("{} MiB read", bytes / base::kMiB);
    };
    print_report(*options, data::prepare(*storage, *tokenizer, options->options, progress));
  });
}

}  // namespace cli
